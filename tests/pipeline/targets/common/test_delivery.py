"""Secrets that a release needs and nobody passes on: what the plan says of each."""

from __future__ import annotations

from pipeline.config.settings import needed_secrets
from pipeline.config.sources import Source
from pipeline.targets.common.delivery import missing_secrets, unmounted

RELEASE = f"sha256:{'ab' * 32}"


class TestMissingSecrets:
    def test_are_none_of_those_that_have_a_value(self) -> None:
        """Whoever declares them."""
        assert missing_secrets(["CARRIER_KEY"], {"CARRIER_KEY": "x"}, RELEASE) == []

    def test_are_named_with_the_place_and_the_command(self) -> None:
        """An empty value is none."""
        name = needed_secrets()[0]
        [line] = missing_secrets([name], {name: ""}, None)
        assert line.startswith(f".env: {name}: the service does not start without this secret: `nox -s init`")

    def test_are_named_with_the_command_that_gives_the_others(self) -> None:
        """`nox -s init` would write to a file that nobody reads."""
        name = needed_secrets()[0]
        [line] = missing_secrets([name], {}, None, Source(command=("/usr/bin/sops", "decrypt")))
        assert line == f"secrets (`sops`): {name}: the service does not start without this secret: put it there"

    def test_say_what_to_do_where_the_working_tree_no_longer_declares_it(self) -> None:
        """`.env` may not even have it then."""
        [line] = missing_secrets(["CARRIER_KEY"], {}, RELEASE)
        assert line.startswith(".env: CARRIER_KEY: release abababababab… does not start without this secret")
        assert "put its field back there, then `nox -s settings -- --write`" in line


def test_a_secret_that_is_not_mounted_is_named_with_its_file() -> None:
    """And with what mounts it."""
    name = needed_secrets()[0]
    mine, other = unmounted("docker-compose.yml", [name, "CARRIER_KEY"])
    what = "this secret does not reach the service"
    assert mine == f"docker-compose.yml: {name}: {what}: `nox -s settings -- --write`"
    assert other.startswith(
        f"docker-compose.yml: CARRIER_KEY: {what}: backend/settings.py does not declare it any more"
    )
