"""Races of PROTOCOL section 13 around the merge lane, the whole protocol on a real hub and real git."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.gates import GateResult
from harness.hub import Hub, Published
from harness.lanehub import LaneHub, epochs
from harness.layout import Layout
from harness.model import Act, Outcome
from harness.store import lane, operators
from harness.store.fsck import check
from harness.store.operators import Said
from harness.store.violations import Hubs, Violation
from tests.hubs import Desk, commit, desk, git, person
from tests.hubs import submit as work_and_pin
from tests.stores import Proc, World


class Merging:
    """A store, a real hub, and mergers that a test can stop."""

    def __init__(self, world: World, at: Desk) -> None:
        self.world = world
        self.at = at
        self.hub = at.ready()
        self.red: list[str] = []
        """Names of gates that are red on every merged tree."""
        world.real = self.bound(self.hub)

    def bound(self, hub: Hub) -> LaneHub:
        return LaneHub(hub, epochs(self.world.actor("merger.app")), lambda uid: None, self.gate)

    def gate(self, uid: str, n: int, sha: str) -> GateResult | None:
        if not self.red:
            return None
        return GateResult(name=self.red[0], run="false", ok=False, reason="exit 1")

    def submitted(self, name: str, file: str = "new.txt") -> str:
        uid = self.world.add(id=name)
        sha = work_and_pin(self.hub, uid, 1, file)
        self.world.attempt(uid, Outcome.DONE, sha)
        return uid

    def merger(self, uid: str) -> Proc[bool]:
        """A merger with an opened hub of its own, as another process has it."""
        proc = self.world.proc(lane.judge(self.world.actor("merger.app"), "app", uid, 1))
        mine = self.bound(self.at.open())
        proc.disk.hubs = lambda project: mine
        return proc

    def canceller(self, uid: str) -> Proc[operators.Answer]:
        return self.world.proc(
            operators.cancel(self.world.actor("cli"), uid, "me", "no", self.world.judging())
        )

    def verdict(self, uid: str) -> dict[str, object]:
        return dict(self.world.cells(uid)["1.verdict"])

    def merges(self) -> list[str]:
        return git(self.hub.path, "log", "--first-parent", "--merges", "--format=%H", "main").split()

    def violations(self) -> list[Violation]:
        hubs = Hubs(
            missing=lambda project, shas: self.hub.missing(shas),
            merged=lambda project, uid, n, sha: self.hub.merged_as(self.hub.target(), uid, n, sha),
        )
        return [v for v in check(self.world.disk, hubs=hubs) if not v.harmless]


@pytest.fixture
def it(layout: Layout, tmp_path: Path) -> Iterator[Merging]:
    world = World(layout)
    made = Merging(world, desk(layout, person(tmp_path / "up")))
    yield made
    assert made.violations() == []
    git(made.hub.path, "fsck", "--strict", "--no-dangling")
    world.close()


def test_r26_a_merger_that_lost_the_lane_moves_nothing(it: Merging) -> None:
    """R26: merger A between gates and m5, B takes the lane and returns: A's transaction is refused."""
    uid = it.submitted("a")
    before = it.hub.target()
    a = it.merger(uid).before("swap_target")
    it.red.append("tests")
    assert it.merger(uid).go()
    assert a.go() is False
    assert it.hub.target() == before
    assert it.verdict(uid)["gate"] == "tests"


def test_r27_who_takes_the_lane_writes_the_refusal_that_was_decided_in_it_first(it: Merging) -> None:
    """R27: merger A between m5r and PUBLISH, B takes the lane: B writes A's verdict first."""
    uid = it.submitted("a")
    it.red.append("tests")
    it.merger(uid).before("link", "1.verdict").kill()
    assert it.hub.lane().pending
    it.red.clear()
    assert it.merger(uid).go()
    assert it.verdict(uid)["returned"] == "gate"
    assert it.merges() == []


def test_r28_a_merge_whose_merger_died_before_its_verdict_is_found(it: Merging) -> None:
    """R28: merger killed between m5 and m6: m2 finds it: merged."""
    uid = it.submitted("a")
    it.merger(uid).after("swap_target").kill()
    assert len(it.merges()) == 1
    it.red.append("tests")
    assert it.merger(uid).go()
    assert it.verdict(uid)["merged"] == it.merges()[0] == it.hub.target()


def test_r29_an_item_that_is_cancelled_and_archived_while_m1_reads_is_not_merged(it: Merging) -> None:
    """R29: merger between m1's two reads, the item is cancelled and archived: not merged."""
    uid = it.submitted("a")
    a = it.merger(uid).before("read", "1.end")
    assert it.canceller(uid).go().said is Said.DONE
    it.world.finish(uid)
    a.go()
    assert it.merges() == []


def test_r30_a_cancel_and_a_merge_agree(it: Merging) -> None:
    """R30: cancel of a submitted item against m5: cancelled and not on target, or "already merged as sha"."""
    first, second = it.submitted("a", "a.txt"), it.submitted("b", "b.txt")
    a = it.merger(first).before("swap_target")
    assert it.canceller(first).go().said is Said.DONE
    a.go()
    assert it.merges() == []
    it.merger(second).after("swap_target").kill()
    answer = it.canceller(second).go()
    assert answer.said is Said.TOO_LATE
    assert answer.sha == it.merges()[0]


def test_r31_a_target_that_was_moved_by_somebody_else_is_merged_upon(it: Merging) -> None:
    """R31: target moved between m2 and m5: refused; m2 again; nothing overwritten."""
    uid = it.submitted("a")
    a = it.merger(uid).before("swap_target")
    theirs = commit(it.at.upstream, "theirs.txt", "x\n", branch="main")
    git(it.at.upstream, "switch", "-q", "work")
    git(it.hub.path, "fetch", "-q", str(it.at.upstream), "main:main")
    assert a.go()
    (merge,) = it.merges()
    assert git(it.hub.path, "rev-parse", f"{merge}^1") == theirs


def test_r31_two_results_are_merged_one_after_the_other_by_two_mergers(it: Merging) -> None:
    """R31: the target was moved by another merger, which took the lane: m0 again."""
    first, second = it.submitted("a", "a1.txt"), it.submitted("b", "b1.txt")
    a = it.merger(first).before("swap_target")
    assert it.merger(second).go()
    assert a.go() is False
    assert it.merger(first).go()
    assert len(it.merges()) == 2
    assert {it.verdict(first)["merged"], it.verdict(second)["merged"]} == set(it.merges())


def test_r34_a_submitted_commit_stays_readable_when_an_agent_deletes_its_branch(it: Merging) -> None:
    """R34: no cell and no target ever names an unreadable object: the pin was made before n.end."""
    uid = it.submitted("a")
    sha = it.world.cells(uid)["1.end"]["sha"]
    git(it.hub.path, "update-ref", "-d", f"refs/heads/harness/{uid}/1")
    git(it.hub.path, "gc", "-q", "--prune=now")
    assert git(it.hub.path, "cat-file", "-t", sha) == "commit"
    assert it.merger(uid).go()
    assert it.verdict(uid)["merged"]


def test_r35_a_push_by_a_person_between_fetch_and_our_push_is_not_overwritten(it: Merging) -> None:
    """R35: push to the user's branch between fetch and our push: `publishing`, nothing overwritten, nothing dirty."""
    uid = it.submitted("a")
    assert it.merger(uid).go()
    theirs = commit(it.at.upstream, "theirs.txt", "x\n", branch="main")
    git(it.at.upstream, "switch", "-q", "work")
    assert not isinstance(it.hub.publish(), Published)
    assert git(it.at.upstream, "rev-parse", "main") == theirs
    assert git(it.at.upstream, "status", "--porcelain") == ""
    assert len(it.hub.unpublished()) == 1
    assert it.verdict(uid)["merged"]


def test_r35_a_dirty_checkout_of_the_target_stays_as_it_is(it: Merging) -> None:
    """R35: target checked out and dirty: refused, and not one file touched."""
    uid = it.submitted("a")
    assert it.merger(uid).go()
    git(it.at.upstream, "switch", "-q", "main")
    (it.at.upstream / "a.txt").write_text("mine\n")
    before = git(it.at.upstream, "rev-parse", "main")
    assert not isinstance(it.hub.publish(), Published)
    assert git(it.at.upstream, "rev-parse", "main") == before
    assert (it.at.upstream / "a.txt").read_text() == "mine\n"
    assert it.world.cells(uid)["1.claim"]["act"] == Act.RUN
