"""Starting our own processes: workers and mergers, by exec, each in a session of its own.

`Launcher` is what the coordinator knows; `LocalLauncher` is the one for this host. The interface is small so that a
cluster scheduler can stand behind it: what it cannot tell is UNKNOWN, and UNKNOWN is never taken for GONE.
Children outlive us on purpose; a later coordinator adopts them.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

from harness import procs
from harness.dataclass import dataclass
from harness.errors import HarnessError
from harness.layout import Layout
from harness.logs import rotate
from harness.procs import ProcessId

_OUTPUT_MAX = 1_000_000
"""Bytes in `state/logs/<name>.out` from which the next start begins a new file."""

_NOT_INHERITED = frozenset(
    {
        "PYTHONDONTWRITEBYTECODE",  # imports would be up to 12 times slower
        "NOTIFY_SOCKET",  # only the main process speaks to the service manager
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        "JOURNAL_STREAM",  # their output goes to a file
    }
)


class Life(StrEnum):
    """What a launcher knows of a process; each comment says what comes next."""

    PENDING = "pending"  # asked for, waits for a place to run: RUNNING or GONE
    RUNNING = "running"  # GONE
    GONE = "gone"  # the end; proved
    UNKNOWN = "unknown"  # cannot be seen from here: any of the others, ask again


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The answer to a poll. How it ended is known of own children only."""

    life: Life
    exit_code: int | None = None
    signal: int | None = None


class Handle(Protocol):
    """One process that was started or adopted."""

    @property
    def role(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def process(self) -> ProcessId | None:
        """None while PENDING."""
        ...

    def fileno(self) -> int:
        """A descriptor that is readable when the process has ended; -1 when there is none to wait at."""
        ...

    def close(self) -> None:
        """Forget the process; it goes on if it runs."""
        ...


H = TypeVar("H", bound=Handle)


class Launcher(Protocol[H]):
    """How a pool starts, watches and stops its processes."""

    def spawn(self, role: str, name: str, *arguments: str) -> H:
        """Start ``python -P -m harness <role> --root ROOT --agent NAME ARGUMENTS``. Raises HarnessError."""
        ...

    def adopt(self, role: str, name: str, process: ProcessId, *, host: str = "") -> H:
        """A handle for a process that somebody else started, dead or alive."""
        ...

    def poll(self, handle: H) -> Seen: ...

    def stop(self, handle: H, number: int = signal.SIGTERM) -> bool:
        """Send a signal. False: it has ended, or cannot be reached from here."""
        ...


class LocalHandle:
    """A process of this host, held by a pidfd. See `Handle`."""

    def __init__(
        self,
        role: str,
        name: str,
        process: ProcessId,
        fd: int | None,
        child: subprocess.Popen[bytes] | None,
        foreign: bool,
    ) -> None:
        self.role = role
        self.name = name
        self.process: ProcessId | None = process
        self.child = child
        self.foreign = foreign
        self.end: Seen | None = None
        self._fd = -1 if fd is None else fd

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self.child is not None and self.child.poll() is None:
            # It outlives us on purpose; without this, subprocess warns about a child that was not waited for.
            self.child.returncode = 0
        self.child = None


class LocalLauncher:
    """Processes of this host. See `Launcher`. Not thread-safe; the caller polls, nothing happens by itself."""

    def __init__(
        self,
        layout: Layout,
        *,
        environ: Mapping[str, str] | None = None,
        inherit_output: bool = False,
        python: str = sys.executable,
    ) -> None:
        """`inherit_output`: stdout and stderr are ours, not `state/logs/<name>.out`."""
        self._layout = layout
        self._environ = dict(os.environ if environ is None else environ)
        self._inherit_output = inherit_output
        self._python = python

    def argv(self, role: str, name: str, *arguments: str) -> list[str]:
        # -P: the working directory is not searched, a folder called `queue` lies there.
        root = str(self._layout.root)
        return [self._python, "-P", "-m", "harness", role, "--root", root, "--agent", name, *arguments]

    def spawn(self, role: str, name: str, *arguments: str) -> LocalHandle:
        argv = self.argv(role, name, *arguments)
        environ = {k: v for k, v in self._environ.items() if k not in _NOT_INHERITED}
        output = None if self._inherit_output else _open_output(self._layout.logs / f"{name}.out")
        try:
            # By exec, never by fork alone: a forked child would hold our locks for ever.
            child = subprocess.Popen(
                argv,
                cwd=self._layout.root,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                close_fds=True,
            )
        except OSError as e:
            raise HarnessError(
                f"cannot start {role} {name}: {e.strerror or e}",
                where=argv[0],
                remedy="check memory, the limit of processes (ulimit -u) and that this Python still exists",
            ) from e
        finally:
            if output is not None:
                os.close(output)
        # Our child, not waited for yet: its pid cannot have been reused.
        process = ProcessId.of(child.pid) or ProcessId(pid=child.pid, start_ticks=0, boot_id=procs.boot_id())
        return LocalHandle(role, name, process, os.pidfd_open(child.pid), child, foreign=False)

    def adopt(self, role: str, name: str, process: ProcessId, *, host: str = "") -> LocalHandle:
        foreign = bool(host) and host != procs.host_id()
        return LocalHandle(role, name, process, None if foreign else process.pidfd(), None, foreign)

    def poll(self, handle: LocalHandle) -> Seen:
        """Never waits; reaps an own child that has ended."""
        if handle.end is None:
            seen = self._look(handle)
            if seen.life is not Life.GONE:
                return seen
            handle.end = seen
            handle.close()
        return handle.end

    def _look(self, handle: LocalHandle) -> Seen:
        if handle.foreign:
            return Seen(life=Life.UNKNOWN)
        if handle.child is not None:
            code = handle.child.poll()
            if code is None:
                return Seen(life=Life.RUNNING)
            return Seen(
                life=Life.GONE, exit_code=code if code >= 0 else None, signal=-code if code < 0 else None
            )
        # Adopted: the pidfd proved at adoption that it was this process, and is readable when it has ended.
        return Seen(
            life=Life.RUNNING if handle.fileno() >= 0 and not _ended([handle.fileno()]) else Life.GONE
        )

    def stop(self, handle: LocalHandle, number: int = signal.SIGTERM) -> bool:
        if handle.fileno() < 0:
            return False
        try:
            signal.pidfd_send_signal(handle.fileno(), number)
        except ProcessLookupError:
            return False
        return True


def _ended(fds: Iterable[int]) -> bool:
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def _open_output(path: Path) -> int:
    """For what a process prints before it has a log, and for the interpreter's last words."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, flags, 0o600)
    if os.fstat(fd).st_size > _OUTPUT_MAX:
        os.close(fd)
        rotate(path, 2)
        fd = os.open(path, flags, 0o600)
    return fd
