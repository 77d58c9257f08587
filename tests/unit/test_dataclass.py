"""Our `dataclass` and the library's: the same class, made with less work."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, field
from typing import Any, ClassVar

import pytest

from harness.dataclass import dataclass

KINDS = [
    {"frozen": True, "slots": True, "kw_only": True},
    {"frozen": True, "slots": True},
    {"frozen": True},
    {"slots": True},
    {"slots": True, "kw_only": True},
    {},
]
Decorate = Callable[..., Any]


def made(decorate: Decorate, **kind: bool) -> Any:
    class Point:
        kind: ClassVar[str] = "point"
        x: int
        names: list[str] = field(default_factory=list)
        y: int = 2
        secret: str = field(default="s", repr=False)
        note: str = field(default="", compare=False)
        counted: list[int] = field(default_factory=list, init=False)
        fixed: int = field(default=9, init=False)
        later: str = field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "later", f"{self.x},{self.y}")

        def total(self) -> int:
            return self.x + self.y

    return decorate(**kind)(Point)


@pytest.fixture(params=KINDS, ids=lambda kind: " ".join(kind) or "plain")
def both(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return made(dataclass, **request.param), made(dataclasses.dataclass, **request.param)


def outcome(act: Callable[[], object]) -> object:
    """What it returns; of an error its kind, since words differ between versions of Python."""
    try:
        return act()
    except Exception as e:  # noqa: BLE001 - whatever it is, the other one must raise it, too
        return type(e)


@pytest.mark.parametrize(
    "act",
    [
        lambda cls: repr(cls(x=1)),
        lambda cls: repr(cls(x=1, names=["n"], y=5, note="n")),
        lambda cls: cls(1),
        lambda cls: repr(cls(1, ["n"], 3)),
        lambda cls: cls(),
        lambda cls: cls(x=1, z=2),
        lambda cls: cls(x=1, fixed=2),
        lambda cls: cls(x=1) == cls(x=1),
        lambda cls: cls(x=1) == cls(x=2),
        lambda cls: cls(x=1, note="a") == cls(x=1, note="b"),
        lambda cls: cls(x=1, secret="a") == cls(x=1, secret="b"),
        lambda cls: cls(x=1) == 1,
        lambda cls: cls(x=1) != cls(x=1),
        lambda cls: cls(x=1) < cls(x=2),
        lambda cls: cls(x=1, names=()).names,
        lambda cls: cls(x=1).names is cls(x=1).names,
        lambda cls: {f.name: (f.type, f.init, f.repr, f.compare, f.kw_only) for f in dataclasses.fields(cls)},
        lambda cls: dataclasses.asdict(cls(x=1)),
        lambda cls: repr(dataclasses.replace(cls(x=1), y=7)),
        lambda cls: dataclasses.replace(cls(x=1), y=7).later,
        lambda cls: setattr(cls(x=1), "x", 2),
        lambda cls: delattr(cls(x=1), "x"),
        lambda cls: cls.__match_args__,
        lambda cls: hasattr(cls(x=1), "__dict__"),
        lambda cls: sorted(getattr(cls, "__slots__", ())),
        lambda cls: cls.kind,
        lambda cls: cls(x=1).total(),
        lambda cls: repr(copy.copy(cls(x=1, names=["a"]))),
        lambda cls: repr(copy.deepcopy(cls(x=1, names=["a"]))),
        lambda cls: cls.__qualname__,
        lambda cls: cls.__init__.__qualname__,
        lambda cls: cls.__hash__ is None,
        lambda cls: hash(cls(x=1)),  # it has a list
    ],
)
def test_it_does_what_the_library_does(both: tuple[Any, Any], act: Callable[[Any], object]) -> None:
    ours, theirs = (outcome(lambda kind=kind: act(kind)) for kind in both)  # type: ignore[misc]
    assert ours == theirs or (isinstance(ours, both[0]) and isinstance(theirs, both[1]))


@dataclass(frozen=True, slots=True)
class Value:
    a: int
    b: str = "b"


@dataclass(frozen=True, slots=True)
class More(Value):
    c: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return "mine"


class Plain(More):
    pass


@dataclass(frozen=True)
class Nothing:
    pass


@dataclass()
class Knot:
    itself: Any = None


def test_values_are_hashed_by_what_they_hold() -> None:
    assert len({Value(1), Value(1), Value(2), More(1), Nothing(), Nothing()}) == 4


def test_a_frozen_value_says_what_it_refuses() -> None:
    value = Value(1)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'a'"):
        value.a = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'a'"):
        del value.a
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'other'"):
        value.other = 2  # type: ignore[attr-defined]  # TypeError in the library of 3.11
    assert value == Value(1)


def test_classes_inherit_and_keep_what_they_define_themselves() -> None:
    assert repr(More(1, c=(2,))) == "mine"
    assert More(1, "x", (2,)) == More(1, "x", (2,)) != Value(1, "x")
    assert (Plain(1).a, Plain(1) == Plain(1), Plain(1) == More(1)) == (1, True, False)


def test_values_survive_pickle() -> None:
    assert pickle.loads(pickle.dumps(More(1, c=(3,)))) == More(1, c=(3,))


def test_what_holds_itself_can_be_shown() -> None:
    knot = Knot()
    knot.itself = knot
    assert repr(knot) == "Knot(itself=...)"


def test_no_init_is_compiled_before_there_is_an_instance() -> None:
    fresh = made(dataclass, slots=True)
    assert fresh.__init__.__code__.co_varnames[:3] == ("self", "args", "values")
    fresh(1)
    assert fresh.__init__.__code__.co_varnames[:3] == ("self", "x", "names")


@pytest.mark.parametrize("decorate", [dataclass, dataclasses.dataclass])
def test_a_frozen_class_with_an_equality_of_its_own_has_a_hash(decorate: Decorate) -> None:
    class Near:  # noqa: PLW1641 - that it gets one is what is tested
        x: int

        def __eq__(self, other: object) -> bool:
            return isinstance(other, type(self)) and abs(self.x - other.x) < 2

    near = decorate(frozen=True)(Near)
    assert near(1) == near(2)
    assert hash(near(1)) == hash(near(1))


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(TypeError, match="library's dataclass"):

        @dataclass()
        class Refused:
            x: dataclasses.InitVar[int]
