"""YAML with positions."""

from __future__ import annotations

import pytest

from harness.yamlpos import MAX_DEPTH, Mark, parse


def test_places_of_keys_and_values_count_from_one_as_editors_do() -> None:
    document = parse("a:\n  b: [x, y]\n")
    assert document.data == {"a": {"b": ["x", "y"]}}
    assert document.key_mark(("a", "b")) == Mark(2, 3)
    assert document.value_mark(("a", "b", 1)) == Mark(2, 10)


def test_the_place_of_something_missing_is_the_nearest_thing_around_it() -> None:
    document = parse("a:\n  b: 1\n")
    assert document.value_mark(("a", "zzz", 3)) == Mark(2, 3)


def test_keys_are_text_and_only_true_and_false_are_booleans() -> None:
    text = (
        "{0: ok, on: off, yes: no, t: true, date: 2027-01-01, time: 12:30, octal: 0o17, float: 1e3, none: ~}"
    )
    assert parse(text).data == {
        "0": "ok",
        "on": "off",
        "yes": "no",
        "t": True,
        "date": "2027-01-01",
        "time": "12:30",
        "octal": 15,
        "float": 1000.0,
        "none": None,
    }


def test_a_duplicate_key_is_a_problem_that_names_the_first_one() -> None:
    document = parse("a: 1\nb: 2\na: 3\n")
    assert document.data == {"a": 1, "b": 2}
    assert [(p.what, p.mark) for p in document.problems] == [
        ("duplicate key 'a', first in line 1", Mark(3, 1))
    ]


def test_all_duplicates_are_reported() -> None:
    assert len(parse("{a: 1, a: 2, a: 3, b: {c: 1, c: 2}}").problems) == 3


def test_merge_keys_fill_in_what_is_not_written_out() -> None:
    document = parse("base: &b {x: 1, y: 2}\nc:\n  y: 3\n  <<: *b\n")
    assert document.data["c"] == {"x": 1, "y": 3}
    assert not document.problems


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a: [1, 2\nb: 3", 2, 2),
        ("a: 1\n\tb: 2", 2, 1),
        ("a: 1\n---\nb: 2", 2, 1),
        ("a: *x", 1, 4),
        ("a: 1\nb: \x00", 2, 4),
    ],
)
def test_a_syntax_error_has_its_line_and_column(text: str, line: int, column: int) -> None:
    document = parse(text)
    assert document.data is None
    assert document.problems[0].mark == Mark(line, column)
    assert document.problems[0].what.startswith("not valid YAML")


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 5_000])
def test_deep_nesting_is_refused_and_does_not_overflow_the_stack(text: str) -> None:
    assert f"more than {MAX_DEPTH} levels" in parse(text).problems[0].what


def test_aliases_cannot_make_a_small_file_big() -> None:
    levels = "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    document = parse("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + levels)
    assert document.data is None
    assert "expands to more than" in document.problems[0].what


def test_an_alias_inside_of_what_it_names_is_a_problem() -> None:
    assert "alias" in parse("a: &x [*x]").problems[0].what


@pytest.mark.parametrize("text", ["a: !!python/name:os.system x", "a: !secret x", "a: !!binary aGk="])
def test_tags_beyond_json_are_refused(text: str) -> None:
    assert "not supported" in parse(text).problems[0].what


def test_a_tag_on_a_list_or_mapping_is_never_acted_upon() -> None:
    assert parse("a: !!python/object/apply:os.system [x]").data == {"a": ["x"]}


@pytest.mark.parametrize("text", ["x: !!int abc", "x: !!float abc", "x: " + "9" * 10_000])
def test_numbers_that_are_none_are_problems(text: str) -> None:
    assert "not a number" in parse(text).problems[0].what


def test_a_key_that_is_no_text_is_a_problem() -> None:
    assert parse("? [a, b]\n: 1\n").problems[0].what == "a key must be text"


def test_merging_something_that_is_no_mapping_is_a_problem() -> None:
    assert "`<<`" in parse("a: {<<: [1]}").problems[0].what


def test_an_empty_text_is_none_without_a_problem() -> None:
    document = parse("# nothing\n")
    assert document.data is None
    assert not document.problems
