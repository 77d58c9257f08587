"""What the answer of a service means: its status, its words, how long it says to wait.

Only a tool's own error messages are read here, never what a model says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta

from harness.agents.outcomes import AgentOutcome, named
from harness.config import OutcomeName
from harness.dataclass import dataclass

TEXT_CHARS = 4096
"""Of an error message, read and kept."""
SHOWN_CHARS = 500
LONGEST_S = 366 * 86_400.0
JUST_PASSED_S = 3600.0
"""A moment "today" that passed so recently is over, or the clocks differ; one that passed earlier means tomorrow."""

_STATUS = re.compile(r"""(?i)(?:\bstatus(?: code)?|\bHTTP(?:/[\d.]{1,3})?|"code"):? ?([1-5]\d\d)\b""")
_SPECIFIC = {
    OutcomeName.USAGE_LIMIT: (
        "usage.?limit",
        "daily.(?:quota|limit)",
        "quota will reset",
        "exhausted your capacity",
        "quota_exhausted",
        "free.?usage",
    ),
    OutcomeName.BILLING: (
        "insufficient.(?:quota|credit|fund|balance|g1)",
        r"quota exceeded\. check your plan",
        "out of credits",
        "spend cap",
        "credit balance",
        "payment required",
        "with your chatgpt plan, upgrade",
    ),
    OutcomeName.REFUSAL: ("content.?filter", "content.?policy", "prohibited_content", "blocked by safety"),
    OutcomeName.BAD_REQUEST: (
        "context.?(?:window|length)",
        "maximum context",
        "(?:prompt|input) is too long",
        "model.?not.?found",
        "unknown model",
        "model .{1,80}does not exist",
    ),
    OutcomeName.AUTH: (
        "(?:invalid|incorrect|missing|expired) (?:x-)?api.?key",
        "api.?key (?:not valid|not found|is missing|expired)",
        "api_key_invalid",
        "unauthenticated",
        "missing environment variable",
        "token could not be refreshed",
        "(?:log|sign) ?in again",
        "not logged in",
        "login required",
        "set an auth method",
        "authentication (?:failed|required)",
    ),
}
"""Words that say more than a status does: a 429 may be an unpaid bill, a 400 a wrong key."""
_GENERAL = {
    OutcomeName.RATE_LIMIT: (
        "rate.?limit",
        "too.many.requests",
        "resource.?(?:has been )?exhausted",
        "exceeded your current quota",
    ),
    OutcomeName.OVERLOADED: (
        "overloaded",
        r"\b5xx\b",
        "at capacity",
        "high demand",
        "unavailable",
        "reconnecting",
        "stream (?:disconnected|error|closed)",
        "time[ds]?.?out",
        "connection",
        "econn|etimedout|enotfound|eai_again",
        "fetch failed|network|socket|terminated",
        "reading the server response",
        "internal (?:server )?error",
        "json parsing failed|in json at position|unterminated string|unexpected end of",
    ),
}
_Words = tuple[tuple[OutcomeName, re.Pattern[str]], ...]


def _compiled(table: Mapping[OutcomeName, tuple[str, ...]]) -> _Words:
    """One by one and for lower case: each is then found by its first letters, which is much faster than all in one."""
    return tuple((name, re.compile(word)) for name, words in table.items() for word in words)


_BEFORE_STATUS, _AFTER_STATUS = _compiled(_SPECIFIC), _compiled(_GENERAL)
_DELAY = re.compile(
    r"(?i)\b(?:retry|try again|reset)(?:ing|s)?(?: in| after):? "
    r"((?:\d{1,9}(?:\.\d{1,18})? ?(?:ms|milliseconds?|s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?)\b[ ,]{0,2}"
    r"|\d{1,9}[dhm](?=\d))+)"
)
_PART = re.compile(r"(?i)(\d+(?:\.\d+)?) ?(ms|milli|[smhd])")
_UNIT_S = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_CLOCK = re.compile(
    r"(?i)\btry again at (?:([a-z]{3})[a-z]* (\d{1,2})(?:st|nd|rd|th)?, (\d{4}),? )?(\d{1,2}):(\d{2}) ?([ap])m\b"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The last thing that went wrong, in a tool's words."""

    text: str
    status: int | None = None
    """Of HTTP. None: perhaps the text says it."""
    name: OutcomeName | None = None
    """What it is, when the tool says so itself."""
    delay_s: float | None = None
    """How long it is to be waited, when that is told beside the text."""
    at: float | None = None
    """The same as a moment of wall time."""

    def judged(self, now: float) -> AgentOutcome | None:
        """None: nothing that is known."""
        name = self.name or _name_of(self.text, self.status)
        return None if name is None else named(name, detail=shown(self.text), until=self._until(now))

    def _until(self, now: float) -> float | None:
        until = self.at
        if until is None and self.delay_s is not None:
            until = now + max(self.delay_s, 0.0)
        if until is None:
            until = moment_in(self.text, now)
        # A moment that has passed is as if nothing were told: the limit still held when this was said.
        return None if until is None or not until > now else min(until, now + LONGEST_S)


def _name_of(text: str, status: int | None) -> OutcomeName | None:
    name = _by_words(_BEFORE_STATUS, text)
    if name is not None:
        return name
    status = status_in(text) if status is None else status
    return by_status(status) if status is not None else _by_words(_AFTER_STATUS, text)


def _by_words(table: _Words, text: str) -> OutcomeName | None:
    lower = text.lower()
    return next((name for name, word in table if word.search(lower)), None)


def by_status(status: int) -> OutcomeName | None:
    """What an HTTP status says by itself; None: it is no error."""
    match status:
        case 401 | 403 | 407:
            return OutcomeName.AUTH
        case 402:
            return OutcomeName.BILLING
        case 429:
            return OutcomeName.RATE_LIMIT
        case 408 | 409 | 425 | 499:
            return OutcomeName.OVERLOADED
        case _ if 400 <= status < 500:
            return OutcomeName.BAD_REQUEST
        case _ if 500 <= status < 600:
            return OutcomeName.OVERLOADED
        case _:
            return None


def status_in(text: str) -> int | None:
    """The HTTP status that an error message names: ``unexpected status 401 …``, ``"code": 503``."""
    found = _STATUS.search(text)
    return int(found[1]) if found else None


def moment_in(text: str, now: float) -> float | None:
    """Wall time at which it can go on: ``try again in 11.05s``, ``reset after 23h59m56s``, ``try again at 2:03 AM``."""
    found = _DELAY.search(text)
    if found:
        return now + sum(float(n) * _UNIT_S[unit.lower()] for n, unit in _PART.findall(found[1]))
    clock = _CLOCK.search(text)
    return _at_clock(clock, now) if clock else None


def _at_clock(found: re.Match[str], now: float) -> float | None:
    """A time of day in local time, as the tool prints it: the minute's end, because it drops the seconds."""
    month, day, year, hour, minute, half = found.groups()
    try:
        moment = datetime.fromtimestamp(now).replace(second=0, microsecond=0)  # noqa: DTZ006 - local, as printed
        hours = int(hour) % 12 + (12 if half.lower() == "p" else 0)
        if int(hour) > 12:
            return None
        moment = moment.replace(hour=hours, minute=int(minute))
        if month is not None:
            number = _MONTHS.index(month.lower()) + 1
            return moment.replace(year=int(year), month=number, day=int(day)).timestamp() + 60.0
        if moment.timestamp() + 60.0 > now:
            return moment.timestamp() + 60.0
        if now - moment.timestamp() < JUST_PASSED_S:
            return None
        return (moment + timedelta(days=1)).timestamp() + 60.0
    except (ValueError, OverflowError, OSError):
        return None


def shown(text: str) -> str:
    """As the detail of an outcome: short, and no lone surrogates, which no file takes."""
    return text[:SHOWN_CHARS].strip().encode("utf-8", "replace").decode()
