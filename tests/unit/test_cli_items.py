"""Looking at items: items, show, events, logs."""

from __future__ import annotations

import json
import os

import pytest

from harness.clock import SystemClock
from harness.events import EventStream
from harness.logs import Event
from harness.model import Outcome
from tests.cli import ctl
from tests.stores import World


def test_items_lists_what_is_not_over_and_with_all_everything(world: World) -> None:
    world.add(id="a")
    over = world.add(id="b", commit="none")
    world.attempt(over, Outcome.DONE)
    world.finish(over)
    root = world.layout.root
    assert [x["id"] for x in ctl(root, "items", "--json").data["items"]] == ["a"]
    everything = ctl(root, "items", "--all", "--json").data["items"]
    assert {x["id"]: x["state"] for x in everything} == {"a": "ready", "b": "done"}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--state", "parked"], {"a"}),
        (["--state", "parked", "--state", "ready"], {"a", "b", "c"}),
        (["--convoy", "login"], {"b"}),
        (["--label", "team=web"], {"c"}),
        (["--project", "app"], {"a", "b", "c"}),
        (["--project", "other"], set()),
        (["--convoy", "login", "--state", "parked"], set()),
    ],
)
def test_all_filters_that_are_given_must_hold(world: World, options: list[str], found: set[str]) -> None:
    world.hold(world.add(id="a"))
    world.add(id="b", convoy="login")
    world.add(id="c", labels={"team": "web"})
    listed = ctl(world.layout.root, "items", "--json", *options).data["items"]
    assert {x["id"] for x in listed} == found


def test_a_limit_says_that_there_is_more(world: World) -> None:
    for k in range(3):
        world.add(id=f"x{k}")
    said = ctl(world.layout.root, "items", "--limit", "2")
    assert len(said.out.splitlines()) == 3  # with the head
    assert "--limit 0" in said.err
    assert ctl(world.layout.root, "items", "--json", "--limit", "2").data["truncated"] is True


def test_a_rejected_drop_is_listed_with_its_reasons(world: World) -> None:
    world.drop("bad.json", {"promt": "x"})
    world.admit_all()
    (found,) = ctl(world.layout.root, "items", "--state", "rejected", "--json").data["items"]
    assert "did you mean 'prompt'" in found["reason"]


def test_show_as_json_has_the_keys_that_are_kept_for_ever(world: World) -> None:
    uid = world.add(id="fix")
    world.attempt(uid, Outcome.FAILED)
    world.submit(uid)
    data = ctl(world.layout.root, "show", "fix", "--json").data
    assert (data["schema_version"], data["id"], data["uid"], data["state"]) == (1, "fix", uid, "merging")
    kept = {"n", "agent", "claimed_at", "ended_at", "outcome", "reason", "sha", "verdict"}
    assert all(kept <= one.keys() for one in data["attempts"])
    first, second = data["attempts"]
    assert (first["n"], first["outcome"], first["sha"], first["verdict"]) == (1, "failed", None, None)
    assert (second["n"], second["outcome"], second["sha"]) == (2, "done", f"sha-{uid}")


def test_show_finds_by_id_by_uid_and_by_prefix(world: World) -> None:
    uid = world.add(id="fix-login")
    for name in ("fix-login", uid, "fix-l"):
        assert ctl(world.layout.root, "show", name, "--json").data["uid"] == uid


def test_show_of_a_waiting_item_says_what_it_waits_for(world: World) -> None:
    world.add(id="b", depends_on=["schema"])
    data = ctl(world.layout.root, "show", "b", "--json").data
    assert (data["state"], data["waits_for"]) == ("waiting", ["schema (unknown id)"])
    assert "schema" in ctl(world.layout.root, "show", "b").out


def test_control_characters_of_strangers_never_reach_the_terminal(world: World) -> None:
    uid = world.add(id="evil", title="\x1b]0;owned\x07title", prompt="a\x1b[2Jb\rc\u202ed")
    world.hold(uid)
    root = world.layout.root
    for verb in (["show", "evil"], ["items"], ["status"]):
        said = ctl(root, *verb)
        for character in "\x1b\x07\r\u202e":
            assert character not in said.out + said.err


def test_a_drop_whose_name_is_not_utf_8_is_shown(world: World) -> None:
    with open(os.path.join(os.fsencode(world.layout.queue), b"caf\xe9.json"), "w") as file:
        json.dump({"prompt": "x"}, file)
    world.admit_all()
    root = world.layout.root
    (found,) = ctl(root, "items", "--json").data["items"]
    said = ctl(root, "show", found["uid"])
    assert said.code == 0
    assert "caf" in said.out
    assert ctl(root, "items").code == 0


# ---- events ----------------------------------------------------------------------------------------------------------


def emit(world: World, count: int) -> None:
    stream = EventStream(world.layout, SystemClock(), "test")
    for k in range(count):
        stream.emit(Event.ITEM_CLAIMED, uid=f"x-{k}", n=1)
    stream.close()


def test_events_shows_the_last_ones_in_order(world: World) -> None:
    emit(world, 5)
    lines = ctl(world.layout.root, "events", "-n", "2").out.splitlines()
    assert ["x-3" in lines[0], "x-4" in lines[1]] == [True, True]


def test_events_go_on_behind_a_cursor(world: World) -> None:
    emit(world, 3)
    first = [json.loads(x) for x in ctl(world.layout.root, "events", "--json").out.splitlines()]
    assert [e["uid"] for e in first] == ["x-0", "x-1", "x-2"]
    assert all(e["schema_version"] == 1 for e in first)
    rest = ctl(world.layout.root, "events", "--json", "--cursor", first[0]["cursor"]).out.splitlines()
    assert [json.loads(x)["uid"] for x in rest] == ["x-1", "x-2"]


def test_events_since_a_time(world: World) -> None:
    emit(world, 1)
    root = world.layout.root
    assert "x-0" in ctl(root, "events", "--since", "1h").out
    assert ctl(root, "events", "--since", "2999-01-01T00:00:00Z").out == ""
    said = ctl(root, "events", "--since", "yesterday")
    assert said.code == 2
    assert "10m" in said.err


def test_events_of_one_item(world: World) -> None:
    uid = world.add(id="a")
    emit(world, 1)
    stream = EventStream(world.layout, SystemClock(), "test")
    stream.emit(Event.ITEM_HELD, uid=uid, id="a")
    stream.close()
    assert ctl(world.layout.root, "events", "--item", "a").out.count("\n") == 1


# ---- logs ------------------------------------------------------------------------------------------------------------


def test_logs_shows_the_last_lines_also_of_the_file_before(world: World) -> None:
    logs = world.layout.logs
    (logs / "agent-1.log.1").write_text("one\ntwo\n")
    (logs / "agent-1.log").write_text("three\x1b[31m\n")
    said = ctl(world.layout.root, "logs", "agent-1", "-n", "2")
    assert said.out == "two\nthree\n"


def test_logs_of_nobody_names_who_has_some(world: World) -> None:
    (world.layout.logs / "agent-1.log").write_text("x\n")
    said = ctl(world.layout.root, "logs", "agent-7")
    assert said.code == 3
    assert "agent-1" in said.err
