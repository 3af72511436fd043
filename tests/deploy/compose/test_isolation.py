"""Who reaches whom: nobody from outside but through the edge, and the stores nobody outside."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Iterable

import psutil
import pytest

from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout

pytestmark = pytest.mark.e2e

# What a service of the stack may listen on, the APIs of Caddy included.
PORTS = (80, 443, 2019, 3000, 5432, 6379, 8000, 9090, 9091)
TRY = """
import json, socket, sys
reached = []
for host, port in json.loads(sys.argv[1]):
    try:
        socket.create_connection((host, port), 0.5).close()
    except OSError:
        continue
    reached.append([host, port])
print(json.dumps(reached))
"""


def reached(checkout: ComposeCheckout, network: str, places: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Which of PLACES a container in NETWORK gets a connection to."""
    image = checkout.inspect(checkout.containers("backend")[0])["Image"]
    asked = json.dumps(list(places))
    said = docker("run", "--rm", "--network", network, "--entrypoint", "python", image, "-c", TRY, asked)
    return [(host, port) for host, port in json.loads(said)]


def addresses() -> list[str]:
    """The IPv4 addresses of this host, those of its bridges included."""
    found = [one for interface in psutil.net_if_addrs().values() for one in interface]
    return [one.address for one in found if one.family == socket.AF_INET and not one.address.startswith("127.")]


def test_the_backends_network_leads_nowhere(deployed: ComposeCheckout) -> None:
    """Neither to another network, nor to a port of this host; only to what is in it."""
    network = f"{deployed.project}_backend"
    inside = [("postgres", 5432), ("redis", 6379), ("backend", 8000), ("backend", 9090)]
    assert reached(deployed, network, inside) == inside
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen(64)
        port = listener.getsockname()[1]
        gateways = [one["Gateway"] for one in json.loads(docker("network", "inspect", network))[0]["IPAM"]["Config"]]
        host = [(address, port) for address in {*addresses(), *gateways}]
        edge = deployed.inspect(deployed.containers("frontend")[0])["NetworkSettings"]["Networks"]
        others = [("frontend", 3000), *((one["IPAddress"], 3000) for one in edge.values())]
        assert reached(deployed, network, [*host, *others]) == []
        assert reached(deployed, "bridge", host), "the same listener is reached from a network that has a way out"


@pytest.mark.parametrize("service", ["postgres", "redis"])
def test_a_store_has_no_route_out(service: str, deployed: ComposeCheckout) -> None:
    """Its own table knows its own network and nothing else."""
    [name] = deployed.containers(service)
    lines = docker("exec", name, "cat", "/proc/net/route").splitlines()[1:]
    destinations = [line.split()[1] for line in lines]
    assert len(destinations) == 1
    assert "00000000" not in destinations, "a default route"


def test_a_neighbour_reaches_nothing(deployed: ComposeCheckout) -> None:
    """Another container of this host: no port of the edge or a replica. To the stores not even the host has a route."""
    networks = [deployed.inspect(name)["NetworkSettings"]["Networks"] for name in deployed.containers()]
    own = {each[name]["IPAddress"] for each in networks if (name := f"{deployed.project}_frontend") in each}
    assert len(own) == 3
    assert reached(deployed, "bridge", [(address, port) for address in own for port in PORTS]) == []
    [backend] = json.loads(docker("network", "inspect", f"{deployed.project}_backend"))[0]["IPAM"]["Config"]
    subnet = ipaddress.ip_network(backend["Subnet"])
    assert not [address for address in addresses() if ipaddress.ip_address(address) in subnet]


def test_from_outside_the_edge_answers_on_loopback_alone(deployed: ComposeCheckout) -> None:
    """As shipped, its port is closed on every other address of the host; /metrics is nobody's."""
    deployed.answering()
    for address in addresses():
        with pytest.raises(OSError, match=r"refused|timed out|nreachable|No route") as caught:
            socket.create_connection((address, deployed.port), 1)
        gone = address not in addresses()  # the bridge of another test
        assert gone or isinstance(caught.value, ConnectionRefusedError), address
    assert deployed.request("GET", "/metrics").status_code == 404
