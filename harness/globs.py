"""Globs of paths inside of a repository: an item's `files`, a project's `protected`. Exact, and linear in time.

* A path is compared whole, from the top of the tree, case-sensitively; `/` separates, on every system.
* ``*`` is any text within one name (also none, also a leading dot), ``?`` one character of a name.
* ``**`` as a whole name is any number of folders, also none: ``src/**/x.py``, ``**/x.py``; at the end it is everything below.
* ``src/`` is everything below `src`. A pattern whose last name holds no wildcard also covers everything below it, so
  ``src`` and ``src/`` differ only for a *file* called `src`.
* ``[`` is an ordinary character: routers name folders ``[id]``.
* A leading ``./`` is dropped. A pattern that is empty, absolute or holds ``..`` matches nothing: no way out of the tree.
"""

from __future__ import annotations

from collections.abc import Iterable


def matches(path: str, pattern: str) -> bool:
    """Whether `pattern` covers `path`; both as git prints them, with `/`."""
    names = _names(pattern)
    return bool(names) and _match(path.split("/"), names)


def matches_any(path: str, patterns: Iterable[str]) -> bool:
    return any(matches(path, pattern) for pattern in patterns)


def _names(pattern: str) -> list[str]:
    """The names of a pattern, with what is below it as a final ``**``; [] for one that can match nothing."""
    while pattern.startswith("./"):
        pattern = pattern[2:]
    if not pattern or pattern.startswith("/"):
        return []
    names = [name for name in pattern.split("/") if name not in ("", ".")]
    if not names or ".." in names:
        return []
    if pattern.endswith("/"):
        return [*names, "**", "*"]
    if names[-1] == "**":
        return [*names, "*"]
    if "*" not in names[-1] and "?" not in names[-1]:
        return [*names, "**"]
    return names


def _match(path: list[str], names: list[str]) -> bool:
    """Row by row as in an edit distance: O(len(path) * len(names)), so that no pattern is a trap."""
    reached = [True] + [False] * len(path)
    for name in names:
        if name == "**":
            first = reached.index(True) if True in reached else len(reached)
            reached = [i >= first for i in range(len(reached))]
        else:
            reached = [False] + [reached[i] and _name_matches(part, name) for i, part in enumerate(path)]
    return reached[-1]


def _name_matches(text: str, pattern: str) -> bool:
    """Greedy with one point of return, the last ``*``: the usual linear algorithm for wildcards."""
    t = p = 0
    star, kept = -1, 0
    while t < len(text):
        if p < len(pattern) and pattern[p] == "*":
            star, kept = p, t
            p += 1
        elif p < len(pattern) and pattern[p] in ("?", text[t]):
            t += 1
            p += 1
        elif star >= 0:
            kept += 1
            t, p = kept, star + 1
        else:
            return False
    return pattern[p:].strip("*") == ""
