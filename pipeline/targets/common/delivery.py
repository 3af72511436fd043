"""Secrets that a release needs and a target does not carry: the plan refuses the release before anything is touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.config.secrets import delivered_secrets
from pipeline.releases.model import short

__all__ = ["missing_secrets", "unmounted"]


def missing_secrets(names: Iterable[str], secrets: Mapping[str, str], release: str | None) -> list[str]:
    """Return a line for each of `names` that `.env` does not give `release` (None: that of the working tree).

    `secrets`: what `.env` has. It cannot have one that the schema of the working tree does not declare.
    """
    declared = delivered_secrets()
    who = f"release {short(release)}" if release else "the service"
    lines = []
    for name in names:
        if secrets.get(name):
            continue
        fix = "`nox -s init` adds its line, for you to fill in"
        if name not in declared:
            fix = (
                "and backend/settings.py does not declare it any more, so that no target passes it on: put its field"
                " back there, then `nox -s settings -- --write` and `nox -s init`"
            )
        lines.append(f".env: {name}: {who} does not start without this secret: {fix}")
    return lines


def unmounted(place: str, names: Iterable[str]) -> list[str]:
    """Return a line for each of `names`, secrets that `place` (a file or a folder) does not pass on to the service."""
    return [f"{place}: {name}: this secret does not reach the service: `nox -s settings -- --write`" for name in names]
