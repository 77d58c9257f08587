"""Why a ready item is not taken: a pause, the delay of a retry, its agent, a limit, a budget."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from harness.clock import moment_of, rfc3339
from harness.control.desk import Desk
from harness.errors import ConfigError
from harness.model import State
from harness.store.view import Seen

if TYPE_CHECKING:
    from harness.budgets import Room
    from harness.config import Config
    from harness.model import Item
    from harness.totals import Totals


class Holdups:
    """Of one moment: pauses, limits and budgets are read once, however many items are asked about.

    The coordinator decides by the same files and knows more: an item for which nothing is found here may still wait for a
    worker, for files that another item changes, or for money that others take first. config.yaml is read as it is now;
    a coordinator that has not been told to read it again obeys the one before.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._now = desk.clock.wall()
        self._pauses: dict[str, bool] = {}
        self._limits: dict[tuple[str, ...], str] = {}

    def told(self, seen: Seen) -> Seen:
        """The same item; `reason` says what holds it up, if it is ready and something does that can be read."""
        if seen.state is not State.READY or seen.item is None or seen.reason:
            return seen
        with contextlib.suppress(OSError):  # a file that is not for our eyes: people can look at the rest
            return replace(seen, reason=self._why(seen, seen.item))
        return seen

    def _why(self, seen: Seen, item: Item) -> str:
        project = item.project
        if self._paused("pause"):
            return "paused, until: harnessctl resume"
        if self._paused(f"pause.project.{project}"):
            return f"project {project} is paused, until: harnessctl resume --project {project}"
        config = self._config
        if config is None:
            return ""
        if project not in config.projects:
            return f"project {project} is not in config.yaml"
        return self._delayed(seen, config) or self._limited(item, config) or self._unpaid(item, config)

    def _paused(self, name: str) -> bool:
        if name not in self._pauses:
            self._pauses[name] = os.path.exists(self._desk.layout.control / name)
        return self._pauses[name]

    def _delayed(self, seen: Seen, config: Config) -> str:
        from harness.promote import delay_s

        ended = moment_of(seen.last.end.ended_at) if seen.last and seen.last.end else None
        since = min(self._now, ended if ended is not None else self._now)
        moment = since + delay_s(seen.last, since, config.retry.max_delay_s)
        return f"tried again from {rfc3339(moment)}" if moment > self._now else ""

    def _limited(self, item: Item, config: Config) -> str:
        agents = item.agents
        if agents not in self._limits:
            from harness.limits import Limits

            known = [agent for agent in agents if agent in config.agents]
            free, limit = Limits(self._desk.layout, self._desk.clock).choose(config, known)
            if not known:
                self._limits[agents] = f"agent {', '.join(agents)} is not in config.yaml"
            else:
                self._limits[agents] = f"waits for {limit}" if free is None else ""
        return self._limits[agents]

    def _unpaid(self, item: Item, config: Config) -> str:
        if not config.budgeted:
            return ""
        from harness.budgets import NOTHING, OverBudget, ask_of, budgets_of

        rooms, totals = self._funds
        known = totals.items.get(item.uid)
        ask = ask_of(config, item, item.agents, known.spent if known else NOTHING)
        for name in budgets_of(config, item.project, item.convoy):
            if not rooms[name].fits(ask):
                return f"waits for {OverBudget(room=rooms[name], ask=ask)}"
        return ""

    @cached_property
    def _config(self) -> Config | None:
        """None: it cannot be read; `harnessctl status` says so."""
        try:
            return self._desk.config
        except ConfigError:
            return None

    @cached_property
    def _funds(self) -> tuple[dict[str, Room], Totals]:
        from harness.budgets import all_budgets
        from harness.spend import Ledger

        assert self._config is not None
        ledger = Ledger(self._desk.layout, self._desk.clock)
        return ledger.rooms(all_budgets(self._config)), ledger.read()
