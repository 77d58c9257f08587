"""What the hub's tests share: a person's repository, an opened hub, and a runner that can be interrupted."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.clock import SystemClock
from harness.config import Checkout, Merge, Project
from harness.containment import Containment
from harness.hub import Hub, Worktree
from harness.layout import Layout
from harness.logs import Event
from harness.runner import Command, Ended, Runner

AGENT = {
    "GIT_AUTHOR_NAME": "Agent",
    "GIT_AUTHOR_EMAIL": "agent@example.invalid",
    "GIT_COMMITTER_NAME": "Agent",
    "GIT_COMMITTER_EMAIL": "agent@example.invalid",
}


def git(where: Path, *args: str, stdin: bytes = b"", ok: tuple[int, ...] = (0,), **env: str) -> str:
    """Git as a person or an agent runs it, in a folder."""
    done = subprocess.run(
        ["git", *args],
        cwd=where,
        input=stdin,
        capture_output=True,
        env={**os.environ, **AGENT, **env},
        check=False,
    )
    assert done.returncode in ok, f"git {args}: {done.returncode}\n{done.stderr.decode(errors='replace')}"
    return done.stdout.decode("utf-8", "surrogateescape").strip()


@functools.cache
def _made(files: tuple[tuple[str, str], ...], *, bare: bool) -> Path:
    """Such a repository, made once in each process of the tests: six git commands take longer than a copy."""
    top = tempfile.TemporaryDirectory(prefix="harness-test-", ignore_cleanup_errors=True)
    atexit.register(top.cleanup)
    work = Path(top.name) / "work"
    work.mkdir()
    git(work, "init", "-q", "-b", "main")
    for name, text in files:
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "first")
    if bare:
        git(work, "clone", "-q", "--bare", ".", "../bare")
        return work.parent / "bare"
    git(work, "switch", "-q", "-c", "work")
    return work


def person(folder: Path, files: dict[str, str] | None = None, *, bare: bool = False) -> Path:
    """A repository with one commit on main. Checked out on another branch, unless bare."""
    files = files or {"a.txt": "one\n", "src/b.txt": "two\n"}
    shutil.copytree(_made(tuple(files.items()), bare=bare), folder, symlinks=True)
    return folder


def commit(where: Path, name: str, text: str, message: str = "", branch: str | None = None) -> str:
    """One file changed and committed by a person (or an agent) in a checkout. -> the commit"""
    if branch:
        git(where, "switch", "-q", branch)
    path = where / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    git(where, "add", "--", name)
    git(where, "commit", "-q", "-m", message or f"change {name}")
    return git(where, "rev-parse", "HEAD")


@dataclass
class Probe:
    """A runner that counts, and calls `before` with the arguments of each command."""

    runner: Runner
    calls: list[tuple[str, ...]] = field(default_factory=list)
    before: Callable[[tuple[str, ...]], None] = lambda _: None
    after: Callable[[tuple[str, ...]], None] = lambda _: None

    def run(self, command: Command, /) -> Ended:
        args = tuple(command.argv)
        self.calls.append(args)
        self.before(args)
        ended = self.runner.run(command)
        self.after(args)
        return ended


class Killed(Exception):
    """The process died here."""


@dataclass
class Desk:
    """A root, a person's repository, and a hub of it."""

    layout: Layout
    upstream: Path
    project: Project
    durable: bool = False
    events: list[tuple[Event, dict[str, Any]]] = field(default_factory=list)
    probe: Probe = field(
        default_factory=lambda: Probe(Runner(clock=SystemClock(), containment=Containment()))
    )

    def open(self) -> Hub:
        """A Hub as another process of ours would open it."""
        return Hub.open(
            self.layout,
            self.project,
            runner=self.probe,
            clock=SystemClock(),
            durable=self.durable,
            emit=lambda event, **values: self.events.append((event, values)),
        )

    def ready(self) -> Hub:
        """A Hub that is there already: for tests that are not about how one is made. A copy takes a tenth of the time."""
        place = self.layout.hub(self.project.name)
        key = (_tip(self.upstream), self.durable)
        kept = _HUBS.get(key)
        if kept and not place.exists():
            for folder in kept.iterdir():
                shutil.copytree(folder, place.parent / folder.name, symlinks=True)
        hub = self.open()
        if key[0] and not kept:
            _HUBS[key] = _kept(place)
        return hub

    def emitted(self, event: Event) -> list[dict[str, Any]]:
        return [values for seen, values in self.events if seen is event]

    def updating(self) -> None:
        """The same project with `checkout: update`."""
        self.project = replace(self.project, merge=Merge(checkout=Checkout.UPDATE))


_HUBS: dict[tuple[str, bool], Path] = {}
"""Just made hubs, by what their upstream's main was, and whether they are durable."""


def _tip(upstream: Path) -> str:
    """The commit of main, if it is a loose ref; "" otherwise."""
    found = [
        path for path in (upstream / ".git/refs/heads/main", upstream / "refs/heads/main") if path.is_file()
    ]
    return found[0].read_text().strip() if found else ""


def _kept(hub: Path) -> Path:
    top = tempfile.TemporaryDirectory(prefix="harness-test-", ignore_cleanup_errors=True)
    atexit.register(top.cleanup)
    for folder in (hub, hub.with_suffix(".ours")):
        shutil.copytree(folder, Path(top.name) / folder.name, symlinks=True)
    return Path(top.name)


def desk(layout: Layout, upstream: Path, **more: Any) -> Desk:
    return Desk(layout=layout, upstream=upstream, project=Project(name="app", path=str(upstream), **more))


def work(hub: Hub, worktree: Worktree, name: str = "new.txt", text: str = "work\n") -> str:
    """What a well-behaved agent does."""
    return commit(worktree.path, name, text, f"work on {name}")


def submit(
    hub: Hub, uid: str, n: int = 1, name: str = "new.txt", text: str = "work\n", slot: str = "agent-1"
) -> str:
    """One whole attempt: prepared, worked, pinned. -> the commit"""
    worktree = hub.prepare(slot, uid, n, hub.target())
    sha = work(hub, worktree, name, text)
    hub.pin(uid, n, sha)
    return sha


def merge(hub: Hub, uid: str, n: int, sha: str) -> str:
    """The lane taken, the merge built and the target moved. -> the merge commit"""
    held = hub.swap_lane(hub.lane(), f"epoch-{uid}-{n}", None)
    assert held is not None
    old = hub.target()
    built = hub.build_merge(old, uid, n, sha, f"{uid}: work")
    assert hasattr(built, "sha"), built
    assert hub.swap_target(held, built.sha, old) == "ok"
    return built.sha


def reboot(hub: Hub, slot: str = "agent-1") -> None:
    """The slot was last used before the machine was restarted."""
    record = hub.repo.shelf / "slots" / f"{slot}.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "boot": "before"}))
