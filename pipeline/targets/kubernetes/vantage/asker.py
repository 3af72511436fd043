"""Asks a Prometheus the same questions again and again, and prints its answers.

Runs by itself on the service's image (Python, standard library alone: `python -I -S asker.py ORDERS`), so it imports
nothing of ours. ORDERS is a file:

    {"address": "http://prometheus.monitoring:9090", "questions": ["/api/v1/alerts", …], "every": 5, "warm_up": 15}

Prints a JSON line `every` so many seconds, with `answers`: for each question `status` and `body`, or the `problem`. Of
alerts the line has those that are a reason to go back: others may be many. It ends with SIGTERM.
"""

from __future__ import annotations

import http.client
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ANSWER_SECONDS = 3.0  # to connect, and without a byte
WARM_UP_PAUSE = 0.5  # seconds: a network policy or a DNS entry may still be on its way
MOST_BYTES = 4 * 2**20  # of an answer: the pod has 96 MiB
SAID = 2000  # characters of an answer that has no alerts: a number, or why there is none


def ask(address: str, question: str) -> dict[str, Any]:
    """Return what is answered to a `question`, a path with its query."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}{question}", headers={"User-Agent": "slipway-watch"})
        answer = connection.getresponse()
        body = answer.read(MOST_BYTES + 1)
    except TimeoutError:
        return {"problem": "did not answer in time"}
    except (OSError, http.client.HTTPException, ValueError) as error:
        return {"problem": f"does not answer: {str(error) or type(error).__name__}"}
    finally:
        connection.close()
    if len(body) > MOST_BYTES:
        return {"problem": "does not come to an end with its answer"}
    return {"status": answer.status, "body": brief(body.decode("utf-8", "replace"))}


def brief(body: str) -> str:
    """Return what a watch needs of an answer."""
    try:
        alerts = json.loads(body)["data"]["alerts"]
        reasons = [one for one in alerts if one["labels"].get("rollback") == "true"]
    except (ValueError, LookupError, TypeError, AttributeError):
        return body[:SAID]
    return json.dumps({"data": {"alerts": reasons}})


def main(orders: dict[str, Any]) -> None:
    """Ask until SIGTERM. What fails in the first moments is asked again before it is said."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the first process of a container does not end by itself
    warm = time.monotonic() + orders["warm_up"]
    while True:
        answers = {question: ask(orders["address"], question) for question in orders["questions"]}
        if time.monotonic() < warm and any("problem" in one for one in answers.values()):
            time.sleep(WARM_UP_PAUSE)
            continue
        warm = 0.0
        sys.stdout.write(json.dumps({"answers": answers}) + "\n")
        sys.stdout.flush()
        time.sleep(orders["every"])


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
