"""The push to the person's repository, by `git push` with a lease and nothing else, and what its refusals mean.

A refusal is a value with a remedy: merged work waits as `publishing` and nothing is overwritten. A target that is checked
out there is refused by git; with `checkout: update` a *clean* checkout is updated with it, a dirty one refused. Their
hooks run as for any push. The order of calls is in `publishing`.
"""

from __future__ import annotations

import re
from enum import StrEnum

from harness.config import Checkout
from harness.dataclass import dataclass
from harness.errors import TryAgainError
from harness.hub.far import far
from harness.hub.git import GitCommandError
from harness.hub.merging import merges_between
from harness.hub.repo import Repo
from harness.hub.trailers import Merge
from harness.hub.upstream import target_of


class Refusal(StrEnum):
    """Why a push was refused."""

    STALE = "stale"  # somebody pushed: refresh, merge_upstream, publish again
    DIVERGED = "diverged"  # known before pushing: merge_upstream, publish again
    CHECKED_OUT = "checked_out"  # a person switches away, or sets `checkout: update`
    DIRTY = "dirty"  # a person commits or cleans up
    HOOK = "hook"  # their hook or a rule of their server said no
    LOCKED = "locked"  # a git of theirs is at work, or died and left a lock: theirs to remove
    DENIED = "denied"  # credentials, ownership, permissions
    UNREACHABLE = "unreachable"  # network or path
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    kind: Refusal
    reason: str
    """What git (or their hook) said."""
    remedy: str
    passing: bool
    """It may go by itself: try again without a person."""


_SAID: tuple[tuple[str, Refusal], ...] = (
    (
        r"stale info|fetch first|non-fast-forward|cannot lock ref .* but expected|failed to update ref",
        Refusal.STALE,
    ),
    (r"branch is currently checked out", Refusal.CHECKED_OUT),
    (
        r"[Ww]orking directory has (un)?staged changes|Up-to-date check failed|unborn branch|would be overwritten|not uptodate",
        Refusal.DIRTY,
    ),
    (r"\.lock': File exists|unable to create .*lock|failed to lock", Refusal.LOCKED),
    (r"hook declined|pre-receive|protected branch|GH\d{3}|denied by|prohibited", Refusal.HOOK),
    (
        r"dubious ownership|[Pp]ermission denied|[Aa]uthentication failed|could not read (Username|Password)|\b40[13]\b",
        Refusal.DENIED,
    ),
    (
        r"[Cc]ould not resolve|[Cc]onnection|timed out|[Nn]etwork is unreachable|[Nn]o such file|does not appear|unable to access",
        Refusal.UNREACHABLE,
    ),
)
_PASSING = {Refusal.STALE, Refusal.DIVERGED, Refusal.LOCKED, Refusal.UNREACHABLE}


def push(repo: Repo, tip: str, lease: str) -> Refused | None:
    """Moves their target from `lease` to `tip`. Changes nothing else."""
    target = repo.target
    options = [
        "--porcelain",
        "--atomic",
        "--no-verify",
        "--no-signed",
        f"--force-with-lease={target}:{lease}",
    ]
    if receive := _receiving(repo):
        options.append(f"--receive-pack=git {' '.join(f'-c {setting}' for setting in receive)} receive-pack")
    try:
        with far(repo) as folder:
            repo.git("push", *options, repo.project.path, f"{tip}:{target}", upstream=folder)
    except GitCommandError as e:
        said = "\n".join(part for part in (e.stdout.strip(), e.stderr.strip()) if part)
        return _refused(repo, _kind(said), said)
    except TryAgainError as e:
        return _refused(repo, Refusal.UNREACHABLE, e.what)
    return None


def unmerged(repo: Repo) -> Refused:
    return _refused(repo, Refusal.DIVERGED, "their branch holds commits that ours does not")


def _receiving(repo: Repo) -> list[str]:
    """Settings for the other side of this push only; their configuration stays theirs. Another host decides alone."""
    if not repo.local:
        return []
    settings = []
    if repo.durable:
        # By default the few objects of a push are unpacked without fsync: after a power loss their branch names nothing.
        settings.append("core.fsync=committed,loose-object")
    if repo.project.merge.checkout is Checkout.UPDATE:
        settings.append("receive.denyCurrentBranch=updateInstead")
    return settings


def unpublished(repo: Repo) -> list[Merge]:
    """Merges on our target that are not upstream yet, oldest first."""
    tip, seen = target_of(repo), repo.refs.read(repo.upstream)
    return [] if seen == tip else merges_between(repo, seen, tip)


def _kind(said: str) -> Refusal:
    return next((kind for pattern, kind in _SAID if re.search(pattern, said)), Refusal.OTHER)


def _refused(repo: Repo, kind: Refusal, said: str) -> Refused:
    path, target, name = repo.project.path, repo.project.target, repo.project.name
    lines = [
        line
        for line in said.splitlines()
        if line.strip() and not line.startswith(("To ", "Done", "error: failed to push"))
    ]
    remedies = {
        Refusal.STALE: "nothing to do: it is fetched, merged and pushed again",
        Refusal.DIVERGED: "nothing to do: it is merged and pushed again",
        Refusal.CHECKED_OUT: (
            f"switch to another branch in {path}, or set projects.{name}.merge.checkout: update (clean checkouts are "
            f"then updated), or make {path} a bare repository"
        ),
        Refusal.DIRTY: f"commit, stash or discard the changes in the checkout of {target} of {path}",
        Refusal.HOOK: f"see what the hook or the rule for {target} wants; until then set projects.{name}.merge.publish: none",
        Refusal.LOCKED: f"end the git that runs in {path}; if there is none, remove the lock file that it names",
        Refusal.DENIED: f"try it as the same user: git push --dry-run {path} {target}",
        Refusal.UNREACHABLE: f"check {path}; it is tried again",
        Refusal.OTHER: f"try it as the same user: git push --dry-run {path} {target}",
    }
    return Refused(
        kind=kind, reason="\n".join(lines)[-1000:], remedy=remedies[kind], passing=kind in _PASSING
    )
