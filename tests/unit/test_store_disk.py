"""The operations as system calls: durability, tickets, the ballast, errors that end the process."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from harness.errors import StoreError
from harness.layout import Layout
from harness.model import End, Outcome
from harness.store import attempts, ops
from harness.store.cells import publish
from harness.store.disk import BALLAST_BYTES, is_locked
from harness.store.ops import Linked, Moved
from tests.stores import World, end_record


@pytest.fixture
def durable(layout: Layout) -> Iterator[World]:
    made = World(layout, durable=True)
    yield made
    made.close()


def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every fsync from now on."""
    made: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        made.append("fsync")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return made


def test_power_durability_syncs_the_cell_and_its_folder_twice(
    durable: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = durable.add(id="a")
    made = calls(monkeypatch)
    durable.run(publish(durable.me, "end", end_record(1, Outcome.DONE), f"queue/open/{uid}/1.end"))
    assert len(made) == 3


def test_process_durability_syncs_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = calls(monkeypatch)
    uid = world.add(id="a")
    world.attempt(uid, Outcome.DONE)
    world.finish(uid)
    world.drop("plan.json", [{"prompt": "1"}])
    world.admit_all()
    assert made == []


def test_no_descriptor_is_left_open_by_a_whole_life(durable: World) -> None:
    before = len(os.listdir("/proc/self/fd"))
    uid = durable.add(id="a")
    durable.attempt(uid, Outcome.FAILED)
    durable.attempt(uid, Outcome.DONE)
    durable.finish(uid)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_failed_fsync_ends_the_process_and_is_not_tried_again(
    durable: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def fail(fd: int) -> None:
        tries.append(fd)
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="I/O error"):
        durable.run(publish(durable.me, "x", end_record(1, Outcome.DONE), "queue/open/1.end"))
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EEXIST, Linked.EXISTS),
        (errno.ENOENT, Linked.GONE),
        (errno.EIO, Linked.UNKNOWN),
        (errno.ESTALE, Linked.UNKNOWN),
    ],
)
def test_each_answer_of_link_has_its_meaning(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int, expected: Linked
) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    assert world.disk.do_link("queue/tmp/x", "queue/open/y") is expected


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMLINK, errno.EROFS, errno.EACCES])
def test_an_error_that_the_protocol_does_not_name_ends_the_process(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    uid = world.add(id="a")
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OSError, match=os.strerror(number)):
        world.claim(uid)


def test_a_rename_onto_something_is_told_from_a_rename_of_nothing(world: World) -> None:
    for name in ("a", "b"):
        (world.layout.queue / "open" / name).mkdir()
        (world.layout.queue / "open" / name / "item.json").touch()
    assert world.disk.do_rename("queue/open/nobody", "queue/open/c") is Moved.GONE
    assert world.disk.do_rename("queue/open/a", "queue/open/b") is Moved.EXISTS
    assert world.disk.do_rename("queue/open/a", "queue/open/c") is Moved.OK


def test_a_torn_record_names_its_place_and_the_remedy(world: World) -> None:
    (world.layout.queue / "open" / "1.end").write_bytes(b'{"v": 1, "n')
    with pytest.raises(StoreError, match=r"end is torn.*\n.*harnessctl fsck") as error:
        world.disk.do_read("queue/open/1.end", End)
    assert error.value.where == "queue/open/1.end"


def test_a_large_record_is_read_whole(world: World) -> None:
    uid = world.add(id="a", prompt="x" * 300_000)
    assert len(world.claim(uid).item.prompt) == 300_000


# ---- tickets ---------------------------------------------------------------------------------------------------------


def test_a_beat_moves_the_time_of_the_claim_on_even_when_the_clock_stands(world: World) -> None:
    uid = world.add(id="a")
    owned = world.claim(uid)
    path = world.layout.queue / "open" / uid / "1.claim"
    times = [path.stat().st_mtime_ns]
    for _ in range(3):
        world.disk.beat(owned.ticket)
        times.append(path.stat().st_mtime_ns)
    world.clock.jump(-1e6)
    world.disk.beat(owned.ticket)
    times.append(path.stat().st_mtime_ns)
    assert times == sorted(set(times))


def test_a_ticket_is_free_when_its_process_is_gone_and_not_before(world: World) -> None:
    uid = world.add(id="a")
    proc = world.proc(attempts.claim(world.actor("agent-1"), uid))
    proc.go()
    with (world.layout.queue / "open" / uid / "1.claim").open() as f:
        assert is_locked(f.fileno())
        proc.kill()
        assert not is_locked(f.fileno())


def test_an_open_and_closed_reader_does_not_drop_the_lock(world: World) -> None:
    """POSIX locks would be lost by any close of the file in the process; OFD locks are not."""
    uid = world.add(id="a")
    world.claim(uid)
    path = world.layout.queue / "open" / uid / "1.claim"
    path.open().close()
    with path.open() as f:
        assert is_locked(f.fileno())


def test_a_ticket_is_not_inherited_by_programs_that_we_start(world: World) -> None:
    uid = world.add(id="a")
    owned = world.claim(uid)
    assert not os.get_inheritable(world.disk._tickets[owned.ticket])


# ---- the ballast -----------------------------------------------------------------------------------------------------


def full_disk(monkeypatch: pytest.MonkeyPatch, ballast: World) -> None:
    """write(2) says ENOSPC until the ballast is thrown away."""
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if ballast.disk._ballast is not None:
            real(fd, bytes(data)[:5])  # a short write first, as on a real disk
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)


def test_an_end_is_recorded_on_a_full_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = world.add(id="a")
    owned = world.claim(uid)
    world.disk.keep_ballast("agent-1.1.x")
    assert (world.layout.queue / "tmp" / "agent-1.1.x.ballast").stat().st_size == BALLAST_BYTES
    full_disk(monkeypatch, world)
    world.end(owned, Outcome.DONE)
    assert world.cells(uid)["1.end"]["outcome"] == "done"


def test_without_a_ballast_a_full_disk_ends_the_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    uid = world.add(id="a")
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space left"):
        world.claim(uid)


def test_a_ballast_leaves_with_its_disk(world: World) -> None:
    other = world.new_disk()
    other.keep_ballast("agent-1.1.x")
    other.close()
    assert os.listdir(world.layout.queue / "tmp") == []


def test_each_operation_yields_one_tuple() -> None:
    step = ops.rename("a", "b")
    assert next(step) == ("rename", "a", "b")
    with pytest.raises(StopIteration) as stop:
        step.send(Moved.OK)
    assert stop.value.value is Moved.OK
