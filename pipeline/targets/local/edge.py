"""Caddy as the edge: a fixed slot for each replica and a spare one, whose health Caddy's active checks decide.

A rolling update never reloads Caddy, because a reload closes clients' idle connections and WebSockets. Slots are Unix
sockets at fixed paths: a replica enters when the slot's path is linked to its socket, and leaves by draining.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx2

from pipeline.engines.caddy import adapt
from pipeline.errors import SlipwayError
from pipeline.system.files import write_whole
from pipeline.system.ports import LOOPBACK
from pipeline.system.waiting import attempts
from pipeline.targets.common.edge import settle, wait_admitted
from pipeline.targets.common.here import FEWEST_SLOTS
from pipeline.targets.local.layout import Layout
from pipeline.targets.local.supervision import clean_environment

__all__ = ["Edge"]


def slot_path(run: Path, slot: int) -> Path:
    """Return the path at which the edge expects the socket of the replica in `slot`."""
    return run / f"edge-{slot}"


def _read_page(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def loopback_addresses() -> list[str]:
    """Return 127.0.0.1, and [::1] where this machine has it, since `localhost` may mean either."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return ["127.0.0.1", "[::1]"]
    return ["127.0.0.1"]


class Edge:
    """The running edge of a layout, on `port`, behind the proxies of the networks `trusted`."""

    def __init__(self, layout: Layout, port: int, trusted: str = LOOPBACK) -> None:
        self.layout, self.port, self.trusted = layout, port, trusted
        self.file = layout.home / "edge.json"
        self._source = layout.home / "Caddyfile"  # what `file` was made from

    def config(self, caddy: Path, caddyfile: Path, slots: int = FEWEST_SLOTS) -> str:
        """Return the configuration that `caddyfile` is here with `slots` slots, as JSON.

        Raise `SlipwayError` where Caddy does not accept it.
        """
        # Caddy expands variables before it splits a Caddyfile into words, and none of its ways to quote one suits every
        # path. So the page is a path relative to where Caddy runs, and that of the sockets is put into the JSON.
        run = Path("/@run")
        variables = {
            "EDGE_ADMIN": f"unix/{run / 'caddy.sock'}|0600",
            "EDGE_BIND": " ".join(loopback_addresses()),
            "EDGE_PAGE": str(self.layout.page.relative_to(self.layout.home)),
            "EDGE_TRUSTED_PROXIES": self.trusted,
            "EDGE_UPSTREAMS": " ".join(f"unix/{slot_path(run, slot)}" for slot in range(slots)),
            "FRONTEND_PORT": str(self.port),
        }
        text = adapt(caddy, caddyfile, {**clean_environment(self.layout.home), **variables})
        # A brace by itself would begin a placeholder, which Caddy fills in at run time.
        return text.replace(str(run), json.dumps(str(self.layout.run).replace("{", r"\{"))[1:-1])

    def write_config(self, caddy: Path, caddyfile: Path, slots: int) -> bool:
        """Write the configuration for at least `slots` replicas; return whether it differs from the previous one."""
        text = self.config(caddy, caddyfile, max(slots, FEWEST_SLOTS))
        changed = not self.file.exists() or self.file.read_text(encoding="utf-8") != text
        if changed:
            write_whole(self.file, text)
        if not self.follows(caddyfile):  # on a full disk, what stays the same is not written
            write_whole(self._source, caddyfile.read_text(encoding="utf-8"))
        return changed

    def follows(self, caddyfile: Path) -> bool:
        """Return whether the configuration was written from `caddyfile` as it is now."""
        with contextlib.suppress(FileNotFoundError):
            return self._source.read_bytes() == caddyfile.read_bytes()
        return False

    def shows(self, page: Path) -> bool:
        """Return whether the edge serves exactly the files of `page`."""
        return _read_page(self.layout.page) == _read_page(page)

    def place(self, page: Path) -> None:
        """Serve the files of `page` from the next request on. Unchanged files keep their time, and so their ETag."""
        old, new = _read_page(self.layout.page), _read_page(page)
        for name in old.keys() - new.keys():
            (self.layout.page / name).unlink()
        for name, content in new.items():
            if content != old.get(name):
                path = self.layout.page / name
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_name(f".{path.name}.part")
                part.write_bytes(content)
                part.replace(path)

    def configured_port(self) -> int | None:
        """Return the port in the configuration written last, None where there is none."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            servers = json.loads(self.file.read_text())["apps"]["http"]["servers"]
            return int(next(iter(servers.values()))["listen"][0].rsplit(":", 1)[1])
        return None

    def reload(self) -> None:
        """Load the written configuration (with another port or number of slots) into the running Caddy."""
        transport = httpx2.HTTPTransport(uds=str(self.layout.run / "caddy.sock"), verify=False)  # no TLS there
        with httpx2.Client(transport=transport, base_url="http://localhost", timeout=30) as admin:
            answer = admin.post("/load", content=self.file.read_bytes(), headers={"Content-Type": "application/json"})
        if answer.status_code != httpx2.codes.OK:
            raise SlipwayError(f"the edge rejected its configuration: {answer.text.strip()}")
        settle(time.monotonic())

    def wait_up(self, seconds: float = 10) -> None:
        """Wait until the edge accepts connections."""
        for _ in attempts(seconds, every=0.02):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
        raise SlipwayError(f"the edge does not listen on port {self.port}; see {self.layout.log('edge')}")

    def link(self, slot: int, target: Path) -> None:
        """Let the replica that listens at `target` into `slot`."""
        path = slot_path(self.layout.run, slot)
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        part.symlink_to(target)
        part.replace(path)

    def linked(self, slot: int, target: Path) -> bool:
        """Return whether `slot` leads to `target`."""
        path = slot_path(self.layout.run, slot)
        return path.is_symlink() and path.readlink() == target

    def unlink(self, slot: int) -> None:
        """Empty `slot`."""
        slot_path(self.layout.run, slot).unlink(missing_ok=True)

    def wait_admitted(self, slot: int, watch: Callable[[], None]) -> None:
        """Wait until the replica in `slot` answers requests through the edge."""
        wait_admitted(
            f"http://127.0.0.1:{self.port}",
            slot_path(self.layout.run, slot).name,
            watch,
            log=str(self.layout.log("edge")),
        )
