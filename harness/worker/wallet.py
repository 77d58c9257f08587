"""What one attempt may spend: reserved before each run of its tool, charged after it, given back when the attempt has ended."""

from __future__ import annotations

import math
from dataclasses import field

from harness.agents.base import Bounds
from harness.budgets import Amount, OverBudget, ask_of, budgets_of, used_up
from harness.config import Budget, Config
from harness.dataclass import dataclass
from harness.model import Item
from harness.sessionrecord import RunRecord, SessionRecord
from harness.spend import Ledger, Payer
from harness.totals import AttemptSum


@dataclass(slots=True, kw_only=True)
class Wallet:
    """Of attempt `n`. The ledger is not opened before something is to be paid or bounded."""

    ledger: Ledger
    config: Config
    item: Item
    n: int
    agent: str
    reserved: bool = False
    charged: set[tuple[int, int]] = field(default_factory=set)
    """(attempt, round) of the runs that are in the ledger, as far as we know."""

    def used_up(self) -> str:
        """Why no run may begin any more, or "": what the item, or an attempt of the agent, may cost is spent."""
        most, item = self._most, self.item
        if not self._limited:
            return ""
        if why := used_up(item, self._spent):
            return why
        mine = self._mine.spent
        if most is not None and mine.usd >= most:
            return f"budget: {mine.usd:.2f} of the {most:.2f} USD that an attempt of {self.agent} may cost are spent"
        return ""

    def reserve(self) -> OverBudget | None:
        """Before each run. None: it may begin. Raises OSError."""
        budgets = self._budgets
        if not budgets:
            return None
        short = self.ledger.reserve(self._payer(self.n, self.agent), self._ask, budgets)
        self.reserved = self.reserved or short is None
        return short

    def short(self) -> OverBudget | None:
        """The budget that has no room for another run; None: all have."""
        budgets = self._budgets
        return self.ledger.short(budgets, self._ask) if budgets else None

    def bounds(self) -> Bounds:
        """What the next run may use: the least that the item, the agent and every budget that it counts for have left.

        What others have reserved is left too: nobody is stopped for an estimate. So runs at the same time can pass a
        shared budget, each by what was left of it when it began.
        """
        budgets, item = self._budgets, self.item
        if not budgets and not self._limited:
            return Bounds()
        spent, mine = self._spent, self._mine
        usd = [self._most - mine.spent.usd] if self._most is not None else []
        usd += [item.max_budget_usd - spent.usd] if item.max_budget_usd is not None else []
        tokens = [item.max_budget_tokens - spent.tokens] if item.max_budget_tokens is not None else []
        rooms = list(self.ledger.rooms(budgets).values()) if budgets else []
        shared_usd = [max(0.0, room.usd - room.spent.usd) for room in rooms if room.usd is not None]
        shared_tokens = [max(0, room.tokens - room.spent.tokens) for room in rooms if room.tokens is not None]
        return Bounds(
            usd=min(usd + shared_usd, default=None),
            tokens=min(tokens + shared_tokens, default=None),
            shared=bool(
                (shared_usd and min(shared_usd) < min(usd, default=math.inf))
                or (shared_tokens and min(shared_tokens) < min(tokens, default=math.inf))
            ),
        )

    def charge(self, record: SessionRecord) -> None:
        """Every run of a session that has ended and told what it used; each is charged once, whoever does it. Raises OSError."""
        for run in record.runs:
            uid, _, n = run.attempt.rpartition(".")
            if run.outcome and uid == self.item.uid and n.isdecimal():
                self._charge(run, int(n), record.agent)

    def _charge(self, run: RunRecord, n: int, agent: str) -> None:
        used = run.usage
        if used is None or (n, run.round) in self.charged:
            return
        told = [tokens for tokens in (used.tokens_in, used.tokens_out) if tokens is not None]
        tokens = sum(told) if told else None
        if used.cost_usd is not None or tokens is not None:
            payer = self._payer(n, agent)
            self.ledger.charge(payer, run.round, usd=used.cost_usd, tokens=tokens, estimated=used.estimated)
        self.charged.add((n, run.round))

    def release(self) -> None:
        """When the attempt's end is published. Raises OSError; then the coordinator does it."""
        if self.reserved:
            self.ledger.release(self._payer(self.n, self.agent))
            self.reserved = False

    @property
    def _limited(self) -> bool:
        """The item or the agent has a budget of its own; otherwise the ledger need not be read for it."""
        item = self.item
        return (self._most, item.max_budget_usd, item.max_budget_tokens) != (None, None, None)

    @property
    def _most(self) -> float | None:
        agent = self.config.agents.get(self.agent)
        return agent.max_budget_usd if agent else None

    @property
    def _budgets(self) -> dict[str, Budget]:
        return budgets_of(self.config, self.item.project, self.item.convoy)

    @property
    def _ask(self) -> Amount:
        return ask_of(self.config, self.item, [self.agent], self._spent, self._mine.spent)

    @property
    def _spent(self) -> Amount:
        return self.ledger.item(self.item.uid)

    @property
    def _mine(self) -> AttemptSum:
        return self.ledger.attempt(self.item.uid, self.n) or AttemptSum()

    def _payer(self, n: int, agent: str) -> Payer:
        item = self.item
        return Payer(uid=item.uid, n=n, project=item.project, convoy=item.convoy, agent=agent)
