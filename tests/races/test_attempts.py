"""Races of PROTOCOL section 13 for an attempt: who claims it, who ends it, who is believed to be dead."""

from __future__ import annotations

import os
import signal

import pytest

from harness.errors import StoreError
from harness.model import Outcome
from harness.store import attempts, operators
from harness.store.attempts import Claimed, Ended
from harness.store.cells import Look, Standing, spent
from harness.store.disk import is_locked
from harness.store.ops import Linked, Step
from tests.stores import Proc, World, end_record
from tests.support import line, python, until

CLAIMER = """
import sys
from pathlib import Path
from harness.clock import SystemClock
from harness.layout import Layout
from harness.model import Identity
from harness.store.attempts import claim
from harness.store.cells import Actor
from harness.store.disk import Disk

disk = Disk(Layout(Path(sys.argv[1])), SystemClock(), durable=False)
got = disk.run(claim(Actor(Identity(incarnation="child.1.x", name="agent-1")), sys.argv[2]))
print(got.n, flush=True)
sys.stdin.readline()
"""
"""A worker that claims and then does nothing: what stands between link(n.claim) and exec."""


def claiming(world: World, uid: str, name: str) -> Proc[Claimed | Look]:
    return world.proc(attempts.claim(world.actor(name), uid))


def ending(world: World, owned: Claimed, proc: Proc[Claimed | Look], outcome: Outcome) -> Proc[Ended]:
    """The owner's end, by the same process that claimed (its ticket is open there)."""
    return Proc(proc.disk, attempts.end(world.actor("agent-1"), owned, end_record(owned.n, outcome)))


def owner_of(world: World, uid: str) -> tuple[Claimed, Proc[Claimed | Look]]:
    proc = claiming(world, uid, "agent-1")
    owned = proc.go()
    assert isinstance(owned, Claimed)
    return owned, proc


def expiring(world: World, uid: str, n: int) -> Step[Outcome | None]:
    return attempts.expire(world.actor("monitor"), uid, n)


def test_r01_of_two_workers_before_the_same_claim_one_wins(world: World) -> None:
    """R1: two workers, between the listing and link(n.claim): one wins; the loser closes its ticket."""
    uid = world.add(id="a")
    first = claiming(world, uid, "agent-1").before("link", "1.claim")
    second = claiming(world, uid, "agent-2").before("link", "1.claim")
    assert isinstance(second.go(), Claimed)
    lost = first.go()
    assert isinstance(lost, Look)
    assert lost.standing is Standing.RUNNING
    assert first.disk._tickets == {}
    assert world.cells(uid)["1.claim"]["owner"]["name"] == "agent-2"


def test_r02_a_stale_claim_of_a_number_that_was_used_and_failed_is_refused(world: World) -> None:
    """R2: worker between the listing and link(n.claim), while n is claimed and failed by another: EEXIST; it starts over."""
    uid = world.add(id="a")
    stale = claiming(world, uid, "agent-1").before("link", "1.claim")
    world.attempt(uid, Outcome.FAILED)
    assert isinstance(stale.go(), Look)
    assert sorted(world.cells(uid)) == ["1.claim", "1.end", "item.json"]
    again = claiming(world, uid, "agent-1").go()
    assert isinstance(again, Claimed)
    assert again.n == 2


def test_r03_a_worker_killed_between_claim_and_exec_is_expired_at_once(world: World) -> None:
    """R3: worker killed between link(n.claim) and exec: expired within 1 s, n+1 runs."""
    uid = world.add(id="a")
    with python(CLAIMER, str(world.layout.root), uid) as child:
        assert line(child) == "1"
        assert world.run(expiring(world, uid, 1)) is None  # it lives
        os.kill(child.pid, signal.SIGKILL)
        assert until(lambda: world.run(expiring(world, uid, 1)), 1.0) is Outcome.EXPIRED
    assert world.claim(uid).n == 2


def test_r04_a_monitor_never_sees_a_claim_without_a_lock(world: World) -> None:
    """R4: worker between OFD lock and link(n.claim), monitor looks: nothing to expire; never a claim without a lock."""
    uid = world.add(id="a")
    worker = claiming(world, uid, "agent-1").before("link", "1.claim")
    assert world.run(expiring(world, uid, 1)) is None
    worker.once()
    assert world.run(expiring(world, uid, 1)) is None
    with (world.layout.queue / "open" / uid / "1.claim").open() as f:
        assert is_locked(f.fileno())
    assert isinstance(worker.go(), Claimed)


def test_r05_an_owner_that_was_expired_before_its_end_is_superseded(world: World) -> None:
    """R5: owner before link(n.end), monitor publishes expired: EEXIST; salvage, no effect."""
    uid = world.add(id="a")
    owned, proc = owner_of(world, uid)
    end = ending(world, owned, proc, Outcome.DONE).before("link", "1.end")
    world.hand.hung = True
    assert world.run(expiring(world, uid, 1)) is Outcome.EXPIRED
    assert end.go() is Ended.SUPERSEDED
    assert world.cells(uid)["1.end"]["outcome"] == "expired"
    assert end.disk._tickets == {}


def test_r06_an_owner_whose_item_was_finished_by_another_is_superseded_without_alarm(world: World) -> None:
    """R6: as R5, and n+1 is done and archived: ENOENT, stub there: as R5, no alarm."""
    uid = world.add(id="a")
    owned, proc = owner_of(world, uid)
    end = ending(world, owned, proc, Outcome.DONE).before("link", "1.end")
    world.hand.hung = True
    world.run(expiring(world, uid, 1))
    world.attempt(uid, Outcome.DONE)
    world.finish(uid)
    assert end.go() is Ended.SUPERSEDED
    assert world.where(uid) == ["archive"]


def test_r07_an_owner_whose_store_was_moved_raises_the_alarm(world: World) -> None:
    """R7: owner before link(n.end), the item's directory is moved away: ENOENT, no stub: salvage, alarm, exit."""
    uid = world.add(id="a")
    owned, proc = owner_of(world, uid)
    end = ending(world, owned, proc, Outcome.DONE).before("link", "1.end")
    home = world.layout.queue / "open" / uid
    home.rename(world.layout.root / "aside")
    with pytest.raises(StoreError, match="nobody finished it") as alarm:
        end.go()
    assert alarm.value.remedy
    (world.layout.root / "aside").rename(home)
    end.kill()
    assert world.run(expiring(world, uid, 1)) is Outcome.EXPIRED  # put back, the attempt is decided as usual


def test_r08_of_two_monitors_one_expires(world: World) -> None:
    """R8: two monitors, both before link(n.end): one expired."""
    uid = world.add(id="a")
    _, proc = owner_of(world, uid)
    proc.kill()
    one = world.proc(expiring(world, uid, 1)).before("link", "1.end")
    two = world.proc(expiring(world, uid, 1)).before("link", "1.end")
    assert {one.go(), two.go()} == {Outcome.EXPIRED, None}
    assert spent(world.look(uid).attempts) == 1


@pytest.mark.parametrize("archived", [False, True], ids=["open", "archived"])
def test_an_owner_that_ends_its_attempt_while_a_monitor_looks_is_not_killed(
    world: World, archived: bool
) -> None:
    """A claim is free when its owner is dead, and when it has ended the attempt: the monitor took one for the other."""
    uid = world.add(id="a")
    owned, proc = owner_of(world, uid)
    monitor = world.proc(expiring(world, uid, 1)).before("suspect")
    assert ending(world, owned, proc, Outcome.DONE).go() is Ended.WON
    if archived:
        monitor.after("suspect")
        world.finish(uid)
    assert monitor.go() is None
    assert world.hand.cleared == []


def test_r09_a_claim_whose_reply_was_lost_is_won_by_its_inode(world: World) -> None:
    """R9: link made, reply lost: won by inode."""
    uid = world.add(id="a")
    worker = claiming(world, uid, "agent-1").before("link", "1.claim")
    worker.lie(Linked.EXISTS, done=True)
    assert isinstance(worker.go(), Claimed)
    assert worker.disk._tickets


def test_r09_a_claim_that_was_not_made_and_not_refused_ends_the_process(world: World) -> None:
    """R9: link not made, EIO: exit."""
    uid = world.add(id="a")
    worker = claiming(world, uid, "agent-1").before("link", "1.claim")
    worker.lie(Linked.UNKNOWN, done=False)
    with pytest.raises(StoreError):
        worker.go()
    worker.kill()
    assert isinstance(claiming(world, uid, "agent-2").go(), Claimed)


@pytest.mark.parametrize("hidden", ["2.claim", "2.end", "1.end"])
def test_r10_a_listing_that_misses_a_cell_leads_to_no_second_owner(world: World, hidden: str) -> None:
    """R10: listing without n.claim, without n.end, without an end < n: EEXIST; not claimable; spent still right."""
    uid = world.add(id="a", max_attempts=2)
    world.attempt(uid, Outcome.FAILED)
    world.attempt(uid, Outcome.FAILED)
    before = world.cells(uid)
    worker = claiming(world, uid, "agent-1").before("ls")
    names = [x for x in worker.disk.do_ls(f"queue/open/{uid}") or () if x != hidden]
    worker.lie(tuple(names), done=False)
    assert isinstance(worker.go(), Look)
    assert world.cells(uid) == before


@pytest.mark.parametrize("hidden", ["1.claim", "1.end"])
def test_r10_a_listing_that_misses_a_cell_of_a_running_attempt_gives_no_claim(
    world: World, hidden: str
) -> None:
    """R10: the same while the last attempt runs."""
    uid = world.add(id="a")
    world.attempt(uid, Outcome.FAILED)
    world.claim(uid)
    worker = claiming(world, uid, "agent-2").before("ls")
    names = [x for x in worker.disk.do_ls(f"queue/open/{uid}") or () if x not in (hidden, "2.claim")]
    worker.lie(tuple(names), done=False)
    assert isinstance(worker.go(), Look)
    assert world.cells(uid)["2.claim"]["owner"]["name"] == "agent-1"


def test_r23_a_worker_that_is_recycled_loses_no_attempt_to_the_monitor(world: World) -> None:
    """R23: recycle (released) against the monitor, before the kill: released; no attempt spent."""
    uid = world.add(id="a", max_attempts=1)
    _, owner = owner_of(world, uid)
    recycle = world.proc(operators.stop(world.actor("coordinator"), uid, 1, "coordinator", "recycled"))
    recycle.before("interrupt")
    world.hand.hung = True
    owner.kill()
    assert world.run(expiring(world, uid, 1)) is None
    assert recycle.go()
    assert world.hand.interrupted == [(uid, 1)]
    assert world.cells(uid)["1.end"]["outcome"] == "released"
    assert world.standing(uid) is Standing.READY


def test_r23_a_recycle_that_comes_after_the_monitor_kills_nobody(world: World) -> None:
    """R23, the other order: the monitor was first; nothing is killed that was not decided."""
    uid = world.add(id="a")
    _, owner = owner_of(world, uid)
    owner.kill()
    recycle = world.proc(operators.stop(world.actor("coordinator"), uid, 1, "coordinator", "recycled"))
    recycle.before("link", "1.end")
    assert world.run(expiring(world, uid, 1)) is Outcome.EXPIRED
    assert recycle.go() is False
    assert world.hand.interrupted == []


def test_r25_a_worker_that_saw_no_hold_cannot_run_after_one(world: World) -> None:
    """R25: worker between "parked?" and link(n+1.claim), hold and grant in between: EEXIST."""
    uid = world.add(id="a")
    stale = claiming(world, uid, "agent-1").before("link", "1.claim")
    world.hold(uid)
    world.retry(uid)
    assert isinstance(stale.go(), Look)
    assert world.cells(uid)["1.claim"]["act"] == "hold"
    assert world.claim(uid).n == 2


def test_r36_a_monitor_that_dies_after_its_kill_leaves_a_free_lock(world: World) -> None:
    """R36: owner stopped (SIGSTOP) beyond T_hang, monitor between KILL and link(expired) dies: the lock is free: expired by the next."""
    uid = world.add(id="a")
    with python(CLAIMER, str(world.layout.root), uid) as child:
        assert line(child) == "1"
        os.kill(child.pid, signal.SIGSTOP)
        assert world.run(expiring(world, uid, 1)) is None  # it stands still, but holds its lock
        world.hand.hung = True
        monitor = world.proc(expiring(world, uid, 1)).before("clear")
        os.kill(child.pid, signal.SIGKILL)
        child.wait(10)
        monitor.once()
        monitor.before("link", "1.end").kill()
        world.hand.hung = False
        assert world.run(expiring(world, uid, 1)) is Outcome.EXPIRED
    assert world.claim(uid).n == 2


def test_a_hung_owner_that_cannot_be_killed_is_not_expired(world: World) -> None:
    """PROTOCOL section 5, rule 5: kill before expire; an owner that lives on keeps its attempt."""
    uid = world.add(id="a")
    owner_of(world, uid)
    world.hand.hung = world.hand.lives_on = True
    assert world.run(expiring(world, uid, 1)) is None
    assert world.standing(uid) is Standing.RUNNING


def test_r17_a_finisher_killed_between_stub_and_rename_is_completed(world: World) -> None:
    """R17: finisher killed between stub and rename: T6 again; dependants may already run."""
    dep = world.add(id="dep")
    uid = world.add(id="later", depends_on=["dep"])
    world.attempt(dep, Outcome.DONE)
    finisher = world.proc(attempts.finish(dep)).before("rename", dep)
    finisher.kill()
    assert world.where(dep) == ["open"]
    assert world.promote(uid) is None
    assert isinstance(claiming(world, uid, "agent-2").go(), Claimed)
    world.recover()
    assert world.where(dep) == ["archive"]


def test_r18_two_finishers_move_the_item_to_one_place_once(world: World) -> None:
    """R18: two finishers, between stub and rename: same day, same place."""
    uid = world.add(id="a")
    world.attempt(uid, Outcome.DONE)
    one = world.proc(attempts.archive(uid)).before("rename", uid)
    two = world.proc(attempts.archive(uid)).before("rename", uid)
    second, first = two.go(), one.go()
    assert first
    assert second
    assert (first.stub, first.here, second.here) == (second.stub, False, True)
    assert [p.parent.name for p in world.layout.queue.glob(f"archive/*/{uid}")] == [first.stub.day]
    assert world.where(uid) == ["archive"]


def test_r18_a_finisher_that_comes_after_the_move_finds_the_stub(world: World) -> None:
    uid = world.add(id="a")
    world.attempt(uid, Outcome.DONE)
    late = world.proc(attempts.archive(uid)).before("link", f"/{uid}")
    world.finish(uid)
    done = late.go()
    assert done
    assert (done.stub, done.here) == (world.stub(uid), False)
