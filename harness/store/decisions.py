"""What a drop is decided to be, and the snapshot that an admitted draft becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar

from harness.dataclass import dataclass
from harness.model import CommitPolicy, Item, Record
from harness.store.cells import Actor
from harness.store.names import resolve
from harness.store.ops import Step

if TYPE_CHECKING:  # reading the store must not cost the import of the validation library
    from harness.store.draft import Draft
    from harness.store.drops import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Record):
    """The cell that decides a drop: an item (`item.json`), a batch, or a rejection of either."""

    what: ClassVar[str] = "decision"
    rejected: tuple[str, ...] = ()
    """All reasons; empty for a batch that was admitted."""
    exists: str = ""
    """The uid of the same item, when the drop says nothing new."""
    drop: str = ""
    at: str = ""
    tree: str = ""
    """The folder of the batch that counts."""
    items: Mapping[str, str] = field(default_factory=dict)
    """id -> uid of the items of the batch."""
    present: Mapping[str, str] = field(default_factory=dict)
    """id -> uid of items that were there already."""
    waiting: tuple[str, ...] = ()
    """The uids among `items` that go to waiting/."""
    bands: Mapping[str, int] = field(default_factory=dict)


class Decided(Record):
    """What `item.json` in incoming/ holds: reads as an Item or as a Decision that rejects it."""

    @classmethod
    def from_record(cls, data: object, where: object = None) -> Any:
        kind = Decision if isinstance(data, Mapping) and "rejected" in data else Item
        return kind.from_record(data, where)


def snapshot(
    actor: Actor, draft: Draft, uid: str, name: str, drop: str, local: Mapping[str, str], context: Context
) -> Step[Item]:
    """The immutable snapshot: dependencies are resolved id -> uid here, once, newest wins."""
    deps: dict[str, str | None] = {}
    for dep in draft.required:
        if dep in local:
            deps[dep] = local[dep]
        else:
            deps[dep] = yield from resolve(dep)
    return Item(
        uid=uid,
        id=name,
        prompt=draft.prompt,
        title=draft.title or draft.prompt.strip()[:100].splitlines()[0],
        project=context.project_of(draft),
        agents=context.agents_of(draft),
        priority=draft.priority,
        deps=deps,
        optional_deps=draft.optional,
        convoy=draft.convoy,
        files=tuple(draft.files),
        protected=tuple(draft.protected),
        not_before=draft.not_before,
        max_attempts=draft.max_attempts or context.max_attempts,
        timeout_s=draft.timeout_s,
        max_budget_usd=draft.max_budget_usd,
        max_budget_tokens=draft.max_budget_tokens,
        commit=CommitPolicy(draft.commit),
        labels=draft.labels,
        source=draft.source,
        drop=drop.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
        digest=draft.digest(),
        admitted_at=actor.stamp(),
    )
