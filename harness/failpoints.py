"""Mistakes on purpose, in the product: what `./scripts/storm` and `./scripts/power` must find, or they prove nothing.

Off unless HARNESS_FAILPOINTS names some when a process starts, and loud then. Each replaces one method by one that leaves
out a step of docs/protocol.md; nothing else of the product knows that this module exists.

Not here is what a storm cannot see, because something else does it, too. Names that are not fsynced: on ext4 and xfs the
next fsync of any file takes them along, and somebody is only told after one (the explorer's file system does not do that).
Survivors that are not killed: every jail ends by itself with its worker (`tests/integration/test_containment.py` kills both).
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable

from harness.errors import UsageError
from harness.hands import LocalHands
from harness.lanehub import LaneHub
from harness.model import Claim
from harness.store.disk import Disk
from harness.store.dropbox import DropBox
from harness.store.ops import Linked, Moved

VARIABLE = "HARNESS_FAILPOINTS"
MEETING_S = 0.05
"""A link(2) waits so long, as on a slow disk, for others that mean the same name."""


def _nothing(*_: object) -> None:
    return None


def _no_fsync_of_data() -> None:
    def do_fsync(self: Disk, tmp: str) -> None:
        if (fd := self._open.pop(tmp, None)) is not None:
            os.close(fd)

    Disk.do_fsync = do_fsync  # type: ignore[method-assign]


def _no_syncfs() -> None:
    Disk.do_syncfs = _nothing  # type: ignore[method-assign, assignment]


def _no_sync_of_the_hub() -> None:
    from harness.hub.repo import Repo

    Repo.sync = _nothing  # type: ignore[method-assign, assignment]


def _leaves_torn_objects() -> None:
    from harness.hub import torn

    torn._remove_torn = lambda objects: iter(())


def _link_overwrites() -> None:
    real = Disk.do_link

    def do_link(self: Disk, tmp: str, cell: str) -> Linked:
        time.sleep(MEETING_S)
        said = real(self, tmp, cell)
        if said is Linked.EXISTS:
            os.unlink(cell, dir_fd=self.root)
            said = real(self, tmp, cell)
        return said

    Disk.do_link = do_link  # type: ignore[method-assign]
    _hints_are_for_all()


def _hints_are_for_all() -> None:
    """Harmless, as hints are politeness: workers that try the same item meet at its link(2), which they hardly ever do else."""
    from harness.store.hints import Hints

    Hints.take = lambda self, uid: self._where.pop(uid, None) is not None  # type: ignore[method-assign]


def _takes_by_copying() -> None:
    real = Disk.do_rename

    def do_rename(self: Disk, source: str, target: str) -> Moved:
        if source.count("/") > 1:
            return real(self, source, target)
        try:
            shutil.copyfile(self.layout.root / source, self.layout.root / target)
        except FileNotFoundError:
            return Moved.GONE
        return Moved.OK

    Disk.do_rename = do_rename  # type: ignore[method-assign]


def _takes_half_written_drops() -> None:
    from harness.store import dropbox

    DropBox._is_ready = lambda self, name: True  # type: ignore[method-assign]
    dropbox.writer_of = lambda fd: dropbox.Writer.NONE


def _believes_nobody_lives() -> None:
    real = Disk.do_suspect

    def do_suspect(self: Disk, path: str) -> Claim | None:
        claim = self.do_read(path, Claim)
        return claim if isinstance(claim, Claim) else real(self, path)

    Disk.do_suspect = do_suspect  # type: ignore[method-assign]
    LocalHands.clear = lambda self, uid, claim: True  # type: ignore[method-assign]


def _drops_hints() -> None:
    from harness.store.hints import Hints

    Hints.add = _nothing  # type: ignore[method-assign, assignment]


def _merges_again() -> None:
    LaneHub.merged_as = lambda self, tip, uid, n, sha: None  # type: ignore[method-assign]


def _moves_no_target() -> None:
    LaneHub.swap_target = lambda self, held, new, old: "ok"  # type: ignore[method-assign]


def _leaves_its_private_files() -> None:
    Disk.do_unlink = _nothing  # type: ignore[method-assign, assignment]


NAMES: dict[str, tuple[Callable[[], None], str, str]] = {
    "no-fsync-of-data": (_no_fsync_of_data, "power", "a cell is linked before its data is durable"),
    "no-syncfs": (_no_syncfs, "power", "a batch is decided before its items are durable"),
    "no-sync-of-the-hub": (_no_sync_of_the_hub, "power", "cells name commits that are not durable"),
    "leaves-torn-objects": (_leaves_torn_objects, "power", "git builds on what a power loss tore"),
    "link-overwrites": (_link_overwrites, "storm", "a cell is not write-once"),
    "takes-by-copying": (_takes_by_copying, "storm", "a drop is admitted and stays"),
    "takes-half-written-drops": (_takes_half_written_drops, "storm", "no quiet window, no lease"),
    "believes-nobody-lives": (_believes_nobody_lives, "storm", "the lock of a claim is not asked for"),
    "drops-hints": (_drops_hints, "storm", "hints are not made"),
    "merges-again": (_merges_again, "storm", "the target is not asked whether it holds a result"),
    "moves-no-target": (_moves_no_target, "storm", "merged is written, and the target stays where it is"),
    "leaves-its-private-files": (_leaves_its_private_files, "storm", "files in tmp/ are not removed"),
}
"""name -> (how to break it, what must find it, what is left out)"""


def install() -> None:
    """Break what HARNESS_FAILPOINTS names. Raises UsageError for a name that does not exist."""
    wanted = [x for x in os.environ.get(VARIABLE, "").split(",") if x]
    for name in wanted:
        if name not in NAMES:
            raise UsageError(
                f"{VARIABLE}: there is no failpoint {name!r}", remedy=f"known: {', '.join(NAMES)}"
            )
        NAMES[name][0]()
    if wanted:
        sys.stderr.write(f"harness: BROKEN ON PURPOSE ({VARIABLE}={','.join(wanted)})\n")
