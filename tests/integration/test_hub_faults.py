"""git's own system calls fail, or git dies in them: our call says so or succeeds, and made again it completes.

The fault is put into one call of one git command by strace(1). By default a sample; all of them with

    HARNESS_FAULTS=all ./scripts/test tests/integration/test_hub_faults.py
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from harness.errors import HarnessError, TryAgainError
from harness.hub import Hub
from harness.layout import Layout
from harness.runner import Command, Ended, EndReason, Runner
from tests.hubs import Desk, desk, git, person
from tests.integration import test_hub_crash as crash

CALLS = ("openat", "write", "link", "rename", "unlink", "mkdir", "rmdir", "fsync", "ftruncate", "chdir")
FAULTS = ("ENOSPC", "EIO", "EROFS", "EMLINK", "EACCES", "EMFILE", "SIGKILL")
LINKER = {"openat": 12}
"""So many are the linker's, in each process, and no business of git."""
SAMPLE = 6
"""So many that happened, of each act."""
MOST = 24
"""So many are tried for them."""
CALL = re.compile(r"^(\d+) +(\w+)\(", re.MULTILINE)
ALL = os.environ.get("HARNESS_FAULTS") == "all"


def traced(inject: str, log: Path | None = None) -> tuple[str, ...]:
    """strace that makes one call fail. A call that it does not trace it does not touch either. `log`: for `happened`.

    With --seccomp-bpf it is quick, and sends no signal (strace 6.1).
    """
    call = inject.removeprefix("inject=").partition(":")[0]
    seen = str(log or "/dev/null")
    quick = () if "signal=" in inject else ("--seccomp-bpf",)
    return ("strace", "-q", "-f", *quick, "-o", seen, "-e", f"trace={call}", "-e", inject)


def happened(log: Path) -> bool:
    """Was there a call to put the fault into?"""
    said = log.read_bytes() if log.exists() else b""
    log.unlink(missing_ok=True)
    return b"(INJECTED)" in said or b"killed by SIGKILL" in said


def _works() -> bool:
    """May we trace, and does a call fail then, and die?"""
    if shutil.which("strace") is None:
        return False

    def tried(fault: str) -> subprocess.CompletedProcess[str]:
        argv = [*traced(f"inject=mkdir:{fault}:when=1"), "mkdir", "/dev/null/x"]
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
        )

    return "Input/output error" in tried("error=EIO").stderr and tried("signal=SIGKILL").returncode < 0


pytestmark = [
    pytest.mark.skipif(not _works(), reason="needs strace, and to be allowed to trace"),
    pytest.mark.timeout(7200 if ALL else 120),
]


@dataclass
class Faulty:
    """A runner that puts a fault into its `command`-th command, counted from 0."""

    runner: Runner
    command: int
    inject: str
    log: Path
    seen: int = -1

    def run(self, command: Command, /) -> Ended:
        self.seen += 1
        if self.seen == self.command and command.argv[0] == "git":
            command = replace(command, argv=(*traced(self.inject, self.log), *command.argv))
        return self.runner.run(command)


@dataclass
class Counting:
    """A runner that notes the calls of each of its commands."""

    runner: Runner
    log: Path
    made: list[Counter[str]] = field(default_factory=list)
    """Of each command: how often each call was made by that of its processes which made it most. strace counts the calls of
    each process by themselves."""

    def run(self, command: Command, /) -> Ended:
        if command.argv[0] == "git":
            wrapped = (
                "strace",
                "-qq",
                "-f",
                "--seccomp-bpf",
                "-o",
                str(self.log),
                "-e",
                f"trace={','.join(CALLS)}",
            )
            command = replace(command, argv=(*wrapped, *command.argv))
        ended = self.runner.run(command)
        seen = Counter(CALL.findall(self.log.read_text(errors="replace"))) if self.log.exists() else Counter()
        self.log.unlink(missing_ok=True)
        made: Counter[str] = Counter()
        for (_, call), times in seen.items():
            made[call] = max(made[call], times - LINKER.get(call, 0))
        self.made.append(made)
        return ended


def injections(made: list[Counter[str]]) -> Iterator[tuple[int, str]]:
    """(which command, what strace is told), for every call that was made."""
    for command, calls in enumerate(made):
        for call, fault in itertools.product(calls, FAULTS):
            what = f"signal={fault}" if fault.startswith("SIG") else f"error={fault}"
            for nth in range(1, calls[call] + 1):
                yield command, f"inject={call}:{what}:when={LINKER.get(call, 0) + nth}"


@dataclass(frozen=True)
class Act:
    arrange: Callable[[Hub], object]
    act: Callable[[Hub], object]
    check: Callable[[Hub], None]


def assert_reused(hub: Hub) -> None:
    """As after a crash; but what could not be salvaged as a commit may have been kept as it lay there."""
    crash.assert_ready(hub)
    elsewhere: list[str] = []
    for kept in (hub.path.parent.parent / "kept").iterdir():
        files = (p for p in kept.rglob("*") if p.is_file() and not p.is_symlink())
        elsewhere += itertools.chain.from_iterable(p.read_text().split("\n") for p in files)
        elsewhere += git(kept, "grep", "--cached", "-h", "", ok=(0, 1)).split("\n")  # it has its index still
    crash.assert_saved(hub, elsewhere)


ACTS = {
    "a new worktree": Act(lambda hub: None, crash.prepared, crash.assert_ready),
    "a messy worktree, reused": Act(crash.messy, crash.prepared, assert_reused),
    "what an agent left": Act(crash.leftovers, crash.commit_rest, crash.assert_committed),
    "pin, merge, publish": Act(crash.submitted, crash.merge, crash.assert_merged),
}


@pytest.mark.parametrize("name", ACTS)
def test_a_fault_in_git_is_said_and_the_same_call_completes_later(
    layout: Layout, tmp_path: Path, name: str
) -> None:
    it = ACTS[name]
    up = person(tmp_path / "up")
    it.arrange(desk(layout, up).open())
    before = tmp_path / "before"
    for folder in (up, layout.state):
        shutil.copytree(folder, before / folder.name, symlinks=True)

    def again(at: Desk) -> Hub:
        hub = at.open()
        it.act(hub)
        it.check(hub)
        return hub

    def reset() -> None:
        for folder in (up, layout.state):
            shutil.rmtree(folder)
            shutil.copytree(before / folder.name, folder, symlinks=True)

    dry = desk(layout, up)
    hub = dry.open()
    counting = Counting(dry.probe.runner, tmp_path / "trace")
    dry.probe.runner = counting  # type: ignore[assignment]
    it.act(hub)
    every = list(injections(counting.made))
    it.check(hub)
    seed = random.randrange(1 << 32)
    chosen = every if ALL else random.Random(seed).sample(every, MOST)
    tried, hit, wrong, log = 0, 0, [], tmp_path / "trace"
    for command, inject in chosen:
        if not ALL and hit == SAMPLE:
            break
        tried += 1
        reset()
        at = desk(layout, up)
        hub = at.open()
        at.probe.runner = Faulty(at.probe.runner, command, inject, log)  # type: ignore[assignment]
        try:
            with contextlib.suppress(HarnessError):
                it.act(hub)
            hit += happened(log)
            try:
                hub = again(desk(layout, up))
            except TryAgainError as e:
                # Of a git that was killed in the person's own repository. They are told, and nobody else may remove it.
                locks = [lock for lock in (up / ".git").rglob("*.lock") if lock.name in str(e)]
                if not locks:
                    raise
                for lock in locks:
                    lock.unlink()
                hub = again(desk(layout, up))
            assert git(hub.path, "fsck", "--no-dangling") == ""
        except Exception as e:  # noqa: BLE001 - all are told at the end
            wrong.append(f"command {command}, {inject}: {e!r}"[:600])
    assert not wrong, "\n".join([f"{len(wrong)} of {tried} (seed {seed})", *wrong[:40]])
    print(f"{name}: {len(counting.made)} commands, {len(every)} faults; {hit} of {tried} happened")  # noqa: T201
    # Of each 60 some 3 to 8 meet no call: how often git reads a file again depends on times.
    assert hit >= (tried * 0.75 if ALL else SAMPLE), (
        f"the calls are not those that were made before (seed {seed})"
    )


@dataclass
class Named:
    """A runner that puts a fault into the first git command with these words; without one it does nothing, and says 0."""

    runner: Runner
    words: tuple[str, ...]
    inject: str
    felt: bool = False

    def run(self, command: Command, /) -> Ended:
        if not self.felt and command.argv[0] == "git" and set(self.words) <= set(command.argv):
            self.felt = True
            if not self.inject:
                return Ended(reason=EndReason.EXITED, exit_code=0)
            command = replace(command, argv=(*traced(self.inject), *command.argv))
        return self.runner.run(command)


@pytest.mark.parametrize(
    ("words", "inject"),
    [
        (("reflog", "delete"), ""),  # as when git cannot open the log: it says nothing, and 0
        (("reflog", "delete"), "inject=unlink:error=EIO:when=1"),  # its lock stays
        (("update-ref", "-d"), "inject=unlink:error=EIO:when=2"),
    ],
)
def test_a_saved_stash_that_git_did_not_drop_is_dropped_by_the_next_call(
    layout: Layout, tmp_path: Path, words: tuple[str, ...], inject: str
) -> None:
    it = ACTS["a messy worktree, reused"]
    up = person(tmp_path / "up")
    it.arrange(desk(layout, up).open())
    at = desk(layout, up)
    hub = at.open()
    faulty = Named(at.probe.runner, words, inject)
    at.probe.runner = faulty  # type: ignore[assignment]
    with contextlib.suppress(HarnessError):
        it.act(hub)
    assert faulty.felt
    hub = desk(layout, up).open()
    it.act(hub)
    it.check(hub)
    assert git(hub.path, "rev-parse", "-q", "--verify", "refs/stash", ok=(0, 1)) == ""
