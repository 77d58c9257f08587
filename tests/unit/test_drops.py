"""The text of a drop: what becomes a draft, and every reason against what does not, with its place."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.store.draft import MAX_DEPTH, Draft
from harness.store.drops import MAX_ITEMS, Context, Drop, is_whole, parse, stem_of, suffix_of

CONTEXT = Context(projects={"app": ("claude",)}, agents=("claude", "shell"))
TWO = Context(projects={"app": ("claude",), "web": ("shell",)}, agents=("claude", "shell"))


def read(content: object, name: str = "a.json", context: Context = CONTEXT) -> Drop:
    raw = (
        content
        if isinstance(content, bytes)
        else content.encode()
        if isinstance(content, str)
        else json.dumps(content).encode()
    )
    return parse(name, raw, context)


def reasons(content: object, name: str = "a.json", context: Context = CONTEXT) -> list[str]:
    drop = read(content, name, context)
    assert not drop.drafts
    return [str(r) for r in drop.reasons]


def draft(**fields: object) -> Draft:
    drop = read({"prompt": "do it", **fields}, "drop.json")
    assert not drop.reasons, [str(r) for r in drop.reasons]
    return drop.drafts[0]


# ---- what is accepted ----------------------------------------------------------------------------------------------


def test_only_a_prompt_is_needed() -> None:
    drop = read({"prompt": "do it"})
    assert not drop.many
    (one,) = drop.drafts
    assert (one.prompt, one.priority, one.id, one.commit) == ("do it", 5, None, "required")


def test_a_list_in_json_and_each_line_of_jsonl_is_an_item() -> None:
    listed = read([{"prompt": "1"}, {"prompt": "2"}])
    lines = read('{"prompt": "1"}\n\n{"prompt": "2"}\n', "a.jsonl")
    assert listed.many
    assert lines.many
    assert [d.prompt for d in listed.drafts] == [d.prompt for d in lines.drafts] == ["1", "2"]


def test_yaml_is_one_item_or_a_list() -> None:
    one = read("prompt: do it\npriority: high\nnot_before: 2027-01-01T00:00:00Z\n", "a.yaml")
    many = read("- prompt: a\n- prompt: b\n", "a.YML")
    assert one.drafts[0].priority == 2
    assert one.drafts[0].not_before == "2027-01-01T00:00:00Z"  # times stay text
    assert len(many.drafts) == 2


def test_a_byte_order_mark_is_no_content() -> None:
    assert read(b'\xef\xbb\xbf{"prompt": "do it"}').drafts


@pytest.mark.parametrize(("word", "band"), [("high", 2), ("Medium", 5), ("low", 8), (0, 0), ("9", 9)])
def test_priority_is_a_word_or_a_digit(word: object, band: int) -> None:
    assert draft(priority=word).priority == band


def test_names_that_other_tools_use_are_understood() -> None:
    one = draft(rig="app", deps=["x"], name="T")
    assert (one.project, one.required, one.title) == ("app", ("x",), "T")


def test_dependencies_are_ids_or_objects() -> None:
    one = draft(depends_on=["a", {"id": "b", "optional": True}])
    assert (one.required, one.optional) == (("a", "b"), ("b",))
    assert draft(depends_on="a").required == ("a",)


def test_an_id_may_be_anything_printable_because_no_path_is_made_of_it() -> None:
    assert draft(id="../../x").id == "../../x"
    assert draft(id="日本語 ✓").id == "日本語 ✓"


def test_the_same_words_have_the_same_digest_whatever_their_order() -> None:
    a, b = read('{"prompt": "x", "title": "t"}'), read('{"title": "t", "prompt": "x", "priority": "medium"}')
    assert a.drafts[0].digest() == b.drafts[0].digest()
    assert a.drafts[0].digest() != draft(prompt="y", title="t").digest()


# ---- all reasons at once, with their places ------------------------------------------------------------------------


def test_all_reasons_are_given_at_once_with_line_and_column() -> None:
    text = '{\n  "promt": "do",\n  "priority": "urgent",\n  "project": "ap",\n  "agent": ["claud"]\n}\n'
    assert reasons(text) == [
        "line 1, column 1: prompt is missing: say what is to be done",
        "line 3, column 15: priority: must be high, medium, low, or a number from 0 (first) to 9",
        "line 2, column 12: promt: unknown field 'promt'; did you mean 'prompt'?",
        "line 4, column 14: project: there is no project 'ap' in config.yaml; did you mean 'app'? (there is: app)",
        "line 5, column 13: agent[0]: there is no agent 'claud' in config.yaml; did you mean 'claude'? (there is: claude, shell)",
    ]


def test_reasons_of_a_batch_name_the_item() -> None:
    assert reasons('[{"prompt": "a"},\n {"prompt": 3}]') == [
        "line 2, column 13: [1].prompt: input should be a valid string"
    ]
    assert reasons('{"prompt": "a"}\n{"prompt": ""}\n{', "a.jsonl") == [
        "line 3, column 2: is not valid JSON: Expecting property name enclosed in double quotes",
        "line 2, column 12: line 2.prompt: string should have at least 1 character",
    ]


def test_reasons_in_yaml_have_places_too() -> None:
    assert reasons("prompt: x\nfiles:\n  - /etc/passwd\n", "a.yaml") == [
        "line 3, column 3: files: '/etc/passwd' leaves the repository: write paths relative to its root"
    ]


BAD_JSON = {
    "nothing": (b"", "is empty"),
    "spaces": (b" \n\t", "is empty"),
    "half an object": (b'{"prompt": "do', "is not valid JSON"),
    "single quotes": (b"'prompt'", "JSON strings use double quotes"),
    "a scalar": (b'"do it"', "an item is a JSON object"),
    "null": (b"null", "this is null"),
    "a number": (b"12", "this is a number"),
    "an empty list": (b"[]", "is an empty list"),
    "a list of scalars": (b"[1, 2]", "this is a number"),
    "a list in a list": (b'[[{"prompt": "x"}]]', "this is a list"),
    "a key twice": (b'{"prompt": "a", "prompt": "b"}', "the key 'prompt' occurs twice"),
    "a key twice inside": (b'{"prompt": "a", "labels": {"x": "1", "x": "2"}}', "the key 'x' occurs twice"),
    "NaN": (b'{"prompt": "a", "max_budget_usd": NaN}', "NaN is not a JSON number"),
    "Infinity": (b'{"prompt": "a", "timeout_s": -Infinity}', "-Infinity is not a JSON number"),
    "true for a number": (b'{"prompt": "a", "timeout_s": true}', "timeout_s"),
    "text for a number": (b'{"prompt": "a", "max_budget_usd": "5"}', "max_budget_usd"),
    "a number that overflows": (b'{"prompt": "a", "max_budget_usd": 1e999}', "not finite"),
    "a number of 5000 digits": (b'{"prompt": "a", "priority": ' + b"9" * 5000 + b"}", "is not valid JSON"),
    "a number of 400 digits": (
        b'{"prompt": "a", "max_attempts": ' + b"9" * 400 + b"}",
        "less than or equal to 1000",
    ),
    "40k deep": (b"[" * 40_000 + b"]" * 40_000, "nested too deeply"),
    "40k deep objects": (b'{"a":' * 40_000 + b"1" + b"}" * 40_000, "nested too deeply"),
    "deep source": (b'{"prompt": "a", "source": {"x": ' + b"[" * 500 + b"]" * 500 + b"}}", "levels deep"),
    "UTF-16": ('{"prompt": "a"}'.encode("utf-16"), "is not UTF-8 text (byte 0"),
    "Latin-1": ('{"prompt": "é"}'.encode("latin-1"), "is not UTF-8 text (byte 12: 0xe9)"),
    "zeros": (b"\0" * 4096, "is not valid JSON"),
    "NUL in the prompt": (b'{"prompt": "a\\u0000b"}', "contains a NUL character"),
    "NUL in a file": (b'{"prompt": "a", "files": ["x\\u0000y"]}', "contains a NUL character"),
    "NUL in a label": (b'{"prompt": "a", "labels": {"x\\u0000": "y"}}', "contains a NUL character"),
    "half a surrogate pair": (b'{"prompt": "\\ud800"}', "half of a surrogate pair"),
    "half a pair in a dependency": (
        b'{"prompt": "a", "depends_on": ["\\udfff"]}',
        "half of a surrogate pair",
    ),
    "a prompt of spaces": (b'{"prompt": "  \\n "}', "is empty"),
    "a prompt that is a list": (b'{"prompt": ["a"]}', "should be a valid string"),
    "an id with a newline": (b'{"prompt": "a", "id": "x\\ny"}', "must be printable text"),
    "an id with a direction mark": ('{"prompt": "a", "id": "x\u202ey"}'.encode(), "must be printable text"),
    "an id of spaces": (b'{"prompt": "a", "id": " "}', "must be printable text"),
    "an id that is too long": (b'{"prompt": "a", "id": "' + b"x" * 201 + b'"}', "at most 200 characters"),
    "an empty id": (b'{"prompt": "a", "id": ""}', "at least 1 character"),
    "priority 10": (b'{"prompt": "a", "priority": 10}', "less than or equal to 9"),
    "priority true": (b'{"prompt": "a", "priority": true}', "must be high, medium, low"),
    "no attempts": (b'{"prompt": "a", "max_attempts": 0}', "greater than or equal to 1"),
    "a time that is none": (b'{"prompt": "a", "not_before": "soon"}', "is not an RFC 3339 time"),
    "a time before the calendar": (b'{"prompt": "a", "not_before": "0001-01-01T00:00:00+14:00"}', ""),
    "a dependency on itself": (b'{"prompt": "a", "id": "x", "depends_on": ["x"]}', "cannot depend on itself"),
    "a dependency on its file's name": (b'{"prompt": "a", "depends_on": ["a"]}', "it is called 'a'"),
    "a dependency without an id": (b'{"prompt": "a", "depends_on": [{"optional": true}]}', "id is missing"),
    "a file outside": (b'{"prompt": "a", "files": ["../x"]}', "leaves the repository"),
    "an unknown project": (b'{"prompt": "a", "project": "nope"}', "there is no project 'nope'"),
    "an unknown agent": (b'{"prompt": "a", "agent": "nope"}', "there is no agent 'nope'"),
    "an unknown commit": (b'{"prompt": "a", "commit": "maybe"}', "'required', 'optional' or 'none'"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_a_bad_json_drop_is_refused_with_its_reason(name: str) -> None:
    content, expected = BAD_JSON[name]
    drop = parse("a.json", content, CONTEXT)
    if name == "a time before the calendar":
        assert drop.drafts or drop.reasons  # either way: an answer
        return
    assert not drop.drafts
    assert expected in "\n".join(str(r) for r in drop.reasons), [str(r) for r in drop.reasons]


BAD_YAML = {
    "an alias": ("a: &x [1]\nb: *x\n", "aliases are not supported"),
    "a billion laughs": (
        "a: &a [x, x]\n"
        + "".join(f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
        "aliases are not supported",
    ),
    "a key twice": ("prompt: a\nprompt: b\n", "the key 'prompt' occurs twice"),
    "a list as a key": ("prompt: a\n? [x, y]\n: z\n", "a key must be text"),
    "a mapping as a key": ("{{a: b}: c}", "a key must be text"),
    "a tag that makes objects": (
        "!!python/object/apply:os.system ['id']",
        "apply:os.system' is not supported",
    ),
    "binary": ("prompt: a\nsource: {x: !!binary aGk=}\n", "binary' is not supported"),
    "a set": ("prompt: a\nsource: {x: !!set {y, z}}\n", "set' is not supported"),
    "not a number": ("prompt: a\nmax_budget_usd: .nan\n", "not finite"),
    "infinity": ("prompt: a\nsource: {x: .inf}\n", "not finite"),
    "a number as a key": ("prompt: a\nsource: {1: x}\n", "a key that is not text"),
    "two documents": ("prompt: a\n---\nprompt: b\n", "is not valid YAML"),
    "a tab": ("prompt:\n\tx: y\n", "is not valid YAML"),
    "a control character": ("prompt: \x07\n", "is not valid YAML"),
    "deep": ("[" * 5000 + "]" * 5000, "nested too deeply"),
    "nothing but a comment": ("# later\n", "this is null"),
    "half a list": ("- prompt: a\n- prompt: [", "is not valid YAML"),
    "too much": ("prompt: " + "x" * (300 << 10), "use .json or .jsonl"),
}


@pytest.mark.parametrize("name", BAD_YAML)
def test_a_bad_yaml_drop_is_refused_with_its_reason(name: str) -> None:
    content, expected = BAD_YAML[name]
    found = reasons(content, "a.yaml")
    assert expected in "\n".join(found), found


def test_a_drop_that_is_too_large_is_not_even_decoded() -> None:
    small = Context(projects={"app": ("claude",)}, agents=("claude",), max_bytes=1 << 20)
    assert "larger than 1 MiB" in reasons(b"\xff" * (1 << 20) + b"x", "a.json", small)[0]


def test_with_two_projects_the_project_must_be_named() -> None:
    assert "choose one of: app, web" in reasons({"prompt": "x"}, context=TWO)[0]
    assert read({"prompt": "x", "project": "web"}, context=TWO).drafts


def test_without_a_project_nothing_can_be_dropped() -> None:
    assert "no project is configured" in reasons({"prompt": "x"}, context=Context(projects={}, agents=()))[0]


# ---- a batch as a whole --------------------------------------------------------------------------------------------


def test_one_bad_item_refuses_the_whole_batch() -> None:
    assert len(reasons([{"prompt": "a"}, {"prompt": ""}, {"prompt": "c", "nope": 1}])) == 2


def test_an_id_used_twice_in_a_batch_is_refused() -> None:
    assert "is used by two items" in reasons([{"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x"}])[0]


def test_a_circle_of_dependencies_is_refused() -> None:
    found = reasons(
        [{"prompt": "a", "id": "x", "depends_on": ["y"]}, {"prompt": "b", "id": "y", "depends_on": ["x"]}]
    )
    assert "in a circle" in found[0]


def test_a_circle_through_default_ids_is_refused() -> None:
    found = reasons(
        [{"prompt": "a", "depends_on": ["plan-2"]}, {"prompt": "b", "depends_on": ["plan-1"]}], "plan.json"
    )
    assert "in a circle" in found[0]


def test_an_item_of_a_batch_may_depend_on_another_by_its_default_id() -> None:
    assert len(read([{"prompt": "a"}, {"prompt": "b", "depends_on": ["plan-1"]}], "plan.json").drafts) == 2


def test_an_item_of_a_batch_cannot_depend_on_its_own_default_id() -> None:
    assert "cannot depend on itself" in reasons([{"prompt": "a", "depends_on": ["plan-1"]}], "plan.json")[0]


def test_a_batch_has_a_limit() -> None:
    assert f"at most {MAX_ITEMS}" in reasons([{"prompt": "a"}] * (MAX_ITEMS + 1))[0]


# ---- whole or not --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3),
        max_leaves=8,
    )
)
def test_a_proper_prefix_of_an_object_or_list_is_never_whole(value: object) -> None:
    raw = json.dumps({"prompt": value}).encode()
    assert is_whole("a.json", raw)
    assert not any(is_whole("a.json", raw[:k]) for k in range(len(raw)))


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.sampled_from(["a.json", "a.jsonl", "a.yaml", "a.yml", "b"]))
def test_any_bytes_get_an_answer(raw: bytes, name: str) -> None:
    drop = parse(name, raw, CONTEXT)
    assert bool(drop.drafts) != bool(drop.reasons)


JSONISH = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(), max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=4), x, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from([*Draft.model_fields, "rig", "deps", "nope"]), JSONISH, max_size=6))
def test_any_values_of_fields_get_an_answer_and_can_be_stored(fields: dict[str, object]) -> None:
    drop = parse("a.json", json.dumps({"prompt": "x", **fields}).encode(), CONTEXT)
    assert bool(drop.drafts) != bool(drop.reasons)
    for one in drop.drafts:
        one.digest()
        json.dumps(one.model_dump(), allow_nan=False).encode()


def test_as_deep_as_it_may_be() -> None:
    value: object = 1
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert draft(source={"x": value}).source


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [
        ("a.json", "a", ".json"),
        ("A.B.JSON", "A.B", ".json"),
        ("-rf.json", "-rf", ".json"),
        ("a b.yaml", "a b", ".yaml"),
        ("x\udcff.json", "x\\xff", ".json"),
        ("line\nbreak.json", "line?break", ".json"),
        (" .json", "item", ".json"),
    ],
)
def test_the_default_id_is_readable_whatever_the_file_is_called(name: str, stem: str, suffix: str) -> None:
    assert (stem_of(name), suffix_of(name)) == (stem, suffix)


@pytest.mark.parametrize(("escapes", "refused"), [(100_000, False), (100_001, True)])
def test_a_text_that_is_mostly_backslashes_is_refused_unread(escapes: int, refused: bool) -> None:
    raw = b'{"prompt": "' + rb"\\" * (escapes // 2) + rb"\n" * (escapes % 2) + b'"}'
    reasons = parse("a.json", raw, CONTEXT).reasons
    assert ["quarter backslashes" in reason.what for reason in reasons] == [True] * refused


def test_many_escapes_in_much_text_are_no_reason() -> None:
    raw = json.dumps(
        [{"prompt": "\u00e9" * 5 + "word " * 400}] * 30 + [{"prompt": "\\n" * 60_000 + "x" * 400_000}]
    )
    assert raw.count("\\") > 100_000
    assert not parse("a.json", raw.encode(), CONTEXT).reasons
