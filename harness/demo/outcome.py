"""Proves what the demo achieved, from the store and the person's repository; nothing is believed that was only shown."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.clock import SystemClock, parse_rfc3339
from harness.dataclass import dataclass
from harness.demo.daemon import gone
from harness.demo.scene import TESTS, Scene, git
from harness.model import Attempt, Outcome, State
from harness.store.disk import Disk
from harness.store.view import Seen, View

CHECK_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """One merge commit on the first-parent line of the person's main."""

    sha: str
    second: str
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was found. `problems` is empty when everything is as promised."""

    items: tuple[Seen, ...]
    merges: tuple[Merge, ...]
    outcomes: Mapping[str, int]
    """How attempts ended -> number; ``merged`` and ``returned`` are those that the merge lane judged."""
    worked_s: float
    """Sum of the times from claim to end of all attempts."""
    tests: str
    """The last words of the unit tests, run on the person's main."""
    fsck: str
    problems: tuple[str, ...]

    @property
    def attempts(self) -> int:
        return sum(len(seen.attempts) for seen in self.items)


def prove(scene: Scene, expected: Sequence[str], daemon_exit: int | None) -> Proof:
    """Look at everything. `daemon_exit`: of the coordinator, which says 0 when all is done; None: it was stopped."""
    items = tuple(_items(scene))
    merges = tuple(_merges(scene))
    tests_ok, tests = _run(TESTS, scene.repository, last=2)
    root = str(scene.layout.root)
    fsck_ok, fsck = _run(
        (sys.executable, "-P", "-m", "harness", "--root", root, "fsck", "--git"), scene.layout.root
    )
    dirty = git(scene.repository, "status", "--porcelain").strip()
    problems = [*_not_once(items, merges, expected)]
    problems += [] if tests_ok else [f"the unit tests fail on main: {tests}"]
    problems += [] if fsck_ok else [f"fsck: {fsck}"]
    problems += [f"the person's checkout is not clean: {dirty}"] if dirty else []
    problems += [] if daemon_exit == 0 else [f"the coordinator ended with {daemon_exit}; see {scene.output}"]
    problems += [] if gone(scene) else ["processes of the demo are still running"]
    return Proof(
        items=items,
        merges=merges,
        outcomes=Counter(_outcome(attempt) for seen in items for attempt in seen.attempts),
        worked_s=sum(_seconds(attempt) for seen in items for attempt in seen.attempts),
        tests=tests,
        fsck=fsck,
        problems=tuple(problems),
    )


def _not_once(items: Sequence[Seen], merges: Sequence[Merge], expected: Sequence[str]) -> Iterator[str]:
    """Whatever contradicts: each item is merged, and each has exactly one merge commit, the one in its verdict."""
    known = {seen.id: seen for seen in items}
    for name in expected:
        seen = known.get(name)
        own = [merge for merge in merges if merge.subject.startswith(f"{name}: ")]
        if seen is None or seen.state is not State.MERGED:
            yield f"{name} is {seen.state.value if seen else 'missing'}, not merged"
            continue
        if len(own) != 1:
            yield f"{name} has {len(own)} merges in main, not one"
            continue
        last = seen.attempts[-1]
        promised = (last.verdict.merged if last.verdict else None, last.end.sha if last.end else None)
        if (own[0].sha, own[0].second) != promised:
            yield f"{name}: main has {own[0].sha}, its verdict says {promised[0]}"
    if len(merges) != len(expected):
        yield f"main has {len(merges)} merges, {len(expected)} were expected"


def _items(scene: Scene) -> Iterator[Seen]:
    view = View(Disk(scene.layout, SystemClock()))
    uids = [*view.uids("open"), *view.uids("waiting"), *(uid for _, uid in view.archived())]
    for uid in uids:
        if seen := view.item(uid):
            yield seen


def _merges(scene: Scene) -> Iterator[Merge]:
    log = git(scene.repository, "log", "--first-parent", "--merges", "--format=%H %P\t%s", "main")
    for line in log.splitlines():
        shas, _, subject = line.partition("\t")
        sha, _, second = shas.split()
        yield Merge(sha=sha, second=second, subject=subject)


def _outcome(attempt: Attempt) -> str:
    if attempt.verdict is not None:
        return attempt.verdict.kind.value
    return attempt.end.outcome.value if attempt.end else Outcome.EXPIRED.value


def _seconds(attempt: Attempt) -> float:
    if not attempt.claim or not attempt.end or not attempt.claim.claimed_at or not attempt.end.ended_at:
        return 0.0
    return max(0.0, parse_rfc3339(attempt.end.ended_at) - parse_rfc3339(attempt.claim.claimed_at))


def _run(argv: Sequence[str], cwd: Path, last: int = 1) -> tuple[bool, str]:
    """-> (exit 0?, the last lines that it printed)."""
    try:
        ran = subprocess.run(
            argv,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CHECK_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {CHECK_S:.0f} s"
    lines = [line.strip() for line in (ran.stdout + ran.stderr).splitlines() if line.strip()]
    return ran.returncode == 0, ", ".join(lines[-last:])
