"""How often and how soon: the arithmetic of beats and of backoff. Pure, and small: every worker loads it before it claims."""

from __future__ import annotations

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 60.0
IDLE_BEAT_S = 2.0
"""An idle process of ours wakes to beat no more often."""
IDLE_BEATS = 4
"""It is suspected when so many beats did not come."""


def idle_beat_s(hang_s: float) -> float:
    """An idle process of ours beats at least so often."""
    return max(IDLE_BEAT_S, hang_s / IDLE_BEATS)


def limit_s(hang_s: float, busy: bool) -> float:
    """How long a process may be quiet: hang_s while it works, else what its rare beats allow (8 s and more)."""
    return hang_s if busy else idle_beat_s(hang_s) * IDLE_BEATS


def backoff_s(quick_deaths: int) -> float:
    """0 after the first quick death, then doubling from FIRST_BACKOFF_S to MAX_BACKOFF_S."""
    if quick_deaths <= 1:
        return 0.0
    return float(min(FIRST_BACKOFF_S * 2 ** min(quick_deaths - 2, 30), MAX_BACKOFF_S))


def retry_delay_s(spent: int, first_s: float, max_s: float) -> float:
    """Backoff before the next attempt of an item: doubles with every attempt spent, from first_s up to max_s."""
    if spent <= 0:
        return 0.0
    return float(min(first_s * 2 ** min(spent - 1, 30), max_s))
