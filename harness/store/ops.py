"""The operations of the protocol: one function each, typed, yielding exactly one tuple.

A protocol generator says ``reply = yield from ops.link(tmp, cell)``. The interpreter (`disk.Disk`, or a model) gets
``("link", tmp, cell)`` and sends the reply back. Paths are relative to the root (``queue/open/<uid>``). Nothing here
reads a clock or touches a disk; time enters only through the replies of `suspect`, `passed` and `older`.
"""

from __future__ import annotations

from collections.abc import Generator
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from harness.model import Claim, Record

Op: TypeAlias = tuple[Any, ...]
T = TypeVar("T")
R = TypeVar("R", bound=Record)
Step: TypeAlias = Generator[Op, Any, T]


class Linked(StrEnum):
    """What link(2) said."""

    OK = "ok"
    EXISTS = "EEXIST"
    GONE = "ENOENT"
    UNKNOWN = "?"
    """EIO, ETIMEDOUT, ESTALE: perhaps made. `same` decides."""


class Moved(StrEnum):
    """What rename(2) said."""

    OK = "ok"
    GONE = "ENOENT"
    EXISTS = "EEXIST"
    STUCK = "EPERM"
    """A drop that nobody may move (immutable, mounted, another's in a folder that is not ours). Of drops only."""


# ---- names and cells ---------------------------------------------------------------------------------------------


def ls(folder: str) -> Step[tuple[str, ...] | None]:
    """Names in a folder, sorted, without dot files; None: no such folder. Not a snapshot."""
    reply: tuple[str, ...] | None = yield ("ls", folder)
    return reply


def read(path: str, kind: type[R]) -> Step[R | None]:
    """One record by name; None: ENOENT. Raises StoreError when torn."""
    reply: R | None = yield ("read", path, kind)
    return reply


def make(tmp: str, record: Record, lock: bool = False) -> Step[None]:
    """O_EXCL create in queue/tmp/, OFD lock if asked (before anybody can see it), write."""
    yield ("make", tmp, record, lock)


def stage(tmp: str, record: Record) -> Step[None]:
    """O_EXCL create in queue/tmp/, write, close: one of many private files that a later `syncfs` makes durable."""
    yield ("stage", tmp, record)


def fsync(tmp: str) -> Step[None]:
    """Make the data durable; a failure ends the process."""
    yield ("fsync", tmp)


def fsync_dir(folder: str) -> Step[None]:
    """Make the names in a folder durable; a folder that moved away is no error."""
    yield ("fsync_dir", folder)


def link(tmp: str, cell: str) -> Step[Linked]:
    """The linearization point."""
    reply: Linked = yield ("link", tmp, cell)
    return reply


def same(tmp: str, cell: str) -> Step[bool]:
    """Are both names the same inode? (a lost LINK reply)"""
    reply: bool = yield ("same", tmp, cell)
    return reply


def unlink(tmp: str) -> Step[None]:
    yield ("unlink", tmp)


def unlock(tmp: str) -> Step[None]:
    """Close the ticket that `make(lock=True)` left open."""
    yield ("unlock", tmp)


def die(what: str, where: str) -> Step[None]:
    """Neither won nor lost: the process must end. Never returns."""
    yield ("die", what, where)


# ---- folders -----------------------------------------------------------------------------------------------------


def mkdir(folder: str) -> Step[bool]:
    """EEXIST is no error. False: ENOENT, what it would be in was moved away."""
    reply: bool = yield ("mkdir", folder)
    return reply


def ensure_dir(folder: str) -> Step[None]:
    """mkdir, and fsync of its parent also when it was there: a folder is durable before anything moves into it."""
    yield ("ensure_dir", folder)


def rmdir(folder: str) -> Step[None]:
    """Remove an empty folder of ours; not empty or gone is no error."""
    yield ("rmdir", folder)


def rename(source: str, target: str) -> Step[Moved]:
    reply: Moved = yield ("rename", source, target)
    return reply


def build(folder: str, record: Record) -> Step[bool]:
    """mkdir folder and write folder/item.json, in a tree of our own that nobody else reads. Not yet durable.

    False: ENOENT, the tree was moved away.
    """
    reply: bool = yield ("build", folder, record)
    return reply


def syncfs() -> Step[None]:
    """Everything written so far on the store's file system is durable."""
    yield ("syncfs",)


# ---- hints (no truth) ----------------------------------------------------------------------------------------------


def hint(uid: str, band: int) -> Step[None]:
    """Say that an item is probably claimable."""
    yield ("hint", uid, band)


def unhint(uid: str) -> Step[None]:
    yield ("unhint", uid)


# ---- the world outside the store ------------------------------------------------------------------------------------


def drops() -> Step[tuple[str, ...]]:
    """File names in the drop box that are ready to be taken."""
    reply: tuple[str, ...] = yield ("drops",)
    return reply


def parse(folder: str, raw: str) -> Step[Any]:
    """Read a taken drop -> drops.Drop; None while a writer still has it open."""
    return (yield ("parse", folder, raw))


def fresh() -> Step[str]:
    """A nonce ``[a-z0-9]{10}`` that was never used before."""
    reply: str = yield ("fresh",)
    return reply


def passed(moment: str) -> Step[bool]:
    """Has this RFC 3339 time come, by the wall clock?"""
    reply: bool = yield ("passed", moment)
    return reply


def older(path: str, seconds: float) -> Step[bool]:
    """Was it changed so long ago, by the wall clock? Of what is gone: no."""
    reply: bool = yield ("older", path, seconds)
    return reply


def present(incarnation: str) -> Step[bool]:
    """Does it live, as far as its presence lock says? An opinion: nothing but garbage may depend on it."""
    reply: bool = yield ("present", incarnation)
    return reply


def suspect(claim: str) -> Step[Claim | None]:
    """The claim, if its owner is dead (lock free: the kernel's word) or seems hung (an opinion); else None."""
    reply: Claim | None = yield ("suspect", claim)
    return reply


def clear(uid: str, claim: Claim) -> Step[bool]:
    """Kill what is left of an attempt on this host. False: its owner lives on; do not expire now."""
    reply: bool = yield ("clear", uid, claim)
    return reply


def interrupt(uid: str, n: int) -> Step[None]:
    """The attempt is decided: make its owner stop. Only after n.end was won."""
    yield ("interrupt", uid, n)


# ---- the hub (section 7 of the protocol) ------------------------------------------------------------------------------


def lane(project: str) -> Step[Any]:
    return (yield ("lane", project))


def swap_lane(project: str, old: Any, pending: dict[str, Any] | None, keep_epoch: bool) -> Step[Any]:
    """CAS of refs/harness/lane; None: refused."""
    return (yield ("swap_lane", project, old, pending, keep_epoch))


def target(project: str) -> Step[str]:
    reply: str = yield ("target", project)
    return reply


def merged_as(project: str, tip: str, uid: str, n: int, sha: str) -> Step[str | None]:
    """The merge commit of (uid, n) on the first-parent line of tip, or None."""
    reply: str | None = yield ("merged_as", project, tip, uid, n, sha)
    return reply


def build_merge(project: str, tip: str, uid: str, n: int, sha: str) -> Step[Any]:
    """Merge and run the gates -> Verdict: merged (candidate commit) or returned, with the evidence."""
    return (yield ("build_merge", project, tip, uid, n, sha))


def swap_target(project: str, held: Any, new: str, old: str) -> Step[str]:
    """One transaction: verify the lane, move the target. -> ``ok``, ``lane`` or ``target`` (refused)."""
    reply: str = yield ("swap_target", project, held, new, old)
    return reply


def sync_hub(project: str) -> Step[None]:
    yield ("sync_hub", project)
