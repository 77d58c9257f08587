"""What the dead left in queue/: private files that never became cells, and homes into which no drop was moved.

Garbage, no truth. Who is dead is an opinion here (a presence lock, an age), and a wrong one takes nothing but time: a
process whose private file was removed makes another one (`cells.publish`), and a drop whose home was removed before it
was moved in stays in the drop box (`admission.take`).
"""

from __future__ import annotations

from harness.store import ops
from harness.store.ops import Step

STARTING_S = 3600.0
"""Files in queue/tmp/ of a process that starts, before it has a presence (store.setup), are given so long."""
EMPTY_S = 3600.0
"""An empty incoming/<U> that is so old belongs to nobody who still lives."""


def sweep_private(mine: str) -> Step[None]:
    """Remove the private files of incarnations that are not present. `mine` is the caller's own."""
    for name in (yield from ops.ls("queue/tmp")) or ():
        path, owner = f"queue/tmp/{name}", owner_of(name)
        if "." not in owner:
            garbage = yield from ops.older(path, STARTING_S)
        else:
            garbage = owner != mine and not (yield from ops.present(owner))
        if garbage:
            yield from ops.unlink(path)


def sweep_home(home: str) -> Step[None]:
    """Remove incoming/<home>, in which nothing was found; rmdir(2) spares it if a drop was moved in since."""
    folder = f"queue/incoming/{home}"
    if (yield from ops.older(folder, EMPTY_S)):
        yield from ops.rmdir(folder)


def owner_of(name: str) -> str:
    """The incarnation that a private file belongs to: ``<incarnation>.<k>.<what>`` or ``<incarnation>.ballast``."""
    return name.rsplit(".", 1)[0] if name.endswith(".ballast") else name.rsplit(".", 2)[0]
