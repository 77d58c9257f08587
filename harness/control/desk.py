"""A visit at a store: who acts, through which disk, under which configuration, and whom to wake afterwards."""

from __future__ import annotations

import functools
import os
import signal
from typing import TYPE_CHECKING, Any, Self

from harness import procs, reports, status
from harness.bell import Bell
from harness.clock import Clock, SystemClock, rfc3339
from harness.errors import StoreError
from harness.layout import PHASES, Layout
from harness.logs import Event, Level
from harness.model import Claim
from harness.presence import Presence, announce
from harness.procs import ProcessId
from harness.store.cells import Actor
from harness.store.disk import Disk
from harness.store.setup import check_format
from harness.store.view import View

if TYPE_CHECKING:  # reading must not cost the import of the validation library
    from harness.config import Config


class Desk:
    """Opened for one command or one request. Not thread-safe. Close it, or use it as a context.

    Everything is written durably, whatever `durability` says: people's acts are few.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        by: str = "",
        name: str = "cli",
        clock: Clock | None = None,
        any_format: bool = False,
    ) -> None:
        """`any_format`: do not refuse a store whose FORMAT is lost, for whoever repairs it."""
        if not any_format:
            check_format(layout)
            _whole(layout)
        self.layout = layout
        self.clock = clock or SystemClock()
        self.by = by or user_name()
        """Who acts, as records and events name them."""
        self.name = name
        self._presence: Presence | None = None
        self.disk = Disk(layout, self.clock, hands=_Voice(layout), hubs=self.hub)
        self.view = View(self.disk)

    def close(self) -> None:
        self.disk.close()
        if self._presence is not None:
            self._presence.close()

    @functools.cached_property
    def actor(self) -> Actor:
        """Our incarnation, announced before it makes anything in queue/tmp/; who only reads leaves no trace."""
        self._presence = announce(self.layout, self.name)
        return Actor(self._presence.identity, stamp=self.stamp)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stamp(self) -> str:
        """Now, as records say it."""
        return rfc3339(self.clock.wall())

    @functools.cached_property
    def config(self) -> Config:
        """Raises ConfigError; loaded when first needed, since most reading does without."""
        from harness.config import load

        return load(self.layout.config, cache=self.layout.validated)

    def coordinator(self) -> ProcessId | None:
        """The living coordinator of this root."""
        return status.coordinator_process(self.layout)

    def ring(self, *, work: bool = False) -> None:
        """Tell the coordinator that something changed, and, with `work`, a worker that there may be something to do."""
        Bell(self.layout.bell("coordinator")).ring()
        if work:
            Bell(self.layout.bell("workers")).ring()

    def emit(self, event: Event, **values: str | int | None) -> None:
        """Write one event of a person's act into the durable stream."""
        from harness.events import EventStream

        stream = EventStream(self.layout, self.clock, self.name)
        try:
            stream.emit(event, Level.INFO, by=self.by, **values)
            stream.sync()
        finally:
            stream.close()

    def hub(self, project: str) -> Any:
        """The hub of a project, for the lane. Raises ConfigError for a project that is not configured any more."""
        from harness.control.changes import open_hub

        return open_hub(self, project)


def _whole(layout: Layout) -> None:
    """A folder that is not there looks like one without items. Raises StoreError."""
    missing = [name for name in PHASES if not (layout.queue / name).is_dir()]
    if missing:
        raise StoreError(
            f"the store lacks {', '.join(missing)}: what was in there is not seen",
            where=layout.queue,
            remedy="put it back; if there is nothing to put back: harnessctl fsck --repair",
        )


class _Voice:
    """`store.disk.Hands` of somebody who only ever interrupts: never suspects, never kills."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def suspects(self, claim: Claim, path: str, token: tuple[int, int]) -> bool:
        return False

    def clear(self, uid: str, claim: Claim) -> bool:
        return True  # only asked after the owner's lock was found free

    def present(self, incarnation: str) -> bool:
        return True  # never asked: it sweeps nothing

    def interrupt(self, uid: str, n: int) -> None:
        """Make the worker that runs attempt n look at its end now; without this it looks at its next beat."""
        for folder in sorted((self._layout.run / "agents").glob("*/")):
            report = reports.read(folder / "status.json", reports.AgentReport)
            if report and report.item == uid and report.attempt == n:
                procs.signal(reports.process_of(report), signal.SIGUSR1)


def user_name() -> str:
    """Who sits at the terminal: the user behind sudo, else the owner of this process."""
    if name := os.environ.get("SUDO_USER"):
        return name
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):
        return str(os.geteuid())
