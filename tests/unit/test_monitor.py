"""Health: findings from snapshots, backoff, and the memory of what has not changed. No clock, no process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.monitor import (
    EXIT_CONFIG,
    HEALTHY_S,
    LOOK_S,
    Bury,
    Death,
    Finding,
    HangWatch,
    Hung,
    Quiet,
    Retire,
    SlotView,
    Start,
    diagnose,
)
from harness.pace import (
    FIRST_BACKOFF_S,
    IDLE_BEAT_S,
    MAX_BACKOFF_S,
    backoff_s,
    idle_beat_s,
    limit_s,
    retry_delay_s,
)

LIMIT_S = 120.0
NOW = 1000.0


def slot(**fields: object) -> SlotView:
    return SlotView(**{"name": "agent-1", "wanted": True, "alive": False, **fields})  # type: ignore[arg-type]


def found(view: SlotView, now: float = NOW) -> Finding | None:
    findings = diagnose([view], now)
    assert len(findings) <= 1
    return findings[0] if findings else None


# ---- starting and retiring -------------------------------------------------------------------------------------------


def test_an_empty_slot_that_is_wanted_is_started() -> None:
    assert found(slot()) == Start(slot="agent-1")


def test_an_empty_slot_that_is_not_wanted_stays_empty() -> None:
    assert found(slot(wanted=False)) is None


def test_a_slot_in_backoff_waits_for_its_time() -> None:
    assert found(slot(next_start=NOW + 0.1)) is None
    assert found(slot(next_start=NOW)) == Start(slot="agent-1")


def test_a_slot_that_refused_the_configuration_is_not_started_again() -> None:
    assert found(slot(refused=True)) is None


def test_a_living_worker_that_is_wanted_is_left_alone() -> None:
    assert found(slot(alive=True)) is None


def test_a_living_worker_that_is_not_wanted_is_retired() -> None:
    assert found(slot(alive=True, wanted=False)) == Retire(slot="agent-1")


# ---- hangs -----------------------------------------------------------------------------------------------------------


def quiet(silent_s: float, inactive_s: float | None) -> Quiet:
    return Quiet(silent_s=silent_s, inactive_s=inactive_s, limit_s=LIMIT_S)


def test_a_worker_that_is_silent_and_inactive_is_hung() -> None:
    view = slot(alive=True, quiet=quiet(121.0, 61.0))
    assert found(view) == Hung(slot="agent-1", silent_s=121.0)


@pytest.mark.parametrize(
    ("silent_s", "inactive_s"), [(1e9, 60.0), (120.0, 1e9)], ids=["it computes", "it beats"]
)
def test_silence_or_inactivity_alone_is_no_hang(silent_s: float, inactive_s: float) -> None:
    assert found(slot(alive=True, quiet=quiet(silent_s, inactive_s))) is None


def test_who_cannot_be_seen_is_judged_by_silence_alone() -> None:
    assert quiet(121.0, None).hung
    assert not quiet(120.0, None).hung


def test_a_hung_worker_is_killed_even_when_it_is_to_be_retired() -> None:
    view = slot(alive=True, wanted=False, quiet=quiet(500.0, 500.0))
    assert isinstance(found(view), Hung)


@pytest.mark.parametrize("hang_s", [0.5, 8.0, 120.0, 3600.0])
def test_an_idle_process_is_suspected_only_after_several_beats_that_it_may_take_its_time_for(
    hang_s: float,
) -> None:
    assert idle_beat_s(hang_s) >= IDLE_BEAT_S
    assert limit_s(hang_s, busy=False) >= max(4 * idle_beat_s(hang_s), hang_s)
    assert limit_s(hang_s, busy=True) == hang_s


# ---- deaths ----------------------------------------------------------------------------------------------------------


def test_a_death_is_buried_before_anything_is_started() -> None:
    assert found(slot(death=Death(lived_s=60.0))) == Bury(slot="agent-1", delay_s=0.0, quick_deaths=0)


def test_a_worker_that_died_of_its_start_backs_off_more_each_time() -> None:
    view = found(slot(death=Death(lived_s=0.1, exit_code=1), quick_deaths=2))
    assert view == Bury(slot="agent-1", delay_s=FIRST_BACKOFF_S * 2, quick_deaths=3)


def test_the_first_quick_death_costs_no_time() -> None:
    assert found(slot(death=Death(lived_s=0.1))) == Bury(slot="agent-1", delay_s=0.0, quick_deaths=1)


@pytest.mark.parametrize("death", [Death(lived_s=HEALTHY_S), Death(lived_s=0.1, attempts=1)])
def test_a_worker_that_did_something_is_forgiven(death: Death) -> None:
    assert found(slot(death=death, quick_deaths=7)) == Bury(slot="agent-1", delay_s=0.0, quick_deaths=0)


def test_a_worker_that_cannot_use_its_configuration_is_buried_as_refused() -> None:
    death = Death(lived_s=0.1, exit_code=EXIT_CONFIG)
    view = found(slot(death=death, quick_deaths=2))
    assert view == Bury(slot="agent-1", delay_s=0.0, quick_deaths=2, refused=True)


# ---- laws ------------------------------------------------------------------------------------------------------------

SECONDS = st.floats(min_value=0, max_value=1e6)
DEATHS = st.builds(
    Death, lived_s=SECONDS, attempts=st.integers(0, 3), exit_code=st.none() | st.integers(0, 255)
)
VIEWS = st.builds(
    SlotView,
    name=st.sampled_from([f"agent-{k}" for k in range(9)]),
    wanted=st.booleans(),
    alive=st.booleans(),
    quiet=st.builds(Quiet, silent_s=SECONDS, inactive_s=st.none() | SECONDS, limit_s=SECONDS),
    death=st.none() | DEATHS,
    quick_deaths=st.integers(0, 1000),
    next_start=SECONDS,
    refused=st.booleans(),
)


@given(st.lists(VIEWS, unique_by=lambda v: v.name), SECONDS)
def test_no_snapshot_leads_to_a_finding_that_contradicts_it(views: list[SlotView], now: float) -> None:
    findings = diagnose(views, now)
    seen = {v.name: v for v in views}
    assert len({f.slot for f in findings}) == len(findings)
    for finding in findings:
        view = seen[finding.slot]
        match finding:
            case Start():
                assert not view.alive
                assert view.death is None
                assert view.wanted
                assert not view.refused
                assert now >= view.next_start
            case Hung():
                assert view.alive
                assert view.quiet.silent_s > view.quiet.limit_s
            case Retire():
                assert view.alive
                assert not view.wanted
            case Bury():
                assert not view.alive
                assert view.death is not None
                assert 0 <= finding.delay_s <= MAX_BACKOFF_S


@given(VIEWS, SECONDS)
def test_a_wanted_slot_is_never_forgotten(view: SlotView, now: float) -> None:
    """Whatever is not alive and is wanted gets a finding now, or has a reason that ends by itself or with a new config."""
    if view.wanted and not view.alive and found(view, now) is None:
        assert view.refused or view.next_start > now


# ---- delays ----------------------------------------------------------------------------------------------------------


def test_backoff_doubles_from_the_second_quick_death_to_a_ceiling() -> None:
    assert [backoff_s(k) for k in range(6)] == [0.0, 0.0, 0.5, 1.0, 2.0, 4.0]
    assert backoff_s(1000) == MAX_BACKOFF_S


def test_a_retry_waits_twice_as_long_after_each_attempt_spent_up_to_the_maximum() -> None:
    assert [retry_delay_s(k, 10.0, 45.0) for k in range(5)] == [0.0, 10.0, 20.0, 40.0, 45.0]
    assert retry_delay_s(10**6, 10.0, 300.0) == 300.0
    assert retry_delay_s(3, 0.0, 300.0) == 0.0


# ---- what has not changed --------------------------------------------------------------------------------------------


def silence(watch: HangWatch, key: str, token: object, now: float) -> float:
    return watch.quiet(key, token, now, LIMIT_S, None).silent_s


def test_a_token_is_timed_from_when_it_was_first_seen() -> None:
    watch = HangWatch()
    assert silence(watch, "a", 1, 10.0) == 0.0
    assert silence(watch, "a", 1, 15.0) == 5.0
    assert silence(watch, "a", 2, 16.0) == 0.0
    assert silence(watch, "a", 2, 17.0) == 1.0


def test_a_token_that_comes_back_is_new_because_something_moved() -> None:
    watch = HangWatch()
    silence(watch, "a", 1, 0.0)
    silence(watch, "a", 2, 50.0)
    assert silence(watch, "a", 1, 60.0) == 0.0


def test_what_nobody_looked_at_was_not_silent() -> None:
    """A suspended machine, or a coordinator that was stopped: at wake-up every heartbeat looks hours old."""
    watch = HangWatch()
    silence(watch, "a", 1, 0.0)
    assert silence(watch, "a", 1, 8 * 3600.0) == LOOK_S
    assert silence(watch, "a", 1, 8 * 3600.0 + 2) == LOOK_S + 2


def test_what_nobody_looked_at_was_not_inactive() -> None:
    watch = HangWatch()
    for now in range(80):
        watch.quiet("a", 1, float(now), LIMIT_S, lambda: 7.0)
    late = watch.quiet("a", 1, 8 * 3600.0, LIMIT_S, lambda: 7.0)
    assert late.inactive_s is not None
    assert late.inactive_s <= 20 + LOOK_S
    assert not late.hung


def test_what_is_forgotten_begins_anew() -> None:
    watch = HangWatch()
    silence(watch, "a", 1, 0.0)
    watch.forget("a")
    watch.forget("never seen")
    assert silence(watch, "a", 1, 100.0) == 0.0


def test_only_keys_with_the_prefix_that_are_not_kept_are_forgotten() -> None:
    watch = HangWatch()
    for key in ("claim:a", "claim:b", "worker:a"):
        silence(watch, key, 1, 0.0)
    watch.keep_only("claim:", {"claim:a"})
    assert [silence(watch, key, 1, 9.0) for key in ("claim:a", "claim:b", "worker:a")] == [9.0, 0.0, 9.0]


def hung_after(share: float, *, step_s: float = 2.0, until_s: float = 20 * LIMIT_S) -> float | None:
    """When a tree that uses this share of a core is suspected, looked at every `step_s`."""
    watch, now = HangWatch(), 0.0
    while now < until_s:
        ticks = int(now * share * 100) / 100  # as the kernel counts
        if watch.quiet("a", 1, now, LIMIT_S, lambda used=ticks: used).hung:  # type: ignore[misc]
            return now
        now += step_s
    return None


@pytest.mark.parametrize("step_s", [0.05, 2.0, 29.0])
def test_a_tree_that_works_is_never_suspected_and_one_that_only_turns_over_is(step_s: float) -> None:
    """An agent's idle event loop uses a little of a core for ever; its worker is stopped all the same."""
    assert hung_after(0.02, step_s=step_s) is None
    for share in (0.0, 0.003):
        late = hung_after(share, step_s=step_s)
        assert late is not None
        assert LIMIT_S < late <= 1.5 * LIMIT_S + 2 * step_s


def test_all_of_proc_is_read_only_now_and_then() -> None:
    looks: list[float] = []
    watch = HangWatch()

    def used() -> float:
        looks.append(0.0)
        return 1.0

    for k in range(10_000):
        watch.quiet("a", 1, k * LIMIT_S / 10_000, LIMIT_S, used)
    assert 5 < len(looks) < 15
