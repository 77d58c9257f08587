"""What dead processes left lying around: their presence, and private files that never became cells. Garbage, no truth."""

from __future__ import annotations

import os
from dataclasses import dataclass

from harness import presence
from harness.clock import Clock
from harness.layout import Layout
from harness.model import Identity
from harness.store.disk import Disk

STARTING_S = 3600.0
"""Files in queue/tmp/ of a process that starts are given so long."""


@dataclass(slots=True)
class Tidying:
    layout: Layout
    clock: Clock
    disk: Disk
    incarnation: str
    """Our own."""

    def sweep(self) -> list[Identity]:
        """Remove it. -> who has died since the last sweep by anybody."""
        dead = presence.sweep(self.layout)
        for name in self.disk.do_ls("queue/tmp") or ():
            if self._garbage(name):
                self.disk.do_unlink(f"queue/tmp/{name}")
        return dead

    def _garbage(self, name: str) -> bool:
        """Private files of incarnations whose presence lock is free."""
        owner = name.rsplit(".", 1)[0] if name.endswith(".ballast") else name.rsplit(".", 2)[0]
        if "." not in owner:  # of a process that starts, before it has a presence (store.setup)
            return self._age_s(f"queue/tmp/{name}") > STARTING_S
        return owner != self.incarnation and not presence.present(self.layout, owner)

    def _age_s(self, path: str) -> float:
        try:
            return self.clock.wall() - os.lstat(self.layout.root / path).st_mtime
        except OSError:
            return 0.0
