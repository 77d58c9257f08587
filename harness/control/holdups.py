"""Why a ready item is not taken: a pause, the delay of a retry, a limit, a budget."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from harness.clock import rfc3339
from harness.control.desk import Desk
from harness.errors import ConfigError
from harness.model import State
from harness.store.view import Seen

if TYPE_CHECKING:
    from harness.budgets import Room
    from harness.config import Config
    from harness.model import Item
    from harness.spend import Ledger


class Holdups:
    """Of one moment: limits and budgets are read once, however many items are asked about.

    The coordinator decides by the same files and a little more: an item for which nothing is found here may still wait
    for a worker, for files that another item changes, or for money that items before it in the order will take.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._now = desk.clock.wall()

    def told(self, seen: Seen) -> Seen:
        """The same item; `reason` says what holds it up if it is ready and something does. Raises nothing."""
        if seen.state is not State.READY or seen.item is None or seen.reason:
            return seen
        return replace(seen, reason=self._why(seen, seen.item))

    def _why(self, seen: Seen, item: Item) -> str:
        control = self._desk.layout.control
        if (control / "pause").exists():
            return "paused, until: harnessctl resume"
        if (control / f"pause.project.{item.project}").exists():
            return f"its project is paused, until: harnessctl resume --project {item.project}"
        config = self._config
        if config is None:
            return ""
        if item.project not in config.projects:
            return f"project {item.project} is not in config.yaml"
        return self._delayed(seen, config) or self._limited(item, config) or self._unpaid(item, config)

    def _delayed(self, seen: Seen, config: Config) -> str:
        from harness.promote import delay_s

        left = delay_s(seen.last, self._now, config.retry.max_delay_s)
        return f"tried again from {rfc3339(self._now + left)}" if left else ""

    def _limited(self, item: Item, config: Config) -> str:
        from harness.limits import Limits

        free, limit = Limits(self._desk.layout, self._desk.clock).choose(config, item.agents)
        return f"waits for {limit}" if free is None and limit is not None else ""

    def _unpaid(self, item: Item, config: Config) -> str:
        if not config.budgeted:
            return ""
        from harness.budgets import OverBudget, ask_of, budgets_of

        with contextlib.suppress(OSError):
            ask = ask_of(config, item, item.agents, self._ledger.item(item.uid))
            for name in budgets_of(config, item.project, item.convoy):
                room = self._rooms[name]
                if not room.fits(ask):
                    return f"waits for {OverBudget(room=room, ask=ask)}"
        return ""

    @cached_property
    def _config(self) -> Config | None:
        """None: it cannot be read; `harnessctl status` says so."""
        try:
            return self._desk.config
        except ConfigError:
            return None

    @cached_property
    def _ledger(self) -> Ledger:
        from harness.spend import Ledger

        return Ledger(self._desk.layout, self._desk.clock)

    @cached_property
    def _rooms(self) -> dict[str, Room]:
        from harness.budgets import all_budgets

        assert self._config is not None
        return self._ledger.rooms(all_budgets(self._config))
