"""Admission as the coordinator runs it: what is said about each drop, what must wait, and what is swept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.config import load
from harness.coordinator.intake import Intake, context_of
from harness.events import EventStream, read
from harness.store.sweeping import EMPTY_S
from tests.stores import World


@pytest.fixture
def intake(world: World) -> Intake:
    events = EventStream(world.layout, world.clock, "coordinator")
    return Intake(world.me, world.disk, world.clock, events, lambda: world.context)


def said(world: World, kind: str) -> list[dict[str, object]]:
    return [e for _, e in read(world.layout) if e["event"] == kind]


def everything(world: World, intake: Intake) -> list[tuple[str, str, str]]:
    """Passes until nothing is taken any more, with time for quiet windows between them."""
    admitted = []
    for _ in range(20):
        admitted += intake.run()
        if not intake.more:
            world.clock.advance(5)
    return admitted


def test_a_drop_is_taken_admitted_and_said(world: World, intake: Intake) -> None:
    world.drop("a.json")
    ((uid, name, phase),) = intake.run()
    assert (name, phase) == ("a", "open")
    passes = [(intake.more, intake.run(), intake.more)]
    assert passes == [(True, [], False)]
    (taken,), (admitted,) = said(world, "drop_taken"), said(world, "item_admitted")
    assert (taken["name"], taken["uid"]) == ("a.json", uid)
    assert (admitted["uid"], admitted["id"], admitted["phase"]) == (uid, "a", "open")


def test_an_item_with_dependencies_waits(world: World, intake: Intake) -> None:
    world.drop("a.json", {"prompt": "x", "depends_on": ["b"]})
    assert [phase for _, _, phase in intake.run()] == ["waiting"]


def test_a_batch_is_admitted_item_by_item(world: World, intake: Intake) -> None:
    world.drop("plan.json", [{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y", "depends_on": ["a"]}])
    assert sorted((name, phase) for _, name, phase in intake.run()) == [("a", "open"), ("b", "waiting")]


def test_a_rejection_is_said_with_its_reasons(world: World, intake: Intake) -> None:
    world.drop("a.json", {"promt": "x"})
    assert everything(world, intake) == []
    (event,) = said(world, "item_rejected")
    assert event["name"] == "a.json"
    assert "did you mean 'prompt'" in str(event["reasons"])
    assert intake.pending == 0


def test_the_same_content_again_is_said_to_exist(world: World, intake: Intake) -> None:
    world.drop("a.json", {"id": "a", "prompt": "x"})
    ((uid, _, _),) = intake.run()
    world.drop("b.json", {"id": "a", "prompt": "x"})
    assert everything(world, intake) == []
    assert [e["exists"] for e in said(world, "item_rejected")] == [uid]


def test_a_file_that_is_not_finished_waits_and_is_counted(world: World, intake: Intake) -> None:
    path = world.drop("a.json", b'{"prompt"')
    assert intake.run() == []
    assert intake.pending == 1
    path.write_bytes(b'{"prompt": "x"}')
    assert [name for _, name, _ in intake.run()] == ["a"]
    intake.run()
    assert intake.pending == 0


def test_a_writer_that_outlives_the_taking_is_waited_for(world: World, intake: Intake) -> None:
    """Its descriptor follows the file into incoming/."""
    uid = "late-0000000000"
    home = world.layout.queue / "incoming" / uid
    home.mkdir()
    with (home / "raw.late.json").open("w") as f:
        f.write(json.dumps({"prompt": "x"}))
        f.flush()
        assert intake.run() == []
        assert intake.pending == 1
    assert [name for _, name, _ in intake.run()] == ["late"]
    intake.run()
    assert intake.pending == 0


def test_what_is_ignored_is_said_once_and_again_when_the_reason_changes(world: World, intake: Intake) -> None:
    (world.layout.queue / "link.json").symlink_to("/etc/passwd")
    for _ in range(3):
        intake.run()
    assert intake.ignored.keys() == {"link.json"}
    assert len(said(world, "drop_ignored")) == 1
    (world.layout.queue / "link.json").unlink()
    os.mkfifo(world.layout.queue / "link.json")
    intake.run()
    assert [str(e["reason"]) for e in said(world, "drop_ignored")][1] == "is a FIFO"
    (world.layout.queue / "link.json").unlink()
    intake.run()
    assert intake.ignored == {}


@pytest.mark.parametrize("name", [b"not-utf8-\xff.json", b"new\nline.json", b"\x1b[31m.json"])
def test_any_file_name_can_be_said(world: World, intake: Intake, name: bytes) -> None:
    (world.layout.queue / os.fsdecode(name)).write_text("{}")
    everything(world, intake)
    (event,) = said(world, "item_rejected")
    assert str(event["name"]).endswith(".json")
    assert str(event["name"]).encode("utf-8")  # no half of a surrogate pair


def test_a_drop_that_nobody_may_move_is_ignored_and_tried_again_later(
    world: World, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.drop("stuck.json")
    world.drop("good.json")
    rename = os.rename

    def refuse(source: str, target: str, **fds: int) -> None:
        if source == "queue/stuck.json":
            raise PermissionError(1, "Operation not permitted", source)
        rename(source, target, **fds)

    monkeypatch.setattr(os, "rename", refuse)
    assert [name for _, name, _ in everything(world, intake)] == ["good"]
    assert "cannot be moved" in intake.ignored["stuck.json"]
    assert len(os.listdir(world.layout.queue / "incoming")) == 0
    monkeypatch.setattr(os, "rename", rename)
    world.clock.advance(61)
    assert [name for _, name, _ in everything(world, intake)] == ["stuck"]
    assert intake.ignored == {}


# ---- what crashes leave ----------------------------------------------------------------------------------------------


def test_half_admitted_drops_are_finished_by_the_next_pass(world: World, intake: Intake) -> None:
    world.drop("a.json")
    (home,) = world.take()
    assert [uid for uid, _, _ in intake.run()] == [home]


def test_an_empty_folder_is_removed_when_it_belongs_to_nobody_any_more(world: World, intake: Intake) -> None:
    home = world.layout.queue / "incoming" / "a-0000000000"
    home.mkdir()
    now = world.clock.wall()
    os.utime(home, (now, now))
    intake.run()
    assert home.exists()
    world.clock.advance(EMPTY_S + 1)
    intake.run()
    assert not home.exists()


def test_a_folder_with_something_else_in_it_is_left(world: World, intake: Intake) -> None:
    home = world.layout.queue / "incoming" / "a-0000000000"
    home.mkdir()
    (home / "notes").write_text("a stranger's")
    world.clock.advance(1e9)
    intake.run()
    assert (home / "notes").exists()


# ---- what drafts are checked against ---------------------------------------------------------------------------------


def test_one_agent_is_everybodys_default_and_of_two_the_project_names_its_own(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    shell = {"adapter": "command", "argv": ["sh"]}
    projects = {"app": {"path": str(tmp_path)}}
    config.write_text(json.dumps({"v": 1, "projects": projects, "agents": {"one": shell}}))
    context = context_of(load(config))
    assert (context.projects, context.agents) == ({"app": ("one",)}, ("one",))
    projects["app"]["agent"] = "two"
    config.write_text(json.dumps({"v": 1, "projects": projects, "agents": {"one": shell, "two": shell}}))
    context = context_of(load(config))
    assert (context.projects, context.agents) == ({"app": ("two",)}, ("one", "two"))
