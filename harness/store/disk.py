"""The operations of the protocol as system calls. Crash-only: an error that the protocol does not name ends the process.

All paths are opened relative to one directory descriptor of the root. A failed fsync is never retried. With
``durability: process`` every fsync is left out; then nothing that is said about power loss holds.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import secrets
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from harness.clock import Clock, moment_of
from harness.errors import StoreError, UnreadableRecordError
from harness.layout import Layout
from harness.model import Claim, Record
from harness.store.hints import Hints
from harness.store.ops import Linked, Moved, Step

if TYPE_CHECKING:  # reading the store must not cost the import of the validation library
    from harness.store.dropbox import DropBox

T = TypeVar("T")
_LOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux: fcntl(2), "Open file description locks"
_OFD_GETLK, _OFD_SETLK = 36, 37
_LIBC = ctypes.CDLL(None, use_errno=True)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_MAX_RECORD = 64 << 20
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW
BALLAST_BYTES = 64 << 10
_STUCK = frozenset({errno.EPERM, errno.EACCES, errno.EBUSY, errno.EXDEV})


class Hands(Protocol):
    """What the protocol needs done to processes; given by whoever runs generators that expire or interrupt."""

    def suspects(self, claim: Claim, path: str, token: tuple[int, int]) -> bool:
        """Does an owner whose lock is held seem hung? An opinion; `token` changes with every beat."""
        ...

    def clear(self, uid: str, claim: Claim) -> bool:
        """Kill what is left of the attempt on this host; False when its owner lives on."""
        ...

    def interrupt(self, uid: str, n: int) -> None:
        """Make the owner of a decided attempt look at its end now."""
        ...

    def present(self, incarnation: str) -> bool:
        """Is its presence locked?"""
        ...


class Hub(Protocol):
    """The operations of the lane on one project's hub."""

    def lane(self) -> Any: ...
    def swap_lane(self, old: Any, pending: dict[str, Any] | None, keep_epoch: bool) -> Any: ...
    def target(self) -> str: ...
    def merged_as(self, tip: str, uid: str, n: int, sha: str) -> str | None: ...
    def build_merge(self, tip: str, uid: str, n: int, sha: str) -> Any: ...
    def swap_target(self, held: Any, new: str, old: str) -> str: ...
    def sync_hub(self) -> None: ...


class Disk:
    """Runs protocol generators on the real store below one root.

    Not thread-safe. A ticket stays open (and its OFD lock held) from `make(lock=True)` until `unlock`.
    """

    def __init__(
        self,
        layout: Layout,
        clock: Clock,
        *,
        durable: bool = True,
        dropbox: DropBox | None = None,
        hints: Hints | None = None,
        hands: Hands | None = None,
        hubs: Callable[[str], Hub] | None = None,
    ) -> None:
        self.layout = layout
        self.clock = clock
        self.durable = durable
        self.dropbox = dropbox
        self.hints = hints or Hints(layout)
        self.hands = hands
        self.hubs = hubs
        self._base = str(layout.root)
        self.root = os.open(layout.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: dict[str, int] = {}
        """Private files between `make` and `fsync`."""
        self._tickets: dict[str, int] = {}
        """Locked claims, open until `unlock`."""
        self._ensured: set[str] = set()
        self._ballast: tuple[str, int] | None = None
        self._do: dict[str, Callable[..., Any]] = {
            name.removeprefix("do_"): getattr(self, name) for name in dir(self) if name.startswith("do_")
        }

    def close(self) -> None:
        """Release every ticket, the ballast and the root. Locks held through this object are free afterwards."""
        if self._ballast is not None:
            self.do_unlink(self._ballast[0])
            self._drop_ballast()
        for fd in (*self._open.values(), *self._tickets.values(), self.root):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._open.clear()
        self._tickets.clear()

    def run(self, step: Step[T]) -> T:
        """Run one protocol generator to its end."""
        do = self._do
        try:
            op = next(step)
            while True:
                try:
                    reply = do[op[0]](*op[1:])
                except UnreadableRecordError as e:
                    op = step.throw(e)  # `look` answers it; everywhere else it is passed on to our caller
                else:
                    op = step.send(reply)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def apply(self, op: tuple[Any, ...]) -> Any:
        """One operation; for tests that drive a generator step by step."""
        return self._do[op[0]](*op[1:])

    # ---- tickets -----------------------------------------------------------------------------------------------------

    def beat(self, ticket: str) -> None:
        """T8: move the claim's mtime on, strictly. It is a token that observers compare; no clock is read from it."""
        fd = self._tickets[ticket]
        before = os.fstat(fd).st_mtime_ns
        now = max(before + 1, int(self.clock.wall() * 1e9))
        os.utime(fd, ns=(now, now))

    def keep_ballast(self, name: str) -> None:
        """Reserve a little disk so that an end can still be recorded when the disk is full."""
        path = f"queue/tmp/{name}.ballast"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600, dir_fd=self.root)
        try:
            os.posix_fallocate(fd, 0, BALLAST_BYTES)
        except OSError:
            os.close(fd)
            return
        self._ballast = (path, fd)

    def _drop_ballast(self) -> bool:
        if self._ballast is None:
            return False
        fd = self._ballast[1]
        os.ftruncate(fd, 0)
        os.close(fd)
        self._ballast = None
        return True

    # ---- cells -------------------------------------------------------------------------------------------------------

    def do_ls(self, folder: str) -> tuple[str, ...] | None:
        try:
            names = os.listdir(
                f"{self._base}/{folder}"
            )  # by path: by descriptor costs twice the system calls
        except (FileNotFoundError, NotADirectoryError):  # a stranger's file among our folders is no item
            return None
        return tuple(sorted(x for x in names if x[0] != "."))

    def do_read(self, path: str, kind: type[Record]) -> Record | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _FLAGS, dir_fd=self.root)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            raw = _read_all(fd)
        finally:
            os.close(fd)
        record: Record = _decode(raw, kind, path)
        return record

    def do_make(self, tmp: str, record: Record, lock: bool) -> None:
        fd = os.open(tmp, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600, dir_fd=self.root)
        (self._tickets if lock else self._open)[tmp] = fd
        if lock:
            lock_fd(fd)
        data = record.to_bytes()
        try:
            _write_all(fd, data)
        except OSError as e:
            if e.errno != errno.ENOSPC or not self._drop_ballast():
                raise
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
            _write_all(fd, data)
        if not lock and not self.durable:
            os.close(self._open.pop(tmp))

    def do_stage(self, tmp: str, record: Record) -> None:
        fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600, dir_fd=self.root)
        try:
            _write_all(fd, record.to_bytes())
        finally:
            os.close(fd)

    def do_fsync(self, tmp: str) -> None:
        fd = self._tickets.get(tmp)
        if fd is not None:
            if self.durable:
                os.fsync(fd)
        elif self.durable:
            fd = self._open.pop(tmp)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def do_fsync_dir(self, folder: str) -> None:
        if not self.durable:
            return
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.root)
        except FileNotFoundError:
            return
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def do_link(self, tmp: str, cell: str) -> Linked:
        try:
            os.link(tmp, cell, src_dir_fd=self.root, dst_dir_fd=self.root, follow_symlinks=False)
        except FileExistsError:
            return Linked.EXISTS
        except FileNotFoundError:
            return Linked.GONE
        except OSError as e:
            if e.errno in (errno.EIO, errno.ETIMEDOUT, errno.ESTALE):
                return Linked.UNKNOWN
            raise
        return Linked.OK

    def do_same(self, tmp: str, cell: str) -> bool:
        try:
            a = os.stat(tmp, dir_fd=self.root, follow_symlinks=False)
            b = os.stat(cell, dir_fd=self.root, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)

    def do_unlink(self, tmp: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tmp, dir_fd=self.root)

    def do_unlock(self, tmp: str) -> None:
        fd = self._tickets.pop(tmp, None)
        if fd is not None:
            os.close(fd)

    def do_die(self, what: str, where: str) -> None:
        raise StoreError(
            f"{what} failed and nobody knows whether it was done",
            where=self.layout.root / where,
            remedy="look at the disk (dmesg); nothing is lost, the next start recovers",
        )

    # ---- folders -----------------------------------------------------------------------------------------------------

    def do_mkdir(self, folder: str) -> bool:
        try:
            os.mkdir(folder, 0o700, dir_fd=self.root)
        except FileExistsError:
            pass
        except FileNotFoundError:
            return False
        return True

    def do_ensure_dir(self, folder: str) -> None:
        if folder in self._ensured:  # made durable by this process, and nobody removes folders of the store
            return
        self.do_mkdir(folder)
        parent = folder.rsplit("/", 1)[0]
        there = self.do_ls(parent) or ()
        self.do_fsync_dir(parent)  # of all that are there, not of this one alone
        self._ensured.update(f"{parent}/{name}" for name in there)

    def do_rmdir(self, folder: str) -> None:
        try:
            os.rmdir(folder, dir_fd=self.root)
        except OSError as e:
            if e.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise

    def do_rename(self, source: str, target: str) -> Moved:
        try:
            os.rename(source, target, src_dir_fd=self.root, dst_dir_fd=self.root)
        except OSError as e:
            if e.errno == errno.ENOENT:
                self._ensured.discard(target.rsplit("/", 1)[0])  # a day that was rolled up is made again
                return Moved.GONE
            if e.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return Moved.EXISTS
            if e.errno in _STUCK and self.dropbox and source.count("/") == 1:  # a stranger's file, not ours
                self.dropbox.stuck(source.rpartition("/")[2], e.strerror or str(e))
                return Moved.STUCK
            raise
        return Moved.OK

    def do_build(self, folder: str, record: Record) -> bool:
        try:
            os.mkdir(folder, 0o700, dir_fd=self.root)
            self.do_stage(f"{folder}/item.json", record)
        except FileNotFoundError:
            return False
        return True

    def do_syncfs(self) -> None:
        if self.durable and _LIBC.syncfs(self.root):
            raise OSError(ctypes.get_errno(), "syncfs", str(self.layout.root))

    # ---- hints, drops, time ------------------------------------------------------------------------------------------

    def do_hint(self, uid: str, band: int) -> None:
        self.hints.add(uid, band)

    def do_unhint(self, uid: str) -> None:
        self.hints.remove(uid)

    def do_drops(self) -> tuple[str, ...]:
        return self.dropbox.ready() if self.dropbox else ()

    def do_parse(self, folder: str, raw: str) -> Any:
        assert self.dropbox is not None
        return self.dropbox.parse(folder, raw)

    def do_fresh(self) -> str:
        # 36 does not divide 256: the first letters are a little likelier, and 51 bits are still 50.
        return "".join(_ALPHABET[byte % 36] for byte in secrets.token_bytes(10))

    def do_passed(self, moment: str) -> bool:
        when = moment_of(moment)
        return when is None or self.clock.wall() >= when

    def do_older(self, path: str, seconds: float) -> bool:
        try:
            return self.clock.wall() - os.lstat(f"{self._base}/{path}").st_mtime > seconds
        except OSError:
            return False

    # ---- processes ---------------------------------------------------------------------------------------------------

    def do_present(self, incarnation: str) -> bool:
        return self.hands.present(incarnation) if self.hands else True

    def do_suspect(self, path: str) -> Claim | None:
        try:
            fd = os.open(path, os.O_RDWR | _FLAGS, dir_fd=self.root)
        except FileNotFoundError:
            return None
        try:
            claim: Claim = _decode(_read_all(fd), Claim, path)
            if not is_locked(fd):
                return claim
            info = os.fstat(fd)
        finally:
            os.close(fd)
        if self.hands and self.hands.suspects(claim, path, (info.st_ino, info.st_mtime_ns)):
            return claim
        return None

    def do_clear(self, uid: str, claim: Claim) -> bool:
        return self.hands.clear(uid, claim) if self.hands else True

    def do_interrupt(self, uid: str, n: int) -> None:
        if self.hands:
            self.hands.interrupt(uid, n)

    # ---- the hub -----------------------------------------------------------------------------------------------------

    def _hub(self, project: str) -> Hub:
        assert self.hubs is not None
        return self.hubs(project)

    def do_lane(self, project: str) -> Any:
        return self._hub(project).lane()

    def do_swap_lane(self, project: str, old: Any, pending: dict[str, Any] | None, keep_epoch: bool) -> Any:
        return self._hub(project).swap_lane(old, pending, keep_epoch)

    def do_target(self, project: str) -> str:
        return self._hub(project).target()

    def do_merged_as(self, project: str, tip: str, uid: str, n: int, sha: str) -> str | None:
        return self._hub(project).merged_as(tip, uid, n, sha)

    def do_build_merge(self, project: str, tip: str, uid: str, n: int, sha: str) -> Any:
        return self._hub(project).build_merge(tip, uid, n, sha)

    def do_swap_target(self, project: str, held: Any, new: str, old: str) -> str:
        return self._hub(project).swap_target(held, new, old)

    def do_sync_hub(self, project: str) -> None:
        self._hub(project).sync_hub()


def _write_all(fd: int, data: bytes) -> None:
    while (wrote := os.write(fd, data)) < len(data):
        data = data[wrote:]


def _read_all(fd: int) -> bytes:
    raw = os.read(fd, 64 << 10)
    if len(raw) < 64 << 10:
        return raw
    parts, size = [raw], len(raw)
    while (more := os.read(fd, 1 << 20)) and size < _MAX_RECORD:
        parts.append(more)
        size += len(more)
    return b"".join(parts)


_PARSE = json.JSONDecoder().decode


def _decode(raw: bytes, kind: type[Record], where: object) -> Any:
    try:
        data: Mapping[str, Any] = _PARSE(raw.decode())
    except (ValueError, RecursionError) as e:
        raise UnreadableRecordError(
            f"{kind.what} is torn: {e}", where=where, remedy="run: harnessctl fsck"
        ) from e
    return kind.from_record(data, where)


def is_locked(fd: int) -> bool:
    """Is the inode locked through another open file description? F_OFD_GETLK never reports the own one."""
    probe = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    return bool(_LOCK.unpack(fcntl.fcntl(fd, _OFD_GETLK, probe))[0] != fcntl.F_UNLCK)


def lock_fd(fd: int) -> None:
    """Take the write lock of the whole inode for this open file description. Raises OSError (EAGAIN) when it is taken."""
    fcntl.fcntl(fd, _OFD_SETLK, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))


def fsync_path(path: os.PathLike[str]) -> None:
    """fsync a file or folder by name."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
