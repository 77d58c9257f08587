"""What the daemon itself makes and removes in a session's HOME, where an agent may have put anything in its place.

A sandbox holds the agent, not us: a folder that it has replaced by a link would lead us to where it may not write. So every folder
on the way is looked at, and what is no folder is moved aside. Only while nothing of the agent runs.
"""

from __future__ import annotations

import errno
import os
import stat
from itertools import count
from pathlib import Path

from harness.atomicfs import open_plain


def own_folder(home: Path, inside: Path) -> Path:
    """`home`/`inside`, made if need be, with real folders all the way. Raises OSError."""
    place = home
    for part in inside.parts:
        place /= part
        mode = _mode(place)
        if mode is not None and not stat.S_ISDIR(mode):
            put_aside(place)
        place.mkdir(mode=0o700, exist_ok=True)
    return place


def own_file(path: Path) -> Path:
    """The same path, free or a regular file. In a folder that `own_folder` has made. Raises OSError."""
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        put_aside(path)
    return path


def put_aside(path: Path) -> None:
    """Gives what stands there another name beside it. Raises OSError."""
    for k in count(1):
        aside = path.with_name(f".{path.name}.aside.{k}")
        if _mode(aside) is None:
            path.rename(aside)
            return


def read_own(path: Path, limit: int) -> bytes:
    """A regular file of at most `limit` bytes. Raises OSError (EFBIG for a larger one)."""
    fd = open_plain(path)
    try:
        if os.fstat(fd).st_size > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return os.read(fd, limit)
    finally:
        os.close(fd)


def _mode(path: Path) -> int | None:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None
