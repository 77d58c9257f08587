from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path

import pytest

from harness import redact
from harness.redact import REDACTED, hide, plain, printable

KEY = "".join  # keys are put together here, so that no scanner takes this file for a leak


@pytest.fixture(autouse=True)
def _nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_secrets", ())


@pytest.mark.parametrize(
    "key",
    [
        KEY(["sk-", "ant-api03-", "a1B2c3D4" * 4]),
        KEY(["sk-", "a1B2c3D4" * 4]),
        KEY(["ghp", "_", "a1B2c3D4" * 4]),
        KEY(["github", "_pat_", "a1B2c3D4" * 4]),
        KEY(["glpat", "-", "a1B2c3D4" * 3]),
        KEY(["xoxb", "-", "123456789012"]),
        KEY(["AKIA", "ABCDEFGHIJKLMNOP"]),
        KEY(["AIza", "a1B2c3D4" * 5]),
    ],
)
def test_what_looks_like_a_key_is_blanked(key: str) -> None:
    shown = redact.redact(f"failed with {key} at once")
    assert key not in shown
    assert shown.startswith("failed with ")
    assert REDACTED in shown


def test_the_kind_of_a_header_and_the_host_of_a_url_stay_readable() -> None:
    assert redact.redact("Authorization: Bearer abcdefghijklmnop") == f"Authorization: Bearer {REDACTED}"
    assert redact.redact("https://me:pass@example.invalid/x") == f"https://{REDACTED}@example.invalid/x"


def test_private_keys_are_blanked_even_when_cut_off() -> None:
    begin = KEY(["-----BEGIN ", "OPENSSH PRIVATE KEY-----"])
    assert redact.redact(f"a {begin}\nabc") == f"a {REDACTED}"


def test_ordinary_text_is_left_alone() -> None:
    text = "task-runner asked sk-ip for the token of tests at http://host:8080/a@b, see basic usage"
    assert redact.redact(text) == text


def test_configured_secrets_are_blanked_the_longest_first() -> None:
    hide(["abcdef", "abcdefgh"])
    assert redact.redact("abcdefgh abcdef") == f"{REDACTED} {REDACTED}"


def test_a_short_secret_does_not_blank_every_word() -> None:
    hide(["a", ""])
    assert redact.redact("a cat") == "a cat"


def test_plain_makes_json_of_anything() -> None:
    class Colour(StrEnum):
        RED = "red"

    value = {
        "p": Path("/a"),
        "e": Colour.RED,
        "b": b"\xff",
        "n": None,
        "t": (1, 2.5, True),
        "nan": float("nan"),
        1: {"x"},
    }
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {
        "p": "/a",
        "e": "red",
        "b": "\ufffd",
        "n": None,
        "t": [1, 2.5, True],
        "nan": "nan",
        "1": ["x"],
    }


def test_long_text_is_cut_in_its_middle_so_that_both_ends_stay() -> None:
    text = plain("a" * 50_000 + "z" * 50_000, limit=100)
    assert len(text) < 200
    assert text.startswith("a" * 50)
    assert text.endswith("z" * 50)


def test_printable_shows_what_would_steer_a_terminal() -> None:
    assert printable("\x1b[31mred\r\n\ttab\u202e") == "\\x1b[31mred\\r\n\ttab\\u202e"
