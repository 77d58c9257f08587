"""One attempt, from the claim to what its end will say: worktree, setup, agent, gates, healing, commit, pin.

Publishes nothing: it returns a `Result`, and the loop decides the cell. Everything that can block goes through the one
runner, whose beat may break it off at any moment (`Broken`): decided by another, stopping, or out of time.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from harness.agents.environment import plain
from harness.agents.outcomes import CostsAttempt, GoOn, Released, consequence
from harness.clock import Clock, day
from harness.config import CommitBy, Config, Project, Setup
from harness.containment import Jail, Policy
from harness.dataclass import dataclass
from harness.errors import HarnessError
from harness.events import EventStream
from harness.gates import Change, Facts, GateReport, GateResult, Place, Rules, run_gates
from harness.hub import BrokenCommitError, GitCommandError, GitInterrupted, Hub, Worktree
from harness.layout import Layout
from harness.logs import Event
from harness.model import CommitPolicy, Outcome
from harness.prompts import Brief, GateLine, RedGate, attempt_prompt, heal_prompt
from harness.runner import Command, EndReason, Runner
from harness.session import Session, Subject
from harness.sessionfolder import SessionFolder, tail
from harness.store.attempts import Claimed
from harness.store.cells import spent
from harness.worker.result import Broken, Result

SETUP_STALL_S = 900.0
INFRASTRUCTURE_WAIT_S = 30.0
"""An attempt that our own side could not carry out is given back, and tried again no sooner."""


PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN})
"""What this machine lacks now is no fault of the item: its attempt is given back. Every other error ends the process."""


@dataclass(slots=True, kw_only=True)
class AttemptRun:
    """Carries out one claimed attempt. Used once."""

    layout: Layout
    config: Config
    clock: Clock
    runner: Runner
    events: EventStream
    slot: str
    owned: Claimed
    project: Project
    hub: Hub
    environ: Mapping[str, str]
    stage: Callable[[str, str], None]
    """(state, last event) for the report."""
    broken: Callable[[], str | None]
    """Why the attempt must not go on, or None."""
    worktree: Worktree | None = None
    folder: SessionFolder = field(init=False)
    deadline: float = field(init=False)
    kind: str = field(init=False)

    def __post_init__(self) -> None:
        owned = self.owned
        self.folder = SessionFolder(
            self.layout.session(day(self.clock.wall()), owned.uid, owned.n), self.layout.scratch(self.slot)
        )
        limit = owned.item.timeout_s or self.config.health.attempt_timeout_s
        self.deadline = self.clock.monotonic() + limit - self.runner.away_s
        choices = owned.item.agents
        self.kind = choices[min(spent(owned.attempts), len(choices) - 1)] if choices else ""

    # ---- the whole -------------------------------------------------------------------------------------------------

    def run(self) -> Result:
        """Never raises for what an agent, a gate or git does; Broken when the beat stopped it."""
        if self.kind not in self.config.agents:
            reason = f"agent {self.kind!r} is no longer in config.yaml"
            return self._given_back(reason)
        try:
            self._prepare()
            if failure := self._setup():
                return failure
            return self._work()
        except GitInterrupted:
            self._check()
            return self._given_back("git was stopped")
        except HarnessError as e:
            self._check()
            return self._given_back(f"{e.what}" + (f" ({e.where})" if e.where else ""))
        except OSError as e:
            if e.errno not in PASSING:
                raise
            self._check()
            return self._given_back(f"{e.strerror}" + (f" ({e.filename})" if e.filename else ""))

    def rescue(self) -> None:
        """Salvage whatever the worktree holds that is in no commit of ours; whatever happens, nothing is destroyed."""
        if self.worktree is None:
            return
        self.hub.salvage(self.worktree, self.owned.uid, self.owned.n)

    # ---- steps -----------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        self.stage("preparing", "preparing the worktree")
        self.hub.refresh()
        self._check()
        base = self.hub.target()
        self.worktree = self.hub.prepare(self.slot, self.owned.uid, self.owned.n, base)
        self._check()
        tree = self.worktree
        self._say(Event.WORKTREE_PREPARED, reused=tree.reused, base=base)
        self.folder.clear(self.runner)  # of one that was killed
        self.folder.make()

    def _setup(self) -> Result | None:
        setup = self.project.setup
        if setup is None:
            return None
        note = self._tree.path.with_name(f".{self.slot}.setup")
        key = self._setup_key(setup)
        if self._tree.reused and _read(note) == key:
            return None
        self.stage("setup", "setup")
        note.unlink(missing_ok=True)
        log = self.folder.path / "setup.log"
        ended = self.runner.run(
            Command(
                argv=("sh", "-c", setup.run),
                cwd=self._tree.path,
                env=self._plain_env("setup"),
                stdout=log,
                stderr=log,
                timeout_s=min(setup.timeout_s, self._left()),
                stall_s=SETUP_STALL_S,
                jail=Jail(mark=self._mark, policy=self.folder.opened(self._policy(), self.folder.writable)),
            )
        )
        self._check()
        ok = ended.reason is EndReason.EXITED and ended.exit_code == 0
        self._say(Event.SETUP_FINISHED, ok=ok, seconds=round(ended.duration_s, 3))
        if ok:
            note.write_text(key)
            return None
        how = f"exit {ended.exit_code}" if ended.reason is EndReason.EXITED else ended.reason.value
        return self._failed(f"setup failed ({how}): {_last_line(tail(log, 4096))}")

    def _work(self) -> Result:
        agent = self.config.agents[self.kind]
        credential = self.config.credentials.get(agent.credential) if agent.credential else None
        subject = Subject(
            item=self.owned.item.id,
            mark=self._mark,
            slot=self.slot,
            agent=self.kind,
            worktree=self._tree.path,
            policy=self._policy(),
        )
        session = Session(
            self.folder,
            subject,
            agent,
            credential,
            runner=self.runner,
            clock=self.clock,
            stall_s=self.config.health.stall_s,
            environ=self.environ,
        )
        try:
            return self._rounds(session)
        finally:
            session.close()

    def _rounds(self, session: Session) -> Result:
        item, brief, rounds = self.owned.item, self._brief(), self.config.heal.rounds
        prompt = attempt_prompt(item, brief, self.owned.attempts)
        report = GateReport()
        for k in range(1, rounds + 2):
            self.stage("running", f"{self.kind}, round {k}")
            self._say(Event.AGENT_STARTED, agent=self.kind, round=k)
            result = session.run(prompt, timeout_s=self._left())
            self._check()
            releases = sum(
                a.end is not None and a.end.outcome is Outcome.RELEASED for a in self.owned.attempts
            )
            after = consequence(result.outcome, now=self.clock.wall(), releases=releases)
            self._say(
                Event.AGENT_FINISHED,
                round=k,
                outcome=type(result.outcome).__name__,
                seconds=round(result.duration_s, 3),
            )
            if result.survivors:
                self._say(Event.SURVIVORS_KILLED, number=result.survivors)
            match after:
                case CostsAttempt(reason=reason):
                    return self._failed(reason)
                case Released(reason=reason, not_before=moment):
                    return Result(outcome=Outcome.RELEASED, reason=reason, not_before=moment)
                case GoOn():
                    pass
            try:
                report, sha = self._judge(k)
            except GitCommandError as e:
                self._check()
                if e.passing:
                    raise
                # Who worked here last has broken it; giving it back would let them do so again at no cost.
                return self._failed(f"what was left cannot be read: {e.what}")
            if report.ok:
                return self._done(sha)
            if report.stopped:
                self._check()
                return self._given_back(report.stopped)
            if self._left() <= 0:
                break
            if k <= rounds:
                self._say(Event.HEAL_STARTED, round=k, gates=[r.name for r in report.red])
                red = [RedGate(name=r.name, reason=r.reason, run=r.run, tail=r.tail) for r in report.red]
                prompt = heal_prompt(item, brief, red, number=k, rounds=rounds)
        failed = "; ".join(f"gate {r.name}: {r.reason}" for r in report.red)
        tails = "\n".join(r.tail[-2000:] for r in report.red if r.tail and r.run)
        return self._failed("\n".join(x for x in (f"{failed} (in round {k} of {rounds + 1})", tails) if x))

    def _brief(self) -> Brief:
        project = self.project
        return Brief(
            target=project.target,
            gates=tuple(GateLine(name=g.name, run=g.run, required=g.required) for g in project.gates),
            protected=project.protected,
            commit_by=project.commit_by,
            instructions=self.config.agents[self.kind].wording,
        )

    def _judge(self, k: int) -> tuple[GateReport, str | None]:
        """Commit what the agent left, take the facts, run the gates."""
        self.stage("gates", f"gates, round {k}")
        tree, item = self._tree, self.owned.item
        self.hub.check()
        if self.project.commit_by is not CommitBy.AGENT and item.commit is not CommitPolicy.NONE:
            self.hub.commit_leftovers(tree, f"{item.id}: {item.title}")
        status = self.hub.status(tree)
        sha = status.head if status.head != tree.base else None
        facts = Facts(
            changes=tuple(Change(path=c.path, was=c.was) for c in self.hub.changed_files(tree.base, sha))
            if sha
            else (),
            dirty=status.dirty,
            untracked=tuple(dict.fromkeys((*status.untracked, *status.nested))),
            in_progress=status.in_progress,
            has_commit=sha is not None,
        )
        rules = Rules(
            files=item.files, protected=self.project.protected, allowed=item.protected, commit=item.commit
        )
        place = Place(
            worktree=tree.path,
            folder=self.folder,
            mark=self._mark,
            slot=self.slot,
            round=k,
            policy=self._policy(),
            environ=self.environ,
            stall_s=self.config.health.stall_s,
        )
        faults = self.hub.faults(tree.base, sha) if sha else ()
        if faults:
            report = GateReport(results=(GateResult(name="commit", ok=False, reason="; ".join(faults)),))
        else:
            report = run_gates(facts, rules, self.project.gates, place, self.runner)
        self._check()
        for result in report.results:
            event = Event.GATE_PASSED if result.ok else Event.GATE_FAILED
            if result.run or not result.ok:
                self._say(
                    event, gate=result.name, reason=result.reason or None, seconds=result.seconds, round=k
                )
        if report.ok and sha is not None and self.hub.status(tree).head != sha:
            sha = None  # a gate moved the branch: what was judged is not what would be merged
        return report, sha

    def _done(self, sha: str | None) -> Result:
        item = self.owned.item
        if item.commit is CommitPolicy.NONE or (sha is None and item.commit is CommitPolicy.OPTIONAL):
            return Result(outcome=Outcome.DONE, reason="")
        if sha is None:
            return self._failed("the branch was moved while the gates ran")
        self.stage("submitting", "pinning the commit")
        try:
            self.hub.pin(self.owned.uid, self.owned.n, sha)
        except BrokenCommitError as e:
            return self._failed(f"the commit cannot be used: {e.what}")
        return Result(outcome=Outcome.DONE, reason="", sha=sha, salvage=False)

    # ---- small -----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if why := self.broken():
            raise Broken(why)

    @property
    def _tree(self) -> Worktree:
        assert self.worktree is not None
        return self.worktree

    @property
    def _mark(self) -> str:
        return f"{self.owned.uid}.{self.owned.n}"

    def _left(self) -> float:
        return max(0.0, self.deadline + self.runner.away_s - self.clock.monotonic())

    def _policy(self) -> Policy:
        """Write: what git needs for this branch. Hidden: credentials of config.yaml, the queue and what else is closed."""
        write = self.hub.policy(self._tree, self.owned.uid, self.owned.n)
        return Policy(write=write, hide=(*self.config.secrets, *self.layout.closed))

    def _plain_env(self, name: str) -> dict[str, str]:
        env = plain(self.environ, home=self.folder.home, tmp=self.folder.tmp, name=name, slot=self.slot)
        return env | {"HARNESS_ATTEMPT": self._mark, "HARNESS_WORKTREE": str(self._tree.path)}

    def _setup_key(self, setup: Setup) -> str:
        digest = hashlib.sha256(setup.run.encode())
        for name in setup.inputs:
            path = self._tree.path / name
            digest.update(name.encode() + b"\0")
            if path.is_file() and not path.is_symlink():
                digest.update(path.read_bytes())
        return digest.hexdigest()

    def _failed(self, reason: str) -> Result:
        return Result(outcome=Outcome.FAILED, reason=reason)

    def _given_back(self, reason: str) -> Result:
        return Result(
            outcome=Outcome.RELEASED,
            reason=reason,
            not_before=self.clock.wall() + INFRASTRUCTURE_WAIT_S,
            ours=True,
        )

    def _say(self, event: Event, **fields: Any) -> None:
        self.events.emit(event, uid=self.owned.uid, id=self.owned.item.id, n=self.owned.n, **fields)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "no output"
