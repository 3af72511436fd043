"""Stores that others manage: a database or a Redis whose URL is set, which is used instead of the target's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pipeline.config.settings import OWNER_PASSWORD
from pipeline.system.files import read_secret

__all__ = ["CERTIFICATES", "FILES", "MIGRATORS", "NO_REDIS", "PASSWORDS", "Managed", "managed_stores"]

STORES = {"DATABASE_URL": "database", "REDIS_URL": "Redis", "MIGRATION_DATABASE_URL": "database of the migrations"}
PASSWORDS = {"POSTGRES_PASSWORD": "DATABASE_URL", "REDIS_PASSWORD": "REDIS_URL"}  # which is not needed with the latter
CERTIFICATES = "CERTIFICATES"  # the file of a container with the authorities that the URLs name
# The files of a container, each there only where it is needed, or empty; of these, those of who migrates alone.
FILES = (*STORES, OWNER_PASSWORD, CERTIFICATES)
MIGRATORS = frozenset({"MIGRATION_DATABASE_URL", OWNER_PASSWORD})
AUTHORITY = re.compile(r"(?<=[?&])(sslrootcert|ssl_ca_certs)=([^&#]*)")
OTHER_FILE = re.compile(r"[?&](sslcert|sslkey|sslcrl|ssl_certfile|ssl_keyfile)=")
# Of a replica that must not know what is cached: nobody listens on that port, and without Redis the service works.
NO_REDIS = "redis://127.0.0.1:1/0"
ITSELF = ("localhost", "127.0.0.1", "::1", "[::1]")


@dataclass(frozen=True)
class Managed:
    """The `urls` of the stores that others manage, by the setting that names each."""

    urls: Mapping[str, str]

    @property
    def database(self) -> bool:
        """Whether the target's own PostgreSQL is not needed."""
        return "DATABASE_URL" in self.urls

    @property
    def redis(self) -> bool:
        """Whether the target's own Redis is not needed."""
        return "REDIS_URL" in self.urls

    @property
    def names(self) -> list[str]:
        """The settings that reach the service, or who migrates its database."""
        return [name for name in self.urls if name != "MIGRATION_DATABASE_URL" or self.database]

    def of_service(self, *names: str) -> dict[str, str]:
        """Return the variables of a replica, only those of `names` where any are given."""
        wanted = names or ("DATABASE_URL", "REDIS_URL")
        return {name: url for name, url in self.urls.items() if name in wanted}

    def of_migrations(self) -> dict[str, str]:
        """Return the variables of who migrates."""
        return self.of_service("DATABASE_URL", "MIGRATION_DATABASE_URL") if self.database else {}

    def beside(self, database: str) -> dict[str, str]:
        """Return the variable that leads a replica to another `database` where others manage it; empty elsewhere."""
        return {"DATABASE_URL": _other(self.urls["DATABASE_URL"], database)} if self.database else {}

    def files(self) -> dict[str, str]:
        """Return what a container reads, by the name of its file: the URLs, and the authorities that they name here.

        Raise `UsageError` where such a file cannot be read.
        """
        inside = f"/run/secrets/{CERTIFICATES}"
        files = {name: AUTHORITY.sub(rf"\1={inside}", self.urls[name]) for name in self.names}
        paths = {unquote(path): name for name in self.names for _, path in AUTHORITY.findall(self.urls[name])}
        texts = [read_secret(name, {f"{name}_FILE": path}) for path, name in paths.items() if path != inside]
        return files | ({CERTIFICATES: "\n".join(texts)} if texts else {})

    def container_problems(self) -> list[str]:
        """Return a line for each URL that works on this machine and not in a container."""
        problems = []
        for name in self.names:
            if file := OTHER_FILE.search(self.urls[name]):
                problems.append(f"{name}: no container has the file of its parameter {file[1]}: use a password instead")
            hosts = re.sub(r":\d+(?=,|$)", "", _hosts(self.urls[name])).split(",")
            if any(host in ITSELF or host == "" or host.startswith("/") for host in hosts):
                problems.append(f"{name}: leads to this machine, and in a container to itself: name the host")
        return problems

    def described(self) -> list[str]:
        """Return a line for each that says where it is, and nothing secret."""
        return [f"the {STORES[name]} is {_place(self.urls[name])} ({name}), which others manage" for name in self.names]


def managed_stores(values: Mapping[str, str]) -> Managed:
    """Return the stores that `values` name by a URL, which may be in a file.

    Raise `UsageError` where that cannot be read.
    """
    urls = {name: values.get(name, "").strip() or read_secret(name, values) for name in STORES}
    return Managed({name: url for name, url in urls.items() if url})


def _other(url: str, database: str) -> str:
    """Return `url` with another `database`."""
    parts = urlsplit(url)
    query = "&".join(one for one in parts.query.split("&") if one and one.partition("=")[0] != "dbname")
    return f"{parts.scheme}://{parts.netloc}/{quote(database, safe='')}{f'?{query}' if query else ''}"


def _hosts(url: str) -> str:
    parts = urlsplit(url)
    return unquote(parts.netloc.rpartition("@")[2]) or ",".join(parse_qs(parts.query).get("host", ()))


def _place(url: str) -> str:
    """Return the hosts and the name of the database of `url`."""
    parts, hosts = urlsplit(url), _hosts(url)
    given = parse_qs(parts.query)
    name = unquote(parts.path).strip("/") or "".join(given.get("dbname", given.get("db", ())))
    return f"{name} on {hosts}" if hosts and name else hosts or parts.path
