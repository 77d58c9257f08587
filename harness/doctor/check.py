"""One finding of the doctor."""

from __future__ import annotations

from enum import StrEnum

from harness.dataclass import dataclass


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"  # it works, but not as well or as safely as it could
    FAIL = "fail"  # something will not work


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    name: str
    level: Level
    detail: str
    remedy: str = ""


def ok(name: str, detail: str) -> Check:
    return Check(name=name, level=Level.OK, detail=detail)


def warn(name: str, detail: str, remedy: str) -> Check:
    return Check(name=name, level=Level.WARN, detail=detail, remedy=remedy)


def fail(name: str, detail: str, remedy: str) -> Check:
    return Check(name=name, level=Level.FAIL, detail=detail, remedy=remedy)
