"""Copies of the product's generators, made of their source: of a mutant, or with a smaller bound than the product's."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any

from harness.model import MAX_RELEASES, Record

STORE = "harness.store"
HUB = "harness.hub"
MODULES = {
    name: f"{package}.{name}"
    for package, names in (
        (STORE, "cells names decisions batches admission promotion attempts operators lane sweeping"),
        (HUB, "publishing trailers"),
    )
    for name in names.split()
}
"""Those that hold generators or rules, in the order of their imports. Whatever else they import is the product's own."""


@lru_cache
def source(module: str) -> str:
    path = import_module(MODULES[module]).__file__
    assert path is not None
    return Path(path).read_text("utf-8")


def bounded(releases: int) -> SimpleNamespace:
    """The store as it ships, but for that bound."""
    return load({module: source(module) for module in MODULES}, releases)


@lru_cache(256)
def _compiled(module: str, text: str) -> CodeType:
    return compile(text, f"<{module}>", "exec", dont_inherit=True)


def load(sources: Mapping[str, str], releases: int = MAX_RELEASES) -> SimpleNamespace:
    """A copy of the store's generators, made of `sources`, which parks an item after more than so many releases.
    `sys.modules` stays as it is.

    Modules of the copy import each other; everything else is the product's. So are the classes of records: they are what
    both sides of a model read, and their text is not what a mutant is about.
    """
    copies: dict[str, ModuleType] = {}

    def imported(
        name: str,
        globals_: Mapping[str, object] | None = None,
        locals_: Mapping[str, object] | None = None,
        fromlist: tuple[str, ...] = (),
        level: int = 0,
    ) -> Any:
        if name == STORE and fromlist:
            whole = import_module(STORE)
            return SimpleNamespace(**{x: copies.get(f"{STORE}.{x}") or getattr(whole, x) for x in fromlist})
        return copies.get(name) or builtins.__import__(name, globals_, locals_, fromlist, level)

    for module, text in sources.items():
        name = MODULES[module]
        real = import_module(name)
        copy = copies[name] = ModuleType(name)
        copy.__dict__["__builtins__"] = {**vars(builtins), "__import__": imported}
        exec(_compiled(module, text), copy.__dict__)
        for key, value in vars(real).items():
            if isinstance(value, type) and issubclass(value, Record):
                setattr(copy, key, value)
    copies[MODULES["cells"]].__dict__["MAX_RELEASES"] = releases
    shared = {"ops": import_module(f"{STORE}.ops")}
    return SimpleNamespace(**{module: copies[MODULES[module]] for module in sources}, **shared)
