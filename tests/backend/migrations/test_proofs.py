"""What earlier migrations make safe."""

from __future__ import annotations

import pytest

from backend.migrations.proofs import DROPS_CHECK, SETS_NOT_NULL, Proofs

ADD = "ALTER TABLE places ADD CONSTRAINT name_there CHECK (name IS NOT NULL) NOT VALID"
VALIDATE = "ALTER TABLE places VALIDATE CONSTRAINT name_there"
SET = "ALTER TABLE places ALTER COLUMN name SET NOT NULL"
DROP = "ALTER TABLE places DROP CONSTRAINT name_there"


def read(*migrations: str) -> tuple[str, ...]:
    """What is proven of the last of MIGRATIONS."""
    proofs = Proofs()
    return [proofs.read(sql) for sql in migrations][-1]


class TestProofs:
    @pytest.mark.parametrize(
        "before",
        [
            (ADD, VALIDATE),
            (f"{ADD};\nSELECT 1", f"-- of all rows\n{VALIDATE}"),
            (ADD.replace("TABLE places", 'TABLE IF EXISTS ONLY public."places"'), VALIDATE),
            (f"{ADD}, ADD COLUMN city text", VALIDATE),
            (ADD.removesuffix(" NOT VALID"),),
        ],
    )
    def test_a_validated_check_makes_a_not_null_safe(self, before: tuple[str, ...]) -> None:
        """PostgreSQL then reads no row of the table; and the check may go, which says nothing more."""
        assert read(*before, SET) == (SETS_NOT_NULL,)
        assert read(*before, SET.replace("COLUMN ", "")) == (SETS_NOT_NULL,)
        assert read(*before, SET, DROP) == (DROPS_CHECK,)
        assert set(read(*before, f"{SET};\n{DROP};")) == {SETS_NOT_NULL, DROPS_CHECK}

    @pytest.mark.parametrize(
        "migrations",
        [
            (SET,),
            (ADD, SET),
            (ADD, VALIDATE, SET.replace("places", "people")),
            (ADD, VALIDATE, SET.replace("name", "city")),
            (ADD.replace("name IS", "name = '' OR name IS"), VALIDATE, SET),
            (ADD, VALIDATE, f"{SET}; {SET.replace('name', 'city')}"),
            (ADD, VALIDATE, SET, DROP, "ALTER TABLE places ALTER name DROP NOT NULL", SET),
            (ADD, VALIDATE, DROP),
            (ADD, VALIDATE, SET, DROP.replace("name_there", "other")),
        ],
    )
    def test_anything_else_is_not(self, migrations: tuple[str, ...]) -> None:
        """One case that is not proven leaves the rule as it is."""
        assert read(*migrations) == ()
