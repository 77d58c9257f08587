"""What an agent is told: the item's own prompt first, then where it works, what it may change, and what went wrong before.

Pure. The item's prompt always comes first and unchanged. With `Instructions.COMMENT` every line that we add begins with
``# ``, so that the whole is still a script when the prompt is one (``argv: [sh, "{prompt_file}"]``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from harness.config import CommitBy, Instructions
from harness.dataclass import dataclass
from harness.model import Attempt, CommitPolicy, Item, Outcome, Verdict
from harness.terminal import printable, printable_line

MAX_EVIDENCE_CHARS = 16 << 10
MAX_TAIL_CHARS = 8 << 10
ESSENTIAL_LINES = 20
_MISTAKE = re.compile(
    r"\b(?:[A-Za-z]*(?:Error|Exception)\b|error(?:\[\w+\])?:|FAIL(?:ED|URE)?\b|fatal:|panicked at|undefined reference|E   )"
)
EARLIER = 3
"""Of so many of the last attempts the next one is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLine:
    """A configured gate, as an agent is told of it."""

    name: str
    run: str
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """The rules of the project for this attempt, as plain values."""

    target: str
    gates: tuple[GateLine, ...] = ()
    protected: tuple[str, ...] = ()
    commit_by: CommitBy = CommitBy.EITHER
    instructions: Instructions = Instructions.COMMENT
    worktree: str = ""
    briefings: tuple[str, ...] = ()
    """What config.yaml tells everybody, the project's agents, and those who work in the item's domain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedGate:
    """A gate that failed after this session's last run."""

    name: str
    reason: str
    run: str = ""
    """"" for a built-in gate, whose reason says everything."""
    tail: str = ""


def attempt_prompt(item: Item, brief: Brief, earlier: Sequence[Attempt] = ()) -> str:
    """The prompt of the first run of an attempt. `earlier` are the item's ended attempts, oldest first."""
    if brief.instructions is Instructions.NONE:
        return item.prompt
    sections = [_task(item, brief), *_briefings(brief), _rules(item, brief), _earlier(earlier)]
    return _joined(item.prompt, sections, brief.instructions)


def heal_prompt(
    item: Item, brief: Brief, red: Iterable[RedGate], *, number: int, rounds: int, knows: bool = False
) -> str:
    """The prompt of a heal round: what failed. `number` of `rounds`, counted from 1.

    `knows`: the session goes on and has its task; a tool without a memory gets the item's prompt again.
    """
    if brief.instructions is Instructions.NONE:
        return item.prompt
    head = (
        f"Your work is not done yet: a check failed (correction {number} of {rounds}). Your changes are still in the current directory.",
        "Repair the cause. Do not weaken, skip or delete the check.",
    )
    sections = [("Not done yet", head), *(_red(gate) for gate in red), _rules(item, brief)]
    if knows:
        return _joined("Your work is not done yet.", sections, Instructions.TEXT)
    return _joined(item.prompt, sections, brief.instructions)


def resume_prompt(
    item: Item, brief: Brief, why: str, worktree: str, *, carried: bool, found: str | None = None
) -> str:
    """The prompt for a session that was broken off and goes on. `why`: what broke it off; `carried`: its files are there;
    `found`: but the uncommitted ones, which may be torn, are in this commit."""
    if brief.instructions is Instructions.NONE:
        return item.prompt
    what = "commits" if found else "commits and uncommitted files"
    files = (
        f"Your {what} are there as you left them; ignored files (caches, builds) may be gone."
        if carried
        else "It begins at the present state of the target: what you had changed is not there, look before you rely on it."
    )
    if found:
        files += (
            " The machine was restarted: a file that you had not committed may be empty or damaged. As they were found, they"
            f" are in commit {found}: take over what is whole, write the rest again."
        )
    head = (
        f"You were interrupted: {printable_line(why, 500)}. Go on with the task where you were, and finish it.",
        f"Your worktree is {printable_line(worktree, 1000)} now, use no other path. {files}",
        "A command that ran when you were interrupted was ended: check what it has done.",
    )
    return _joined("Go on with the task.", [("Interrupted", head), _rules(item, brief)], Instructions.TEXT)


Section = tuple[str, Sequence[str]]


def _task(item: Item, brief: Brief) -> Section:
    lines = [f"Item: {printable_line(item.id)}"]
    if item.title:
        lines.append(f"Title: {printable_line(item.title)}")
    if brief.worktree:
        lines.append(f"Worktree: {printable_line(brief.worktree, 1000)}")
    return "The task", (*lines, "The text above is the task; these notes are from the harness that runs you.")


def _briefings(brief: Brief) -> Iterator[Section]:
    for text in brief.briefings:
        yield "What to know", tuple(printable(text).strip("\n").split("\n"))


def _rules(item: Item, brief: Brief) -> Section:
    return "Rules", tuple(line for rule in _rule_lines(item, brief) for line in f"- {rule}".split("\n"))


def _rule_lines(item: Item, brief: Brief) -> Iterator[str]:
    yield "Work in the current directory only. It is a git worktree of your own, on a branch of your own."
    yield f"Do not push, do not switch branches, do not merge: what you commit is merged into {brief.target} for you."
    yield "Do not use git stash: all worktrees of this repository share one."
    match item.commit:
        case CommitPolicy.NONE:
            yield "Do not commit: the result of this task is not a change of files."
        case CommitPolicy.REQUIRED | CommitPolicy.OPTIONAL:
            yield from _commit_lines(brief.commit_by)
            if item.commit is CommitPolicy.OPTIONAL:
                yield "It is fine to change nothing when nothing needs to change."
    if item.files:
        yield f"Change only: {_list(item.files)}"
    closed = [p for p in brief.protected if p not in item.protected]
    if closed:
        yield f"Never change: {_list(closed)}"
    required = [gate for gate in brief.gates if gate.required]
    if required:
        checks = "".join(f"\n  - {gate.name}: {printable_line(gate.run, 500)}" for gate in required)
        yield f"These checks must pass afterwards; run them yourself before you finish:{checks}"
    yield "Nobody can answer while you work. If you cannot go on without a person, write the question to the file named by $HARNESS_INTERRUPT_FILE and finish."
    yield "What others should know who work here later (a trap, a decision), write to the file named by $HARNESS_FINDINGS_FILE."


def _commit_lines(commit_by: CommitBy) -> Iterator[str]:
    match commit_by:
        case CommitBy.AGENT:
            yield "Commit your work yourself, and leave no uncommitted or untracked files."
        case CommitBy.HARNESS:
            yield "Do not commit: leave your changes in the files, the harness commits them."
        case CommitBy.EITHER:
            yield "Commit your work, or leave your changes in the files: then the harness commits them."


def _list(globs: Iterable[str]) -> str:
    return ", ".join(printable_line(glob) for glob in globs)


def _earlier(attempts: Sequence[Attempt]) -> Section:
    told = [lines for lines in (_told(attempt) for attempt in attempts) if lines][-EARLIER:]
    lines = [line for part in told for line in (*part, "")][:-1]
    return "Earlier attempts", tuple(lines)


def _told(attempt: Attempt) -> Sequence[str]:
    """What the next attempt can learn from this one; nothing from a release or from what a person did."""
    if attempt.verdict is not None and attempt.verdict.returned:
        return _returned(attempt.n, attempt.verdict)
    end = attempt.end
    if end is None or end.outcome not in (Outcome.FAILED, Outcome.EXPIRED):
        return ()
    first, *rest = printable(end.reason or "no reason known").splitlines() or [""]
    return (f"Attempt {attempt.n} {end.outcome.value}: {first}", *_clipped("\n".join(rest), MAX_TAIL_CHARS))


def _returned(n: int, verdict: Verdict) -> Sequence[str]:
    if verdict.returned == "conflict":
        lines = [f"Attempt {n} was not merged: it conflicts with what was merged meanwhile."]
        if verdict.files:
            lines.append(f"Files in conflict: {_list(verdict.files)}")
        lines.append("You start from the new state. Do the task again on it, so that both changes hold.")
    else:
        gate = f" {printable_line(verdict.gate)}" if verdict.gate else ""
        lines = [f"Attempt {n} was not merged: after merging, the check{gate} failed."]
        lines.append("You start from the new state. Do the task again on it, so that the check passes.")
    if verdict.why:
        lines.append(printable_line(verdict.why, 500))
    return (*lines, *_clipped(verdict.evidence, MAX_EVIDENCE_CHARS))


def _red(gate: RedGate) -> Section:
    lines = [f"Command: {printable_line(gate.run, 500)}"] if gate.run else []
    lines.append(f"Result: {printable_line(gate.reason, 4000)}")
    if gate.run:
        if essential := _essential(gate.tail):
            lines += ["What stands out in its output:", *essential]
        if output := _clipped(gate.tail, MAX_TAIL_CHARS):
            lines += ["The end of its output:", *output]
    return f"Failed check: {gate.name}", tuple(lines)


def _essential(text: str) -> Sequence[str]:
    """The first lines that name a mistake, when they do not stand at the end anyway."""
    said = printable(text).strip("\n").split("\n")
    found = [line[:300] for line in said[:-ESSENTIAL_LINES] if _MISTAKE.search(line)]
    return tuple(f"  {line}" for line in found[:ESSENTIAL_LINES])


def _clipped(text: str, limit: int) -> Sequence[str]:
    """The end of a text, from the beginning of a line, as lines."""
    text = printable(text).strip("\n")
    if len(text) > limit:
        text = text[-limit:]
        text = "[...]\n" + (text.partition("\n")[2] or text)
    return tuple(f"  {line}" if line else "" for line in text.splitlines())


def _joined(prompt: str, sections: Iterable[Section], instructions: Instructions) -> str:
    """The prompt, then the sections that say something."""
    lines: list[str] = []
    for title, body in sections:
        if body:
            lines += ["", f"## {title}", "", *body]
    if instructions is Instructions.COMMENT:
        lines = ["", *(f"# {line}".rstrip() for line in lines[1:])]
    return prompt.rstrip("\n") + "\n" + "\n".join(lines) + "\n"
