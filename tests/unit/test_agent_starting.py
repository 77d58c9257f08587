"""A session's configuration folder: a copy of the person's, with the one login that all sessions share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.agents.base import CannotInvoke
from harness.agents.starting import seed, share
from harness.config import Agent, Config, Credential


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
    shared = seed(agent(source), home, {}, ("auth.json", "other.json"))
    assert shared == {home / "auth.json": source / "auth.json"}
    assert sorted(p.name for p in home.iterdir()) == ["auth.json", "config.toml", "skills"]
    assert (home / "skills" / "one.md").read_text() == "skill"
    assert os.readlink(home / "auth.json") == str(source / "auth.json")
    (home / "config.toml").write_text("model = 2")
    (source / "config.toml").write_text("model = 3")
    assert seed(agent(source), home, {}, ("auth.json",)) == shared
    assert (home / "config.toml").read_text() == "model = 2"


def test_a_login_that_a_tool_has_renewed_in_a_file_of_its_own_is_everybodys_again(
    tmp_path: Path, source: Path
) -> None:
    home = tmp_path / "home"
    shared = seed(agent(source), home, {}, ("auth.json",))
    link, real = home / "auth.json", source / "auth.json"
    link.unlink()
    link.write_text("token 2")
    os.utime(real, (1, 1))
    assert share(shared) == shared
    assert link.is_symlink()
    assert real.read_text() == "token 2"
    assert real.stat().st_mode & 0o077 == 0
    link.unlink()
    link.write_text("an old copy")
    os.utime(link, (1, 1))
    share(shared)
    assert real.read_text() == link.read_text() == "token 2"


def test_without_a_folder_of_a_person_a_session_begins_with_an_empty_one(tmp_path: Path) -> None:
    home = tmp_path / "home" / ".codex"
    assert seed(Agent(adapter="codex"), home, {}, ("auth.json",)) == {}
    assert list(home.iterdir()) == []
    assert home.stat().st_mode & 0o077 == 0


def test_a_folder_that_is_not_there_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(CannotInvoke, match="config_from is no folder"):
        seed(agent(tmp_path / "none"), tmp_path / "home", {}, ())


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
