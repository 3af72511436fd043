"""Who is told of an alert, as Alertmanager's own program reads it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.monitoring.receivers import alertmanager_config, receiver_problems, route_problems, unheard
from tests.project import PROJECT, copied, run_pipeline

FILE = "monitoring/kubernetes/alertmanager.yaml"
FOLDERS = ("backend", "docs", "k8s", "monitoring", "pipeline")
HOOK, SLACK, BEAT = (
    "https://alerts.example.org/a?b=c",
    "https://hooks.slack.com/services/T/B/x",
    "https://beat.example.org/1",
)
MAIL = {
    "ALERT_EMAIL_TO": "on-call@example.org",
    "ALERT_EMAIL_FROM": "board@example.org",
    "ALERT_SMTP_HOST": "mail.example.org:587",
    "ALERT_SMTP_USER": "board",
    "ALERT_SMTP_PASSWORD": 'it\'s "s3cret": {{ no }} template\\',
}
ALL = {"ALERT_WEBHOOK_URL": HOOK, "ALERT_SLACK_URL": SLACK, "ALERT_HEARTBEAT_URL": BEAT, **MAIL}


def amtool(folder: Path, settings: dict[str, str], *arguments: str) -> str:
    """What amtool says of the configuration of SETTINGS, which it must accept."""
    file = folder / "alertmanager.yaml"
    file.write_text(alertmanager_config(settings), encoding="utf-8")
    command = ["amtool", *(word.replace("FILE", str(file)) for word in arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


class TestConfig:
    @pytest.mark.needs("amtool")
    @pytest.mark.parametrize("settings", [{}, {"ALERT_SLACK_URL": SLACK}, MAIL, ALL])
    def test_is_one_to_alertmanager(self, tmp_path: Path, settings: dict[str, str]) -> None:
        """With any of the ways, and with none."""
        assert "SUCCESS" in amtool(tmp_path, settings, "check-config", "FILE")

    @pytest.mark.needs("amtool")
    @pytest.mark.parametrize(
        ("labels", "to", "beats"),
        [
            (["severity=page", "alertname=NothingServes"], "people", "people"),
            (["severity=ticket", "alertname=BackupTooOld"], "people", "people"),
            (["severity=none", "alertname=Watchdog"], "nobody", "heartbeat"),
            (["severity=none", "alertname=ForMachines"], "nobody", "nobody"),
        ],
    )
    def test_leads_each_alert_to_its_receiver(self, tmp_path: Path, labels: list[str], to: str, beats: str) -> None:
        """The sign of life calls nobody: whoever misses it does."""
        arguments = ("config", "routes", "test", "--config.file=FILE", *labels)
        assert amtool(tmp_path, {"ALERT_WEBHOOK_URL": HOOK}, *arguments) == to
        assert amtool(tmp_path, ALL, *arguments) == beats

    def test_has_what_is_set(self) -> None:
        """As it is written in `.env`, whatever characters a password has."""
        config = yaml.safe_load(alertmanager_config(ALL))
        people, nobody, heartbeat = config["receivers"]
        assert people["webhook_configs"] == [{"url": HOOK, "send_resolved": True}]
        assert people["slack_configs"][0]["api_url"] == SLACK
        [mail] = people["email_configs"]
        assert {name: mail[name] for name in ("to", "from", "smarthost", "auth_username", "auth_password")} == {
            "to": "on-call@example.org", "from": "board@example.org", "smarthost": "mail.example.org:587",
            "auth_username": "board", "auth_password": MAIL["ALERT_SMTP_PASSWORD"],
        }  # fmt: skip
        assert nobody == {"name": "nobody"}
        assert heartbeat["webhook_configs"] == [{"url": BEAT, "send_resolved": False}]

    def test_without_any_says_so(self) -> None:
        """In the plan, and to `doctor`."""
        assert "alerts reach nobody: set ALERT_WEBHOOK_URL" in str(unheard({"ALERT_HEARTBEAT_URL": BEAT}))
        assert [unheard(settings) for settings in (MAIL, {"ALERT_SLACK_URL": SLACK})] == [None, None]


class TestProblems:
    def test_are_none_of_what_is_right(self) -> None:
        """Of nothing, too."""
        assert receiver_problems(ALL) == receiver_problems({}) == []

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({"ALERT_WEBHOOK_URL": "hooks.example.net"}, "ALERT_WEBHOOK_URL: must be the address of a web server"),
            ({"ALERT_SLACK_URL": "https:///T0"}, "ALERT_SLACK_URL: must be the address"),
            ({"ALERT_HEARTBEAT_URL": "http://a:b:c"}, "ALERT_HEARTBEAT_URL: must be the address"),
            ({**MAIL, "ALERT_EMAIL_FROM": ""}, "ALERT_EMAIL_FROM: is not set, and the other settings of mail are"),
            ({**MAIL, "ALERT_EMAIL_TO": "nobody"}, "ALERT_EMAIL_TO: must be an address of mail"),
            ({**MAIL, "ALERT_SMTP_HOST": "smtp.example.net"}, "ALERT_SMTP_HOST: must be HOST:PORT"),
            ({**MAIL, "ALERT_SMTP_USER": ""}, "ALERT_SMTP_USER: is not set, and ALERT_SMTP_PASSWORD is"),
        ],
    )
    def test_name_what_is_wrong(self, settings: dict[str, str], says: str) -> None:
        """And never the value, which may be a secret."""
        [line] = receiver_problems(settings)
        assert line.startswith(says)
        assert not {*settings.values()} & {*line.replace(",", " ").split()} - {
            "on-call@example.org",
            MAIL["ALERT_SMTP_HOST"],
        }


class TestRoutes:
    """Of the file for Kubernetes, which somebody changes by hand."""

    def test_are_without_a_fault(self, tmp_path: Path) -> None:
        """Here, and where there is no such file."""
        assert route_problems(PROJECT.root) == route_problems(tmp_path) == []

    @pytest.mark.parametrize(
        ("old", "new", "says"),
        [
            ("receiver: nobody", "receiver: nobdy", "route: no receiver `nobdy`: did you mean `nobody`?"),
            ("receiver: nobody", "receiver: nobody\n  routes: [{routes: [{receiver: on-call}]}]",
             "route: no receiver `on-call`: there is `nobody`"),
            ("- name: nobody", "- nobody", "must have a table `route` and a list `receivers` of tables"),
            ("receivers:", "receivers: {", "not valid YAML: "),
        ],
    )  # fmt: skip
    def test_name_a_receiver_that_nobody_made(self, old: str, new: str, says: str, tmp_path: Path) -> None:
        """Alertmanager would not start, and `lint` fails instead."""
        root = copied(tmp_path, *FOLDERS)
        text = (root / FILE).read_text(encoding="utf-8")
        assert old in text
        (root / FILE).write_text(text.replace(old, new), encoding="utf-8")
        [line] = route_problems(root)
        assert line.startswith(f"{FILE}: {says}")
        done = run_pipeline(root, "rules")
        assert (done.returncode, line in done.stderr) == (1, True), done.stderr
