"""What every part of the hub works with: one repository, its paths, and the way to talk to it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.clock import Clock
from harness.config import URL, Project
from harness.dataclass import dataclass
from harness.hub.git import Git, transaction
from harness.hub.gitlocks import GitLocks
from harness.hub.guard import Emit, Guard
from harness.hub.locks import HubLock
from harness.hub.refs import Refs
from harness.layout import Layout

LANE = "refs/harness/lane"
BRANCHES = "refs/heads/harness"
ATTEMPTS = "refs/harness/attempt"
SALVAGED = "refs/harness/salvage"
ABANDONED_S = 86_400.0
"""No git of ours takes so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repo:
    """One hub, opened."""

    layout: Layout
    project: Project
    path: Path
    shelf: Path
    """Our own notes about the hub, next to it and outside of what agents may write: copies of its files, one record
    and one index per slot, the lock."""
    durable: bool
    """False: `durability: process`, no sync at all."""
    clock: Clock
    emit: Emit
    git: Git
    refs: Refs
    guard: Guard
    lock: HubLock
    gitlocks: GitLocks

    @property
    def target(self) -> str:
        return f"refs/heads/{self.project.target}"

    @property
    def upstream(self) -> str:
        """What we last saw of the target in the person's repository."""
        return f"refs/remotes/upstream/{self.project.target}"

    @property
    def local(self) -> bool:
        """Whether the person's repository is a folder of this machine."""
        return is_local(self.project.path)

    @property
    def kept(self) -> Path:
        return self.layout.kept

    def sync(self) -> None:
        """Everything written to the hub so far survives power loss: syncfs(2), in a process of its own, because it
        may take as long as the disk likes. A failure is not tried again (PROTOCOL, section 3, rule 4)."""
        if self.durable:
            self.git.run_beside(("sync", "-f", str(self.path)))

    @contextlib.contextmanager
    def private_folder(self, what: str) -> Iterator[Path]:
        """A folder beside the hub, in which no agent may write, for one call. Those that killed processes left are removed
        by the next. Raises OSError."""
        for old in self.shelf.glob(f"{what}.*"):
            with contextlib.suppress(OSError):
                if time.time() - old.stat().st_mtime > ABANDONED_S:
                    shutil.rmtree(old)
        with tempfile.TemporaryDirectory(
            prefix=f"{what}.", dir=self.shelf, ignore_cleanup_errors=True
        ) as name:
            yield Path(name)

    def change_refs(self, lines: Iterable[str]) -> None:
        """One transaction, all or nothing. Raises GitCommandError when an old value does not match."""
        self.git("update-ref", "--stdin", stdin=transaction(lines))


def is_local(path: str) -> bool:
    """A folder rather than a URL or `host:path`."""
    return URL.match(path) is None
