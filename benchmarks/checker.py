"""Says what is wrong with a root after a storm, from the files and from git alone. Imports nothing of the product.

Written against docs/protocol.md, not against the code, so that a mistake in the code is no mistake here too. Where both
are wanted, `harnessctl fsck` is run besides.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fleet import CHECKOUT, Fleet, environment, git

SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
STARTING = re.compile(r"(selftest|format)\.[0-9a-f]+(\.link)?")
STARTING_S = 3600 + 60
FOR_GOOD = (2, 78)
"""Exit codes after which systemd starts no other coordinator (4, another one runs, is what a bench may do itself)."""
LATER = ("a merge that no item accounts for", "the person's main is not", "main: A ")
"""What is only wrong when all is done: an item is archived after its merge, and the merge published after that."""
SHARED = "shared/"
"""Written by many items at once."""
CELL = re.compile(r"(\d+)\.(claim|end|verdict|grant)")


@dataclass(slots=True)
class Archived:
    """One item in archive/, its cells by number and kind."""

    folder: Path
    item: dict[str, Any]
    cells: dict[int, dict[str, dict[str, Any]]] = field(default_factory=dict)


def outcomes(queue: Path, uid: str) -> list[str]:
    """How the attempts of an item ended, in order; of an item in open/ or in archive/."""
    folder = next((p for p in (queue / "open" / uid, *queue.glob(f"archive/*/{uid}")) if p.is_dir()), None)
    if folder is None:
        return []
    ends = sorted(folder.glob("*.end"), key=lambda p: int(p.stem))
    return [json.loads(p.read_bytes())["outcome"] for p in ends]


def check(
    fleet: Fleet,
    expected: Mapping[str, str | None],
    cancelled: Collection[str] = (),
    told: Collection[str] = (),
    *,
    unsynced: bool = False,
) -> list[str]:
    """Everything that is wrong after everything is done and stopped. `expected`: id -> the file that its merge adds,
    None for an item without a commit. `cancelled`: ids that somebody tried to cancel; whether that came in time is what
    the cells say, and everything else has to agree with them. `told`: those that were said to be cancelled.
    `unsynced`: power was lost, and agents' git does not fsync: see `repositories`."""
    wrong = [*_ends(fleet.ended), *_running(fleet), *_queue(fleet.queue)]
    items = list(_archived(fleet.queue, wrong))
    wrong += _once(items, expected)
    over = {one.item["id"] for one in items if _is_over_by_cancel(one)}
    wrong += [f"{name}: somebody was told that it is cancelled, and it is not" for name in {*told} - over]
    wrong += _lives(fleet.queue, items, cancelled)
    expected = {name: None if name in over else path for name, path in expected.items()}
    wrong += _line(fleet, items, expected)
    wrong += repositories(fleet, only_named=unsynced)
    wrong += _own_check(fleet)
    return wrong


def check_unfinished(
    fleet: Fleet,
    expected: Mapping[str, str | None],
    cancelled: Collection[str] = (),
    told: Collection[str] = (),
) -> list[str]:
    """Everything that is wrong already when all of it was killed before everything was done: what is archived, and the
    target. What is not archived may be anywhere."""
    wrong = list(_ends(fleet.ended))
    items = list(_archived(fleet.queue, wrong))
    names = {one.item["id"] for one in items}
    over = {one.item["id"] for one in items if _is_over_by_cancel(one)}
    known = {name: None if name in over else path for name, path in expected.items() if name in names}
    wrong += _once(items, {name: path for name, path in expected.items() if name in names})
    wrong += [
        f"{name}: somebody was told that it is cancelled, and it is not" for name in {*told} & names - over
    ]
    wrong += _lives(fleet.queue, items, cancelled)
    wrong += [w for w in _line(fleet, items, known) if not w.startswith(LATER)]
    return wrong


def _ends(codes: Iterable[int]) -> Iterator[str]:
    for code in codes:
        if code in FOR_GOOD:
            yield f"a coordinator ended with exit code {code}, after which systemd starts no other"


def _running(fleet: Fleet) -> Iterator[str]:
    for process in fleet.processes():
        yield f"still runs: {process} {Path(f'/proc/{process.pid}/cmdline').read_bytes()!r}"
    files = {_place(os.stat(p)): p for p in fleet.root.rglob("*") if p.is_file() and not p.is_symlink()}
    for line in Path("/proc/locks").read_text().splitlines():
        place = line.split()[-3]
        if place in files and "LEASE" not in line:
            yield f"still locked: {files[place]} ({line})"
    # Of a power loss, of a kill: after the next start (`Fleet.finish`) none may be there. In the person's repository
    # nobody but the person removes one, and until then nothing is published.
    for path in (*fleet.git_locks(), *(fleet.app / ".git").rglob("*.lock")):
        yield f"a git lock is left: {path}"


def _place(info: os.stat_result) -> str:
    """A file as /proc/locks names it: inode numbers alone are the same on every file system (proc_locks(5))."""
    return f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"


def _queue(queue: Path) -> Iterator[str]:
    """Nothing may be left on the way."""
    for phase in ("incoming", "waiting", "open", "rejected", "tmp"):
        for name in os.listdir(queue / phase):
            if not _given_time(phase, queue / phase / name):
                yield f"left in {phase}/: {name}"
    for path in queue.iterdir():
        if path.is_file() and path.suffix in (".json", ".jsonl", ".yaml", ".yml"):
            yield f"a drop was never taken: {path.name}"
    for path in (queue / "ready").rglob("*"):
        if path.is_file():
            yield f"a hint is left: {path.name}"


def _given_time(phase: str, path: Path) -> bool:
    """Of a process that was killed in its first moments, before anybody could say who it is, or between making the
    folder for a drop and moving the drop there: both are given an hour."""
    if time.time() - path.lstat().st_mtime >= STARTING_S:
        return False
    if phase == "incoming":
        return path.is_dir() and not any(path.iterdir())
    return phase == "tmp" and STARTING.fullmatch(path.name) is not None


def _archived(queue: Path, wrong: list[str]) -> Iterator[Archived]:
    for folder in sorted(queue.glob("archive/*/*")):
        try:
            one = Archived(folder, json.loads((folder / "item.json").read_bytes()))
        except (OSError, ValueError) as e:
            wrong.append(f"{folder}: item.json: {e}")
            continue
        for path in folder.iterdir():
            match = CELL.fullmatch(path.name)
            if not match:
                continue
            try:
                one.cells.setdefault(int(match[1]), {})[match[2]] = json.loads(path.read_bytes())
            except ValueError as e:
                wrong.append(f"{path}: torn: {e}")
        yield one


def _once(items: list[Archived], expected: Mapping[str, str | None]) -> Iterator[str]:
    seen = Counter(str(one.item["id"]) for one in items)
    for name in expected.keys() - seen.keys():
        yield f"lost: {name} is not archived"
    for name, number in seen.items():
        if number != 1:
            yield f"double: {name} is archived {number} times"
        if name not in expected:
            yield f"nobody dropped {name}"


def _lives(queue: Path, items: list[Archived], cancelled: Collection[str]) -> Iterator[str]:
    stubs = Counter(path.name for path in queue.glob("done/*/*"))
    for one in items:
        over = _is_over_by_cancel(one)
        if over and one.item["id"] not in cancelled:
            yield f"{one.item['id']}: cancelled, and nobody asked for it"
        yield from _life(one, over)
        if stubs[one.item["uid"]] != 1:
            yield f"{one.item['uid']}: {stubs[one.item['uid']]} stubs"


def _is_over_by_cancel(one: Archived) -> bool:
    return bool(one.cells) and _is_cancelled(one.cells[max(one.cells)])


def _is_cancelled(cells: dict[str, dict[str, Any]]) -> bool:
    return cells.get("end", {}).get("outcome") == "cancelled" or "cancelled" in cells.get("verdict", {})


def _life(one: Archived, cancelled: bool) -> Iterator[str]:
    """Every number claimed and ended, one after the other; exactly one of them good (or cancelled), and it is the last."""
    numbers = sorted(one.cells)
    uid = one.item["uid"]
    if cancelled and numbers == [0]:
        numbers = []  # while it waited
    elif numbers != list(range(1, len(numbers) + 1)):
        yield f"{uid}: attempts {numbers}"
        return
    for n in numbers:
        cells = one.cells[n]
        end = cells.get("end", {})
        verdict = cells.get("verdict")
        if "claim" not in cells or not end:
            yield f"{uid}.{n}: has only {sorted(cells)}"
        good = end.get("outcome") == "done" and (verdict is None or "merged" in verdict)
        good = good or (cancelled and _is_cancelled(cells))
        if good != (n == numbers[-1]):
            yield f"{uid}.{n} of {len(numbers)}: {end.get('outcome')} {verdict}"
        if end.get("sha") and verdict is None:
            yield f"{uid}.{n}: submitted and archived without a verdict"


def _line(fleet: Fleet, items: list[Archived], expected: Mapping[str, str | None]) -> Iterator[str]:
    """One merge each on the target's first-parent line, the one that the verdict names, of the commit that the end names."""
    text = git(fleet.hub, "log", "--first-parent", "--format=%H%x09%P%x09%s", "refs/heads/main")
    merges: dict[str, tuple[list[str], str]] = {}
    plain = 0
    for row in text.splitlines():
        sha, parents, subject = row.split("\t", 2)
        if len(parents.split()) == 2:
            merges[sha] = (parents.split(), subject)
        else:
            plain += 1
    if plain != 1:
        yield f"{plain} commits on the first-parent line are no merges; only the first one of the repository may be"
    subjects = Counter(subject.partition(":")[0] for _, subject in merges.values())
    for name, path in expected.items():
        if subjects[name] != (path is not None):
            yield f"{name} has {subjects[name]} merges on the line"
    for name in subjects.keys() - expected.keys():
        if subjects[name] > 1:
            yield f"{name} has {subjects[name]} merges on the line"
    for one in items:
        last = one.cells[max(one.cells)] if one.cells else {}
        merged = last.get("verdict", {}).get("merged")
        path = expected.get(one.item["id"])
        if (merged is not None) != (path is not None):
            yield f"{one.item['id']}: merged as {merged}"
        if merged is None:
            continue
        ours, _ = merges.pop(merged, ([], ""))
        if ours[1:] != [last["end"]["sha"]]:
            yield f"{one.item['id']}: {merged} has the parents {ours}, the end names {last['end']['sha']}"
        text = git(fleet.hub, "show", f"refs/heads/main:{path}", check=False)
        if text != one.item["id"]:
            yield f"{one.item['id']}: its file in main holds {text!r}"
    for sha, (_, subject) in merges.items():
        yield f"a merge that no item accounts for: {sha} {subject}"
    first = git(fleet.hub, "rev-list", "--max-parents=0", "refs/heads/main", check=False)
    for row in git(
        fleet.hub, "diff", "--name-status", "--no-renames", first, "refs/heads/main", check=False
    ).splitlines():
        what, path = row.split("\t")
        if not path.startswith(SHARED) and (what != "A" or path not in expected.values()):
            yield f"main: {what} {path}, which nobody changed"
    if git(fleet.hub, "rev-parse", "refs/heads/main") != git(fleet.app, "rev-parse", "refs/heads/main"):
        yield "the person's main is not the hub's"


def repositories(fleet: Fleet, *, only_named: bool = False) -> Iterator[str]:
    """`git fsck --strict`, and every commit that a cell or the target names can be read with all that it needs.

    `only_named`: of the hub only that. Right after a power loss what agents had not submitted may be torn, in the hub and in
    their worktrees; and branches of attempts that were lost may stay so where an agent's git does not fsync.
    """
    for repository in (fleet.app,) if only_named else (fleet.hub, fleet.app):
        if not repository.is_dir():
            continue
        done = subprocess.run(  # noqa: PLW1510 - its exit code is a finding
            ["git", "fsck", "--strict", "--full", "--no-dangling"],
            cwd=repository,
            capture_output=True,
            text=True,
            env=environment(),
        )
        said = [
            x for x in (done.stdout + done.stderr).splitlines() if not x.startswith(("notice:", "Checking"))
        ]
        if done.returncode or said:
            yield f"git fsck {repository.name}: exit {done.returncode}: {' | '.join(said[:5])}"
    named: dict[str, str] = {}
    for path in fleet.queue.rglob("*"):
        if CELL.fullmatch(path.name) and path.suffix in (".end", ".verdict"):
            try:
                cell = json.loads(path.read_bytes())
            except (OSError, ValueError) as e:
                yield f"{path}: {e}"
                continue
            for key in ("sha", "merged"):
                if SHA.fullmatch(str(cell.get(key, ""))):
                    named[cell[key]] = f"{path.parent.name}/{path.name}"
    if named:
        yield from _unreadable(fleet.hub, named)


def _unreadable(hub: Path, named: Mapping[str, str]) -> Iterator[str]:
    lines = "".join(f"{sha}^{{tree}}\n" for sha in named).encode()
    done = subprocess.run(  # noqa: PLW1510 - its exit code is a finding
        ["git", "cat-file", "--batch-check"], cwd=hub, input=lines, capture_output=True, env=environment()
    )
    for (sha, where), row in zip(named.items(), done.stdout.decode().splitlines(), strict=False):
        if row.endswith("missing"):
            yield f"{where} names {sha}, which cannot be read"
    walked = subprocess.run(  # noqa: PLW1510 - its exit code is a finding
        ["git", "rev-list", "--objects", "--no-object-names", "--stdin"],
        cwd=hub,
        input="".join(f"{sha}\n" for sha in (*named, "refs/heads/main")).encode(),
        capture_output=True,
        env=environment(),
    )
    read = subprocess.run(  # noqa: PLW1510 - its exit code is a finding
        ["git", "cat-file", "--batch"],
        cwd=hub,
        input=walked.stdout,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    for done in (walked, read):
        if done.returncode:
            yield f"not everything that cells and main name can be read: {done.stderr.decode()[:300]}"


def _own_check(fleet: Fleet) -> Iterator[str]:
    done = subprocess.run(  # noqa: PLW1510 - its exit code is a finding
        [sys.executable, "-P", "-m", "harness", "fsck", "--root", str(fleet.root)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        env=environment(),
    )
    if done.returncode:
        yield f"harnessctl fsck: exit {done.returncode}: {(done.stdout + done.stderr)[-600:]}"
