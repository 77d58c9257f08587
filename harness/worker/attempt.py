"""One attempt, from the claim to what its end will say: worktree, setup, agent, gates, healing, commit, pin.

Publishes nothing: it returns a `Result`, and the loop decides the cell. Everything that can block goes through the one
runner, whose beat may break it off at any moment (`Broken`): decided by another, stopping, or out of time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from harness import sessionrecord
from harness.agents.environment import plain
from harness.atomicfs import FileLock
from harness.clock import Clock, day
from harness.config import CommitBy, Config, Durability, Project, Setup
from harness.containment import Jail, Policy
from harness.dataclass import dataclass
from harness.errors import HarnessError
from harness.events import EventStream
from harness.gates import Change, Facts, GateReport, GateResult, Place, Rules, run_gates
from harness.hub import BrokenCommitError, Carry, GitCommandError, GitInterrupted, Hub, Worktree
from harness.layout import Layout
from harness.limits import Limits
from harness.logs import Event
from harness.model import Claim, CommitPolicy, Item, Outcome, date_of
from harness.prices import price_of
from harness.prompts import Brief, GateLine, RedGate, attempt_prompt, heal_prompt, resume_prompt
from harness.resuming import goes_on, preferred
from harness.runner import Command, EndReason, Runner
from harness.session import PASSING, Session, Subject
from harness.sessionfolder import SUMMARY, SessionFolder, tail
from harness.spend import Ledger
from harness.store.attempts import Claimed
from harness.worker.agentruns import AgentRuns
from harness.worker.result import Broken, Result, failed, given_back
from harness.worker.wallet import Wallet

SETUP_STALL_S = 900.0
EARLIER_PATIENCE_S = 1.0
"""For the slot of the attempt before: a worker that lives there has another item, and has saved everything for it."""


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
    limits: Limits
    claims: Mapping[int, Claim]
    """Of this attempt and of earlier ones, as far as they can be read."""
    stage: Callable[[str, str], None]
    """(state, last event) for the report."""
    broken: Callable[[], str | None]
    """Why the attempt must not go on, or None."""
    worktree: Worktree | None = None
    folder: SessionFolder = field(init=False)
    deadline: float = field(init=False)
    kind: str = field(init=False)
    why: str = field(init=False)
    """Why the session that this attempt goes on with was broken off; "": it begins a new one."""
    wallet: Wallet = field(init=False)
    runs: AgentRuns = field(init=False)
    carry: Carry | None = None
    found: str | None = None
    judged: str | None = None
    """What was checked out when the gates began."""

    def __post_init__(self) -> None:
        owned = self.owned
        limit = owned.item.timeout_s or self.config.health.attempt_timeout_s
        self.deadline = self.clock.monotonic() + limit - self.runner.away_s
        choices = preferred(owned.item, owned.attempts)
        chosen, _ = self.limits.choose(self.config, choices)
        self.kind = chosen or (choices[0] if choices else "")
        self.folder, self.why = self._session_folder()
        durable = self.config.durability is Durability.POWER
        self.wallet = Wallet(
            ledger=Ledger(self.layout, self.clock, durable=durable),
            config=self.config,
            item=owned.item,
            n=owned.n,
            agent=self.kind,
        )
        self.runs = AgentRuns(
            layout=self.layout,
            config=self.config,
            clock=self.clock,
            limits=self.limits,
            wallet=self.wallet,
            agent=self.kind,
            mark=self._mark,
            stage=self.stage,
            say=self._say,
            check=self._check,
            left=self._left,
        )

    def _session_folder(self) -> tuple[SessionFolder, str]:
        """-> (where the session is, why it was broken off when it is an earlier one's)"""
        scratch = self.layout.scratch(self.slot)
        for n in sorted(self.claims, reverse=True):
            path = self.layout.session(date_of(self.claims[n].claimed_at), self.owned.uid, n)
            if n < self.owned.n and (record := sessionrecord.read(path / SUMMARY)) is not None:
                if why := goes_on(self.owned.attempts, record, self.kind):
                    return SessionFolder(path, scratch), why
                break
        own = self.claims.get(self.owned.n)
        today = date_of(own.claimed_at) if own else day(self.clock.wall())
        return SessionFolder(self.layout.session(today, self.owned.uid, self.owned.n), scratch), ""

    # ---- the whole -------------------------------------------------------------------------------------------------

    def run(self) -> Result:
        """Never raises for what an agent, a gate or git does; Broken when the beat stopped it."""
        if self.kind not in self.config.agents:
            reason = f"agent {self.kind!r} is no longer in config.yaml"
            return given_back(reason, self.clock)
        try:
            self._prepare()
            if failure := self._setup():
                return failure
            return self._work()
        except GitInterrupted:
            self._check()
            return given_back("git was stopped", self.clock)
        except HarnessError as e:
            self._check()
            return given_back(f"{e.what}" + (f" ({e.where})" if e.where else ""), self.clock)
        except OSError as e:
            if e.errno not in PASSING:
                raise
            self._check()
            return given_back(f"{e.strerror}" + (f" ({e.filename})" if e.filename else ""), self.clock)

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
        if self.why:
            self._fetch_earlier()
        base = self.hub.target()
        self.worktree = self.hub.prepare(self.slot, self.owned.uid, self.owned.n, base, self.carry)
        self._check()
        tree = self.worktree
        self._say(
            Event.WORKTREE_PREPARED,
            reused=tree.reused,
            base=tree.base,
            carried=self.carry is not None or None,
        )
        self.folder.clear(self.runner)  # of one that was killed
        self.folder.make()

    def _fetch_earlier(self) -> None:
        """What the last attempt left in its worktree becomes refs, when its worker could not do that any more."""
        n = self.owned.n - 1
        claim = self.claims.get(n)
        slot = claim.owner.name if claim else ""
        tree = self.hub.find(slot) if slot else None
        if tree is not None and (tree.uid, tree.n) == (self.owned.uid, n):
            with FileLock(self.layout.agent(slot) / "lock") as lock:
                if slot == self.slot or lock.lock(EARLIER_PATIENCE_S):
                    self.hub.salvage(tree, self.owned.uid, n)
        carried = self.carry = self.hub.carried(self.owned.uid, n)
        self.found = self.hub.found(self.owned.uid, n)
        while n > 1 and carried is None and self.found is None:
            n -= 1  # it was given back before it did anything, and left nothing
            carried, self.found = self.hub.carried(self.owned.uid, n), self.hub.found(self.owned.uid, n)

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
        return failed(f"setup failed ({how}): {_last_line(tail(log, 4096))}")

    def _work(self) -> Result:
        self._charge_earlier()
        session = self._session(self.folder, self.kind)
        try:
            return self._rounds(session)
        finally:
            session.close()

    def _session(self, folder: SessionFolder, agent: str) -> Session:
        subject = Subject(
            item=self.owned.item.id,
            uid=self.owned.uid,
            mark=self._mark,
            slot=self.slot,
            agent=agent,
            worktree=self._tree.path,
            policy=self._policy(),
            project=self.project.name,
        )
        return Session(
            folder,
            subject,
            self.config.agents[agent],
            self.config.credential_of(agent),
            runner=self.runner,
            clock=self.clock,
            stall_s=self.config.health.stall_s,
            environ=self.environ,
            price=lambda usage: price_of(self.config.prices, usage),
            heard=self.runs.hear,
        )

    def _charge_earlier(self) -> None:
        """What was used in sessions that do not go on, and is in no ledger: their worker was killed before."""
        scratch = self.layout.scratch(self.slot)
        for n, claim in self.claims.items():
            path = self.layout.session(date_of(claim.claimed_at), self.owned.uid, n)
            record = sessionrecord.read(path / SUMMARY) if path != self.folder.path else None
            if record is None or n == self.owned.n:
                continue
            if record.agent in self.config.agents and any(not run.outcome for run in record.runs):
                session = self._session(SessionFolder(path, scratch), record.agent)
                session.settle()
                record = session.record
            self.wallet.charge(record)

    def _rounds(self, session: Session) -> Result:
        item, brief, rounds = self.owned.item, self._brief(), self.config.heal.rounds
        session.settle()
        self.wallet.charge(session.record)
        prompt = afresh = attempt_prompt(item, brief, self.owned.attempts)
        if self.why and session.goes_on:
            carried = self.carry is not None
            prompt = resume_prompt(
                item, brief, self.why, str(self._tree.path), carried=carried, found=self.found
            )
        report = GateReport()
        before: tuple[frozenset[str], str] | None = None
        for k in range(1, rounds + 2):
            if ended := self.runs.run(session, prompt, afresh, k):
                return ended
            try:
                report, sha = self._judge(k, session.round)
            except GitCommandError as e:
                self._check()
                if e.passing:
                    raise
                # Who worked here last has broken it; giving it back would let them do so again at no cost.
                return failed(f"what was left cannot be read: {e.what}")
            session.judged(_told(result) for result in report.results)
            if report.ok:
                return self._done(sha)
            if report.stopped:
                self._check()
                return given_back(report.stopped, self.clock)
            now = self._failure(report)
            if now is not None and now == before and k <= rounds:
                return self._red(
                    report, f"given up in round {k} of {rounds + 1}: nothing changed since the last"
                )
            before = now
            if self._left() <= 0:
                break
            if k <= rounds:
                self._say(Event.HEAL_STARTED, round=k, gates=[r.name for r in report.red])
                red = [RedGate(name=r.name, reason=r.reason, run=r.run, tail=r.tail) for r in report.red]
                prompt = heal_prompt(item, brief, red, number=k, rounds=rounds, knows=session.goes_on)
        return self._red(report, f"in round {k} of {rounds + 1}")

    def _red(self, report: GateReport, where: str) -> Result:
        gates = "; ".join(f"gate {r.name}: {r.reason}" for r in report.red)
        tails = "\n".join(r.tail[-2000:] for r in report.red if r.tail and r.run)
        return failed("\n".join(x for x in (f"{gates} ({where})", tails) if x))

    def _failure(self, report: GateReport) -> tuple[frozenset[str], str] | None:
        """Which gates are red on which tree; None when the worktree holds more than a commit says."""
        tree = self.hub.tree_at(self._tree)
        return None if tree is None else (frozenset(r.name for r in report.red), tree)

    def _brief(self) -> Brief:
        project = self.project
        return Brief(
            target=project.target,
            gates=tuple(GateLine(name=g.name, run=g.run, required=g.required) for g in project.gates),
            protected=project.protected,
            commit_by=project.commit_by,
            instructions=self.config.agents[self.kind].wording,
            worktree=str(self._tree.path),
            briefings=briefings(self.config, project, self.owned.item),
        )

    def _judge(self, k: int, run: int) -> tuple[GateReport, str | None]:
        """Commit what the agent left, take the facts, run the gates. `run`: of the session, for the names of logs."""
        self.stage("gates", f"gates, round {k}")
        tree, item = self._tree, self.owned.item
        self.hub.check()
        if self.project.commit_by is not CommitBy.AGENT and item.commit is not CommitPolicy.NONE:
            self.hub.commit_leftovers(tree, f"{item.id}: {item.title}")
        status = self.hub.status(tree)
        self.judged = status.head
        sha = None if self.hub.is_targets(tree.base, status.head) else status.head
        facts = Facts(
            changes=self._changes(sha) if sha else (),
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
            round=run,
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
        return report, sha

    def _changes(self, sha: str) -> tuple[Change, ...]:
        """What the merge will change, as far as is known now: not what an agent took from the target itself."""
        fork = self.hub.fork(self._tree.base, sha)
        return tuple(Change(path=c.path, was=c.was) for c in self.hub.changed_files(fork, sha))

    def _done(self, sha: str | None) -> Result:
        """`sha`: what was judged; None: nothing was committed."""
        if self.owned.item.commit is CommitPolicy.NONE:
            return Result(outcome=Outcome.DONE, reason="")
        if self.hub.head(self._tree) != self.judged:
            return failed("the branch was moved while the gates ran")
        if sha is None:
            return Result(outcome=Outcome.DONE, reason="")
        self.stage("submitting", "pinning the commit")
        try:
            self.hub.pin(self.owned.uid, self.owned.n, sha)
        except BrokenCommitError as e:
            return failed(f"the commit cannot be used: {e.what}")
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

    def _say(self, event: Event, **fields: Any) -> None:
        self.events.emit(event, uid=self.owned.uid, id=self.owned.item.id, n=self.owned.n, **fields)


def briefings(config: Config, project: Project, item: Item) -> tuple[str, ...]:
    """Of everybody, of the project, and of the domain that the item's label `domain` names."""
    texts = (config.briefing, project.briefing, project.domains.get(item.labels.get("domain", ""), ""))
    return tuple(text for text in texts if text.strip())


def _told(gate: GateResult) -> dict[str, Any]:
    """A gate's result, for the session's record."""
    told = {"name": gate.name, "ok": gate.ok, "required": gate.required, "seconds": gate.seconds}
    return told | ({"reason": gate.reason[:500]} if gate.reason else {})


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "no output"
