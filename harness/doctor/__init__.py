"""Does everything that a root needs work here? Each check says ok, warn or fail, and what to do about it.

`machine` looks at the host, `place` at the root and its store, `work` at projects, agents and processes. Checks try
things for real where that is harmless; what is missing and can be made (a hub) is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.config import Config, load
from harness.doctor import machine, place, work
from harness.doctor.check import Check, Level, fail, ok, warn
from harness.errors import ConfigError, HarnessError
from harness.layout import Layout

__all__ = ["Check", "Level", "examine"]


def examine(layout: Layout) -> Iterator[Check]:
    """Every check, as it is made. Never raises for what it finds; a check that breaks is a failed check."""
    for check in (
        machine.python,
        machine.git,
        machine.user,
        machine.files,
        machine.memory,
        machine.inotify,
        machine.clock,
    ):
        yield from _made(check.__name__, check)
    config: Config | None = None
    try:
        config = load(layout.config)
        yield ok("config", f"{layout.config} is valid")
    except ConfigError as e:
        for problem in e.problems or (str(e),):
            yield fail("config", problem, "correct it, then: harnessctl config check")
    for on_root in (place.store, place.leases, place.file_system, place.time_line, place.leftovers):
        yield from _made(on_root.__name__, on_root, layout)
    for running in (work.processes, work.unit):
        yield from _made(running.__name__, running, layout)
    if config is None:
        yield warn(
            "config", "projects, agents and containment cannot be checked without it", "correct it first"
        )
        return
    for configured in (place.durability, work.containment, work.agents):
        yield from _made(configured.__name__, configured, config)
    for both in (place.free, work.projects):
        yield from _made(both.__name__, both, layout, config)


def _made(name: str, check: Callable[..., Iterator[Check]], *args: object) -> Iterator[Check]:
    name = name.replace("_", " ")
    try:
        yield from check(*args)
    except HarnessError as e:
        yield fail(name, f"{e.where}: {e.what}" if e.where else e.what, e.remedy or "")
    except OSError as e:
        yield fail(name, f"{e.filename or name}: {e.strerror or e}", "see its permissions and the disk")
