"""The worker's loop: what it claims, how it ends an attempt, and how it obeys signals and other processes' decisions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness import reports, submitted
from harness.atomicfs import FileLock
from harness.bell import Bell
from harness.budgets import Amount
from harness.clock import SystemClock, parse_rfc3339, rfc3339
from harness.config import load
from harness.containment import Containment
from harness.errors import GitError
from harness.events import EventStream, read
from harness.hub import Hub
from harness.model import End, Outcome, State
from harness.pace import idle_beat_s
from harness.reports import AgentReport
from harness.spend import Ledger, Payer, entries
from harness.store import attempts
from harness.store.cells import Standing
from harness.store.hints import Hints
from harness.store.view import View
from harness.worker.process import Worker
from tests.hubs import git, person
from tests.stores import World, end_record
from tests.support import environment, running, until

pytestmark = pytest.mark.timeout(120)


@dataclass
class Told:
    """Signals that the test sends."""

    stops: int = 0
    now: bool = False
    reload: bool = False
    drained: Callable[[], None] = lambda: None
    wake_fd: int = field(default_factory=lambda: os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
    """Always readable: nobody waits in a test."""

    def drain(self) -> None:
        os.eventfd_write(self.wake_fd, 1)  # the runner has emptied it
        self.drained()


@dataclass
class Bench:
    world: World
    told: Told
    worker: Worker
    app: Path

    def add(self, prompt: str, **fields: Any) -> str:
        """Admitted, with its hint."""
        return self.world.add(prompt=prompt, **({"id": "item"} | fields))

    def run(self, rounds: int = 1) -> int:
        """So many rounds of the loop: an attempt, or an idle wait."""
        left = [rounds]

        def drained() -> None:
            left[0] -= self.worker.owned is None
            self.told.stops = max(self.told.stops, int(left[0] < 0))

        self.told.drained = drained
        self.told.stops = 0
        return self.worker.run()

    def end(self, uid: str, n: int = 1) -> End:
        cells = self.world.cells(uid)
        return End.from_record(cells[f"{n}.end"])

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [e for _, e in read(self.world.layout) if e["event"] == kind]

    @property
    def report(self) -> AgentReport:
        found = reports.read(reports.agent_path(self.world.layout, "agent-1"), AgentReport)
        assert found
        return found


def configure(world: World, upstream: Path, **settings: Any) -> None:
    shell = {"adapter": "command", "argv": ["sh", "{prompt_file}"]}
    config = {
        "v": 1,
        "durability": "process",
        "projects": {"app": {"path": str(upstream), "agent": "claude"}},
        "agents": {"claude": shell},
        "heal": {"rounds": 0},
        "health": {"beat_s": 0.05},
        "disk": {"floor_mb": 0, "floor_inodes": 0},
        "sandbox": "none",
    } | settings
    world.layout.config.write_text(json.dumps(config))


@pytest.fixture
def b(world: World, tmp_path: Path) -> Iterator[Bench]:
    app = person(tmp_path / "app")
    configure(world, app)
    world.layout.agent("agent-1").mkdir(parents=True)
    told = Told()
    worker = Worker(
        layout=world.layout,
        slot="agent-1",
        config=load(world.layout.config),
        clock=SystemClock(),
        actor=world.actor("agent-1"),
        disk=world.new_disk(),
        events=EventStream(world.layout, SystemClock(), "agent-1"),
        signals=told,  # type: ignore[arg-type]
        containment=Containment(),
    )
    yield Bench(world, told, worker, app)
    os.close(told.wake_fd)


@pytest.fixture
def coordinated(b: Bench) -> Iterator[None]:
    """A coordinator lives: it alone decides what is hinted."""
    with FileLock(b.world.layout.coordinator_lock) as lock:
        assert lock.try_lock()
        yield


# ---- claiming --------------------------------------------------------------------------------------------------------


def test_a_hinted_item_is_claimed_carried_out_and_finished(b: Bench, coordinated: None) -> None:
    uid = b.add("true", commit="none")
    assert b.run() == 0
    assert b.world.stub(uid)
    assert [e["uid"] for e in b.said("item_claimed")] == [uid]
    assert [e["outcome"] for e in b.said("item_finished")] == ["done"]
    assert (b.report.state, b.report.item, b.report.attempts) == ("idle", None, 1)
    assert Hints(b.world.layout).all() == {}


def test_a_result_is_submitted_and_the_merger_rung_for(b: Bench, coordinated: None) -> None:
    uid = b.add("echo x > new")
    with Bell(b.world.layout.bell("merger.app")) as bell:
        bell.open()
        b.run()
        assert bell.drain() == 1
    assert b.world.standing(uid) is Standing.SUBMITTED
    assert submitted.all_of(b.world.layout, "app") == [uid]
    end = b.end(uid)
    assert end.nonce
    assert [e["sha"] for e in b.said("item_submitted")] == [end.sha]


def test_a_damaged_claim_of_an_earlier_attempt_keeps_nobody_from_the_next(
    b: Bench, coordinated: None
) -> None:
    uid = b.add("true", commit="none")
    b.world.attempt(uid, Outcome.FAILED)
    (b.world.layout.queue / "open" / uid / "1.claim").write_bytes(b"")
    (seen,) = View(b.world.disk).all_live()
    assert (seen.state, seen.attempts[0].claim) == (State.READY, None)
    Hints(b.world.layout).add(uid, 0)
    b.run()
    assert [e["n"] for e in b.said("item_claimed")] == [2]
    assert b.world.stub(uid)


def test_hints_that_are_wrong_are_removed_and_the_next_one_tried(b: Bench, coordinated: None) -> None:
    running_ = b.add("true", id="running")
    b.world.claim(running_)
    over = b.add("true", id="over", commit="none")
    b.world.attempt(over, Outcome.DONE)
    good = b.add("true", id="good", commit="none")
    for uid in (running_, over, "gone-0000000000"):
        Hints(b.world.layout).add(uid, 0)
    b.run()
    assert b.world.stub(good)
    assert b.world.stub(over)  # whoever sees it finishes it
    assert Hints(b.world.layout).all() == {}


def test_without_hints_a_worker_waits_for_the_coordinator(b: Bench, coordinated: None) -> None:
    uid = b.world.add(id="a", prompt="true", commit="none")
    for _, path in Hints(b.world.layout).all().get(uid, []):
        os.unlink(path)
    b.run()
    assert b.world.standing(uid) is Standing.READY


def test_without_a_coordinator_a_worker_finds_work_itself_and_respects_backoff(b: Bench) -> None:
    ready, later = (b.world.add(id=name, prompt="true", commit="none") for name in ("ready", "later"))
    owned = b.world.claim(later)
    moment = rfc3339(b.world.clock.wall() + 1000)  # the store is read by this clock
    b.world.run(attempts.end(b.world.me, owned, end_record(1, Outcome.FAILED, not_before=moment)))
    for places in Hints(b.world.layout).all().values():
        for _, path in places:
            os.unlink(path)
    b.run(rounds=2)
    assert b.world.stub(ready)
    assert b.world.look(later).n == 1


@pytest.mark.parametrize("name", ["pause", "pause.agent-1"])
def test_a_paused_worker_claims_nothing_and_says_so(b: Bench, name: str) -> None:
    uid = b.add("true", commit="none")
    (b.world.layout.control / name).touch()
    b.run()
    assert b.world.standing(uid) is Standing.READY
    assert b.report.state == "paused"
    (b.world.layout.control / name).unlink()
    b.run()
    assert b.world.stub(uid)


def test_nothing_is_claimed_on_a_disk_that_is_almost_full_and_it_is_said_once(b: Bench) -> None:
    uid = b.add("true", commit="none")
    configure(b.world, b.app, disk={"floor_mb": 1_000_000_000})
    b.told.reload = True
    b.run(rounds=3)
    assert b.world.standing(uid) is Standing.READY
    assert len(b.said("disk_low")) == 1


@pytest.mark.parametrize("why", ["idle", "paused"])
def test_a_worker_without_work_beats_in_every_turn_and_turns_soon_enough(
    b: Bench, coordinated: None, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """One that is stopped while it is idle would keep a pool of one from ever running anything."""
    waits: list[float] = []

    def wait(_: Bell, timeout_s: float, __: object) -> frozenset[int]:
        waits.append(timeout_s)
        return frozenset()

    def select_(r: object, w: object, x: object, timeout_s: float) -> tuple[list[int], list[int], list[int]]:
        waits.append(timeout_s)
        return [], [], []

    monkeypatch.setattr(Bell, "wait", wait)
    monkeypatch.setattr("select.select", select_)
    configure(b.world, b.app, health={"beat_s": 0.05, "hang_s": 12.0})
    b.told.reload = True
    if why == "paused":
        (b.world.layout.control / "pause").touch()
    heartbeat = b.world.layout.agent("agent-1") / "heartbeat"
    beats = []
    monkeypatch.setattr(os, "utime", lambda path, *a, **k: beats.append(path))
    b.run(rounds=20)
    assert beats.count(heartbeat) >= 20
    assert len(waits) == 20
    assert max(waits) <= idle_beat_s(12.0) == 3.0


def test_a_worker_that_is_told_to_go_claims_nothing_more(b: Bench) -> None:
    first, second = b.add("true", id="a", commit="none"), b.add("true", id="b", commit="none")
    b.run(rounds=1)
    assert bool(b.world.stub(first)) != bool(b.world.stub(second))


# ---- ends ------------------------------------------------------------------------------------------------------------


def test_a_failed_attempt_waits_longer_each_time(b: Bench) -> None:
    configure(b.world, b.app, retry={"first_delay_s": 10.0, "max_delay_s": 300.0, "max_attempts": 5})
    b.told.reload = True
    uid = b.add("exit 3", max_attempts=5)
    delays = []
    for n in (1, 2):
        Hints(b.world.layout).add(uid, 5)
        b.run()
        end = b.end(uid, n)
        assert end.outcome is Outcome.FAILED
        assert end.not_before
        delays.append(round(parse_rfc3339(end.not_before) - parse_rfc3339(end.ended_at)))
    assert delays == [10, 20]


def test_work_that_failed_is_salvaged_before_the_attempt_is_ended(b: Bench) -> None:
    b.add("echo precious > work; exit 1", id="a")
    b.run()
    refs = git(b.world.layout.hub("app"), "for-each-ref", "--format=%(refname)", "refs/harness/salvage")
    assert git(b.world.layout.hub("app"), "show", f"{refs.splitlines()[0]}:work") == "precious"
    kinds = [e["event"] for _, e in read(b.world.layout)]
    assert kinds.index("work_salvaged") < kinds.index("attempt_ended")


def test_a_salvage_that_fails_keeps_no_attempt_from_being_ended(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise GitError("the hub is broken")

    monkeypatch.setattr(Hub, "salvage", fail)
    uid = b.add("exit 1")
    b.run()
    assert b.end(uid).outcome is Outcome.FAILED
    assert [e["what"] for e in b.said("process_failed")] == ["salvage"]


def test_an_item_of_a_project_that_is_gone_is_given_back_for_a_while(b: Bench) -> None:
    uid = b.add("true")
    b.worker.config.projects.pop("app")  # type: ignore[attr-defined]
    b.run()
    end = b.end(uid)
    assert end.outcome is Outcome.RELEASED
    assert end.not_before
    assert "'app' is no longer in config.yaml" in end.reason


def test_a_worker_that_can_do_nothing_right_rests_and_is_woken_by_a_new_configuration(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is always free, and would give back every item until all are parked."""

    def fail(*_: object) -> None:
        raise GitError("no such hub")

    monkeypatch.setattr(Hub, "prepare", fail)
    for k in range(3):
        b.add("true", id=f"i{k}")
    said: list[str] = []
    say = b.worker.say

    def note(self: Worker, **changes: object) -> None:
        if self.troubles >= 2 and changes.get("state") == "paused":
            said.append(str(changes["last_event"]))
            b.told.reload = True
        say(**changes)

    monkeypatch.setattr(Worker, "say", note)
    b.run(rounds=2)
    assert said == ["rests 4 s: 2 attempts given back in a row"]
    assert b.worker.troubles == 0


# ---- decided by others -----------------------------------------------------------------------------------------------


def while_running(b: Bench, act: Callable[[], None]) -> None:
    """Once the agent runs, `act` is called in one of the worker's beats."""
    drained = b.told.drained
    done: list[bool] = []

    def look() -> None:
        drained()
        if b.worker.report.state == "running" and not done:
            done.append(True)
            act()

    b.told.drained = look


def start(b: Bench, act: Callable[[], None]) -> int:
    """`run`, with `act` while the first agent runs."""
    b.told.stops = 0
    left = [1]

    def drained() -> None:
        left[0] -= b.worker.owned is None
        b.told.stops = max(b.told.stops, int(left[0] < 0))

    b.told.drained = drained
    while_running(b, act)
    return b.worker.run()


def test_an_attempt_that_was_cancelled_stops_at_the_next_beat_and_its_work_is_saved(b: Bench) -> None:
    uid = b.add("echo precious > work; sleep 100")
    tree = b.world.layout.worktree("app", "agent-1")

    def cancel() -> None:
        until((tree / "work").exists)
        b.world.cancel(uid)

    start(b, cancel)
    assert b.end(uid).outcome is Outcome.CANCELLED
    (event,) = b.said("attempt_superseded")
    assert (event["uid"], event["by"], event["outcome"]) == (uid, "me", "cancelled")
    assert b.said("work_salvaged")
    assert b.said("attempt_ended") == []


def test_an_attempt_that_was_expired_under_its_owner_publishes_nothing(b: Bench) -> None:
    uid = b.add("echo x > new; sleep 100")

    def expire() -> None:
        b.world.hand.hung = True
        assert b.world.run(attempts.expire(b.world.me, uid, 1)) is Outcome.EXPIRED

    start(b, expire)
    assert b.end(uid).outcome is Outcome.EXPIRED
    assert [e["outcome"] for e in b.said("attempt_superseded")] == ["expired"]
    assert submitted.all_of(b.world.layout, "app") == []


def test_an_attempt_that_was_expired_at_its_very_end_publishes_nothing(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last look at the end and our own link."""
    uid = b.add("echo x > new")
    record = Worker._record

    def late(self: Worker, *a: Any) -> End:
        b.world.hand.hung = True
        b.world.run(attempts.expire(b.world.me, uid, 1))
        return record(self, *a)

    monkeypatch.setattr(Worker, "_record", late)
    b.run()
    assert b.end(uid).outcome is Outcome.EXPIRED
    assert b.said("item_submitted") == []
    assert [e["by"] for e in b.said("attempt_superseded")] == ["another process"]


# ---- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2, 9])
def test_a_drain_finishes_the_attempt_however_often_it_is_told(b: Bench, times: int) -> None:
    """The second coordinator that drains a worker does not know of the first, which died over it."""
    uid = b.add("echo x > new")

    def stop() -> None:
        b.told.stops = times

    start(b, stop)
    assert b.end(uid).outcome is Outcome.DONE


def test_a_stop_now_releases_the_attempt_first_and_then_stops_it(b: Bench) -> None:
    uid = b.add("echo precious > work; sleep 100")
    tree = b.world.layout.worktree("app", "agent-1")

    def stop() -> None:
        until((tree / "work").exists)
        b.told.stops, b.told.now = 1, True

    start(b, stop)
    end = b.end(uid)
    assert (end.outcome, end.reason, end.by) == (Outcome.RELEASED, "the harness was stopped", "agent-1")
    assert b.said("attempt_superseded") == []
    assert b.said("work_salvaged")
    assert b.world.standing(uid) is Standing.READY


def test_a_stop_now_that_comes_after_the_end_was_decided_changes_nothing(b: Bench) -> None:
    uid = b.add("sleep 100")

    def both() -> None:
        b.world.cancel(uid)
        b.told.stops, b.told.now = 1, True

    start(b, both)
    assert b.end(uid).outcome is Outcome.CANCELLED


def test_a_new_configuration_is_read_before_the_next_attempt_and_a_broken_one_refused(b: Bench) -> None:
    configure(b.world, b.app, health={"beat_s": 7.0})
    b.told.reload = True
    b.run()
    assert b.worker.runner.beat_s == 7.0
    b.world.layout.config.write_text("v: 1\nworkrs: 3\n")
    b.told.reload = True
    b.run()
    assert b.worker.runner.beat_s == 7.0
    assert "workrs" in b.said("config_refused")[0]["reason"]


def test_the_heart_beats_while_an_agent_runs(b: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    beats: dict[str, int] = {}

    def beat(path: Path, **_: object) -> None:
        beats[b.worker.report.state] = beats.get(b.worker.report.state, 0) + (path == b.worker.heartbeat)

    monkeypatch.setattr(os, "utime", beat)
    b.add("sleep 0.5", commit="none")
    b.run()
    assert beats["running"] >= 3


def test_a_report_that_says_nothing_new_is_not_written_again(b: Bench) -> None:
    b.worker.say(state="idle", last_event="x")
    path = reports.agent_path(b.world.layout, "agent-1")
    before = path.stat().st_ino
    b.worker.say(state="idle", last_event="x")
    assert path.stat().st_ino == before
    b.worker.say(state="paused")
    assert path.stat().st_ino != before
    assert b.report.since


# ---- the process -----------------------------------------------------------------------------------------------------


def argv(world: World) -> list[str]:
    return [
        sys.executable,
        "-P",
        "-m",
        "harness",
        "worker",
        "--root",
        str(world.layout.root),
        "--agent",
        "agent-1",
    ]


def test_the_process_works_goes_when_told_and_is_alone_in_its_slot(world: World, tmp_path: Path) -> None:
    configure(world, person(tmp_path / "app"))
    uid = world.add(id="a", prompt="true", commit="none")
    with running(argv(world), env=environment()) as first:
        until(lambda: world.stub(uid), 60)
        with running(argv(world), env=environment()) as second:
            assert second.wait(60) == 4
        first.send_signal(signal.SIGTERM)
        assert first.wait(30) == 0
    said = reports.read(reports.agent_path(world.layout, "agent-1"), AgentReport)
    assert said
    assert (said.state, said.attempts) == ("stopped", 1)
    kinds = [e["event"] for _, e in read(world.layout) if e["event"].startswith("worker_")]
    assert kinds == ["worker_started", "worker_stopped"]


def test_a_process_that_cannot_use_its_configuration_says_so_by_its_exit_code(world: World) -> None:
    world.layout.config.write_text("v: 1\nworkrs: 3\n")
    with running(argv(world), env=environment()) as process:
        assert process.wait(60) == 78


# ---- money -----------------------------------------------------------------------------------------------------------


def test_an_item_for_which_there_is_no_money_is_not_claimed_with_or_without_a_hint(b: Bench) -> None:
    configure(b.world, b.app, budgets={"day": {"usd": 1.0}, "reserve_usd": 0.6})
    b.worker.config = load(b.world.layout.config)
    uid = b.add("true", commit="none")
    running = b.world.claim(b.world.add(id="other", project="app"))  # by another: nobody takes it here
    other = Payer(uid=running.uid, n=1, project="app")
    ledger = Ledger(b.world.layout, SystemClock())
    assert ledger.reserve(other, Amount(usd=0.6), {"day": b.worker.config.budgets.day}) is None
    assert b.run(2) == 0
    assert b.world.standing(uid) is Standing.READY
    ledger.release(other)
    assert b.run(2) == 0
    assert b.world.stub(uid)
    assert [e.kind.value for e in entries(b.world.layout)][-2:] == ["reserve", "release"]


def test_without_a_budget_the_ledger_is_not_opened_for_a_claim(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    b.world.layout.limits.joinpath("x.lock").touch()

    def refuse(*_: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(Ledger, "read", refuse)
    uid = b.add("true", commit="none")
    assert b.run() == 0
    assert b.world.stub(uid)


@pytest.mark.uncovered
def test_what_carries_an_attempt_out_is_loaded_after_the_first_claim_or_in_idle_time() -> None:
    later = (
        "harness.hub",
        "harness.session",
        "harness.gates",
        "harness.agents",
        "harness.monitor",
        "tempfile",
        "uuid",
    )
    code = f"import sys, harness.worker.process; sys.exit(','.join({set(later)} & sys.modules.keys()) or 0)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
