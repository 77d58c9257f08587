"""Making a root: a commented config.yaml, the folders, the hubs. Never overwrites, and may be run again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from harness.config import URL, Config, load
from harness.config.template import AgentKind, agent_entry, template
from harness.dataclass import dataclass
from harness.errors import ConfigError, ConflictError, HarnessError, UsageError
from harness.layout import Layout
from harness.root import has_version
from harness.store.setup import make_folders, self_test

_TARGET_LINE = "    # target: main          # merges"
"""How the template begins the line of a project's target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Founded:
    """What is there now."""

    root: Path
    new: bool
    """False: it was a root already; what was missing was made, nothing was changed."""
    config: Config
    hubs: tuple[str, ...] = ()
    """Projects whose hubs were made or found usable."""
    failed: Mapping[str, HarnessError]
    """Projects that cannot be used yet, and why."""


def found(
    folder: Path, projects: Mapping[str, str], agent: str | None = None, *, here: Path | None = None
) -> Founded:
    """Make `folder` a root with these projects (name -> path or URL; relative paths start at `here`).

    Raises UsageError or ConfigError before anything is made when a project is no repository, ConflictError when
    projects or a kind of agent are given for a root that has its configuration already. A project that fails later is
    in `failed`.
    """
    folder = folder.expanduser().resolve()
    layout = Layout(folder)
    new = not layout.config.exists()
    if not new:
        if not has_version(layout.config):  # a root whose queue/ was lost is still ours
            raise ConflictError(
                "there is a config.yaml here that is not ours (it has no `v:`)",
                where=layout.config,
                remedy="choose another folder: harnessctl init DIR",
            )
        if projects or agent:
            parts = [_snippet(projects)] if projects else []
            parts += [_indented(agent_entry(agent))] if agent else []
            raise ConflictError(
                "this is a root already, and its configuration is never overwritten",
                where=layout.config,
                remedy="add it there yourself:\n\n"
                + "\n".join(parts)
                + "\n\n  then: harnessctl config check",
            )
    placed = {name: _place(path, folder, here or Path.cwd()) for name, path in projects.items()}
    text = (
        _with_targets(template(placed, agent or AgentKind.COMMAND), projects, here or Path.cwd())
        if new
        else ""
    )
    folder.mkdir(parents=True, exist_ok=True)
    make_folders(layout)
    self_test(layout)
    if new:
        _write(layout.config, text)
    config = load(layout.config)
    hubs, failed = _hubs(layout, config)
    return Founded(root=folder, new=new, config=config, hubs=hubs, failed=failed)


def parse_project(text: str) -> tuple[str, str]:
    """``NAME=PATH``. Raises UsageError."""
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise UsageError(f"--project {text!r} is not NAME=PATH", remedy="for example: --project app=../app")
    return name, path


def _place(path: str, folder: Path, here: Path) -> str:
    """The path as it stands in config.yaml: relative ones start there. Raises UsageError when there is no repository."""
    if URL.match(path):
        return path
    full = Path(os.path.abspath(here / Path(path).expanduser()))
    if not full.is_dir():
        raise UsageError(
            f"{full} is no folder", where="--project", remedy="name a clone, a bare repository or a URL"
        )
    if not (full / ".git").exists() and not (full / "HEAD").is_file():
        raise UsageError(
            f"{full} is not the top of a git repository",
            where="--project",
            remedy=f"make it one (git init {full}, then a first commit), or name another folder",
        )
    if Path(path).expanduser().is_absolute():
        return str(full)
    return os.path.relpath(full, folder)


def _with_targets(text: str, projects: Mapping[str, str], here: Path) -> str:
    """Where a local repository has no `main`, but is on another branch: that one is its target."""
    for name, path in projects.items():
        branch = None if URL.match(path) else _branch(Path(os.path.abspath(here / Path(path).expanduser())))
        if branch:
            head, block, rest = text.partition(f"  {name}:\n")
            text = head + block + rest.replace(_TARGET_LINE, f"    target: {json.dumps(branch)}  # merges", 1)
    return text


def _branch(repository: Path) -> str | None:
    """The branch that a repository is on, when it has none of the default's name. Reads files, asks no git."""
    folder = repository / ".git" if (repository / ".git").is_dir() else repository
    try:
        head = (folder / "HEAD").read_text().strip()
        packed = (folder / "packed-refs").read_text() if (folder / "packed-refs").exists() else ""
    except (OSError, UnicodeDecodeError):
        return None
    if (folder / "refs/heads/main").exists() or " refs/heads/main\n" in packed:
        return None
    branch = head.removeprefix("ref: refs/heads/")
    return branch if branch not in (head, "main") else None


def _snippet(projects: Mapping[str, str]) -> str:
    lines = ["projects:"]
    for name, path in projects.items():
        shown = path if URL.match(path) else os.path.abspath(path)
        lines += [f"  {name}:", f"    path: {shown}"]
    return _indented("\n".join(lines))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.rstrip().splitlines())


def _write(path: Path, text: str) -> None:
    """Whole, and never over a file that appeared meanwhile."""
    private = path.with_name(f".{path.name}.{os.getpid()}.new")
    private.write_text(text, encoding="utf-8")
    try:
        os.link(private, path)
    except FileExistsError:
        raise ConflictError("somebody else made it meanwhile", where=path, remedy="run it again") from None
    finally:
        private.unlink()


def _hubs(layout: Layout, config: Config) -> tuple[tuple[str, ...], dict[str, HarnessError]]:
    from harness.control.changes import make_hub

    made: list[str] = []
    failed: dict[str, HarnessError] = {}
    for name, project in config.projects.items():
        try:
            make_hub(layout, config, project)
        except (HarnessError, OSError) as e:
            failed[name] = e if isinstance(e, HarnessError) else ConfigError(str(e), where=f"projects.{name}")
        else:
            made.append(name)
    return tuple(made), failed
