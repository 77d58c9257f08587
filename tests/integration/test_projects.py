"""Projects that cannot be used (yet) do not keep the others waiting."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from pathlib import Path

import pytest

from harness import procs
from harness.clock import SystemClock
from harness.config import Config, load
from harness.coordinator.projects import Projects
from harness.errors import TryAgainError
from harness.events import EventStream, read
from harness.hub import Hub
from harness.layout import Layout
from tests.daemons import daemon
from tests.hubs import person
from tests.support import until


def test_the_first_fetch_ends_with_the_coordinator(tmp_path: Path) -> None:
    """Nobody would ever know of a git that waits for the network of a coordinator that was killed."""
    with socket.create_server(("127.0.0.1", 0)) as server, daemon(tmp_path) as d:
        url = f"git://127.0.0.1:{server.getsockname()[1]}/far.git"
        d.config["projects"]["far"] = {"path": url, "target": "main", "agent": "shell"}
        d.write_config()
        process = d.start()
        far = server.accept()[0]

        def fetching() -> list[int]:
            found = [pid for pid in procs.pids() if url.encode() in (procs.read(pid, "cmdline") or b"")]
            return [pid for pid in found if (seen := procs.stat(pid)) and not seen.dead]

        assert fetching()
        process.kill()
        until(lambda: not fetching(), 20, what="its git has ended")
        far.close()


def test_a_url_that_does_not_answer_holds_up_nobody_else(tmp_path: Path) -> None:
    """The first fetch waits for the network for minutes; systemd would end a coordinator that waits with it."""
    with socket.create_server(("127.0.0.1", 0)) as server, daemon(tmp_path) as d:
        url = f"git://127.0.0.1:{server.getsockname()[1]}/far.git"
        d.config["projects"]["far"] = {"path": url, "target": "main", "agent": "shell"}
        d.write_config()
        d.start()
        far = server.accept()[0]
        d.drop("near", {"prompt": "echo x > a", "project": "app"})
        d.drop("other", {"prompt": "true", "commit": "none", "project": "far"})
        d.until_state("near", "merged")
        until(lambda: (r := d.coordinator()) and any("first fetch" in p for p in r.problems), 20)
        assert d.state("other") == "ready"
        far.close()
        until(
            lambda: (
                (r := d.coordinator())
                and any("far cannot be used" in p and "first fetch" not in p for p in r.problems)
            ),
            40,
            what=d.tail(),
        )
        assert d.state("other") == "ready"
        assert d.items()["other"].attempts == ()


@pytest.fixture
def config(layout: Layout, tmp_path: Path) -> Config:
    project = {"path": str(person(tmp_path / "up")), "target": "main", "agent": "shell"}
    agents = {"shell": {"adapter": "command", "argv": ["true"]}}
    layout.config.write_text(json.dumps({"v": 1, "projects": {"app": project}, "agents": agents}))
    return load(layout.config)


@pytest.fixture
def projects(layout: Layout) -> Projects:
    return Projects(layout, SystemClock(), EventStream(layout, SystemClock(), "coordinator"))


def test_a_hub_is_swept_once_in_the_life_of_a_coordinator_and_not_in_its_loop(
    projects: Projects, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    by: list[threading.Thread] = []
    swept = threading.Event()

    def sweep(hub: Hub, emit: object) -> None:
        by.append(threading.current_thread())
        swept.set()

    monkeypatch.setattr(Hub, "sweep", sweep)
    projects.check(config)
    assert swept.wait(20)
    projects.hear()
    projects.check(config)
    until(lambda: not _looks(projects), 20)
    assert len(by) == 1
    assert by[0] is not threading.main_thread()


def _looks(projects: Projects) -> set[str]:
    projects.hear()
    return projects.looking


def test_a_sweep_that_fails_is_said_and_the_project_can_be_used(
    layout: Layout, projects: Projects, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sweep(hub: Hub, emit: object) -> None:
        raise TryAgainError("another process has held the lock of this hub")

    monkeypatch.setattr(Hub, "sweep", sweep)
    projects.check(config)
    until(lambda: any(e["event"] == "process_failed" for _, e in read(layout)), 20)
    assert projects.unusable == {}


def test_a_sweep_that_cannot_even_begin_keeps_no_project_from_being_used(
    projects: Projects, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    projects.check(config)
    projects.hear()
    assert (projects.unusable, projects.looking) == ({}, set())


def test_a_coordinator_whose_git_is_killed_at_its_start_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the kernel, for memory, say. After an exit with 78 systemd would start no other."""
    real, bin_, once = shutil.which("git"), tmp_path / "bin", tmp_path / "once"
    with daemon(tmp_path, workers=0) as d:
        bin_.mkdir()
        (bin_ / "git").write_text(
            f'#!/bin/sh\ncase "$*" in *grep*) if mkdir {once}; then kill -9 $$; fi;; esac\nexec {real} "$@"\n'
        )
        (bin_ / "git").chmod(0o755)
        monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
        d.start()
        until(lambda: (r := d.coordinator()) and any("signal 9" in p for p in r.problems), 30, what=d.tail())
        assert once.exists()
        until(lambda: (r := d.coordinator()) and not r.problems, 30, what=d.tail())
