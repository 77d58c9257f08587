"""Reaping with real processes: what belongs to the root ends, everything else goes on."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness import presence, reports
from harness.atomicfs import FileLock
from harness.errors import ConflictError
from harness.layout import Layout
from harness.procs import ProcessId
from harness.reap import reap, stopped
from tests.support import environment, line, make_root, python, running

WORKER = """
import signal, sys
from pathlib import Path
from harness.layout import Layout
from harness.presence import announce
told = []
stubborn = sys.argv[3] == "stubborn"
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGUSR2, lambda *_: told.append(1))
me = announce(Layout(Path(sys.argv[1])), sys.argv[2])
print("ready", flush=True)
while stubborn or not told:
    signal.pause()
print("released", flush=True)
me.close()
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def worker(stack: ExitStack, layout: Layout, name: str, kind: str = "polite") -> subprocess.Popen[bytes]:
    process = stack.enter_context(python(WORKER, str(layout.root), name, kind))
    assert line(process) == "ready"
    return process


def agent(stack: ExitStack, cwd: Path, **env: str) -> subprocess.Popen[bytes]:
    """Something that an attempt left behind."""
    argv = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)"]
    process = stack.enter_context(running(argv, cwd=cwd, env=environment(**env)))
    assert line(process) == "ready"
    return process


def test_a_worker_gets_time_to_release_its_attempt(layout: Layout, stack: ExitStack) -> None:
    process = worker(stack, layout, "agent-1")
    assert reap(layout) == 1
    assert line(process) == "released"
    assert process.wait(10) == 0
    assert reap(layout) == 0


def test_who_does_not_go_is_killed(layout: Layout, stack: ExitStack) -> None:
    process = worker(stack, layout, "merger.app", "stubborn")
    assert reap(layout, grace_s=0.2) == 1
    assert process.wait(10) == -signal.SIGKILL
    assert presence.living(layout) == []
    assert list(layout.presence.iterdir()) == []


def test_another_root_and_a_persons_command_line_are_left_alone(
    layout: Layout, stack: ExitStack, tmp_path: Path
) -> None:
    other = make_root(tmp_path / "other")
    elsewhere = worker(stack, other, "agent-1")
    cli = worker(stack, layout, "cli")
    attempt = agent(stack, tmp_path, HARNESS_ATTEMPT="u9-other.1")
    assert reap(layout) == 0
    assert [elsewhere.poll(), cli.poll(), attempt.poll()] == [None, None, None]


def test_a_worker_whose_presence_was_lost_is_found_by_its_report(layout: Layout, stack: ExitStack) -> None:
    process = worker(stack, layout, "agent-1")
    who = ProcessId.of(process.pid)
    assert who
    reports.write(
        reports.agent_path(layout, "agent-1"),
        reports.AgentReport(agent="agent-1", pid=who.pid, start_ticks=who.start_ticks, boot_id=who.boot_id),
    )
    for path in layout.presence.iterdir():
        path.unlink()
    assert reap(layout) == 1
    assert process.wait(10) == 0


@pytest.mark.parametrize("place", ["claim", "session", "merge"])
def test_what_is_left_of_attempts_is_ended(
    layout: Layout, stack: ExitStack, tmp_path: Path, place: str
) -> None:
    uid = f"u-{secrets.token_hex(8)}"  # other tests run beside this one
    mark = f"{uid}.2"
    if place == "session":
        layout.session("2027-01-15", uid, 2).mkdir(parents=True)
    else:
        (layout.queue / "open" / uid).mkdir(parents=True)
        (layout.queue / "open" / uid / "2.claim").write_text("{}")
    if place == "merge":
        mark += ".merge"
    left = agent(stack, tmp_path, HARNESS_ATTEMPT=mark)
    assert reap(layout) == 1
    assert left.wait(10) == -signal.SIGKILL


def test_what_shed_its_mark_is_found_in_its_worktree(layout: Layout, stack: ExitStack) -> None:
    worktree = layout.worktree("app", "agent-1")
    worktree.mkdir(parents=True)
    left = agent(stack, worktree)
    assert reap(layout) == 1
    assert left.wait(10) == -signal.SIGKILL


def test_nothing_is_reaped_under_a_running_coordinator(layout: Layout, stack: ExitStack) -> None:
    process = worker(stack, layout, "agent-1")
    with FileLock(layout.coordinator_lock) as lock:
        assert lock.try_lock()
        with pytest.raises(ConflictError) as raised:
            reap(layout)
        assert "systemctl stop" in str(raised.value)
        assert reap(layout, only_if_stopped=True, environ={"SERVICE_RESULT": "exit-code"}) == 0
    assert process.poll() is None


@pytest.mark.parametrize("result", ["signal", "core-dump", "watchdog", "exit-code", "oom-kill"])
def test_a_crash_of_the_coordinator_keeps_the_workers(layout: Layout, stack: ExitStack, result: str) -> None:
    process = worker(stack, layout, "agent-1")
    assert reap(layout, only_if_stopped=True, environ={"SERVICE_RESULT": result}) == 0
    assert process.poll() is None


@pytest.mark.parametrize("result", ["success", "timeout"])
def test_a_stop_leaves_nobody(layout: Layout, stack: ExitStack, result: str) -> None:
    process = worker(stack, layout, "agent-1")
    assert reap(layout, only_if_stopped=True, environ={"SERVICE_RESULT": result}) == 1
    assert process.wait(10) == 0


@pytest.mark.parametrize(("state", "stop"), [("running", False), ("draining", True), ("stopping", True)])
def test_a_crash_within_a_stop_is_a_stop(layout: Layout, state: str, stop: bool) -> None:
    reports.write(reports.coordinator_path(layout), reports.CoordinatorReport(pid=1, state=state))
    assert stopped(layout, {"SERVICE_RESULT": "signal"}) is stop
