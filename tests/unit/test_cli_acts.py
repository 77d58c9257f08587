"""What people do to items: retry, park, cancel, boost, one or many; with the coordinator down."""

from __future__ import annotations

import pytest

from harness import atomicfs
from harness.control import acts
from harness.control.desk import Desk
from harness.errors import ConflictError
from harness.events import read
from harness.model import Outcome
from harness.store.cells import Standing
from harness.store.view import Seen
from tests.cli import ctl
from tests.stores import World


def test_park_holds_a_ready_item_and_retry_lets_it_run_again(world: World) -> None:
    uid = world.add(id="a")
    root = world.layout.root
    assert ctl(root, "park", "a", "--why", "wait for the API").out == "a: parked\n"
    assert world.standing(uid) is Standing.PARKED
    assert "wait for the API" in ctl(root, "show", "a").out
    assert ctl(root, "retry", "a").code == 0
    assert world.standing(uid) is Standing.READY


def test_park_of_a_running_item_decides_its_attempt(world: World) -> None:
    uid = world.add(id="a")
    world.claim(uid)
    assert ctl(world.layout.root, "park", "a").code == 0
    assert world.cells(uid)["1.end"]["outcome"] == "held"


def test_park_of_a_waiting_item_is_not_offered_and_says_so(world: World) -> None:
    world.add(id="a", depends_on=["b"])
    said = ctl(world.layout.root, "park", "a")
    assert said.code == 4
    assert "cannot be parked" in said.err
    assert "harnessctl cancel" in said.err


def test_park_of_a_submitted_item_asks_to_wait(world: World) -> None:
    world.submit(world.add(id="a"))
    said = ctl(world.layout.root, "park", "a")
    assert said.code == 75
    assert "harnessctl wait" in said.err


def test_cancel_archives_the_item(world: World) -> None:
    uid = world.add(id="a")
    assert ctl(world.layout.root, "cancel", "a", "--why", "not needed").out == "a: cancelled\n"
    assert world.where(uid) == ["archive"]
    stub = world.stub(uid)
    assert stub
    assert stub.outcome == "cancelled"


def test_cancel_of_a_running_item_decides_before_anything_is_stopped(world: World) -> None:
    uid = world.add(id="a")
    world.claim(uid)
    assert ctl(world.layout.root, "cancel", "a").code == 0
    assert world.cells(uid)["1.end"]["outcome"] == "cancelled"
    assert world.where(uid) == ["archive"]


def test_cancel_of_a_waiting_item_never_lets_it_run(world: World) -> None:
    uid = world.add(id="a", depends_on=["b"])
    assert ctl(world.layout.root, "cancel", "a").code == 0
    assert world.where(uid) == ["archive"]
    assert "1.claim" not in world.cells(uid)


def test_cancel_twice_is_said_to_be_so_and_no_error(world: World) -> None:
    world.add(id="a")
    root = world.layout.root
    assert ctl(root, "cancel", "a").code == 0
    said = ctl(root, "cancel", "a")
    assert said.code == 0
    assert "already" in said.out


def test_cancel_of_what_is_done_is_a_conflict(world: World) -> None:
    uid = world.add(id="a", commit="none")
    world.attempt(uid, Outcome.DONE)
    world.finish(uid)
    said = ctl(world.layout.root, "cancel", "a")
    assert said.code == 4
    assert "done already" in said.err


def test_retry_of_an_item_that_is_out_of_attempts_grants_more(world: World) -> None:
    uid = world.add(id="a", max_attempts=1)
    world.attempt(uid, Outcome.FAILED)
    assert world.standing(uid) is Standing.PARKED
    assert ctl(world.layout.root, "retry", "a", "--extra", "2").code == 0
    assert world.cells(uid)["1.grant"]["extra"] == 2


def test_retry_of_a_ready_item_is_a_conflict(world: World) -> None:
    world.add(id="a")
    said = ctl(world.layout.root, "retry", "a")
    assert said.code == 4
    assert "not parked" in said.err


def test_retry_of_a_waiting_item_needs_to_be_meant(world: World) -> None:
    uid = world.add(id="a", depends_on=["b"])
    root = world.layout.root
    said = ctl(root, "retry", "a")
    assert said.code == 4
    assert "--without-waiting" in said.err
    assert ctl(root, "retry", "a", "--without-waiting").code == 0
    assert world.standing(uid) is Standing.READY


def test_retry_of_an_item_whose_dependency_was_cancelled_lets_it_run(world: World) -> None:
    first = world.add(id="a")
    second = world.add(id="b", depends_on=["a"])
    world.cancel(first)
    world.finish(first)
    root = world.layout.root
    assert ctl(root, "show", "b", "--json").data["state"] == "parked"
    assert ctl(root, "retry", "b").code == 0
    assert world.standing(second) is Standing.READY


@pytest.mark.parametrize(("given", "digit"), [([], "0"), (["3"], "3"), (["--priority", "low"], "8")])
def test_boost_leaves_a_wish_for_the_coordinator(world: World, given: list[str], digit: str) -> None:
    uid = world.add(id="a")
    assert ctl(world.layout.root, "boost", "a", *given).code == 0
    folder = world.layout.control / "priority"
    assert [x.name for x in folder.iterdir()] == [uid]
    assert (folder / uid).read_text().strip() == digit


def test_two_may_boost_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = world.add(id="a")
    real = atomicfs.write_all

    def late(fd: int, data: bytes) -> None:
        real(fd, data)
        if data == b"4\n":
            assert ctl(world.layout.root, "boost", "a", "3").code == 0

    monkeypatch.setattr(atomicfs, "write_all", late)
    assert ctl(world.layout.root, "boost", "a", "4").code == 0
    folder = world.layout.control / "priority"
    assert [path.name for path in folder.iterdir()] == [uid]
    assert (folder / uid).read_text() == "4\n"


@pytest.mark.parametrize("act", ["cancel", "park", "retry", "boost"])
def test_a_damaged_item_is_for_fsck_and_not_for_another_try(world: World, act: str) -> None:
    uid = world.add(id="a")
    (world.layout.queue / "open" / uid / "item.json").write_text("{")
    said = ctl(world.layout.root, act, uid)
    assert said.code == 1
    assert "item.json" in said.err
    assert "harnessctl fsck" in said.err


def test_a_damaged_item_that_waits_is_cancelled_and_said_to_be_damaged(world: World) -> None:
    uid = world.add(id="a", depends_on=["b"])
    (world.layout.queue / "waiting" / uid / "item.json").write_text("{")
    said = ctl(world.layout.root, "cancel", uid)
    assert said.code == 0
    assert "it is cancelled, and shown as damaged: harnessctl fsck" in said.out
    assert '"cancelled"' in (world.layout.queue / "open" / uid / "0.end").read_text()


def test_boost_to_no_priority_is_a_usage_error(world: World) -> None:
    world.add(id="a")
    said = ctl(world.layout.root, "boost", "a", "--priority", "11")
    assert said.code == 2
    assert "0 (first) to 9" in said.err


# ---- many ------------------------------------------------------------------------------------------------------------


def three(world: World) -> list[str]:
    uids = [world.add(id=f"x{k}", convoy="login") for k in range(2)]
    return [*uids, world.add(id="other")]


def test_a_filter_acts_on_all_that_it_matches_with_yes(world: World) -> None:
    a, b, other = three(world)
    said = ctl(world.layout.root, "park", "--convoy", "login", "--yes")
    assert said.code == 0
    assert [world.standing(u) for u in (a, b, other)] == [Standing.PARKED, Standing.PARKED, Standing.READY]


def test_a_filter_without_yes_changes_nothing_when_nobody_can_be_asked(world: World) -> None:
    a, _, _ = three(world)
    said = ctl(world.layout.root, "cancel", "--convoy", "login")
    assert said.code == 2
    assert "--yes" in said.err
    assert world.standing(a) is Standing.READY


def test_a_dry_run_only_says_what_is_meant(world: World) -> None:
    a, _, _ = three(world)
    said = ctl(world.layout.root, "cancel", "--convoy", "login", "--dry-run")
    assert (said.code, said.out.count("would cancel")) == (0, 2)
    assert world.standing(a) is Standing.READY


def test_neither_names_nor_a_filter_is_a_usage_error(world: World) -> None:
    three(world)
    assert ctl(world.layout.root, "cancel").code == 2
    assert ctl(world.layout.root, "cancel", "x0", "--convoy", "login").code == 2


def test_a_name_that_is_unknown_stops_before_anything_is_done(world: World) -> None:
    a, _, _ = three(world)
    assert ctl(world.layout.root, "cancel", "x0", "nobody").code == 3
    assert world.standing(a) is Standing.READY


def test_one_that_cannot_be_acted_on_does_not_hide_the_others(world: World) -> None:
    a, b, _ = three(world)
    world.hold(b)
    said = ctl(world.layout.root, "retry", "x0", "x1", "--json")
    assert said.code == 4
    assert {r["uid"]: r["ok"] for r in said.data["results"]} == {a: False, b: True}
    assert world.standing(b) is Standing.READY


def test_an_act_is_an_event_with_the_name_of_the_person(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    uid = world.add(id="a")
    ctl(world.layout.root, "park", "a", "--why", "later")
    (event,) = [e for _, e in read(world.layout) if e["event"] == "item_held"]
    assert (event["uid"], event["by"], event["why"]) == (uid, "alice", "later")
    assert world.cells(uid)["1.end"]["by"] == "alice"


def test_a_command_leaves_no_trace_of_itself(world: World) -> None:
    world.add(id="a")
    ctl(world.layout.root, "park", "a")
    assert list(world.layout.presence.iterdir()) == []
    assert list((world.layout.queue / "tmp").iterdir()) == []


# ---- the pool --------------------------------------------------------------------------------------------------------


def test_pause_and_resume_are_touch_files_that_everybody_reads(world: World) -> None:
    root, control = world.layout.root, world.layout.control
    world.layout.config.write_text(
        "v: 1\nprojects: {app: {path: ../app}}\nagents: {sh: {adapter: command, argv: [sh]}}\n"
    )
    world.layout.agent("agent-1").mkdir()
    assert ctl(root, "pause").out == "paused: everything\n"
    assert ctl(root, "pause", "agent-1").code == 0
    assert ctl(root, "pause", "--project", "app").out == "paused: everything, agent-1, project app\n"
    assert {x.name for x in control.iterdir()} == {"pause", "pause.agent-1", "pause.project.app"}
    assert ctl(root, "resume", "agent-1").out == "still paused: everything, project app\n"
    assert ctl(root, "resume").out == "nothing is paused any more\n"
    assert list(control.iterdir()) == []


def test_a_pause_of_nobody_names_who_there_is(world: World) -> None:
    world.layout.config.write_text("v: 1\n")
    for args in (["agent-9"], ["--project", "web"], ["../../x"]):
        said = ctl(world.layout.root, "pause", *args)
        assert said.code == 3
        assert "there is: none" in said.err


def test_drain_and_stop_without_a_coordinator_are_a_conflict_and_leave_no_wish(world: World) -> None:
    for act in ("drain", "stop"):
        said = ctl(world.layout.root, act)
        assert said.code == 4
        assert "harnessctl reap" in said.err
    assert list(world.layout.control.iterdir()) == []


def test_cancel_of_what_is_finished_at_this_moment_says_what_became_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found ready, archived before the act: "there is no such item" would be wrong."""
    uid = world.add(id="a")
    with Desk(world.layout) as desk:
        find = desk.view.find

        def slow(name: str) -> Seen:
            found = find(name)
            world.attempt(uid, Outcome.DONE)
            world.finish(uid)
            return found

        monkeypatch.setattr(desk.view, "find", slow)
        with pytest.raises(ConflictError, match="it is done already"):
            acts.cancel(desk, "a")


def test_boost_of_what_is_not_admitted_yet_is_to_be_tried_again(world: World) -> None:
    """The coordinator would take the wish for one of an item that is over, and remove it."""
    world.drop("a.json")
    (home,) = world.take()
    assert ctl(world.layout.root, "boost", home).code == 75
