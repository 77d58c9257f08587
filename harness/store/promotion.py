"""From waiting/ to open/: one-way, atomic, by any process, as often as anybody likes."""

from __future__ import annotations

from harness.dataclass import dataclass
from harness.model import Item
from harness.store import ops
from harness.store.cells import stub_of, stub_path
from harness.store.names import REJECTED, first_holder
from harness.store.ops import Moved, Step

MET = frozenset({"done", "merged"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Why an item in waiting/ is not eligible; `for_` names what it waits for, in words."""

    for_: tuple[str, ...] = ()
    blocked: bool = False
    """A required dependency was cancelled: nothing but a person moves it on."""
    met: tuple[str, ...] = ()
    """uids of the dependencies that are met, by stubs that may not be durable yet."""


def why_waiting(item: Item) -> Step[Waiting]:
    """What an item in waiting/ still waits for; empty: it is eligible. Reads the stubs by name, at this moment."""
    reasons: list[str] = []
    met: list[str] = []
    blocked = False
    for dep, fixed in item.deps.items():
        uid, stub = fixed, (yield from stub_of(fixed)) if fixed else None
        if uid is None or (stub and stub.outcome == REJECTED):  # unknown then, or it never became an item
            uid = yield from first_holder(dep)
            stub = (yield from stub_of(uid)) if uid else None
        if uid and stub and (stub.outcome in MET or dep in item.optional_deps):
            met.append(uid)
        elif stub:
            blocked = True
            reasons.append(f"{dep} was {stub.outcome}")
        else:
            reasons.append(dep if uid else f"{dep} (unknown id)")
    if item.not_before and not (yield from ops.passed(item.not_before)):
        reasons.append(f"not before {item.not_before}")
    return Waiting(for_=tuple(reasons), blocked=blocked, met=tuple(met))


def promote(item: Item) -> Step[Waiting | None]:
    """waiting/ -> open/ when eligible (or allowed, or cancelled, by a person). None: it is in open/, or was moved on."""
    home = f"queue/waiting/{item.uid}"
    why = yield from why_waiting(item)
    if why.for_:
        names = (yield from ops.ls(home)) or ()
        if "0.grant" not in names and "0.end" not in names:
            return why
        yield from ops.fsync_dir(home)
    for folder in sorted({stub_path(uid).rsplit("/", 1)[0] for uid in why.met}):
        yield from ops.fsync_dir(folder)  # never start on what can vanish
    yield from move_to_open(item.uid, item.priority)
    return None


def move_to_open(uid: str, band: int) -> Step[bool]:
    """The move itself: atomic, no owner. -> whether this call made it.

    The item's own move to waiting/ is made durable first, whoever made it: what follows from the next one (a claim)
    makes only that one durable, and a power loss could bring the item back to before both, with a claim.
    """
    yield from ops.fsync_dir("queue/waiting")
    moved = yield from ops.rename(f"queue/waiting/{uid}", f"queue/open/{uid}")
    yield from ops.fsync_dir("queue/open")
    yield from ops.fsync_dir("queue/waiting")
    if moved is Moved.OK:
        yield from ops.hint(uid, band)
    return moved is Moved.OK
