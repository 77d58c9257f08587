"""The watch on the drop box: what wakes the coordinator, and what must not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.bell import Bell
from harness.coordinator.drops import DropWatch
from harness.layout import Layout
from harness.store.dropbox import DropBox
from tests.stores import CONTEXT
from tests.support import FakeClock, make_root, until

IN_MOVED_FROM = 0x40


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "root")


@pytest.fixture
def bell(layout: Layout) -> Iterator[Bell]:
    with Bell(layout.bell("coordinator")) as bell:
        bell.open()
        yield bell


def watch(layout: Layout, bell: Bell) -> DropWatch:
    return DropWatch(layout, bell, DropBox(layout, FakeClock(), lambda: CONTEXT))


def masks() -> list[int]:
    """What this process has asked inotify for (proc_pid_fdinfo(5))."""
    found = []
    for path in Path("/proc/self/fdinfo").iterdir():
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        found += [int(line.split("mask:")[1].split()[0], 16) for line in lines if line.startswith("inotify ")]
    return found


def rung(bell: Bell) -> bool:
    return bool(bell.wait(0)) and bell.drain() > 0


def test_a_file_that_is_renamed_in_rings_and_counts_as_whole(layout: Layout, bell: Bell) -> None:
    with watch(layout, bell) as it:
        hidden = layout.queue / ".a.tmp"
        hidden.write_text("{}")
        hidden.rename(layout.queue / "a.json")
        until(lambda: rung(bell))
        assert list(it._arrived) == ["a.json"]


def test_a_file_that_is_written_in_place_rings_and_does_not_count_as_whole(
    layout: Layout, bell: Bell
) -> None:
    with watch(layout, bell) as it:
        (layout.queue / "a.json").write_text("{}")
        until(lambda: rung(bell))
        assert list(it._arrived) == []


def test_a_control_file_rings(layout: Layout, bell: Bell) -> None:
    with watch(layout, bell):
        (layout.control / "drain").touch()
        until(lambda: rung(bell))


def test_what_a_program_writes_under_a_hidden_name_wakes_nobody(layout: Layout, bell: Bell) -> None:
    with watch(layout, bell) as it:
        (layout.queue / ".a.tmp").write_text("{}")
        (layout.queue / ".b.tmp").write_text("{}")
        os.rename(layout.queue / ".b.tmp", layout.queue / "b.json")
        until(lambda: list(it._arrived) == ["b.json"])  # in order: all before it was seen
        until(lambda: bell.wait(0))
        assert bell.drain() == 1


def test_a_file_that_leaves_the_drop_box_is_not_asked_for(layout: Layout, bell: Bell) -> None:
    """watchdog keeps IN_MOVED_FROM, and every event behind it, for half a second: each of our takes is one."""
    with watch(layout, bell):
        asked = until(lambda: masks() if len(masks()) >= 2 else [])
        assert not [hex(m) for m in asked if m & IN_MOVED_FROM]
