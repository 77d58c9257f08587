from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from harness import presence
from harness.atomicfs import FileLock
from harness.layout import Layout
from harness.model import Identity
from harness.presence import announce, living, new_incarnation, present, sweep
from harness.procs import self_id
from tests.support import line, python

HOLDER = """
import sys
from pathlib import Path
from harness.layout import Layout
from harness.presence import announce
me = announce(Layout(Path(sys.argv[1])), sys.argv[2])
print(me.identity.incarnation, flush=True)
sys.stdin.read()
me.close()
"""


def files(layout: Layout) -> list[str]:
    return sorted(os.listdir(layout.presence))


@pytest.mark.parametrize("name", ["agent-1", "merger.my-app", "Weird_Name/../x", "..", ""])
def test_an_incarnation_is_a_legal_file_name_without_underscore_or_slash(name: str) -> None:
    assert re.fullmatch(
        r"[a-z0-9][a-z0-9.-]*\.[0-9a-z]+\.[0-9a-z]{8}", new_incarnation(name, 1_800_000_000.5)
    )


def test_incarnations_of_one_slot_in_one_second_differ() -> None:
    assert len({new_incarnation("agent-1", 1_800_000_000) for _ in range(100)}) == 100


def test_who_announces_itself_is_alive_until_it_leaves(layout: Layout) -> None:
    with announce(layout, "agent-1") as me:
        assert me.identity.name == "agent-1"
        assert (me.identity.pid, me.identity.start_ticks) == (os.getpid(), self_id().start_ticks)
        assert present(layout, me.identity.incarnation)
        assert living(layout) == [me.identity]
        assert sweep(layout) == []
        assert living(layout) == [me.identity]
        (file,) = layout.presence.iterdir()
        assert json.loads(file.read_text())["name"] == "agent-1"
    assert not present(layout, me.identity.incarnation)
    assert files(layout) == []


def test_a_killed_process_is_dead_at_once_and_swept_once(layout: Layout) -> None:
    with python(HOLDER, str(layout.root), "agent-1") as holder, announce(layout, "cli") as me:
        incarnation = line(holder)
        assert {i.incarnation for i in living(layout)} == {incarnation, me.identity.incarnation}
        holder.kill()
        holder.wait()
        assert not present(layout, incarnation)
        assert living(layout) == [me.identity]
        assert [i.incarnation for i in sweep(layout)] == [incarnation]
        assert sweep(layout) == []
        assert files(layout) == [me.identity.incarnation]


def test_leaving_in_good_order_leaves_nothing_to_sweep(layout: Layout) -> None:
    with python(HOLDER, str(layout.root), "agent-1") as holder:
        line(holder)
        assert holder.stdin
        holder.stdin.close()
        assert holder.wait(10) == 0
        assert sweep(layout) == []
        holder.stdin = None


def test_a_process_of_another_host_is_never_called_dead(layout: Layout) -> None:
    stranger = Identity(incarnation="agent-1.t.r", name="agent-1", host="elsewhere-1", pid=1)
    (layout.presence / stranger.incarnation).write_bytes(stranger.to_bytes())
    assert present(layout, stranger.incarnation)
    assert living(layout) == [stranger]
    assert sweep(layout) == []


def test_damaged_and_half_made_files_of_the_dead_are_swept_without_a_name(layout: Layout) -> None:
    (layout.presence / "agent-1.t.r").write_text("{")
    (layout.presence / ".agent-2.t.r").write_text("")
    assert living(layout) == []
    assert sweep(layout) == []
    assert files(layout) == []


def test_a_sweep_between_open_and_lock_of_an_announcement_does_not_hide_it(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FileLock.try_lock
    swept: list[Path] = []

    def slow(lock: FileLock) -> bool:
        if not swept:
            lock._open()
            swept.append(lock.path)
            sweep(layout)
            assert not lock.path.exists()
        return real(lock)

    monkeypatch.setattr(FileLock, "try_lock", slow)
    with announce(layout, "agent-1") as me:
        assert swept
        assert present(layout, me.identity.incarnation)


def test_a_sweep_after_the_lock_of_an_announcement_passes_it_over(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FileLock.write

    def slow(lock: FileLock, text: str) -> None:
        assert sweep(layout) == []
        real(lock, text)

    monkeypatch.setattr(FileLock, "write", slow)
    with announce(layout, "agent-1") as me:
        assert living(layout) == [me.identity]


def test_without_the_folder_nobody_is_alive(layout: Layout) -> None:
    layout.presence.rmdir()
    assert living(layout) == []
    assert sweep(layout) == []
    assert not present(layout, "agent-1.t.r")
    announce(layout, "agent-1").close()
    assert presence.living(layout) == []
