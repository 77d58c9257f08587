"""What tests share: waiting with a deadline, a fake clock, processes that never outlive their test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from harness.layout import STATE_FOLDERS, Layout

if TYPE_CHECKING:
    import pytest

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
"""The checkout that is being tested."""


def until(predicate: Callable[[], T], timeout_s: float = 10.0, *, what: str = "") -> T:
    """Polls until `predicate()` is true and returns its value. Fails the test after `timeout_s`.

    A test never sleeps and hopes: it waits for what it needs, and a slow machine only makes it slower.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = 0.001
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or predicate}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.05)


class FakeClock:
    """A clock that moves only when it is told to."""

    def __init__(self, wall: float = 1_800_000_000.0, monotonic: float = 1000.0) -> None:
        self._wall = wall
        self._monotonic = monotonic

    def wall(self) -> float:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._wall += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """The wall clock is set by somebody; monotonic time does not notice."""
        self._wall += seconds


def make_root(path: Path, config: str = "v: 1\n") -> Layout:
    """A root with an empty `queue/`, the folders of `state/`, and a config.yaml."""
    path.mkdir(parents=True, exist_ok=True)
    layout = Layout(path.resolve())
    layout.queue.mkdir(exist_ok=True)
    for folder in STATE_FOLDERS:
        (layout.state / folder).mkdir(parents=True, exist_ok=True)
    layout.config.write_text(config)
    return layout


def environment(**more: str) -> dict[str, str]:
    """The environment of a child of ours: it finds this checkout, writes bytecode, and inherits no service manager."""
    env = {
        k: v
        for k, v in os.environ.items()
        if k not in ("PYTHONDONTWRITEBYTECODE", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        and not k.startswith("HARNESS_")
    }
    env["PYTHONPATH"] = str(ROOT)
    env.update(more)
    return env


@contextlib.contextmanager
def running(
    argv: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = subprocess.PIPE,
    stderr: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own; whatever happens, its whole group is killed and reaped at the end."""
    process = subprocess.Popen(
        [os.fspath(a) for a in argv],
        cwd=cwd,
        env=dict(environment() if env is None else env),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # Once it was waited for, its number is free as soon as its group is empty. Whoever bears it then is not ours.
        if process.returncode is None or not Path(f"/proc/{process.pid}").exists():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def python(code: str, *args: str, cwd: Path | None = None, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """`running` for a piece of Python; stdin and stdout are pipes, so that a test and it can talk in lines."""
    argv = [sys.executable, "-P", "-c", code, *args]
    with running(argv, cwd=cwd, env=environment(**more), stdin=subprocess.PIPE) as process:
        yield process


def line(process: subprocess.Popen[bytes]) -> str:
    """The next line that the process prints; a test that hangs here is ended by pytest-timeout."""
    assert process.stdout is not None
    return process.stdout.readline().decode().rstrip("\n")


FORGET = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "PYTHONDONTWRITEBYTECODE", "INVOCATION_ID")


def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of git, of ours or of a service manager leaks in from outside."""
    for name in list(os.environ):
        if name in FORGET or name.startswith(("GIT_", "HARNESS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Test")
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "test@example.invalid")
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Test")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "test@example.invalid")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
