"""harness.procs: processes named for ever, and signals that reach nobody else."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path

import pytest

from harness import procs
from harness.procs import ProcessId
from tests.support import line, python, running, until

LINE = b"4711 (%s) S 1 4711 4711 0 -1 4194304 1 0 0 0 5 6 7 8 20 0 1 0 99 1000 2 18446744073709551615"
HOLD = "print('ready', flush=True); input()"


@pytest.mark.parametrize("comm", [b"sh", b"a b", b"evil) S 1 1", b"((", b"\n) R 9 (", b"\xff\xfe", b""])
def test_stat_is_parsed_whatever_the_command_calls_itself(comm: bytes) -> None:
    seen = procs.parse_stat(LINE.replace(b"%s", comm))
    assert seen is not None
    assert (seen.pid, seen.comm, seen.state, seen.ppid, seen.start_ticks) == (4711, comm, "S", 1, 99)


@pytest.mark.parametrize("raw", [b"", b"1", b"1 (x)", b"1 (x) S 1", b"x (y) S 1 2 3"])
def test_torn_stat_is_no_process(raw: bytes) -> None:
    assert procs.parse_stat(raw) is None


def test_this_process_is_alive_and_has_one_name() -> None:
    assert procs.self_id() == procs.self_id()
    assert procs.self_id().alive()
    assert procs.self_id().pid == os.getpid()


def test_a_zombie_is_dead_and_waited_for_without_being_its_parent() -> None:
    with running(["true"]) as child:
        name = ProcessId.of(child.pid)
        until(lambda: (s := procs.stat(child.pid)) is not None and s.dead, what="zombie")
        if name is not None:
            assert not name.alive()
            assert name.wait(5)
            assert name.pidfd() is None


def test_a_pid_that_was_reused_is_another_process_and_gets_no_signal() -> None:
    with python(HOLD) as child:
        line(child)
        real = ProcessId.of(child.pid)
        assert real is not None
        earlier = ProcessId(pid=real.pid, start_ticks=real.start_ticks - 1, boot_id=real.boot_id)
        assert not earlier.alive()
        assert earlier.pidfd() is None
        assert not procs.signal(earlier, signal.SIGKILL)
        assert real.alive()


def test_a_process_of_an_earlier_boot_is_dead() -> None:
    own = procs.self_id()
    assert not ProcessId(pid=own.pid, start_ticks=own.start_ticks, boot_id="before").alive()


def test_a_pid_reused_between_open_and_comparison_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = procs.self_id()
    monkeypatch.setattr(procs, "stat", lambda pid: None)  # it ended in between
    assert own.pidfd() is None


def test_signal_reaches_the_process_and_tells_whether_it_did() -> None:
    with python(HOLD) as child:
        line(child)
        name = ProcessId.of(child.pid)
        assert name is not None
        assert procs.signal(name, signal.SIGTERM)
        assert name.wait(10)
        child.wait(10)
        assert not procs.signal(name, signal.SIGTERM)


def test_pidfd_becomes_readable_at_the_end_of_the_process() -> None:
    with python(HOLD) as child:
        line(child)
        name = ProcessId.of(child.pid)
        assert name is not None
        fd = name.pidfd()
        assert fd is not None
        try:
            assert not os.get_inheritable(fd)
            assert select.select([fd], [], [], 0)[0] == []
            child.kill()
            assert select.select([fd], [], [], 10)[0] == [fd]
        finally:
            os.close(fd)


def test_wait_gives_up_after_its_time() -> None:
    assert not procs.self_id().wait(0.001)


def test_a_mark_is_found_in_descendants_and_only_whole() -> None:
    code = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {HOLD!r}]); p.wait()"
    with python(code, HARNESS_ATTEMPT="marked-x.1") as child:
        line(child)
        found = {one.pid for one in procs.environ_marked("marked-x.1")}
        assert child.pid in found
        assert len(found) == 2
        assert procs.environ_marked("marked-x") == []
        assert procs.environ_marked("arked-x.1") == []


def test_tree_has_the_descendants_and_cpu_time_is_theirs_together() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint('ready', flush=True); input()"
    code = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {burn!r}]); p.wait()"
    with python(code) as child:
        line(child)
        tree = procs.tree(child.pid)
        assert tree[0].pid == child.pid
        assert len(tree) == 2
        assert procs.cpu_seconds(child.pid) >= 0.2
        assert procs.cpu_seconds(tree) >= 0.2
        assert procs.rss_mb(child.pid) > 1
        assert os.getpid() in procs.ancestors(child.pid)


def test_what_is_not_there_costs_nothing() -> None:
    with running(["true"]) as child:
        child.wait(10)
    assert procs.stat(child.pid) is None
    assert procs.tree(child.pid) == []
    assert procs.rss_mb(child.pid) == 0
    assert procs.cpu_seconds(child.pid) == 0
    assert ProcessId.of(child.pid) is None


def test_holders_names_who_has_a_file_open_even_after_a_rename(tmp_path: Path) -> None:
    lock = tmp_path / "index.lock"
    lock.touch()
    with python("import sys; f = open(sys.argv[1]);" + HOLD, str(lock)) as child:
        line(child)
        moved = lock.rename(tmp_path / "moved")
        assert child.pid in {one.pid for one in procs.holders(moved).found}
        assert not procs.holders(moved).proved_none


def test_holders_of_a_file_that_nobody_has_open(tmp_path: Path) -> None:
    lock = tmp_path / "index.lock"
    lock.touch()
    assert procs.holders(lock).found == ()
    assert procs.holders(tmp_path / "none").proved_none


def test_working_below_finds_a_removed_working_directory(tmp_path: Path) -> None:
    inner = tmp_path / "worktree" / "inner"
    inner.mkdir(parents=True)
    with python(HOLD, cwd=inner) as child:
        line(child)
        inner.rmdir()
        assert child.pid in {one.pid for one in procs.working_below([tmp_path / "worktree"])}
        assert procs.working_below([tmp_path / "work"]) == []
        assert procs.working_below([]) == []


def test_host_and_boot_have_names() -> None:
    assert procs.boot_id()
    machine = Path("/etc/machine-id")
    if machine.exists() and machine.read_text().strip():
        assert machine.read_text().strip() not in procs.host_id()
    assert procs.host_id().startswith(subprocess.check_output(["uname", "-n"], text=True).strip())
