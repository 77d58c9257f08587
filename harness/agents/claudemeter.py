"""What a run of Claude Code has used: exact from its results, estimated from replies that no result has counted.

`modelUsage` and `total_cost_usd` mean the session after --resume in 2.1.329 and the run in 2.1.197; `usage` leaves out
requests that were cut. So the sum is of `model_usage_since_last_result`, and of the others only where that is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.agents import jsonl
from harness.agents.base import Usage
from harness.dataclass import dataclass

REPLIES = 256
"""How many replies are remembered: the blocks of one come in lines of their own, between those of subagents."""
CHARS_PER_TOKEN = 4
MAX_TOKENS = 10**12
MAX_USD = 1e9
"""More is no count: as if it had not been said."""
_DEPTH = 6
"""How deep in a tool's arguments text is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spent:
    tokens_in: int = 0
    cached: int = 0
    tokens_out: int = 0
    cost_usd: float | None = 0.0
    turns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """One reply of the model, as far as its blocks tell."""

    tokens_in: int = 0
    cached: int = 0
    said_out: int = 0
    chars: int = 0

    @property
    def tokens_out(self) -> int:
        """The first line of a reply says 1, and no other says more: what it holds tells better."""
        return max(self.said_out, -(-self.chars // CHARS_PER_TOKEN))


class Meter:
    """Of one run. What it keeps is bounded."""

    def __init__(self) -> None:
        self.model = ""
        self._begun = False
        self._told: _Spent | None = None
        self._open = _Spent()
        self._replies: dict[str, _Reply | None] = {}  # None: a result has counted it
        self._result: int | None = None

    def begin(self, model: str) -> None:
        self._begun = True
        self.model = model[:100] or self.model

    def reply(self, message: Mapping[str, Any], *, main: bool) -> bool:
        """Counts one block of a reply; -> whether it is the reply's first. `main`: no subagent's, so it is a turn."""
        self.model = jsonl.text(message, "model")[:100] or self.model
        name = jsonl.text(message, "id")[:100]
        first = name not in self._replies
        before = _Reply() if first else self._replies[name]
        if before is None:
            return False
        after = _with(before, message)
        self._replies[name] = after
        if len(self._replies) > REPLIES:
            del self._replies[next(iter(self._replies))]
        spent = self._open
        self._open = _Spent(
            tokens_in=spent.tokens_in + after.tokens_in - before.tokens_in,
            cached=spent.cached + after.cached - before.cached,
            tokens_out=spent.tokens_out + after.tokens_out - before.tokens_out,
            turns=spent.turns + (first and main),
        )
        return first

    def result(self, said: Mapping[str, Any], line: bytes) -> bool:
        """Counts one result; -> False when the same line comes again."""
        mark = hash(line)
        if mark == self._result:
            return False
        self._result = mark
        told = self._told or _Spent()
        turns = _count(said, "num_turns") or self._open.turns
        since = said.get("model_usage_since_last_result")
        if isinstance(since, dict):
            new = _of_models(since)
            cost = None if told.cost_usd is None or new.cost_usd is None else told.cost_usd + new.cost_usd
            self._told = _Spent(
                tokens_in=told.tokens_in + new.tokens_in,
                cached=told.cached + new.cached,
                tokens_out=told.tokens_out + new.tokens_out,
                cost_usd=cost,
                turns=told.turns + turns,
            )
        else:
            new = _of_models(jsonl.mapping(said, "modelUsage"))
            if not (new.tokens_in or new.tokens_out):
                new = _of_usage(jsonl.mapping(said, "usage"))
            self._told = _Spent(
                tokens_in=new.tokens_in,
                cached=new.cached,
                tokens_out=new.tokens_out,
                cost_usd=_usd(said, "total_cost_usd"),
                turns=told.turns + turns,
            )
        self._open = _Spent()
        self._replies = dict.fromkeys(self._replies)
        return True

    def usage(self) -> Usage | None:
        told, spent = self._told or _Spent(), self._open
        exact = self._told is not None and spent == _Spent()
        if not exact and not self._begun and spent == _Spent():
            return None
        return Usage(
            tokens_in=told.tokens_in + spent.tokens_in,
            tokens_cached=told.cached + spent.cached,
            tokens_out=told.tokens_out + spent.tokens_out,
            cost_usd=told.cost_usd if exact or told.cost_usd else None,  # at least that
            turns=told.turns + spent.turns,
            model=self.model,
            estimated=not exact,
        )


def _with(reply: _Reply, message: Mapping[str, Any]) -> _Reply:
    """The reply with one more line; every line repeats the same usage."""
    usage = _of_usage(jsonl.mapping(message, "usage"))
    return _Reply(
        tokens_in=max(reply.tokens_in, usage.tokens_in),
        cached=max(reply.cached, usage.cached),
        said_out=max(reply.said_out, usage.tokens_out),
        chars=reply.chars + sum(_chars(block) for block in jsonl.items(message, "content")),
    )


def _chars(block: object) -> int:
    if not isinstance(block, dict):
        return 0
    return sum(_text_in(block.get(key), _DEPTH) for key in ("text", "thinking", "name", "input"))


def _text_in(value: object, depth: int) -> int:
    """How many characters of text a value holds."""
    if isinstance(value, str):
        return len(value)
    if depth and isinstance(value, dict):
        return sum(len(key) + _text_in(part, depth - 1) for key, part in value.items())
    if depth and isinstance(value, list):
        return sum(_text_in(part, depth - 1) for part in value)
    return 0


def _of_models(models: Mapping[str, Any]) -> _Spent:
    """The sum over models. Its cost is None when one of them does not say."""
    parts = [part for part in models.values() if isinstance(part, dict)]
    costs = [_usd(part, "costUSD") for part in parts]
    cached = sum(_count(part, "cacheReadInputTokens") for part in parts)
    fresh = sum(_count(part, "inputTokens") + _count(part, "cacheCreationInputTokens") for part in parts)
    return _Spent(
        tokens_in=fresh + cached,
        cached=cached,
        tokens_out=sum(_count(part, "outputTokens") for part in parts),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost),
    )


def _of_usage(usage: Mapping[str, Any]) -> _Spent:
    cached = _count(usage, "cache_read_input_tokens")
    return _Spent(
        tokens_in=_count(usage, "input_tokens") + _count(usage, "cache_creation_input_tokens") + cached,
        cached=cached,
        tokens_out=_count(usage, "output_tokens"),
    )


def _count(data: Mapping[str, Any], key: str) -> int:
    value = jsonl.count(data, key)
    return value if value is not None and value <= MAX_TOKENS else 0


def _usd(data: Mapping[str, Any], key: str) -> float | None:
    value = jsonl.number(data, key)
    return value if value is not None and value <= MAX_USD else None
