"""Presence: which incarnations of our processes are alive, proved by a kernel lock and by nothing else.

`state/run/presence/<incarnation>` holds the identity for people to read, and is OFD-locked by its process for life.
A process announces itself before it makes anything in `queue/tmp/`; so a private file there whose incarnation is not
present belongs to the dead. A lock says nothing about another host: its incarnations are taken to be alive.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Self

from harness.atomicfs import FileLock, ensure_dir, held
from harness.errors import StoreError
from harness.layout import Layout
from harness.model import Identity
from harness.procs import host_id, self_id

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Presence:
    """The own incarnation, alive until `close` or the end of the process."""

    def __init__(self, identity: Identity, lock: FileLock) -> None:
        self.identity = identity
        self._lock = lock

    def close(self) -> None:
        """Leave in good order: no file remains. A process that dies without it leaves one for `sweep`."""
        if self._lock.fileno() >= 0:
            self._lock.path.unlink(missing_ok=True)
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def announce(layout: Layout, name: str) -> Presence:
    """Make a new incarnation of the slot `name` (``agent-1``, ``merger.app``, ``coordinator``, ``cli``) known."""
    process = self_id()
    identity = Identity(
        incarnation=new_incarnation(name, time.time()),
        name=name,
        host=host_id(),
        root=str(layout.root),
        pid=process.pid,
        start_ticks=process.start_ticks,
        boot_id=process.boot_id,
    )
    ensure_dir(layout.presence, durable=False)
    public = layout.presence / identity.incarnation
    # Locked under a private name first: nobody ever sees our file without its lock.
    lock = FileLock(public.with_name(f".{public.name}"))
    while not lock.try_lock():
        pass  # a sweep looked at it between our open and our lock; it has removed it, so that is over at once
    lock.write(json.dumps(identity.to_record(), indent=1) + "\n")
    lock.path.rename(public)
    lock.path = public
    return Presence(identity, lock)


def new_incarnation(name: str, wall: float) -> str:
    """``<slot>.<unix time base 36>.<random>``: a name that is never given twice, of lower-case letters, digits, - and ."""
    slot = re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-.") or "process"
    return f"{slot}.{_base36(int(wall))}.{_base36(int.from_bytes(os.urandom(5))):0>8}"


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits


def living(layout: Layout) -> list[Identity]:
    """Who is alive now, in no order."""
    return [identity for path in _files(layout) if not _dead(path) and (identity := _read(path))]


def present(layout: Layout, incarnation: str) -> bool:
    """Is this incarnation alive? False is a proof (of its death or of its end in good order); True may be late."""
    path = layout.presence / incarnation
    return os.path.lexists(path) and not _dead(path)


def sweep(layout: Layout) -> list[Identity]:
    """Remove what dead processes of this host left, and say who they were. Any process may do it, at any time.

    Of several who sweep at once, one removes and reports each.
    """
    dead = []
    for path in _files(layout, private=True):
        with FileLock(path) as lock:
            identity = _read(path)
            if _foreign(identity) or not _lock_existing(lock):
                continue
            path.unlink(missing_ok=True)
        if identity and not path.name.startswith("."):
            dead.append(identity)
    return dead


def _lock_existing(lock: FileLock) -> bool:
    """Like try_lock, but makes no file: it may have been swept, or left in good order, since we listed it."""
    if not lock.path.exists():
        return False
    return lock.try_lock()


def _files(layout: Layout, *, private: bool = False) -> list[Path]:
    try:
        found = list(layout.presence.iterdir())
    except FileNotFoundError:
        return []
    return [p for p in found if private or not p.name.startswith(".")]


def _dead(path: Path) -> bool:
    return not held(path) and not _foreign(_read(path))


def _foreign(identity: Identity | None) -> bool:
    return identity is not None and identity.host != host_id()


def _read(path: Path) -> Identity | None:
    """None when it is gone or not (yet) an identity."""
    try:
        return Identity.from_record(json.loads(path.read_bytes()), path)
    except (OSError, ValueError, StoreError):
        return None
