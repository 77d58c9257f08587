"""Builds what the demo works on: a person's repository, a harness root beside it, and the drops of the plan."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import harness
from harness.dataclass import dataclass
from harness.demo.agent import ALONE
from harness.demo.work import BATCH, FIRST, PROJECT, REPOSITORY, SINGLE, Work
from harness.errors import UsageError
from harness.layout import Layout
from harness.store.setup import make_folders

TESTS = (sys.executable, "-B", "-m", "unittest", "-q")
"""The gate, and the last word on the result. -B: nothing but the work is written into the repository."""

_CONFIG = """\
# Written by `harnessctl demo`. Every key: docs/configuration.md
v: 1
workers: {workers}

projects:
  {project}:
    path: ../{project}
    gates:
      - {{name: tests, run: {tests}, timeout_s: 60}}
    merge:
      gates: [tests]        # again, on the merged tree
      checkout: update      # the person has `main` checked out: bring the files along, if they are clean

agents:
  scripted:                 # a program that edits, tests and commits: harness/demo/agent.py
    adapter: command
    argv: {argv}
    prompt: file
    instructions: text
    env: {env}

retry: {{first_delay_s: 0.2, max_delay_s: 1.0}}
heal: {{rounds: 1}}
disk: {{floor_mb: 64, floor_inodes: 500}}   # the demo is small
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything is below `folder`, temporary files of the agents too."""

    folder: Path

    @property
    def repository(self) -> Path:
        """The person's clone."""
        return self.folder / PROJECT

    @property
    def layout(self) -> Layout:
        return Layout(self.folder / "harness")

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"

    @property
    def output(self) -> Path:
        """What the coordinator prints."""
        return self.folder / "coordinator.log"


@contextmanager
def stage(keep: Path | None) -> Iterator[Scene]:
    """A folder for the demo; removed afterwards unless it was named. Raises UsageError when it is not empty."""
    if keep is not None:
        folder = keep.expanduser().resolve()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(
                "is not empty", where=folder, remedy="name a new folder: harnessctl demo --keep DIR"
            )
        folder.mkdir(parents=True, exist_ok=True)
        yield Scene(folder)
        return
    folder = Path(tempfile.mkdtemp(prefix="harness-demo-")).resolve()
    try:
        yield Scene(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build(scene: Scene, workers: int) -> None:
    """The repository with its first commit, and a root that works on it."""
    for path, text in REPOSITORY.items():
        target = scene.repository / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    git(scene.repository, "init", "--quiet", "--initial-branch=main")
    git(scene.repository, "add", "--all")
    person = ("-c", "user.name=Demo", "-c", "user.email=demo@example.invalid", "-c", "commit.gpgsign=false")
    git(scene.repository, *person, "commit", "--quiet", "--message=Begin")
    scene.tmp.mkdir()
    scene.layout.root.mkdir()
    make_folders(scene.layout)
    scene.layout.config.write_text(_config(workers), encoding="utf-8")


def _config(workers: int) -> str:
    # The agent imports its script from where this very package is.
    env = {"PYTHONPATH": str(Path(harness.__file__).resolve().parent.parent)} | (
        {ALONE: "1"} if workers < 2 else {}
    )
    return _CONFIG.format(
        workers=workers,
        project=PROJECT,
        tests=json.dumps(shlex.join(TESTS)),
        argv=json.dumps([sys.executable, "-P", "-m", "harness.demo.agent"]),
        env=json.dumps(env),
    )


def drop_first(scene: Scene) -> None:
    for work in FIRST:
        _drop(scene, f"{work.id}.json", json.dumps(_draft(work), indent=1))


def drop_rest(scene: Scene) -> None:
    """The others: single files, and a batch."""
    for work in SINGLE:
        _drop(scene, f"{work.id}.json", json.dumps(_draft(work), indent=1))
    _drop(scene, "batch.jsonl", "".join(json.dumps(_draft(work)) + "\n" for work in BATCH))


def _draft(work: Work) -> dict[str, object]:
    draft: dict[str, object] = {"id": work.id, "title": work.title, "prompt": work.prompt, "convoy": PROJECT}
    if work.priority != "medium":
        draft["priority"] = work.priority
    if work.after:
        draft["depends_on"] = list(work.after)
    if not work.appends:
        draft["files"] = sorted(work.files)  # the gate `scope` watches over them
    return draft


def _drop(scene: Scene, name: str, text: str) -> None:
    """As any program should: write under a hidden name, then rename."""
    queue = scene.layout.queue
    (queue / f".{name}.new").write_text(text, encoding="utf-8")
    os.rename(queue / f".{name}.new", queue / name)


def git(repository: Path, *words: str) -> str:
    """git as a person runs it there, but never asking anything."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | {"GIT_TERMINAL_PROMPT": "0"}
    ran = subprocess.run(
        ("git", "-C", str(repository), *words), check=True, stdout=subprocess.PIPE, text=True, env=env
    )
    return ran.stdout
