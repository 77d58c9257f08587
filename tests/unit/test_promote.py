"""Which items get a hint: order, ageing, boosts, overlap, pauses, and the length of chains."""

from __future__ import annotations

import random
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from harness.budgets import Amount, Ask, Funds, Room
from harness.globs import matches
from harness.promote import AGEING_S, Busy, Limited, Ready, Wish, band_of, chains, decide, overlap, wishes

NOW = 100_000.0


def ready(uid: str, **fields: object) -> Ready:
    return Ready(**{"uid": uid, "project": "app", "priority": 5, "since": NOW, **fields})  # type: ignore[arg-type]


def wished(
    *items: Ready, busy: tuple[Busy, ...] = (), now: float = NOW, **more: object
) -> Mapping[str, Wish]:
    boosts: dict[str, int] = more.get("boosts", {})  # type: ignore[assignment]
    paused: frozenset[str] = more.get("paused", frozenset())  # type: ignore[assignment]
    return wishes(items, busy, boosts, paused, now)


def funds(left: float, **asks: float) -> Funds:
    """One budget of which so many USD are left, and what each item asks for."""
    room = Room(name="day", usd=10.0, tokens=None, spent=Amount(usd=10.0 - left))
    named = {uid: Ask(budgets=("day",), amount=Amount(usd=usd)) for uid, usd in asks.items()}
    return Funds(rooms={"day": room}, asks=named)


# ---- bands -----------------------------------------------------------------------------------------------------------


def test_an_items_priority_is_its_band() -> None:
    assert {u: w.band for u, w in wished(ready("a", priority=0), ready("b", priority=9)).items()} == {
        "a": 0,
        "b": 9,
    }


def test_a_boost_replaces_the_priority_in_both_directions() -> None:
    found = wished(ready("a", priority=8), ready("b", priority=1), boosts={"a": 0, "b": 9})
    assert (found["a"].band, found["b"].band) == (0, 9)


def test_an_item_moves_one_band_forward_for_each_hour_it_waits() -> None:
    item = ready("a", priority=5)
    assert [band_of(item, {}, NOW + k * AGEING_S) for k in (0, 0.99, 1, 3, 5, 50)] == [5, 5, 4, 2, 0, 0]


def test_a_clock_before_the_first_sight_ages_nobody() -> None:
    assert band_of(ready("a", since=NOW + 9999), {}, NOW) == 5


# ---- who waits -------------------------------------------------------------------------------------------------------


def test_an_item_in_backoff_has_no_hint_before_its_time() -> None:
    item = ready("a", not_before=NOW + 1)
    assert wished(item) == {}
    assert wished(item, now=NOW + 1).keys() == {"a"}


def test_items_of_a_paused_project_have_no_hint_and_others_do() -> None:
    assert wished(ready("a"), ready("b", project="web"), paused=frozenset({"app"})).keys() == {"b"}


def test_of_two_items_with_overlapping_files_the_first_in_order_is_hinted() -> None:
    late = ready("late", files=("src/**",), since=NOW - 1)
    long = ready("long", files=("src/a.py",), chain=3)
    urgent = ready("urgent", files=("src/b/**",), priority=2)
    assert wished(late, long).keys() == {"long"}
    assert wished(late, long, urgent).keys() == {"long", "urgent"}


def test_an_item_waits_while_what_overlaps_with_it_runs() -> None:
    item = ready("a", files=("src/a/**",))
    assert wished(item, busy=(Busy(uid="b", project="app", files=("src/**",)),)) == {}
    assert wished(item, busy=(Busy(uid="b", project="web", files=("src/**",)),)).keys() == {"a"}
    assert wished(item, busy=(Busy(uid="b", project="app"),)).keys() == {"a"}


def test_a_withheld_item_does_not_withhold_others() -> None:
    first = ready("first", priority=0, files=("src/**",), not_before=NOW + 99)
    assert wished(first, ready("second", files=("src/**",))).keys() == {"second"}


# ---- laws ------------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "src", "*.py", "**", "a*", "?", "[x]"])
GLOBS = st.lists(NAMES, min_size=1, max_size=4).map("/".join) | st.sampled_from(["src/", "./a", "a//b"])
FILES = st.lists(GLOBS, max_size=3).map(tuple)
ITEMS = st.lists(
    st.builds(
        Ready,
        uid=st.uuids().map(str),
        project=st.sampled_from(["app", "web"]),
        priority=st.integers(0, 9),
        since=st.floats(0, NOW),
        not_before=st.sampled_from([0.0, NOW - 1, NOW + 1]),
        chain=st.integers(0, 5),
        files=FILES,
    ),
    max_size=12,
)
RUNNING = st.lists(
    st.builds(Busy, uid=st.uuids().map(str), project=st.sampled_from(["app", "web"]), files=FILES)
)


@given(ITEMS, RUNNING, st.data())
def test_what_is_hinted_overlaps_with_nothing_and_what_is_not_has_a_reason(
    items: list[Ready], running: list[Busy], data: st.DataObject
) -> None:
    boosts = data.draw(st.dictionaries(st.sampled_from([i.uid for i in items] or ["x"]), st.integers(0, 9)))
    found = wishes(items, running, boosts, frozenset(), NOW)
    hinted = [i for i in items if i.uid in found]
    others: list[Ready | Busy] = [*hinted, *running]
    for k, one in enumerate(hinted):
        assert found[one.uid] == Wish(band=band_of(one, boosts, NOW), chain=one.chain)
        assert one.not_before <= NOW
        for other in others[k + 1 :]:
            assert one.project != other.project or not overlap(one.files, other.files)
    for item in items:
        if item.uid not in found and item.not_before <= NOW:
            assert any(o.project == item.project and overlap(item.files, o.files) for o in others)


@given(ITEMS, RUNNING)
def test_the_order_in_which_items_are_given_decides_nothing(items: list[Ready], running: list[Busy]) -> None:
    shuffled = random.Random(1).sample(items, len(items))
    assert wishes(items, running, {}, frozenset(), NOW) == wishes(shuffled, running, {}, frozenset(), NOW)


@given(st.integers(0, 9), st.integers(0, 9), st.floats(0, 1e7))
def test_nobody_starves_behind_newer_items(priority: int, other: int, later: float) -> None:
    """After at most ten hours everybody is in the first band, in which the older comes first."""
    old = ready("old", priority=priority, since=0.0)
    now = 10 * AGEING_S + later
    new = ready("new", priority=other, since=now)
    assert band_of(old, {}, now) == 0
    assert band_of(old, {}, now) <= band_of(new, {}, now)


@given(
    GLOBS,
    GLOBS,
    st.lists(st.sampled_from(["a", "b", "src", "x.py", "ab"]), min_size=1, max_size=4).map("/".join),
)
def test_globs_that_match_the_same_path_overlap(one: str, two: str, path: str) -> None:
    if matches(path, one) and matches(path, two):
        assert overlap((one,), (two,))
        assert overlap((two,), (one,))


def test_globs_in_different_folders_do_not_overlap() -> None:
    assert not overlap(("src/a/**", "docs/*"), ("src/b/**", "src/ab"))
    assert not overlap((), ("**",))


# ---- chains ----------------------------------------------------------------------------------------------------------


def naive(dependants: dict[str, list[str]], uid: str) -> int:
    return max((1 + naive(dependants, d) for d in dependants.get(uid, ())), default=0)


@given(st.dictionaries(st.integers(0, 12), st.lists(st.integers(0, 12), max_size=4)))
def test_chains_are_as_long_as_a_naive_search_says(edges: dict[int, list[int]]) -> None:
    dag = {str(k): [str(x) for x in v if x > k] for k, v in edges.items()}
    assert {u: n for u, n in chains(dag).items() if u in dag} == {u: naive(dag, u) for u in dag}


@given(st.dictionaries(st.integers(0, 8), st.lists(st.integers(0, 8), max_size=4)))
def test_circles_end_and_count_for_little(edges: dict[int, list[int]]) -> None:
    graph = {str(k): [str(x) for x in v] for k, v in edges.items()}
    found = chains(graph)
    assert graph.keys() <= found.keys()
    assert all(0 <= n <= 9 for n in found.values())


def test_a_long_chain_needs_no_deep_stack() -> None:
    line = {str(k): [str(k + 1)] for k in range(50_000)}
    assert chains(line)["0"] == 50_000


# ---- money -----------------------------------------------------------------------------------------------------------


def test_only_as_many_have_a_hint_as_can_be_paid_and_the_first_come_first() -> None:
    items = [ready(uid, since=NOW - k) for k, uid in enumerate("abcde")]
    found = decide(items, (), {}, frozenset(), NOW, None, funds(2.5, **dict.fromkeys("abcde", 1.0)))
    assert found.hints.keys() == {"e", "d"}
    assert found.unpaid == {"a": ("day",), "b": ("day",), "c": ("day",)}


def test_an_item_that_asks_for_less_may_have_what_is_too_little_for_another() -> None:
    items = [ready("a", priority=0), ready("b"), ready("c", project="web")]
    found = decide(items, (), {}, frozenset(), NOW, None, funds(1.0, a=2.0, b=0.5))
    assert found.hints.keys() == {"b", "c"}
    assert found.unpaid.keys() == {"a"}


def test_who_waits_for_something_else_is_given_nothing() -> None:
    items = [ready("a", files=("src/",)), ready("b", agents=("x",)), ready("c", priority=9)]
    busy = (Busy(uid="z", project="app", files=("src/",)),)
    limited = Limited(stopped=frozenset({"x"}))
    found = decide(items, busy, {}, frozenset(), NOW, limited, funds(1.0, a=1.0, b=1.0, c=1.0))
    assert found.hints.keys() == {"c"}
    assert not found.unpaid


def test_who_waits_for_money_tries_no_limit_on_behalf_of_others() -> None:
    items = [ready("a", agents=("x",)), ready("b", agents=("x",), since=NOW + 1)]
    limited = Limited(trying={"x": "team"})
    found = decide(items, (), {}, frozenset(), NOW, limited, funds(1.0, a=2.0, b=1.0))
    assert found.hints.keys() == {"b"}
