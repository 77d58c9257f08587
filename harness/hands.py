"""What the store needs done to processes: is an owner hung, kill what is left of an attempt, make an owner look.

Implements `store.disk.Hands` for this host. Foreign hosts are never judged by pid, boot or lock table: only their
heartbeat token counts, timed by our own clock, and nothing of theirs is killed from here.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from dataclasses import InitVar, dataclass, field
from pathlib import Path

from harness import presence, procs, reports
from harness.atomicfs import held
from harness.clock import Clock
from harness.containment import Containment, Kind
from harness.layout import Layout
from harness.lookout import Lookout
from harness.model import Claim
from harness.procs import ProcessId

KILL_WAIT_S = 5.0


@dataclass(slots=True)
class LocalHands:
    """`hang_s`: how long an owner may be silent *and* inactive."""

    layout: Layout
    clock: Clock
    containment: Containment
    hang_s: InitVar[float]
    watched: Callable[[ProcessId], bool] = lambda _: False
    """Is this process looked after by whoever started it? It is not suspected a second time by its claim: when it
    hangs it is killed, and then its lock is free."""
    lookout: Lookout = field(init=False)
    killed: list[tuple[str, int]] = field(default_factory=list)
    """(mark, number) of survivors killed since somebody last looked."""

    def __post_init__(self, hang_s: float) -> None:
        self.lookout = Lookout(self.clock, hang_s)

    def suspects(self, claim: Claim, path: str, token: tuple[int, int]) -> bool:
        """Is the owner of this claim hung? (`monitor.Quiet`)"""
        owner = _process(claim) if claim.owner.host == procs.host_id() else None
        if owner is not None and self.watched(owner):
            return False
        return self.lookout.quiet(_key(path), token, owner, busy=True).hung

    def remember_only(self, running: Iterable[tuple[str, int]]) -> None:
        """Forget what was seen of all other attempts (uid, n): most end without ever being suspected."""
        self.lookout.keep_only(_key(""), {_key(f"queue/open/{uid}/{n}.claim") for uid, n in running})

    def clear(self, uid: str, claim: Claim) -> bool:
        """Kill a hung owner and everything that is left of its attempt. False: the owner lives on."""
        if claim.owner.host != procs.host_id():
            return True
        owner = _process(claim)
        if owner.alive():
            procs.kill_tree(owner)  # its git, too: that has no mark
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
        self.lookout.forget(_key(f"queue/open/{uid}/{n}.claim"))

    def interrupt(self, uid: str, n: int) -> None:
        """The attempt is decided: its owner looks at its end at once (SIGUSR1) instead of at its next beat."""
        for folder in sorted(self.layout.run.glob("agents/*")):
            report = reports.read(folder / "status.json", reports.AgentReport)
            if report and report.item == uid and report.attempt == n:
                who = ProcessId(pid=report.pid, start_ticks=report.start_ticks, boot_id=report.boot_id)
                procs.signal(who, signal.SIGUSR1)

    def present(self, incarnation: str) -> bool:
        return presence.present(self.layout, incarnation)

    def _worktrees(self, slot: str) -> list[Path]:
        """Where to look for what escaped its marks: only without a cgroup or namespace, and only while no worker of
        that slot lives, whose own attempt works in the same folders."""
        if not slot or self.containment.kind is not Kind.MARKS or held(self.layout.agent(slot) / "lock"):
            return []
        return [p for p in self.layout.state.glob(f"worktrees/*/{slot}") if p.is_dir()]


def _key(path: str) -> str:
    return f"claim:{path}"


def _process(claim: Claim) -> ProcessId:
    owner = claim.owner
    return ProcessId(pid=owner.pid, start_ticks=owner.start_ticks, boot_id=owner.boot_id)
