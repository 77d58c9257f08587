"""What tokens cost, for tools that report tokens only: the `prices` of config.yaml. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from harness.agents.base import Usage
from harness.config import Price


def price_of(prices: Mapping[str, Price], usage: Usage) -> float | None:
    """USD for what was used; None when the model has no price or nothing is known. The first glob that matches holds."""
    price = next((price for glob, price in prices.items() if fnmatchcase(usage.model, glob)), None)
    if price is None or (usage.tokens_in is None and usage.tokens_out is None):
        return None
    cached = min(usage.tokens_cached or 0, usage.tokens_in or 0)
    fresh = (usage.tokens_in or 0) - cached
    rate = price.input if price.cached is None else price.cached
    return (fresh * price.input + cached * rate + (usage.tokens_out or 0) * price.output) / 1e6
