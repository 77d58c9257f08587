"""The pool: one worker process for each agent slot, spawned, adopted, watched and buried here.

Owns the launcher's handles. What to do is decided by `monitor.diagnose`; here it is done.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import field
from pathlib import Path

from harness import procs, reports
from harness.atomicfs import held
from harness.clock import Clock
from harness.dataclass import dataclass
from harness.errors import HarnessError
from harness.events import EventStream
from harness.launcher import Life, LocalHandle, LocalLauncher
from harness.layout import Layout
from harness.logs import Event
from harness.lookout import Lookout, beat_of
from harness.monitor import Bury, Death, Hung, Quiet, Retire, SlotView, Start, diagnose
from harness.pace import backoff_s
from harness.procs import ProcessId
from harness.reports import AgentReport
from harness.signals import STOP_NOW

BUSY = frozenset({"preparing", "setup", "running", "gates", "submitting"})


@dataclass(slots=True)
class Slot:
    """One agent slot. `handle` is None while no process of it is known."""

    name: str
    handle: LocalHandle | None = None
    born: float = 0.0
    adopted: bool = False
    death: Death | None = None
    quick_deaths: int = 0
    next_start: float = 0.0
    refused: bool = False
    retiring: bool = False
    restarts: int = 0
    report: AgentReport | None = None
    seen: tuple[int, int] = (0, 0)
    """(inode, mtime) of the report that was read last: each is a new file."""


@dataclass(slots=True)
class Pool:
    layout: Layout
    clock: Clock
    launcher: LocalLauncher
    events: EventStream
    lookout: Lookout
    target: int
    slots: dict[str, Slot] = field(default_factory=dict)

    # ---- knowing -----------------------------------------------------------------------------------------------------

    def resize(self, target: int) -> None:
        """Slots agent-1 .. agent-<target> are wanted; what lives beyond is retired."""
        self.target = target
        for k in range(1, target + 1):
            self.slots.setdefault(f"agent-{k}", Slot(f"agent-{k}"))

    def adopt(self) -> int:
        """Take over workers that live already. -> how many."""
        names = sorted(p.parent.name for p in self.layout.run.glob("agents/*/lock") if held(p))
        return sum(self._adopt(self.slots.setdefault(name, Slot(name))) for name in names)

    def starting(self) -> bool:
        """Does a worker live that has not reported yet?"""
        ours = {name for name, slot in self.slots.items() if slot.handle}
        return any(p.parent.name not in ours and held(p) for p in self.layout.run.glob("agents/*/lock"))

    def _adopt(self, slot: Slot) -> bool:
        """The slot's lock is held and its report names a process that lives: it is ours from now on."""
        report = self._report(slot)
        if slot.handle or report is None or not held(self.layout.agent(slot.name) / "lock"):
            return False
        process = ProcessId(pid=report.pid, start_ticks=report.start_ticks, boot_id=report.boot_id)
        if not process.alive():
            return False
        slot.handle = self.launcher.adopt("worker", slot.name, process)
        slot.born, slot.adopted, slot.retiring, slot.report = self.clock.monotonic(), True, False, report
        self.events.emit(Event.WORKER_ADOPTED, agent=slot.name, pid=report.pid, uid=report.item)
        return True

    def fds(self) -> list[int]:
        """Readable when a worker has ended."""
        return [s.handle.fileno() for s in self.slots.values() if s.handle and s.handle.fileno() >= 0]

    def alive(self) -> list[Slot]:
        return [s for s in self.slots.values() if s.handle is not None]

    def reap(self) -> list[Slot]:
        """Find the dead. -> slots whose process ended since the last call; their report is the last one it wrote."""
        found = []
        for slot in self.alive():
            assert slot.handle is not None
            seen = self.launcher.poll(slot.handle)
            if seen.life is not Life.GONE:
                continue
            slot.report = self._report(slot)
            attempts = slot.report.attempts if slot.report else 0
            code = seen.exit_code
            if slot.adopted and slot.report and slot.report.state == "stopped":
                code = 0  # nobody but its parent is told how it ended; these were its last words
            slot.death = Death(lived_s=self.clock.monotonic() - slot.born, attempts=attempts, exit_code=code)
            told = slot.retiring and (code == 0 or seen.signal in (signal.SIGTERM, STOP_NOW))
            if told:
                slot.death = None
            slot.handle = None
            self.lookout.forget(_key(slot))
            found.append(slot)
            if code != 0 and not told:
                self.events.emit(
                    Event.WORKER_DIED,
                    agent=slot.name,
                    uid=slot.report.item if slot.report else None,
                    exit_code=seen.exit_code,
                    signal=seen.signal,
                )
        return found

    def read_reports(self, everything: bool) -> list[Slot]:
        """Read what the living say. -> slots whose report changed.

        `everything`: also files that look like the last one. An inode can be used again within one tick of mtime.
        """
        changed = []
        for slot in self.alive():
            seen = _file(reports.agent_path(self.layout, slot.name))
            if seen == slot.seen and not everything:
                continue
            slot.seen = seen
            report = self._report(slot)
            if report is not None and report != slot.report:
                slot.report = report
                changed.append(slot)
        return changed

    def _report(self, slot: Slot) -> AgentReport | None:
        """The last report of the slot's process. What an earlier process of the slot left behind says nothing of it:
        its attempts would make a crash loop look healthy, its state a new worker hung."""
        report = reports.read(reports.agent_path(self.layout, slot.name), AgentReport)
        process = slot.handle.process if slot.handle else None
        return report if report is None or process in (None, reports.process_of(report)) else None

    # ---- deciding and doing ------------------------------------------------------------------------------------------

    def views(self, wanted: bool) -> list[SlotView]:
        """The snapshot that `monitor.diagnose` judges."""
        return [self._view(slot, wanted) for slot in self.slots.values()]

    def _view(self, slot: Slot, wanted: bool) -> SlotView:
        return SlotView(
            name=slot.name,
            wanted=wanted and self._in_target(slot),
            alive=slot.handle is not None,
            quiet=self._quiet(slot),
            death=slot.death,
            quick_deaths=slot.quick_deaths,
            next_start=slot.next_start,
            refused=slot.refused,
        )

    def _in_target(self, slot: Slot) -> bool:
        number = slot.name.rpartition("-")[2]
        return number.isdecimal() and 0 < int(number) <= self.target

    def _quiet(self, slot: Slot) -> Quiet:
        """Also of one that is idle, or that has not said anything yet: a pool of one that is stopped runs nothing."""
        process = slot.handle.process if slot.handle else None
        if process is None:
            return Quiet()
        busy = slot.report is not None and slot.report.state in BUSY
        beat = beat_of(self.layout.agent(slot.name) / "heartbeat")
        return self.lookout.quiet(_key(slot), beat, process, busy=busy)

    def tend(self, wanted: bool) -> None:
        """Diagnose, then act: bury, kill the hung, retire, start."""
        for _ in range(2):  # a slot that was buried may start in the same tick
            now = self.clock.monotonic()
            for finding in diagnose(self.views(wanted), now):
                slot = self.slots[finding.slot]
                match finding:
                    case Bury():
                        self._bury(slot, finding, now)
                    case Hung(silent_s=silent):
                        self._kill(slot, silent)
                    case Retire():
                        self._retire(slot)
                    case Start():
                        self._start(slot)

    def _bury(self, slot: Slot, finding: Bury, now: float) -> None:
        slot.death = None
        slot.quick_deaths = finding.quick_deaths
        slot.refused = finding.refused
        slot.next_start = now + finding.delay_s
        if finding.delay_s or finding.refused:
            self.events.emit(
                Event.WORKER_BACKED_OFF,
                agent=slot.name,
                seconds=finding.delay_s or None,
                reason="it cannot use the configuration"
                if finding.refused
                else f"{finding.quick_deaths} quick deaths",
            )

    def _kill(self, slot: Slot, silent_s: float) -> None:
        self.events.emit(Event.WORKER_HUNG, agent=slot.name, silent_s=round(silent_s, 1))
        self.lookout.forget(_key(slot))
        if slot.handle:
            if slot.handle.process:
                procs.kill_tree(slot.handle.process)  # its git, too: that has no mark
            self.launcher.stop(slot.handle, signal.SIGKILL)

    def _retire(self, slot: Slot) -> None:
        if slot.handle and not slot.retiring:
            slot.retiring = True
            self.launcher.stop(slot.handle, signal.SIGTERM)

    def _start(self, slot: Slot) -> None:
        if held(self.layout.agent(slot.name) / "lock"):
            self._adopt(slot)  # or it is starting or ending: look again at the next tick
            return
        try:
            slot.handle = self.launcher.spawn("worker", slot.name)
        except (
            HarnessError,
            OSError,
        ) as e:  # no memory, no processes, no disk: that passes, and the others go on
            slot.quick_deaths += 1
            slot.next_start = self.clock.monotonic() + backoff_s(slot.quick_deaths + 1)
            self.events.emit(Event.PROCESS_FAILED, what=slot.name, reason=str(e))
            return
        slot.born, slot.adopted, slot.retiring, slot.report = self.clock.monotonic(), False, False, None
        slot.restarts += 1
        process = slot.handle.process
        self.events.emit(Event.WORKER_SPAWNED, agent=slot.name, pid=process.pid if process else None)

    def signal_all(self, number: int) -> None:
        for slot in self.alive():
            slot.retiring = slot.retiring or number in (signal.SIGTERM, STOP_NOW)
            if slot.handle:
                self.launcher.stop(slot.handle, number)

    def holds(self, process: ProcessId) -> bool:
        """Is this process one of ours, which we look after?"""
        return any(slot.handle and slot.handle.process == process for slot in self.slots.values())

    def can_work(self, paused: Callable[[str], bool]) -> bool:
        """Is there a slot that would run a worker, and whose worker would claim?"""
        return any(
            self._in_target(slot) and not slot.refused and not paused(slot.name)
            for slot in self.slots.values()
        )

    def forgive(self) -> None:
        """The configuration changed: slots that refused the old one may try the new one."""
        for slot in self.slots.values():
            slot.refused = False

    def next_start(self) -> float | None:
        """When the next slot leaves its backoff, by the monotonic clock."""
        due = [
            s.next_start for s in self.slots.values() if s.handle is None and not s.refused and s.next_start
        ]
        return min(due, default=None)

    def close(self) -> None:
        """Forget the processes; they go on."""
        for slot in self.alive():
            if slot.handle:
                slot.handle.close()


def _key(slot: Slot) -> str:
    return f"worker:{slot.name}"


def _file(path: Path) -> tuple[int, int]:
    """(inode, mtime in ns); zeros when there is none."""
    try:
        info = os.stat(path)
    except OSError:
        return (0, 0)
    return (info.st_ino, info.st_mtime_ns)
