"""Doorbells: a FIFO that wakes one of the processes that wait at it. A hint, never a truth.

A ring may be lost (nobody waits yet, the FIFO is replaced) or come for nothing. Whoever waits therefore opens the
bell first, then looks for work, then waits with a timeout, and looks again when it ends.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import select
import stat
import termios
from collections.abc import Iterable
from pathlib import Path
from typing import Self

_PENDING_MAX = 64
"""Unanswered rings that are worth keeping: more than there are waiters only makes them look for nothing."""


class Bell:
    """One doorbell. Those who only ring never open it for reading; those who wait call `fileno` or `wait`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._epoll: select.epoll | None = None

    # --- ringing ---

    def ring(self) -> bool:
        """Wake one who waits. Never waits, never raises; False when nobody has the bell open."""
        try:
            # ENXIO: no reader. Opened anew each time, because the waiting side may have replaced it.
            fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            if not stat.S_ISFIFO(os.fstat(fd).st_mode):
                return False
            if _pending(fd) < _PENDING_MAX:
                os.write(fd, b"!")
        except OSError as e:
            return e.errno == errno.EAGAIN  # full: they are awake
        finally:
            os.close(fd)
        return True

    # --- waiting ---

    def open(self) -> None:
        """Make the FIFO when there is none (or something else is in its place) and open it. Raises OSError."""
        if self._fd >= 0 and self._in_place():
            return
        self.close()
        while True:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(self.path, 0o600)
            try:
                # O_RDWR: our own write end keeps it from ever reporting "end of file" (fifo(7), Linux only).
                fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue  # removed in between
            except OSError as e:
                if e.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                    raise
                self._clear()  # a symbolic link, a socket or a folder
                continue
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                break
            os.close(fd)
            self._clear()
        self._fd = fd
        self._epoll = select.epoll()
        # EPOLLEXCLUSIVE: one byte wakes one of all the processes that wait, not the herd (epoll_ctl(2)).
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def _clear(self) -> None:
        """Whatever it is, it is not ours, so it is put aside and not deleted."""
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(self.path.with_name(f"{self.path.name}.odd.{os.getpid()}"))

    def _in_place(self) -> bool:
        try:
            return os.path.samestat(self.path.stat(follow_symlinks=False), os.fstat(self._fd))
        except OSError:
            return False

    def fileno(self) -> int:
        """For somebody else's poll; readable when there was a ring."""
        self.open()
        return self._fd

    def wait(self, timeout_s: float | None, extra_fds: Iterable[int] = ()) -> frozenset[int]:
        """Wait for a ring, for one of `extra_fds` to become readable, or for the end of the time.

        -> the descriptors that are ready (`fileno()` for the bell); empty when the time is over. Takes nothing out:
        follow with `take` (one of many workers) or `drain` (the only one who listens). None waits for ever.
        """
        self.open()
        assert self._epoll is not None
        watched: set[int] = set()
        try:
            for fd in extra_fds:
                with contextlib.suppress(FileExistsError):  # the same twice
                    self._epoll.register(fd, select.EPOLLIN)
                    watched.add(fd)
            return frozenset(fd for fd, _ in self._epoll.poll(timeout_s))
        finally:
            for fd in watched:
                with contextlib.suppress(OSError):  # closed by a signal handler meanwhile: gone by itself
                    self._epoll.unregister(fd)

    def take(self) -> bool:
        """Take one ring out. False: another waiter was quicker."""
        return bool(self._read(1))

    def drain(self) -> int:
        """Take all rings out, and say how many there were."""
        return len(self._read(65_536))

    def _read(self, size: int) -> bytes:
        self.open()
        try:
            return os.read(self._fd, size)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Stop waiting. The FIFO stays."""
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pending(fd: int) -> int:
    """Bytes that nobody has read yet."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]
