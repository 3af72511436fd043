"""What `doctor` reports about the processes that run here."""

from __future__ import annotations

import pytest

from tests.deploy.ailing import tells_what_is_wrong
from tests.deploy.checkout import Checkout
from tests.deploy.logged import shows_the_logs

pytestmark = pytest.mark.e2e


def test_says_what_is_wrong(checkout: Checkout) -> None:
    """Nothing yet; then the data stores; then a replica that was stopped, and a cache that nobody reaches."""
    nothing = checkout.run("doctor")
    assert nothing.code == 1
    assert "nothing was ever proved here" in nothing.stderr
    checkout.proved()
    shows_the_logs(checkout)
    tells_what_is_wrong(checkout)
    [valkey] = [one for one in checkout.processes() if "valkey-server" in one.name()]
    valkey.suspend()
    try:
        found = checkout.run("doctor", "--json").report["findings"]
    finally:
        valkey.resume()
    assert [line for line in found if line.startswith("Redis does not answer: ")], found
