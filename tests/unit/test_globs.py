"""Globs of paths inside of a repository."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.globs import matches, matches_any


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("src/a.py", ["src/a.py"], ["src/b.py", "a.py", "x/src/a.py", "src/a.pyc"]),
        ("src/", ["src/a", "src/a/b", "src/.x"], ["src", "srcs/a", "a/src/b"]),
        ("src", ["src", "src/a", "src/a/b"], ["srcs", "a/src"]),
        ("*.py", ["a.py", ".py"], ["src/a.py", "a.pyc"]),
        ("src/*", ["src/a", "src/.x"], ["src", "src/a/b"]),
        ("src/?.py", ["src/a.py"], ["src/ab.py", "src/.py", "src//.py"]),
        ("src/**", ["src/a", "src/a/b"], ["src", "srcs/a"]),
        ("src/**/", ["src/a/b", "src/a"], ["src"]),
        ("**", ["a", "a/b/c", ".x"], []),
        ("**/*.lock", ["x.lock", "a/x.lock", "a/b/x.lock"], ["x.lock/a", "x.lockx"]),
        ("src/**/t_*.py", ["src/t_a.py", "src/a/b/t_.py"], ["src/a/x.py", "t_a.py"]),
        ("a/**/b/**/c", ["a/b/c", "a/x/b/y/z/c", "a/b/c/d"], ["a/c", "b/a/c"]),
        ("app/[id]/*.tsx", ["app/[id]/page.tsx"], ["app/i/page.tsx"]),
        ("./src/a", ["src/a"], ["a"]),
        ("src//a", ["src/a"], []),
        ("a**b", ["ab", "axxb"], ["a/b"]),
        ("Src", [], ["src"]),
    ],
)
def test_a_pattern_covers_exactly_what_the_documentation_says(
    pattern: str, yes: list[str], no: list[str]
) -> None:
    assert [p for p in yes if not matches(p, pattern)] == []
    assert [p for p in no if matches(p, pattern)] == []


@pytest.mark.parametrize("pattern", ["", "/", "/etc/passwd", "../x", "a/../../x", "a/..", "./", ".", "//x"])
def test_nothing_leads_out_of_the_tree(pattern: str) -> None:
    for path in ("x", "etc/passwd", "../x", "a", "a/x", ".", ""):
        assert not matches(path, pattern)


def test_one_of_several_is_enough_and_none_is_not() -> None:
    assert matches_any("a/b", ["x", "a/"])
    assert not matches_any("a/b", [])


NAMES = st.text(alphabet="ab*?.", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))


def by_regex(path: str, pattern: str) -> bool:
    """The same rules, written down a second time; backtracks, so only for short texts."""
    names = pattern.split("/")
    if names[-1] == "**":
        names.append("*")
    elif "*" not in names[-1] and "?" not in names[-1]:
        names.append("**/")
    parts = []
    for name in names:
        if name in ("**", "**/"):
            parts.append("(?:[^/]+/)*")
        else:
            one = "".join({"*": "[^/]*", "?": "[^/]"}.get(c, re.escape(c)) for c in name)
            parts.append(one + "/")
    return re.fullmatch("".join(parts), path + "/") is not None


@settings(deadline=None)  # a slow machine is no failure
@given(
    st.lists(NAMES, min_size=1, max_size=4),
    st.lists(st.text("ab.", min_size=1, max_size=3), min_size=1, max_size=4),
)
def test_it_agrees_with_a_second_way_to_say_the_same(pattern: list[str], path: list[str]) -> None:
    assert matches("/".join(path), "/".join(pattern)) == by_regex("/".join(path), "/".join(pattern))


def test_no_pattern_is_a_trap() -> None:
    path = "/".join(["a" * 60] * 40)
    started = time.process_time()
    assert not matches(path, "/".join(["**", "*a*a*a*a*a*a*a*b"] * 20))
    assert time.process_time() - started < 5.0  # a backtracking matcher needs longer than the universe has
