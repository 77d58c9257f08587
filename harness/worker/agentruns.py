"""The runs of the agent in one attempt: none begins before its credential is free and its money is reserved; each is charged.

What a run says of its credential (a limit met, a limit over) is told to every other worker; what it says of the attempt is
a `Result`, or None: on to the gates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.agents.base import AgentEvent, Bounds, Text, Tool
from harness.agents.outcomes import (
    Budget,
    CostsAttempt,
    GoOn,
    Interrupted,
    Ok,
    Released,
    consequence,
    name_of,
)
from harness.bell import Bell
from harness.budgets import OverBudget
from harness.clock import Clock
from harness.config import Config, Credential
from harness.dataclass import dataclass
from harness.layout import Layout
from harness.limits import Blocked, Limits, Permit, limiter_of
from harness.logs import Event
from harness.model import Outcome
from harness.session import AgentResult, Session
from harness.worker.result import Result, failed, given_back
from harness.worker.wallet import Wallet

TRIED_S = 1.0


@dataclass(slots=True, kw_only=True)
class AgentRuns:
    """Of attempt `mark`: `run` each of them, and `hear` what the tool says meanwhile."""

    layout: Layout
    config: Config
    clock: Clock
    limits: Limits
    wallet: Wallet
    agent: str
    mark: str
    stage: Callable[[str, str], None]
    """(state, last event) for the report."""
    say: Callable[..., None]
    """Emits an event of this attempt."""
    check: Callable[[], None]
    """Raises Broken when the attempt must not go on."""
    left: Callable[[], float]
    """Seconds until the attempt's time is over."""
    permit: Permit | None = None

    def run(self, session: Session, prompt: str, afresh: str, k: int) -> Result | None:
        """Round `k`. `afresh`: the prompt for a new session, when the tool does not find its own any more.

        None: on to the gates; otherwise how the attempt ends. Raises Broken, HarnessError, OSError.
        """
        if why := self.wallet.used_up():
            return failed(why)
        permit = self.limits.start(self._limiter, self._credential)
        if isinstance(permit, Blocked):
            return self._waits(permit)
        self.permit = permit
        try:
            if (short := self.wallet.reserve()) is not None:
                return self._unpaid(short)
            bounds = self.wallet.bounds()
            self.stage("running", f"{self.agent}, round {k}")
            self.say(Event.AGENT_STARTED, agent=self.agent, round=k, resumed=session.goes_on or None)
            result = session.run(prompt, timeout_s=self.left(), bounds=bounds)
            if result.lost:
                self.say(Event.SESSION_LOST, agent=self.agent, round=k)
                result = session.run(afresh, timeout_s=self.left(), bounds=bounds)
            self.wallet.charge(session.record)
            self._tell(result, k)
            self._learn(result)
            return self._consequence(result, bounds)
        finally:
            permit.close()

    def hear(self, event: AgentEvent) -> None:
        """While the tool runs: the first word of the model says that a limit is over, and others need not wait."""
        if isinstance(event, Text | Tool) and self.permit is not None and self.permit.tries:
            if self.limits.answered(self._limiter, self.clock.wall()):
                Bell(self.layout.bell("coordinator")).ring()
            self.permit.close()

    @property
    def _credential(self) -> Credential | None:
        return self.config.credential_of(self.agent)

    @property
    def _limiter(self) -> str:
        return limiter_of(self.config, self.agent)

    def _tell(self, result: AgentResult, k: int) -> None:
        usage = result.usage
        used: dict[str, Any] = {}
        if usage is not None:
            used = {
                "cost_usd": usage.cost_usd,
                "tokens_in": usage.tokens_in,
                "tokens_out": usage.tokens_out,
                "estimated": usage.estimated or None,
            }
        self.say(
            Event.AGENT_FINISHED,
            round=k,
            agent=self.agent,
            outcome=name_of(result.outcome).value,
            seconds=round(result.duration_s, 3),
            **used,
        )
        if result.survivors:
            self.say(Event.SURVIVORS_KILLED, number=result.survivors)

    def _learn(self, result: AgentResult) -> None:
        """What it says of its credential. Raises Broken."""
        limit = self.limits.met(
            self._limiter,
            result.outcome,
            started_at=result.started_at,
            by=self.mark,
            agent=self.agent,
            credential=self._credential,
        )
        self.check()
        if limit is not None:
            self.say(
                Event.LIMIT_MET,
                credential=limit.credential,
                kind=limit.kind.value,
                until=limit.until or None,
                agent=self.agent,
            )
        elif isinstance(result.outcome, Ok):
            self.limits.answered(self._limiter, result.started_at)

    def _consequence(self, result: AgentResult, bounds: Bounds) -> Result | None:
        match consequence(result.outcome):
            case CostsAttempt(reason=reason):
                if result.not_started:
                    return given_back(reason, self.clock, ours=False)
                if isinstance(result.outcome, Budget) and bounds.shared and not self.wallet.used_up():
                    return self._unpaid(self.wallet.short() or reason)  # others have spent it too
                return failed(reason)
            case Released(reason=reason):
                waits = "stop" if isinstance(result.outcome, Interrupted) else "limit"
                return Result(outcome=Outcome.RELEASED, reason=reason, waits=waits)
            case GoOn():
                return None

    def _waits(self, limit: Blocked) -> Result:
        """Another was quicker, and has met the limit or tries whether it is over."""
        moment = None if limit.until is not None else self.clock.wall() + TRIED_S
        return Result(outcome=Outcome.RELEASED, reason=f"waits for {limit}", not_before=moment, waits="limit")

    def _unpaid(self, short: OverBudget | str) -> Result:
        """Another was quicker. The hint comes again when there is room, not before the coordinator has seen this."""
        moment = self.clock.wall() + TRIED_S
        return Result(
            outcome=Outcome.RELEASED, reason=f"waits for {short}", not_before=moment, waits="budget"
        )
