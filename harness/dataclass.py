"""``@dataclass`` as in the standard library, without the functions that it writes and compiles anew for every class.

For one class `dataclasses.dataclass` compiles up to six functions: that was half of the time in which a worker starts.
Here equality, hash, representation and immutability are functions that all classes share, and ``__init__`` is compiled when
the first instance is made, which for most classes is never. Everything else is the library's: fields, replace, asdict,
match, slots, inheritance. Not here: order, unsafe_hash, InitVar.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, frozen: bool = False, slots: bool = False, kw_only: bool = False) -> Any:
        """The arguments mean what they mean to `dataclasses.dataclass`.

        Raises what that raises, but for a field without a default behind one with: a SyntaxError, when the first instance
        is made.
        """

        def decorate(cls: type[T]) -> type[T]:
            cls.__doc__ = cls.__doc__ or cls.__name__  # else its signature is looked for
            library = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)
            made = library(cls)
            own = {"__init__": _first_init(made, frozen), "__repr__": _repr, "__eq__": _eq, "__hash__": None}
            if frozen:
                own |= {"__hash__": _hash, "__setattr__": _setattr, "__delattr__": _delattr}
                own |= {"__getstate__": _getstate, "__setstate__": _setstate} if slots else {}
            given = made.__dict__.keys() & own.keys()
            if made.__dict__.get("__hash__", 0) is None and "__eq__" in given:
                given -= {"__hash__"}  # by Python, for a class with an __eq__ of its own
            for name in own.keys() - given:
                setattr(made, name, own[name])
            if any("InitVar" in str(f.type) for f in made.__dataclass_fields__.values()):
                raise TypeError(f"{made.__qualname__} has an InitVar: it needs the library's dataclass")
            return made

        return decorate


T = TypeVar("T")
_LATER = object()
"""The default of a parameter whose value is made by a factory."""
_compared: dict[type, Callable[[Any], object]] = {}


def _first_init(cls: type, frozen: bool) -> Callable[..., None]:
    def __init__(self: Any, /, *args: Any, **values: Any) -> None:  # noqa: N807 - it becomes one
        cls.__init__ = init = _init(cls, frozen)  # type: ignore[misc]
        init(self, *args, **values)

    __init__.__qualname__ = f"{cls.__qualname__}.__init__"
    return __init__


def _init(cls: type, frozen: bool) -> Callable[..., None]:
    """What `dataclasses` would have written."""
    names: dict[str, Any] = {"_later": _LATER, "_set": object.__setattr__}
    usual: list[str] = ["self"]
    by_name: list[str] = []
    body: list[str] = []
    for f in dataclasses.fields(cls):
        default, value = "", f.name
        if f.default is not dataclasses.MISSING:
            names[f"_default_{f.name}"] = f.default
            default = f"=_default_{f.name}"
            value = f.name if f.init else f"_default_{f.name}"
        elif f.default_factory is not dataclasses.MISSING:
            names[f"_make_{f.name}"] = f.default_factory
            default = "=_later"
            made = f"_make_{f.name}()"
            value = f"{made} if {f.name} is _later else {f.name}" if f.init else made
        elif not f.init:
            continue
        if f.init:
            (by_name if f.kw_only else usual).append(f.name + default)
        body.append(f"_set(self, {f.name!r}, {value})" if frozen else f"self.{f.name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = [*usual, *(["*", *by_name] if by_name else [])]
    text = f"def __init__({', '.join(parameters)}):\n " + "\n ".join(body or ["pass"])
    exec(compile(text, f"<__init__ of {cls.__qualname__}>", "exec"), names)  # noqa: S102 - of our own names only
    init: Callable[..., None] = names["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _values(self: Any) -> object:
    """Of the fields that are compared; of a single one itself."""
    cls = self.__class__
    get = _compared.get(cls)
    if get is None:
        names = [f.name for f in dataclasses.fields(cls) if f.compare]
        get = _compared[cls] = attrgetter(*names) if names else _no_values
    return get(self)


def _no_values(_: Any) -> object:
    return ()


def _eq(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


@reprlib.recursive_repr()
def _repr(self: Any) -> str:
    shown = (f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr)
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _setattr(_: Any, name: str, __: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(_: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, f.name) for f in dataclasses.fields(self)]


def _setstate(self: Any, state: Sequence[Any]) -> None:
    for f, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, f.name, value)
