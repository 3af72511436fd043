"""`[tool.slipway.slo]` in pyproject.toml: read strictly, as people are called by what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.project import load_project
from pipeline.config.slo import Slo
from pipeline.errors import UsageError

GOOD = '[project]\nname = "shop"\n[tool.slipway.environments.local]\ntarget = "local"\nurl = "http://localhost:8080"\n'


def read(root: Path, lines: str) -> Slo:
    """Return the objectives of a project at `root` whose table has `lines`."""
    (root / "backend").mkdir()
    (root / "pyproject.toml").write_text(f"{GOOD}{lines}\n", encoding="utf-8")
    return load_project(root).slo


class TestSlo:
    def test_has_defaults(self, tmp_path: Path) -> None:
        """A service that says nothing promises what the template does."""
        assert read(tmp_path, "") == Slo(availability=99.9, latency_share=99, latency_ms=250, window_days=30)

    def test_has_a_budget_for_each_objective(self, tmp_path: Path) -> None:
        """What may fail, without the dust of floating point."""
        slo = read(tmp_path, "[tool.slipway.slo]\navailability = 99.95\nlatency_share = 95")
        assert slo.budgets == {"availability": 0.0005, "latency": 0.05}

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("availability = 100", "availability: must be 99.999 or less; for example `availability = 99.9 # percent"),
            ("availability = 0.999", "availability: must be 95 or more; for example `availability = 99.9 # percent"),
            ('availability = "99.9 %"', "availability: must be a number; for example `availability = 99.9"),
            ("latency_share = 50", "latency_share: must be 95 or more; for example `latency_share = 99"),
            ("latency_ms = 0.25", "latency_ms: must be 1 or more; for example `latency_ms = 250`"),
            ("window_days = 30.5", "window_days: must be a whole number; for example `window_days = 30`"),
            ("window_days = 365", "window_days: must be 90 or less; for example `window_days = 30`"),
            ("window = 30", "unknown key `window`: did you mean `window_days`?"),
        ],
    )
    def test_refuses_what_nobody_can_promise(self, tmp_path: Path, line: str, says: str) -> None:
        """With the key, and an example."""
        with pytest.raises(UsageError) as caught:
            read(tmp_path, f"[tool.slipway.slo]\n{line}")
        (problem,) = caught.value.problems
        assert problem.startswith(f"pyproject.toml [tool.slipway]: slo: {says}")
