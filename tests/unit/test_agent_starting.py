"""A session's configuration folder: a copy of the person's, with the one login that all sessions share."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from harness.agents.base import Adapter, CannotInvoke
from harness.agents.claude import ClaudeAdapter
from harness.agents.codex import CodexAdapter
from harness.agents.gemini import GeminiAdapter
from harness.agents.opencode import OpencodeAdapter
from harness.agents.starting import seed, share
from harness.config import Agent, Config, Credential
from tests import jsontools
from tests.jsontools import task

INSIDE = Path(".codex")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """~/.codex of a person."""
    folder = tmp_path / "theirs"
    (folder / "skills").mkdir(parents=True)
    (folder / "skills" / "one.md").write_text("skill")
    (folder / "sessions").mkdir()
    (folder / "sessions" / "old").write_text("history")
    (folder / "auth.json").write_text("token 1")
    (folder / "config.toml").write_text("model = 1")
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    return folder


def agent(source: Path) -> Agent:
    return Agent(adapter="codex", config_from=str(source))


def test_what_a_person_has_configured_is_copied_once_without_history_and_the_login_is_a_link(
    tmp_path: Path, source: Path
) -> None:
    home = tmp_path / "home" / ".codex"
    home.parent.mkdir()
    shared = seed(agent(source), home.parent, INSIDE, {}, ("auth.json", "other.json"))
    assert shared == {home / "auth.json": source / "auth.json"}
    assert sorted(p.name for p in home.iterdir()) == ["auth.json", "config.toml", "skills"]
    assert (home / "skills" / "one.md").read_text() == "skill"
    assert os.readlink(home / "auth.json") == str(source / "auth.json")
    (home / "config.toml").write_text("model = 2")
    (source / "config.toml").write_text("model = 3")
    assert seed(agent(source), home.parent, INSIDE, {}, ("auth.json",)) == shared
    assert (home / "config.toml").read_text() == "model = 2"


def test_a_login_that_a_tool_has_renewed_in_a_file_of_its_own_is_everybodys_again(
    tmp_path: Path, source: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shared = seed(agent(source), home, INSIDE, {}, ("auth.json",))
    link, real = home / INSIDE / "auth.json", source / "auth.json"
    link.unlink()
    link.write_text("token 2")
    os.utime(real, (1, 1))
    assert share(shared, home) == shared
    assert link.is_symlink()
    assert real.read_text() == "token 2"
    assert real.stat().st_mode & 0o077 == 0
    link.unlink()
    link.write_text("an old copy")
    os.utime(link, (1, 1))
    share(shared, home)
    assert real.read_text() == link.read_text() == "token 2"


def test_without_a_folder_of_a_person_a_session_begins_with_an_empty_one(tmp_path: Path) -> None:
    home = tmp_path / "home" / ".codex"
    home.parent.mkdir()
    assert seed(Agent(adapter="codex"), home.parent, INSIDE, {}, ("auth.json",)) == {}
    assert list(home.iterdir()) == []
    assert home.stat().st_mode & 0o077 == 0


def test_a_folder_that_is_not_there_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(CannotInvoke, match="config_from is no folder"):
        seed(agent(tmp_path / "none"), tmp_path / "home", INSIDE, {}, ())


def test_what_cannot_be_copied_is_left_out(tmp_path: Path, source: Path) -> None:
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(source / "socket"))
    (source / "loop").symlink_to("loop")
    (source / "skills" / "up").symlink_to(source)
    (tmp_path / "home").mkdir()
    seed(agent(source), tmp_path / "home", INSIDE, {}, ())
    made = tmp_path / "home" / INSIDE
    assert sorted(p.name for p in made.iterdir()) == ["auth.json", "config.toml", "skills"]
    assert [p.name for p in (made / "skills").iterdir()] == ["one.md"]


# an agent owns its HOME, and no sandbox holds us


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of a person's where no agent may write."""
    made = tmp_path / "victim"
    made.mkdir()
    for name in ("auth.json", "settings.json", "opencode.log"):
        (made / name).write_text("mine")
    return made


def untouched(victim: Path) -> bool:
    return sorted(p.name for p in victim.iterdir()) == ["auth.json", "opencode.log", "settings.json"] and all(
        p.read_text() == "mine" and not p.is_symlink() for p in victim.iterdir()
    )


ADAPTERS: Mapping[str, tuple[Callable[[Agent], Adapter], tuple[str, ...]]] = {
    "codex": (CodexAdapter, (".codex",)),
    "gemini": (GeminiAdapter, (".gemini",)),
    "opencode": (OpencodeAdapter, (".config", ".config/opencode", ".local", ".local/share/opencode/log")),
    "claude": (ClaudeAdapter, (".claude",)),
}


@pytest.mark.parametrize("name", list(ADAPTERS))
def test_a_folder_that_an_agent_has_replaced_by_a_link_leads_us_nowhere(
    tmp_path: Path, source: Path, victim: Path, name: str
) -> None:
    kind, folders = ADAPTERS[name]
    settings = jsontools.agent(name, config_from=str(source))
    given = task(tmp_path)
    first = kind(settings).command(given, {})
    for inside in folders:
        place = given.home / inside
        if place.exists():
            place.rename(tmp_path / f"aside-{inside.replace('/', '-')}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(victim)
        share(first.shared, given.home)
        assert untouched(victim)
        if place.is_symlink():
            assert kind(settings).command(given, {}).argv
        assert untouched(victim)
        assert place.is_dir()
        assert not place.is_symlink()
    assert (source / "auth.json").read_text() == "token 1"


@pytest.mark.parametrize("how", ["folder", "pipe", "zero", "dangling", "file"])
@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("codex", ".codex"),
        ("codex", ".codex/auth.json"),
        ("gemini", ".gemini/settings.json"),
        ("opencode", ".local/share/opencode/log/opencode.log"),
        ("opencode", ".local/share/opencode/log"),
        ("opencode", ".config/opencode/node_modules"),
        ("claude", ".claude"),
    ],
)
def test_whatever_an_agent_leaves_in_its_home_its_session_can_go_on(
    tmp_path: Path, source: Path, name: str, inside: str, how: str
) -> None:
    kind, _ = ADAPTERS[name]
    settings = jsontools.agent(name, config_from=str(source))
    given = task(tmp_path)
    kind(settings).command(given, {})
    place = given.home / inside
    if os.path.lexists(place):
        place.rename(tmp_path / "was")
    place.parent.mkdir(parents=True, exist_ok=True)
    match how:
        case "folder":
            (place / "in it").mkdir(parents=True)
        case "pipe":
            os.mkfifo(place)
        case "zero":
            place.symlink_to("/dev/zero")
        case "dangling":
            place.symlink_to("nowhere")
        case _:
            place.write_text("{}")
    adapter = kind(settings)
    assert adapter.command(given, {}).argv
    adapter.journal()


def test_logins_are_among_the_secrets_that_gates_and_other_agents_cannot_read(
    tmp_path: Path, source: Path
) -> None:
    opencode = tmp_path / ".config" / "opencode"
    data = tmp_path / ".local" / "share" / "opencode"
    for folder in (opencode, data):
        folder.mkdir(parents=True)
    (data / "auth.json").write_text("token")
    agents = {"a": agent(source), "b": Agent(adapter="opencode", config_from=str(opencode))}
    assert Config(v=1, agents=agents).secrets == (source / "auth.json", data / "auth.json")


def test_a_secret_that_a_variable_names_is_hidden_too(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("THEIRS", str(source))
    credentials = {"team": Credential(variable="KEY", file="${CREDENTIALS_DIRECTORY}/key")}
    agents = {"a": Agent(adapter="codex", config_from="${THEIRS}")}
    config = Config(v=1, agents=agents, credentials=credentials)
    assert config.secrets == (tmp_path / "key", source / "auth.json")
