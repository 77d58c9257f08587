from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from harness import events, logs
from harness.errors import UsageError
from harness.events import EventStream, read
from harness.layout import Layout
from harness.logs import Event
from tests.support import FakeClock, line, python


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(logs, "_setup", logs._Setup(stream=stream))
    return stream


@pytest.fixture
def stream(layout: Layout, clock: FakeClock) -> Iterator[EventStream]:
    stream = EventStream(layout, clock, "agent-1")
    yield stream
    stream.close()


def today(layout: Layout) -> Path:
    return events.days(layout)[-1]


def numbers(layout: Layout, cursor: str | None = None) -> list[Any]:
    return [record["n"] for _, record in read(layout, cursor)]


def test_an_event_is_one_line_with_its_version_time_name_and_source(
    layout: Layout, stream: EventStream, log: io.StringIO
) -> None:
    stream.emit(Event.ITEM_CLAIMED, uid="u1", n=1, why=None)
    (text,) = today(layout).read_text().splitlines()
    assert json.loads(text) == {
        "v": 1,
        "ts": "2027-01-15T08:00:00.000Z",
        "event": "item_claimed",
        "source": "agent-1",
        "uid": "u1",
        "n": 1,
    }
    assert today(layout).name == "2027-01-15.jsonl"
    assert json.loads(log.getvalue())["event"] == "item_claimed"


def test_secrets_do_not_reach_the_stream_and_long_text_is_cut(layout: Layout, stream: EventStream) -> None:
    stream.emit(Event.GATE_FAILED, n=1, why="Bearer abcdefghijklmnopq", output="x" * 1_000_000)
    assert "abcdefghijklmnopq" not in today(layout).read_text()
    assert today(layout).stat().st_size < 10_000


def test_reading_with_a_cursor_goes_on_behind_its_event(
    layout: Layout, stream: EventStream, clock: FakeClock
) -> None:
    cursors = []
    for n in range(6):
        stream.emit(Event.ITEM_CLAIMED, n=n)
        clock.advance(86_400 / 2)
    cursors = [cursor for cursor, _ in read(layout)]
    assert len(events.days(layout)) == 3
    assert numbers(layout) == [0, 1, 2, 3, 4, 5]
    for n, cursor in enumerate(cursors):
        assert numbers(layout, cursor) == list(range(n + 1, 6))


def test_a_cursor_into_a_day_that_was_removed_goes_on_with_the_next(
    layout: Layout, stream: EventStream, clock: FakeClock
) -> None:
    stream.emit(Event.ITEM_CLAIMED, n=0)
    ((cursor, _),) = read(layout)
    clock.advance(86_400)
    stream.emit(Event.ITEM_CLAIMED, n=1)
    events.days(layout)[0].unlink()
    assert numbers(layout, cursor) == [1]


def test_a_cursor_behind_the_end_of_its_file_reads_rather_twice_than_not_at_all(
    layout: Layout, stream: EventStream
) -> None:
    stream.emit(Event.ITEM_CLAIMED, n=0)
    assert numbers(layout, f"{today(layout).stem}:99999") == [0]


@pytest.mark.parametrize("cursor", ["x", "2026-01-31", "2026-01-31:-1", "../../x:1"])
def test_a_malformed_cursor_is_an_error_that_shows_what_one_looks_like(layout: Layout, cursor: str) -> None:
    with pytest.raises(UsageError) as raised:
        list(read(layout, cursor))
    assert "2026-01-31:1024" in str(raised.value)


def test_a_line_in_the_making_is_read_when_it_is_whole(layout: Layout, stream: EventStream) -> None:
    stream.emit(Event.ITEM_CLAIMED, n=0)
    whole = today(layout).read_bytes()
    with today(layout).open("ab", buffering=0) as other:
        other.write(whole[:20])
        assert numbers(layout) == [0]
        other.write(whole[20:])
        assert numbers(layout) == [0, 0]


def test_a_torn_last_line_costs_no_later_event(layout: Layout, clock: FakeClock, stream: EventStream) -> None:
    stream.emit(Event.ITEM_CLAIMED, n=0)
    with today(layout).open("ab") as file:
        file.write(b'{"v": 1, "ts": "2027-01-')  # power loss
    stream.emit(Event.ITEM_CLAIMED, n=1)  # its file was open already: glued to the torn line
    other = EventStream(layout, clock, "agent-2")
    other.emit(Event.ITEM_CLAIMED, n=2)
    other.close()
    assert numbers(layout) == [0, 1, 2]


def test_a_new_writer_begins_on_a_line_of_its_own_after_a_torn_one(
    layout: Layout, stream: EventStream
) -> None:
    (layout.events / "2027-01-15.jsonl").write_bytes(b'{"v": 1, "torn')
    stream.emit(Event.ITEM_CLAIMED, n=0)
    assert len(today(layout).read_bytes().splitlines()) == 2
    assert numbers(layout) == [0]


@pytest.mark.parametrize("junk", [b"\0" * 100, b"[]", b"7", b'{"v": 2}', b"\xff\xfe", b"", b'{"v": 1'])
def test_lines_that_are_no_event_are_passed_over(layout: Layout, stream: EventStream, junk: bytes) -> None:
    (layout.events / "2027-01-15.jsonl").write_bytes(junk + b"\n")
    stream.emit(Event.ITEM_CLAIMED, n=0)
    assert numbers(layout) == [0]


def test_a_full_disk_loses_the_event_and_nothing_else(
    layout: Layout, stream: EventStream, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    real = os.write

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        stream.emit(Event.ITEM_CLAIMED, n=0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, data[:10]))
        stream.emit(Event.ITEM_CLAIMED, n=1)
    stream.emit(Event.ITEM_CLAIMED, n=2)
    assert stream.lost == 2
    assert numbers(layout) == [2]
    assert [json.loads(x)["event"] for x in log.getvalue().splitlines()].count("events_lost") == 2


def test_a_file_or_folder_that_was_removed_is_made_again(layout: Layout, stream: EventStream) -> None:
    stream.emit(Event.ITEM_CLAIMED, n=0)
    today(layout).unlink()
    stream.emit(Event.ITEM_CLAIMED, n=1)
    assert numbers(layout) == [1]
    today(layout).unlink()
    layout.events.rmdir()
    assert numbers(layout) == []
    stream.emit(Event.ITEM_CLAIMED, n=2)
    assert numbers(layout) == [2]


def test_sync_writes_to_the_disk_only_when_there_is_something_new(
    stream: EventStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    stream.sync()
    stream.emit(Event.ITEM_CLAIMED, n=0)
    stream.emit(Event.ITEM_CLAIMED, n=1)
    stream.sync()
    stream.sync()
    assert len(synced) == 1


def test_the_end_is_behind_the_newest_whole_line(layout: Layout, stream: EventStream) -> None:
    assert events.end(layout) is None
    stream.emit(Event.ITEM_CLAIMED, n=0)
    ((cursor, _),) = read(layout)
    with today(layout).open("ab") as file:
        file.write(b'{"v": 1')
    assert events.end(layout) == cursor


def test_following_yields_what_is_emitted_meanwhile(
    layout: Layout, stream: EventStream, clock: FakeClock
) -> None:
    left = [3, 2, 1]

    def more() -> bool:
        if not left:
            return True
        stream.emit(Event.ITEM_CLAIMED, n=left.pop())
        clock.advance(86_400)  # over midnight
        return False

    followed = read(layout, follow=True, poll_s=0, stop=more)
    assert [record["n"] for _, record in followed] == [1, 2, 3]


WRITER = """
import sys
from pathlib import Path
from harness import logs
from harness.clock import SystemClock
from harness.events import EventStream
from harness.layout import Layout
logs.configure("test", stream=sys.stderr, level=logs.Level.ERROR)
stream = EventStream(Layout(Path(sys.argv[1])), SystemClock(), sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for n in range(500):
    stream.emit(logs.Event.ITEM_CLAIMED, n=n, pad="x" * (n * 7 % 3000))
print("done", flush=True)
"""


def test_lines_of_many_writers_do_not_mix(layout: Layout) -> None:
    with ExitStack() as stack:
        writers = [stack.enter_context(python(WRITER, str(layout.root), f"agent-{k}")) for k in range(4)]
        for writer in writers:
            assert line(writer) == "ready"
        for writer in writers:
            assert writer.stdin
            writer.stdin.write(b"\n")
            writer.stdin.flush()
        for writer in writers:
            assert line(writer) == "done"
    seen: dict[str, list[int]] = {}
    for _, record in read(layout):
        seen.setdefault(record["source"], []).append(record["n"])
    assert seen == {f"agent-{k}": list(range(500)) for k in range(4)}


def test_following_over_processes_sees_an_event_soon(layout: Layout) -> None:
    with python(WRITER, str(layout.root), "agent-1") as writer:
        assert line(writer) == "ready"
        found: list[int] = []
        follower = read(layout, follow=True, poll_s=0.005)
        assert writer.stdin
        writer.stdin.write(b"\n")
        writer.stdin.flush()
        while len(found) < 500:
            found.append(next(follower)[1]["n"])
        assert found == list(range(500))
