"""What a power loss tears in a hub: loose objects that nobody had made durable, written by agents whose git does not fsync.

git takes a file of the right name for the object, whatever is in it: `git add` of the same contents writes nothing, says
nothing, and the next commit cannot be read. So before anything runs in another boot, every object that is not what its
name says is removed. Nothing that a cell names is among them: that was synced before its cell was written.

Looked at: every loose object that is empty, and all that were written in the last RECENT_S before the newest one, which is
many times what Linux keeps in memory (vm.dirty_expire_centisecs: 30 s). Not looked at: packs.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from harness.hub.refs import is_sha
from harness.hub.repo import BRANCHES, Repo
from harness.hub.slots import Place, Slot, head_of, place_of, tree_of
from harness.logs import Event
from harness.procs import boot_id

RECENT_S = 600.0
BUDGET = 4 << 30
"""Bytes that are unpacked at most: an agent can write a small object that is large."""
CHUNK = 1 << 20
_FAN = re.compile(r"[0-9a-f]{2}")
_REST = re.compile(r"[0-9a-f]{38}(?:[0-9a-f]{24})?")


def mend(repo: Repo) -> int:
    """Once in each boot, before anything works in the hub. -> how many objects were removed.

    Branches that need one of them go back to the base of their attempt, or go; the files of their worktrees stay, and are
    salvaged as what was not committed. Raises GitError, TryAgainError, OSError; then it is done again.
    """
    mark, now = repo.shelf / "boot", boot_id()
    if now and mark.is_file() and mark.read_text(errors="replace") == now:
        return 0
    with repo.lock.held():
        torn = list(_torn(repo.path / "objects"))
        for path in torn:
            path.unlink(missing_ok=True)
        broken = _remove_broken_refs(repo)
        if torn or broken:
            _mend_refs(repo, broken)
            repo.emit(Event.TORN_OBJECTS_REMOVED, project=repo.project.name, number=len(torn))
        draft = mark.with_suffix(".new")
        draft.write_text(now)
        os.replace(draft, mark)
    return len(torn)


# ---- objects ---------------------------------------------------------------------------------------------------------


def _torn(objects: Path) -> Iterator[Path]:
    found: list[tuple[float, int, str, str]] = []
    for fan in os.scandir(objects):
        if not _FAN.fullmatch(fan.name) or not fan.is_dir(follow_symlinks=False):
            continue
        for entry in os.scandir(fan.path):
            if _REST.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                info = entry.stat(follow_symlinks=False)
                found.append((info.st_mtime, info.st_size, entry.path, fan.name + entry.name))
    edge = max((when for when, *_ in found), default=0.0) - RECENT_S
    budget = BUDGET
    for when, size, path, name in found:
        if size == 0:
            yield Path(path)
        elif when >= edge and budget > 0:
            whole, read = _is_whole(path, name, budget)
            budget -= read
            if not whole:
                yield Path(path)


def _is_whole(path: str, name: str, budget: int) -> tuple[bool, int]:
    """-> (is it the object of this name, bytes unpacked). One that cannot be judged for `budget` counts as whole."""
    seen = hashlib.new("sha1" if len(name) == 40 else "sha256", usedforsecurity=False)
    unpack = zlib.decompressobj()
    read = 0
    try:
        with open(path, "rb") as file:
            while not unpack.eof:
                packed = unpack.unconsumed_tail or file.read(CHUNK)
                if not packed:
                    return False, read
                data = unpack.decompress(packed, CHUNK)
                seen.update(data)
                read += len(data)
                if read > budget:
                    return True, read
    except zlib.error:
        return False, read
    return seen.hexdigest() == name, read


# ---- what names them -------------------------------------------------------------------------------------------------


def _remove_broken_refs(repo: Repo) -> set[str]:
    """Branches whose file holds no name of an object. The target is synced, and is never touched. -> their names"""
    removed = set()
    for file in (repo.path / "refs/heads").rglob("*"):
        name = file.relative_to(repo.path).as_posix()
        if name == repo.target or name.endswith(".lock") or not file.is_file() or file.is_symlink():
            continue
        text = file.read_text(errors="replace").strip()
        if not is_sha(text) and not text.startswith("ref:"):
            file.unlink()
            removed.add(name)
    return removed


def _mend_refs(repo: Repo, gone: set[str]) -> None:
    slots = dict(_slots(repo))
    bases = {f"{BRANCHES}/{slot.uid}/{slot.n}": slot.base for slot in slots.values()}
    named = repo.refs.below("refs/heads")
    named.pop(repo.target, None)
    if stash := repo.refs.read("refs/stash"):
        named["refs/stash"] = stash
    lines, logs = [], []
    for name, sha in named.items():
        if not _is_complete(repo, sha):
            lines.append(f"update {name} {bases[name]} {sha}" if bases.get(name) else f"delete {name} {sha}")
            logs.append(repo.path / "logs" / name)
    lines += [f"create {name} {bases[name]}" for name in sorted(gone - named.keys()) if bases.get(name)]
    logs += [repo.path / "logs" / name for name in gone]
    if lines:
        repo.change_refs(lines)
    for place, slot in slots.items():
        admin = tree_of(repo, place, slot.admin).admin
        head = head_of(repo, admin)
        if head.sha is None or not _is_complete(repo, head.sha):
            (admin / "HEAD.new").write_text(f"ref: {BRANCHES}/{slot.uid}/{slot.n}\n")
            os.replace(admin / "HEAD.new", admin / "HEAD")
        logs += [admin / "logs" / "HEAD", admin / "index", place.index]
    for path in logs:
        path.unlink(missing_ok=True)


def _slots(repo: Repo) -> Iterator[tuple[Place, Slot]]:
    """Those in which an attempt may have worked."""
    for record in sorted((repo.shelf / "slots").glob("*.json")):
        place = place_of(repo, record.stem)
        slot = place.read()
        if slot and slot.uid and slot.admin and (repo.path / "worktrees" / slot.admin).is_dir():
            yield place, slot


def _is_complete(repo: Repo, sha: str) -> bool:
    """Is everything there that this commit adds to the target?"""
    out = repo.git(
        "rev-list", "--objects", "--missing=print", sha, f"^{repo.refs.read(repo.target)}", ok=(0, 128)
    )
    return out.code == 0 and not any(line.startswith("?") for line in out.text.split("\n"))
