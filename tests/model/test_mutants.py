"""The explorer sees a broken rule; all of them, with the slow ones: `python -m tests.model.mutants`."""

from __future__ import annotations

import sys

import pytest

from tests.model.copies import MODULES, load
from tests.model.mutants import Inapplicable, Mutant, as_expected, mutants, mutated, run
from tests.model.processes import product

SLOW = frozenset(
    [
        "M23",
        "M25",
        "M59",
        "M68",
        "M80",
        "M85",
        "M86",
        "M144",
        "M147",
        "M149",
        "M150",
        "M155",
        "M156",
        "M162",
        "M163",
    ]
)
"""More than half a second each."""
ALL = mutants()


def named(mutant: Mutant) -> str:
    return mutant.name


@pytest.mark.parametrize("mutant", [x for x in ALL if x.number not in SLOW], ids=named)
def test_a_broken_rule_is_seen_and_a_harmless_change_is_not(mutant: Mutant) -> None:
    result = run(mutant)
    assert as_expected(mutant, result), "\n".join(map(str, (*result.trace, result.verdict)))


@pytest.mark.parametrize("mutant", ALL, ids=named)
def test_every_mutant_still_changes_the_product(mutant: Mutant) -> None:
    assert mutated(mutant) != mutated(Mutant("M0 the product", (), mutant.scenario))


def test_a_mutant_that_applies_no_more_is_named() -> None:
    gone = Mutant("M0 of a rule that is gone", (("lane", "no such text", ""),), ALL[0].scenario)
    with pytest.raises(Inapplicable, match=r"M0 of a rule that is gone: lane\.py"):
        mutated(gone)


def test_no_two_mutants_have_the_same_number() -> None:
    assert len({x.number for x in ALL}) == len(ALL)


def test_a_copy_of_the_store_leaves_the_product_alone() -> None:
    before = {name: module for name, module in sys.modules.items() if name in MODULES.values()}
    copy, shipped = load(mutated(ALL[0])), product()
    assert {name: module for name, module in sys.modules.items() if name in MODULES.values()} == before
    assert copy.cells.publish is not shipped.cells.publish
    assert copy.attempts.publish is copy.cells.publish
    assert copy.decisions.Decision is sys.modules[MODULES["decisions"]].Decision
