"""The answer of the program of backups, on each target."""

from __future__ import annotations

import pytest

from pipeline.errors import ProgramFailed, UsageError
from pipeline.targets.common.backups import answer_of


class TestAnswerOf:
    def test_is_the_last_object(self) -> None:
        """Whatever else is printed; a cluster does not keep the two outputs apart."""
        assert answer_of(0, 'dumped 1 kB\n{"level": "info"}\n{"backups": []}\n', "") == {"backups": []}

    def test_with_a_problem_is_one_though_the_program_failed(self) -> None:
        """There is a backup, and it is not where it should be."""
        said = '{"backup": {}, "problem": "s3 does not answer"}'
        assert answer_of(1, said, "x")["problem"] == "s3 does not answer"

    def test_is_what_the_program_complained_of(self) -> None:
        """2 is the fault of who asks; without the name of the program, which is none of theirs."""
        with pytest.raises(UsageError) as usage:
            answer_of(2, "", "progress\nBACKUP_ADDRESS: must look like s3://bucket\n")
        assert usage.value.problems == ("BACKUP_ADDRESS: must look like s3://bucket",)
        with pytest.raises(ProgramFailed) as failed:
            answer_of(1, '{"restored": {}}', "progress\npg_restore: no such role\n")
        assert failed.value.said == "pg_restore: no such role"
