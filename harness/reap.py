"""Ending everything that belongs to a root: workers, mergers, and what runs in their attempts.

For ``systemctl stop`` (as ExecStopPost) and for a person whose coordinator is gone for good. With KillMode=process
systemd ends the coordinator only, so that workers outlive its crash; after a *stop* nothing may stay, and this sees
to it. Nothing is lost: an attempt that is ended here is released by its worker, or expired by the next coordinator.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness import presence, procs, reports
from harness.atomicfs import held
from harness.containment import Containment
from harness.errors import ConflictError
from harness.layout import Layout
from harness.procs import ProcessId
from harness.signals import STOP_NOW

GRACE_S = 10.0
"""How long workers may take to release their attempts before they are killed."""
_AGAIN_S = 0.5
_STOPPING = ("draining", "stopping", "stopped")
_PEOPLE = ("coordinator", "cli")
"""Slots that are never ended here: their lock or their user does."""


def reap(
    layout: Layout,
    only_if_stopped: bool = False,
    *,
    environ: Mapping[str, str] = os.environ,
    grace_s: float = GRACE_S,
) -> int:
    """End all workers, mergers and attempts of this root on this host. -> how many processes were ended.

    `only_if_stopped`: does nothing when the service manager says (``$SERVICE_RESULT``, systemd.exec(5)) that the
    coordinator crashed and will be started again, or when another coordinator is in charge. Otherwise a running
    coordinator is a ConflictError, because it would start everything again. Idempotent.
    """
    if held(layout.coordinator_lock):
        if only_if_stopped:
            return 0
        raise ConflictError(
            "a coordinator is running, and would start again what is ended here",
            where=layout.coordinator_lock,
            remedy="stop it first: Ctrl-C in its terminal, or: systemctl stop harness",
        )
    if only_if_stopped and not stopped(layout, environ):
        return 0
    ended = _end(_ours(layout), grace_s)
    containment = Containment()
    for mark in _attempts(layout):
        ended += containment.kill(mark)
    # What shed its mark is found by where it works. No attempt has this name.
    ended += containment.kill("reap.0", below=[layout.state / "worktrees", layout.sessions, layout.tmp])
    presence.sweep(layout)
    return ended


def stopped(layout: Layout, environ: Mapping[str, str]) -> bool:
    """Was the service stopped, as opposed to crashed? Without a service manager: yes, somebody wants it so.

    A stop that ran into its time limit, or in which the coordinator crashed, is a stop too.
    """
    if environ.get("SERVICE_RESULT", "success") in ("success", "timeout"):
        return True
    report = reports.read(reports.coordinator_path(layout), reports.CoordinatorReport)
    return report is not None and report.state in _STOPPING


def _ours(layout: Layout) -> set[ProcessId]:
    """Living workers and mergers, by their locks and (when `run/presence` was lost) by what they report."""
    found = {
        ProcessId(pid=who.pid, start_ticks=who.start_ticks, boot_id=who.boot_id)
        for who in presence.living(layout)
        if who.host == procs.host_id() and who.name not in _PEOPLE
    }
    for path in _listing(layout.run / "agents"):
        if (report := reports.read(reports.agent_path(layout, path.name), reports.AgentReport)) is not None:
            found.add(reports.process_of(report))
    return {one for one in found if one.pid != os.getpid() and one.alive()}


def _end(processes: Iterable[ProcessId], grace_s: float) -> int:
    """STOP_NOW (release the attempt and go) until they have gone, then KILL."""
    fds = {fd: one for one in processes if (fd := one.pidfd()) is not None}
    count = len(fds)
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    now = time.monotonic()
    kill_at = now + grace_s
    give_up_at = kill_at + GRACE_S  # a process in uninterruptible I/O ends when that does
    while fds and now < give_up_at:
        for fd in fds:
            _send(fd, STOP_NOW if now < kill_at else signal.SIGKILL)
        for fd, _ in poller.poll(_AGAIN_S * 1000):
            poller.unregister(fd)
            os.close(fd)
            del fds[fd]
        now = time.monotonic()
    for fd in fds:
        os.close(fd)
    return count - len(fds)


def _send(fd: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # ended meanwhile
        signal.pidfd_send_signal(fd, number)


def _attempts(layout: Layout) -> set[str]:
    """Marks that may still have processes: claimed and not ended, and those of this root that processes carry."""
    claimed = set()
    for item in _listing(layout.queue / "open"):
        names = {path.name for path in _listing(item)}
        for name in names:
            n, dot, kind = name.partition(".")
            if dot and kind == "claim" and f"{n}.end" not in names:
                claimed.add(f"{item.name}.{n}")
    return claimed | {mark for mark in procs.marks() if _belongs(layout, mark)}


def _belongs(layout: Layout, mark: str) -> bool:
    """Another root on this host has attempts too: ours have their item here, or a session."""
    uid, _, rest = mark.partition(".")
    n = rest.partition(".")[0]  # <uid>.<n>.merge: gates on the merged tree
    if not uid or "/" in mark or not n.isdecimal():
        return False
    if (layout.queue / "open" / uid).is_dir():
        return True
    return any((day / f"{uid}.{n}").is_dir() for day in _listing(layout.sessions))


def _listing(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
