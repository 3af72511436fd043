"""Ports of this machine."""

from __future__ import annotations

import subprocess
import sys

from pipeline.system.ports import describe_process, free_port, port_holder


class TestPorts:
    def test_are_none_that_the_kernel_lends(self) -> None:
        """A replica is started again on the port of its metrics: meanwhile no client may have it as its own."""
        assert all(1024 <= free_port() < 32768 for _ in range(50))

    def test_know_who_listens(self) -> None:
        """The holder of a taken port is named with its process id."""
        port = free_port()
        assert port_holder(port) is None
        assert describe_process(None) == "another process"
        server = (
            "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
            "print('up', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", server, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout is not None
            other.stdout.readline()
            assert f"(pid {other.pid})" in describe_process(port_holder(port))
            other.communicate(b"")
