"""Stopping at once, and what a cancelled item's agent is told: nothing goes on that a person has ended."""

from __future__ import annotations

import signal
from pathlib import Path

from harness import presence
from harness.bell import Bell
from harness.control.acts import park
from harness.control.desk import Desk
from harness.launcher import Life, LocalLauncher
from tests.daemons import daemon, git
from tests.support import environment, until


def test_a_stop_at_once_releases_the_attempt_long_before_anything_is_killed(tmp_path: Path) -> None:
    """The coordinator drains and stops in one tick: two TERMs that a worker cannot tell apart."""
    with daemon(tmp_path) as d:
        process = d.start()
        d.drop("slow", {"prompt": "sleep 9999"})
        d.until_running("slow")
        (d.layout.control / "stop").touch()
        until(lambda: process.poll() is not None, 60, what=d.tail())
        seen = d.items()["slow"]
        assert [a.end.outcome.value for a in seen.attempts if a.end] == ["released"]
        assert seen.state == "ready"
        assert not d.ours()


def test_work_that_takes_long_to_save_is_saved_although_its_attempt_was_ended_by_a_person(
    tmp_path: Path,
) -> None:
    """The beat that stops the agent of a held attempt must not stop the git that saves what the agent left."""
    with daemon(tmp_path, health={"beat_s": 0.05}) as d:
        d.start()
        d.drop("slow", {"prompt": "head -c 30000000 /dev/urandom > big; touch there; sleep 9999"})
        report = d.until_running("slow")
        until((d.layout.worktree("app", report.agent) / "there").exists)
        with Desk(d.layout) as desk:
            park(desk, "slow")
        until(lambda: (r := d.report(report.agent)) and r.state == "idle", 60, what=d.tail())
        saved = git(d.layout.hub("app"), "for-each-ref", "--format=%(refname)", "refs/harness/salvage")
        assert saved
        assert int(git(d.layout.hub("app"), "cat-file", "-s", f"{saved.splitlines()[0]}:big")) == 30_000_000
        assert not d.events("process_failed")


def test_a_worker_that_is_paused_takes_no_ring_from_one_that_is_not(tmp_path: Path) -> None:
    with daemon(tmp_path) as d:
        (d.layout.control / "pause.agent-1").touch()
        d.start()
        until(lambda: (r := d.report("agent-1")) and r.state == "paused", 20)
        d.drop("a", {"prompt": "true", "commit": "none"})
        d.until_state("a", "ready")
        with Bell(d.layout.bell("workers")) as bell:
            until(bell.take, 20, what="the ring for it is still there")


def test_a_merger_that_started_before_the_coordinator_and_spoke_up_after_it_is_stopped_too(
    tmp_path: Path,
) -> None:
    """A coordinator started it and was killed, and it was stopped before it could announce itself."""
    with daemon(tmp_path) as d:
        launcher = LocalLauncher(d.layout, environ=environment())
        merger = launcher.spawn("merger", "merger.app")
        assert launcher.stop(merger, signal.SIGSTOP)
        process = d.start()
        until(lambda: (c := d.coordinator()) and c.state == "running", 30, what=d.tail())
        assert launcher.stop(merger, signal.SIGCONT)
        until(lambda: any(who.name == "merger.app" for who in presence.living(d.layout)), 30)
        (d.layout.control / "drain").touch()
        until(lambda: process.poll() is not None, 60, what=d.tail())
        until(lambda: launcher.poll(merger).life is Life.GONE, 10)
        assert launcher.poll(merger).exit_code == 0
        assert not d.ours()
