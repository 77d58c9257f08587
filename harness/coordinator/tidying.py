"""What dead processes left lying around: their presence, and private files that never became cells. Garbage, no truth."""

from __future__ import annotations

from harness import presence
from harness.dataclass import dataclass
from harness.layout import Layout
from harness.model import Identity
from harness.store.disk import Disk
from harness.store.sweeping import sweep_private


@dataclass(slots=True)
class Tidying:
    layout: Layout
    disk: Disk
    incarnation: str
    """Our own."""

    def sweep(self) -> list[Identity]:
        """Remove it. -> who has died since the last sweep by anybody."""
        dead = presence.sweep(self.layout)
        self.disk.run(sweep_private(self.incarnation))
        return dead
