"""What the store needs done to processes: is an owner hung, kill what is left of an attempt, make an owner look.

Implements `store.disk.Hands` for this host. Foreign hosts are never judged by pid, boot or lock table: only their
heartbeat token counts, timed by our own clock, and nothing of theirs is killed from here.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness import procs, reports
from harness.atomicfs import held
from harness.clock import Clock
from harness.containment import Containment, Kind
from harness.layout import Layout
from harness.model import Claim
from harness.monitor import HangWatch
from harness.procs import ProcessId

KILL_WAIT_S = 5.0


@dataclass(slots=True)
class LocalHands:
    """`hang_s`: how long an owner may be silent *and* inactive. `deaths`: told of everything killed, for events."""

    layout: Layout
    clock: Clock
    containment: Containment
    hang_s: float
    watch: HangWatch = field(default_factory=HangWatch)
    killed: list[tuple[str, int]] = field(default_factory=list)
    """(mark, number) of survivors killed since somebody last looked."""

    def suspects(self, claim: Claim, path: str, token: tuple[int, int]) -> bool:
        """Silence and absence of activity, both for `hang_s`, by our own monotonic clock."""
        now = self.clock.monotonic()
        silent = self.watch.unchanged_s(f"beat:{path}", token, now)
        if claim.owner.host != procs.host_id():
            return silent > self.hang_s
        owner = _process(claim)
        busy = procs.cpu_seconds(procs.tree(owner.pid)) if silent > self.hang_s / 2 and owner.alive() else 0.0
        inactive = self.watch.unchanged_s(f"cpu:{path}", round(busy, 2), now)
        return silent > self.hang_s and inactive > self.hang_s / 2

    def remember_only(self, running: Iterable[tuple[str, int]]) -> None:
        """Forget what was seen of all other attempts (uid, n): most end without ever being suspected."""
        paths = [f"queue/open/{uid}/{n}.claim" for uid, n in running]
        for kind in ("beat:", "cpu:"):
            self.watch.keep_only(kind, {kind + path for path in paths})

    def clear(self, uid: str, claim: Claim) -> bool:
        """Kill a hung owner (TERM, KILL) and everything that is left of its attempt. False: the owner lives on."""
        if claim.owner.host != procs.host_id():
            return True
        owner = _process(claim)
        if owner.alive():
            for number in (signal.SIGCONT, signal.SIGKILL):
                procs.signal(owner, number)
            if not owner.wait(KILL_WAIT_S):
                # It waits for a disk. To be suspected anew only after another silence: each look waits for it here.
                self._forget(uid, claim.n)
                return False
        mark = f"{uid}.{claim.n}"
        survivors = self.containment.kill(mark, self._worktrees(claim.owner.name))
        self.containment.release(mark)
        if survivors:
            self.killed.append((mark, survivors))
        self._forget(uid, claim.n)
        return True

    def _forget(self, uid: str, n: int) -> None:
        for kind in ("beat:", "cpu:"):
            self.watch.forget(f"{kind}queue/open/{uid}/{n}.claim")

    def interrupt(self, uid: str, n: int) -> None:
        """The attempt is decided: its owner looks at its end at once (SIGUSR1) instead of at its next beat."""
        for folder in sorted(self.layout.run.glob("agents/*")):
            report = reports.read(folder / "status.json", reports.AgentReport)
            if report and report.item == uid and report.attempt == n:
                who = ProcessId(pid=report.pid, start_ticks=report.start_ticks, boot_id=report.boot_id)
                procs.signal(who, signal.SIGUSR1)

    def _worktrees(self, slot: str) -> list[Path]:
        """Where to look for what escaped its marks: only without a cgroup or namespace, and only while no worker of
        that slot lives, whose own attempt works in the same folders."""
        if not slot or self.containment.kind is not Kind.MARKS or held(self.layout.agent(slot) / "lock"):
            return []
        return [p for p in self.layout.state.glob(f"worktrees/*/{slot}") if p.is_dir()]


def _process(claim: Claim) -> ProcessId:
    owner = claim.owner
    return ProcessId(pid=owner.pid, start_ticks=owner.start_ticks, boot_id=owner.boot_id)
