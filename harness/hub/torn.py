"""What a power loss tears in a hub: loose objects that nobody had made durable, written by agents whose git does not fsync.
Admin directories of worktrees are mended on the way (`slots.mend_admins`).

git takes a file of the right name for the object, whatever is in it: `git add` of the same contents writes nothing, says
nothing, and the next commit cannot be read. So before anything runs in another boot, objects that are not what their names
say are removed. Nothing that a cell names is among them: that was synced before its cell was written. Whoever needs a torn
one can read it no more than one that is gone.

Looked at: every loose object that is empty, and those that were written in the last RECENT_S before the newest one, newest
first; that is many times what Linux keeps in memory (vm.dirty_expire_centisecs: 30 s). Not looked at: packs, objects larger
than LARGEST, and what is beyond BUDGET.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from harness.atomicfs import replace_file
from harness.dataclass import dataclass
from harness.hub.repo import Repo
from harness.hub.slots import mend_admins
from harness.logs import Event
from harness.procs import boot_id

RECENT_S = 600.0
LARGEST = 64 << 20
BUDGET = 512 << 20
"""Bytes that are unpacked of one object, and of all: an agent can write a small object that is large."""
CHUNK = 1 << 20
_FAN = re.compile(r"[0-9a-f]{2}")
_REST = re.compile(r"[0-9a-f]{38}(?:[0-9a-f]{24})?")


@dataclass(frozen=True, slots=True)
class Loose:
    """One file of a loose object."""

    fan: str
    rest: str
    size: int
    written: float
    """ctime: nobody but the clock sets it."""


def mend(repo: Repo) -> int:
    """Once in each boot, before anything works in the hub. -> how many objects were removed.

    May be repeated and interrupted at any time, and done while others work in the hub: no git writes an object in its place.
    Raises OSError when there is no folder of objects, or no note can be written.
    """
    mark, now = repo.shelf / "boot", boot_id()
    if not now or (mark.is_file() and mark.read_text(errors="replace") == now):
        return 0
    mend_admins(repo)
    removed = sum(_remove_torn(repo.path / "objects"))
    if removed:
        repo.emit(Event.TORN_OBJECTS_REMOVED, project=repo.project.name, number=removed)
    replace_file(mark, now.encode(), durable=False)
    return removed


def _remove_torn(objects: Path) -> Iterator[bool]:
    """-> for each that is torn: was it removed?"""
    found = [loose for fan in os.listdir(objects) if _FAN.fullmatch(fan) for loose in _loose(objects, fan)]
    edge = min(max((one.written for one in found), default=0.0), time.time()) - RECENT_S
    budget = BUDGET
    for one in sorted(found, key=lambda one: one.written, reverse=True):
        if one.size and (one.written < edge or budget <= 0):
            continue
        try:
            folder = os.open(objects / one.fan, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            whole, read = _is_whole(folder, one)
            budget -= read
            if not whole:
                os.unlink(one.rest, dir_fd=folder)
                yield True
        except OSError:  # not ours to judge, or gone
            continue
        finally:
            os.close(folder)


def _loose(objects: Path, fan: str) -> Iterator[Loose]:
    try:
        folder = os.open(objects / fan, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # no folder, or one that cannot be read
        return
    try:
        for rest in filter(_REST.fullmatch, os.listdir(folder)):
            with contextlib.suppress(FileNotFoundError):
                info = os.stat(rest, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISREG(info.st_mode):
                    yield Loose(fan, rest, info.st_size, info.st_ctime)
    finally:
        os.close(folder)


def _is_whole(folder: int, one: Loose) -> tuple[bool, int]:
    """-> (is it the object of its name, bytes unpacked). One that is too large to be judged counts as whole.

    Raises OSError, but for a block that the disk cannot give: that is a torn one on btrfs and zfs.
    """
    name = one.fan + one.rest
    seen = hashlib.new("sha1" if len(name) == 40 else "sha256", usedforsecurity=False)
    unpack = zlib.decompressobj()
    read = 0
    fd = os.open(one.rest, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        while not unpack.eof:
            packed = unpack.unconsumed_tail or os.read(fd, CHUNK)
            if not packed:
                return False, read
            data = unpack.decompress(packed, CHUNK)
            seen.update(data)
            read += len(data)
            if read > LARGEST:
                return True, read
        if unpack.unused_data or os.read(fd, 1):
            return False, read
    except zlib.error:
        return False, read
    except OSError as e:
        if e.errno in (errno.EIO, errno.EUCLEAN, errno.EBADMSG):
            return False, read
        raise
    finally:
        os.close(fd)
    return seen.hexdigest() == name, read
