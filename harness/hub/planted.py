"""What agents put among the files of git that they may write, found and removed without following a link.

A path is an agent's to change between two looks at it: folders are opened one by one, and what is in them is named by them.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from harness.dataclass import dataclass

DEEPEST = 40
"""Folders below one another in which is looked: git makes fewer."""
LARGEST = 1 << 30
"""Bytes. An index of a million files has 150 MB."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something that is no folder. Valid until the next one is asked for."""

    folder: int
    name: str
    path: str
    """From the top, for people."""
    info: os.stat_result

    @property
    def plain(self) -> bool:
        """A file that git may have made."""
        return stat.S_ISREG(self.info.st_mode) and self.info.st_size <= LARGEST

    def read(self, most: int) -> bytes:
        """Raises OSError."""
        fd = os.open(
            self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.folder
        )
        try:
            return os.read(fd, most)
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Never raises: a folder that may not be written keeps what is in it."""
        with contextlib.suppress(OSError):
            os.unlink(self.name, dir_fd=self.folder)


def below(top: Path) -> Iterator[Entry]:
    """Everything below a folder that is none. What cannot be read is passed over; never raises OSError."""
    try:
        fd = os.open(top, _FOLDER)
    except OSError:
        return
    try:
        yield from _below(fd, "", 0)
    finally:
        os.close(fd)


def _below(fd: int, path: str, depth: int) -> Iterator[Entry]:
    for name in _names(fd):
        try:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            inner = os.open(name, _FOLDER, dir_fd=fd) if stat.S_ISDIR(info.st_mode) else -1
        except OSError:
            continue
        if inner < 0:
            yield Entry(folder=fd, name=name, path=path + name, info=info)
            continue
        try:
            if depth < DEEPEST:
                yield from _below(inner, f"{path}{name}/", depth + 1)
        finally:
            os.close(inner)


def _names(fd: int) -> list[str]:
    try:
        return os.listdir(fd)
    except OSError:
        return []


def make_writable(folder: Path) -> None:
    """A folder of ours that an agent has closed. Follows no link; never raises OSError."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            if mode & stat.S_IRWXU != stat.S_IRWXU:
                os.chmod(f"/proc/self/fd/{fd}", mode | stat.S_IRWXU)
        finally:
            os.close(fd)


def holds_repository(top: Path) -> bool:
    """Whether there is a `.git` somewhere below. As deep as the folders are; links are not followed."""
    return any(path.endswith("/.git") for path in names_below(top))


def names_below(top: Path) -> Iterator[str]:
    """The path of everything below, folders before what is in them. To look only: a path may lead elsewhere a moment later."""
    pending = [os.fspath(top)]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                yield entry.path
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
