from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.sdnotify import Notifier


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's end."""
    monkeypatch.chdir(tmp_path)  # a socket's path may have 107 characters only
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("notify")
        listener.settimeout(5)
        yield listener


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    link = Path(f"/proc/self/cwd/{'notify'}")
    assert link.exists()
    return {"NOTIFY_SOCKET": str(link), "PATH": "/bin", **more}


def test_each_call_says_one_thing(manager: socket.socket, tmp_path: Path) -> None:
    notifier = Notifier.from_environment(environ(tmp_path))
    notifier.ready("3 workers")
    notifier.watchdog()
    notifier.status("two\nlines")
    notifier.extend(1.5)
    notifier.stopping()
    assert [manager.recv(1000).decode() for _ in range(5)] == [
        "READY=1\nSTATUS=3 workers",
        "WATCHDOG=1",
        "STATUS=two lines",
        "EXTEND_TIMEOUT_USEC=1500000",
        "STOPPING=1",
    ]


def test_reloading_carries_the_time_that_systemd_asks_for(manager: socket.socket, tmp_path: Path) -> None:
    Notifier.from_environment(environ(tmp_path)).reloading()
    first, second = manager.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")


def test_children_do_not_inherit_the_right_to_speak(manager: socket.socket, tmp_path: Path) -> None:
    env = environ(tmp_path, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
    notifier = Notifier.from_environment(env)
    assert env == {"PATH": "/bin"}
    assert notifier.active
    assert notifier.watchdog_s == 30.0


def test_a_watchdog_of_another_process_is_not_ours() -> None:
    assert Notifier.from_environment({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).watchdog_s is None
    assert Notifier.from_environment({"WATCHDOG_USEC": "soon"}).watchdog_s is None


def test_without_a_service_manager_nothing_happens() -> None:
    notifier = Notifier.from_environment({})
    assert not notifier.active
    notifier.ready()
    notifier.watchdog()


def test_a_service_manager_that_is_gone_or_deaf_is_no_error(tmp_path: Path) -> None:
    Notifier(str(tmp_path / "nobody")).ready()
    Notifier.from_environment({"NOTIFY_SOCKET": "vsock:2:1"}).ready()


def test_abstract_sockets_are_understood() -> None:
    name = f"harness-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        listener.settimeout(5)
        Notifier.from_environment({"NOTIFY_SOCKET": "@" + name}).watchdog()
        assert listener.recv(100) == b"WATCHDOG=1"
