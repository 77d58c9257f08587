"""Mergers: one process for each project that has something to judge or to publish. Spawned here, never waited for.

One that hangs is killed; the next one reads the lane and the target, and goes on.
"""

from __future__ import annotations

import signal
from dataclasses import field

from harness import presence, procs, reports
from harness import submitted as submitted_hints
from harness.atomicfs import held
from harness.bell import Bell
from harness.clock import Clock, moment_of
from harness.dataclass import dataclass
from harness.errors import HarnessError
from harness.events import EventStream
from harness.launcher import Life, LocalHandle, LocalLauncher
from harness.layout import Layout
from harness.logs import Event
from harness.lookout import Lookout, beat_of
from harness.pace import MAX_BACKOFF_S, backoff_s
from harness.procs import ProcessId
from harness.reports import ProjectReport

PATIENCE_S = 60.0
"""So long a publish that is refused for a reason that may pass (the network, a lock) counts as going on by itself."""


_RESTING = ("idle", "stopped")


@dataclass(slots=True)
class _Known:
    handle: LocalHandle | None = None
    born: float = float("-inf")
    quick_deaths: int = 0
    next_start: float = 0.0
    told: bool = False
    """It was asked to go, or to read config.yaml again, which ends it too."""
    dismissed: float | None = None
    """When it was asked to go for good (monotonic)."""
    owes: bool = False
    """It is to be started whatever the reports say: the last one died, or the hub holds what was never published."""
    asked: frozenset[str] = frozenset()
    """What it was last rung for."""
    refused_since: float | None = None
    """Since when the person's repository takes nothing, for a reason that may pass."""


@dataclass(slots=True)
class Mergers:
    layout: Layout
    clock: Clock
    launcher: LocalLauncher
    events: EventStream
    lookout: Lookout
    known: dict[str, _Known] = field(default_factory=dict)

    def fds(self) -> list[int]:
        return [k.handle.fileno() for k in self.known.values() if k.handle and k.handle.fileno() >= 0]

    def alive(self) -> bool:
        return any(known.handle for known in self.known.values())

    def adopt(self) -> None:
        """Take over the mergers that another coordinator started: to wait for their end, and to stop them.

        To be asked again: one that was started right before that coordinator died is not to be seen before it has
        announced itself.
        """
        for who in presence.living(self.layout):
            role, _, name = who.name.partition(".")
            known = self.known.setdefault(name, _Known()) if role == "merger" and name else None
            if known is not None and known.handle is None and who.host == procs.host_id():
                process = ProcessId(pid=who.pid, start_ticks=who.start_ticks, boot_id=who.boot_id)
                known.handle = self.launcher.adopt("merger", who.name, process)
                known.born = self.clock.monotonic()
                known.told, known.dismissed = False, None

    def starting(self) -> bool:
        """Does a merger live that has not announced itself yet, of whatever project?"""
        ours = {self.layout.merger_lock(name) for name, known in self.known.items() if known.handle}
        locks = self.layout.merger_lock("*")
        return any(held(path) for path in locks.parent.glob(locks.name) if path not in ours)

    def owe(self, name: str, at: float) -> None:
        """This project's hub held merges at `at` (monotonic) that were not published. A merger that was born since has
        seen them, or has died of them."""
        known = self.known.setdefault(name, _Known())
        known.owes = known.owes or known.born < at

    def reap(self) -> None:
        """Find the dead; one that crashed soon is not started again at once."""
        for name, known in self.known.items():
            if known.handle is None:
                continue
            seen = self.launcher.poll(known.handle)
            if seen.life is not Life.GONE:
                continue
            worked = self._worked(name, known.handle)
            known.handle, known.asked = None, frozenset()
            self.lookout.forget(_key(name))
            if seen.exit_code is None and seen.signal is None:  # adopted: nobody knows how it ended
                known.owes = True
            elif seen.exit_code != 0 and not (known.told and seen.signal in (signal.SIGTERM, signal.SIGHUP)):
                known.owes = True  # between a merge and its publishing only the hub knows that there is work
                self.events.emit(
                    Event.MERGER_DIED, project=name, exit_code=seen.exit_code, signal=seen.signal
                )
                healthy = worked or self.clock.monotonic() - known.born >= MAX_BACKOFF_S
                known.quick_deaths = 0 if healthy else known.quick_deaths + 1
                known.next_start = self.clock.monotonic() + backoff_s(known.quick_deaths)
            else:
                known.quick_deaths = 0

    def tend(self, submitted: dict[str, frozenset[str]], projects: tuple[str, ...]) -> None:
        """Wake or start the merger of every project with something submitted, or with merges that must be pushed; kill
        those that hang."""
        self._kill_hung()
        for name in projects:
            known = self.known.setdefault(name, _Known())
            wanted = submitted.get(name, frozenset())
            running = known.handle is not None or held(self.layout.merger_lock(name))
            if running and known.handle is None:
                self.adopt()  # or it is starting: look again at the next tick
            if not wanted and not known.owes and not self._publish_due(name):
                known.asked = frozenset()
                continue
            if running:
                if wanted - known.asked:
                    for mark in wanted - known.asked:  # its worker may have died before it said so
                        submitted_hints.add(self.layout, name, mark.rpartition(".")[0])
                    Bell(self.layout.bell(f"merger.{name}")).ring()
                    known.asked = wanted
                continue
            if self.clock.monotonic() >= known.next_start:
                self._start(name, known, wanted)

    def _worked(self, name: str, handle: LocalHandle) -> bool:
        """Had the merger that died decided anything?"""
        report = self.report(name)
        return bool(report and handle.process and report.pid == handle.process.pid and report.judged)

    def _kill_hung(self) -> None:
        for name, known in self.known.items():
            process = known.handle.process if known.handle else None
            if known.handle is None or process is None:
                continue
            report = self.report(name)
            busy = report is not None and report.pid == process.pid and report.state not in _RESTING
            beat = beat_of(self.layout.merger_beat(name))
            quiet = self.lookout.quiet(_key(name), beat, process, busy=busy)
            if quiet.hung:
                self.events.emit(Event.MERGER_HUNG, project=name, silent_s=round(quiet.silent_s, 1))
                self.lookout.forget(_key(name))
                procs.kill_tree(process)  # its git, too, which would keep locks of the hub
                self.launcher.stop(known.handle, signal.SIGKILL)

    def _start(self, name: str, known: _Known, wanted: frozenset[str]) -> None:
        known.asked = wanted
        try:
            known.handle = self.launcher.spawn("merger", f"merger.{name}")
        except (HarnessError, OSError) as e:  # no memory, no processes, no disk: that passes
            known.quick_deaths += 1
            known.next_start = self.clock.monotonic() + backoff_s(known.quick_deaths + 1)
            self.events.emit(Event.PROCESS_FAILED, what=f"merger.{name}", reason=str(e))
            return
        known.born = self.clock.monotonic()
        known.owes = known.told = False
        known.dismissed = None
        process = known.handle.process
        self.events.emit(Event.MERGER_SPAWNED, project=name, pid=process.pid if process else None)

    def _publish_due(self, name: str) -> bool:
        report = self.report(name)
        if report is None or not report.unpublished:
            return False
        moment = moment_of(report.next_try)  # a report is no truth, and may hold anything
        return moment is None or self.clock.wall() >= moment

    def report(self, name: str) -> ProjectReport | None:
        return reports.read(self.layout.project_status(name), ProjectReport)

    def quick_deaths(self, name: str) -> int:
        return self.known[name].quick_deaths if name in self.known else 0

    def busy(self, name: str) -> bool:
        """Is its merger alive? (ours, or one that another coordinator started)"""
        known = self.known.get(name)
        return bool(known and known.handle) or held(self.layout.merger_lock(name))

    def settled(self, name: str) -> bool:
        """Does nothing, and has nothing to do that would go by itself."""
        known = self.known.setdefault(name, _Known())
        report = self.report(name)
        if self._may_pass(known, report):
            return False
        if known.owes and not (self.busy(name) and report and report.unpublished):
            return False  # who lives and says that it cannot publish them is all that could be started
        if not self.busy(name):
            return True
        process = known.handle.process if known.handle else None
        if report is None or (process and report.pid != process.pid):
            return False  # it has just started
        return report.state in _RESTING

    def _may_pass(self, known: _Known, report: ProjectReport | None) -> bool:
        """Was a publish refused for a reason that may pass, and not for long?"""
        if report is None or not report.unpublished or not report.passing:
            known.refused_since = None
            return False
        now = self.clock.monotonic()
        if known.refused_since is None:
            known.refused_since = now
        return now - known.refused_since <= PATIENCE_S

    def refused(self, name: str) -> ProjectReport | None:
        """The report of a merger whose merges the person's repository does not take."""
        report = self.report(name)
        return None if report is None or report.publish in ("ok", "off") else report

    def dismiss(self, grace_s: float) -> None:
        """Ask each to go, once, and kill it when it has not gone after so long."""
        now = self.clock.monotonic()
        for known in self.known.values():
            if known.handle and known.dismissed is None:
                known.told, known.dismissed = True, now
                self.launcher.stop(known.handle, signal.SIGTERM)
            elif known.handle and known.dismissed is not None and now - known.dismissed > grace_s:
                self.launcher.stop(known.handle, signal.SIGKILL)

    def signal_all(self, number: int) -> None:
        for known in self.known.values():
            if known.handle:
                known.told = True
                # One that is told to read config.yaml again ends, perhaps before it has looked at anything.
                known.owes = known.owes or number == signal.SIGHUP
                self.launcher.stop(known.handle, number)

    def close(self) -> None:
        for known in self.known.values():
            if known.handle:
                known.handle.close()


def _key(name: str) -> str:
    return f"merger:{name}"
