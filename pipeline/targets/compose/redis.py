"""The passwords that the Redis of a compose environment accepts: it reads its file of users only when it starts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress

from pipeline.config.secrets import HASHES, REDIS_ACL, forget_redis_passwords
from pipeline.errors import SlipwayError
from pipeline.targets.common.container import Container
from pipeline.targets.compose.site import Site

__all__ = ["accept_passwords", "forget_passwords"]

log = logging.getLogger(__name__)

# The password and the commands come by standard input: no list of processes has them.
ASK = "read -r REDISCLI_AUTH; export REDISCLI_AUTH; exec redis-cli -e --no-auth-warning"
PASSWORD = "REDIS_PASSWORD"  # noqa: S105 - a name


def accept_passwords(site: Site) -> None:
    """Let the Redis that runs accept each password of its file: that of now, and those that replicas still have."""
    hashes = HASHES.findall((site.secrets / REDIS_ACL).read_text(encoding="utf-8"))
    for redis in _running(site):
        _change(site, redis, f"ACL SETUSER default {' '.join(f'#{each}' for each in hashes)}")


def forget_passwords(site: Site) -> None:
    """Let it accept the password of now alone, which all replicas have; those who are connected stay so."""
    now, *before = forget_redis_passwords(site.secrets)
    for redis in _running(site) if before else ():
        _change(site, redis, f"ACL SETUSER default resetpass #{now}")


def _running(site: Site) -> list[Container]:
    return [each for each in site.stack.containers("redis") if each.running]


def _change(site: Site, redis: Container, command: str) -> None:
    """Run a `command` in Redis as somebody whom it lets in; start it anew, with its file, where that is nobody."""
    for password in _passwords(site):
        with suppress(SlipwayError):
            site.docker.ask("exec", "--interactive", redis.ident, "sh", "-c", ASK, given=f"{password}\n{command}\n")
            return
    log.warning("Redis accepts no password that is known here: it is started anew, and nothing is cached meanwhile")
    site.docker.do("restart", redis.ident)


def _passwords(site: Site) -> Iterator[str]:
    """Yield the passwords that Redis may accept: those that running replicas were started with, and that of now."""
    for replica in [each for each in site.replicas.all() if each.running]:
        with suppress(SlipwayError):
            yield site.docker.ask("exec", replica.ident, "cat", f"/run/secrets/{PASSWORD}").strip()
    yield site.variables.secrets.get(PASSWORD, "")
