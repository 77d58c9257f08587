"""What a model server was asked, and what its answers cost."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tests.agents.scripts import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars for a million tokens."""

    fresh: float = 3.0
    cached: float = 0.3
    out: float = 15.0

    def of(self, tokens: Tokens) -> float:
        return (tokens.fresh * self.fresh + tokens.cached * self.cached + tokens.out * self.out) / 1e6


PRICES: Mapping[str, Price] = {
    "": Price(),
    "claude-sonnet": Price(),
    "claude-haiku": Price(fresh=1.0, cached=0.1, out=5.0),
}
"""By how a model's name begins; the longest that fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request and how it was answered. Nothing of it is on disk."""

    number: int = -1
    at: float
    """Wall clock, seconds since the epoch."""
    method: str
    path: str
    dialect: str = ""
    """"": not a request for a reply."""
    scenario: str = ""
    key: str = ""
    conversation: str = ""
    session: str = ""
    """As the client names it in a header, if it does."""
    side: bool = False
    """The client's own business (a title, a summary): without tools, and not of the script."""
    prompt: str = ""
    """What the latest reply has to answer."""
    turn: int = 0
    correction: int = 0
    model: str = ""
    answer: str = ""
    """``text``, ``tools``, ``side``, or the trouble."""
    status: int = 0
    """0: not answered yet."""
    tokens: Tokens | None = None
    """What it used: known when the reply was sent whole."""
    cost_usd: float = 0.0
    gone: bool = False
    """The client did not wait for the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """The sum of some requests. A reply that was not sent whole costs nothing here."""

    requests: int
    replies: int
    tokens_in: int
    """What came from a cache included."""
    tokens_cached: int
    tokens_out: int
    cost_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Escape:
    """An attempt to reach another host through us; it was refused."""

    at: float
    method: str
    target: str
    """``host:port``, or a whole URL."""


class Ledger:
    """Requests and escapes in the order in which they came. Thread-safe."""

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = dict(prices)
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._escapes: list[Escape] = []

    def open(self, request: Request) -> int:
        """-> its number, for `note` and `gone`."""
        with self._lock:
            number = len(self._requests)
            self._requests.append(replace(request, number=number))
            return number

    def note(self, number: int, *, status: int, tokens: Tokens | None = None) -> None:
        """How a request is answered."""
        with self._lock:
            was = self._requests[number]
            cost = self._price(was.model).of(tokens) if tokens else 0.0
            self._requests[number] = replace(was, status=status, tokens=tokens, cost_usd=cost)

    def gone(self, number: int) -> None:
        """Nobody read the answer to its end."""
        with self._lock:
            self._requests[number] = replace(self._requests[number], tokens=None, cost_usd=0.0, gone=True)

    def other(self, at: float, method: str, path: str, answer: str, status: int) -> None:
        """A request that was not for a reply."""
        self.open(Request(at=at, method=method, path=path, answer=answer, status=status))

    def escaped(self, at: float, method: str, target: str) -> None:
        with self._lock:
            self._escapes.append(Escape(at=at, method=method, target=target))

    def requests(self) -> tuple[Request, ...]:
        with self._lock:
            return tuple(self._requests)

    def escapes(self) -> tuple[Escape, ...]:
        with self._lock:
            return tuple(self._escapes)

    def _price(self, model: str) -> Price:
        fits = [name for name in self._prices if model.startswith(name)]
        return self._prices[max(fits, key=len)] if fits else Price()


def spent(requests: Iterable[Request]) -> Spent:
    known = tuple(requests)
    used = [r.tokens for r in known if r.tokens]
    return Spent(
        requests=len(known),
        replies=len(used),
        tokens_in=sum(t.fresh + t.cached for t in used),
        tokens_cached=sum(t.cached for t in used),
        tokens_out=sum(t.out for t in used),
        cost_usd=math.fsum(r.cost_usd for r in known),
    )
