from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.launcher import Life, LocalHandle, LocalLauncher, Seen
from harness.layout import Layout
from harness.procs import ProcessId, boot_id
from tests.support import until

FAKE = r"""#!/bin/sh
# Stands for the Python that the launcher starts: notes how it was called, then does what it is told.
{ printf '%s\n' "$@"; } >"$6/argv"
env >"$6/env"
pwd >"$6/cwd"
echo "on stdout"
echo "on stderr" >&2
: >"$6/started"
case $9 in
exit) exit "${10}" ;;
*) exec sleep 600 ;;
esac
"""


@pytest.fixture
def python(tmp_path: Path) -> str:
    path = tmp_path / "python"
    path.write_text(FAKE)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def launcher(layout: Layout, python: str) -> LocalLauncher:
    return LocalLauncher(layout, python=python, environ={**os.environ, "NOTIFY_SOCKET": "/x", "KEPT": "1"})


@pytest.fixture
def spawned(launcher: LocalLauncher, layout: Layout) -> Iterator[LocalHandle]:
    handle = launcher.spawn("worker", "agent-1", "wait")
    until((layout.root / "started").exists)
    yield handle
    launcher.stop(handle, signal.SIGKILL)
    until(lambda: launcher.poll(handle).life is Life.GONE)


def ended(launcher: LocalLauncher, handle: LocalHandle) -> Seen:
    until(lambda: launcher.poll(handle).life is Life.GONE)
    return launcher.poll(handle)


def test_a_process_is_started_by_exec_in_the_root_and_in_a_session_of_its_own(
    layout: Layout, spawned: LocalHandle
) -> None:
    argv = (layout.root / "argv").read_text().split("\n")[:-1]
    root = str(layout.root)
    assert argv == ["-P", "-m", "harness", "worker", "--root", root, "--agent", "agent-1", "wait"]
    assert (layout.root / "cwd").read_text().strip() == root
    assert spawned.process is not None
    assert os.getsid(spawned.process.pid) == spawned.process.pid
    assert os.readlink(f"/proc/{spawned.process.pid}/fd/0") == os.devnull


def test_it_does_not_inherit_the_service_manager(layout: Layout, spawned: LocalHandle) -> None:
    names = {text.partition("=")[0] for text in (layout.root / "env").read_text().splitlines()}
    assert "KEPT" in names
    assert not names & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "PYTHONDONTWRITEBYTECODE"}


def test_its_output_goes_to_a_file(layout: Layout, spawned: LocalHandle) -> None:
    assert (layout.logs / "agent-1.out").read_text() == "on stdout\non stderr\n"


def test_a_large_output_file_is_put_aside_with_the_next_start(
    layout: Layout, launcher: LocalLauncher
) -> None:
    (layout.logs / "agent-1.out").write_bytes(b"x" * 1_000_001)
    ended(launcher, launcher.spawn("worker", "agent-1", "exit", "0"))
    assert (layout.logs / "agent-1.out").read_text() == "on stdout\non stderr\n"
    assert (layout.logs / "agent-1.out.1").stat().st_size == 1_000_001


def test_the_end_of_a_child_wakes_a_poll_and_tells_how_it_ended(launcher: LocalLauncher) -> None:
    handle = launcher.spawn("worker", "agent-1", "exit", "3")
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    assert poll.poll(10_000)
    assert ended(launcher, handle) == Seen(life=Life.GONE, exit_code=3)
    assert launcher.poll(handle) == Seen(life=Life.GONE, exit_code=3)
    assert handle.fileno() == -1
    assert not launcher.stop(handle)


def test_a_signal_is_sent_and_reported(launcher: LocalLauncher, spawned: LocalHandle) -> None:
    assert launcher.poll(spawned) == Seen(life=Life.RUNNING)
    assert launcher.stop(spawned)
    assert ended(launcher, spawned) == Seen(life=Life.GONE, signal=signal.SIGTERM)


def test_an_adopted_process_is_watched_and_stopped_like_a_child(
    layout: Layout, launcher: LocalLauncher, spawned: LocalHandle
) -> None:
    assert spawned.process is not None
    adopted = LocalLauncher(layout).adopt("worker", "agent-1", spawned.process)
    assert launcher.poll(adopted) == Seen(life=Life.RUNNING)
    assert launcher.stop(adopted)
    assert ended(launcher, adopted) == Seen(life=Life.GONE)
    assert ended(launcher, spawned).signal == signal.SIGTERM


def test_a_pid_that_another_process_has_now_is_gone_and_is_not_signalled(
    launcher: LocalLauncher, spawned: LocalHandle
) -> None:
    assert spawned.process is not None
    earlier = ProcessId(pid=spawned.process.pid, start_ticks=1, boot_id=boot_id())
    adopted = launcher.adopt("worker", "agent-1", earlier)
    assert launcher.poll(adopted) == Seen(life=Life.GONE)
    assert not launcher.stop(adopted, signal.SIGKILL)
    assert launcher.poll(spawned).life is Life.RUNNING


def test_a_process_of_an_earlier_boot_is_gone(launcher: LocalLauncher) -> None:
    adopted = launcher.adopt(
        "worker", "agent-1", ProcessId(pid=os.getpid(), start_ticks=1, boot_id="earlier")
    )
    assert launcher.poll(adopted).life is Life.GONE


def test_a_process_of_another_host_is_unknown_and_never_gone(launcher: LocalLauncher) -> None:
    process = ProcessId(pid=2**22, start_ticks=1, boot_id="other")
    adopted = launcher.adopt("worker", "agent-1", process, host="elsewhere-1")
    assert launcher.poll(adopted) == Seen(life=Life.UNKNOWN)
    assert not launcher.stop(adopted)


def test_a_process_that_is_forgotten_goes_on(launcher: LocalLauncher, layout: Layout) -> None:
    handle = launcher.spawn("worker", "agent-1", "wait")
    assert handle.process is not None
    process = handle.process
    handle.close()
    assert process.alive()
    adopted = launcher.adopt("worker", "agent-1", process)
    launcher.stop(adopted, signal.SIGKILL)
    until(lambda: launcher.poll(adopted).life is Life.GONE)
    os.waitpid(process.pid, 0)


def test_what_cannot_be_started_is_an_error_with_a_remedy(layout: Layout) -> None:
    with pytest.raises(HarnessError) as raised:
        LocalLauncher(layout, python="/nowhere/python").spawn("worker", "agent-1")
    assert "/nowhere/python" in str(raised.value)
    assert raised.value.remedy
