"""A second view of a rollout, from beside the service: steady reads, each over a connection of its own.

Runs by itself on the service's image (Python 3.13, standard library alone: `python -I -S probe.py JOB`), so it imports
nothing of ours. JOB is a file:

    {"url": "http://backend:8000", "rate": 10, "seconds": 300, "timeout": 10, "warm_up": 15, "token_file": PATH or null,
     "requests": [{"name": …, "path": …, "status": 200, "weight": 3, "headers": {}}, …],
     "metrics": {"host": "vantage-metrics", "port": 9090, "every": 2} or null}

Prints a JSON line at the first right answer (what was sent before is not counted), and one with all it saw after
`seconds` or at SIGTERM. The model is open: a request is sent when it is due, whatever became of those before. With
`metrics`, it also prints a line `every` so many seconds: how many 5xx answers each address of that host has counted
itself, and how many of them this script got.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import math
import re
import signal
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

EXAMPLES = 5  # of each kind
MOST_TIMES = 1000  # failures whose time is reported
SERVER_ERROR = 500
METRICS_SECONDS = 3.0  # for one answer of /metrics
# A counter of requests by status, as every library for Prometheus has one: `http_requests_total{…,status="503"} 4`.
COUNTER = re.compile(r"http\w*requests\w*_total\{(?P<labels>.*)\} (?P<value>\S+)")
SERVER_ERRORS = re.compile(r'(?:^|,)(?:status|code|status_code|http_status)="5(?:\d\d|xx)"', re.IGNORECASE)
# A pod that drains or starts answers the kubelet with 503, and the kubelet is not a user.
PROBED = re.compile(r'"/(?:ready|health)"')
WARM_UP_PAUSE = 0.2  # seconds: a network policy or a DNS entry may still be on its way


class RequestFailed(Exception):
    """No right answer: `kind` is dns, refused, reset, timeout, 5xx or status."""

    def __init__(self, kind: str, detail: str, status: int | None = None, release: str | None = None) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.status, self.release = kind, detail, status, release


class _Received:
    """Bytes in place of the socket that `http.client` reads an answer from."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def makefile(self, mode: str) -> io.BytesIO:
        """Return the bytes as a file."""
        return io.BytesIO(self._content)


class Probe:
    """Sends what `job` says, and counts the answers."""

    def __init__(self, job: dict[str, Any]) -> None:
        parts = urlsplit(job["url"])
        self._host, self._port, self._netloc = parts.hostname or "", parts.port or 80, parts.netloc
        self._job = job
        self._turns = _interleaved(job["requests"])
        token = Path(job["token_file"]).read_text().strip() if job.get("token_file") else ""
        self._authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self._by_release: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._examples: list[dict[str, Any]] = []
        self._times: list[list[float]] = []
        self._latencies: list[float] = []
        self._started = time.time()

    async def warm_up(self) -> bool:
        """Wait for a first right answer, `warm_up` seconds at most; return whether there was one."""
        end = time.monotonic() + self._job.get("warm_up", 15)
        while time.monotonic() < end:
            try:
                async with asyncio.timeout(max(0.1, end - time.monotonic())):
                    await self._ask(self._turns[0])
            except (RequestFailed, TimeoutError):
                await asyncio.sleep(WARM_UP_PAUSE)
            else:
                return True
        return False

    async def run(self, over: asyncio.Event) -> None:
        """Send until `over` is set or the job's time is up, and wait for every request that was sent."""
        self._started = time.time()
        first, count = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while count < self._job["seconds"] * self._job["rate"]:
                due = first + count / self._job["rate"]
                try:
                    await asyncio.wait_for(over.wait(), max(0.0, due - time.monotonic()))
                except TimeoutError:
                    group.create_task(self._count(self._turns[count % len(self._turns)], due))
                    count += 1
                else:
                    break

    async def look(self, host: str, port: int, every: float) -> None:
        """Print what each address of `host` has counted, until cancelled."""
        while True:
            try:
                addresses = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)
            except OSError:  # the name does not exist yet
                addresses = []
            places = sorted({(str(one[4][0]), int(one[4][1])) for one in addresses})
            counts = await asyncio.gather(*(self._counted(*place) for place in places))
            known = {place[0]: count for place, count in zip(places, counts, strict=True) if count is not None}
            _say({"errors": known, "own": self._failures["5xx"]})
            await asyncio.sleep(every)

    async def _counted(self, host: str, port: int) -> int | None:
        """Return the errors that a pod has counted; None where it does not say."""
        shown = f"[{host}]" if ":" in host else host
        asked = f"GET /metrics HTTP/1.1\r\nHost: {shown}:{port}\r\nConnection: close\r\n\r\n".encode()
        try:
            async with asyncio.timeout(METRICS_SECONDS):
                status, _, body = _parsed(await _exchange(asked, host, port))
        except (RequestFailed, TimeoutError):
            return None
        return errors_in(body.decode("utf-8", "replace")) if status == http.HTTPStatus.OK else None

    def result(self) -> dict[str, Any]:
        """Return all that was seen; times are seconds since the Unix epoch."""
        ok, failed = sum(self._by_release.values()), sum(self._failures.values())
        ordered = sorted(self._latencies)
        ranks = {"p50": 0.5, "p99": 0.99, "max": 1.0} if ok else {}
        return {
            "sent": ok + failed,
            "ok": ok,
            "failed": failed,
            "by_release": dict(self._by_release),
            "failures": dict(self._failures),
            "examples": self._examples,
            "times": self._times,
            "latency_ms": {name: round(ordered[math.ceil(share * ok) - 1], 2) for name, share in ranks.items()},
            "started": self._started,
            "finished": time.time(),
        }

    async def _count(self, request: dict[str, Any], due: float) -> None:
        at, timeout = time.time(), request.get("seconds") or self._job.get("timeout", 10)
        try:
            async with asyncio.timeout(timeout):
                release = await self._ask(request)
        except RequestFailed as error:
            self._failed(request, at, error)
        except TimeoutError:
            self._failed(request, at, RequestFailed("timeout", f"no answer within {timeout:g} s"))
        else:
            self._by_release[release] += 1
            self._latencies.append((time.monotonic() - due) * 1000)

    def _failed(self, request: dict[str, Any], at: float, error: RequestFailed) -> None:
        self._failures[error.kind] += 1
        if len(self._times) < MOST_TIMES:
            self._times.append([round(at, 3), round(time.time(), 3)])
        if self._failures[error.kind] <= EXAMPLES:
            facts = {"kind": error.kind, "at": at, "request": request["name"], "path": request["path"]}
            answer = {"status": error.status, "release": error.release, "detail": error.detail[:300]}
            self._examples.append({**facts, **answer})

    async def _ask(self, request: dict[str, Any]) -> str:
        """Return the release that gave the right answer. Raise `RequestFailed` for anything else."""
        status, release, body = _parsed(await self._exchanged(self._written(request)))
        if status != request.get("status", 200):
            kind = "5xx" if status >= SERVER_ERROR else "status"
            detail = f"{status} {body[:200].decode('utf-8', 'replace')}".strip()
            raise RequestFailed(kind, detail, status, release or None)
        return release

    def _written(self, request: dict[str, Any]) -> bytes:
        unique = uuid.uuid4().hex
        own = "".join(f"{name}: {value}\r\n" for name, value in request.get("headers", {}).items())
        text = (
            f"GET {request['path']} HTTP/1.1\r\nHost: {self._netloc}\r\nConnection: close\r\nX-Request-ID: {unique}\r\n"
            f"User-Agent: slipway-vantage\r\nSlipway-Synthetic: true\r\nAccept: */*\r\n{self._authorization}{own}\r\n"
        )
        return text.replace("{unique}", unique[:16]).encode("latin-1")

    async def _exchanged(self, content: bytes) -> bytes:
        try:
            addresses = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=1)
        except OSError as error:
            raise RequestFailed("dns", f"no address for {self._host}: {error}") from error
        return await _exchange(content, *addresses[0][4][:2])


async def _exchange(content: bytes, host: str | int, port: str | int) -> bytes:
    try:
        reader, writer = await asyncio.open_connection(str(host), int(port))
    except OSError as error:
        raise RequestFailed("refused", f"no connection: {error}") from error
    try:
        writer.write(content)
        return await reader.read()
    except OSError as error:
        raise RequestFailed("reset", f"the connection broke before the answer was whole: {error}") from error
    finally:
        writer.transport.abort()  # the answer is over, or nobody waits for it


def errors_in(metrics: str) -> int:
    """Return how many 5xx answers the `metrics` of a process count, in the text format of Prometheus."""
    counters = [match for line in metrics.splitlines() if (match := COUNTER.match(line))]
    return sum(
        round(float(one["value"]))
        for one in counters
        if SERVER_ERRORS.search(one["labels"]) and not PROBED.search(one["labels"])
    )


def _parsed(content: bytes) -> tuple[int, str, bytes]:
    """Return status, release and body of an answer. Raise `RequestFailed` where it is cut short."""
    answer = http.client.HTTPResponse(_Received(content), method="GET")  # type: ignore[arg-type]
    try:
        if content and b"\r\n\r\n" not in content:  # http.client takes the file's end for the headers' end
            raise http.client.IncompleteRead(content)
        answer.begin()
        body = answer.read()
    except (http.client.HTTPException, ConnectionError, ValueError) as error:
        detail = f"the connection broke before the answer was whole: {type(error).__name__} {error}"
        raise RequestFailed("reset", detail) from error
    return answer.status, answer.getheader("X-Release") or "", body


def _interleaved(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each request as often as its weight says, spread evenly."""
    # One that fails shows at once, and not in a burst.
    spread = [((n + 0.5) / request["weight"], request) for request in requests for n in range(request["weight"])]
    return [request for _, request in sorted(spread, key=lambda pair: pair[0])]


async def _main(job: dict[str, Any]) -> None:
    over, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    probe = Probe(job)
    warm = asyncio.ensure_future(probe.warm_up())
    stopped = asyncio.ensure_future(over.wait())
    await asyncio.wait({warm, stopped}, return_when=asyncio.FIRST_COMPLETED)
    answered = warm.done() and warm.result()
    warm.cancel()
    _say({"ready": answered, "at": time.time()})
    looks = [asyncio.ensure_future(probe.look(**job["metrics"]))] if job.get("metrics") else []
    await probe.run(over)
    for task in (stopped, *looks):
        task.cancel()
    _say({"result": probe.result()})


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main(json.loads(Path(sys.argv[1]).read_text())))
