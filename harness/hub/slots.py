"""What we remember of each slot's worktree, and what its admin directory must look like.

The record says whose work a worktree may hold. It is written before the tree is touched and after it is whole:

* ``switching``: proved to hold nothing of value, and being changed. A crash leaves garbage that may be thrown away.
* ``ready``: an agent may have worked in it. Nothing in it may be lost.

Records and indexes are notes, not truth: without them a worktree counts as unknown, and is kept.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import stat
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path

from harness.atomicfs import replace_file
from harness.dataclass import dataclass
from harness.errors import GitError
from harness.hub.git import Tree
from harness.hub.planted import below
from harness.hub.refs import LONGEST, is_name, is_sha, read_file
from harness.hub.repo import BRANCHES, Repo
from harness.procs import boot_id

IN_PROGRESS = {
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "BISECT_LOG": "bisect",
    "sequencer": "sequence",
}
"""Files of an admin directory -> the command of git that is not finished."""
COMMONDIR = b"../..\n"
MANY = 100_000
"""Files in an admin directory: more of them are none of git's."""
MODULES = "modules/"
"""Repositories of submodules, below an admin directory: an agent's own."""
LEFT_BEHIND = (
    "ORIG_HEAD",
    "FETCH_HEAD",
    "COMMIT_EDITMSG",
    "MERGE_MSG",
    "MERGE_RR",
    "AUTO_MERGE",
    "SQUASH_MSG",
    "locked",
)


class Phase(StrEnum):
    SWITCHING = "switching"  # prepare makes it ready, or throws the tree away
    READY = "ready"  # the next prepare saves what is in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The record of one slot. Scratch trees have no uid and n = 0."""

    phase: Phase
    uid: str
    n: int
    base: str
    admin: str
    """Name of the admin directory in the hub; "" while it is not known."""
    boot: str
    """Boot in which the index was written."""

    @property
    def of_this_boot(self) -> bool:
        """Otherwise power may have been lost since: times in the index prove nothing, files of the tree may be torn."""
        return self.boot == boot_id()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The paths of one slot."""

    name: str
    tree: Path
    record: Path
    index: Path
    """Our index of the worktree. The agent's own, in the admin directory, can hide changes."""

    def read(self) -> Slot | None:
        try:
            data = json.loads(self.record.read_bytes())
            return Slot(
                phase=Phase(data["phase"]),
                uid=str(data["uid"]),
                n=int(data["n"]),
                base=str(data["base"]),
                admin=str(data["admin"]),
                boot=str(data["boot"]),
            )
        except (OSError, ValueError, KeyError, TypeError):  # torn by a power loss, or never written: unknown
            return None

    def write(self, *, phase: Phase, uid: str, n: int, base: str, admin: str) -> Slot:
        slot = Slot(phase=phase, uid=uid, n=n, base=base, admin=admin, boot=boot_id())
        draft = self.record.with_suffix(".new")
        draft.write_text(json.dumps({"v": 1, **asdict(slot)}) + "\n")
        os.replace(draft, self.record)
        return slot

    def forget(self) -> None:
        for path in (self.record, self.index):
            path.unlink(missing_ok=True)


def place_of(repo: Repo, name: str) -> Place:
    folder = repo.shelf / "slots"
    folder.mkdir(exist_ok=True)
    return Place(
        name=name,
        tree=repo.layout.worktree(repo.project.name, name),
        record=folder / f"{name}.json",
        index=folder / f"{name}.index",
    )


def tree_of(repo: Repo, place: Place, admin: str) -> Tree:
    return Tree(path=place.tree, admin=repo.path / "worktrees" / admin, index=place.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where HEAD of a worktree is. `sha` is None on a branch without commits (or a damaged one)."""

    branch: str | None
    """Full ref name; None: detached."""
    sha: str | None


def head_of(repo: Repo, admin: Path) -> Head:
    """Reads HEAD as a file: a symbolic one is followed once, and never through a planted symbolic branch."""
    text = (read_file(admin / "HEAD") or b"").decode(errors="surrogateescape").strip()
    if text.startswith("ref:"):
        name = text[4:].strip()
        if not name.startswith("refs/heads/") or not is_name(name):
            return Head(branch=None, sha=None)
        return Head(branch=name, sha=repo.refs.read(name))
    return Head(branch=None, sha=text if is_sha(text) else None)


def register(repo: Repo, place: Place, sha: str) -> str:
    """A worktree without files, its HEAD detached: as `git worktree add --no-checkout` makes one (gitrepository-layout(5)),
    which reads what agents wrote into theirs, and waits for ever for who writes into a pipe. Under the lock of the hub.

    -> the name of its admin directory. Raises OSError; FileExistsError when there is something at its place.
    """
    draft = place.record.with_suffix(".admin")
    shutil.rmtree(draft, ignore_errors=True)  # of one who was killed here
    draft.mkdir()
    (draft / "commondir").write_bytes(COMMONDIR)
    (draft / "gitdir").write_bytes(os.fsencode(f"{place.tree / '.git'}\n"))
    (draft / "HEAD").write_text(f"{sha}\n")
    folder = repo.path / "worktrees"
    folder.mkdir(exist_ok=True)
    free = (folder / f"{place.name}{k or ''}" for k in itertools.count())
    admin = next(path for path in free if not os.path.lexists(path))
    draft.rename(admin)
    place.tree.mkdir()
    (place.tree / ".git").write_bytes(os.fsencode(f"gitdir: {admin}\n"))
    return admin.name


def mend_admin(repo: Repo, admin: Path, record: Slot | None) -> None:
    """Makes an admin directory one that git can read. A power loss leaves its files empty, an agent may write into them; then
    no `git fsck` of the hub is clean, and a person can add no worktree. Raises OSError."""
    for entry in below(admin):
        if not entry.plain and not entry.path.startswith(MODULES):
            entry.remove()
    if read_file(admin / "commondir") != COMMONDIR:
        put(repo, admin / "commondir", COMMONDIR)
    if not _is_head(repo, (read_file(admin / "HEAD") or b"").decode("utf-8", "replace").strip()):
        if record and record.uid:
            text = f"ref: {BRANCHES}/{record.uid}/{record.n}"
        else:
            text = repo.refs.read(repo.target) or f"ref: {repo.target}"
        put(repo, admin / "HEAD", f"{text}\n".encode())


def _is_head(repo: Repo, text: str) -> bool:
    if is_sha(text):
        return repo.git("cat-file", "-e", f"{text}^{{commit}}", ok=(0, 1, 128)).code == 0
    name = text.removeprefix("ref: ")
    return name != text and name.startswith("refs/heads/") and is_name(name)


def put(repo: Repo, path: Path, contents: bytes) -> None:
    """A file of an admin directory, whatever an agent has put in its place. Raises OSError, GitError."""
    if path.is_dir() and not path.is_symlink():
        repo.git.run_beside(("rm", "-rf", "--one-file-system", "--", str(path)))
    replace_file(path, contents, durable=False, mode=0o644)


def mend_admins(repo: Repo) -> None:
    """After a power loss, before anything works in the hub."""
    slots = (place_of(repo, path.stem).read() for path in (repo.shelf / "slots").glob("*.json"))
    known = {slot.admin: slot for slot in slots if slot}
    for admin in (repo.path / "worktrees").glob("*/"):
        if not admin.is_symlink():
            with contextlib.suppress(OSError, GitError):  # who needs it makes another
                mend_admin(repo, admin, known.get(admin.name))


def fault(tree: Tree) -> str | None:
    """Why this is not the worktree that we made, by its files alone; None when it is, and git can work in it: it waits for
    ever for who writes into a pipe, and writes through links."""
    try:
        if not stat.S_ISDIR(tree.path.lstat().st_mode):
            return "not a folder"
    except OSError:
        return "missing"
    if not tree.admin.name or not tree.admin.is_dir() or tree.admin.is_symlink():
        return "its admin directory is missing"
    expected = {
        tree.path / ".git": f"gitdir: {tree.admin}\n",
        tree.admin / "gitdir": f"{tree.path / '.git'}\n",
        tree.admin / "commondir": COMMONDIR.decode(),
    }
    for file, contents in expected.items():
        try:
            mode = file.lstat().st_mode
        except FileNotFoundError:
            return f"{file.name} is missing"
        except OSError:
            return f"{file.name} was changed"
        if stat.S_ISLNK(mode):
            return f"{file.name} was replaced by a link"
        if stat.S_ISDIR(mode):
            return f"{file.name} was replaced by a folder"
        if read_file(file) != contents.encode("utf-8", "surrogateescape"):
            return f"{file.name} was changed"
    for name in ("HEAD", "index", "logs/HEAD"):
        if (tree.admin / name).is_dir():
            return f"{name} was replaced by a folder"
    for k, entry in enumerate(below(tree.admin)):
        if k == MANY:
            return "its admin directory holds too many files"
        if not entry.plain and not entry.path.startswith(MODULES):
            return f"{entry.path} was replaced by what is no file of git"
    return None


def plain_refs(repo: Repo, uid: str) -> None:
    """Removes what an agent has put among the branches of its item, or their logs, and is none: git follows a link when it
    adds to a log, waits for who writes into a pipe, and `git fsck` fails by what names nothing. Never raises OSError; another
    attempt of the item may live, and lose what is none of git's."""
    for entry in below(repo.path / BRANCHES / uid):
        if entry.name.endswith(".lock"):
            continue
        said = b""
        if entry.plain:
            with contextlib.suppress(OSError):
                said = entry.read(LONGEST)
        text = said.decode("utf-8", "replace").strip()
        if not is_sha(text) and not text.startswith("ref: "):
            entry.remove()
    for entry in below(repo.path / "logs" / BRANCHES / uid):
        if not entry.plain:
            entry.remove()


def remedy_of(fault: str, tree: Tree) -> str:
    """What an agent can do about what `fault` said; for its next round, and for whoever reads why the attempt failed."""
    if not fault.startswith(".git "):
        return "It cannot be mended from inside; the next attempt gets another worktree"
    back = f"a file .git with the one line `gitdir: {tree.admin}`"
    if fault.endswith(" folder"):
        return f"Remove the repository that was made there, and put back {back}; commits in it do not count"
    return f"Put back {back}"


def in_progress(admin: Path) -> str:
    """The git command that was left unfinished in a worktree, or ""."""
    for name, command in IN_PROGRESS.items():
        if os.path.lexists(admin / name):
            return command
    return ""


def scrub(admin: Path) -> None:
    """Makes an admin directory as a new one: the last attempt's messages, reflog and locks are not the next one's."""
    for name in LEFT_BEHIND:
        with contextlib.suppress(OSError):
            (admin / name).unlink()
    logs = admin / "logs"
    with contextlib.suppress(OSError):  # a link would lead to the file of another repository
        (logs if logs.is_symlink() else logs / "HEAD").unlink()
    for entry in os.scandir(admin):
        if entry.name.endswith((".lock", ".tmp")) and not entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(OSError):
                os.unlink(entry.path)


def admins_at(repo: Repo, tree: Path) -> list[Path]:
    """Admin directories that say they belong to the worktree at this path."""
    found = []
    with contextlib.suppress(OSError):
        for admin in sorted((repo.path / "worktrees").iterdir()):
            with contextlib.suppress(OSError):
                if read_file(admin / "gitdir") == os.fsencode(f"{tree / '.git'}\n"):
                    found.append(admin)
    return found
