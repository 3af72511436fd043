"""The smoke test as one file: it runs where nothing of ours is, and says what it saw and what it left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.config.requests import COMMAND, RequestSpec, parse_requests
from pipeline.proof.cleaning import clean_up
from pipeline.proof.packed import pack_smoke
from pipeline.proof.smoke import Smoked, smoke, smoke_limit, smoked_of
from tests.pipeline.proof.servers import HANG, LIST, MAKE, MAKE_AND_MARK, Reply, Request, Service, wait_until


def run(folder: Path, specs: tuple[RequestSpec, ...], service: Service, *, wait: float = 5, tries: int = 1) -> Path:
    """Run it by itself, in a folder that has nothing else; return the file with its output."""
    (folder / "token").write_text("token\n")
    archive = folder / "smoke.pyz"
    archive.write_bytes(pack_smoke(specs, service.url, [str(folder / "token")], wait=wait, tries=tries))
    done = subprocess.run(
        [sys.executable, "-I", str(archive)], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    (folder / "journal").write_text(done.stdout)
    return folder / "journal"


def ready(service: Service, request: Request) -> Reply | None:
    """Answer `/ready`, which a good service of these tests does not know."""
    return Reply(200) if request.path == "/ready" else None


class TestPacked:
    def test_sees_what_the_smoke_test_sees(self, tmp_path: Path, service: Service) -> None:
        """Each request and step was answered, and what was written is gone."""
        service.behave = ready
        assert smoked_of(run(tmp_path, parse_requests([LIST, MAKE_AND_MARK]), service)) == Smoked()
        assert (service.things, (tmp_path / "journal").exists()) == ({}, False)
        asked = [request.method for request in service.requests if request.path != "/ready"]
        assert asked == ["GET", "POST", "PATCH", "GET", "GET", "DELETE"]
        assert {request.headers["authorization"] for request in service.requests} == {"Bearer token"}

    def test_tells_each_failure(self, tmp_path: Path, service: Service) -> None:
        """As an example, with what was answered."""
        service.behave = lambda one, request: (
            Reply(500, {"error": "no key"}) if request.method == "POST" else ready(one, request)
        )
        smoked = smoked_of(run(tmp_path, parse_requests([LIST, MAKE]), service))
        assert smoked
        [failure] = smoked.failures
        assert (failure.method, failure.kind, failure.detail) == ("POST", "5xx", '500 {"error": "no key"}')

    def test_leaves_a_journal_of_what_it_could_not_remove(self, tmp_path: Path, service: Service) -> None:
        """Another release, which can, removes it later."""
        service.behave = lambda one, request: Reply(500) if request.method == "DELETE" else ready(one, request)
        journal = run(tmp_path, parse_requests([MAKE]), service)
        smoked = smoked_of(journal)
        assert smoked
        assert [(one.kind, one.detail) for one in smoked.failures] == [
            ("left", "what it wrote could not be removed, as `remove` says")
        ]
        assert (len(service.things), journal.exists()) == (1, True)
        service.behave = None
        assert clean_up(journal, service.url, "token") == 0
        assert (service.things, journal.exists()) == ({}, False)

    def test_leaves_the_journal_of_one_that_was_killed(self, tmp_path: Path, service: Service) -> None:
        """Its last line is missing, and its writes are known all the same."""
        service.behave = ready
        journal = run(tmp_path, parse_requests([MAKE]), service)
        output = journal.read_text()
        for cut in (output[: output.index('{"gone"')], output[:-5], ""):
            journal.write_text(cut)
            assert smoked_of(journal) is None
            assert journal.exists() is ("gone" not in cut and cut != "")

    def test_knows_the_ids_that_a_command_removes(self, tmp_path: Path, service: Service) -> None:
        """They are what the command is given."""
        service.behave = ready
        smoked = smoked_of(run(tmp_path, parse_requests([{**MAKE, "remove": COMMAND}]), service))
        assert smoked
        assert (smoked.ids, smoked.unplaced) == (tuple(service.things), 0)

    def test_waits_until_the_service_is_ready(self, tmp_path: Path, service: Service) -> None:
        """It is started beside it."""
        service.behave = lambda one, request: (
            Reply(503) if request.path == "/ready" and len(one.requests) < 4 else ready(one, request)
        )
        assert smoked_of(run(tmp_path, parse_requests([LIST]), service)) == Smoked()
        assert [request.path for request in service.requests] == [*["/ready"] * 4, "/things"]


class TestRecord:
    """What a container leaves for whoever cannot read its log."""

    @pytest.mark.parametrize(("broken", "code"), [(False, 0), (True, 1)])
    def test_is_short_and_has_an_exit_code(self, broken: bool, code: int, tmp_path: Path, service: Service) -> None:
        """A pod's status has room for little."""
        service.behave = lambda one, request: (
            Reply(500, {"error": "x" * 500}) if broken and request.method == "POST" else ready(one, request)
        )
        archive, record = tmp_path / "smoke.pyz", tmp_path / "record"
        specs = parse_requests([LIST, MAKE])
        archive.write_bytes(pack_smoke(specs, service.url, [], wait=5, tries=1, record=str(record)))
        done = subprocess.run([sys.executable, "-I", str(archive)], stdout=subprocess.PIPE, timeout=60, check=False)
        said = json.loads(record.read_text())
        assert (done.returncode, said["sent"], len(said["failed"])) == (code, 2, int(broken))
        assert all(one.startswith("POST /things: 500 ") and len(one) <= 200 for one in said["failed"])

    def test_comes_from_an_archive_that_is_the_same_each_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Else each deploy would find it changed."""
        specs = parse_requests([LIST, MAKE])
        first = pack_smoke(specs, "http://127.0.0.1:8000", [], wait=5, tries=1)
        monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
        assert pack_smoke(specs, "http://127.0.0.1:8000", [], wait=5, tries=1) == first
        assert pack_smoke(specs[:1], "http://127.0.0.1:8000", [], wait=5, tries=1) != first


def test_removes_what_it_wrote_when_it_is_told_to_end(tmp_path: Path, service: Service) -> None:
    """As the first process of its container, which a SIGTERM without a handler does not end."""
    service.behave = lambda one, request: (
        HANG if request.path == "/things" and request.method == "GET" else ready(one, request)
    )
    archive = tmp_path / "smoke.pyz"
    archive.write_bytes(pack_smoke(parse_requests([MAKE, LIST]), service.url, [], wait=60, tries=1))
    with subprocess.Popen([sys.executable, "-I", str(archive)], stdout=subprocess.PIPE) as process:
        wait_until(lambda: any(one.path == "/things" and one.method == "GET" for one in service.requests))
        assert len(service.things) == 1
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM
    assert service.things == {}


class TestTries:
    def test_forgive_what_fails_once(self, service: Service) -> None:
        """Where some requests may fail, one of a few is no reason."""
        specs = parse_requests([LIST, MAKE])
        service.behave = lambda one, _: Reply(500) if len(one.requests) == 1 else None
        assert smoke(specs, service.url, "token", tries=2).failures == ()
        service.behave = lambda _, request: Reply(500) if request.path == "/things" else None
        assert [one.request for one in smoke(specs, service.url, "token", tries=2).failures] == ["list", "make"]
        assert service.things == {}

    def test_have_their_time(self) -> None:
        """Ten seconds for each answer, or its own, as often as it is tried; and twenty for what was written."""
        specs = parse_requests([LIST, {**MAKE_AND_MARK, "seconds": 30}])
        assert smoke_limit(specs, 1) == 10 + 30 + 10 + 10 + 20
        assert smoke_limit(specs, 2) == 2 * 60 + 20
