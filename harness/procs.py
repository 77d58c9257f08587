"""Processes of this host as the kernel shows them: who is alive, who descends from whom, who holds what.

The only module that reads other processes' entries in `/proc` and that signals a process which is not our child.
A pid alone never names a process: pids are reused, so `ProcessId` carries the start time and the boot as well,
and signals go through a pidfd that was compared with it after it was opened (pidfd_open(2)).

Guarantee not given: another PID namespace (a container that shares our root) has other pids, there `alive()`
says False for a living process. Death that decides something is proved by the lock of the claim, not from here.
"""

from __future__ import annotations

import functools
import os
import select
import signal as signals
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from harness.dataclass import dataclass

MARK = "HARNESS_ATTEMPT"
"""The environment variable that names the attempt, inherited by every descendant that does not clear it."""

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@functools.cache
def boot_id() -> str:
    """A random name of this boot; start times are comparable within it only."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@functools.cache
def host_id() -> str:
    """A name of this host that survives reboots: ``<host name>-<8 hex digits>``.

    The digits are a hash of machine-id(5), which must not be shown itself; hosts of the same name differ by it.
    """
    name = os.uname().nodename or "localhost"  # not platform.node(): that import costs 3 ms
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            machine = Path(path).read_bytes().strip()
        except OSError:
            continue
        if machine:
            import hashlib  # here, because `harnessctl status` does without: it costs 3 ms

            return f"{name}-{hashlib.sha256(b'harness' + machine).hexdigest()[:8]}"
    return name


def read(pid: int, name: str) -> bytes | None:
    """A file of `/proc/<pid>`; None when the process has ended, or is not ours to look into."""
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        pieces = []
        while piece := os.read(fd, 65536):
            pieces.append(piece)
        return b"".join(pieces)
    except OSError:  # ESRCH: ended after the open
        return None
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """One `/proc/<pid>/stat`, the fields that we use."""

    pid: int
    comm: bytes
    state: str
    ppid: int
    pgrp: int
    session: int
    tty: int
    """Controlling terminal, 0 without one."""
    cpu_s: float
    """CPU seconds of the process and of the children it has waited for."""
    start_ticks: int
    rss_bytes: int

    @property
    def dead(self) -> bool:
        """A zombie has ended; only its parent has not asked yet."""
        return self.state in "ZXx"


def stat(pid: int) -> Stat | None:
    """None when there is no such process (any more)."""
    raw = read(pid, "stat")
    return None if raw is None else parse_stat(raw)


def parse_stat(raw: bytes) -> Stat | None:
    """The command name may hold blanks, brackets and newlines; it ends at the *last* bracket: proc_pid_stat(5)."""
    head, _, tail = raw.rpartition(b")")
    number, _, comm = head.partition(b" (")
    rest = tail.split()
    try:
        return Stat(
            pid=int(number),
            comm=comm,
            state=rest[0].decode("ascii"),
            ppid=int(rest[1]),
            pgrp=int(rest[2]),
            session=int(rest[3]),
            tty=int(rest[4]),
            cpu_s=sum(int(ticks) for ticks in rest[11:15]) / _TICKS_PER_SECOND,
            start_ticks=int(rest[19]),
            rss_bytes=int(rest[21]) * _PAGE_BYTES,
        )
    except (ValueError, IndexError, UnicodeDecodeError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """One process, for ever: the triple is never given to another one."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The process that has this pid now; None when there is none."""
        seen = stat(pid)
        return None if seen is None else cls(pid=pid, start_ticks=seen.start_ticks, boot_id=boot_id())

    def alive(self) -> bool:
        """Whether it still runs on this boot of this host. A zombie does not."""
        if self.boot_id != boot_id():
            return False
        seen = stat(self.pid)
        return seen is not None and seen.start_ticks == self.start_ticks and not seen.dead

    def pidfd(self) -> int | None:
        """A pidfd (close-on-exec, closed by the caller) that is certainly this process; None when it has ended.

        Opened first and compared afterwards: a pid that was reused in between shows another start time.
        """
        if self.boot_id != boot_id() or self.pid <= 0:
            return None
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:  # ESRCH; EINVAL for a thread id
            return None
        if self.alive():
            return fd
        os.close(fd)
        return None

    def wait(self, timeout_s: float) -> bool:
        """Waits until it has ended, child of ours or not; False when it still runs after `timeout_s`."""
        fd = self.pidfd()
        if fd is None:
            return True
        try:
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            return bool(poller.poll(max(0.0, timeout_s) * 1000))
        finally:
            os.close(fd)


def self_id() -> ProcessId:
    """This process."""
    own = ProcessId.of(os.getpid())
    if own is None:  # no /proc: still a name, of a process that is never found alive
        return ProcessId(pid=os.getpid(), start_ticks=0, boot_id=boot_id())
    return own


def signal(process: ProcessId, number: int) -> bool:
    """Sends a signal to exactly this process; False when it has ended or we may not (EPERM)."""
    fd = process.pidfd()
    if fd is None:
        return False
    try:
        signals.pidfd_send_signal(fd, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(fd)
    return True


def kill_tree(process: ProcessId) -> int:
    """SIGKILL to a process and then to all that descends from it. -> how many there were; 0 when it has ended.

    What one of them forks meanwhile is not found: for processes that hang, and for programs that do not hide.
    """
    found = tree(process.pid)
    if not found or found[0] != process:
        return 0
    return sum(signal(one, signals.SIGKILL) for one in found)


def pids() -> Iterator[int]:
    """Every pid that `/proc` lists, in no order."""
    with os.scandir(_PROC) as entries:
        for entry in entries:
            if entry.name.isdecimal():
                yield int(entry.name)


def snapshot() -> dict[int, Stat]:
    """All processes, read one after the other: not an atomic picture."""
    return {seen.pid: seen for seen in map(stat, pids()) if seen is not None}


def tree(root: int | Iterable[int], seen: dict[int, Stat] | None = None) -> list[ProcessId]:
    """The given processes and all their living descendants, parents first; zombies are left out.

    Orphans are found as long as their new parent (an init or a subreaper) is in the tree. A process that
    forks meanwhile may have children that are not listed: whoever kills repeats until nothing is found.
    """
    seen = snapshot() if seen is None else seen
    children: dict[int, list[int]] = {}
    for one in seen.values():
        children.setdefault(one.ppid, []).append(one.pid)
    queue = [root] if isinstance(root, int) else list(root)
    found: dict[int, ProcessId] = {}
    while queue:
        pid = queue.pop(0)
        queue.extend(child for child in children.get(pid, ()) if child not in found)
        one_seen = seen.get(pid)
        if one_seen is not None and not one_seen.dead and pid not in found:
            found[pid] = ProcessId(pid=pid, start_ticks=one_seen.start_ticks, boot_id=boot_id())
    return list(found.values())


def ancestors(pid: int) -> list[int]:
    """The pids of parent, grandparent, ... up to init."""
    line: list[int] = []
    seen = stat(pid)
    while seen is not None and seen.ppid > 0 and seen.ppid not in line:
        line.append(seen.ppid)
        seen = stat(seen.ppid)
    return line


def cpu_seconds(processes: int | Iterable[ProcessId]) -> float:
    """CPU seconds of a tree (given by its root's pid) or of some processes, waited-for children included."""
    if isinstance(processes, int):
        seen = snapshot()
        return sum(seen[one.pid].cpu_s for one in tree(processes, seen))
    return sum(seen.cpu_s for seen in (stat(one.pid) for one in processes) if seen is not None)


def rss_mb(pid: int) -> float:
    """Resident memory of one process in MiB; 0 when it is gone."""
    seen = stat(pid)
    return 0.0 if seen is None else seen.rss_bytes / (1024 * 1024)


def environ_marked(mark: str) -> list[ProcessId]:
    """Living processes that were started with ``HARNESS_ATTEMPT=<mark>`` in their environment.

    Not found: processes of other users (unless we are root), and those started with a cleared environment.
    """
    entry = f"{MARK}={mark}".encode()
    found = []
    for pid in pids():
        if _has_entry(pid, entry):
            process = ProcessId.of(pid)
            # once more: what we have read was the environment of this very process, not of an earlier one
            if process is not None and _has_entry(pid, entry) and process.alive():
                found.append(process)
    return found


def marks() -> set[str]:
    """The attempts that have a living process with their mark; of any root. The same is not found as above."""
    prefix = f"{MARK}=".encode()
    found = set()
    for pid in pids():
        for entry in (read(pid, "environ") or b"").split(b"\0"):
            if entry.startswith(prefix):
                found.add(entry[len(prefix) :].decode("utf-8", "replace"))
    return found


def _has_entry(pid: int, entry: bytes) -> bool:
    environ = read(pid, "environ")
    return environ is not None and entry in environ and entry in environ.split(b"\0")


def working_below(directories: Iterable[Path]) -> list[ProcessId]:
    """Living processes whose working directory is one of these or below (also when it was removed)."""
    prefixes = [str(directory) for directory in directories]
    found = []
    for pid in pids() if prefixes else ():
        try:
            cwd = os.readlink(f"/proc/{pid}/cwd").removesuffix(" (deleted)")
        except OSError:
            continue
        if any(cwd == prefix or cwd.startswith(prefix + "/") for prefix in prefixes):
            process = ProcessId.of(pid)
            if process is not None and process.alive():
                found.append(process)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Holders:
    """Who has a file open."""

    found: tuple[ProcessId, ...]
    unseen: int
    """Processes of our own user that could not be looked into (they protect themselves, e.g. ssh-agent)."""

    @property
    def proved_none(self) -> bool:
        """No process has it open, as far as this user can know.

        Not covered: processes of other users when we are not root, other PID namespaces, other hosts.
        """
        return not self.found and not self.unseen


def holders(path: Path) -> Holders:
    """Every process that has this file open, by device and inode (names may have changed since).

    A file that does not exist is held by nobody. Costs one readlink per open file of the host: for rare
    questions, such as whether a git lock is stale.
    """
    try:
        wanted = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return Holders(found=(), unseen=0)
    found: list[ProcessId] = []
    unseen = 0
    for pid in pids():
        process = ProcessId.of(pid)
        if process is None:
            continue
        folder = f"/proc/{pid}/fd"
        try:
            fds = os.listdir(folder)
        except PermissionError:
            unseen += _real_uid(pid) == os.getuid()
            continue
        except OSError:
            continue
        if any(_is_file(f"{folder}/{fd}", wanted) for fd in fds):
            found.append(process)
    return Holders(found=tuple(found), unseen=unseen)


def _is_file(link: str, wanted: os.stat_result) -> bool:
    try:
        if not os.readlink(link).startswith("/"):  # sockets, pipes: no stat needed
            return False
        seen = os.stat(link)
    except OSError:
        return False
    return (seen.st_dev, seen.st_ino) == (wanted.st_dev, wanted.st_ino)


def _real_uid(pid: int) -> int:
    for line in (read(pid, "status") or b"").splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[1])
    return -1
