"""Every exception of the project, each with the exit code that the command line returns for it.

An error says *what* was wrong, *where* (a path, a field, a line) and the *remedy* (what to do next).
Expected contention is a return value, never an exception; a broken protocol is one.
"""

from __future__ import annotations

from collections.abc import Iterable


class HarnessError(Exception):
    """Base of all errors that we raise on purpose. Exit code 1: the operation failed."""

    exit_code = 1

    def __init__(self, what: str, *, where: object = None, remedy: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.remedy = remedy
        super().__init__(self.__str__())

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f"\n  {self.remedy}" if self.remedy else ""
        return f"{place}{self.what}{advice}"


class UsageError(HarnessError):
    """The command line was used wrongly."""

    exit_code = 2


class NotFoundError(HarnessError):
    """No item, agent, project or root of that name."""

    exit_code = 3


class ConflictError(HarnessError):
    """Already running, already decided, or ambiguous."""

    exit_code = 4


class TryAgainError(HarnessError):
    """A passing condition (timeout, busy); the same call may succeed later."""

    exit_code = 75


class ConfigError(HarnessError):
    """config.yaml or a project it names cannot be used. All problems are reported at once."""

    exit_code = 78

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        remedy: str | None = None,
        problems: Iterable[str] = (),
    ) -> None:
        self.problems = tuple(problems)
        listing = "".join(f"\n  - {p}" for p in self.problems)
        super().__init__(what + listing, where=where, remedy=remedy)


class StoreError(HarnessError):
    """The store is not as the protocol left it (moved, repaired by hand, another version, lost).

    Crash-only: whoever raises it salvages, reports and ends the process (PROTOCOL, section 3).
    """


class UnreadableRecordError(StoreError):
    """One record of the store cannot be read: damaged, or written by another version. Its item is left alone and shown;
    the others go on.
    """


class GitError(HarnessError):
    """A git command of ours failed in a way that we do not expect."""
