"""Whole files and kernel locks: what everything outside of the store uses to write so that no reader sees a half.

The store has its own operations (`store/disk.py`), because each of its steps is a step of the protocol.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import shutil
import stat
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Self

# Open file description locks, fcntl(2). Unlike POSIX locks they belong to the open file: closing another
# descriptor of the same file does not drop them, and the kernel frees them when the last holder is gone.
_F_OFD_GETLK = 36
_F_OFD_SETLK = 37
_FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux
_WHOLE = (os.SEEK_SET, 0, 0, 0)  # whence, start, length 0 = to the end, pid must be 0


def replace_file(path: Path, data: bytes, *, durable: bool, mode: int = 0o600) -> None:
    """Write `data` to a private name in the same folder and rename it to `path`: readers see the old or the new.

    A link at `path` is replaced, not followed. `durable`: after the return it survives power loss. Otherwise it
    survives any crash of processes, and power loss may leave the old, the new, or (on some file systems) an empty
    file. Raises OSError; nothing is left behind then.
    """
    with _replacing(path, mode) as fd:
        write_all(fd, data)
        if durable:
            os.fsync(fd)
    if durable:
        fsync_dir(path.parent)


def replace_by_copy(path: Path, source: BinaryIO, *, mode: int, mtime_ns: int) -> None:
    """The same with what can still be read of `source`, of any size; not durable. Raises OSError."""
    with _replacing(path, mode) as fd:
        os.fchmod(fd, mode)
        with open(fd, "wb", closefd=False) as file:
            shutil.copyfileobj(source, file, 1 << 20)
        os.utime(fd, ns=(mtime_ns, mtime_ns))


@contextlib.contextmanager
def _replacing(path: Path, mode: int) -> Iterator[int]:
    """A private file, open for writing. It becomes `path` at the end of the block, or is gone when the block raises."""
    private = path.with_name(f".{path.name[:100]}.{os.urandom(6).hex()}.tmp")
    fd = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        try:
            yield fd
        finally:
            os.close(fd)
        private.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            private.unlink()
        raise


def open_plain(path: Path | str, *, dir_fd: int | None = None) -> int:
    """Open a file for reading where others may have put anything: never waits, follows no link. -> its descriptor.

    Raises OSError, also (EINVAL) for what is no regular file: a FIFO, a folder, a device.
    """
    # O_NONBLOCK: to open a FIFO waits for a writer, fifo(7).
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def write_all(fd: int, data: bytes) -> None:
    """write(2) until all is written; a short write is legal (signals, a nearly full disk)."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def fsync_dir(path: Path) -> None:
    """Make the names in a folder durable. A file system that cannot (EINVAL) is taken to need none of it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
    finally:
        os.close(fd)


def ensure_dir(path: Path, *, durable: bool = True, mode: int = 0o700) -> None:
    """Make a folder and what is missing above it; `durable`: each new name is fsynced in its parent."""
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for folder in reversed(missing):
        try:
            folder.mkdir(mode=mode)
        except FileExistsError:
            if not folder.is_dir():
                raise
        else:
            if durable:
                fsync_dir(folder.parent)


def syncfs(path: Path) -> None:
    """Make everything on the file system that holds `path` durable: syncfs(2). Raises OSError (EIO, ENOSPC ...)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _libc_syncfs()(fd)
    finally:
        os.close(fd)


@functools.cache
def _libc_syncfs() -> Callable[[int], None]:
    import ctypes  # 1 MB that most of our processes do not need

    function = ctypes.CDLL(None, use_errno=True).syncfs

    def call(fd: int) -> None:
        if function(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"syncfs: {os.strerror(number)}")

    return call


def try_lock(fd: int) -> bool:
    """Lock the open file of `fd` for writing, without waiting. False: another open file holds it."""
    try:
        fcntl.fcntl(fd, _F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, *_WHOLE))
    except OSError as e:
        if e.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def locked_by_other(fd: int) -> bool:
    """Does another open file hold a lock on the inode of `fd`? Never reports a lock of `fd` itself."""
    answer = fcntl.fcntl(fd, _F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, *_WHOLE))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


POLL_S = 0.01


class FileLock:
    """A kernel lock on a file that stays in its place: freed by the kernel when its holder is gone, however it went.

    The file is made when missing and never removed by this class. A child that inherited the descriptor would keep
    the lock: it is close-on-exec, so only fork without exec can do that, which we never do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def _open(self) -> int:
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        return self._fd

    def try_lock(self) -> bool:
        """True: it is ours until `close`. False: somebody holds it. Never waits."""
        while True:
            if not try_lock(self._open()):
                self.close()
                return False
            if self._in_place():
                return True
            self.close()  # the file was removed or replaced between open and lock: that one locks nothing

    def lock(self, patience_s: float) -> bool:
        """As `try_lock`, asked again and again for `patience_s`. For locks that are held for moments."""
        deadline = time.monotonic() + patience_s
        while not self.try_lock():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def _in_place(self) -> bool:
        try:
            there = self.path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))

    def held_by_other(self) -> bool:
        """Is it held by somebody who is not this object? A missing file is held by nobody."""
        if self._fd >= 0:
            return locked_by_other(self._fd)
        return held(self.path)

    def write(self, text: str) -> None:
        """For people: who holds it. Only the holder may call this."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        """Give the lock back. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def held(path: Path) -> bool:
    """Is the file at `path` locked by anybody, us included? A missing file is not. Creates nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return locked_by_other(fd)
    finally:
        os.close(fd)
