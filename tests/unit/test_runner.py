"""harness.runner: whatever a command does, it ends in time, and the heart beats meanwhile. Small real processes."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from harness import procs
from harness.activity import Activity
from harness.clock import SystemClock
from harness.containment import Containment, Jail
from harness.runner import Command, Ended, EndReason, Runner
from tests.support import FakeClock, until

ENV = {"PATH": os.environ.get("PATH", os.defpath)}
INT_ONLY = ((signal.SIGINT, 30.0),)


def runner(**settings: object) -> Runner:
    return Runner(clock=SystemClock(), containment=Containment(), **settings)  # type: ignore[arg-type]


def sh(script: str, cwd: Path, **settings: object) -> Command:
    return Command(argv=["sh", "-c", script], cwd=cwd, env=ENV, **settings)  # type: ignore[arg-type]


def test_output_and_exit_code_come_back(tmp_path: Path) -> None:
    ended = runner().run(sh("echo out; echo err >&2; exit 3", tmp_path))
    assert ended.reason is EndReason.EXITED
    assert (ended.exit_code, ended.signal) == (3, None)
    assert (ended.stdout, ended.stderr) == (b"out\n", b"err\n")
    assert not ended.ok


def test_success_is_ok_and_takes_no_longer_than_the_command(tmp_path: Path) -> None:
    ended = runner(beat_s=1000).run(sh("true", tmp_path))
    assert ended.ok
    assert ended.duration_s < 100


def test_death_by_a_signal_is_told(tmp_path: Path) -> None:
    ended = runner().run(sh("kill -9 $$", tmp_path))
    assert (ended.reason, ended.exit_code, ended.signal) == (EndReason.EXITED, None, 9)


def test_nothing_of_the_environment_is_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_DAEMON", "x")
    ended = runner().run(Command(argv=["env"], cwd=tmp_path, env={**ENV, "A": "1"}))
    assert b"A=1" in ended.stdout.splitlines()
    assert b"SECRET" not in ended.stdout


def test_no_file_is_inherited(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(fd, True)
    try:
        ended = runner().run(Command(argv=["ls", "/proc/self/fd"], cwd=tmp_path, env=ENV))
    finally:
        os.close(fd)
    assert ended.stdout.split() == [b"0", b"1", b"2", b"3"]  # 3 is what ls reads the folder with


def test_stdin_bytes_larger_than_any_pipe_do_not_block_even_when_nobody_reads(tmp_path: Path) -> None:
    data = b"x" * 1_000_000
    assert runner().run(sh("wc -c", tmp_path, stdin=data)).stdout.strip() == b"1000000"
    assert runner().run(sh("true", tmp_path, stdin=data)).ok


def test_stdin_is_a_file_or_empty(tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text("hello")
    assert runner().run(sh("cat", tmp_path, stdin=tmp_path / "prompt")).stdout == b"hello"
    assert runner().run(sh("cat", tmp_path)).stdout == b""
    assert runner().run(sh("cat", tmp_path, stdin=b"")).stdout == b""


def test_output_goes_to_private_files_and_is_appended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(2):
        ended = runner().run(sh("echo a; echo b >&2", tmp_path, stdout=log, stderr=log))
        assert (ended.stdout, ended.stderr) == (b"", b"")
    assert sorted(log.read_text().split()) == ["a", "a", "b", "b"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_log_that_is_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "log").symlink_to(tmp_path / "target")
    ended = runner().run(sh("echo gone", tmp_path, stdout=tmp_path / "log"))
    assert ended.reason is EndReason.NOT_STARTED
    assert (tmp_path / "target").read_text() == "precious"


def test_a_command_that_cannot_be_run_says_why(tmp_path: Path) -> None:
    ended = runner().run(Command(argv=["no-such-tool"], cwd=tmp_path, env=ENV))
    assert ended.reason is EndReason.NOT_STARTED
    assert "no-such-tool" in ended.error
    ended = runner().run(Command(argv=["true"], cwd=tmp_path / "missing", env=ENV))
    assert ended.reason is EndReason.NOT_STARTED
    assert "missing" in ended.error


def test_a_command_that_takes_too_long_is_stopped_by_the_ladder(tmp_path: Path) -> None:
    ended = runner().run(sh("exec sleep 1000", tmp_path, timeout_s=0.05, stop=INT_ONLY))
    assert ended.reason is EndReason.TIMED_OUT
    assert ended.signal == signal.SIGINT
    assert "0.05" in ended.stop_reason


def test_a_stopped_command_may_end_in_its_own_way(tmp_path: Path) -> None:
    script = "trap 'echo bye; exit 0' INT; echo ready; while :; do sleep 0.01; done"
    ended = stopped_when_ready(script, tmp_path, stop=INT_ONLY)
    assert (ended.reason, ended.exit_code) == (EndReason.STOPPED, 0)
    assert ended.stop_reason == "cancelled"
    assert b"bye" in ended.stderr + (tmp_path / "log").read_bytes()


def test_one_that_ignores_every_signal_is_killed_with_its_children(tmp_path: Path) -> None:
    script = "trap '' INT TERM; sleep 1000 & echo $! > child; echo ready; while :; do sleep 0.01; done"
    ended = stopped_when_ready(script, tmp_path, stop=((signal.SIGINT, 0.02), (signal.SIGTERM, 0.02)))
    assert (ended.reason, ended.signal) == (EndReason.STOPPED, signal.SIGKILL)
    child = int((tmp_path / "child").read_text())
    until(lambda: (s := procs.stat(child)) is None or s.dead, what="child dead")


def stopped_when_ready(script: str, folder: Path, stop: Sequence[tuple[int, float]]) -> Ended:
    log = folder / "log"

    def beat() -> str | None:
        return "cancelled" if log.exists() and b"ready" in log.read_bytes() else None

    return runner(beat=beat, beat_s=0.01).run(sh(script, folder, stdout=log, stop=stop))


def test_children_in_the_group_do_not_outlive_a_command_that_ended(tmp_path: Path) -> None:
    ended = runner().run(sh("sleep 1000 & echo $!", tmp_path))
    assert ended.ok
    child = int(ended.stdout)
    until(lambda: (s := procs.stat(child)) is None or s.dead, what="child dead")


def test_it_beats_while_it_waits(tmp_path: Path) -> None:
    beats: list[int] = []

    def beat() -> str | None:
        beats.append(1)
        if len(beats) == 5:
            (tmp_path / "go").touch()
        return None

    ended = runner(beat=beat, beat_s=0.01).run(sh("until test -e go; do sleep 0.005; done", tmp_path))
    assert ended.ok
    assert len(beats) >= 5


def test_many_short_commands_do_not_beat_each(tmp_path: Path) -> None:
    beats: list[int] = []
    one = runner(beat=lambda: beats.append(1), beat_s=1000)
    for _ in range(5):
        assert one.run(sh("true", tmp_path)).ok
    assert len(beats) == 1


def test_a_byte_on_the_wake_fd_beats_at_once_and_its_end_does_not_spin(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    beats: list[int] = []

    def beat() -> str | None:
        beats.append(1)
        if len(beats) == 1:
            os.write(writer, b"x" * 5000)  # more than one read takes
        elif len(beats) == 2:
            os.close(writer)
        elif len(beats) == 3:
            (tmp_path / "go").touch()
        return None

    try:
        one = runner(beat=beat, beat_s=1000, wake_fd=reader)
        ended = one.run(sh("until test -e go; do sleep 0.005; done; sleep 0.05", tmp_path))
    finally:
        os.close(reader)
    assert ended.ok
    assert len(beats) <= 4


def test_a_beat_that_raises_leaves_no_process_behind(tmp_path: Path) -> None:
    class BrokenBeat(Exception):
        pass

    def beat() -> str | None:
        until((tmp_path / "pid").exists)
        raise BrokenBeat

    with pytest.raises(BrokenBeat):
        runner(beat=beat).run(sh("echo $$ > tmp; mv tmp pid; exec sleep 1000", tmp_path))
    assert procs.stat(int((tmp_path / "pid").read_text())) is None  # dead, and reaped


def test_too_much_output_is_stopped_and_cut(tmp_path: Path) -> None:
    ended = runner().run(sh("exec yes", tmp_path, max_output_bytes=1000, stop=INT_ONLY))
    assert ended.reason is EndReason.TOO_MUCH_OUTPUT
    assert len(ended.stdout) == 1000


def test_too_much_output_of_a_command_that_has_ended_is_told_as_well(tmp_path: Path) -> None:
    ended = runner().run(sh("echo 123456789", tmp_path, max_output_bytes=5))
    assert (ended.reason, ended.stdout, ended.exit_code) == (EndReason.TOO_MUCH_OUTPUT, b"12345", 0)


def test_what_a_log_held_before_does_not_count_as_output(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 5000)
    ended = runner().run(sh("echo 1", tmp_path, stdout=tmp_path / "log", max_output_bytes=1000))
    assert ended.ok


class Onlooker:
    """A watcher that stops the command at its third look, or never; its patience lasts until a moment."""

    def __init__(self, why: str | None = None, patient_until_s: float = 0.0) -> None:
        self.why, self.until_s, self.looks = why, patient_until_s, 0

    def look(self) -> str | None:
        self.looks += 1
        return self.why if self.looks >= 3 else None

    def patient_s(self) -> float:
        return self.until_s


def test_a_watcher_looks_on_and_can_end_the_command(tmp_path: Path) -> None:
    watcher = Onlooker("it cannot succeed")
    ended = runner().run(sh("exec sleep 1000", tmp_path, watcher=watcher, stop=INT_ONLY))
    assert (ended.reason, ended.stop_reason) == (EndReason.STOPPED, "it cannot succeed")


def test_a_watcher_looks_once_more_when_the_command_has_ended(tmp_path: Path) -> None:
    watcher = Onlooker("too late")
    assert runner().run(sh("true", tmp_path, watcher=watcher)).reason is EndReason.EXITED
    assert watcher.looks >= 1


def test_while_a_watcher_is_patient_silence_is_no_stall(tmp_path: Path) -> None:
    patient = Onlooker(patient_until_s=SystemClock().monotonic() + 1.0)
    began = SystemClock().monotonic()
    script = sh("exec sleep 1000", tmp_path, stall_s=0.05, watch=tmp_path, stop=INT_ONLY, watcher=patient)
    assert runner().run(script).reason is EndReason.STALLED
    assert SystemClock().monotonic() - began >= 1.0


def test_silence_without_activity_is_a_stall(tmp_path: Path) -> None:
    ended = runner().run(sh("exec sleep 1000", tmp_path, stall_s=0.05, watch=tmp_path, stop=INT_ONLY))
    assert ended.reason is EndReason.STALLED
    assert ended.stop_reason == "no sign of life for 0.05 s"


def test_a_jailed_command_is_refused_outside_the_main_thread(tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def attempt() -> None:
        try:
            runner().run(sh("true", tmp_path, jail=Jail(mark="unit-x.1")))
        except RuntimeError as e:
            caught.append(e)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert len(caught) == 1


class SuspendedClock(SystemClock):
    """Real, and once, while somebody waits, many hours later: as CLOCK_BOOTTIME after a suspend."""

    __slots__ = ("slept_s",)

    def __init__(self) -> None:
        self.slept_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.slept_s


def test_a_suspended_machine_uses_up_no_ones_time(tmp_path: Path) -> None:
    """At wake-up every limit would be over: each running agent would be killed, and its attempt spent."""
    clock = SuspendedClock()
    beats = []

    def beat() -> None:
        beats.append(clock.monotonic())
        if len(beats) == 3:
            threading.Timer(0.02, lambda: setattr(clock, "slept_s", 8 * 3600.0)).start()

    run = Runner(clock=clock, containment=Containment(), beat=beat, beat_s=0.1)
    ended = run.run(sh("sleep 1; exit 3", tmp_path, timeout_s=60, stall_s=60))
    assert clock.slept_s
    assert (ended.reason, ended.exit_code) == (EndReason.EXITED, 3)
    assert run.away_s > 7 * 3600


# --- signs of life, with a clock that only moves when told ---------------------------------------------------------


def activity(clock: FakeClock, watch: Path | None = None, cpu: Mapping[int, float] | None = None) -> Activity:
    seen = Activity(clock=clock, stall_s=100, pid=1, watch=watch)
    seen._cpu_s = lambda pid: (cpu or {}).get(pid, 0.0)
    return seen


def test_silence_for_less_than_the_limit_is_no_stall(clock: FakeClock) -> None:
    seen = activity(clock)
    clock.advance(99)
    assert not seen.stalled(0)
    clock.advance(1)
    assert seen.stalled(0)


def test_every_byte_starts_the_count_anew(clock: FakeClock) -> None:
    seen = activity(clock)
    clock.advance(99)
    assert not seen.stalled(1)
    clock.advance(99)
    assert not seen.stalled(1)
    clock.advance(1)
    assert seen.stalled(1)


def test_a_silent_command_that_computes_is_alive(clock: FakeClock) -> None:
    cpu = {1: 0.0}
    seen = activity(clock, cpu=cpu)
    for _ in range(50):
        clock.advance(10)
        cpu[1] += 5
        assert not seen.stalled(0)


def test_a_night_in_which_the_machine_was_suspended_is_no_silence(clock: FakeClock) -> None:
    seen = activity(clock)
    clock.advance(60)
    assert not seen.stalled(0)
    clock.advance(8 * 3600)
    assert not seen.stalled(0)
    clock.advance(39)
    assert not seen.stalled(0)
    clock.advance(1)
    assert seen.stalled(0)


def test_an_idle_event_loop_does_not_count_as_working(clock: FakeClock) -> None:
    cpu = {1: 0.0}
    seen = activity(clock, cpu=cpu)
    results = []
    for _ in range(11):
        clock.advance(10)
        cpu[1] += 0.02
        results.append(seen.stalled(0))
    assert results[-1]


def test_a_changed_file_is_a_sign_of_life_once(clock: FakeClock, tmp_path: Path) -> None:
    seen = activity(clock, watch=tmp_path)
    clock.advance(50)
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    for path in (deep, deep.parent, tmp_path):
        os.utime(path, (clock.wall() - 1000, clock.wall() - 1000))
    (deep / "file").touch()
    os.utime(deep / "file", (clock.wall(), clock.wall()))
    os.utime(deep, (clock.wall() - 1000, clock.wall() - 1000))
    clock.advance(60)
    assert not seen.stalled(0)
    clock.advance(100)
    assert seen.stalled(0)


def test_a_wall_clock_that_is_set_back_neither_stalls_nor_saves(clock: FakeClock, tmp_path: Path) -> None:
    seen = activity(clock, watch=tmp_path)
    os.utime(tmp_path, (clock.wall() - 10, clock.wall() - 10))
    clock.jump(-86400)
    clock.advance(101)
    assert seen.stalled(0)
