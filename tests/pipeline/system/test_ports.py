"""Ports of this machine."""

from __future__ import annotations

import socket
import subprocess
import sys

import psutil
import pytest

from pipeline.system.ports import (
    address_problem,
    describe_process,
    dial,
    free_port,
    next_free_port,
    port_free,
    port_holder,
    url_host,
)


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

    def test_know_who_listens_where_only_root_may_see_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As on macOS: each process shows its own."""

        def denied(kind: str) -> None:
            raise psutil.AccessDenied

        monkeypatch.setattr(psutil, "net_connections", denied)
        with socket.create_server(("127.0.0.1", 0)) as server:
            holder = port_holder(server.getsockname()[1])
        assert holder is not None
        assert holder.pid == psutil.Process().pid

    def test_are_counted_up_to_one_that_is_free(self) -> None:
        """A port that somebody has is passed over."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            free = next_free_port(port)
            assert free > port
            assert port_free(free)
        assert next_free_port(port) == port


class TestAddresses:
    @pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "0.0.0.0"])
    def test_of_this_machine_can_be_listened_at(self, address: str) -> None:
        """All of 127.0.0.0/8 is, on Linux, and what stands for all."""
        assert address_problem(address) is None

    def test_of_others_cannot(self) -> None:
        """An address that is for documentation alone (RFC 5737), and a word."""
        assert (address_problem("192.0.2.1") or "").startswith("is not an address of this machine (")
        assert address_problem("localhost") == "is not an IP address"

    def test_have_ports_of_their_own(self) -> None:
        """What somebody has at one of them is free at another."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.2", 0))
            listener.listen()
            port = listener.getsockname()[1]
            assert (port_free(port, "127.0.0.2"), port_free(port, "127.0.0.3")) == (False, True)

    @pytest.mark.parametrize(
        ("address", "host"), [("127.0.0.2", "127.0.0.2"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")]
    )
    def test_are_reached_at_a_host(self, address: str, host: str) -> None:
        """Nobody can connect to what stands for all."""
        assert url_host(address) == host


class TestDial:
    def test_connects_to_this_machine_for_its_names(self) -> None:
        """The name is the Host: an edge that several services share tells them apart by it."""
        assert dial("http://shop.localhost:8088/x") == ("http://127.0.0.1:8088/x", {"Host": "shop.localhost:8088"})
        assert dial("http://shop.localhost") == ("http://127.0.0.1", {"Host": "shop.localhost"})

    @pytest.mark.parametrize("url", ["http://localhost:8088", "https://shop.localhost", "http://localhost.example.com"])
    def test_leaves_every_other_address_as_it_is(self, url: str) -> None:
        """Their names are the resolver's matter, a certificate's too."""
        assert dial(url) == (url, {})
