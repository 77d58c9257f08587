"""Quality gates: what must hold before the work of an attempt counts as done.

Built-in gates look at facts that the caller has taken from git; configured ones are commands. All built-in gates are
judged first, because they cost nothing and their failures belong together; then the configured ones in the order of
config.yaml, until the first required one fails (what follows it is not run). A gate that is not required is reported
and never stops anything. Gates run code that an agent wrote: contained like the agent, but without its credential, its
variables and its HOME.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from pathlib import Path

from harness import globs
from harness.agents.environment import plain
from harness.config import Gate
from harness.containment import Jail, Policy
from harness.dataclass import dataclass
from harness.model import CommitPolicy
from harness.redact import redact
from harness.runner import Command, Ended, EndReason, Runner
from harness.sessionfolder import SessionFolder, remove, tail
from harness.terminal import printable

TAIL_BYTES = 8 << 10
"""Of a gate's output, kept in its result: what a healing agent and a person see first."""
MAX_LOG_BYTES = 64 << 20
SHOWN_PATHS = 20
BROKEN = ".git: "
"""How the hub names, among what is dirty, a worktree that is none any more (git tracks nothing of that name)."""
STOP = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A file that differs between the attempt's base and its commit. `was`: its name before a rename or copy."""

    path: str
    was: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """Both sides of a rename: moving a file out of a place changes that place."""
        return (self.path,) if self.was is None else (self.path, self.was)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What git says of the attempt, after the harness has committed."""

    changes: tuple[Change, ...] = ()
    dirty: tuple[str, ...] = ()
    """Tracked files with uncommitted changes, and unmerged ones; or `BROKEN`, what became of the worktree, and what helps."""
    untracked: tuple[str, ...] = ()
    """Untracked files that are neither ignored nor in the project's `keep`."""
    in_progress: str = ""
    """``rebase``, ``merge``, ``cherry-pick`` …: an operation that was left half-way."""
    has_commit: bool = False
    """The branch holds a commit that its base does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the item and its project allow."""

    files: tuple[str, ...] = ()
    """Globs of the item; () allows everything."""
    protected: tuple[str, ...] = ()
    """Globs of the project."""
    allowed: tuple[str, ...] = ()
    """Globs of the item: protected paths that it may change."""
    commit: CommitPolicy = CommitPolicy.REQUIRED


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """How one gate went."""

    name: str
    ok: bool
    required: bool = True
    run: str = ""
    """The command line; "" for a built-in gate."""
    exit_code: int | None = None
    seconds: float = 0.0
    log: Path | None = None
    tail: str = ""
    """The end of its output, printable."""
    reason: str = ""
    """Why it failed, in one line; for a built-in gate with what to do."""
    stopped: str = ""
    """Not judged: we stopped it, and this is why (a drain). Then `ok` is False and says nothing."""

    @property
    def red(self) -> bool:
        return not self.ok and not self.stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """All gates that were judged, in order."""

    results: tuple[GateResult, ...] = ()

    @property
    def ok(self) -> bool:
        """Every required gate passed, and none was stopped."""
        return not any((r.required and r.red) or r.stopped for r in self.results)

    @property
    def stopped(self) -> str:
        """Why judging was broken off, or ""."""
        return next((r.stopped for r in self.results if r.stopped), "")

    @property
    def red(self) -> tuple[GateResult, ...]:
        """The required gates that failed."""
        return tuple(r for r in self.results if r.required and r.red)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the commands of gates run, as plain values."""

    worktree: Path
    folder: SessionFolder
    mark: str
    slot: str
    round: int
    """For the names of logs: 1 after the first run of the agent."""
    policy: Policy | None
    """What may be written besides the gate's own scratch folder."""
    environ: Mapping[str, str] = field(repr=False)
    """The daemon's."""
    stall_s: float | None = None
    """Silence and idleness that end a gate early; None: only its time limit."""


def run_gates(facts: Facts, rules: Rules, gates: Iterable[Gate], place: Place, runner: Runner) -> GateReport:
    """The built-in gates, then `gates` unless a built-in one is red."""
    results = builtin(facts, rules)
    if all(result.ok for result in results):
        results += run_configured(gates, place, runner).results
    return GateReport(results=results)


def run_configured(gates: Iterable[Gate], place: Place, runner: Runner) -> GateReport:
    """The commands alone, as on a merged tree: in order, up to the first required one that fails."""
    results: list[GateResult] = []
    for gate in gates:
        results.append(_run(gate, place, runner))
        if results[-1].stopped or (results[-1].red and gate.required):
            break
    return GateReport(results=tuple(results))


def builtin(facts: Facts, rules: Rules) -> tuple[GateResult, ...]:
    """clean, commit, scope and protected, as far as they apply. Pure."""
    return tuple(
        GateResult(name=name, ok=not reason, reason=reason, tail=reason)
        for name, reason in (
            ("clean", _clean(facts, rules)),
            ("commit", _commit(facts, rules)),
            ("scope", _scope(facts, rules)),
            ("protected", _protected(facts, rules)),
        )
    )


def overstepped(changes: Iterable[Change], rules: Rules) -> GateResult | None:
    """scope or protected, of a merged tree: an agent that merges by itself decides what git merges, and what it undoes."""
    results = builtin(Facts(changes=tuple(changes), has_commit=True), rules)
    return next((result for result in results if not result.ok), None)


def _clean(facts: Facts, rules: Rules) -> str:
    if broken := _broken(facts):
        return f"the worktree cannot be used by git any more, nothing in it can be committed: {broken}"
    if facts.in_progress:
        return f"a {facts.in_progress} was left half-way: finish or abort it"
    if rules.commit is CommitPolicy.NONE:
        return ""  # nothing was to be committed: what lies around is kept aside with the worktree
    parts = []
    if facts.dirty:
        parts.append(f"uncommitted changes: {_listed(facts.dirty)}")
    if facts.untracked:
        parts.append(f"untracked files: {_listed(facts.untracked)}")
    return f"{'; '.join(parts)}. Commit, remove or ignore them" if parts else ""


def _broken(facts: Facts) -> str:
    return next((name.removeprefix(BROKEN) for name in facts.dirty if name.startswith(BROKEN)), "")


def _commit(facts: Facts, rules: Rules) -> str:
    match rules.commit:
        case CommitPolicy.REQUIRED:
            if facts.has_commit or _broken(facts):  # whether something was changed is not known
                return ""
            return "there is no commit: nothing was changed"
        case CommitPolicy.NONE:
            return "there is a commit, and the item asks for none" if facts.has_commit else ""
        case CommitPolicy.OPTIONAL:
            return ""


def _scope(facts: Facts, rules: Rules) -> str:
    if not rules.files:
        return ""
    outside = [p for p in _paths(facts) if not globs.matches_any(p, rules.files)]
    return (
        f"changed outside of the item's files ({_listed(rules.files)}): {_listed(outside)}. Take these changes back"
        if outside
        else ""
    )


def _protected(facts: Facts, rules: Rules) -> str:
    touched = [
        p
        for p in _paths(facts)
        if globs.matches_any(p, rules.protected) and not globs.matches_any(p, rules.allowed)
    ]
    return f"protected paths changed: {_listed(touched)}. Take these changes back" if touched else ""


def _paths(facts: Facts) -> Iterator[str]:
    yield from dict.fromkeys(path for change in facts.changes for path in change.paths)


def _listed(paths: Iterable[str]) -> str:
    names = list(paths)
    more = f" and {len(names) - SHOWN_PATHS} more" if len(names) > SHOWN_PATHS else ""
    return ", ".join(printable(name).replace("\n", "?") for name in names[:SHOWN_PATHS]) + more


def _run(gate: Gate, place: Place, runner: Runner) -> GateResult:
    log = place.folder.gate_log(gate.name, place.round)
    place.folder.make_scratch()
    scratch = place.folder.gate_scratch
    home, tmp = scratch / "home", scratch / "tmp"
    remove(runner, scratch)  # of one that was killed, or whatever an agent put in its place
    for folder in (scratch, home, tmp):
        folder.mkdir(mode=0o700)
    try:
        ended = runner.run(_command(gate, place, log, home, tmp))
    finally:
        remove(runner, tmp, home, scratch)
    return _result(gate, ended, log)


def _command(gate: Gate, place: Place, log: Path, home: Path, tmp: Path) -> Command:
    env = plain(place.environ, home=home, tmp=tmp, name=f"gate {gate.name}", slot=place.slot)
    return Command(
        argv=("sh", "-c", gate.run),
        cwd=place.worktree,
        env=env
        | {"HARNESS_ATTEMPT": place.mark, "HARNESS_GATE": gate.name, "HARNESS_WORKTREE": str(place.worktree)},
        stdout=log,
        stderr=log,
        timeout_s=gate.timeout_s,
        stall_s=place.stall_s,
        stop=STOP,
        jail=Jail(mark=place.mark, policy=place.folder.opened(place.policy, (home, tmp))),
        max_output_bytes=MAX_LOG_BYTES,
    )


def _result(gate: Gate, ended: Ended, log: Path) -> GateResult:
    ok = ended.reason is EndReason.EXITED and ended.exit_code == 0
    return GateResult(
        name=gate.name,
        ok=ok,
        required=gate.required,
        run=gate.run,
        exit_code=ended.exit_code,
        seconds=round(ended.duration_s, 3),
        log=log,
        tail=redact(printable(tail(log, TAIL_BYTES))),
        reason="" if ok else _why(gate, ended),
        stopped=(ended.stop_reason or "stopped") if ended.reason is EndReason.STOPPED else "",
    )


def _why(gate: Gate, ended: Ended) -> str:
    match ended.reason:
        case EndReason.EXITED if ended.signal:
            return f"ended by signal {ended.signal}"
        case EndReason.EXITED:
            return f"exit {ended.exit_code}"
        case EndReason.TIMED_OUT:
            return f"not done after {gate.timeout_s:g} s"
        case EndReason.STALLED:
            return f"no output and no CPU time, stopped after {ended.duration_s:.0f} s"
        case EndReason.STOPPED:
            return f"stopped: {ended.stop_reason}"
        case EndReason.TOO_MUCH_OUTPUT:
            return f"wrote more than {MAX_LOG_BYTES >> 20} MiB"
        case EndReason.NOT_STARTED:
            return f"could not be started: {ended.error}"
