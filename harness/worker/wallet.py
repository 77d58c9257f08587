"""What one attempt may spend: reserved before each run of its tool, charged after it, given back when the attempt has ended."""

from __future__ import annotations

from dataclasses import field

from harness.budgets import NOTHING, Amount, OverBudget, ask_of, budgets_of, used_up
from harness.config import Config
from harness.dataclass import dataclass
from harness.model import Item
from harness.sessionrecord import RunRecord, SessionRecord
from harness.spend import Ledger, Payer


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

    def left(self) -> tuple[float | None, str]:
        """-> (what the next run may cost, in USD; None: no limit; why it must not begin, or "")"""
        most = self._most
        item = self.item
        if most is None and item.max_budget_usd is None and item.max_budget_tokens is None:
            return None, ""
        spent, mine = self._spent, self._mine
        if why := used_up(item, spent):
            return None, why
        if most is not None and mine.usd >= most:
            return (
                None,
                f"budget: {mine.usd:.2f} of the {most:.2f} USD that an attempt of {self.agent} may cost are spent",
            )
        limits = [most - mine.usd] if most is not None else []
        limits += [item.max_budget_usd - spent.usd] if item.max_budget_usd is not None else []
        return min(limits, default=None), ""

    def reserve(self) -> OverBudget | None:
        """Before each run. None: it may begin. Raises OSError."""
        budgets = budgets_of(self.config, self.item.project, self.item.convoy)
        if not budgets:
            return None
        ask = ask_of(self.config, self.item, [self.agent], self._spent, self._mine)
        short = self.ledger.reserve(self._payer(self.n, self.agent), ask, budgets)
        self.reserved = self.reserved or short is None
        return short

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
    def _most(self) -> float | None:
        agent = self.config.agents.get(self.agent)
        return agent.max_budget_usd if agent else None

    @property
    def _spent(self) -> Amount:
        return self.ledger.item(self.item.uid)

    @property
    def _mine(self) -> Amount:
        known = self.ledger.attempt(self.item.uid, self.n)
        return known.spent if known else NOTHING

    def _payer(self, n: int, agent: str) -> Payer:
        item = self.item
        return Payer(uid=item.uid, n=n, project=item.project, convoy=item.convoy, agent=agent)
