"""A model API on loopback for tests: four dialects, scripted replies, and a list of everything it was asked.

    with ModelServer() as server:
        env = {"ANTHROPIC_BASE_URL": server.base("commit"), "ANTHROPIC_API_KEY": "dummy", **server.proxies()}

The base URL names the scenario, ``/s/<scenario>@<key>``. Troubles are counted for each key, so that runs share nothing;
without ``@<key>`` for each conversation: many sessions have one base URL, and each its own place in the script.
``/s/<scenario>+main`` is for clients that never send tools: otherwise a request without them is the client's own business
(a title, a summary), is answered with a word, and is not of the script.

A conversation is named by `conversation`, a pattern that is searched in its prompts (the first group, if there is one);
else by the session that the client names in a header; else by its first prompt.

It is a proxy that refuses: every request for another host is answered 403 and kept in `escapes`. What a client tries
without asking its proxy is not seen here.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from tests.agents.director import Director
from tests.agents.ledger import PRICES, Escape, Ledger, Price, Request, Spent, spent
from tests.agents.scripts import SCENARIOS, Script
from tests.agents.wire import Wire

RESETS_S = 7200
CLOSE_S = 10.0


class ModelServer:
    """Listens between `__enter__` and `__exit__`, which fails when a client has asked for a scenario that is none."""

    def __init__(
        self,
        scenarios: Mapping[str, Script] | None = None,
        *,
        conversation: str | re.Pattern[str] | None = None,
        resets_at: float | None = None,
        prices: Mapping[str, Price] = PRICES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`scenarios` are added to `SCENARIOS`. `resets_at`: an epoch, of usage limits; without one, in two hours."""
        self.resets_at = float(int(clock()) + RESETS_S) if resets_at is None else resets_at
        self._ledger = Ledger(prices)
        self._director = Director(
            {**SCENARIOS, **(scenarios or {})},
            self._ledger,
            conversation=None if conversation is None else re.compile(conversation),
            resets_at=self.resets_at,
            clock=clock,
        )
        self._wire = Wire(self._director, self._ledger, clock)
        self._thread = threading.Thread(target=self._wire.accept, name="model-server")

    def __enter__(self) -> ModelServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wire.stop_accepting()
        self._thread.join(CLOSE_S)
        self._wire.server_close()
        self._wire.hang_up(CLOSE_S)
        if kind is None and self._wire.mistakes:
            raise AssertionError("; ".join(self._wire.mistakes))

    # ---- what clients are given --------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._wire.server_address[1]}"

    def base(self, scenario: str, key: str = "") -> str:
        """The base URL that a client is given; some want ``/v1`` behind it."""
        return f"{self.url}/s/{scenario}" + (f"@{key}" if key else "")

    def proxies(self) -> dict[str, str]:
        """The variables that make a client ask us for every other host."""
        env = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), self.url)
        env["NO_PROXY"] = "127.0.0.1,localhost"
        return env | {name.lower(): value for name, value in env.items()}

    # ---- what happens next -------------------------------------------------------------------------------------------

    def script(self, name: str, script: Script) -> None:
        """A new scenario, or another script for one."""
        self._director.script(name, script)

    def limit(self, until: float) -> None:
        """Until this epoch every request for a reply is told that the usage limit is reached, and when it is reset.

        0 ends it.
        """
        self._director.limit = until

    def release(self) -> None:
        """Answers that are stalled now go on."""
        self._wire.release()

    # ---- what happened -----------------------------------------------------------------------------------------------

    @property
    def log(self) -> tuple[Request, ...]:
        """Every request that was not an escape, in order; those under way have status 0."""
        return self._ledger.requests()

    @property
    def escapes(self) -> tuple[Escape, ...]:
        return self._ledger.escapes()

    def requests(
        self, conversation: str | None = None, *, scenario: str | None = None
    ) -> tuple[Request, ...]:
        """Those for replies of the script."""
        return tuple(
            r
            for r in self.log
            if r.dialect
            and not r.side
            and conversation in (None, r.conversation)
            and scenario in (None, r.scenario)
        )

    def conversations(self) -> tuple[str, ...]:
        """In the order in which they began."""
        return tuple(dict.fromkeys(r.conversation for r in self.requests()))

    def spent(self, conversation: str | None = None, *, sides: bool = True) -> Spent:
        """What one conversation has used, or all of them; `sides`: with the clients' own requests."""
        return spent(
            r
            for r in self.log
            if r.dialect and conversation in (None, r.conversation) and (sides or not r.side)
        )
