"""The merge lane: one fence and a log with one entry, `refs/harness/lane` of a project's hub (PROTOCOL, section 7).

Safety rests on two compare-and-swaps on refs of one repository: the target moves only together with a check of the
lane, and a refusal to merge is decided *in* the lane before it is written in the cell.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.model import End, Item, Verdict
from harness.store import ops
from harness.store.cells import Actor, needs_merge, publish
from harness.store.ops import Step


def take_lane(actor: Actor, project: str) -> Step[Any]:
    """m0: complete what the last holder decided, then fence it off. -> the lane that is ours, or None: start again."""
    held = yield from ops.lane(project)
    if held.pending:
        yield from complete(actor, held.pending)
    return (yield from ops.swap_lane(project, held, None, False))


def complete(actor: Actor, pending: dict[str, Any]) -> Step[None]:
    """Write down a refusal that was decided in the lane. EEXIST and ENOENT: another process did."""
    uid, n = str(pending["uid"]), int(pending["n"])
    verdict = Verdict.from_record(pending["verdict"], "refs/harness/lane")
    yield from ops.fsync_dir(f"queue/open/{uid}")
    yield from publish(actor, "verdict", verdict, f"queue/open/{uid}/{n}.verdict")


def judge(actor: Actor, project: str, uid: str, n: int, *, cancel_by: str = "", why: str = "") -> Step[bool]:
    """Verdict of the submitted attempt n. True: it is judged (by whomever). False: the lane was lost, start again.

    With `cancel_by` the result is refused unless the target holds it already.
    """
    home = f"queue/open/{uid}"
    held = yield from take_lane(actor, project)
    if held is None:
        return False
    # m1: the verdict is looked for after the lane was taken and before the end is read: an end that is still there
    # proves that "no verdict" was not the ENOENT of an item archived in between.
    if (yield from ops.read(f"{home}/{n}.verdict", Verdict)) is not None:
        return True
    item = yield from ops.read(f"{home}/item.json", Item)
    submitted = yield from ops.read(f"{home}/{n}.end", End)
    if item is None or submitted is None or not needs_merge(item, submitted) or submitted.sha is None:
        return True
    yield from ops.fsync_dir(home)  # never merge what can vanish
    while True:
        old = yield from ops.target(project)
        merged = yield from ops.merged_as(project, old, uid, n, submitted.sha)
        if merged is not None:
            verdict = Verdict(n=n, merged=merged, judged_at=actor.stamp())
            break
        if cancel_by:
            verdict = Verdict(n=n, cancelled=cancel_by, why=why, judged_at=actor.stamp())
        else:
            verdict = yield from ops.build_merge(project, old, uid, n, submitted.sha)
        if not verdict.merged:  # m5r: decided in the lane first
            pending = {"uid": uid, "n": n, "verdict": verdict.to_record()}
            if (yield from ops.swap_lane(project, held, pending, True)) is None:
                return False
            break
        yield from ops.sync_hub(project)  # the merge outlives the ref that names it
        reply = yield from ops.swap_target(project, held, verdict.merged, old)
        if reply == "lane":
            return False
        if reply == "ok":
            verdict = replace(verdict, judged_at=actor.stamp())
            break
        # the target moved (a fetch, a person): m2 again, on the new tip
    yield from ops.sync_hub(project)  # mine, or found there: durable before the verdict
    yield from publish(actor, "verdict", verdict, f"{home}/{n}.verdict")
    return True
