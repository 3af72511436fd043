"""Notifies a release board of the outcome of each deploy, if `RELEASE_BOARD_URL` names one."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from typing import Any

import httpx2

from pipeline.deploy.evidence import summary_line
from pipeline.proof.report import Report
from pipeline.releases.model import SHORT, short, stays

__all__ = ["tell"]

log = logging.getLogger(__name__)

TIMEOUT = httpx2.Timeout(5, connect=3)  # seconds; a board that is down must not hold up a deploy
TRIES = 2  # the Idempotency-Key makes a second try safe
LONGEST_NOTES = 10_000


def tell(service: str, report: Report, environ: Mapping[str, str] = os.environ) -> None:
    """Record `report` of `service` on the board at `RELEASE_BOARD_URL`, with `RELEASE_BOARD_TOKEN` as bearer token.

    A failure never affects the deploy: the log gets at most one line, without the token or anything the address hides.
    """
    address, token = environ.get("RELEASE_BOARD_URL", "").strip(), environ.get("RELEASE_BOARD_TOKEN", "").strip()
    if not address or report.verdict == "unchanged":  # nothing was released
        return
    problem = "RELEASE_BOARD_TOKEN: not set" if not token else _send(address, token, _release(service, report, environ))
    if problem:
        log.warning(f"could not notify the release board: {problem}")


def _release(service: str, report: Report, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the body of the board's `POST /api/v1/releases` and its idempotency key."""
    commit, run, rollback = report.commit or "", environ.get("GITHUB_RUN_ID"), report.rollback
    undone = "rolled_back" if rollback and rollback.verdict == "proved" else "failed"
    body = {
        "service": service,
        "environment": report.environment,
        "version": short(report.release) or commit[:SHORT] or "unknown",
        "status": "deployed" if stays(report.verdict, undone=rollback is not None) else undone,
        "commit": commit if re.fullmatch(r"[0-9a-f]{7,64}", commit) else None,
        "url": f"{environ.get('GITHUB_SERVER_URL')}/{environ.get('GITHUB_REPOSITORY')}/actions/runs/{run}"
        if run
        else report.url,
        "notes": summary_line(report).replace("\0", "")[:LONGEST_NOTES],
    }
    identity = f"{service} {report.environment} {report.number} {report.started} {report.release}"
    return {"key": hashlib.sha256(identity.encode()).hexdigest(), "body": body}


def _send(address: str, token: str, release: dict[str, Any]) -> str | None:
    """Send `release` to the board; return what went wrong, or None once the board has it."""
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": release["key"]}
    problem = None
    for _ in range(TRIES):
        try:
            url = httpx2.URL(f"{address.rstrip('/')}/api/v1/releases")
            where = f"{url.scheme}://{url.host}{f':{url.port}' if url.port else ''}"
            answer = httpx2.post(url, json=release["body"], headers=headers, timeout=TIMEOUT)
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
            return "RELEASE_BOARD_URL: must be an http or https address"
        except httpx2.TransportError as error:
            problem = f"{where} does not answer ({type(error).__name__})"
        except UnicodeEncodeError:
            return "RELEASE_BOARD_TOKEN: contains characters that are not allowed in a token"
        else:
            if answer.is_success:
                return None
            hint = (
                "RELEASE_BOARD_TOKEN is not the board's SERVICE_TOKEN"
                if answer.status_code == httpx2.codes.UNAUTHORIZED
                else ""
            )
            problem = f"{where} answers {answer.status_code}{f': {hint}' if hint else ''}"
            if answer.status_code < httpx2.codes.INTERNAL_SERVER_ERROR:
                return problem
    return problem
