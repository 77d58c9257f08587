"""How a run of an agent ended, as a closed union, and what each end means for the attempt.

Consume with an exhaustive `match`. `detail` is a tool's own words: make it printable before it is shown.
"""

from __future__ import annotations

from typing import assert_never

from harness.config import OutcomeName
from harness.dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ok:
    """The tool says that it is done. A claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxTurns:
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """Too many requests."""

    resume_at: float | None = None
    """Wall clock; None: not told."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLimit:
    """The plan's allowance is used up."""

    resets_at: float | None = None
    """Wall clock; None: not told."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overloaded:
    """The service is at capacity or out of order."""

    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """The credential is missing or refused."""

    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Billing:
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRequest:
    """It can never work like this: an unknown model, a prompt that is too long."""

    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The model declines."""

    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """We stopped it: a drain, a park, a cancel."""

    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled:
    """Neither output nor CPU time for too long."""

    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    after_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """It ended in a way that says nothing more."""

    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoResult:
    """It ended well without the result that its format promises."""

    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Empty:
    """It ended well and said nothing."""

    detail: str = ""


AgentOutcome = (
    Ok
    | MaxTurns
    | Budget
    | RateLimit
    | UsageLimit
    | Overloaded
    | Auth
    | Billing
    | BadRequest
    | Refusal
    | Interrupted
    | Stalled
    | TimedOut
    | Crash
    | NoResult
    | Empty
)


def name_of(outcome: AgentOutcome) -> OutcomeName:
    """The word for logs, summaries and config.yaml."""
    match outcome:
        case Ok():
            return OutcomeName.OK
        case MaxTurns():
            return OutcomeName.MAX_TURNS
        case Budget():
            return OutcomeName.BUDGET
        case RateLimit():
            return OutcomeName.RATE_LIMIT
        case UsageLimit():
            return OutcomeName.USAGE_LIMIT
        case Overloaded():
            return OutcomeName.OVERLOADED
        case Auth():
            return OutcomeName.AUTH
        case Billing():
            return OutcomeName.BILLING
        case BadRequest():
            return OutcomeName.BAD_REQUEST
        case Refusal():
            return OutcomeName.REFUSAL
        case Interrupted():
            return OutcomeName.INTERRUPTED
        case Stalled():
            return OutcomeName.STALLED
        case TimedOut():
            return OutcomeName.TIMED_OUT
        case Crash():
            return OutcomeName.CRASH
        case NoResult():
            return OutcomeName.NO_RESULT
        case Empty():
            return OutcomeName.EMPTY
        case _:
            assert_never(outcome)


def named(
    name: OutcomeName,
    *,
    detail: str = "",
    until: float | None = None,
    exit_code: int | None = None,
    after_s: float = 0.0,
) -> AgentOutcome:
    """The outcome of that name; `until` is the wall time at which a limit ends, if known."""
    match name:
        case OutcomeName.OK:
            return Ok()
        case OutcomeName.MAX_TURNS:
            return MaxTurns(detail=detail)
        case OutcomeName.BUDGET:
            return Budget(detail=detail)
        case OutcomeName.RATE_LIMIT:
            return RateLimit(resume_at=until, detail=detail)
        case OutcomeName.USAGE_LIMIT:
            return UsageLimit(resets_at=until, detail=detail)
        case OutcomeName.OVERLOADED:
            return Overloaded(detail=detail)
        case OutcomeName.AUTH:
            return Auth(detail=detail)
        case OutcomeName.BILLING:
            return Billing(detail=detail)
        case OutcomeName.BAD_REQUEST:
            return BadRequest(detail=detail)
        case OutcomeName.REFUSAL:
            return Refusal(detail=detail)
        case OutcomeName.INTERRUPTED:
            return Interrupted(why=detail)
        case OutcomeName.STALLED:
            return Stalled(detail=detail)
        case OutcomeName.TIMED_OUT:
            return TimedOut(after_s=after_s)
        case OutcomeName.CRASH:
            return Crash(exit_code=exit_code, detail=detail)
        case OutcomeName.NO_RESULT:
            return NoResult(detail=detail)
        case OutcomeName.EMPTY:
            return Empty(detail=detail)
        case _:
            assert_never(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoOn:
    """To the gates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostsAttempt:
    """The attempt ends as failed."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The attempt ends as released: it costs nothing. What waits, and until when, is the credential (`harness.limits`)."""

    reason: str


Consequence = GoOn | CostsAttempt | Released


def consequence(outcome: AgentOutcome) -> Consequence:
    """What an outcome means for the attempt. Pure."""
    reason = described(outcome)
    match outcome:
        case Ok():
            return GoOn()
        case RateLimit() | UsageLimit() | Overloaded() | Auth() | Billing() | Interrupted():
            return Released(reason=reason)
        case (
            MaxTurns()
            | Budget()
            | BadRequest()
            | Refusal()
            | Stalled()
            | TimedOut()
            | Crash()
            | NoResult()
            | Empty()
        ):
            return CostsAttempt(reason=reason)
        case _:
            assert_never(outcome)


def described(outcome: AgentOutcome) -> str:
    """One line for an end cell: ``crash: exit 3: Traceback …``."""
    name = name_of(outcome).value
    match outcome:
        case Ok():
            return name
        case Interrupted(why=why):
            return f"{name}: {why}" if why else name
        case TimedOut(after_s=after_s):
            return f"{name}: after {after_s:g} s"
        case Crash(exit_code=exit_code, signal=number, detail=detail):
            how = f"signal {number}" if number else f"exit {exit_code}" if exit_code is not None else ""
            return ": ".join(part for part in (name, how, detail) if part)
        case _:
            return f"{name}: {outcome.detail}" if outcome.detail else name
