"""Configured gates as real processes."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from harness.clock import SystemClock
from harness.config import Gate
from harness.containment import Containment
from harness.gates import Change, Facts, GateReport, Place, Rules, run_configured, run_gates
from harness.runner import Runner
from harness.sessionfolder import SessionFolder

GOOD = Facts(changes=(Change(path="a"),), has_commit=True)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    tree = tmp_path / "tree"
    tree.mkdir()
    folder = SessionFolder(tmp_path / "2027-01-01" / "a-1.1", tmp_path / "tmp" / "agent-1")
    folder.make()
    environ = {"PATH": os.environ["PATH"], "ANTHROPIC_API_KEY": "sesame", "SECRET": "sesame"}
    return Place(
        worktree=tree,
        folder=folder,
        mark=f"a-{uuid.uuid4().hex[:12]}.1",  # tests run at the same time, and what bears a mark is killed
        slot="agent-1",
        round=1,
        policy=None,
        environ=environ,
    )


@pytest.fixture
def runner() -> Runner:
    return Runner(clock=SystemClock(), containment=Containment())


def gate(run: str, name: str = "tests", **more: object) -> Gate:
    return Gate(**{"name": name, "run": run, **more})  # type: ignore[arg-type]


def names(report: GateReport) -> list[str]:
    return [r.name for r in report.results]


def test_a_command_line_runs_in_the_worktree_and_its_exit_code_decides(place: Place, runner: Runner) -> None:
    (place.worktree / "x").write_text("1")
    report = run_configured([gate("test -f x && pwd"), gate("exit 3", "lint")], place, runner)
    green, red = report.results
    assert (green.ok, green.exit_code, green.reason) == (True, 0, "")
    assert green.tail.strip() == str(place.worktree)
    assert (red.ok, red.exit_code, red.reason) == (False, 3, "exit 3")
    assert report.red == (red,)


def test_output_of_both_streams_is_kept_in_order_in_one_log(place: Place, runner: Runner) -> None:
    report = run_configured([gate("echo one; echo two >&2; echo three; exit 1")], place, runner)
    assert report.results[0].log == place.folder.gate_log("tests", 1)
    assert place.folder.gate_log("tests", 1).read_text() == "one\ntwo\nthree\n"
    assert report.results[0].tail == "one\ntwo\nthree\n"


def test_built_in_gates_come_first_and_a_red_one_spares_the_commands(place: Place, runner: Runner) -> None:
    report = run_gates(Facts(has_commit=False), Rules(), [gate("true")], place, runner)
    assert names(report) == ["clean", "commit", "scope", "protected"]
    assert not report.ok
    report = run_gates(GOOD, Rules(), [gate("true")], place, runner)
    assert names(report) == ["clean", "commit", "scope", "protected", "tests"]
    assert report.ok


def test_the_first_required_failure_ends_it_and_the_others_do_not(place: Place, runner: Runner) -> None:
    gates = [gate("false", "a", required=False), gate("true", "b"), gate("false", "c"), gate("true", "d")]
    report = run_configured(gates, place, runner)
    assert names(report) == ["a", "b", "c"]
    assert [r.name for r in report.red] == ["c"]


def test_a_gate_sees_no_secret_and_has_a_home_of_its_own_that_is_removed(
    place: Place, runner: Runner
) -> None:
    run = 'env; echo x > "$HOME/x"; mkdir -p "$TMPDIR/y"; chmod 0 "$TMPDIR/y"; test "$(ls -A "$HOME")" = x'
    for number in (1, 2):
        report = run_configured([gate(run, f"g{number}")], place, runner)
        assert report.ok, report.results[0].tail
        assert "sesame" not in report.results[0].tail
        assert "HARNESS_GATE=g" in report.results[0].tail
    assert not [p for p in place.folder.path.iterdir() if p.name.endswith(".tmp")]


def test_a_gate_that_takes_too_long_is_ended_with_everything_it_started(place: Place, runner: Runner) -> None:
    mark = place.worktree / "pid"
    report = run_configured(
        [gate(f"setsid sleep 600 & echo $! > {mark}; wait", timeout_s=0.5)], place, runner
    )
    assert report.results[0].reason == "not done after 0.5 s"
    assert report.red
    assert not Path(f"/proc/{mark.read_text().strip()}").exists()


def test_a_gate_that_dies_of_a_signal_says_so(place: Place, runner: Runner) -> None:
    result = run_configured([gate("kill -SEGV $$")], place, runner).results[0]
    assert not result.ok
    assert result.reason in ("ended by signal 11", "exit 139")


def test_a_drain_stops_a_gate_and_it_does_not_count_as_red(place: Place) -> None:
    runner = Runner(clock=SystemClock(), containment=Containment(), beat=lambda: "drain", beat_s=0.05)
    report = run_configured([gate("sleep 600"), gate("true", "b")], place, runner)
    assert names(report) == ["tests"]
    assert report.stopped == "drain"
    assert report.red == ()


def test_what_is_shown_of_a_gates_output_is_printable_and_short(place: Place, runner: Runner) -> None:
    run = "printf '\\033[31mred\\033[0m\\n'; yes line | head -c 100000; echo end"
    result = run_configured([gate(run)], place, runner).results[0]
    assert "\x1b" not in result.tail
    assert result.tail.endswith("end\n")
    assert len(result.tail) <= 8 << 10


def test_a_worktree_that_is_gone_is_a_failure_with_its_reason(place: Place, runner: Runner) -> None:
    place.worktree.rmdir()
    result = run_configured([gate("true")], place, runner).results[0]
    assert not result.ok
    assert "could not be started" in result.reason
