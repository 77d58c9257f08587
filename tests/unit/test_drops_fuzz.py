"""Whatever is dropped gets an answer: nothing raises, no byte is lost, and it costs the coordinator a bounded time.

`HARNESS_FUZZ=20` makes twenty times as many examples. Time is CPU time of this process, the least of some runs.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.layout import DROP_SUFFIXES
from harness.store import loading
from harness.store.admission import Admission, raw_name
from harness.store.draft import MAX_DEPENDENCIES, MAX_PARTS, Draft
from harness.store.drops import MAX_FIELDS, MAX_ITEMS, MAX_REASONS, Context, Drop, parse
from tests.conftest import MEMORY
from tests.stores import World
from tests.support import make_root

T = TypeVar("T")
MORE = int(os.environ.get("HARNESS_FUZZ", "1"))
LIMIT_S = 0.05
YARD_S = 0.0058
"""What `yard` takes on the machine of docs/figures.md when nothing else runs (`./scripts/bench drops` says it).

A core that others share, or a slower one, takes longer for both, and a test must not depend on that: what is compared
with the limit is how many yards a drop takes, each next to its yard."""
TRIES = 10
"""The least of so many runs counts."""
MANY = 50
"""A drop of so many items may cost more: each of them is admitted."""
CAP = 2 << 20
"""Bytes of a drop up to which the limit holds; docs/items.md says what a larger one costs."""
CONTEXT = Context(projects={"app": ("claude",)}, agents=("claude", "shell"), max_bytes=CAP)
PLACELESS = (
    "is empty",
    "larger than",
    "more than",
    "at most",
    "circle",
    "itself",
    "empty list",
    "two items",
    "and more",
)
"""Reasons against a drop as a whole."""


def cpu_s(run: Callable[[], T]) -> tuple[T, float]:
    before = time.process_time()
    said = run()
    return said, time.process_time() - before


_TEXT = json.dumps([{"k": str(n), "n": [n, n * 0.5]} for n in range(4000)])


def yard() -> None:
    """A fixed piece of the same kind of work: JSON in C, and dicts and texts in Python."""
    for one in json.loads(_TEXT):
        one["k"] = one["k"].upper() + "x"
    bytes(json.dumps(_TEXT), "utf-8").count(b",")


def as_measured(spent_s: float) -> float:
    """Seconds of CPU here and now -> on the machine of docs/figures.md."""
    return spent_s * YARD_S / cpu_s(yard)[1]


def least(run: Callable[[], T], what: str = "", limit_s: float = LIMIT_S) -> T:
    """Run it until it was fast enough, at most TRIES times; -> what it said the last time."""
    spent: list[float] = []
    while True:
        said, seconds = cpu_s(run)
        spent.append(seconds if seconds < limit_s else as_measured(seconds))
        if spent[-1] < limit_s:
            return said
        assert len(spent) < TRIES, f"{what}: {[round(s * 1000) for s in spent]} ms of CPU"


def fits(name: str, raw: bytes, drop: Drop) -> None:
    """What must be true of any answer."""
    assert bool(drop.drafts) != bool(drop.reasons)
    assert len(drop.reasons) <= MAX_REASONS + 1
    assert sum(len(str(r)) for r in drop.reasons) < 100_000
    if drop.reasons and not any(r.line > 0 < r.column for r in drop.reasons):
        assert any(word in r.what for r in drop.reasons for word in PLACELESS), (
            name,
            raw[:200],
            drop.reasons,
        )
    lines = (
        raw.count(b"\n") + raw.count(b"\r") + raw.count(b"\x85") + raw.count("\u2028".encode()) + 2
    )  # YAML's, and its end
    assert all(r.line <= lines for r in drop.reasons)


# ---- cost ------------------------------------------------------------------------------------------------------------


def fill(head: str, unit: str, tail: str, *, size: int = CAP, most: int | None = None) -> bytes:
    """`unit` so often that it is just below the size."""
    room = size - len(head.encode()) - len(tail.encode())
    times = room // len(unit.encode())
    return (head + unit * min(times, times if most is None else most) + tail).encode()


def each(head: str, count: int, unit: Callable[[int], str], tail: str, by: str = ",") -> bytes:
    return (head + by.join(map(unit, range(count))) + tail).encode()


ONE = '{"prompt": "x", '
YAML = loading.MAX_YAML
COSTLY: dict[str, tuple[str, bytes]] = {
    "a prompt": (".json", fill('{"prompt": "', "x", '"}', size=loading.MAX_ITEM)),
    "a prompt of lines": (".json", fill('{"prompt": "', "word\\n", '"}', size=loading.MAX_ITEM)),
    "a prompt in another script": (".json", fill('{"prompt": "', "é", '"}', size=loading.MAX_ITEM)),
    "a prompt of quotes": (".json", fill('{"prompt": "', '\\"', '"}', size=loading.MAX_ITEM)),
    "a prompt that is too long": (".json", fill('{"prompt": "', "x", '"}')),
    "a prompt that is too long behind spaces": (".json", fill(" " * 70 + '{"prompt": "', "é", '"}')),
    "NUL at the end of a list of one": (".json", fill('[{"prompt": "', "x", '\\u0000"}]')),
    "a text": (".json", fill('"', "x", '"')),
    "a text of escapes": (".json", fill('["', "\\u00e9", '"]')),
    "backslashes": (".json", fill('["', "\\\\", '"]')),
    "an open text": (".json", fill('["', '\\"', "")),
    "quotes": (".json", fill("[", '"",', '""]')),
    "not UTF-8 at the end": (".json", fill("", "é", "")[:-1]),
    "spaces": (".json", fill("", " ", "")),
    "lines": (".json", fill("[", "\n", "]")),
    "garbage": (".json", fill("", "a", "")),
    "garbage in a list": (".json", fill("[", "a", "")),
    "zeros": (".json", bytes(CAP)),
    "a million lists": (".json", fill("[", "[],", "[]]")),
    "deep lists": (".json", fill("", "[", "")),
    "deep objects": (".json", fill("", '{"a":', "")),
    "deep, and few": (".json", b"[" * 40_000 + b"]" * 40_000),
    "numbers": (".json", fill("[", "1,", "1]")),
    "a long number": (".json", fill("[", "9", "]")),
    "long numbers": (".json", fill("[", "9" * loading.MAX_DIGITS + ",", "9]", size=loading.MAX_OUTSIDE)),
    "items that are none": (".json", fill("[", "1,", "1]", most=MAX_ITEMS - 1)),
    "items without a prompt": (".json", fill("[", "{},", "{}]", most=MAX_ITEMS - 1)),
    "too many items": (".json", fill("[", '{"prompt":"x"},', "1]", most=MAX_ITEMS + 1)),
    "items up to a mistake": (".json", fill("[", '{"prompt":"x"},', "1]", most=500)),
    "unknown fields": (".json", each("{", MAX_FIELDS, lambda k: f'"promp{k}":1', "}")),
    "too many unknown fields": (".json", each("{", 40_000, lambda k: f'"promp{k}":1', "}")),
    "a long name of a field": (".json", fill('{"', "prompt", '":1}', size=loading.MAX_ITEM)),
    "a long name of an agent": (".json", fill(ONE + '"agent":"', "claude", '"}', size=loading.MAX_ITEM)),
    "a long name of a project": (".json", fill(ONE + '"project":"', "app", '"}', size=loading.MAX_ITEM)),
    "unknown agents": (".json", fill(ONE + '"agent":[', '"claud",', '""]}', most=20_000)),
    "agents that are none": (".json", fill(ONE + '"agent":[', "1,", "1]}", most=40_000)),
    "dependencies that are none": (".json", fill(ONE + '"depends_on":[', "1,", "1]}", most=40_000)),
    "dependencies without a name": (
        ".json",
        fill(ONE + '"depends_on":[', '"",', '""]}', most=MAX_DEPENDENCIES - 1),
    ),
    "dependencies with a mistake": (".json", fill(ONE + '"depends_on":[', '{"x":1},', '""]}', most=999)),
    "files": (".json", fill(ONE + '"files":[', '"a/../b",', '""]}', most=40_000)),
    "files that are none": (".json", fill(ONE + '"files":[', "1,", "1]}", most=999)),
    "labels that are none": (".json", each(ONE + '"labels":{', 999, lambda k: f'"{k}":1', "}}")),
    "a source of numbers": (
        ".json",
        fill(ONE + '"source":{"a":[', "1.2345678901234567,", "1]}}", most=MAX_PARTS - 9),
    ),
    "a source of keys": (".json", each(ONE + '"source":{', MAX_PARTS - 9, lambda k: f'"k{k}":"v"', "}}")),
    "a source of objects": (
        ".json",
        fill(ONE + '"source":{"a":[', '{"a":{}},', "1]}}", most=MAX_PARTS // 2 - 9),
    ),
    "a source of too much": (".json", fill(ONE + '"source":{"a":[', "1,", "1]}}", most=40_000)),
    "1e5 keys": (".json", each(ONE + '"source":{', 100_000, lambda k: f'"k{k}":1', "}}")),
    "a key twice": (".json", each("{", 15_000, lambda k: f'"k{k % 14_999}":1', "}")),
    "long ids in a circle": (
        ".json",
        each(
            "[",
            400,
            lambda k: f'{{"prompt":"x","id":"{"i" * 190}{k}","depends_on":["{"i" * 190}{(k + 1) % 400}"]}}',
            "]",
        ),
    ),
    "lines that are none": (".jsonl", fill("", "x\n", "", most=MAX_ITEMS - 1)),
    "too many lines": (".jsonl", fill("", "1\n", "")),
    "empty lines": (".jsonl", fill("", "\n", '{"prompt": "x"}')),
    "lines of spaces": (".jsonl", fill("", " " * 99 + "\n", '{"prompt": "x"}')),
    "a long line": (".jsonl", fill('{"prompt": "', "x", '"}')),
    "a long YAML text": (".yaml", fill("prompt: ", "x y ", "", size=YAML)),
    "a YAML block": (".yaml", fill("prompt: |\n", "  x\n", "", size=YAML)),
    "a YAML text of escapes": (".yaml", fill('prompt: "', "\\u00e9", '"', size=YAML)),
    "YAML comments": (".yaml", fill("", "#\n", "prompt: x", size=YAML)),
    "YAML numbers": (
        ".yaml",
        fill("prompt: x\nsource: {a: [", "1.5,", "1]}", most=loading.MAX_YAML_VALUES - 9),
    ),
    "too many YAML numbers": (".yaml", fill("[", "1,", "1]", size=YAML)),
    "YAML keys": (
        ".yaml",
        each("prompt: x\nsource: {", loading.MAX_YAML_VALUES // 2 - 9, lambda k: f"k{k}: v", "}", ", "),
    ),
    "YAML items that are none": (".yaml", fill("", "- [a, b]\n", "", most=loading.MAX_YAML_VALUES // 3 - 1)),
    "deep YAML": (".yaml", fill("", "[", "", size=YAML)),
    "deep YAML mappings": (".yaml", fill("", "{a: ", "", size=YAML)),
    "deep YAML dashes": (".yaml", fill("", "- ", "", size=YAML)),
    "YAML question marks": (".yaml", fill("", "? ", "", size=YAML)),
    "YAML tags": (".yaml", fill("[", "!!str x,", "]", size=YAML)),
    "YAML anchors": (".yaml", each("[", 40_000, lambda k: f"&a{k} a", "]")[:YAML]),
    "a YAML bomb": (
        ".yaml",
        each("a0: &a0 [x,x]\n", 99, lambda k: f"a{k + 1}: &a{k + 1} [*a{k},*a{k}]", "", "\n"),
    ),
    "a YAML time without an end": (".yaml", fill("prompt: x\nsource: {a: ", "1:", "1}", size=YAML)),
    "a YAML number without an end": (".yaml", fill("a: ", "9", "", size=YAML)),
    "a YAML number of underscores": (".yaml", fill("a: 1", "_", "x", size=YAML)),
    "a YAML key without an end": (".yaml", fill("? ", "x", "\n: 1", size=YAML)),
}


# ---- take and admit, the whole way -----------------------------------------------------------------------------------


class Box:
    """A store that drops are thrown into."""

    def __init__(self, folder: Path) -> None:
        self.world = World(make_root(folder / "root"))
        self.world.context = CONTEXT

    def admit(self) -> Admission:
        """Take the one drop that is there, and admit it."""
        if not self.world.incoming():
            self.world.take()
            self.world.clock.advance(10)
            self.world.take()
        (home,) = self.world.incoming()
        return self.world.admit(home)

    def throw(self, name: str, raw: bytes) -> Admission:
        """Drop, take, admit. Only the last two are measured."""
        self.world.drop(name, raw)
        said, spent = cpu_s(self.admit)
        if spent >= LIMIT_S and len(said.items) < MANY:

            def again() -> Admission:
                self.world.drop(name, raw)
                return self.admit()

            least(again, repr(raw[:50]))
        return said

    def kept(self, admission: Admission) -> bytes:
        """The bytes of the raw file, wherever it is now."""
        queue = self.world.layout.queue
        uid = admission.drop
        for place in (
            queue / "rejected" / uid,
            queue / "open" / uid,
            queue / "waiting" / uid,
            *queue.glob(f"batches/*/{uid}"),
        ):
            for path in place.glob("raw.*"):
                return path.read_bytes()
        raise AssertionError(f"{uid} is nowhere")


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    where = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="harness-test-", dir=where, ignore_cleanup_errors=True) as folder:
        made = Box(Path(folder))
        yield made
        made.world.close()


def answered(box: Box, name: str, raw: bytes) -> None:
    admission = box.throw(name, raw)
    assert not (admission.items and admission.rejected)
    if not admission.items and not admission.rejected:  # all of a batch was there already
        (batch,) = box.world.layout.queue.glob(f"batches/*/{admission.drop}/batch")
        assert json.loads(batch.read_text())["present"]
    assert box.kept(admission) == raw
    assert not box.world.incoming()
    for uid, _, phase in admission.items:
        assert (box.world.layout.queue / phase / uid / "item.json").exists()


@pytest.mark.uncovered
@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_drop_is_answered_in_time_and_kept(box: Box, name: str) -> None:
    suffix, raw = COSTLY[name]
    assert len(raw) <= CAP
    answered(box, f"costly{suffix}", raw)


SEEDS = (
    b'{"prompt": "do it"}',
    b'\xef\xbb\xbf{"prompt": "do it", "id": "a", "labels": {"x": "y"}}',
    b'[{"prompt": "1", "id": "one"}, {"prompt": "2", "depends_on": ["one", {"id": "z", "optional": true}]}]',
    b'{"prompt": "a", "files": ["src/**"], "not_before": "2027-01-01T00:00:00Z", "max_attempts": 3, "timeout_s": 1.5}',
    b'{"prompt": "\\ud83d\\ude00 \\u00e9", "source": {"deep": [[[[{"a": [1, 2.5e3, -0, null, true]}]]]]}}',
    b'{"prompt": "a"}\n\n{"prompt": "b", "priority": "high"}\n',
    b"prompt: do it\npriority: high\nfiles:\n  - src/**\nlabels: {a: b}\n",
    b"- prompt: |\n    one\n    two\n- prompt: 'it''s'\n  agent: [claude, shell]\n  timeout_s: 1e3\n",
    b'prompt: "a\\u00e9\\n"\nsource: {a: 0x1F, b: 1_000, c: .5, d: ~, e: 2027-01-01, f: 12:30, g: yes}\n',
)
TOKENS = (
    *(b'{ } [ ] " : , \\ \\u0000 \\ud800 \\udfff NaN -Infinity 1e999 null true "prompt" "id" * & ! !! << - ? | >'.split()),
    *(b"!!python/object/apply:os.system !!binary !!set !!int !!float !!timestamp --- ... %YAML &a *a 0x 0b1 .inf".split()),
    *(b"\n", b"\r\n", b"\t", b" " * 9, b"\0", b"\x07", b"\x85", b"\xff", b"\xc3", b"\xef\xbb\xbf", b"\xed\xa0\x80"),
    *("\u202e\u2028😀\ufffe".encode(), b"9" * 400, b"1" + b":1" * 300 + b".5", b"0x" + b"f" * 4000),
    *(b"[" * 40, b'{"a":' * 40, b"- " * 70, b"? " * 9, b"x" * 5000, b'"' * 99, b"[" * 3000),
)  # fmt: skip
NAMES = st.tuples(
    st.one_of(
        st.sampled_from(["a", "plan", "-rf", "x" * 200]), st.binary(min_size=1, max_size=40).map(os.fsdecode)
    ),
    st.sampled_from([*DROP_SUFFIXES, ".JSON", ".Yml"]),
).map(lambda x: x[0].replace("/", "-").replace("\0", "-").lstrip("._") + "x" + x[1])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid drop, and what an editor, a disk or an enemy made of it."""
    raw = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        match draw(st.sampled_from(["cut", "flip", "put", "put", "copy", "drop", "other"])):
            case "cut":
                raw = raw[:at]
            case "flip" if at < len(raw):
                raw = raw[:at] + bytes([raw[at] ^ 1 << draw(st.integers(0, 7))]) + raw[at + 1 :]
            case "put":
                raw = raw[:at] + draw(st.sampled_from(TOKENS)) + raw[at:]
            case "copy":
                raw = raw[:at] + raw[at // 2 :] * draw(st.integers(1, 3))
            case "drop":
                raw = raw[:at] + raw[at + draw(st.integers(1, 9)) :]
            case _:
                raw = raw[:at] + draw(st.sampled_from(SEEDS))[at:]
    return raw


JSONISH = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 0.0, -0.0, 1e308, 2**63])
    | st.text(st.characters(), max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=4), x, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from([*Draft.model_fields, "rig", "deps", "name", "nope"]), JSONISH, max_size=6
)
CONTENT = st.one_of(
    mutated(),
    mutated(),
    st.binary(max_size=300),
    st.text(st.sampled_from("{}[]\",:-?&*!|>#%@` \n\t0x1.eab'\\\u00e9\u2028"), max_size=60).map(str.encode),
    JSONISH.map(lambda x: json.dumps(x).encode()),
    st.lists(FIELDS, min_size=1, max_size=4).map(
        lambda x: json.dumps([{"prompt": "x", **f} for f in x]).encode()
    ),
    FIELDS.map(
        lambda x: json.dumps({"prompt": "x", **x}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ),
    st.lists(FIELDS, max_size=4).map(lambda x: "\n".join(json.dumps(f) for f in x).encode()),
)
FUZZ = settings(
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(FUZZ, max_examples=300 * MORE)
@given(NAMES, CONTENT)
def test_any_content_of_any_drop_gets_an_answer(name: str, raw: bytes) -> None:
    fits(name, raw, least(lambda: parse(name, raw, CONTEXT), repr(raw[:200])))


@settings(FUZZ, max_examples=200 * MORE)
@given(NAMES, CONTENT)
def test_any_drop_is_taken_decided_and_kept_byte_for_byte(box: Box, name: str, raw: bytes) -> None:
    assert raw_name(name)
    answered(box, name, raw)


@pytest.mark.parametrize(
    "value",
    [
        "1" + ":1" * 300 + ".5",
        "0x" + "f" * 4000,
        "0b" + "1" * 20_000,
        "!!float " + "1:" * 400 + "1.5",
        "!!int 1:x",
        "!!int ''",
    ],
)
def test_no_number_of_yaml_is_too_much_for_the_admitter(box: Box, value: str) -> None:
    """Base-60 floats overflowed, and numbers that no JSON writer prints were found out too late: both ended the daemon."""
    answered(box, "number.yaml", f"prompt: x\nsource: {{a: {value}}}\n".encode())


def test_a_million_mistakes_make_a_short_rejection(box: Box) -> None:
    """A cell with all of them could not be read again, and stayed in incoming/ for ever."""
    raw = fill(ONE + '"depends_on":[', "1,", "1]}", size=3 << 19)
    admission = box.throw("million.json", raw)
    assert admission.rejected
    path = box.world.layout.queue / "rejected" / admission.drop / "why.json"
    assert path.stat().st_size < 100_000


def test_the_first_reasons_are_given_and_that_there_are_more() -> None:
    raw = ("[" + ",".join(['{"promt": "x"}'] * 200) + "]").encode()
    drop = parse("a.json", raw, CONTEXT)
    assert len(drop.reasons) == MAX_REASONS + 1
    assert "and more" in drop.reasons[-1].what


def test_two_names_of_one_field_are_refused() -> None:
    drop = parse("a.json", b'{"prompt": "x", "deps": ["a"], "dependencies": ["b"]}', CONTEXT)
    assert ["keep one" in r.what for r in drop.reasons] == [True, True]
