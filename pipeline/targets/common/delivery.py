"""Secrets that a release needs and a target does not carry: the plan refuses the release before anything is touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.config.secrets import delivered_secrets
from pipeline.config.sources import Source, secrets_place
from pipeline.releases.model import short

__all__ = ["missing_secrets", "unmounted"]

WRITE = "`nox -s settings -- --write`"
# Of a release that is older than the working tree: its secret is in nothing that is made from the schema.
DECLARE = f"backend/settings.py does not declare it any more: put its field back there, then {WRITE}"


def missing_secrets(
    names: Iterable[str], secrets: Mapping[str, str], release: str | None, source: Source | None = None
) -> list[str]:
    """Return a line for each of `names` that `.env` does not give `release` (None: that of the working tree).

    `secrets`: what `.env`, or the `source` in its place, has. It cannot have one that the schema of the working tree
    does not declare.
    """
    declared = delivered_secrets()
    who = f"release {short(release)}" if release else "the service"
    lines = []
    for name in names:
        if not secrets.get(name):
            fix = "put it there" if source else "`nox -s init` adds its line, for you to fill in"
            fix = fix if name in declared else f"{DECLARE} and {'put it there' if source else '`nox -s init`'}"
            place = secrets_place(source) or ".env"
            lines.append(f"{place}: {name}: {who} does not start without this secret: {fix}")
    return lines


def unmounted(place: str, names: Iterable[str]) -> list[str]:
    """Return a line for each of `names`, secrets that `place` (a file or a folder) does not pass on to the service."""
    declared = delivered_secrets()
    return [
        f"{place}: {name}: this secret does not reach the service: {WRITE if name in declared else DECLARE}"
        for name in names
    ]
