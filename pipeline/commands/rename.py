"""`nox -s rename -- NAME`: give the template, or a service made from it, another name, in one step or not at all.

The rule: in each file that git tracks, the service's name is replaced where it is a word of its own, in Python only
where it is a whole string. `pipeline/`, `tests/` and noxfile.py are left alone: they read the name from pyproject.toml.
The new name must not be a word of the tree yet, so that the next rename finds the service's name and nothing else.

With `--bare` the example leaves in the same step: see `pipeline.config.example`.
"""

from __future__ import annotations

import logging
import re
import shutil
import stat
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.commands import Verbs
from pipeline.commands.environments import Opener
from pipeline.config.example import DIGESTS, Parts, digest_text, part_problems, read_parts, without
from pipeline.config.example import changed_files as not_the_templates
from pipeline.config.logins import SERVICE_LOGIN
from pipeline.config.project import Environment, KubernetesEnvironment, Project
from pipeline.config.settings import read_env, variables
from pipeline.errors import SlipwayError, UsageError
from pipeline.releases.migration_files import migration_file_problems
from pipeline.releases.records import Records
from pipeline.system.files import write_whole
from pipeline.system.git import changed_files, common_commit, count_commits, origin, tracked_files
from pipeline.system.progress import Progress
from pipeline.targets import open_target

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
    | slipway\.(?:config|drain|monitoring|needs|password|proof|release|report|schema|slot|socket|throwaway|token)
    | rename\ --\ [\w-]+
    """,
    re.VERBOSE,
)
TEMPLATE_ONLY = re.compile(r"<!-- template -->\n.*?<!-- /template -->\n\n?", re.DOTALL)  # in Markdown
TEMPLATE_LINES = re.compile(r"^ *# template\n.*?^ *# /template\n", re.DOTALL | re.MULTILINE)  # in YAML
PROJECT, CODEOWNERS = "pyproject.toml", ".github/CODEOWNERS"
NOBODY = "@your-organization/your-team"  # in the template's CODEOWNERS
NOWHERE = "github.com/your-organization/"  # in addresses of its own pages
OWNER = re.compile(r"@[A-Za-z0-9-]+(?:/[\w.-]+)?|[^@\s]+@[^@\s]+")
PLACEHOLDER_HOST = re.compile(r"(?:^|\.)example(?:\.(?:com|net|org))?$")  # nobody can deploy there (RFC 2606)
PART_OF = re.compile(r"app\.kubernetes\.io/part-of: ([\w.-]+)")


def add_parsers(verbs: Verbs) -> None:
    parser = verbs.add("rename", rename, "give the service another name")
    parser.add_argument("name", metavar="NAME", help="for example my-service")
    parser.add_argument("--bare", action="store_true", help="also take the example out: one small resource stays")
    parser.add_argument("--owner", metavar="@ORG/TEAM", help="who reviews changes, for .github/CODEOWNERS")
    parser.add_argument(
        "--never-deployed", metavar="ENV", action="append", default=[], help="with --bare: one that cannot be asked"
    )
    parser = verbs.add("parts", parts, "check the lists of what is the example's")
    parser.add_argument("--write", action="store_true", help="also write the digests of its files")


def rename(project: Project, options: Namespace, progress: Progress) -> None:
    """Give the service another name, everywhere; with `--bare`, take the example out.

    Raise `UsageError` before anything is touched, where that is not a valid name or is already a word of the tree, or
    where the tree is dirty, half renamed or not a git repository; with `--bare`, see `_bare_problems`.
    """
    root, old, new = project.root, project.name, options.name
    _check_options(project, options)
    names = tracked_files(root)
    if names is None:
        raise UsageError(
            "no git repository: rename changes what git tracks: run `git init`, `git add --all`, `git commit`"
        )
    texts = _texts(root, names)
    if problems := _half_renamed(texts, old):
        raise UsageError(*problems)
    example = read_parts(root) if options.bare else None
    ownerless = NOBODY in texts.get(CODEOWNERS, "")
    if new == old and not example and not (ownerless and options.owner):
        gone = ", and the example is gone" if options.bare else ""
        log.info(f"the service is already called {new}{gone}: nothing to do")
        _rename_in_env(project, new)
        return
    if changed := changed_files(root):
        raise UsageError(f"{changed[0]}{_more(changed)} not committed: commit or stash first, so that git can undo it")
    taken = sorted({*_using(texts, old, new), *(name for name in names if new in re.split(r"[/.]", name))})
    if taken and new != old:
        raise UsageError(
            f"`{new}` is already a word of {taken[0]}{_more(taken)}, and no later rename could tell them apart:"
            f" choose another name, for example `{new}-service`"
        )
    if example and (problems := _bare_problems(project, options, progress, example, names, ownerless=ownerless)):
        raise UsageError(*problems)
    owner = _owner(options) if ownerless else None
    wanted = {name: renamed(name, text, old, new) for name, text in texts.items()}
    if owner:
        wanted |= _owned(wanted, owner)
    if project.template is None and (commit := common_commit(root)):
        made = f'template = "{commit}" # the commit of the template that this was made from\n'
        wanted[PROJECT] = wanted[PROJECT].replace("[tool.slipway]\n", f"[tool.slipway]\n{made}", 1)
    files: dict[str, bytes | None] = {name: text.encode() for name, text in wanted.items() if text != texts[name]}
    if example:
        files |= without(root, example, names, wanted)
    _write(root, files)
    _say_what_stays(project, owner or options.owner, new, ownerless=ownerless and not owner)
    _rename_in_env(project, new)


def parts(project: Project, options: Namespace, _: Progress) -> None:
    """Check that each part of the template is in one list of bare/parts.toml, and that the digests are up to date.

    In a repository that was made from the template, nothing is checked: what is added there is no example's.
    """
    root, example = project.root, read_parts(project.root)
    names = tracked_files(root)
    if example is None or names is None or project.template is not None:
        return
    problems = part_problems(project, example, names)
    text = digest_text(root, example, names, _plain(project.name))
    path = root / DIGESTS
    if options.write:
        path.write_text(text, encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        fix = "`.nox/pipeline/bin/python -m pipeline parts --write`"
        problems.append(f"{DIGESTS} does not have the files as they are: {fix}")
    if problems:
        raise SlipwayError(*problems)


def _check_options(project: Project, options: Namespace) -> None:
    new, owner = options.name, options.owner
    if not NAME.fullmatch(new) or len(new) > LONGEST or new.startswith("slipway-"):
        raise UsageError(
            f"`{new}` is not a valid name for a service: use lower-case letters, digits and single hyphens, a letter"
            f" first, {LONGEST} characters at most, and not `slipway-…`, which is the pipeline's; for example"
            " `nox -s rename -- my-service`"
        )
    if owner is not None and not OWNER.fullmatch(owner):
        raise UsageError(f"`{owner}` is nobody's name on GitHub: give `--owner @org/team`, or `--owner @you`")
    for env in options.never_deployed:
        project.environment(env)


def _owner(options: Namespace) -> str | None:
    """Return who reviews changes: what was given, or for a bare service what a person answers."""
    if options.owner or not options.bare:
        return options.owner or None
    sys.stderr.write("Who reviews changes, for .github/CODEOWNERS (@org/team, or @you)? ")
    sys.stderr.flush()
    options.owner = sys.stdin.readline().strip()
    if not OWNER.fullmatch(options.owner):
        raise UsageError(f"`{options.owner}` is nobody's name on GitHub: nothing was changed")
    return str(options.owner)


# --- without the example ---


def _owned(texts: Mapping[str, str], owner: str) -> dict[str, str]:
    """Return those of `texts` that name nobody, with `owner` in its place: who reviews, and where alerts lead to."""
    place = f"github.com/{owner[1:].split('/', maxsplit=1)[0]}/" if owner.startswith("@") else NOWHERE
    owned = {name: text.replace(NOWHERE, place) for name, text in texts.items() if NOWHERE in text}
    return {**owned, CODEOWNERS: texts[CODEOWNERS].replace(NOBODY, owner)}


def _bare_problems(
    project: Project, options: Namespace, progress: Progress, example: Parts, names: list[str], *, ownerless: bool
) -> list[str]:
    """Return why the example cannot leave, one line each: own work in its files, migrations, deploys, nobody to own."""
    problems = migration_file_problems(project.root)
    if own := not_the_templates(project.root, example, names, _plain(project.name)):
        problems.append(
            f"{own[0]}{_more(own)} {'differ' if own[1:] else 'differs'} from the template's, and --bare would remove or"
            " change that: take your own work out of it, or take the example out by hand (docs/2-your-own-service.md)"
        )
    for env in project.environments.values():
        problems += _deployed(project, env, progress, never=env.name in options.never_deployed)
    if ownerless and not options.owner and not sys.stdin.isatty():
        problems.append(f"{CODEOWNERS} names nobody: say who reviews changes, `--owner @org/team` (or `@you`)")
    return problems


def _deployed(
    project: Project, env: Environment, progress: Progress, *, never: bool, opened: Opener = open_target
) -> list[str]:
    """Return a line if releases were deployed to `env`, or may have been: its database has the example's tables."""
    volumes = f"`nox -s down -- {env.name} --volumes` removes them and their data"
    away = f"{env.name} has releases with the example: {volumes}; data to keep: docs/3-migrations.md, contract later"
    if Records(project.state(env.name) / "releases").all():
        return [away]
    if not isinstance(env, KubernetesEnvironment):
        return []
    if PLACEHOLDER_HOST.search(urlsplit(env.url).hostname or ""):
        log.info(f"{env.name} was not asked for releases: {env.url} is the template's, and nobody's address")
        return []
    try:
        return [away] if opened(project, env, progress).records().all() else []
    except SlipwayError as error:
        asked = f"{env.name} cannot be asked for its releases ({error.problems[0]})"
        # A cluster on this machine that is not there has no releases.
        if never or _is_here(env):
            return []
        return [f"{asked}: if there never was one, say `--never-deployed {env.name}`"]


def _is_here(env: Environment) -> bool:
    """Return whether `env` is on this machine, and its settings in `.env`."""
    return not isinstance(env, KubernetesEnvironment) or env.context.startswith("kind-")


def _plain(name: str) -> Callable[[str, str], str]:
    """Return a function that gives a file's text as it is in every repository, whatever the service's name."""
    return lambda file, text: text if _is_left_alone(file) else renamed(file, text, name, "\0")


def renamed(name: str, text: str, old: str, new: str) -> str:
    """Return the `text` of the file `name` after the service `old` is renamed to `new`."""
    if name.endswith(".md"):
        text = TEMPLATE_ONLY.sub("", text)
    if name.endswith(".yaml"):
        text = TEMPLATE_LINES.sub("", text)
    if name == "README.md":
        text = re.sub(rf"\A# {old}$", f"# {new}", text, count=1, flags=re.IGNORECASE | re.MULTILINE)
    if old not in text:  # most have nothing to rename, and the pattern is slow to say so
        return text
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
        if _is_left_alone(name) or path.is_symlink() or not path.is_file():
            continue
        try:
            texts[name] = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue  # an image
    return texts


def _is_left_alone(name: str) -> bool:
    return name.startswith(PIPELINE) or MIGRATIONS in name


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
    rest = {name: renamed(name, text, old, "\0") for name, text in texts.items() if new in text}
    return [name for name, text in rest.items() if any(not match["kept"] for match in _word(new, name).finditer(text))]


def _write(root: Path, files: Mapping[str, bytes | None]) -> None:
    """Write `files`, and remove those without a content; if one cannot be, all are as before."""
    before: dict[Path, tuple[bytes, int] | None] = {}
    try:
        for name, content in files.items():
            path = root / name
            before[path] = (path.read_bytes(), path.stat().st_mode) if path.exists() else None
            _replace(path, content)
    except BaseException:
        for path, was in before.items():
            _replace(path, was and was[0], was[1] if was else None)
        raise
    for name in [name for name, content in files.items() if content is None]:
        _remove_empty((root / name).parent)
    look = "`git add --all && git diff --cached`"  # new files, too
    log.info(f"{len(files)} files changed: look at {look}, then `nox -s lint`, `nox -s test`, commit")


def _replace(path: Path, content: bytes | None, mode: int | None = None) -> None:
    """Make `content` the whole content of `path`, and keep its mode; None removes it."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode if path.exists() else mode
    try:
        part.write_bytes(content)
        part.chmod(0o644 if mode is None else stat.S_IMODE(mode))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    """Remove `folder` and those above it, as far as nothing but Python's caches is left in them."""
    for one in (folder, *folder.parents):
        if not one.exists():
            continue
        if [path for path in one.iterdir() if path.name != "__pycache__"]:
            return
        shutil.rmtree(one)


# --- what is not in git ---


def _say_what_stays(project: Project, owner: str | None, new: str, *, ownerless: bool) -> None:
    root = project.root
    if (root / "LICENSE").exists():
        log.info("LICENSE stays: add your own line; its notice covers the template")
    if ownerless:
        log.info(f"{CODEOWNERS} names nobody yet: `nox -s rename -- {new} --owner @org/team`")
    if project.template is not None:  # what follows was said then
        return
    address = origin(root)
    if address and not address.endswith(f"/{new}"):
        place = f"git@{urlsplit(address).hostname or 'github.com'}:{(owner or '@OWNER')[1:].split('/')[0]}/{new}.git"
        log.info(f"origin is {address}: if that is the template's, `git remote set-url origin {place}`")
    count = count_commits(root)
    if count > 1:
        fresh = "git reset --soft $(git commit-tree 'HEAD^{tree}' -m 'the template')"
        log.info(f"{count} commits are behind this: keep them, or if they are the template's, begin anew: `{fresh}`")


def _rename_in_env(project: Project, new: str) -> None:
    """Let the names in `.env` follow, unless something runs on this machine under the old one, or may have data."""
    path = project.root / ".env"
    values = read_env(project.root)[0]
    old = values.get("PROJECT_NAME")
    if old is None or old == new:
        return
    named = [name for name, value in values.items() if value and SERVICE_LOGIN.sub("", value) == old]
    said = f".env says `{old}` for {', '.join(named)}"
    here = [env.name for env in project.environments.values() if _is_here(env)]
    deployed = [name for name in here if Records(project.state(name) / "releases").all()]
    if deployed:
        log.info(
            f"{said}, and what runs in {', '.join(deployed)} keeps that name and its data; to start empty under the new"
            f" one: `nox -s down -- {deployed[0]} --volumes`, then `nox -s rename -- {new}` again"
        )
        return
    text = path.read_text(encoding="utf-8")
    for name in named:
        text = re.sub(rf"(?m)^(\s*(?:export\s+)?{name}\s*=\s*[\"']?){re.escape(old)}\b", rf"\g<1>{new}", text)
    write_whole(path, text)
    log.info(f"{said}: `{new}` now, as nothing was deployed here")


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
