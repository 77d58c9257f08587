"""Which files in the drop box are ready, which wait, which are no drops: half-written, hostile, strange."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from harness.store.admission import raw_name, take
from harness.store.dropbox import Writer, writer_of
from harness.store.drops import Context
from harness.store.fsck import check
from harness.store.setup import lease_works
from tests.stores import World

GOOD = b'{"prompt": "do it"}'


def rejected(world: World) -> list[str]:
    """All reasons, after every quiet window."""
    return [reason for admission in world.admit_all() for reason in admission.rejected]


# ---- written, copied, renamed, edited --------------------------------------------------------------------------------


def test_a_whole_json_drop_is_ready_at_once(world: World) -> None:
    world.drop("a.json")
    assert world.box.ready() == ("a.json",)


def test_half_a_json_drop_waits_and_is_ready_when_it_is_whole(world: World) -> None:
    path = world.drop("a.json", GOOD[:-4])
    assert world.box.ready() == ()
    assert world.box.pending == 1
    path.write_bytes(GOOD)
    assert world.box.ready() == ("a.json",)


def test_a_json_drop_that_stays_broken_is_taken_after_the_grace_time_and_rejected(world: World) -> None:
    world.drop("a.json", GOOD[:-4])
    assert world.box.ready() == ()
    world.clock.advance(1.9)
    assert world.box.ready() == ()
    world.clock.advance(0.2)
    assert world.box.ready() == ("a.json",)
    assert "is not valid JSON" in rejected(world)[0]


def test_the_grace_time_starts_anew_with_each_change(world: World) -> None:
    path = world.drop("a.json", GOOD[:3])
    world.box.ready()
    world.clock.advance(1.9)
    path.write_bytes(GOOD[:7])
    assert world.box.ready() == ()
    world.clock.advance(1.9)
    assert world.box.ready() == ()


@pytest.mark.parametrize("name", ["a.jsonl", "a.yaml", "a.yml"])
def test_what_can_be_valid_when_half_written_needs_a_quiet_window(world: World, name: str) -> None:
    path = world.drop(name, b'{"prompt": "one"}\n')
    assert world.box.ready() == ()
    world.clock.advance(1.9)
    path.write_bytes(b'{"prompt": "one"}\n{"prompt": "two"}\n')
    assert world.box.ready() == ()
    world.clock.advance(1.9)
    assert world.box.ready() == ()
    world.clock.advance(0.2)
    assert world.box.ready() == (name,)


def test_a_jump_of_the_wall_clock_ends_no_quiet_window(world: World) -> None:
    world.drop("a.jsonl", GOOD)
    world.box.ready()
    world.clock.jump(1e6)
    assert world.box.ready() == ()


def test_a_drop_that_was_renamed_in_needs_no_quiet_window(world: World) -> None:
    if not lease_works(world.layout):
        pytest.skip("this file system has no leases")
    outside = world.layout.root / "b.jsonl"
    outside.write_bytes(GOOD)
    outside.rename(world.layout.queue / "b.jsonl")
    world.box.arrived_whole("b.jsonl")
    assert world.box.ready() == ("b.jsonl",)


def test_a_drop_that_was_renamed_in_while_somebody_writes_it_still_waits(world: World) -> None:
    if not lease_works(world.layout):
        pytest.skip("this file system has no leases")
    path = world.drop("b.jsonl", GOOD)
    world.box.arrived_whole("b.jsonl")
    with path.open("ab"):
        assert world.box.ready() == ()
    assert world.box.ready() == ("b.jsonl",)


def test_a_writer_is_seen_by_the_kernel(world: World) -> None:
    if not lease_works(world.layout):
        pytest.skip("this file system has no leases")
    path = world.drop("a.json")
    with path.open("rb") as reader:
        assert writer_of(reader.fileno()) is Writer.NONE
        with path.open("ab"):
            assert writer_of(reader.fileno()) is Writer.SOMEBODY
        assert writer_of(reader.fileno()) is Writer.NONE


def test_the_writer_of_a_pipe_cannot_be_told() -> None:
    r, w = os.pipe()
    try:
        assert writer_of(r) is Writer.UNKNOWN
    finally:
        os.close(r)
        os.close(w)


def test_a_drop_that_vanishes_is_forgotten(world: World) -> None:
    path = world.drop("a.json", GOOD[:3])
    world.box.ready()
    path.unlink()
    assert world.box.ready() == ()
    assert world.box.pending == 0


def test_an_edit_by_rename_after_the_take_is_another_drop(world: World) -> None:
    world.drop("a.json", {"prompt": "old"})
    (first,) = world.take()
    world.drop("a.json", {"prompt": "new"})
    (second,) = world.take()
    world.admit(first)
    world.admit(second)
    assert [world.cells(uid)["item.json"]["prompt"] for uid in (first, second)] == ["old", "new"]
    assert [world.cells(uid)["item.json"]["id"] for uid in (first, second)] == ["a", "a-2"]


# ---- what is no drop -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".hidden.json", "_draft.json", "FORMAT", "README.md"])
def test_private_names_and_ours_are_not_even_mentioned(world: World, name: str) -> None:
    (world.layout.queue / name).write_bytes(GOOD)
    assert world.box.ready() == ()
    assert world.box.ignored == {}


def test_what_cannot_be_a_drop_is_ignored_with_the_reason(world: World) -> None:
    queue = world.layout.queue
    secret = world.layout.root / "secret.json"
    secret.write_bytes(GOOD)
    (queue / "link.json").symlink_to(secret)
    (queue / "dangling.json").symlink_to("nowhere")
    (queue / "folder.json").mkdir()
    os.mkfifo(queue / "fifo.json")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(queue, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{here}/socket.json")
        finally:
            os.close(here)
        (queue / "notes.txt").write_text("hello")
        assert world.box.ready() == ()
        world.clock.advance(100)
        assert world.box.ready() == ()
    assert {name: why.split(";")[0] for name, why in world.box.ignored.items()} == {
        "link.json": "is a symbolic link",
        "dangling.json": "is a symbolic link",
        "folder.json": "is a folder",
        "fifo.json": "is a FIFO",
        "socket.json": "is a socket",
        "notes.txt": "is not .json, .jsonl, .yaml, .yml",
    }
    assert secret.read_bytes() == GOOD


# ---- hostile ---------------------------------------------------------------------------------------------------------


def test_a_sparse_terabyte_is_rejected_without_being_read(world: World) -> None:
    path = world.drop("big.json", b"")
    try:
        os.truncate(path, 1 << 40)
    except OSError:
        pytest.skip("this file system cannot hold a sparse terabyte")
    assert "is larger than 16 MiB" in rejected(world)[0]
    (raw,) = world.layout.queue.glob("rejected/*/raw.big.json")
    assert raw.stat().st_size == 1 << 40
    raw.unlink()


def test_a_drop_that_nobody_may_read_is_rejected_with_that_reason(world: World) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    world.drop("a.json").chmod(0)
    assert "make it readable" in rejected(world)[0]


def test_a_link_that_takes_the_place_of_a_drop_is_not_followed(world: World) -> None:
    """Between the look and the rename somebody replaces the file."""
    secret = world.layout.root / "secret.json"
    secret.write_bytes(GOOD)
    path = world.drop("a.json")
    taking = world.proc(take()).before("rename")
    path.unlink()
    path.symlink_to(secret)
    ((home, _),) = taking.go()
    assert "cannot be read" in world.admit(home).rejected[0]
    assert secret.read_bytes() == GOOD


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_something_else_in_the_place_of_a_drop_is_rejected(world: World, kind: str) -> None:
    path = world.drop("a.json")
    taking = world.proc(take()).before("rename")
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    ((home, _),) = taking.go()
    assert "is not a regular file" in world.admit(home).rejected[0]


STRANGE = [
    b"-rf.json",
    b"a b.json",
    b"line\nbreak.json",
    b"\xff\xfe.json",
    b"\x1b[31mred.json",
    b"x" * 250 + b".json",
    "é".encode() * 125 + b".json",
    b"$(id).json",
    b"%2e%2e.json",
    b"~.json",
    b"con.json",
]


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_file_name_becomes_an_item_with_a_plain_uid(world: World, name: bytes) -> None:
    (world.layout.queue / os.fsdecode(name)).write_bytes(GOOD)
    (admitted,) = world.admit_all()
    ((uid, shown, _),) = admitted.items
    assert uid.isascii()
    assert all(c.isalnum() or c == "-" for c in uid)
    assert shown.isprintable()
    assert json.loads((world.layout.queue / "open" / uid / "item.json").read_text())["drop"]
    assert world.claim(uid).n == 1


def test_the_name_of_a_drop_survives_in_its_folder(world: World) -> None:
    world.drop("fix login.json")
    (home,) = world.take()
    assert os.listdir(world.layout.queue / "incoming" / home) == ["raw.fix login.json"]
    assert home.startswith("fix-login-")


@pytest.mark.parametrize("name", ["x" * 250 + ".json", "é" * 125 + ".yaml", "\udcff" * 249 + ".jsonl"])
def test_a_name_that_is_too_long_for_its_prefix_keeps_its_suffix(name: str) -> None:
    raw = raw_name(name)
    assert len(os.fsencode(raw)) <= 255
    assert Path(raw).suffix == Path(name).suffix


IDS = [
    "../../x",
    "/etc/passwd",
    "..",
    ".",
    "a/b",
    "-rf",
    "%00",
    "CON",
    "x" * 200,
    "refs/heads/main",
    "日本語",
    "uid\\n",
]


@pytest.mark.parametrize("name", IDS)
def test_no_path_is_made_of_an_id(world: World, name: str) -> None:
    before = sorted(p.name for p in world.layout.root.iterdir())
    uid = world.add(id=name) if "/" not in name and len(name) < 100 and name not in (".", "..") else None
    if uid is None:
        world.drop("x.json", {"prompt": "p", "id": name})
        (admitted,) = world.admit_all()
        uid = admitted.items[0][0]
    assert world.cells(uid)["item.json"]["id"] == name
    assert sorted(p.name for p in world.layout.root.iterdir()) == before
    assert {p.parent.name for p in world.layout.queue.glob("*/*/item.json")} == {uid}


def test_forty_hostile_drops_at_once_leave_the_store_whole(world: World) -> None:
    for k, name in enumerate(STRANGE):
        (world.layout.queue / os.fsdecode(name)).write_bytes(GOOD if k % 2 else b"\xff\0" * k)
    deep = b"[" * 100_000 + b"]" * 100_000
    for k, raw in enumerate(
        [deep, b"", b"null", b"\0" * 10_000, b"[]", b'{"a":' * 50_000, b"\xff\xfe", b"{}"]
    ):
        world.drop(f"bad{k}.json", raw)
        world.drop(f"bad{k}.yaml", raw[:5000])
        world.drop(f"bad{k}.jsonl", raw)
    admitted = world.admit_all()
    assert len(admitted) == len(STRANGE) + 24
    assert all(a.items or a.rejected for a in admitted)
    assert sorted(p.name for p in world.layout.queue.iterdir() if p.is_file()) == ["FORMAT"]
    assert [v for v in check(world.disk) if not v.harmless] == []


def test_a_change_of_the_limit_counts_from_the_next_look(world: World) -> None:
    world.drop("a.json", json.dumps({"prompt": "x" * 3000}))
    world.context = Context(projects={"app": ("claude",)}, agents=("claude",), max_bytes=1 << 10)
    assert "is larger than" in rejected(world)[0]
