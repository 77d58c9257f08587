"""What the answers of services mean: one table of statuses and one of words."""

from __future__ import annotations

import pytest

from harness.agents.outcomes import AgentOutcome, Crash, Overloaded, RateLimit, UsageLimit
from harness.agents.statuses import LONGEST_S, Failure, by_status, moment_in, shown, status_in
from harness.config import OutcomeName

NOW = 1_767_312_200.0


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (200, None),
        (302, None),
        (400, OutcomeName.BAD_REQUEST),
        (401, OutcomeName.AUTH),
        (402, OutcomeName.BILLING),
        (403, OutcomeName.AUTH),
        (404, OutcomeName.BAD_REQUEST),
        (408, OutcomeName.OVERLOADED),
        (413, OutcomeName.BAD_REQUEST),
        (422, OutcomeName.BAD_REQUEST),
        (429, OutcomeName.RATE_LIMIT),
        (500, OutcomeName.OVERLOADED),
        (503, OutcomeName.OVERLOADED),
        (529, OutcomeName.OVERLOADED),
        (600, None),
        (10**30, None),
        (-1, None),
    ],
)
def test_each_status_has_one_class(status: int, name: OutcomeName | None) -> None:
    assert by_status(status) == name


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("unexpected status 401 Unauthorized: x", 401),
        ("exceeded retry limit, last status: 429 Too Many Requests", 429),
        ('{"error":{"code":503,"message":"Overloaded"}}', 503),
        ('{"code": 404}', 404),
        ("HTTP 502", 502),
        ("HTTP/1.1 503 Service Unavailable", 503),
        ("Status: 400", 400),
        ("status code 529", 529),
        ("request 429-503-401 to http://127.0.0.1:4010/", None),
        ("status 4290", None),
    ],
)
def test_a_status_is_found_only_where_it_is_named(text: str, status: int | None) -> None:
    assert status_in(text) == status


@pytest.mark.parametrize(
    ("text", "after_s"),
    [
        ("Please retry in 34.074824224s.", 34.074824224),
        ("try again in 250ms", 0.25),
        ("Try again in 6m0s.", 360.0),
        ("Your quota will reset after 23h59m56s.", 86_396.0),
        ("Suggested retry after 60s.. Retrying after 62000ms...", 60.0),
        ("Retrying after 21599ms...", 21.599),
        ("try again in 5 days 4 hours, 3 minutes", 5 * 86_400 + 4 * 3600 + 180.0),
        ("try again in 1 hour", 3600.0),
        ("try again in a moment", None),
        ("retry after lunch", None),
        ("try again in 12", None),
        ("in 12s", None),
    ],
)
def test_how_long_to_wait_is_read_from_words(text: str, after_s: float | None) -> None:
    found = moment_in(text, NOW)
    assert found == (None if after_s is None else pytest.approx(NOW + after_s))


def test_words_that_are_more_exact_win_over_the_status() -> None:
    unpaid = Failure(text='{"code":"insufficient_quota"}', status=429).judged(NOW)
    assert type(unpaid).__name__ == "Billing"
    key = Failure(text="API key not valid. Please pass a valid API key.", status=400).judged(NOW)
    assert type(key).__name__ == "Auth"


def test_a_status_wins_over_words_that_say_little() -> None:
    assert Failure(text="connection was refused by policy", status=429).judged(NOW) == RateLimit(
        detail="connection was refused by policy"
    )


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (Failure(text="a", status=429, delay_s=5.0), RateLimit(resume_at=NOW + 5, detail="a")),
        (Failure(text="a", status=429, delay_s=0.0), RateLimit(detail="a")),
        (Failure(text="a", status=429, at=NOW - 1), RateLimit(detail="a")),
        (Failure(text="a", status=429, at=NOW + 1, delay_s=9.0), RateLimit(resume_at=NOW + 1, detail="a")),
        (Failure(text="a", status=429, at=float("nan")), RateLimit(detail="a")),
        (Failure(text="a", status=429, delay_s=1e300), RateLimit(resume_at=NOW + LONGEST_S, detail="a")),
        (
            Failure(text="a", status=429, name=OutcomeName.USAGE_LIMIT, at=NOW + 7),
            UsageLimit(resets_at=NOW + 7, detail="a"),
        ),
        (Failure(text="retry in 5s", status=503), Overloaded(detail="retry in 5s")),
        (Failure(text="a", name=OutcomeName.CRASH), Crash(detail="a")),
        (Failure(text="a"), None),
        (Failure(text=""), None),
    ],
)
def test_a_failure_is_judged_with_its_moment(failure: Failure, outcome: AgentOutcome | None) -> None:
    assert failure.judged(NOW) == outcome


def test_what_is_shown_is_short_and_can_be_written() -> None:
    assert shown("  a\ud800b ") == "a?b"
    assert len(shown("x" * 1000)) == 500


def test_an_endless_text_is_searched_in_good_time() -> None:
    text = "try again in " + "1" * 4000 + " retry in " + "1h" * 900 + " " + "status " * 100
    assert Failure(text=text).judged(NOW) is None
