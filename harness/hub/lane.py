"""The lane and the target: two compare-and-swaps on refs of one repository, on which merging rests.

`refs/harness/lane` names a blob `{epoch, pending}`: at the same time the fence of the merger that holds it and a log
with one entry (PROTOCOL, section 7). Alone here the target is moved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any

from harness.dataclass import dataclass
from harness.errors import GitError
from harness.hub.git import GitCommandError
from harness.hub.refs import zero
from harness.hub.repo import LANE, Repo

TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One value of the lane. `blob` is None before it was taken for the first time."""

    blob: str | None
    epoch: str
    """Unique per taking."""
    pending: Mapping[str, Any] | None = None
    """A refusal that was decided and is perhaps not yet in its cell: whoever takes the lane next completes it."""


class Swap(StrEnum):
    """What became of a move of the target."""

    OK = "ok"
    LANE = "lane"  # another holder took the lane: start again at m0
    TARGET = "target"  # a fetch or a person moved the target: m2 again, on the new tip


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRecord:
    """The blob, as JSON."""

    epoch: str
    pending: Mapping[str, Any] | None = field(default=None)

    def to_bytes(self) -> bytes:
        return (
            json.dumps({"v": 1, "epoch": self.epoch, "pending": self.pending}, sort_keys=True).encode()
            + b"\n"
        )


def read_lane(repo: Repo) -> Lane:
    blob = repo.refs.read(LANE)
    if blob is None:
        return Lane(blob=None, epoch="")
    raw = repo.git("cat-file", "blob", blob).raw
    try:
        data = json.loads(raw)
        if data["v"] != 1:
            raise ValueError(f"version {data['v']}")
        return Lane(blob=blob, epoch=str(data["epoch"]), pending=data["pending"])
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise GitError(
            f"the merge lane cannot be read: {e}", where=f"{repo.path} {LANE}", remedy="run: harnessctl fsck"
        ) from e


def swap_lane(repo: Repo, old: Lane, epoch: str, pending: Mapping[str, Any] | None) -> Lane | None:
    """Replaces exactly `old`; None: the lane is another one by now. Durable when it returns.

    Raises GitError when it could not be done although the lane is still `old`.
    """
    data = LaneRecord(epoch=epoch, pending=pending).to_bytes()
    blob = repo.git("hash-object", "-w", "--stdin", stdin=data).text
    repo.sync()  # a ref never names what a power loss can take away
    new = Lane(blob=blob, epoch=epoch, pending=pending)
    for attempt in range(TRIES):
        try:
            repo.change_refs([f"update {LANE} {blob} {old.blob or zero(blob)}"])
        except GitCommandError:
            # git's message is for people; what the ref says now decides. An epoch is never used twice, so seeing our
            # own value means that we did it, and the reply was lost.
            now = repo.refs.read(LANE)
            if now == blob:
                break
            if now != old.blob:
                return None
            if attempt + 1 == TRIES:
                raise
            continue
        break
    repo.sync()
    return new


def swap_target(repo: Repo, lane: Lane, new: str, old: str) -> Swap:
    """m5: moves the target from `old` to `new` if the lane is still `lane`, in one transaction. Durable when OK.

    The caller makes `new` durable before (`Hub.sync`).
    """
    for attempt in range(TRIES):
        try:
            repo.change_refs([f"verify {LANE} {lane.blob or zero(new)}", f"update {repo.target} {new} {old}"])
            break
        except GitCommandError:
            if repo.refs.read(LANE) != lane.blob:
                return Swap.LANE
            now = repo.refs.read(repo.target)
            if now == new:
                break
            if now != old:
                return Swap.TARGET
            if attempt + 1 == TRIES:
                raise
    repo.sync()
    return Swap.OK
