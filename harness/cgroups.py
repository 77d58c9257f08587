"""Control groups of attempts: one cgroup v2 directory ``harness-<mark>`` below our own cgroup.

Used for one thing: to end, and to prove ended, everything that an attempt has started, whatever it did to hide
(cgroup.kill, cgroup.events; kernel documentation, "Control Group v2"). Limits are not set here. A hybrid host has the
v2 hierarchy beside the v1 ones; only v2 is looked at.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from harness import procs
from harness.dataclass import dataclass

PREFIX = "harness-"


def mark_name(mark: str) -> str:
    """The directory name of an attempt. A mark comes from our own uids; anything else is refused."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,99}", mark) or ".." in mark:
        raise ValueError(f"not the mark of an attempt: {mark!r}")
    return PREFIX + mark


def mount_point(mountinfo: str) -> tuple[Path, str] | None:
    """(where the v2 hierarchy is mounted, which of its directories is shown there); proc_pid_mountinfo(5)."""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if right.startswith("cgroup2 ") and len(fields) > 4:
            place = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])
            return Path(place), fields[3]
    return None


def directory(pid: int | str = "self") -> Path | None:
    """The v2 cgroup of a process as a directory that we can see; None without v2, or outside our view of it."""
    try:
        mounted = mount_point(Path("/proc/self/mountinfo").read_text())
        line = next(
            text for text in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if text.startswith("0::")
        )
    except (OSError, StopIteration):
        return None
    if mounted is None:
        return None
    place, shown = mounted
    relative = os.path.relpath(line.removeprefix("0::").removesuffix(" (deleted)"), shown)
    return None if relative.startswith("..") else place / relative


def membership(pid: int) -> str:
    """The v2 path of a process as the kernel prints it, or an empty string."""
    lines = (procs.read(pid, "cgroup") or b"").decode(errors="surrogateescape").splitlines()
    return next((line[3:] for line in lines if line.startswith("0::")), "")


def members(mark: str) -> list[int]:
    """The processes in the attempt's cgroup or one below it, wherever that cgroup is."""
    name = mark_name(mark)
    return [pid for pid in procs.pids() if name in membership(pid).split("/")]


@dataclass(frozen=True, slots=True)
class Group:
    """The cgroup of one attempt. Every method tolerates that it is gone."""

    path: Path

    @classmethod
    def create(cls, base: Path, mark: str) -> Group:
        """Makes it, or finds it made. Raises OSError when `base` is not delegated to us."""
        path = base / mark_name(mark)
        path.mkdir(exist_ok=True)
        return cls(path)

    def exists(self) -> bool:
        return self.path.is_dir()

    def populated(self) -> bool:
        """Whether a process that is not a zombie is in it or below (the kernel's own word)."""
        try:
            return "populated 1" in (self.path / "cgroup.events").read_text()
        except OSError:
            return False

    def pids(self) -> list[int]:
        """All processes in it and below."""
        found: list[int] = []
        for folder in self._folders():
            with contextlib.suppress(OSError):  # removed meanwhile
                found += [int(word) for word in (folder / "cgroup.procs").read_text().split()]
        return found

    def kill(self) -> bool:
        """SIGKILL to all of it at once, forks in flight included. False before Linux 5.14, or not permitted."""
        try:
            (self.path / "cgroup.kill").write_text("1")
        except OSError:
            return False
        return True

    def remove(self) -> bool:
        """True when it is gone. The kernel refuses (EBUSY) while a process is in it."""
        try:
            for folder in self._folders():
                with contextlib.suppress(FileNotFoundError):
                    folder.rmdir()
        except OSError:
            return False
        return True

    def _folders(self) -> Iterator[Path]:
        """Deepest first: an agent that may write here can have made groups of its own."""
        for place, _, _ in os.walk(self.path, topdown=False):
            yield Path(place)
