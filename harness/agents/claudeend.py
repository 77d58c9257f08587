"""How a run of Claude Code ended: the evidence while it runs, and the judgement.

Its `subtype` says success for errors of the service, its exit code is 0 for interrupted runs, and a process may hang after
its result. So a result is judged by `is_error`, by what ended it and by the last error before it; where there is none, by
the last error, by stderr, by the exit code.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.agents import jsonl
from harness.agents.outcomes import (
    AgentOutcome,
    Auth,
    BadRequest,
    Billing,
    Budget,
    Crash,
    Empty,
    MaxTurns,
    NoResult,
    Ok,
    Overloaded,
    RateLimit,
    Refusal,
    UsageLimit,
)
from harness.dataclass import dataclass
from harness.runner import Ended

DETAIL_CHARS = 500
NAME_CHARS = 60
MAX_UNTIL_S = 366 * 86_400.0
LONG_WAIT_S = 60.0
"""A retry that is so far off tells when the limit ends; a shorter one only how the tool backs off."""
NO_ANSWER = "no answer"
"""Our name for a failure without a status: no connection, or nothing came in time."""
_LOST = re.compile(r"No conversation found|Session ID \S+ is already in use")
_MISCALLED = re.compile(r"error: |Error: Invalid session ID|.*cannot be used with root")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a request failed, or the run: told by a retry, by a reply that is an error, by a result."""

    names: frozenset[str] = frozenset()
    status: int | None = None
    refused: bool = False
    text: str = ""
    delay_s: float | None = None
    """Of a retry: how long the tool waits now."""

    @classmethod
    def told(cls, said: Mapping[str, Any], stop_reason: str, text: str) -> Failure:
        """By a reply that is an error, or by a result."""
        names = (jsonl.text(said, "error"), jsonl.text(said, "api_error"))
        return cls(
            names=frozenset(name[:NAME_CHARS] for name in names if name),
            status=jsonl.count(said, "api_error_status"),
            refused=stop_reason == "refusal",
            text=text.strip()[:DETAIL_CHARS],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    failed: bool
    subtype: str
    reason: str
    failure: Failure


class End:
    """Of one run. What it keeps is bounded."""

    def __init__(self) -> None:
        self._begun = False
        self._spoke = False
        self._failure: Failure | None = None
        self._used_up = False
        self._resets_at: float | None = None
        self._result: _Result | None = None
        self._went_on = False
        self._lost = ""
        self._stderr: deque[str] = deque(maxlen=3)

    def begins(self) -> None:
        """Also a second time, when what it left in the background has woken it: another result will come."""
        self._begun = self._went_on = True

    def works(self, *, first: bool, spoke: bool) -> None:
        """It got an answer: what failed before is over. `first`: of a reply; `spoke`: text, or the use of a tool."""
        self._went_on = self._went_on or first
        self._spoke = self._spoke or spoke
        self._failure, self._used_up, self._resets_at = None, False, None

    def retries(self, failure: Failure) -> None:
        self._failure, self._went_on = failure, True

    def fails(self, failure: Failure, resets_at: float | None) -> None:
        """A reply is an error. `resets_at`: of the plan's allowance, if it says so."""
        if failure.names == {"unknown"} and self._failure is not None:
            failure = replace(failure, names=failure.names | self._failure.names)
        self._failure = failure
        self._resets_at = resets_at or self._resets_at

    def limited(self, resets_at: float | None) -> None:
        """Requests are rejected: until then the plan's allowance is used up; without a time there are too many."""
        self._used_up, self._resets_at = resets_at is not None, resets_at
        self._failure = Failure(
            names=frozenset(("rate_limit",)), status=429, text="rate_limit_event: rejected"
        )

    def results(self, said: Mapping[str, Any]) -> str:
        """-> its last word."""
        errors = "; ".join(error for error in jsonl.items(said, "errors") if isinstance(error, str))
        text, subtype = jsonl.text(said, "result") or errors, jsonl.text(said, "subtype")
        self._result = _Result(
            failed=subtype.startswith("error") or said.get("is_error", subtype != "success") is not False,
            subtype=subtype[:NAME_CHARS],
            reason=jsonl.text(said, "terminal_reason")[:NAME_CHARS],
            failure=Failure.told(said, jsonl.text(said, "stop_reason"), text),
        )
        self._went_on = False
        self._spoke = self._spoke or bool(text.strip())
        return text

    def complains(self, line: str) -> None:
        """A line of stderr."""
        if line:
            self._stderr.append(line[:DETAIL_CHARS])

    def loses(self, said: str) -> bool:
        """Whether this says, and nothing said before, that its conversation is not to be had."""
        if self._begun or self._lost or not _LOST.search(said):
            return False
        self._lost = said[:DETAIL_CHARS]
        return True

    def by_itself(self, ended: Ended, now: float) -> AgentOutcome:
        if self._lost and not self._begun:
            return _crash(ended, f"no conversation: {self._lost}")
        if self._result is not None and (ended.ok or not self._went_on):
            return self._judged(self._result, ended, now)
        outcome = self.meaning(self._failure, now)
        if outcome is not None:
            return outcome
        if ended.ok:
            return NoResult(detail=self._complaint)
        miscalled = next((line for line in self._stderr if _MISCALLED.match(line)), "")
        if miscalled and not self._begun:
            return BadRequest(detail=miscalled)
        return _crash(ended, self._complaint)

    def before(self, ended: Ended, now: float) -> AgentOutcome | None:
        """The end that we only cut short: a result after which it hung, or a limit that it waited for.

        Not the crash that a result tells of: our signal has made it.
        """
        if self._result is not None and not self._went_on:
            outcome = self._judged(self._result, ended, now)
            if not isinstance(outcome, Crash):
                return outcome
        return self.meaning(self._failure, now)

    def meaning(self, failure: Failure | None, now: float) -> AgentOutcome | None:
        """What an answer of the service means. None: nothing that is known."""
        if failure is None:
            return None
        names, status, text = failure.names, failure.status or 0, failure.text
        if failure.refused:
            return Refusal(detail=text)
        if "usage_limit_reached" in names:
            return UsageLimit(resets_at=_until(self._resets_at, now), detail=text)
        if status in (401, 403) or "authentication_failed" in names:
            return Auth(detail=text)
        if status == 402 or "billing_error" in names or "credit balance" in text.lower():
            return Billing(detail=text)
        if status == 429 or "rate_limit" in names:
            if self._used_up:
                return UsageLimit(resets_at=_until(self._resets_at, now), detail=text)
            far = failure.delay_s is not None and failure.delay_s >= LONG_WAIT_S
            return RateLimit(resume_at=now + (failure.delay_s or 0.0) if far else None, detail=text)
        if status >= 500 or status == 408 or names & {"server_error", "overloaded", NO_ANSWER}:
            return Overloaded(detail=text)
        if status >= 400 or names & {"model_not_found", "invalid_request", "prompt_too_long"}:
            return BadRequest(detail=text)
        return None

    def _judged(self, result: _Result, ended: Ended, now: float) -> AgentOutcome:
        text = result.failure.text
        if result.subtype == "error_max_turns" or result.reason == "max_turns":
            return MaxTurns(detail=text)
        if result.subtype == "error_max_budget_usd" or result.reason == "budget_exhausted":
            return Budget(detail=text)
        if result.reason.startswith("aborted"):
            return _crash(ended, f"interrupted, and not by us ({result.reason})")
        if not result.failed:
            return Ok() if self._spoke else Empty()
        outcome = self.meaning(self._why(result), now)
        if outcome is not None:
            return outcome
        return _crash(ended, "; ".join(part for part in (text or result.subtype, self._complaint) if part))

    def _why(self, result: _Result) -> Failure:
        """What the result says, and what the last error says of the same."""
        failure, last = result.failure, self._failure
        failure = replace(failure, names=failure.names | {result.reason})
        if last is None or (failure.status is not None and last.status not in (None, failure.status)):
            return failure
        return replace(
            failure,
            names=failure.names | last.names,
            status=last.status if failure.status is None else failure.status,
            refused=failure.refused or last.refused,
        )

    @property
    def _complaint(self) -> str:
        return "; ".join(self._stderr)[:DETAIL_CHARS]


def _crash(ended: Ended, detail: str) -> Crash:
    return Crash(exit_code=ended.exit_code, signal=ended.signal, detail=detail[: 2 * DETAIL_CHARS])


def _until(at: float | None, now: float) -> float | None:
    """When a limit ends. A time that is over says nothing: who believes it would try again and again at once."""
    return None if at is None or at <= now else min(at, now + MAX_UNTIL_S)
