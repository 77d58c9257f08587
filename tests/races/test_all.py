"""The table of races in PROTOCOL section 13 has 39 rows; each is forced by a test that bears its number."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_race_is_forced() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    forced = {int(number) for number in re.findall(r"^def test_r(\d\d)_", text, re.MULTILINE)}
    assert forced == set(range(1, 40))
