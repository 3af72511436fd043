"""`nox -s rename -- NAME`: give the template, or a service made from it, another name, in one step or not at all.

The rule: in each file that git tracks, the service's name is replaced where it is a word of its own, in Python only
where it is a whole string. `pipeline/`, `tests/` and noxfile.py are left alone: they read the name from pyproject.toml.
The new name must not be a word of the tree yet, so that the next rename finds the service's name and nothing else.
"""

from __future__ import annotations

import logging
import re
import stat
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.commands import Verbs
from pipeline.config.project import Project
from pipeline.config.settings import read_values, variables
from pipeline.errors import UsageError
from pipeline.system.git import changed_files, tracked_files
from pipeline.system.progress import Progress

__all__ = ["add_parsers", "renamed"]

log = logging.getLogger(__name__)

NAME = re.compile(r"[a-z](?:-?[a-z0-9])*")  # a DNS label (RFC 1035), and normal for a package (PEP 503)
LONGEST = 40  # of a label's 63, for `NAME-production` and the names of pods
PIPELINE = ("pipeline/", "tests/", "noxfile.py")
MIGRATIONS = "/migrations/versions/"  # an applied migration never changes
# The template has the pipeline's name. These uses are the pipeline's; the last is the example of a command.
KEPT = re.compile(
    r"""
    tool\.slipway | (?<!\w)\.slipway | /var/lib/slipway | vnd\.slipway | urn:slipway
    | (?:managed-by[:=]\ ? | field-manager= | manager\ \(`) slipway
    | kind-slipway | cluster\ `slipway | slipway-(?:cluster|registry|control-plane|worker)
    | slipway-(?:deploy|proof|release|synthetic)
    | slipway/(?:record|release|secrets)
    | slipway\.(?:config|drain|needs|password|proof|release|report|schema|slot|throwaway|token)
    | rename\ --\ [\w-]+
    """,
    re.VERBOSE,
)
TEMPLATE_ONLY = re.compile(r"<!-- template -->\n.*?<!-- /template -->\n\n?", re.DOTALL)  # in Markdown
TEMPLATE_LINES = re.compile(r"^ *# template\n.*?^ *# /template\n", re.DOTALL | re.MULTILINE)  # in YAML
PART_OF = re.compile(r"app\.kubernetes\.io/part-of: ([\w.-]+)")


def add_parsers(verbs: Verbs) -> None:
    parser = verbs.add("rename", rename, "give the service another name")
    parser.add_argument("name", metavar="NAME", help="for example my-service")


def rename(project: Project, options: Namespace, _: Progress) -> None:
    """Give the service another name, everywhere.

    Raise `UsageError` before anything is touched, where that is not a valid name or is already a word of the tree, or
    where the tree is dirty, half renamed or not a git repository.
    """
    root, old, new = project.root, project.name, options.name
    if not NAME.fullmatch(new) or len(new) > LONGEST or new.startswith("slipway-"):
        raise UsageError(
            f"`{new}` is not a valid name for a service: use lower-case letters, digits and single hyphens, a letter"
            f" first, {LONGEST} characters at most, and not `slipway-…`, which is the pipeline's; for example"
            " `nox -s rename -- my-service`"
        )
    names = tracked_files(root)
    if names is None:
        raise UsageError(
            "no git repository: rename changes what git tracks: run `git init`, `git add --all`, `git commit`"
        )
    texts = _texts(root, names)
    if problems := _half_renamed(texts, old):
        raise UsageError(*problems)
    if new == old:
        log.info(f"the service is already called {new}: nothing to do")
        return
    if changed := changed_files(root):
        raise UsageError(f"{changed[0]}{_more(changed)} not committed: commit or stash first, so that git can undo it")
    taken = sorted({*_using(texts, old, new), *(name for name in names if new in re.split(r"[/.]", name))})
    if taken:
        raise UsageError(
            f"`{new}` is already a word of {taken[0]}{_more(taken)}, and no later rename could tell them apart:"
            f" choose another name, for example `{new}-service`"
        )
    wanted = {name: renamed(name, text, old, new) for name, text in texts.items()}
    _write(root, texts, {name: text for name, text in wanted.items() if text != texts[name]})
    _say_what_stays(root, old)


def renamed(name: str, text: str, old: str, new: str) -> str:
    """Return the `text` of the file `name` after the service `old` is renamed to `new`."""
    if name.endswith(".md"):
        text = TEMPLATE_ONLY.sub("", text)
    if name.endswith(".yaml"):
        text = TEMPLATE_LINES.sub("", text)
    if name == "README.md":
        text = re.sub(rf"\A# {old}$", f"# {new}", text, count=1, flags=re.IGNORECASE | re.MULTILINE)
    return _word(old, name).sub(lambda match: match[0] if match["kept"] else new, text)


def _word(word: str, file: str) -> re.Pattern[str]:
    """Return the pattern of `word` as the service's name in `file`; its group `kept` matches what is never renamed."""
    start, end = (r"(?<=[\"'])", r"(?=[\"'])") if file.endswith(".py") else (r"(?<![A-Za-z0-9_])", r"(?![A-Za-z0-9_])")
    return re.compile(rf"(?P<kept>{KEPT.pattern})|{start}{re.escape(word)}{end}", re.VERBOSE)


def _texts(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the texts of the files that a rename may change, by name: no binaries, and none of the pipeline's."""
    texts = {}
    for name in names:
        path = root / name
        if name.startswith(PIPELINE) or MIGRATIONS in name or path.is_symlink() or not path.is_file():
            continue
        try:
            texts[name] = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue  # an image
    return texts


def _half_renamed(texts: Mapping[str, str], old: str) -> list[str]:
    """Return a line for each place that has another name for the service than pyproject.toml."""
    default = next(variable.default for variable in variables() if variable.name == "PROJECT_NAME")
    used = [("backend/settings.py, PROJECT_NAME", default)]
    used += [
        (name, label)
        for name, text in texts.items()
        if name.startswith("k8s/")
        for label in dict.fromkeys(PART_OF.findall(text))
    ]
    return [
        f"half renamed: {place} says `{name}`, pyproject.toml `{old}`: make the names agree (git knows the last one)"
        for place, name in used
        if name != old
    ]


def _using(texts: Mapping[str, str], old: str, new: str) -> list[str]:
    """Return the files where `new` is a word already, before `old` becomes it."""
    # Search with the old name taken out: either name may be a part of the other.
    rest = {name: renamed(name, text, old, "\0") for name, text in texts.items()}
    return [name for name, text in rest.items() if any(not match["kept"] for match in _word(new, name).finditer(text))]


def _write(root: Path, before: Mapping[str, str], after: Mapping[str, str]) -> None:
    begun: list[str] = []
    try:
        for name, text in after.items():
            begun.append(name)
            _replace(root / name, text)
    except BaseException:
        for name in begun:
            _replace(root / name, before[name])
        raise
    log.info(f"{len(after)} files changed: look at `git diff`, then `nox -s lint`, `nox -s test`, commit")


def _replace(path: Path, text: str) -> None:
    """Make `text` the whole content of `path`, and keep its mode."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(text.encode())
        part.chmod(stat.S_IMODE(path.stat().st_mode))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _say_what_stays(root: Path, old: str) -> None:
    if (root / "LICENSE").exists():
        log.info("LICENSE stays: add your own line; its notice covers the template")
    kept = [name for name, value in read_values(root, {}).items() if value == old]
    if kept:
        log.info(f".env still says `{old}` for {', '.join(kept)}: what runs here and its data keep that name")


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
