"""Notifies a release board of the outcome of each deploy, if `RELEASE_BOARD_URL` names one."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from pipeline.deploy.evidence import summary_line
from pipeline.proof.report import Report
from pipeline.releases.model import SHORT, short, stays

__all__ = ["retell", "tell"]

log = logging.getLogger(__name__)

TIMEOUT = httpx2.Timeout(5, connect=3)  # seconds; a board that is down must not hold up a deploy
TRIES = 2  # the Idempotency-Key makes a second try of a POST safe
LONGEST_NOTES = 10_000


def tell(service: str, report: Report, environ: Mapping[str, str] = os.environ) -> None:
    """Record `report` of `service` on the board at `RELEASE_BOARD_URL`, with `RELEASE_BOARD_TOKEN` as bearer token.

    A failure never affects the deploy: the log gets at most one line, without the token or anything the address hides.
    """
    if report.verdict == "unchanged":  # nothing was released
        return
    release = _release(service, report, environ)
    headers = {"Idempotency-Key": release["key"]}
    _notify(environ, lambda board: board.ask("POST", json=release["body"], headers=headers))


def retell(service: str, report: Report, environ: Mapping[str, str] = os.environ) -> None:
    """Say on the board what became of the release of `report` since it was told as deployed: see `tell`."""
    body = _release(service, report, environ)["body"]
    # Where the way back failed, too, it is what runs: that is what `deployed` means there.
    change = {"notes": body["notes"]} | ({"status": body["status"]} if report.verdict == "rolled_back" else {})
    _notify(environ, lambda board: board.ask("PATCH", f"/{_newest(board, body)}", json=change))


def _newest(board: _Board, body: Mapping[str, Any]) -> str:
    """Return the id of the newest release on the `board` that is the one of `body`, and deployed."""
    wanted = {name: body[name] for name in ("service", "environment")}
    try:
        items = board.ask("GET", params={**wanted, "status": "deployed"}).json()["items"]
        found = [str(one["id"]) for one in items if one["version"] == body["version"]]
    except (ValueError, LookupError, TypeError):
        raise _Unnotified("it answers, but not as a release board does") from None
    if not found:
        raise _Unnotified(f"it has no release {body['version']} of {body['environment']} that is deployed")
    return found[0]


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


class _Unnotified(Exception):
    """What the board does not know now."""


def _notify(environ: Mapping[str, str], say: Callable[[_Board], object]) -> None:
    """Let `say` tell the board of `environ`, if that names one; log what the board does not know afterwards."""
    address, token = environ.get("RELEASE_BOARD_URL", "").strip(), environ.get("RELEASE_BOARD_TOKEN", "").strip()
    try:
        if address and not token:
            raise _Unnotified("RELEASE_BOARD_TOKEN: not set")
        if address:
            say(_Board(address, token))
    except _Unnotified as problem:
        log.warning(f"could not notify the release board: {problem}")


@dataclass(frozen=True)
class _Board:
    address: str
    token: str

    def ask(
        self, method: str, path: str = "", headers: Mapping[str, str] | None = None, **content: Any
    ) -> httpx2.Response:
        """Send a request about releases, and return its answer. Raise `_Unnotified` with what went wrong."""
        headers, problem = {"Authorization": f"Bearer {self.token}", **(headers or {})}, ""
        for _ in range(TRIES):
            try:
                url = httpx2.URL(f"{self.address.rstrip('/')}/api/v1/releases{path}")
                where = f"{url.scheme}://{url.host}{f':{url.port}' if url.port else ''}"
                answer = httpx2.request(method, url, headers=headers, timeout=TIMEOUT, **content)
            except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
                raise _Unnotified("RELEASE_BOARD_URL: must be an http or https address") from None
            except httpx2.TransportError as error:
                problem = f"{where} does not answer ({type(error).__name__})"
            except UnicodeEncodeError:
                raise _Unnotified("RELEASE_BOARD_TOKEN: contains characters that are not allowed in a token") from None
            else:
                if answer.is_success:
                    return answer
                refused = answer.status_code == httpx2.codes.UNAUTHORIZED
                hint = ": RELEASE_BOARD_TOKEN is not the board's SERVICE_TOKEN" if refused else ""
                problem = f"{where} answers {answer.status_code}{hint}"
                if answer.status_code < httpx2.codes.INTERNAL_SERVER_ERROR:
                    break
        raise _Unnotified(problem)
