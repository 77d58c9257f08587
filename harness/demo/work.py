"""The plan of the demo: the repository as it begins, a dozen items, and what the scripted agent makes of each.

Imported by the agent too, in every attempt: only the standard library. The files are the ones of a small library that
counts words; each item adds one module and its tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from textwrap import dedent

from harness.dataclass import dataclass

PROJECT = "wordkit"


class Manner(StrEnum):
    """How the scripted agent goes about an item."""

    CAREFUL = "careful"  # writes, runs the tests, commits
    CARELESS = "careless"  # commits without running the tests, until a gate tells it what is red
    STUBBORN = "stubborn"  # the same, and takes no advice before the next attempt
    SLOW = "slow"  # takes its time in the first attempt, so that the demo can kill its worker half-way
    LATE = "late"  # commits only after a rival for the same line was merged: a conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One item, and what becomes of it. Paths are relative to the repository."""

    id: str
    title: str
    files: Mapping[str, str] = field(default_factory=dict)
    """What a good attempt writes."""
    wrong: Mapping[str, str] = field(default_factory=dict)
    """What a careless one writes instead."""
    appends: str = ""
    """A word for the list in `FORMATS`, added to whatever is there."""
    manner: Manner = Manner.CAREFUL
    after: tuple[str, ...] = ()
    priority: str = "medium"
    think_s: float = 1.0

    @property
    def prompt(self) -> str:
        return f"{self.title}, with tests. Keep to the style of the modules that are there."


def _text(source: str) -> str:
    return dedent(source).lstrip("\n")


def _module(name: str, source: str) -> tuple[str, str]:
    return f"{PROJECT}/{name}.py", _text(source)


def _tests(name: str, function: str, *cases: str) -> tuple[str, str]:
    """A file of unit tests; each case is one expression that must be true."""
    lines = [
        "import unittest",
        "",
        f"from {PROJECT}.{name} import {function}",
        "",
        "",
        f"class {function.title().replace('_', '')}Test(unittest.TestCase):",
    ]
    for k, case in enumerate(cases, 1):
        lines += [f"    def test_{function.lower()}_{k}(self):", f"        {case}", ""]
    return f"tests/test_{function.lower()}.py", "\n".join(lines)


FORMATS = f"{PROJECT}/formats.py"

REPOSITORY: Mapping[str, str] = {
    "README.md": _text(
        """
        # wordkit

        Counts words. This repository was made by `harnessctl demo`: agents wrote everything but the first commit.
        """
    ),
    ".gitignore": "__pycache__/\n",
    f"{PROJECT}/__init__.py": '"""Counts words."""\n',
    FORMATS: '"""What a report can be written as."""\n\nFORMATS = ["plain"]\n',
    "tests/__init__.py": "",
    "tests/test_plain.py": _text(
        """
        import unittest

        from wordkit.formats import FORMATS


        class PlainTest(unittest.TestCase):
            def test_plain_comes_first(self):
                self.assertEqual(FORMATS[0], "plain")
        """
    ),
}
"""The first commit."""


def _format(name: str) -> tuple[str, str]:
    path, text = _tests("formats", "FORMATS", f'self.assertIn("{name}", FORMATS)')
    return path.replace("formats", f"format_{name}"), text.replace("FormatsTest", f"{name.title()}Test")


HTML = Work(
    id="format-html",
    title="Reports in HTML",
    files=dict([_format("html")]),
    appends="html",
    manner=Manner.LATE,
    priority="high",
)
MARKDOWN = Work(
    id="format-markdown",
    title="Reports in Markdown",
    files=dict([_format("markdown")]),
    appends="markdown",
    priority="high",
    think_s=0.6,
)
CONCORDANCE = Work(
    id="concordance",
    title="A concordance: every word with its lines",
    files=dict(
        [
            _module(
                "concordance",
                '''
                """Where each word stands."""

                import re


                def concordance(text):
                    """Word -> numbers of its lines, counted from 1."""
                    found = {}
                    for number, line in enumerate(text.splitlines(), 1):
                        for word in sorted(set(re.findall(r"[a-z']+", line.lower()))):
                            found.setdefault(word, []).append(number)
                    return found
                ''',
            ),
            _tests(
                "concordance",
                "concordance",
                'self.assertEqual(concordance("a b\\nb"), {"a": [1], "b": [1, 2]})',
                'self.assertEqual(concordance(""), {})',
            ),
        ]
    ),
    manner=Manner.SLOW,
    priority="high",
    think_s=0.2,
)
TOKENS = Work(
    id="tokens",
    title="Split text into words",
    priority="high",
    files=dict(
        [
            _module(
                "tokens",
                '''
                """Words of a text."""

                import re


                def tokens(text):
                    """Words in order, in lower case."""
                    return re.findall(r"[a-z']+", text.lower())
                ''',
            ),
            _tests(
                "tokens",
                "tokens",
                'self.assertEqual(tokens("Hello, world!"), ["hello", "world"])',
                'self.assertEqual(tokens("Don\'t"), ["don\'t"])',
            ),
        ]
    ),
)
COUNTS = Work(
    id="counts",
    title="Count the words of a text",
    after=("tokens",),
    files=dict(
        [
            _module(
                "counts",
                '''
                """How often each word is used."""

                from collections import Counter

                from wordkit.tokens import tokens


                def counts(text):
                    """Word -> number."""
                    return Counter(tokens(text))
                ''',
            ),
            _tests("counts", "counts", 'self.assertEqual(counts("a b a")["a"], 2)'),
        ]
    ),
)
TOP = Work(
    id="top-words",
    title="The most frequent words",
    after=("counts",),
    files=dict(
        [
            _module(
                "top",
                '''
                """The words that are used most."""

                from wordkit.counts import counts


                def top_words(text, number=3):
                    """[(word, count)], the most frequent first; ties in alphabetical order."""
                    return sorted(counts(text).items(), key=lambda pair: (-pair[1], pair[0]))[:number]
                ''',
            ),
            _tests("top", "top_words", 'self.assertEqual(top_words("b a b", 1), [("b", 2)])'),
        ]
    ),
)
SENTENCES = Work(
    id="sentences",
    title="Split text into sentences",
    files=dict(
        [
            _module(
                "sentences",
                '''
                """Sentences of a text."""

                import re


                def sentences(text):
                    """Sentences in order, without what separates them."""
                    return [part.strip() for part in re.split(r"[.!?]+", text) if part.strip()]
                ''',
            ),
            _tests("sentences", "sentences", 'self.assertEqual(sentences("One. Two!"), ["One", "Two"])'),
        ]
    ),
)
READING = Work(
    id="reading-time",
    title="How long a text takes to read",
    after=("tokens",),
    files=dict(
        [
            _module(
                "reading",
                '''
                """How long a text takes to read."""

                from wordkit.tokens import tokens

                WORDS_PER_MINUTE = 240


                def reading_time(text):
                    """Whole minutes, at least one."""
                    return max(1, -(-len(tokens(text)) // WORDS_PER_MINUTE))
                ''',
            ),
            _tests(
                "reading",
                "reading_time",
                'self.assertEqual(reading_time("short"), 1)',
                'self.assertEqual(reading_time("word " * 241), 2)',
            ),
        ]
    ),
)

_SLUG_TESTS = _tests(
    "slugs",
    "slug",
    'self.assertEqual(slug("Hello World"), "hello-world")',
    'self.assertEqual(slug("Hello -- World"), "hello-world")',
)
SLUGS = Work(
    id="slugs",
    title="Turn a title into a slug",
    manner=Manner.CARELESS,
    files=dict(
        [
            _module(
                "slugs",
                '''
                """Titles as parts of an address."""

                import re


                def slug(title):
                    """Lower case, words joined by single dashes."""
                    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
                ''',
            ),
            _SLUG_TESTS,
        ]
    ),
    wrong=dict(
        [
            _module(
                "slugs",
                '''
                """Titles as parts of an address."""


                def slug(title):
                    """Lower case, words joined by single dashes."""
                    return title.lower().replace(" ", "-")
                ''',
            ),
            _SLUG_TESTS,
        ]
    ),
)

_HEADLINE_TESTS = _tests(
    "headlines",
    "headline",
    'self.assertEqual(headline("war and peace"), "War and Peace")',
    'self.assertEqual(headline("of mice"), "Of Mice")',
)
HEADLINES = Work(
    id="headlines",
    title="Headlines in title case, small words kept small",
    manner=Manner.STUBBORN,
    think_s=0.7,
    files=dict(
        [
            _module(
                "headlines",
                '''
                """Titles as they are printed."""

                SMALL = {"a", "an", "and", "of", "the"}


                def headline(title):
                    """Every word with a capital, but small words inside."""
                    words = title.split()
                    return " ".join(w if k and w in SMALL else w.capitalize() for k, w in enumerate(words))
                ''',
            ),
            _HEADLINE_TESTS,
        ]
    ),
    wrong=dict(
        [
            _module(
                "headlines",
                '''
                """Titles as they are printed."""


                def headline(title):
                    """Every word with a capital, but small words inside."""
                    return title.title()
                ''',
            ),
            _HEADLINE_TESTS,
        ]
    ),
)
INITIALS = Work(
    id="initials",
    title="Initials of a name",
    priority="low",
    files=dict(
        [
            _module(
                "initials",
                '''
                """Names, short."""


                def initials(name):
                    """The first letter of each word, as capitals."""
                    return "".join(word[0].upper() for word in name.split())
                ''',
            ),
            _tests("initials", "initials", 'self.assertEqual(initials("ada lovelace"), "AL")'),
        ]
    ),
)
REPORT = Work(
    id="report",
    title="A command: python3 -m wordkit FILE",
    after=("top-words", "reading-time", "sentences"),
    files=dict(
        [
            _module(
                "__main__",
                '''
                """python3 -m wordkit FILE: a short report."""

                import sys
                from pathlib import Path

                from wordkit.reading import reading_time
                from wordkit.sentences import sentences
                from wordkit.top import top_words


                def report(text):
                    """Lines for people."""
                    top = ", ".join(f"{word} ({number})" for word, number in top_words(text))
                    return [
                        f"sentences     {len(sentences(text))}",
                        f"reading time  {reading_time(text)} min",
                        f"top words     {top}",
                    ]


                if __name__ == "__main__":
                    print("\\n".join(report(Path(sys.argv[1]).read_text())))
                ''',
            ),
            _tests("__main__", "report", 'self.assertEqual(len(report("One. Two.")), 3)'),
        ]
    ),
)

FIRST = (HTML,)
"""Dropped first: its agent must have begun before its rival is there."""
SINGLE = (MARKDOWN, CONCORDANCE, TOKENS, COUNTS, TOP, READING, REPORT, SLUGS)
"""Dropped as one `.json` file each."""
BATCH = (SENTENCES, HEADLINES, INITIALS)
"""Dropped as one `.jsonl` file."""
PLAN: Mapping[str, Work] = {work.id: work for work in (*FIRST, *SINGLE, *BATCH)}
