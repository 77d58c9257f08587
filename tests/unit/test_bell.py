from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.bell import Bell
from tests.support import line, python, until


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[Bell]:
    with Bell(tmp_path / "bell") as bell:
        yield bell


def test_ringing_where_nobody_waits_is_no_error(tmp_path: Path) -> None:
    assert not Bell(tmp_path / "bell").ring()
    os.mkfifo(tmp_path / "bell")
    assert not Bell(tmp_path / "bell").ring()
    assert not Bell(tmp_path / "no" / "bell").ring()


def test_a_ring_before_the_wait_is_not_lost_once_the_bell_is_open(bell: Bell) -> None:
    bell.open()
    assert Bell(bell.path).ring()
    assert bell.wait(5) == {bell.fileno()}
    assert bell.take()
    assert not bell.take()
    assert bell.wait(0) == frozenset()


def test_a_wait_without_a_ring_ends_with_its_time(bell: Bell) -> None:
    assert bell.wait(0.01) == frozenset()


def test_drain_takes_all_rings(bell: Bell) -> None:
    bell.open()
    for _ in range(5):
        assert Bell(bell.path).ring()
    assert bell.drain() == 5
    assert bell.drain() == 0


def test_rings_that_nobody_answers_do_not_pile_up(bell: Bell) -> None:
    bell.open()
    assert all(Bell(bell.path).ring() for _ in range(100_000 // 100))
    assert bell.drain() <= 64


def test_other_descriptors_end_a_wait_too(bell: Bell) -> None:
    read, write = os.pipe()
    try:
        assert bell.wait(0, [read, read]) == frozenset()
        os.write(write, b"x")
        assert bell.wait(5, [read]) == {read}
        assert bell.wait(0) == frozenset()  # not watched any longer
    finally:
        os.close(read)
        os.close(write)


def test_the_bell_can_be_part_of_another_poll(bell: Bell) -> None:
    poll = select.poll()
    poll.register(bell, select.POLLIN)
    Bell(bell.path).ring()
    assert poll.poll(5000)


def test_a_bell_that_was_removed_is_made_again_with_the_next_wait(bell: Bell) -> None:
    bell.open()
    bell.path.unlink()
    assert bell.wait(0) == frozenset()
    assert Bell(bell.path).ring()
    assert bell.wait(5)


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling"])
def test_what_is_no_fifo_is_put_aside_and_never_rung(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bell"
    other = tmp_path / "other"
    match kind:
        case "file":
            path.write_text("text")
        case "folder":
            path.mkdir()
        case "link":
            other.write_text("text")
            path.symlink_to(other)
        case _:
            path.symlink_to(other)
    assert not Bell(path).ring()
    with Bell(path) as bell:
        bell.open()
        assert stat.S_ISFIFO(path.lstat().st_mode)
        assert Bell(path).ring()
    if kind == "file":
        assert (tmp_path / f"bell.odd.{os.getpid()}").read_text() == "text"
    if kind == "link":
        assert other.read_text() == "text"


WAITER = """
import sys
from pathlib import Path
from harness.bell import Bell
bell = Bell(Path(sys.argv[1]))
bell.open()
print("open", flush=True)
bell.wait(None)
print("woken", flush=True)
bell.take()
sys.stdin.read()
"""


def asleep(pid: int) -> bool:
    """In epoll_wait, as the kernel shows it to root and to the owner; any sleep where it does not."""
    try:
        called = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    except OSError:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
    return called in ("232", "281", "22")  # epoll_wait, epoll_pwait (x86-64, arm64)


@pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux")
def test_one_ring_wakes_one_of_many_who_wait(tmp_path: Path) -> None:
    path = tmp_path / "bell"
    with ExitStack() as stack:
        waiters = [stack.enter_context(python(WAITER, str(path))) for _ in range(4)]
        for waiter in waiters:
            assert line(waiter) == "open"
        for waiter in waiters:
            until(lambda pid=waiter.pid: asleep(pid), what="waits at the bell")  # type: ignore[misc]
        out = {w.stdout.fileno(): w for w in waiters if w.stdout}
        for rung in range(1, 5):
            assert Bell(path).ring()
            (woken, *more), _, _ = select.select(list(out), [], [], 10)
            assert not more, f"ring {rung} woke several"
            assert line(out.pop(woken)) == "woken"
