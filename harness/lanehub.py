"""A project's hub as the merge lane of the store asks for it: for the merger, and for a person who cancels a result."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from harness.dataclass import dataclass
from harness.gates import Change, GateResult, Rules, overstepped
from harness.hub import Built, Hub
from harness.model import Item, Verdict
from harness.store.cells import Actor
from harness.store.disk import Disk

EVIDENCE = 16 << 10


def lane_hub(
    hub: Hub, actor: Actor, disk: Disk, gates: Callable[[str, int, str], GateResult | None] = lambda *_: None
) -> LaneHub:
    """`gates`: what judges the merged tree; who never merges needs none."""

    def item_of(uid: str) -> Item | None:
        item = disk.do_read(f"queue/open/{uid}/item.json", Item)
        return item if isinstance(item, Item) else None

    return LaneHub(hub, epochs(actor), item_of, gates)


def epochs(actor: Actor) -> Callable[[], str]:
    """Names of takings of the lane: unique for ever."""
    count = itertools.count()
    return lambda: f"{actor.identity.incarnation}.{next(count)}"


@dataclass(slots=True)
class LaneHub:
    """The hub as the store's lane generator needs it (store.disk.Hub), with the gates on the merged tree."""

    hub: Hub
    epochs: Callable[[], str]
    item_of: Callable[[str], Item | None]
    gates: Callable[[str, int, str], GateResult | None] = lambda *_: None
    """(uid, n, merge commit) -> the required gate that is red, or None."""

    def lane(self) -> Any:
        return self.hub.lane()

    def swap_lane(self, old: Any, pending: dict[str, Any] | None, keep_epoch: bool) -> Any:
        return self.hub.swap_lane(old, old.epoch if keep_epoch else self.epochs(), pending)

    def target(self) -> str:
        return self.hub.target()

    def merged_as(self, tip: str, uid: str, n: int, sha: str) -> str | None:
        return self.hub.merged_as(tip, uid, n, sha)

    def build_merge(self, tip: str, uid: str, n: int, sha: str) -> Verdict:
        """m3 and m4. A verdict that says merged names the candidate; nothing has moved yet."""
        item = self.item_of(uid)
        subject = f"{item.id}: {item.title}" if item else uid
        built = self.hub.build_merge(tip, uid, n, sha, subject=subject, body=item.prompt if item else "")
        if not isinstance(built, Built):
            lines = [f"conflicts with the target in: {', '.join(built.files)}"]
            lines += [f"merged meanwhile: {title}" for title in built.titles]
            lines += [str(built.messages)] if built.messages else []
            return Verdict(
                n=n,
                returned="conflict",
                why=f"in {', '.join(built.files[:5])}",
                files=tuple(built.files),
                onto=tip,
                evidence="\n".join(lines)[:EVIDENCE],
            )
        red = self._overstepped(item, tip, sha, built.sha) or self.gates(uid, n, built.sha)
        if red is None:
            return Verdict(n=n, merged=built.sha, onto=tip)
        what = f"gate {red.name} ({red.run})" if red.run else f"gate {red.name}"
        evidence = f"{what} on the merged tree: {red.reason}\n{red.tail}"
        return Verdict(
            n=n,
            returned="gate",
            gate=red.name,
            why=f"{red.name}: {red.reason}",
            onto=tip,
            evidence=evidence[:EVIDENCE],
        )

    def _overstepped(self, item: Item | None, tip: str, sha: str, merged: str) -> GateResult | None:
        """Does the merge change what the item may not?"""
        protected = self.hub.repo.project.protected
        if item is None or not (item.files or protected):
            return None
        rules = Rules(files=item.files, protected=protected, allowed=item.protected)
        changes = [Change(path=c.path, was=c.was) for c in self.hub.changed_files(tip, merged)]
        red = overstepped(changes, rules)
        if red is None or red.name != "scope":
            return red
        # A file that was moved meanwhile: git follows it, and the item knew it by its old name.
        was = self.hub.moved(sha, tip)
        named = [Change(path=was.get(c.path, c.path), was=c.was and was.get(c.was, c.was)) for c in changes]
        return overstepped(named, replace(rules, protected=())) or overstepped(
            changes, replace(rules, files=())
        )

    def swap_target(self, held: Any, new: str, old: str) -> str:
        return str(self.hub.swap_target(held, new, old))

    def sync_hub(self) -> None:
        self.hub.sync()
