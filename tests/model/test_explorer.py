"""What a part of the exploration says in a quarter of a minute; all of it is `./scripts/prove explore`."""

from __future__ import annotations

import pytest

from tests.model.explorer import Explorer, Scenario
from tests.model.scenarios import scenarios, too_large

WHOLE = "KQUopqtwy238!$@?~^,:`"
"""Small enough to be walked to the end."""
SOME = 600
"""States of each of the others."""
WALKS, SEED = 4, 20270115
ALL = scenarios()


def letter(scenario: Scenario) -> str:
    return scenario.name[0]


def test_no_two_scenarios_have_the_same_letter() -> None:
    assert len({letter(s) for s in ALL}) == len(ALL)


@pytest.mark.parametrize("scenario", [s for s in ALL if letter(s) in WHOLE], ids=lambda s: s.name)
def test_the_invariants_hold_in_every_state(scenario: Scenario) -> None:
    result = Explorer(scenario).run()
    assert result.verdict == "holds", "\n".join(map(str, result.trace))


@pytest.mark.parametrize("scenario", [s for s in ALL if letter(s) not in WHOLE], ids=lambda s: s.name)
def test_the_invariants_hold_in_the_first_states(scenario: Scenario) -> None:
    result = Explorer(scenario).run(limit=SOME)
    assert not result.violation, result.violation + "\n" + "\n".join(map(str, result.trace))


def test_the_invariants_hold_on_random_walks_through_what_is_too_large() -> None:
    result = Explorer(too_large()).walk(WALKS, seed=SEED)
    assert result.verdict == f"holds in {WALKS} walks, seed {SEED}", "\n".join(map(str, result.trace))
    assert result.ends == WALKS
