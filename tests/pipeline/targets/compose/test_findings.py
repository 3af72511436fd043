"""What `doctor` says of a volume's disk."""

from __future__ import annotations

import pytest

from pipeline.targets.compose.problems import volume_findings

HEAD = "Filesystem     1024-blocks      Used Available Capacity Mounted on\n"


class TestVolumeFindings:
    @pytest.mark.parametrize(("used", "says"), [("38%", []), ("93%", ["93% full (7001 of 100000 MB are free)"])])
    def test_names_a_disk_that_is_nearly_full(self, used: str, says: list[str]) -> None:
        """As `df -Pk` of Debian's coreutils says it, also of a path with blanks."""
        line = f"/dev/sda 1        102400000  95230976   7169024      {used} /var/lib/post gresql\n"
        found = volume_findings("slipway-postgres-1", HEAD + line.replace("/dev/sda 1", "/dev/sda1"))
        assert len(found) == len(says)
        assert all(part in one for part, one in zip(says, found, strict=True))
