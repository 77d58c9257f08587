"""What was validated once is not validated again, until something that it was made of is different."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import config
from harness.config import validation
from harness.config.source import Source
from harness.errors import ConfigError
from harness.layout import Layout
from tests.support import environment

TEXT = """\
v: 1
workers: 8
projects:
  app:
    path: app
    setup: {run: "npm ci", inputs: [package-lock.json], timeout_s: 60}
    copy: [.env]
    gates: [{name: tests, run: "pytest -q", timeout_s: 10.5}, {name: lint, run: "ruff check .", required: false}]
    merge: {publish: none, gates: [tests], checkout: update}
agents:
  tool:
    adapter: command
    argv: [tool, "{prompt_file}"]
    env: {N: 3, TOKEN: "${TOKEN}", WORD: "grüße"}
    exit_codes: {0: ok, "*": crash}
    patterns: [{match: '(?i)rate.?limit', class: rate_limit, retry_after: 'after (\\d+)'}]
    stop: [INT, 5, KILL]
    credential: team
    stall_s: 7
credentials:
  team: {variable: API_KEY, file: key.txt}
budgets: {day: {usd: 20}, convoys: {login: {tokens: 100}}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(TEXT)
    return tmp_path / "config.yaml"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch) -> list[Source]:
    """One entry for each time that something was validated."""
    seen: list[Source] = []
    really = validation.validate

    def validate(source: Source) -> config.Config:
        seen.append(source)
        return really(source)

    monkeypatch.setattr(validation, "validate", validate)
    return seen


def test_the_second_process_reads_what_the_first_one_validated(
    path: Path, cache: Path, validated: list[Source]
) -> None:
    first = config.load(path, cache=cache, environ={})
    second = config.load(path, cache=cache, environ={})
    assert len(validated) == 1
    assert second == first == config.load(path, environ={})
    assert second.origins == first.origins
    assert second.origin("workers") == "config.yaml:2:10"
    assert second.secrets == (path.parent / "key.txt",)
    assert repr(second) == repr(first)  # the types, too: a number that was a float is one


def test_what_is_kept_is_for_us_alone_and_holds_no_secret(path: Path, cache: Path) -> None:
    config.load(path, cache=cache, environ={"TOKEN": "sesame", "API_KEY": "sesame"})
    assert cache.stat().st_mode & 0o777 == 0o600
    assert "sesame" not in cache.read_text()
    assert sorted(os.listdir(path.parent)) == ["config.json", "config.yaml"]


def test_a_changed_file_is_validated_again(path: Path, cache: Path, validated: list[Source]) -> None:
    config.load(path, cache=cache, environ={})
    seen = path.stat()
    path.write_text(TEXT.replace("workers: 8", "workers: 9"))
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))  # the text counts, not when it was written
    assert config.load(path, cache=cache, environ={}).workers == 9
    assert config.load(path, cache=cache, environ={}).workers == 9
    assert len(validated) == 2


def test_a_mistake_is_found_whatever_is_kept_and_is_not_kept(path: Path, cache: Path) -> None:
    config.load(path, cache=cache, environ={})
    kept = cache.read_bytes()
    path.write_text(TEXT + "wrokers: 9\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match="unknown key 'wrokers'"):
            config.load(path, cache=cache, environ={})
    assert cache.read_bytes() == kept
    path.unlink()
    with pytest.raises(ConfigError, match="there is no configuration"):
        config.load(path, cache=cache, environ={})


def test_what_overrides_the_file_counts(path: Path, cache: Path, validated: list[Source]) -> None:
    assert config.load(path, cache=cache, environ={}).workers == 8
    assert config.load(path, cache=cache, environ={"HARNESS_WORKERS": "5", "HARNESS_ROOT": "/x"}).workers == 5
    assert config.load(path, cache=cache, environ={"HARNESS_WORKERS": "5"}).workers == 5
    assert config.load(path, cache=cache, environ={}, options={"workers": 6}).workers == 6
    assert config.load(path, cache=cache, environ={}, options={"workers": None}).workers == 8
    assert len(validated) == 4


def test_another_program_validates_again(
    path: Path, cache: Path, validated: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    config.load(path, cache=cache, environ={})
    monkeypatch.setattr("harness.config.kept.__version__", "99")
    config.load(path, cache=cache, environ={})
    config.load(path, cache=cache, environ={})
    assert len(validated) == 2


def test_links_and_homes_are_followed_anew_each_time(
    path: Path, cache: Path, validated: list[Source]
) -> None:
    for name in ("one", "two"):
        (path.parent / name).mkdir()
    (path.parent / "app").symlink_to("one")
    assert config.load(path, cache=cache).projects["app"].path == str(path.parent / "one")
    (path.parent / "app").unlink()
    (path.parent / "app").symlink_to("two")
    assert config.load(path, cache=cache).projects["app"].path == str(path.parent / "two")
    assert len(validated) == 1


def _edited(edit: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def damage(cache: Path) -> None:
        data = json.loads(cache.read_bytes())
        edit(data)
        cache.write_text(json.dumps(data))

    return damage


def _config(**changes: object) -> Callable[[Path], object]:
    def edit(data: dict[str, object]) -> None:
        assert isinstance(data["config"], dict)
        data["config"].update(changes)

    return _edited(edit)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda c: c.write_bytes(b""),
    "half": lambda c: c.write_bytes(c.read_bytes()[: c.stat().st_size // 2]),
    "zeros": lambda c: c.write_bytes(b"\0" * c.stat().st_size),
    "not text": lambda c: c.write_bytes(b"\xff\xfe{}"),
    "another thing": lambda c: c.write_text("[]"),
    "nothing": lambda c: c.write_text("null"),
    "deep": lambda c: c.write_text("[" * 100_000),
    "another version": _edited(lambda d: d.update(v=2)),
    "no version": _edited(lambda d: d.pop("v")),
    "no text": _edited(lambda d: d.update(source={})),
    "no configuration": _edited(lambda d: d.pop("config")),
    "a list": _edited(lambda d: d.update(config=[])),
    "a missing part": _edited(lambda d: d.update(config={"v": 1})),
    "odd origins": _edited(lambda d: d.update(origins={"workers": 1})),
    "another type": _config(workers="many"),
    "a truth for a number": _config(workers=True),
    "an unknown word": _config(durability="maybe"),
    "an odd word": _config(durability=[]),
    "an odd project": _config(projects={"app": 1}),
    "odd projects": _config(projects=[1]),
    "an odd tuple": _config(agents={"tool": {"argv": "x"}}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cache_is_replaced(
    path: Path, cache: Path, validated: list[Source], damage: Callable[[Path], object]
) -> None:
    expected = config.load(path, cache=cache, environ={})
    whole = cache.read_bytes()
    damage(cache)
    assert config.load(path, cache=cache, environ={}) == expected
    assert len(validated) == 2
    assert cache.read_bytes() == whole


def _elsewhere(cache: Path) -> None:
    cache.rename(cache.with_name("elsewhere"))
    cache.symlink_to("elsewhere")


def _fifo(cache: Path) -> None:
    cache.unlink()
    os.mkfifo(cache)


HOSTILE: dict[str, Callable[[Path], object]] = {
    "a link": _elsewhere,
    "a FIFO that nobody writes": _fifo,
    "a file that others may write": lambda c: c.chmod(0o622),
    "a file that others may read": lambda c: c.chmod(0o644),
    "a file without end": lambda c: os.truncate(c, 1 << 40),
}


@pytest.mark.parametrize("plant", HOSTILE.values(), ids=HOSTILE)
def test_what_is_not_a_private_file_of_ours_is_not_trusted(
    path: Path, cache: Path, validated: list[Source], plant: Callable[[Path], object]
) -> None:
    config.load(path, cache=cache, environ={})
    plant(cache)
    assert config.load(path, cache=cache, environ={}).workers == 8
    assert len(validated) == 2
    assert cache.is_file()
    assert not cache.is_symlink()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_file_of_another_user_is_not_trusted(path: Path, cache: Path, validated: list[Source]) -> None:
    config.load(path, cache=cache, environ={})
    os.chown(cache, 65534, -1)
    config.load(path, cache=cache, environ={})
    assert len(validated) == 2
    assert cache.stat().st_uid == 0


@pytest.mark.parametrize("place", ["nowhere/config.json", "folder"])
def test_a_cache_that_cannot_be_written_is_no_failure(path: Path, place: str) -> None:
    (path.parent / "folder").mkdir()
    for _ in range(2):
        assert config.load(path, cache=path.parent / place, environ={}).workers == 8
    assert sorted(os.listdir(path.parent)) == ["config.yaml", "folder"]


def test_it_lies_where_no_agent_may_read_or_write(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert any(layout.validated.is_relative_to(closed) for closed in layout.closed)


@pytest.mark.uncovered
def test_workers_and_mergers_load_neither_what_validates_nor_what_draws(path: Path, cache: Path) -> None:
    config.load(path, cache=cache)
    code = (
        "import sys; from pathlib import Path; import harness.worker.process, harness.worker.attempt, harness.merger;"
        "from harness.config import load; assert load(Path(sys.argv[1]), cache=Path(sys.argv[2])).workers == 8;"
        "from harness.logs import Event, Log; Log().error(Event.PAUSED);"
        "heavy = {'pydantic', 'pydantic_core', 'yaml', 'click', 'rich', 'structlog', 'asyncio', 'ssl', 'logging',"
        " 'multiprocessing', 'difflib', 'psutil', 'watchdog'};"
        "sys.exit(','.join(sorted(heavy & sys.modules.keys())) or 0)"
    )
    argv = [sys.executable, "-P", "-c", code, str(path), str(cache)]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
