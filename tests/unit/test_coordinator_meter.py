"""The figures of status, from events."""

from __future__ import annotations

from harness.coordinator.meter import Meter
from harness.events import EventStream
from harness.layout import Layout
from harness.logs import Event
from tests.support import FakeClock


def test_figures_are_counted_from_the_stream_over_the_last_hour(layout: Layout, clock: FakeClock) -> None:
    events = EventStream(layout, clock, "test")
    events.emit(Event.ITEM_FINISHED, uid="old", outcome="merged")
    meter = Meter(layout)
    meter.start()
    for uid, outcome in (("a", "done"), ("b", "failed")):
        events.emit(Event.ITEM_CLAIMED, uid=uid, n=1)
        clock.advance(10)
        events.emit(Event.ATTEMPT_ENDED, uid=uid, n=1, outcome=outcome)
    events.emit(Event.ITEM_FINISHED, uid="a", outcome="done")
    events.emit(Event.ATTEMPT_EXPIRED, uid="c", n=1, outcome="expired")
    meter.update()
    meter.update()  # nothing is counted twice
    values = meter.values(clock.wall())
    assert values == {
        "throughput_per_hour": 1.0,
        "success_rate": round(1 / 3, 4),
        "average_seconds": 10.0,
        "attempts": 3.0,
        "expired": 1.0,
        "limit_rate": 0.0,
    }
    clock.advance(4000)
    assert meter.values(clock.wall())["throughput_per_hour"] == 0.0
    assert not meter.claimed


def test_a_returned_result_is_no_success_and_a_cancelled_item_no_throughput(
    layout: Layout, clock: FakeClock
) -> None:
    events = EventStream(layout, clock, "test")
    meter = Meter(layout)
    meter.start()
    events.emit(Event.ITEM_CLAIMED, uid="a", n=1)
    events.emit(Event.ITEM_SUBMITTED, uid="a", n=1, outcome="done", sha="f" * 40)
    events.emit(Event.ITEM_RETURNED, uid="a", n=1, returned="conflict")
    events.emit(Event.ITEM_FINISHED, uid="a", outcome="cancelled")
    meter.update()
    values = meter.values(clock.wall())
    assert values["success_rate"] == 0.0
    assert values["throughput_per_hour"] == 0.0


def test_the_part_of_attempts_that_ended_by_a_limit_is_told_for_the_last_hour(
    layout: Layout, clock: FakeClock
) -> None:
    events = EventStream(layout, clock, "test")
    meter = Meter(layout)
    meter.start()
    for uid in "abcd":
        events.emit(Event.ITEM_CLAIMED, uid=uid, n=1)
    events.emit(Event.LIMIT_MET, uid="a", n=1, credential="team")
    events.emit(Event.LIMIT_MET, uid="d", n=1, credential="team")
    events.emit(Event.ATTEMPT_ENDED, uid="a", n=1, outcome="released")
    events.emit(Event.ATTEMPT_ENDED, uid="b", n=1, outcome="failed")
    events.emit(Event.ITEM_SUBMITTED, uid="c", n=1, outcome="done", sha="f" * 40)
    events.emit(Event.ITEM_FINISHED, uid="c", outcome="merged")
    meter.update()
    assert meter.values(clock.wall())["limit_rate"] == 0.3333
    clock.advance(4000)
    assert meter.values(clock.wall())["limit_rate"] == 0.0
    events.emit(Event.ATTEMPT_ENDED, uid="d", n=1, outcome="released")
    meter.update()
    assert meter.values(clock.wall())["limit_rate"] == 1.0
    assert not meter.limited
