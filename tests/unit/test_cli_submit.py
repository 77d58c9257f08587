"""New work: add and submit, without a coordinator and with one that answers."""

from __future__ import annotations

import json
import os
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.control import dropping, hearing, waiting
from harness.control.desk import Desk
from harness.control.dropping import Fate
from harness.layout import Layout
from harness.model import Outcome
from harness.store import admission, attempts
from tests.cli import ctl
from tests.stores import World
from tests.support import until

CONFIG = """\
v: 1
projects: {app: {path: ../app, agent: shell}}
agents: {shell: {adapter: command, argv: [sh, "{prompt_file}"]}}
"""


@pytest.fixture
def root(world: World) -> Path:
    world.layout.config.write_text(CONFIG)
    return world.layout.root


def drops(root: Path) -> dict[str, str]:
    return {x.name: x.read_text() for x in (root / "queue").iterdir() if x.is_file() and x.name != "FORMAT"}


def test_add_makes_one_drop_that_holds_all_that_was_said(root: Path) -> None:
    said = ctl(
        root, "add", "Fix", "the login", "--priority", "high", "--depends-on", "b", "--label", "team=web"
    )
    assert (said.code, said.out) == (0, "fix-the-login\n")
    assert "when a coordinator runs" in said.err
    ((name, text),) = drops(root).items()
    assert name == "fix-the-login.json"
    assert json.loads(text) == {
        "prompt": "Fix the login",
        "priority": "high",
        "depends_on": ["b"],
        "labels": {"team": "web"},
    }


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([""], "say what is to be done"),
        (["x", "--label", "team"], "not KEY=VALUE"),
        (["-"], "the text is empty"),
    ],
)
def test_add_refuses_what_says_nothing(root: Path, args: list[str], says: str) -> None:
    said = ctl(root, "add", *args, stdin=" \n")
    assert said.code == 2
    assert says in said.err
    assert not drops(root)


def test_submit_of_a_folder_says_that_it_is_one(root: Path) -> None:
    said = ctl(root, "submit", str(root))
    assert said.code == 2
    assert "is a folder" in said.err


def test_add_reads_the_prompt_from_standard_input(root: Path) -> None:
    assert ctl(root, "add", "-", "--id", "notes", stdin="line 1\nline 2\n").out == "notes\n"
    assert json.loads(drops(root)["notes.json"])["prompt"] == "line 1\nline 2\n"


def test_what_is_wrong_is_said_at_once_and_nothing_is_dropped(root: Path) -> None:
    said = ctl(root, "add", "x", "--project", "ap", "--priority", "11", "--agent", "shel")
    assert said.code == 1
    for part in ("did you mean 'app'", "priority", "did you mean 'shell'"):
        assert part in said.err
    assert drops(root) == {}


def test_a_drop_never_replaces_another_one(root: Path) -> None:
    ctl(root, "add", "same words")
    ctl(root, "add", "same words")
    assert sorted(drops(root)) == ["same-words-2.json", "same-words.json"]


def test_submit_keeps_the_name_of_the_file_and_its_bytes(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "Plan A.jsonl"
    file.write_text('{"id": "a", "prompt": "x"}\n{"prompt": "y"}\n')
    said = ctl(root, "submit", str(file))
    assert (said.code, said.out) == (0, "a\nPlan A-2\n")
    assert drops(root) == {"Plan A.jsonl": file.read_text()}
    assert file.exists()


def test_submit_reads_standard_input_in_the_format_that_is_named(root: Path) -> None:
    assert ctl(root, "submit", "-", "--format", "yaml", stdin="prompt: x\n").code == 0
    assert list(drops(root)) == ["stdin.yaml"]


def test_submit_of_a_file_that_says_nothing_of_its_kind_is_a_usage_error(root: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("{}")
    said = ctl(root, "submit", str(tmp_path / "notes.txt"))
    assert said.code == 2
    assert "--format" in said.err
    assert ctl(root, "submit", str(tmp_path / "none.json")).code == 3


def test_submit_names_line_and_column_of_what_is_wrong(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text('{\n "prompt": "x",\n "projet": "app"\n}')
    said = ctl(root, "submit", str(file))
    assert said.code == 1
    assert "line 3" in said.err
    assert "did you mean 'project'" in said.err


def test_one_bad_file_does_not_keep_the_others_out(root: Path, tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text('{"prompt": "x"}')
    (tmp_path / "bad.json").write_text("{}")
    said = ctl(root, "submit", str(tmp_path / "bad.json"), str(tmp_path / "good.json"), "--json")
    assert said.code == 1
    assert [d["state"] for d in said.data["drops"]] == ["rejected", "dropped"]
    assert list(drops(root)) == ["good.json"]


def test_a_file_whose_name_is_not_utf_8_can_be_submitted(root: Path, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.json"
    Path(os.fsdecode(path)).write_text('{"prompt": "x"}')
    said = ctl(root, "submit", os.fsdecode(path))
    assert said.code == 0
    assert os.listdir(os.fsencode(root / "queue")).count(b"caf\xe9.json") == 1


def test_a_drop_is_whole_and_durable_before_it_is_visible(root: Path, world: World) -> None:
    with Desk(Layout(root)) as desk:
        dropping.put(desk, "", "x.json", b'{"prompt": "x"}')
    assert not [x for x in (root / "queue").iterdir() if x.name.startswith(".")]
    assert world.take() != []


# ---- hearing of it ---------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(root: Path) -> Iterator[Desk]:
    with Desk(Layout(root)) as desk:
        yield desk


def fate(desk: Desk, world: World, name: str, content: object) -> dropping.Dropped:
    ticket = dropping.put(desk, "f", name, json.dumps(content).encode())
    assert hearing.fate_of(desk, ticket) is None
    world.admit_all()
    (found,) = hearing.follow(desk, [ticket], 10)
    return found


def test_an_admitted_drop_is_told_with_id_and_uid(desk: Desk, world: World) -> None:
    found = fate(desk, world, "a.json", {"prompt": "x"})
    assert found.fate is Fate.ADMITTED
    assert [(new.id, new.uid.rsplit("-", 1)[0]) for new in found.items] == [("a", "a")]


def test_an_admitted_batch_is_told_with_all_its_items(desk: Desk, world: World) -> None:
    found = fate(desk, world, "a.json", [{"id": "x", "prompt": "x"}, {"id": "y", "prompt": "y"}])
    assert found.fate is Fate.ADMITTED
    assert sorted(new.id for new in found.items) == ["x", "y"]


def test_a_waiting_item_is_admitted_too(desk: Desk, world: World) -> None:
    assert fate(desk, world, "a.json", {"prompt": "x", "depends_on": ["b"]}).fate is Fate.ADMITTED


def test_a_rejected_drop_is_told_with_all_its_reasons(desk: Desk, world: World) -> None:
    found = fate(desk, world, "a.json", {"priority": 11, "agent": "x"})
    assert found.fate is Fate.REJECTED
    assert len(found.reasons) == 3


def test_the_same_work_again_names_the_item_that_is_there(desk: Desk, world: World) -> None:
    first = fate(desk, world, "a.json", {"id": "a", "prompt": "x"})
    again = fate(desk, world, "b.json", {"id": "a", "prompt": "x"})
    assert again.fate is Fate.EXISTS
    assert again.items == first.items


def test_a_drop_that_nobody_takes_is_undecided_at_the_end(desk: Desk) -> None:
    ticket = dropping.put(desk, "f", "a.json", b'{"prompt": "x"}')
    (found,) = hearing.follow(desk, [ticket], 0.01)
    assert found.fate is Fate.DROPPED


def test_add_with_wait_follows_the_item_to_its_end(root: Path, world: World) -> None:
    """Another process admits, works and finishes meanwhile."""

    def work() -> None:
        until(lambda: drops(root), what="the drop")
        world.box = world.new_box()
        disk = world.new_disk()
        until(lambda: disk.run(admission.take()), what="taken")
        (home,) = disk.do_ls("queue/incoming") or ()
        said = disk.run(admission.admit(world.me, home, world.context, "2027-01-15"))
        uid = said.items[0][0]
        owned = world.claim(uid, disk=disk)
        world.end(owned, Outcome.DONE, disk=disk)
        disk.run(attempts.finish(uid))

    worker = threading.Thread(target=work)
    worker.start()
    try:
        said = ctl(root, "add", "x", "--commit", "none", "--wait", "--timeout", "60", "--json")
    finally:
        worker.join()
    assert said.code == 0, said.err
    assert [i["state"] for i in said.data["items"]] == ["done"]


def test_wait_says_1_for_a_parked_item_and_75_when_the_time_is_over(root: Path, world: World) -> None:
    world.hold(world.add(id="a"))
    world.add(id="b")
    assert ctl(root, "wait", "a").code == 1
    said = ctl(root, "wait", "b", "--timeout", "0")
    assert said.code == 75
    assert "still ready" in said.out
    assert ctl(root, "wait", "nobody").code == 3


# ---- wait, for what was just dropped -----------------------------------------------------------------------------------


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Steps of others, one for each time that the command would sleep; after the last one it must not sleep again."""

    def plan(*steps: Callable[[], object]) -> None:
        left = list(steps)
        calm = types.SimpleNamespace(sleep=lambda _: left.pop(0)())
        monkeypatch.setattr(hearing, "time", calm)
        monkeypatch.setattr(waiting, "time", calm)

    return plan


def finish_all(world: World) -> None:
    for uid in world.disk.do_ls("queue/open") or ():
        world.attempt(uid, Outcome.DONE)
        world.finish(uid)


@pytest.mark.parametrize(
    ("file", "content", "names", "waited"),
    [
        ("x.json", {"prompt": "p"}, ["x"], ["x"]),
        ("a.json", {"prompt": "p", "id": "fix"}, ["fix"], ["fix"]),
        ("a.json", {"prompt": "p", "id": "fix"}, ["a"], ["fix"]),
        ("plan.json", [{"prompt": "p", "id": "b"}, {"prompt": "p"}], ["b"], ["b"]),
        ("plan.json", [{"prompt": "p", "id": "b"}, {"prompt": "p"}], ["plan"], ["b", "plan-2"]),
        ("plan.json", [{"prompt": "p", "id": "b"}, {"prompt": "p"}], ["plan-2", "b"], ["b", "plan-2"]),
    ],
)
def test_wait_follows_a_drop_from_the_drop_box_to_its_end(
    root: Path,
    world: World,
    meanwhile: Callable[..., None],
    file: str,
    content: object,
    names: list[str],
    waited: list[str],
) -> None:
    items = content if isinstance(content, list) else [content]
    world.drop(file, content if len(items) > 1 else items[0])
    meanwhile(lambda: None, world.admit_all, lambda: finish_all(world))
    said = ctl(root, "wait", *names)
    assert said.code == 0, said.err
    assert sorted(line.split(":")[0] for line in said.out.splitlines()) == waited
    assert "no coordinator runs" in said.err


def test_wait_follows_a_drop_that_is_taken_and_not_decided(
    root: Path, world: World, meanwhile: Callable[..., None]
) -> None:
    world.drop("x.json", {"prompt": "p"})
    (home,) = world.take()
    meanwhile(lambda: world.admit(home), lambda: finish_all(world))
    assert ctl(root, "wait", "x").code == 0
    world.drop("y.json", {"prompt": "p"})
    (home,) = world.take()
    meanwhile(lambda: world.admit(home), lambda: finish_all(world))
    assert ctl(root, "wait", home).code == 0


def test_wait_for_a_drop_ends_with_75_when_nobody_takes_it_in_time(root: Path, world: World) -> None:
    world.drop("x.json", {"prompt": "p"})
    said = ctl(root, "wait", "x", "--timeout", "0")
    assert (said.code, said.out) == (75, "x: still incoming\n")


def test_wait_for_a_drop_that_is_rejected_says_why(
    root: Path, world: World, meanwhile: Callable[..., None]
) -> None:
    world.drop("x.json", {"prompt": "p", "agent": "nobody"})
    meanwhile(world.admit_all)
    said = ctl(root, "wait", "x")
    assert said.code == 1
    assert "x: rejected: " in said.out
    assert "nobody" in said.out


def test_wait_for_a_drop_that_is_taken_away_again_ends(
    root: Path, world: World, meanwhile: Callable[..., None]
) -> None:
    path = world.drop("x.json", {"prompt": "p"})
    meanwhile(path.unlink, *[lambda: None] * hearing.MISSES)
    said = ctl(root, "wait", "x")
    assert said.code == 3
    assert "taken out of the drop box" in said.err


def test_a_drop_is_newer_than_an_item_of_that_id_that_is_over_and_not_than_one_that_is_not(
    root: Path, world: World, meanwhile: Callable[..., None]
) -> None:
    world.add(id="x")
    world.drop("again.json", {"prompt": "other", "id": "x"})
    meanwhile(lambda: finish_all(world))
    assert ctl(root, "wait", "x", "--timeout", "5").code == 0  # the first x, which is not over
    said = ctl(root, "wait", "x", "--timeout", "0")
    assert (said.code, said.out) == (75, "x: still incoming\n")


def test_wait_for_a_name_that_nothing_has_says_so_at_once(root: Path, world: World) -> None:
    world.drop("y.json", b"{ not json")
    world.layout.config.write_text("v: 1\nworkers: many\n")
    assert ctl(root, "wait", "x").code == 3
