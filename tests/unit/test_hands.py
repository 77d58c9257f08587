"""Who seems hung, and what is done to the processes of an attempt before it is expired."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness import procs, reports
from harness.atomicfs import FileLock
from harness.containment import Containment, Kind
from harness.hands import LocalHands
from harness.layout import Layout
from harness.model import Act, Claim, Identity
from harness.procs import ProcessId
from harness.reports import AgentReport
from tests.support import FakeClock, line, python, running, until

PATH = "queue/open/x-1/1.claim"
HANG_S = 100.0


@dataclass
class Kills:
    """Containment as seen from here: what it was asked to end."""

    survivors: int = 0
    kind: Kind = Kind.MARKS
    killed: list[tuple[str, list[Path]]] = field(default_factory=list)
    released: list[str] = field(default_factory=list)

    def kill(self, mark: str, below: list[Path]) -> int:
        self.killed.append((mark, list(below)))
        return self.survivors

    def release(self, mark: str) -> None:
        self.released.append(mark)


@pytest.fixture
def kills() -> Kills:
    return Kills()


@pytest.fixture
def hands(layout: Layout, clock: FakeClock, kills: Kills) -> LocalHands:
    return LocalHands(layout, clock, kills, HANG_S)  # type: ignore[arg-type]


def claim(who: ProcessId, host: str | None = None, name: str = "agent-1") -> Claim:
    owner = Identity(
        incarnation="agent-1.0.x",
        name=name,
        host=procs.host_id() if host is None else host,
        pid=who.pid,
        start_ticks=who.start_ticks,
        boot_id=who.boot_id,
    )
    return Claim(n=1, act=Act.RUN, owner=owner)


def silence(hands: LocalHands, who: ProcessId, k: int) -> float:
    return hands.lookout.quiet(f"claim:queue/open/x-{k}/1.claim", (1, 1), who, busy=True).silent_s


NOBODY = ProcessId(pid=4_190_000, start_ticks=1, boot_id="another boot")


@pytest.fixture
def sleeper() -> Iterator[tuple[subprocess.Popen[bytes], ProcessId]]:
    with running(["sleep", "1000"]) as process:
        who = ProcessId.of(process.pid)
        assert who is not None
        yield process, who


# ---- suspecting ------------------------------------------------------------------------------------------------------


def test_an_owner_that_is_silent_and_idle_is_suspected_after_its_time(
    hands: LocalHands, clock: FakeClock, sleeper: tuple[object, ProcessId]
) -> None:
    owned = claim(sleeper[1])
    seen = []
    for _ in range(140):
        seen.append(hands.suspects(owned, PATH, (1, 1)))
        clock.advance(HANG_S / 100)
    assert True in seen
    assert seen.index(True) > 100
    assert seen[seen.index(True) :] == [True] * (140 - seen.index(True))


def test_an_owner_that_beats_is_never_suspected(
    hands: LocalHands, clock: FakeClock, sleeper: tuple[object, ProcessId]
) -> None:
    for k in range(50):
        assert not hands.suspects(claim(sleeper[1]), PATH, (1, k))
        clock.advance(HANG_S * 0.9)


def test_an_owner_that_computes_is_never_suspected(
    hands: LocalHands, clock: FakeClock, sleeper: tuple[object, ProcessId], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = [0.0]
    monkeypatch.setattr(procs, "cpu_seconds", lambda _: used[0])
    for _ in range(1000):
        assert not hands.suspects(claim(sleeper[1]), PATH, (1, 1))
        clock.advance(HANG_S / 100)
        used[0] += 0.05


def test_an_owner_whose_starter_looks_after_it_is_not_suspected_a_second_time(
    hands: LocalHands, clock: FakeClock, sleeper: tuple[object, ProcessId]
) -> None:
    """One detector for one process: the pool kills its workers, and then their claims are free."""
    hands.watched = lambda process: process == sleeper[1]
    for _ in range(400):
        assert not hands.suspects(claim(sleeper[1]), PATH, (1, 1))
        clock.advance(HANG_S / 100)


def test_a_jump_of_the_wall_clock_makes_nobody_suspect(
    hands: LocalHands, clock: FakeClock, sleeper: tuple[object, ProcessId]
) -> None:
    hands.suspects(claim(sleeper[1]), PATH, (1, 1))
    clock.jump(1e9)
    assert not hands.suspects(claim(sleeper[1]), PATH, (1, 1))


def test_an_owner_on_another_host_is_judged_by_its_beat_alone(hands: LocalHands, clock: FakeClock) -> None:
    foreign = claim(NOBODY, host="elsewhere")
    for _ in range(101):
        assert not hands.suspects(foreign, PATH, (1, 1))
        clock.advance(HANG_S / 100)
    assert hands.suspects(foreign, PATH, (1, 1))
    assert not hands.suspects(foreign, PATH, (1, 2))


def test_what_is_no_longer_running_is_forgotten(
    hands: LocalHands, clock: FakeClock, sleeper: tuple[object, ProcessId]
) -> None:
    for k in range(100):
        hands.suspects(claim(sleeper[1]), f"queue/open/x-{k}/1.claim", (1, 1))
    hands.remember_only([("x-7", 1)])
    clock.advance(2)
    assert [silence(hands, sleeper[1], k) for k in (7, 8)] == [2.0, 0.0]


# ---- clearing --------------------------------------------------------------------------------------------------------


def test_what_a_dead_owner_left_is_killed_by_mark_and_by_worktree(
    layout: Layout, hands: LocalHands, kills: Kills
) -> None:
    tree = layout.worktree("app", "agent-1")
    tree.mkdir(parents=True)
    layout.worktree("app", "agent-2").mkdir()
    kills.survivors = 3
    assert hands.clear("x-1", claim(NOBODY))
    assert kills.killed == [("x-1.1", [tree])]
    assert kills.released == ["x-1.1"]
    assert hands.killed == [("x-1.1", 3)]


def test_worktrees_are_not_searched_where_a_stronger_mechanism_holds_or_the_slot_works_on(
    layout: Layout, hands: LocalHands, kills: Kills
) -> None:
    """Whoever works in the slot's worktree then belongs to its next attempt."""
    layout.worktree("app", "agent-1").mkdir(parents=True)
    layout.agent("agent-1").mkdir(parents=True)
    with FileLock(layout.agent("agent-1") / "lock") as lock:
        assert lock.try_lock()
        hands.clear("x-1", claim(NOBODY))
    kills.kind = Kind.PIDNS
    hands.clear("x-1", claim(NOBODY))
    assert kills.killed == [("x-1.1", [])] * 2


def test_nothing_that_was_left_is_nothing_to_tell(hands: LocalHands) -> None:
    assert hands.clear("x-1", claim(NOBODY, name=""))
    assert hands.killed == []


def test_the_programs_of_a_hung_owner_that_carry_no_mark_end_with_it(hands: LocalHands, kills: Kills) -> None:
    """Its git would go on, and keep the locks of the hub."""
    code = "import subprocess; print(subprocess.Popen(['sleep', '1000']).pid, flush=True); input()"
    with python(code) as process:
        child = ProcessId.of(int(line(process)))
        owner = ProcessId.of(process.pid)
        assert child
        assert owner
        process.send_signal(signal.SIGSTOP)
        assert hands.clear("x-1", claim(owner))
        assert child.wait(10)


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_a_hung_owner_is_killed_before_its_attempt_is_expired(
    hands: LocalHands, kills: Kills, sleeper: tuple[subprocess.Popen[bytes], ProcessId], stopped: bool
) -> None:
    process, who = sleeper
    if stopped:
        process.send_signal(signal.SIGSTOP)
    assert hands.clear("x-1", claim(who))
    assert process.wait(10) == -signal.SIGKILL
    assert kills.killed


def test_an_owner_that_does_not_die_keeps_its_attempt(
    hands: LocalHands,
    kills: Kills,
    sleeper: tuple[subprocess.Popen[bytes], ProcessId],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Uninterruptible I/O: two processes of one item must not run beside each other."""
    monkeypatch.setattr("harness.hands.KILL_WAIT_S", 0.0)
    monkeypatch.setattr(procs, "signal", lambda *_: True)
    assert not hands.clear("x-1", claim(sleeper[1]))
    assert kills.killed == []


def test_a_process_that_only_has_the_pid_of_the_owner_is_spared(
    hands: LocalHands, sleeper: tuple[subprocess.Popen[bytes], ProcessId]
) -> None:
    process, who = sleeper
    older = ProcessId(pid=who.pid, start_ticks=who.start_ticks - 1, boot_id=who.boot_id)
    assert hands.clear("x-1", claim(older))
    assert process.poll() is None


def test_nothing_is_killed_for_an_owner_on_another_host(
    hands: LocalHands, kills: Kills, sleeper: tuple[subprocess.Popen[bytes], ProcessId]
) -> None:
    process, who = sleeper
    assert hands.clear("x-1", claim(who, host="elsewhere"))
    assert kills.killed == []
    assert process.poll() is None


# ---- interrupting ----------------------------------------------------------------------------------------------------

LOOKS = """
import signal, sys
signal.signal(signal.SIGUSR1, lambda *_: print("looked", flush=True))
print("ready", flush=True)
for _ in sys.stdin: pass
"""


def test_only_the_owner_of_the_attempt_is_made_to_look(layout: Layout, hands: LocalHands) -> None:
    with python(LOOKS) as process:
        assert line(process) == "ready"
        who = ProcessId.of(process.pid)
        assert who is not None
        report = AgentReport(
            agent="agent-1",
            pid=who.pid,
            start_ticks=who.start_ticks,
            boot_id=who.boot_id,
            item="x-1",
            attempt=2,
        )
        reports.write(reports.agent_path(layout, "agent-1"), report)
        (layout.run / "agents" / "agent-2").mkdir()
        for uid, n in (("x-1", 1), ("y-1", 2), ("x-1", 2)):
            hands.interrupt(uid, n)
        assert line(process) == "looked"
        assert process.stdin
        process.stdin.close()
        assert process.wait(10) == 0
        assert process.stdout
        assert process.stdout.read() == b""


def test_real_survivors_are_found_by_their_mark(layout: Layout, clock: FakeClock) -> None:
    hands = LocalHands(layout, clock, Containment(), HANG_S)
    mark = f"hands-{procs.self_id().pid}.1"
    with python("import time; time.sleep(1000)", HARNESS_ATTEMPT=mark) as process:
        until(lambda: procs.environ_marked(mark))
        assert hands.clear(mark.removesuffix(".1"), claim(NOBODY))
        assert process.wait(10) == -signal.SIGKILL
    assert hands.killed == [(mark, 1)]


def test_an_owner_that_no_signal_ends_is_not_waited_for_in_every_sweep(
    hands: LocalHands, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for a disk; meanwhile the coordinator has others to look after."""
    monkeypatch.setattr(ProcessId, "wait", lambda self, timeout_s: False)
    monkeypatch.setattr(procs, "signal", lambda who, number: True)
    monkeypatch.setattr(procs, "cpu_seconds", lambda pids: 1.0)
    owned = claim(procs.self_id())
    token = (1, 1)
    suspected = 0
    for _ in range(400):
        clock.advance(2)
        if hands.suspects(owned, PATH, token):
            suspected += 1
            assert not hands.clear("x-1", owned)
    assert 1 <= suspected <= 8
