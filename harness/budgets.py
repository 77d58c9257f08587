"""Budgets: which hold for an item, what an attempt asks of them, and whether there is room. Pure.

An attempt asks for what it may still cost: the least of what `max_budget_usd` of its item and of its agent leave, else
`budgets.reserve_usd`; tokens likewise. It may start when every budget that it counts for has that much left, and something
at all. What others have reserved is not left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from harness.dataclass import dataclass

if TYPE_CHECKING:  # `status` needs this module and no configuration
    from harness.config import Budget, Config
    from harness.model import Item

TINY_USD = 1e-6
"""Sums of cents are not exact."""
DAY = "day"
FLEET = "fleet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """Money and tokens, spent or reserved."""

    usd: float = 0.0
    tokens: int = 0

    def plus(self, other: Amount) -> Amount:
        return Amount(usd=self.usd + other.usd, tokens=self.tokens + other.tokens)

    def less(self, other: Amount) -> Amount:
        """Never below nothing."""
        return Amount(usd=max(0.0, self.usd - other.usd), tokens=max(0, self.tokens - other.tokens))

    @property
    def some(self) -> bool:
        return self.usd > TINY_USD or self.tokens > 0


NOTHING = Amount()


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A budget at one moment."""

    name: str
    usd: float | None
    """What may be spent; None: as much as anybody likes."""
    tokens: int | None
    spent: Amount = NOTHING
    held: Amount = NOTHING
    """Reserved by attempts that run, and not spent yet."""

    def fits(self, ask: Amount, more: Amount = NOTHING) -> bool:
        """May an attempt that asks for so much start, when `more` is reserved besides?"""
        used = self.spent.plus(self.held).plus(more)
        return self._fits(used, ask)

    def exhausted(self, ask: Amount) -> bool:
        """It does not fit, whatever becomes of what is reserved."""
        return not self._fits(self.spent, ask)

    @property
    def spent_up(self) -> bool:
        return self.exhausted(NOTHING)

    def _fits(self, used: Amount, ask: Amount) -> bool:
        if self.usd is not None and (
            used.usd > self.usd - TINY_USD or used.usd + ask.usd > self.usd + TINY_USD
        ):
            return False
        return self.tokens is None or (used.tokens < self.tokens and used.tokens + ask.tokens <= self.tokens)

    @property
    def setting(self) -> str:
        """Where it stands in config.yaml."""
        kind, _, of = self.name.partition(".")
        match kind:
            case "project":
                return f"projects.{of}.budget"
            case "convoy":
                return f"budgets.convoys.{of}"
            case _:
                return f"budgets.{self.name}"

    def __str__(self) -> str:
        parts = []
        if self.usd is not None:
            held = f" ({self.held.usd:.2f} reserved)" if self.held.usd > TINY_USD else ""
            parts.append(f"{self.spent.usd:.2f} of {self.usd:.2f} USD{held}")
        if self.tokens is not None:
            held = f" ({self.held.tokens} reserved)" if self.held.tokens else ""
            parts.append(f"{self.spent.tokens} of {self.tokens} tokens{held}")
        return f"budget {self.name}: {' and '.join(parts)} spent"


@dataclass(frozen=True, slots=True, kw_only=True)
class OverBudget:
    """Why an attempt may not start."""

    room: Room
    ask: Amount

    def __str__(self) -> str:
        wanted = []
        if self.room.usd is not None:
            wanted.append(f"{self.ask.usd:.2f} USD")
        if self.room.tokens is not None and self.ask.tokens:
            wanted.append(f"{self.ask.tokens} tokens")
        needs = f", an attempt needs {' and '.join(wanted)}" if wanted else ""
        return f"{self.room}{needs}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What an item's next attempt asks for, and of which budgets."""

    budgets: tuple[str, ...]
    amount: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Funds:
    """What hints are decided from: every budget, and what each ready item asks of them."""

    rooms: Mapping[str, Room] = field(default_factory=dict)
    asks: Mapping[str, Ask] = field(default_factory=dict)
    """uid -> what it asks for; who is missing needs nothing."""


@dataclass(slots=True)
class Purse:
    """Funds that are handed out, one item after the other."""

    funds: Funds
    given: dict[str, Amount] = field(default_factory=dict)
    """Budget -> what was handed out."""

    def lacking(self, uid: str) -> tuple[str, ...]:
        """The budgets that have no room for this item any more."""
        ask = self.funds.asks.get(uid)
        if ask is None:
            return ()
        rooms = ((name, self.funds.rooms[name]) for name in ask.budgets)
        return tuple(name for name, room in rooms if not room.fits(ask.amount, self.given.get(name, NOTHING)))

    def give(self, uid: str) -> None:
        ask = self.funds.asks.get(uid)
        for name in ask.budgets if ask else ():
            assert ask is not None
            self.given[name] = self.given.get(name, NOTHING).plus(ask.amount)


def all_budgets(config: Config) -> dict[str, Budget]:
    """Name -> every budget that says anything, the widest first."""
    known = config.budgets
    named = {FLEET: known.fleet, DAY: known.day}
    named |= {f"project.{name}": project.budget for name, project in config.projects.items()}
    named |= {f"convoy.{name}": budget for name, budget in known.convoys.items()}
    return {name: budget for name, budget in named.items() if budget.limits}


def budgets_of(config: Config, project: str, convoy: str) -> dict[str, Budget]:
    """Name -> the budgets that an item counts for."""
    known = config.budgets
    named = {FLEET: known.fleet, DAY: known.day}
    if project in config.projects:
        named[f"project.{project}"] = config.projects[project].budget
    if convoy in known.convoys:
        named[f"convoy.{convoy}"] = known.convoys[convoy]
    return {name: budget for name, budget in named.items() if budget.limits}


def ask_of(
    config: Config, item: Item, agents: Iterable[str], spent: Amount = NOTHING, mine: Amount = NOTHING
) -> Amount:
    """What the item's next run asks for, whichever of `agents` runs it: the most that any of them needs.

    `spent`: on the item so far; `mine`: by this attempt.
    """
    tokens = config.budgets.reserve_tokens
    if item.max_budget_tokens is not None:
        tokens = max(0, item.max_budget_tokens - spent.tokens)
    most = 0.0
    for name in agents:
        bounds = []
        agent = config.agents.get(name)
        if agent is not None and agent.max_budget_usd is not None:
            bounds.append(agent.max_budget_usd - mine.usd)
        if item.max_budget_usd is not None:
            bounds.append(item.max_budget_usd - spent.usd)
        most = max(most, min(bounds, default=config.budgets.reserve_usd))
    return Amount(usd=most, tokens=tokens)


def used_up(item: Item, spent: Amount) -> str:
    """Why no attempt of the item may run any more, or ""."""
    usd, tokens = item.max_budget_usd, item.max_budget_tokens
    if usd is not None and spent.usd > usd - TINY_USD:
        return (
            f"budget: {spent.usd:.2f} of the {usd:.2f} USD that this item may cost are spent; no retry helps"
        )
    if tokens is not None and spent.tokens >= tokens:
        return (
            f"budget: {spent.tokens} of the {tokens} tokens that this item may use are used; no retry helps"
        )
    return ""
