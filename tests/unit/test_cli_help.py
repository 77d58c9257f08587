"""Every verb has a summary, an example, and a place in docs/cli.md; the top of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from harness.cli.group import VERBS, harnessctl
from harness.cli.verb import Verb, VerbGroup
from tests.cli import ctl
from tests.support import ROOT


def verbs() -> Iterator[tuple[str, click.Command]]:
    ctx = click.Context(harnessctl, info_name="harnessctl")
    for name in VERBS:
        command = harnessctl.get_command(ctx, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for below, inner in command.commands.items():
                yield f"{name} {below}", inner


ALL = dict(verbs())


@pytest.mark.parametrize("name", ALL)
def test_a_verb_has_a_summary_of_one_line_and_an_example(name: str) -> None:
    command = ALL[name]
    assert isinstance(command, Verb | VerbGroup)
    summary = (command.help or "").splitlines()[0]
    assert 10 <= len(summary) <= 80
    assert summary.endswith((".", "?"))
    assert f"harnessctl {name.split(maxsplit=1)[0]}" in command.example
    said = ctl(None, *name.split(), "--help")
    assert said.code == 0
    assert summary in said.out
    assert "Example:" in said.out


@pytest.mark.parametrize("name", ALL)
def test_every_option_of_a_verb_is_explained(name: str) -> None:
    for option in ALL[name].params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.opts}"


@pytest.mark.parametrize("name", ALL)
def test_a_verb_is_in_the_documentation(name: str) -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    assert re.search(rf"`{re.escape(name)}\b", text), f"docs/cli.md does not mention `{name}`"


def test_the_documentation_names_no_verb_that_does_not_exist() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    used = set(re.findall(r"harnessctl(?: --?[\w-]+(?: [A-Z]+)?)* ([a-z]+)", text))
    assert used <= VERBS.keys(), used - VERBS.keys()


def test_no_message_and_no_page_sends_a_person_to_a_verb_that_does_not_exist() -> None:
    pages = [
        ROOT / "README.md",
        ROOT / "ARCHITECTURE.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "systemd").iterdir(),
    ]
    named: dict[str, str] = {}
    for path in (*pages, *(ROOT / "harness").rglob("*.py")):
        text = path.read_text() if path.exists() else ""
        for verb in re.findall(r"""[`"':$&] ?harnessctl(?: -[\w-]+(?: [A-Z]+)?)* ([a-z]+)""", text):
            named.setdefault(verb, path.name)
    assert {verb: place for verb, place in named.items() if verb not in VERBS} == {}


def test_the_help_lists_every_verb() -> None:
    said = ctl(None, "--help")
    assert said.code == 0
    for name in VERBS:
        assert re.search(rf"^  {name} ", said.out, re.MULTILINE), name


def test_the_version_is_told() -> None:
    assert re.fullmatch(r"harnessctl, version \d+\.\d+\.\d+.*\n", ctl(None, "--version").out)


def test_a_verb_that_is_nearly_right_is_corrected() -> None:
    said = ctl(None, "statsu")
    assert said.code == 2
    assert "status" in said.err


def test_completion_offers_a_script_for_each_shell() -> None:
    for shell in ("bash", "zsh", "fish"):
        said = ctl(None, "completion", shell)
        assert said.code == 0
        assert "_HARNESSCTL_COMPLETE" in said.out
