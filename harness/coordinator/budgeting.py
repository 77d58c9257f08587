"""The budgets as the coordinator sees them: what is left for those that are ready, whom a person has to be asked about.

It alone writes `state/interrupts/budget.<name>.json`, and removes it when the budget does not stop anything any more.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from typing import Any

from harness.atomicfs import replace_file
from harness.budgets import DAY, NOTHING, Ask, Funds, Room, all_budgets, ask_of, budgets_of
from harness.clock import Clock, day, rfc3339
from harness.config import Config
from harness.coordinator.index import Entry, Index
from harness.dataclass import dataclass
from harness.events import EventStream
from harness.layout import Layout
from harness.logs import Event
from harness.model import slug
from harness.record import VERSION, dump
from harness.spend import Ledger
from harness.store.cells import Standing
from harness.totals import Totals

NAMED = 5
"""So many items that wait for a budget are called by their names."""


@dataclass(slots=True)
class Budgeting:
    layout: Layout
    clock: Clock
    index: Index
    events: EventStream
    ledger: Ledger
    totals: Totals = field(default_factory=Totals)
    """As `rooms` has found them."""
    asked: dict[str, str] | None = None
    """Budget -> the name of its file in state/interrupts/, of those that a person was asked about. None: not looked yet."""

    def rooms(self, config: Config) -> dict[str, Room]:
        """Every budget now. What runs and has not reserved yet (it is being prepared) counts as if it had.

        The ledger is not opened while there is no budget. Raises OSError.
        """
        if not config.budgeted:
            return {}
        self.totals = self.ledger.read()
        rooms = self.ledger.rooms(all_budgets(config))
        for entry in self.index.of(Standing.RUNNING):
            if self.totals.attempt(entry.uid, entry.n) is None and not self.ledger.ended(entry.uid, entry.n):
                ask = self._ask(config, entry)
                for name in ask.budgets:
                    rooms[name] = replace(rooms[name], held=rooms[name].held.plus(ask.amount))
        return rooms

    def funds(self, config: Config, rooms: Mapping[str, Room]) -> Funds:
        """What hints are decided from."""
        if not rooms:
            return Funds()
        alike: dict[tuple[str, str, tuple[str, ...]], Ask] = {}
        asks: dict[str, Ask] = {}
        for entry in self.index.of(Standing.READY):
            item = entry.item
            if item.max_budget_usd is not None or item.max_budget_tokens is not None:
                asks[entry.uid] = self._ask(config, entry)
                continue
            key = (item.project, item.convoy, item.agents)
            if key not in alike:
                alike[key] = self._ask(config, entry)
            asks[entry.uid] = alike[key]
        return Funds(rooms=rooms, asks=asks)

    def _ask(self, config: Config, entry: Entry) -> Ask:
        item = entry.item
        budgets = tuple(budgets_of(config, item.project, item.convoy))
        known = self.totals.items.get(item.uid)
        return Ask(
            budgets=budgets, amount=ask_of(config, item, item.agents, known.spent if known else NOTHING)
        )

    def settle(self) -> None:
        """Give back what attempts have reserved whose worker could not do that. A disk that is full now is not later."""
        with contextlib.suppress(OSError):
            self.ledger.settle()

    # ---- telling -----------------------------------------------------------------------------------------------------

    def rows(self, funds: Funds, unpaid: Mapping[str, tuple[str, ...]]) -> tuple[dict[str, Any], ...]:
        """For the report: the budgets that are spent or that items wait for."""
        out = []
        for name, room in funds.rooms.items():
            waiting = [
                self.index.open[uid]
                for uid, names in unpaid.items()
                if name in names and uid in self.index.open
            ]
            if not waiting and not room.spent_up:
                continue
            out.append(
                {
                    "name": name,
                    "usd": room.usd,
                    "usd_spent": round(room.spent.usd, 6),
                    "usd_reserved": round(room.held.usd, 6),
                    "tokens": room.tokens,
                    "tokens_spent": room.spent.tokens,
                    "tokens_reserved": room.held.tokens,
                    "waiting": len(waiting),
                    "items": sorted(entry.item.id for entry in waiting)[:NAMED],
                    "blocks": any(room.exhausted(funds.asks[entry.uid].amount) for entry in waiting),
                    "what": str(room),
                    "setting": room.setting,
                    "day": day(self.clock.wall()) if name == DAY else "",
                }
            )
        return tuple(out)

    def ask(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """A file for whoever looks there for what waits for a person: made when a budget begins to block, gone when it ends."""
        blocking = {row["name"]: row for row in rows if row["blocks"]}
        if self.asked is not None and self.asked.keys() == blocking.keys():
            return
        folder = self.layout.interrupts
        if self.asked is None:
            found = folder.glob("budget.*.json") if folder.is_dir() else ()
            self.asked = {name: _file(name) for name in blocking if (folder / _file(name)).exists()}
            for path in [p for p in found if p.name not in self.asked.values()]:
                path.unlink(missing_ok=True)
        for name in self.asked.keys() - blocking.keys():
            (folder / self.asked.pop(name)).unlink(missing_ok=True)
        for name, row in blocking.items():
            if name in self.asked:
                continue
            question = {
                "v": VERSION,
                "kind": "budget",
                "budget": name,
                "what": f"{row['what']}: {row['waiting']} items wait ({', '.join(row['items'])})",
                "remedy": f"raise {row['setting']} in config.yaml, then send the daemon SIGHUP"
                + ("; or wait for midnight UTC" if name == DAY else ""),
                "raised_at": rfc3339(self.clock.wall()),
            }
            with contextlib.suppress(OSError):  # tried again with the next change; status says it anyway
                folder.mkdir(mode=0o700, exist_ok=True)
                replace_file(folder / _file(name), dump(question), durable=False, mode=0o600)
                self.asked[name] = _file(name)
                self.events.emit(Event.BUDGET_MET, budget=name, reason=row["what"], waiting=row["waiting"])


def _file(budget: str) -> str:
    """A name for the file that no text of a person can lead elsewhere."""
    kind, _, of = budget.partition(".")
    plain = slug(of) if of else ""
    if plain != of:
        plain += "-" + hashlib.sha256(of.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"budget.{kind}.{plain}.json" if of else f"budget.{kind}.json"
