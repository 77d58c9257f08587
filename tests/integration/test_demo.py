"""`harnessctl demo` from outside: it ends well, proves what it says, and leaves nothing behind, also when interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.demo.daemon import left
from harness.demo.scene import Scene
from harness.demo.work import PLAN
from tests.support import environment, running, until

DEMO = (sys.executable, "-P", "-m", "harness", "demo")


@pytest.mark.timeout(300)
def test_the_demo_merges_every_item_exactly_once_whatever_it_does_to_itself(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "demo")
    ran = subprocess.run(
        (*DEMO, "--keep", str(scene.folder)),
        env=environment(NO_COLOR="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert not left(scene)

    log = _git(scene.repository, "log", "--first-parent", "--merges", "--format=%s", "main").splitlines()
    assert sorted(subject.partition(":")[0] for subject in log) == sorted(PLAN)
    assert _git(scene.repository, "status", "--porcelain") == ""
    tests = (sys.executable, "-B", "-m", "unittest", "-q")
    assert subprocess.run(tests, cwd=scene.repository, capture_output=True, check=False).returncode == 0

    assert "on purpose" in ran.stdout
    assert "concordance: attempt 1 is expired" in ran.stdout
    assert "is replaced: process" in ran.stdout
    assert "slugs: the failure goes back to the agent, in the same session" in ran.stdout
    assert "headlines: attempt 1 failed" in ran.stdout
    assert "format-html: returned by the merge lane (conflict" in ran.stdout
    assert "All 12 items are merged, each exactly once." in ran.stdout
    assert "\x1b" not in ran.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "term"])
def test_an_interrupted_demo_leaves_no_process_and_no_file(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    with (
        out.open("wb") as stdout,
        running(DEMO, env=environment(TMPDIR=str(tmp)), stdout=stdout.fileno()) as demo,
    ):
        until(lambda: b" takes " in out.read_bytes(), 120, what="an item that is being worked on")
        (folder,) = tmp.glob("harness-demo-*")
        scene = Scene(folder)
        assert left(scene)
        os.kill(demo.pid, number)
        assert demo.wait(60) == 130
    assert not left(scene)
    assert list(tmp.iterdir()) == []


def test_a_folder_that_holds_something_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    ran = subprocess.run(
        (*DEMO, "--keep", str(tmp_path)), env=environment(), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "is not empty" in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def _git(repository: Path, *words: str) -> str:
    return subprocess.run(
        ("git", "-C", str(repository), *words), check=True, capture_output=True, text=True
    ).stdout
