"""Decides how a request is answered: by its scenario, by what its conversation has seen so far, by the limit in force."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.agents.anthropic import limit_headers
from tests.agents.dialogue import Dialogue, told
from tests.agents.ledger import Ledger, Request
from tests.agents.reply import Dialect, Failure, Json, Reply, spoken
from tests.agents.scripts import Break, Fail, Fault, Say, Script, Stall, Trouble, due, named, place


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request for a reply, as the wire has it."""

    path: str
    scenario: str
    main: bool
    """Requests without tools are of the script, too."""
    key: str
    dialect: Dialect
    model: str
    session: str
    """As a header names it; "": none does."""
    stream: bool
    body: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one request is answered."""

    number: int
    """In the ledger."""
    dialect: Dialect
    reply: Reply
    failure: Failure | None
    """Instead of the reply."""
    fault: Stall | Break | None
    """Of the reply."""
    word_s: float
    stream: bool


@dataclass(slots=True)
class Progress:
    """What a script cannot see in a request."""

    used: dict[tuple[int, int], Counter[int]] = field(default_factory=dict)
    """(correction, turn) -> how often each of the troubles before that reply has happened."""
    corrections: list[tuple[str, int, str]] = field(default_factory=list)
    """(session, number of prompts, what was asked) of each."""


class NoScenario(LookupError):
    """A test names one that does not exist."""


class Director:
    """Thread-safe."""

    def __init__(
        self,
        scenarios: Mapping[str, Script],
        ledger: Ledger,
        *,
        conversation: re.Pattern[str] | None,
        resets_at: float,
        clock: Callable[[], float],
    ) -> None:
        self.resets_at = resets_at
        self.limit = 0.0
        """Until this epoch nothing but the usage limit is answered."""
        self._scenarios = dict(scenarios)
        self._ledger = ledger
        self._pattern = conversation
        self._clock = clock
        self._lock = threading.Lock()
        self._progress: dict[tuple[str, str], Progress] = {}

    def script(self, name: str, script: Script) -> None:
        with self._lock:
            self._scenarios[name] = script

    def plan(self, asked: Asked) -> Plan:
        """Counts the request. Raises NoScenario."""
        with self._lock:
            return self._plan(asked)

    def _plan(self, asked: Asked) -> Plan:
        script = self._scenarios.get(asked.scenario)
        if script is None:
            raise NoScenario(f"no scenario {asked.scenario!r}")
        dialogue = told(asked.dialect.entries(asked.body))
        tools = tuple(asked.dialect.tools(asked.body))
        side = not tools and not asked.main
        name = self._name(dialogue, asked.session)
        progress = self._progress.setdefault((asked.scenario, asked.key or name), Progress())
        if side:
            correction, (faults, _) = 0, place(script, 0, 0)
            say, fault = Say(_title(asked.body)), self._lasting(faults)
        else:
            correction = _correction(script, progress, dialogue, asked.session)
            faults, say = place(script, correction, dialogue.turn)
            used = progress.used.setdefault((correction, dialogue.turn), Counter())
            fault = due(faults, used, self._holds)
        now = self._clock()
        if now < self.limit:
            fault = Fail(Trouble.USAGE_LIMIT, resets_at=self.limit)
        number = self._ledger.open(
            Request(
                at=now,
                method="POST",
                path=asked.path,
                dialect=asked.dialect.name,
                scenario=asked.scenario,
                key=asked.key,
                conversation=name,
                session=asked.session,
                side=side,
                prompt=dialogue.asked,
                turn=dialogue.turn,
                correction=correction,
                model=asked.model,
                answer=_answer(say, fault, side),
            )
        )
        failure = None
        if isinstance(fault, Fail):
            failure, fault = asked.dialect.failure(fault, self._reset(fault), now), None
        return Plan(
            number=number,
            dialect=asked.dialect,
            reply=spoken(named(say, _slug(name)), tools, asked.model, self._headers(asked.dialect, say)),
            failure=failure,
            fault=fault,
            word_s=say.word_s,
            stream=asked.stream,
        )

    def _name(self, dialogue: Dialogue, session: str) -> str:
        if self._pattern:
            for text in dialogue.prompts:
                if found := self._pattern.search(text):
                    return str(found[1] if self._pattern.groups else found[0])
        return session or (dialogue.prompts[0] if dialogue.prompts else "")

    def _lasting(self, faults: tuple[Fault, ...]) -> Fault | None:
        """A client's own requests share what lasts, and use up nothing."""
        always = [fault for fault in faults if isinstance(fault, Fail) and fault.times is None]
        return due(always, Counter(), self._holds)

    def _holds(self, fail: Fail) -> bool:
        return self._clock() < (self._reset(fail) or 0.0)

    def _reset(self, fail: Fail) -> float | None:
        if fail.resets_at is None and fail.trouble is Trouble.USAGE_LIMIT:
            return self.resets_at
        return fail.resets_at

    def _headers(self, dialect: Dialect, say: Say) -> dict[str, str]:
        if dialect.name != "anthropic" or say.utilization is None:
            return {}
        return limit_headers("allowed_warning", self.resets_at, say.utilization)


def _correction(script: Script, progress: Progress, dialogue: Dialogue, session: str) -> int:
    """Which correction is asked for, from 1; 0: none. A prompt that is sent again is not a new one."""
    if not script.words or script.words not in dialogue.asked:
        return 0
    this = (session, len(dialogue.prompts), dialogue.asked)
    if this not in progress.corrections:
        progress.corrections.append(this)
    return progress.corrections.index(this) + 1


def _title(body: Json) -> str:
    """A word; or JSON, where the client has asked for that."""
    return "{}" if "Schema" in json.dumps(body.get("generationConfig") or {}) else "Title"


def _answer(say: Say, fault: Fault | None, side: bool) -> str:
    match fault:
        case Fail(trouble=trouble):
            return trouble.value
        case Stall(where=where):
            return f"stall_{where.value}"
        case Break(how=how):
            return how.value
        case None:
            return "side" if side else "tools" if say.tools else "text"


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)[:40].strip("-.") or "unnamed"
