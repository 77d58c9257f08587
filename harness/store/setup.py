"""A store's folders, its FORMAT, and the self-test that every start runs.

`open_store` refuses to run on a file system that cannot carry the protocol, before anything is claimed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
from pathlib import Path

from harness.errors import ConfigError, StoreError, TryAgainError
from harness.layout import STATE_FOLDERS, STORE_FOLDERS, Layout
from harness.model import VERSION
from harness.store.disk import fsync_path, is_locked, lock_fd

FORMAT = {"v": VERSION, "min_reader": 1}
QUEUE_MODE = 0o1770
PRIVATE_MODE = 0o700
_PASSING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EINTR}
)
"""Errors that say nothing about what the file system can do: a start that meets one is made again later."""


def make_folders(layout: Layout, *, durable: bool = True) -> None:
    """Make what is missing below queue/ and state/; never changes what is there."""
    parents: set[Path] = set()
    for folder, mode in (
        (layout.queue, QUEUE_MODE),
        (layout.state, PRIVATE_MODE),
        *((layout.queue / name, PRIVATE_MODE) for name in STORE_FOLDERS),
        *((layout.state / name, PRIVATE_MODE) for name in STATE_FOLDERS),
    ):
        parents.add(folder.parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, mode)
            os.chmod(folder, mode)
    if durable:
        for parent in parents:  # also for what is there: who made it may have been killed before this
            fsync_path(parent)
    _write_format(layout, durable)


def _write_format(layout: Layout, durable: bool) -> None:
    path = layout.queue / "FORMAT"
    if path.exists():
        return
    tmp = layout.queue / "tmp" / f"format.{os.urandom(4).hex()}"
    tmp.write_text(json.dumps(FORMAT) + "\n")
    if durable:
        fsync_path(tmp)
    try:
        os.link(tmp, path)
    except FileExistsError:
        pass
    finally:
        tmp.unlink()
    if durable:
        fsync_path(layout.queue)


def check_format(layout: Layout) -> None:
    """Raises StoreError when a newer program wrote this store, ConfigError when there is none."""
    path = layout.queue / "FORMAT"
    try:
        data = json.loads(path.read_text())
        needed = int(data["min_reader"])
    except FileNotFoundError:
        raise ConfigError(
            "there is no store here", where=layout.queue, remedy="run: harnessctl init"
        ) from None
    except (ValueError, KeyError, TypeError) as e:
        raise StoreError(f"cannot be read: {e}", where=path, remedy="restore it from a backup") from e
    if needed > VERSION:
        raise StoreError(
            f"this store needs a program that reads format {needed}, this one reads {VERSION}",
            where=path,
            remedy="upgrade harness",
        )


def open_store(layout: Layout, *, durable: bool = True) -> None:
    """Folders, format, one file system, working link(2) and OFD locks. Raises ConfigError or StoreError with the remedy.

    Also makes the process ignore SIGIO: the default action of a lease break would end it.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    make_folders(layout, durable=durable)
    check_format(layout)
    device = os.stat(layout.queue).st_dev
    for name in STORE_FOLDERS:
        if os.stat(layout.queue / name).st_dev != device:
            raise ConfigError(
                "is on another file system than queue/; hard links and renames cannot cross it",
                where=layout.queue / name,
                remedy="remove the mount or the symbolic link",
            )
    self_test(layout)


def self_test(layout: Layout) -> None:
    """link(2) makes a second name of one inode and refuses an existing one; an OFD lock is seen by others."""
    base = layout.queue / "tmp" / f"selftest.{os.urandom(6).hex()}"
    other = base.with_name(f"{base.name}.link")
    fd = -1
    try:
        fd = os.open(base, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.link(base, other)
        if not os.path.samestat(os.stat(base), os.stat(other)):
            raise OSError(errno.ENOTSUP, "link made a copy")
        try:
            os.link(base, other)
        except FileExistsError:
            pass
        else:
            raise OSError(errno.ENOTSUP, "link overwrote an existing name")
        lock_fd(fd)
        probe = os.open(other, os.O_RDWR | os.O_CLOEXEC)
        try:
            if not is_locked(probe):
                raise OSError(errno.ENOTSUP, "locks of open file descriptions do not work")
        finally:
            os.close(probe)
    except OSError as e:
        if e.errno in _PASSING:
            raise TryAgainError(
                f"the queue cannot be used now: {e.strerror}",
                where=layout.queue,
                remedy="make room (df -h, df -i), or look at the disk (dmesg)",
            ) from e
        raise ConfigError(
            f"this file system cannot carry the queue: {e.strerror or e}",
            where=layout.queue,
            remedy="use a local file system (ext4, xfs, btrfs, tmpfs), or NFSv4.2 mounted hard,lookupcache=none",
        ) from e
    finally:
        if fd >= 0:
            os.close(fd)
        base.unlink(missing_ok=True)
        other.unlink(missing_ok=True)


def lease_works(layout: Layout) -> bool:
    """Can the kernel tell whether somebody writes a file here? Without it quiet windows decide (doctor says so)."""
    path = layout.queue / "tmp" / f"lease.{os.urandom(6).hex()}"
    path.touch()
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    finally:
        os.close(fd)
        path.unlink()
    return True
