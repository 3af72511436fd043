"""The files that are generated from the settings schema, in this repository and in a copy with one more secret."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from pipeline.config.derived import derived_files
from pipeline.config.secrets import SECRET_FILES
from pipeline.errors import SlipwayError
from tests.project import NAME, copied, run_pipeline

ROOT = Path(__file__).parents[3]
FIELD = "    service_token: SecretStr"
MADE = [".env.example", "docs/settings.md", "docker-compose.yml", "k8s/base/backend.yaml"]
FOLDERS = ("backend", "docs", "k8s", "pipeline")


def sources(root: Path) -> list[Any]:
    """Return the sources of the volume with the service's secrets in `root`."""
    documents = yaml.safe_load_all((root / "k8s/base/backend.yaml").read_text(encoding="utf-8"))
    [deployment] = [one for one in documents if one["kind"] == "Deployment"]
    [volume] = [one for one in deployment["spec"]["template"]["spec"]["volumes"] if one["name"] == "secrets"]
    return [one["secret"] for one in volume["projected"]["sources"]]


@pytest.fixture(name="copy")
def _copy(tmp_path: Path) -> Path:
    """Return a copy of the files that the generator reads and writes."""
    return copied(tmp_path, *FOLDERS)


def add_secret(root: Path, limits: str = "") -> None:
    """Add PROBE_PASSWORD to the schema in `root`."""
    path = root / "backend/settings.py"
    text = path.read_text(encoding="utf-8")
    field = f'    probe_password: SecretStr | None = _setting("secrets", "Of a probe.", None{limits})\n'
    path.write_text(text.replace(FIELD, field + FIELD, 1), encoding="utf-8")


class TestThisRepository:
    def test_agrees_with_the_schema(self) -> None:
        """The committed files are what `nox -s settings -- --write` makes."""
        made = derived_files(ROOT)
        assert {name: (ROOT / name).read_text(encoding="utf-8") for name in made} == made


class TestOneMoreSecret:
    def test_is_named_by_the_check_and_then_everywhere(self, copy: Path) -> None:
        """One line in the schema and one command: each target delivers it, and refuses to start without it."""
        assert run_pipeline(copy, "settings").returncode == 0
        add_secret(copy, ", generate=True")
        checked = run_pipeline(copy, "settings")
        assert checked.returncode == 1
        assert re.findall(r"(\S+) does not agree with backend/settings\.py", checked.stderr) == MADE
        assert run_pipeline(copy, "settings", "--write").returncode == 0
        assert run_pipeline(copy, "settings").returncode == 0

        assert dotenv_values(copy / ".env.example")["PROBE_PASSWORD"] == "change_this_probe_password"
        assert "| `PROBE_PASSWORD` | made by `nox -s init` |  | Of a probe. |" in (copy / MADE[1]).read_text("utf-8")
        compose = yaml.safe_load((copy / "docker-compose.yml").read_text("utf-8"))
        assert "PROBE_PASSWORD" in compose["services"]["backend"]["secrets"]
        assert "PROBE_PASSWORD" not in compose["services"]["backend"]["environment"]
        named = {"file": f"{SECRET_FILES}/PROBE_PASSWORD"}
        assert compose["secrets"]["PROBE_PASSWORD"] == named
        item = {"key": "PROBE_PASSWORD", "path": "PROBE_PASSWORD"}
        assert {"name": f"{NAME}-secrets", "items": [item]} in sources(copy)
        assert run_pipeline(copy, "init").returncode == 0
        made = dotenv_values(copy / ".env")["PROBE_PASSWORD"]
        assert (copy / ".slipway/compose/secrets/PROBE_PASSWORD").read_text("utf-8") == made

    def test_reaches_what_the_pipeline_lists_by_itself(self, copy: Path) -> None:
        """The Secret's keys, the fingerprint of pods, the files; and production does not start without it."""
        add_secret(copy, ", generate=True")
        code = """if True:
            from backend.settings import SettingsError, load_settings
            from pipeline.config.secrets import delivered_secrets
            from pipeline.targets.kubernetes.secret import needed_keys, secret_values, secrets_fingerprint
            assert "PROBE_PASSWORD" in needed_keys([]), "needed"
            assert secret_values([], {"PROBE_PASSWORD": "x"}, {})["PROBE_PASSWORD"] == "x", "values"
            assert secrets_fingerprint({}) != secrets_fingerprint({"PROBE_PASSWORD": "x"}), "fingerprint"
            assert "PROBE_PASSWORD" in delivered_secrets(), "files"
            try:
                load_settings({"ENVIRONMENT": "production"})
            except SettingsError as error:
                assert "PROBE_PASSWORD: is missing" in str(error)
        """
        done = subprocess.run([sys.executable, "-c", code], cwd=copy, check=False, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")

    def test_may_be_one_that_is_not_always_there(self, copy: Path) -> None:
        """Without `generate`, a pod starts even if the Secret has no such key."""
        add_secret(copy)
        assert run_pipeline(copy, "settings", "--write").returncode == 0
        item = {"key": "PROBE_PASSWORD", "path": "PROBE_PASSWORD"}
        assert {"name": f"{NAME}-secrets", "optional": True, "items": [item]} in sources(copy)


@pytest.mark.parametrize("mark", ["settings", "secrets", "secret files"])
def test_a_file_without_its_marks_is_named(mark: str, copy: Path) -> None:
    """Otherwise nothing would be written there any more, and nobody would notice."""
    path = copy / "docker-compose.yml"
    path.write_text(path.read_text("utf-8").replace(f"# {mark}: end", "#"), encoding="utf-8")
    with pytest.raises(SlipwayError, match=rf"^docker-compose\.yml lacks the lines `# {mark}: made by"):
        derived_files(copy)
