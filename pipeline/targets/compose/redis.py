"""The passwords that the Redis of a compose environment accepts: it reads its file of users only when it starts."""

from __future__ import annotations

import logging

from pipeline.config.redis_users import ADMIN, MONITOR, SERVICE, monitor_rules
from pipeline.config.secrets import REDIS_ADMIN, forget_redis_passwords, redis_hashes, redis_monitor_password
from pipeline.errors import SlipwayError
from pipeline.targets.common.container import Container
from pipeline.targets.compose.site import Site

__all__ = ["accept_passwords", "forget_passwords", "let_monitor_in"]

log = logging.getLogger(__name__)

# The password and the command come by standard input: no list of processes has them.
ASK = f"read -r REDISCLI_AUTH; export REDISCLI_AUTH; exec redis-cli -e --no-auth-warning --user {ADMIN}"


def accept_passwords(site: Site) -> None:
    """Let the Redis that runs accept each password of its file: that of now, and those that replicas still have."""
    hashes = redis_hashes(site.secrets)
    if len(hashes) > 1:
        _change(site, hashes)


def forget_passwords(site: Site) -> None:
    """Let it accept the password of now alone, which all replicas have; those who are connected stay so."""
    now, *before = redis_hashes(site.secrets)
    if before:
        forget_redis_passwords(site.secrets)
        _change(site, ["resetpass", now])


def let_monitor_in(site: Site) -> None:
    """Let the Redis that runs know who measures it: it may have started before its file did."""
    rules = monitor_rules(redis_monitor_password(site.secrets))
    for redis in [each for each in site.stack.containers("redis") if each.running]:
        _set_user(site, redis, MONITOR, ["reset", *rules])


def _set_user(site: Site, redis: Container, user: str, rules: list[str]) -> None:
    password = (site.secrets / REDIS_ADMIN).read_text(encoding="utf-8")
    command = f"ACL SETUSER {user} {' '.join(rules)}"
    site.docker.ask("exec", "--interactive", redis.ident, "sh", "-c", ASK, given=f"{password}\n{command}\n")


def _change(site: Site, rules: list[str]) -> None:
    """Change the service's user as the administrator; start Redis anew, with its file, where it knows none."""
    for redis in [each for each in site.stack.containers("redis") if each.running]:
        try:
            _set_user(site, redis, SERVICE, rules)
        except SlipwayError as error:
            why = f"Redis does not let its administrator in ({error.problems[0]})"
            log.warning(f"{why}: it is started anew, and nothing is cached meanwhile")
            site.docker.do("restart", redis.ident)
