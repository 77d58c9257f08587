"""What every verb shares: a summary and an example in its help, `--root`, `-v`, `-q` wherever they are written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.dataclass import dataclass
from harness.layout import Layout
from harness.root import find_root

if TYPE_CHECKING:
    from harness.config import Config
    from harness.control.desk import Desk

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Invocation:
    """What the command line said before and besides the verb. Opens what a verb asks for, and nothing else."""

    root: str | None = None
    verbose: bool = False
    quiet: bool = False
    _layout: Layout | None = field(default=None, repr=False)

    def layout(self) -> Layout:
        """Raises NotFoundError when there is no root."""
        if self._layout is None:
            self._layout = find_root(self.root)
        return self._layout

    def desk(self, *, any_format: bool = False) -> Desk:
        """To be used as a context. Raises NotFoundError, ConfigError, StoreError."""
        from harness import logs
        from harness.control.desk import Desk

        logs.configure(
            "harnessctl", stream=sys.stderr, level=logs.Level.DEBUG if self.verbose else logs.Level.ERROR
        )
        return Desk(self.layout(), any_format=any_format)

    def config(self) -> Config:
        """Raises ConfigError with every problem."""
        from harness.config import load

        layout = self.layout()
        return load(layout.config, cache=layout.validated)

    def note(self, text: str) -> None:
        """Something a person may want to know and a program does not: to stderr, not with --quiet."""
        if not self.quiet:
            from harness.terminal import printable

            click.echo(printable(text), err=True)


invoked = click.make_pass_decorator(Invocation, ensure=True)
"""Gives a verb its Invocation as the first argument."""


def common_options() -> list[click.Parameter]:
    """--root, -v and -q, for the group and again for each verb (hidden there)."""

    def keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
        def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
            if value:
                setattr(ctx.ensure_object(Invocation), name, value)

        return callback

    return [
        click.Option(
            ["--root"],
            metavar="DIR",
            expose_value=False,
            callback=keep("root"),
            help="The root to work on. Default: $HARNESS_ROOT, else the nearest parent that is one.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=keep("verbose"),
            help="Say more; show the traceback of an unexpected error.",
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=keep("quiet"),
            help="Say only what was asked for.",
        ),
    ]


class Verb(click.Command):
    """A command with an example."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        _hide_common(self)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_example(formatter, self.example)
        super().format_epilog(ctx, formatter)


def write_example(formatter: click.HelpFormatter, example: str) -> None:
    with formatter.section("Example"):
        for line in example.splitlines():
            formatter.write(f"{' ' * formatter.current_indent}{line}\n")


class VerbGroup(click.Group):
    """A verb with verbs of its own, such as `config check`."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        _hide_common(self)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_example(formatter, self.example)
        super().format_epilog(ctx, formatter)


def _hide_common(command: click.Command) -> None:
    for option in common_options():
        assert isinstance(option, click.Option)
        option.hidden = True
        command.params.append(option)


def verb(name: str, *, example: str, **attributes: Any) -> Callable[[Callable[..., Any]], Verb]:
    """Makes a function a command. Its docstring's first line is the summary."""

    def wrap(function: Callable[..., Any]) -> Verb:
        return click.command(name, cls=Verb, example=example, **attributes)(function)

    return wrap


def json_option(function: F) -> F:
    """--json, as every reading verb has it."""
    return click.option("--json", "as_json", is_flag=True, help="For programs: JSON with a schema_version.")(
        function
    )
