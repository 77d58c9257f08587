"""The command group: finds a verb's module when it is used, and turns every error into its exit code, here only."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

from harness import __version__
from harness.cli.verb import Invocation, common_options
from harness.errors import HarnessError

SECTIONS: dict[str, dict[str, str]] = {
    "Start": {
        "init": "init",
        "demo": "demo",
        "run": "run",
        "service": "service",
    },
    "Work": {
        "add": "add",
        "submit": "submit",
        "wait": "wait",
        "retry": "acts",
        "park": "acts",
        "cancel": "acts",
        "boost": "acts",
    },
    "Look": {
        "status": "status",
        "items": "items",
        "show": "show",
        "diff": "diff",
        "events": "events",
        "logs": "logs",
        "sessions": "sessions",
        "session": "session",
        "spend": "spend",
    },
    "Steer": {
        "pause": "pool",
        "resume": "pool",
        "drain": "pool",
        "stop": "pool",
    },
    "Keep it well": {
        "doctor": "doctor",
        "fsck": "fsck",
        "config": "config",
        "reap": "reap",
        "completion": "completion",
    },
}
"""Verb -> its module in this package; the object in it has the verb's name."""
VERBS = {name: module for section in SECTIONS.values() for name, module in section.items()}
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141


class LazyGroup(click.Group):
    """Imports the module of a verb when it is looked up."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = import_module(f"harness.cli.{VERBS[cmd_name]}")
        command = getattr(module, f"{cmd_name}_", None) or getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as e:
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS, 1)
            if not near or "Did you mean" in e.message:
                raise
            raise click.UsageError(f"{e.message} Did you mean {near[0]!r}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, verbs in SECTIONS.items():
            commands = ((name, self.get_command(ctx, name)) for name in verbs)
            rows = [(name, command.get_short_help_str(100)) for name, command in commands if command]
            with formatter.section(title):
                formatter.write_dl(rows, col_max=12)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Also for tests (CliRunner calls this): ends with SystemExit and our exit code."""
        argv = args[0] if args else kwargs.get("args")
        sys.exit(run(self, None if argv is None else list(argv)))


def run(group: click.Group, argv: list[str] | None) -> int:
    """Run one command line. -> the exit code; what went wrong is on stderr."""
    invocation = Invocation()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character
    try:
        code = click.Group.main(
            group,
            argv,
            prog_name="harnessctl",
            standalone_mode=False,
            obj=invocation,
            color=False if os.environ.get("NO_COLOR") else None,
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.ClickException as e:
        e.show()
        return e.exit_code
    except HarnessError as e:
        _say(str(e))
        return e.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `harnessctl items | head`: nobody reads on, and the interpreter must not complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except OSError as e:
        _trace(invocation)
        place = f"{e.filename!s}: " if e.filename else ""
        _say(f"{place}{e.strerror or e}\n  {_os_remedy(e)}")
        return 1
    except Exception as e:  # noqa: BLE001 - the last one who can say what to do about it
        _say(f"unexpected error, a bug: {type(e).__name__}: {e}")
        if not _trace(invocation):
            _say("  please report it, with what `harnessctl -v ...` prints and `harnessctl --version`")
        return 1


def _say(text: str) -> None:
    from harness.terminal import printable

    head = "" if text.startswith("  ") else "harnessctl: "
    click.echo(head + printable(text), err=True)


def _trace(invocation: Invocation) -> bool:
    """With -v the traceback of the exception that is being handled."""
    if invocation.verbose:
        import traceback

        traceback.print_exc()
    return invocation.verbose


def _os_remedy(error: OSError) -> str:
    folder = os.path.dirname(str(error.filename or "")) or "."
    match error:
        case PermissionError():
            return f"run it as a user who may do that (see: ls -ld {folder})"
        case FileNotFoundError() | NotADirectoryError():
            return f"see its spelling, and what is there: ls -ld {folder}"
        case FileExistsError() | IsADirectoryError():
            return "see what is there; move it away, or choose another name"
        case _:
            return "see the disk and its mount (df, dmesg); harnessctl doctor checks both"


harnessctl = LazyGroup(
    "harnessctl",
    params=common_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Run a fleet of coding agents: drop work in, get merged, tested commits out.",
    epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 conflict or already running, 75 try again, "
    "78 configuration.",
)
harnessctl = click.version_option(__version__, "--version", prog_name="harnessctl")(harnessctl)
