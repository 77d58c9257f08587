"""A sweep takes the living for dead: removes a private file between its making and its link, a home before its drop.

The presence of a process is an opinion (state/run/ deleted while it runs, a lock that NFS lost). It must cost time only.
"""

from __future__ import annotations

import os

from harness.model import Outcome
from harness.store import admission, attempts, lane
from harness.store.attempts import Ended
from harness.store.sweeping import EMPTY_S, owner_of, sweep_home, sweep_private
from tests.stores import World, end_record


def swept(world: World) -> None:
    """Everything in tmp/ by an incarnation that believes nobody alive."""
    world.hand.absent |= {owner_of(name) for name in os.listdir(world.layout.queue / "tmp")}
    world.run(sweep_private("coordinator.9.x"))
    assert os.listdir(world.layout.queue / "tmp") == []


def test_an_owner_whose_private_file_was_swept_ends_its_attempt_all_the_same(world: World) -> None:
    """ENOENT of link(2) was taken for a store that moved away: alarm, exit, the attempt lost."""
    uid = world.add(id="a")
    owned = world.claim(uid)
    owner = world.proc(attempts.end(world.me, owned, end_record(1, Outcome.DONE))).before("link")
    swept(world)
    assert owner.go() is Ended.WON
    assert world.cells(uid)["1.end"]["outcome"] == "done"
    assert os.listdir(world.layout.queue / "tmp") == []


def test_a_claimant_whose_ticket_was_swept_claims_with_another_and_holds_one_lock(world: World) -> None:
    uid = world.add(id="a")
    claimant = world.proc(attempts.claim(world.me, uid)).before("link")
    swept(world)
    got = claimant.go()
    assert isinstance(got, attempts.Claimed)
    assert list(claimant.disk._tickets) == [got.ticket]


def test_a_refusal_is_not_taken_out_of_the_lane_before_it_is_a_cell(world: World) -> None:
    """The next holder's private file was swept; it went on with the lane, and merged what was called returned."""
    uid = world.add(id="a", commit="required")
    world.submit(uid)
    world.hub.red.add((uid, 1))
    a = world.proc(lane.judge(world.actor("a"), "app", uid, 1)).before("link", "1.verdict")
    world.hub.red.clear()
    b = world.proc(lane.judge(world.actor("b"), "app", uid, 1)).before("link", "1.verdict")
    swept(world)
    assert b.go()
    assert a.go()
    assert world.cells(uid)["1.verdict"]["returned"] == "gate"
    assert world.hub.history == ()


def test_a_drop_whose_new_home_was_swept_stays_in_the_drop_box(world: World) -> None:
    path = world.drop("a.json")
    taker = world.proc(admission.take())
    taker.before("rename")
    (home,) = world.incoming()
    world.clock.advance(2 * EMPTY_S)
    world.run(sweep_home(home))
    assert taker.go() == []
    assert path.exists()
    assert world.incoming() == []
    assert len(world.admit_all()) == 1


def test_a_home_with_a_drop_is_not_swept_however_old(world: World) -> None:
    world.drop("a.json")
    (home,) = world.take()
    world.clock.advance(2 * EMPTY_S)
    world.run(sweep_home(home))
    assert world.incoming() == [home]
