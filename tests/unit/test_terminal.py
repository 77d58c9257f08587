"""What reaches a terminal of what others wrote."""

from __future__ import annotations

import pytest

from harness.terminal import printable, printable_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nnext", "plain\ttext\nnext"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPdevice\x1b\\x", "x"),
        ("\x9b2Jcleared", "cleared"),
        ("\x1b(Bset", "set"),
        ("\x1bcreset", "reset"),
        ("cut short \x1b[", "cut short "),
        ("progress 1%\rprogress 2%\r\n", "progress 1%\nprogress 2%\n"),
        ("bell\x07 back\x08 nul\x00 del\x7f", "bell back nul del"),
        ("\u202egnirts\u202c", "gnirts"),
        ("\ud800 lone", "? lone"),
        ("übergröße 漢字 🎉", "übergröße 漢字 🎉"),
    ],
)
def test_only_text_is_left(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_an_unfinished_title_does_not_swallow_the_lines_after_it() -> None:
    assert printable("\x1b]0;never ended\nnext line") == "\nnext line"


def test_one_line_is_one_line_and_not_too_long() -> None:
    assert printable_line("a\n b\tc\x1b[1m") == "a b c"
    assert printable_line("x" * 300, 10) == "x" * 9 + "…"
