"""The table of docs/reliability.md says what the proofs said, and nothing else."""

from __future__ import annotations

import pytest

from benchmarks import prove
from benchmarks.prove import PARTS, Part


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_row_is_what_the_proof_printed(part: Part) -> None:
    table = prove.PAGE.read_text().partition(prove.BEGIN)[2].partition(prove.END)[0]
    (row,) = [line for line in table.splitlines() if line.startswith(f"| {part.name} |")]
    _, _, what, text, minutes, commit, _ = (cell.strip() for cell in row.split("|"))
    kept = (prove.KEPT / f"{part.name}.txt").read_text()
    assert what == part.what
    assert text == prove.said(part, kept)
    assert float(minutes) >= 0
    assert commit


def test_the_line_that_says_it_is_the_last_of_its_kind() -> None:
    storm = next(part for part in PARTS if part.name == "storm")
    assert prove.said(storm, "storm: 1 item\nstorm: 2 items | all\nbye\n") == "storm: 2 items / all"
    assert prove.said(storm, "nothing\nof the kind\n") == "of the kind"
