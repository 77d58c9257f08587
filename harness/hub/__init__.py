"""The hub: one bare repository of ours for each project.

Worktrees, attempts' branches, pins, salvage and the merge lane live there, never in the person's clone, which is only
fetched from and pushed to. What every call guarantees, and what a crash between two of them leaves, is docs/protocol.md.
"""

from harness.hub.carrying import Carry
from harness.hub.facade import Hub
from harness.hub.git import IDENTITY, GitCommandError, GitInterrupted
from harness.hub.history import BrokenCommitError, Change
from harness.hub.lane import Lane, Swap
from harness.hub.leftovers import Leftovers, WorktreeStatus
from harness.hub.merging import Built, Conflict
from harness.hub.publish import Refusal, Refused
from harness.hub.publishing import (
    Published,
    Refreshed,
    Upstream,
    UpstreamFenced,
    UpstreamMerged,
    UpstreamUnchanged,
    UpToDate,
)
from harness.hub.salvage import Saved
from harness.hub.trailers import Merge
from harness.hub.worktrees import Salvage, Worktree

__all__ = [
    "IDENTITY",
    "BrokenCommitError",
    "Built",
    "Carry",
    "Change",
    "Conflict",
    "GitCommandError",
    "GitInterrupted",
    "Hub",
    "Lane",
    "Leftovers",
    "Merge",
    "Published",
    "Refreshed",
    "Refusal",
    "Refused",
    "Salvage",
    "Saved",
    "Swap",
    "UpToDate",
    "Upstream",
    "UpstreamFenced",
    "UpstreamMerged",
    "UpstreamUnchanged",
    "Worktree",
    "WorktreeStatus",
]
