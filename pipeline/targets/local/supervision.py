"""The programs of the local target, kept running by supervisord, which is called by XML-RPC over a Unix socket."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import xmlrpc.client
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from pipeline.engines.occupant import HOME, home_of
from pipeline.errors import SlipwayError
from pipeline.system.files import write_whole
from pipeline.system.ports import describe_process
from pipeline.system.waiting import attempts
from pipeline.targets.local.layout import Layout

__all__ = ["Process", "Supervisor", "clean_environment", "is_marked", "kill_strays", "mark", "program_config"]

START_SECONDS = 15
STOPPED = ("STOPPED", "EXITED", "FATAL")
_DO_NOT_WAIT = False
# The PATH of container images, so that what a replica finds here, it finds there. Every system has the locale C, in
# which Python takes text for UTF-8.
FIXED = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}


@dataclass(frozen=True)
class Process:
    """One supervised program. `started` is in seconds since the Unix epoch."""

    name: str
    state: str
    pid: int
    started: float
    detail: str


def program_config(
    name: str,
    command: Sequence[str],
    *,
    directory: Path,
    stop_seconds: float,
    priority: int,
    stop_signal: str = "TERM",
    user: str | None = None,
) -> str:
    """Return the `[program:NAME]` section: the program is restarted whenever it ends, its log kept to 3 × 10 MB."""
    lines = [
        f"[program:{name}]",
        f"command={shlex.join(command).replace('%', '%%')}",
        f"directory={str(directory).replace('%', '%%')}",
        f"priority={priority}",
        "autostart=true",
        "autorestart=true",
        "startsecs=1",
        # supervisord waits a second longer before each retry: 40 retries take 13 minutes, then it gives up (FATAL).
        "startretries=40",
        f"stopsignal={stop_signal}",
        f"stopwaitsecs={stop_seconds:.0f}",
        "killasgroup=true",
        "redirect_stderr=true",
        f"stdout_logfile=logs/{name}.log",  # relative, because supervisord expands a % in its folder's path twice
        "stdout_logfile_maxbytes=10MB",
        "stdout_logfile_backups=2",
        *([f"user={user}"] if user else []),
    ]
    return "\n".join(lines) + "\n"


class Supervisor:
    """One supervisord and its programs, in the folder `programs` of the layout."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._socket = layout.run / "supervisor.sock"

    def pid(self) -> int | None:
        """Return the process ID of the running supervisord, None where none runs."""
        with contextlib.suppress(OSError, xmlrpc.client.Error), self._rpc() as rpc:
            return int(rpc.getPID())
        return None

    def start(self, supervisord: Path) -> None:
        """Start supervisord and all its programs, unless it already runs."""
        if self.pid() is not None:
            return
        config = self.layout.home / "supervisord.conf"
        config.write_text(self._config(), encoding="utf-8")
        done = subprocess.run(
            [supervisord, "-c", config],
            env=clean_environment(self.layout.home),
            cwd=self.layout.home,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise SlipwayError(f"supervisord did not start: {(done.stderr or done.stdout).strip()}")
        self._wait(
            lambda: self.pid() is not None, f"supervisord did not answer; see {self.layout.home / 'supervisord.log'}"
        )

    def processes(self) -> dict[str, Process]:
        """Return every program by name; empty where supervisord does not run."""
        try:
            with self._rpc() as rpc:
                programs: Any = rpc.getAllProcessInfo()
        except (OSError, xmlrpc.client.Error):
            return {}
        return {
            info["name"]: Process(
                info["name"], info["statename"], info["pid"], info["start"], info["description"] or info["spawnerr"]
            )
            for info in programs
        }

    def config(self, name: str) -> str | None:
        """Return the section that the program `name` was created from, None where there is none."""
        with contextlib.suppress(FileNotFoundError):
            return (self.layout.programs / f"{name}.conf").read_text(encoding="utf-8")
        return None

    def names(self) -> list[str]:
        """Return the names of the programs that have a file, sorted."""
        return sorted(path.stem for path in self.layout.programs.glob("*.conf"))

    def add(self, name: str, config: str) -> None:
        """Start a program from its section, unless it is already there."""
        write_whole(self.layout.programs / f"{name}.conf", config)
        with self._rpc() as rpc:
            rpc.reloadConfig()
            with contextlib.suppress(xmlrpc.client.Fault):  # ALREADY_ADDED: a deploy died between the file and the call
                rpc.addProcessGroup(name)

    def restart(self, name: str) -> None:
        """Restart a program that has ended and was given up."""
        with contextlib.suppress(xmlrpc.client.Fault), self._rpc() as rpc:  # ALREADY_STARTED
            rpc.startProcess(name, _DO_NOT_WAIT)

    def begin_stop(self, name: str) -> None:
        """Ask the program to end, without waiting for it."""
        with contextlib.suppress(xmlrpc.client.Fault), self._rpc() as rpc:  # NOT_RUNNING, BAD_NAME
            rpc.stopProcess(name, _DO_NOT_WAIT)

    def stop(self, name: str, watch: Callable[[], None]) -> None:
        """Ask the program to end, wait until it has, and forget it.

        supervisord kills it after its `stop_seconds`. Raise `SlipwayError` where it has not ended soon after that.
        """
        self.begin_stop(name)
        seconds = self._stop_seconds(name) + START_SECONDS
        for _ in attempts(seconds, every=0.05, watch=watch):
            process = self.processes().get(name)
            if process is None or process.state in STOPPED:
                break
        else:
            raise SlipwayError(f"{name} did not end within {seconds:.0f} s")
        self.forget(name)
        with self._rpc() as rpc:
            rpc.reloadConfig()
            with contextlib.suppress(xmlrpc.client.Fault):  # BAD_NAME: it was gone already
                rpc.removeProcessGroup(name)

    def forget(self, name: str) -> None:
        """Remove the program's file, so that the next supervisord does not start it."""
        (self.layout.programs / f"{name}.conf").unlink(missing_ok=True)

    def shutdown(self) -> None:
        """Stop all programs, in reverse order of their start and one after the other, and then supervisord."""
        pid = self.pid()
        seconds = sum(map(self._stop_seconds, self.names())) + START_SECONDS
        if pid is None:
            return
        with self._rpc() as rpc:
            rpc.shutdown()
        # supervisord's loop turns at each call, and otherwise once a second. A shutdown takes two turns, which polling
        # speeds up.
        self._wait(lambda: self.pid() is None and _ended(pid), "supervisord did not end", seconds)

    def _stop_seconds(self, name: str) -> float:
        found = re.search(r"^stopwaitsecs=(\d+)$", self.config(name) or "", re.MULTILINE)
        return float(found[1]) if found else 0

    def _config(self) -> str:
        # Relative paths, because supervisord splits the include at spaces and expands a % more than once.
        # As root, supervisord warns unless `user` says that root is intended.
        user = "user=root\n" if os.geteuid() == 0 else ""
        return (
            "[supervisord]\nlogfile=supervisord.log\nlogfile_maxbytes=5MB\nlogfile_backups=1\n"
            f"pidfile=supervisord.pid\nchildlogdir=logs\numask=077\n{user}"
            f"[unix_http_server]\nfile={str(self._socket).replace('%', '%%')}\nchmod=0600\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
            "[include]\nfiles=programs/*.conf\n"
        )

    @contextlib.contextmanager
    def _rpc(self) -> Iterator[Any]:
        # The URL is ignored: the transport connects to the socket.
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        try:
            yield xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor
        finally:
            transport.close()

    @staticmethod
    def _wait(done: Callable[[], bool], message: str, seconds: float = START_SECONDS) -> None:
        for _ in attempts(seconds, every=0.02):
            if done():
                return
        raise SlipwayError(message)


def _ended(pid: int) -> bool:
    """Return whether the process `pid` has ended."""
    # A zombie counts as ended: an init may reap late or, as in a container, never.
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def clean_environment(home: Path) -> dict[str, str]:
    """Return the environment of what runs for `home`: the same whoever deploys from whatever shell, and no secret."""
    # Caddy keeps its own files below XDG_*; without them it would write to the user's home.
    own = dict.fromkeys(("XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(home / "caddy"))
    return {**FIXED, "HOME": str(home), HOME: str(home), **own}


def kill_strays(home: Path, supervisord: int | None) -> list[str]:
    """Kill each process that a deploy of `home` left behind and that `supervisord` (a process ID) does not keep.

    Return a description of each. Call it only under the environment's lock: no other deploy runs then, and this one's
    own parents and children are spared.
    """
    me = psutil.Process()
    spared = {process.pid for process in [me, *me.parents(), *me.children(recursive=True)]}
    if supervisord is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            keeper = psutil.Process(supervisord)
            spared |= {keeper.pid, *(child.pid for child in keeper.children(recursive=True))}
    strays = [process for process in psutil.process_iter() if process.pid not in spared and is_marked(process, home)]
    names = []
    for process in strays:
        with contextlib.suppress(psutil.Error):
            names.append(describe_process(process))
            process.kill()
    psutil.wait_procs(strays, timeout=5)
    return names


def is_marked(process: psutil.Process, home: Path) -> bool:
    """Return whether `process` was started for `home`, by this deploy or another."""
    return home_of(process) == home


def mark(environment: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return `environment` with the mark by which `kill_strays` finds what was started for `home`."""
    return {**environment, HOME: str(home)}
