"""What a class of settings is made of: its fields, where their values come from, and how an error reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

__all__ = ["SECRETS_DIR", "Fields", "SettingsError", "collect", "marks", "section", "sentence", "setting"]

SECRETS_DIR = Path("/run/secrets")


class SettingsError(Exception):
    """Invalid settings. `problems` holds one line per variable: its name, what is wrong, how to fix it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Fields(BaseSettings):
    """Settings that come from a mapping, as `collect` reads it. A field's variable is its name in upper case."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings passes all
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes all
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes all
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes all
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use only what `collect` returned, so that any mapping can be checked, not just the environment."""
        return (init_settings,)


def setting(section: str, description: str, default: Any, **limits: Any) -> Any:
    """Return a field. `section` groups it in `.env.example`; a field of a secret has the type `SecretStr`.

    A secret with `...` for a `default` must be there outside development; in development it may be empty.
    `generate=True`: so must this one, and `nox -s init` makes it. `outside=True`: the service does not read the
    setting, but compose or the pipeline does.
    """
    marks = {mark: True for mark in ("generate", "outside") if limits.pop(mark, False)}
    if default is ... or "generate" in marks:
        marks["needed"] = True
    # Not pydantic's own `...`: it would demand the secret in development and of a migration, which reads none.
    default = SecretStr("") if default is ... else default
    extra: dict[str, Any] = {"section": section, **marks}
    return Field(default, description=description, json_schema_extra=extra, validate_default=False, **limits)


def marks(fields: type[Fields], name: str) -> dict[str, Any]:
    """Return the section of the field `name`, and what `setting` marked it with."""
    extra = fields.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return extra


def section(fields: type[Fields], name: str) -> str:
    """Return the section of the field `name`."""
    return str(marks(fields, name)["section"])


def collect(
    fields: type[Fields], environ: Mapping[str, str], sections: Collection[str], secrets_dir: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the raw values by field name, and what is wrong with the files that should hold secrets."""
    raw: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, field in fields.model_fields.items():
        if section(fields, name) not in sections:
            continue
        value, variable = environ.get(name.upper(), "").strip(), name.upper()
        if "SecretStr" in str(field.annotation):
            named = environ.get(f"{variable}_FILE", "").strip()
            if value and named:
                problems[name] = f"is set twice; keep one of {variable} and {variable}_FILE"
            path = Path(named) if named else secrets_dir / variable
            if not value and (named or path.is_file()):
                try:
                    value = path.read_text(encoding="utf-8").strip()
                except (OSError, UnicodeDecodeError) as error:
                    reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
                    problems[name] = f"its file cannot be read ({reason}); fix {variable}_FILE or the file's mode"
        if value:
            raw[name] = value
    return raw, problems


def sentence(message: str) -> str:
    """Return pydantic's message as the second half of `NAME: …`."""
    text = message.removeprefix("Value error, ").removeprefix("Input ")
    return f"{text[0].lower()}{text[1:]}; see .env.example for its meaning and default"
