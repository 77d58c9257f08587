"""How a run ended when something was done to it: the same for every tool."""

from __future__ import annotations

from typing import assert_never

from harness.agents.outcomes import AgentOutcome, Crash, Interrupted, Stalled, TimedOut
from harness.runner import Ended, EndReason


def imposed(ended: Ended, max_output_mb: int) -> AgentOutcome | None:
    """None: it ended by itself. What the tool said before may hold instead; its adapter knows."""
    match ended.reason:
        case EndReason.STOPPED:
            return Interrupted(why=ended.stop_reason or "")
        case EndReason.TIMED_OUT:
            return TimedOut(after_s=round(ended.duration_s, 1))
        case EndReason.STALLED:
            return Stalled(detail=f"no output and no CPU time, stopped after {ended.duration_s:.0f} s")
        case EndReason.TOO_MUCH_OUTPUT:
            return Crash(detail=f"wrote more than {max_output_mb} MiB (agent.max_output_mb)")
        case EndReason.NOT_STARTED:
            return Crash(detail=f"could not be started: {ended.error or 'unknown reason'}")
        case EndReason.EXITED:
            return None
        case _:
            assert_never(ended.reason)
