"""config.yaml: what is accepted, what is refused, and how it is said."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
from pathlib import Path

import pytest

from harness import config
from harness.config import Durability, OutcomeName, PromptBy, Publish, Sandbox
from harness.config.showing import settings
from harness.config.template import AgentKind, template
from harness.errors import ConfigError

MINIMAL = """\
v: 1
projects:
  app: {path: ../app}
agents:
  shell: {adapter: command, argv: [sh, "{prompt_file}"]}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def load(tmp_path: Path, text: str, **environ: str) -> config.Config:
    return config.load(write(tmp_path, text), environ=environ)


def problems(tmp_path: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)
    assert caught.value.exit_code == 78
    return list(caught.value.problems)


def only_problem(tmp_path: Path, text: str, **environ: str) -> str:
    found = problems(tmp_path, text, **environ)
    assert len(found) == 1, found
    return found[0]


def agent(more: str) -> str:
    return f"v: 1\nagents:\n  a: {{adapter: command, argv: [x], {more}}}\n"


def project(more: str) -> str:
    return MINIMAL.replace("{path: ../app}", f"{{path: ../app, {more}}}")


# what is accepted


def test_a_minimal_config_has_good_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path, MINIMAL)
    app = loaded.projects["app"]
    assert (loaded.workers, loaded.durability, loaded.sandbox) == (3, Durability.POWER, Sandbox.AUTO)
    assert (app.name, app.target, app.agent, app.merge.publish) == ("app", "main", ("shell",), Publish.PUSH)
    assert loaded.agents["shell"].prompt is PromptBy.FILE
    assert loaded.default_project == "app"


def test_a_config_without_projects_is_valid(tmp_path: Path) -> None:
    loaded = load(tmp_path, "v: 1\nprojects:\nagents:\n")
    assert loaded.projects == {}
    assert loaded.default_project is None


def test_a_path_is_relative_to_the_file_and_a_url_stays_as_it_is(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL).projects["app"].path == str(tmp_path.parent.resolve() / "app")
    for url in ("https://host/x.git", "ssh://git@host/x", "git@host:group/x.git", "file:///srv/x.git"):
        assert load(tmp_path, MINIMAL.replace("../app", url)).projects["app"].path == url


def test_everything_in_the_design_document_can_be_said(tmp_path: Path) -> None:
    text = """\
v: 1
workers: 8
durability: process
projects:
  app:
    path: /srv/app
    target: release/2.x
    agent: [shell, other]
    setup: {run: "npm ci", inputs: [package-lock.json], timeout_s: 60}
    copy: [.env]
    keep: [node_modules, .venv]
    gates:
      - {name: tests, run: "pytest -q", timeout_s: 10.5}
      - {name: lint, run: "ruff check .", required: false}
    merge: {publish: none, gates: [tests], checkout: update}
    protected: [.github/, "*.lock"]
    commit_by: agent
agents:
  shell: {adapter: command, argv: [sh, "{prompt_file}"], prompt: file}
  other:
    adapter: command
    argv: [tool, --session, "{session}", "{prompt}"]
    resume_argv: [tool, --resume, "{session}", "{prompt}"]
    prompt: argument
    model: big
    env: {TOOL_HOME: "{run_dir}/home", N: 3, TOKEN: "${TOKEN}"}
    env_pass: [TOOL_TOKEN, TOOL_*]
    exit_codes: {0: ok, 75: rate_limit, "*": crash}
    patterns: [{match: '(?i)rate.?limit', class: rate_limit, retry_after: 'after (\\d+)'}]
    stop: [int, 5, SIGTERM, 2.5, KILL]
    credential: team
credentials:
  team: {variable: API_KEY, file: key.txt}
health: {beat_s: 1, hang_s: 10, stall_s: 60, attempt_timeout_s: 120}
retry: {max_attempts: 5, first_delay_s: 0, max_delay_s: 1}
heal: {rounds: 0}
sandbox: none
drain_s: 0
"""
    loaded = load(tmp_path, text)
    other = loaded.agents["other"]
    assert other.stop == ((signal.SIGINT, 5.0), (signal.SIGTERM, 2.5), (signal.SIGKILL, 0.0))
    assert other.exit_codes == {"0": OutcomeName.OK, "75": OutcomeName.RATE_LIMIT, "*": OutcomeName.CRASH}
    assert other.patterns[0].outcome is OutcomeName.RATE_LIMIT
    assert other.env["N"] == "3"
    assert loaded.projects["app"].agent == ("shell", "other")
    assert loaded.projects["app"].gate("lint").required is False
    assert loaded.credentials["team"].file == str(tmp_path.resolve() / "key.txt")


def test_rigs_is_another_word_for_projects(tmp_path: Path) -> None:
    loaded = load(tmp_path, MINIMAL.replace("projects:", "rigs:"))
    assert list(loaded.projects) == ["app"]
    assert loaded.origin("projects.app.path").startswith("config.yaml:3:")


def test_loaded_values_cannot_be_changed(tmp_path: Path) -> None:
    loaded = load(tmp_path, MINIMAL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.workers = 4  # type: ignore[misc]


# how problems are said


def test_all_problems_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "v: 1\nworkers: x\nsandbox: y\nnonsense: 1\nretry: {max_attempts: 0}\n"
    assert [p.split(" ")[0] for p in problems(tmp_path, text)] == [
        "config.yaml:2:10",
        "config.yaml:3:10",
        "config.yaml:4:1",
        "config.yaml:5:23",
    ]


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    text = project("gates: [{name: t, run: x, timout_s: 3}]")
    assert only_problem(tmp_path, text) == (
        "config.yaml:3:49 projects.app.gates[0].timout_s: unknown key 'timout_s'; did you mean 'timeout_s'?"
    )


def test_an_unknown_key_that_is_near_nothing_lists_what_is_known(tmp_path: Path) -> None:
    assert only_problem(tmp_path, "v: 1\nheal: {zzzzzz: 1}\n").endswith("unknown key 'zzzzzz'; known: rounds")


def test_a_syntax_error_has_its_line_and_column(tmp_path: Path) -> None:
    assert only_problem(tmp_path, "v: 1\nworkers: [1\n").startswith("config.yaml:3:1 not valid YAML: ")


def test_a_duplicate_key_is_refused(tmp_path: Path) -> None:
    assert only_problem(tmp_path, "v: 1\nworkers: 1\nworkers: 2\n") == (
        "config.yaml:3:1 workers: duplicate key 'workers', first in line 2"
    )


def test_another_version_is_not_guessed_at(tmp_path: Path) -> None:
    assert "this program knows 1" in only_problem(tmp_path, "v: 2\nwhatever: 1\n")


def test_a_missing_version_is_asked_for(tmp_path: Path) -> None:
    assert only_problem(tmp_path, "workers: 1\n") == "config.yaml:1:1 v: is missing; add `v: 1`"


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "text\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert "must be a mapping" in only_problem(tmp_path, text)


def test_a_missing_file_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="harnessctl init"):
        config.load(tmp_path / "config.yaml")


def test_a_file_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"v: 1\nx: \xff\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:2"):
        config.load(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v: 1\nworkers: true\n", "workers: must be a whole number, not true"),
        ("v: 1\nworkers: '3'\n", "workers: must be a whole number, not '3'"),
        ("v: 1\nworkers: 1.5\n", "workers: must be a whole number, not 1.5"),
        ("v: 1\nworkers: -1\n", "workers: must be greater than or equal to 0, not -1"),
        ("v: 1\nhealth: {beat_s: .nan}\n", "health.beat_s: must be a number, not nan"),
        (
            "v: 1\nhealth: 3\n",
            "health: must be a mapping, not 3; known keys: attempt_timeout_s, beat_s, hang_s",
        ),
        ("v: 1\ndurability: fast\n", "durability: must be one of power or process, not fast"),
        ("v: 1\nhealth: {hang_s: 6}\n", "health.hang_s: must be at least twice health.beat_s"),
        ("v: 1\nretry: {max_delay_s: 1}\n", "retry.max_delay_s: must not be less than retry.first_delay_s"),
        ("v: 1\nprojects: {'A b': 3}\n", "projects.A b: the name 'A b' must be 1 to 40 of a-z, 0-9 and -"),
        ("v: 1\nprojects: [a]\n", "projects: must be a mapping, not a list"),
        ("v: 1\nprojects: {a: {path: x}}\n", "projects.a: has no agent; add one below `agents`"),
        (project("agent: shel"), "projects.app.agent: there is no agent 'shel'; did you mean 'shell'?"),
        (project("target: refs/heads/x"), "projects.app.target: must be a branch's short name"),
        (project("target: a..b"), "projects.app.target: is not a name that git allows for a branch"),
        (project("name: x"), "projects.app.name: unknown key 'name'"),
        (project("gates: [{name: T, run: x}]"), "gates[0].name: must be 1 to 40 of a-z, 0-9 and -, not 'T'"),
        (project("gates: [{name: t}]"), "gates[0].run: is missing; add `run:`"),
        (project("gates: [{name: t, run: ' '}]"), "gates[0].run: must not be empty"),
        (
            project("gates: [{name: t, run: x, timeout_s: 0}]"),
            "gates[0].timeout_s: must be greater than 0, not 0",
        ),
        (project("gates: [{name: t, run: x, required: yes}]"), "required: must be true or false, not 'yes'"),
        (project("gates: [{name: clean, run: x}]"), "gates[0].name: 'clean' is a built-in gate"),
        (project("gates: [{name: t, run: x}, {name: t, run: y}]"), "gates[1].name: there are two gates 't'"),
        (
            project("gates: [{name: tests, run: x}], merge: {gates: [test]}"),
            "no gate 'test'; did you mean 'tests'?",
        ),
        (project("merge: {gates: [t]}"), "there is no gate 't'; add it to `gates` of the project"),
        (project("protected: [../x]"), "protected[0]: must be a path inside of the repository"),
        (project("copy: [/etc/passwd]"), "copy[0]: must be a path inside of the repository"),
        (project("copy: .env"), "copy: must be a list, not '.env'; write [a, b]"),
        (agent("binary: y"), "adapter command has no binary (claude, codex, gemini, opencode has)"),
        (agent("argv2: y").replace("[x]", "[]").replace("argv2: y", ""), "argv: must not be empty"),
        (agent("prompt: mail"), "prompt: must be one of argument, stdin or file, not mail"),
        (agent("prompt: argument"), "argv: has no {prompt}; add {prompt}, or set prompt: file or stdin"),
        (agent("env: {A: '{nope}'}"), "env.A: unknown placeholder {nope}"),
        (agent("env: {A: '{prompt}'}"), "use {prompt_file}"),
        (agent("env: {'A-B': x}"), "the name 'A-B' is not a name of an environment variable"),
        (agent("env: {A: '${'}"), "env.A: holds a ${ that is not a ${NAME}"),
        (agent("env_pass: ['*']"), "env_pass[0]: is not a name"),
        (agent("exit_codes: {300: ok}"), "'300' is not 0 to 255 or '*'"),
        (agent("exit_codes: {1: okay}"), "exit_codes.1: must be one of ok, max_turns"),
        (agent("stop: [FOO]"), "stop: has an unknown signal FOO"),
        (agent("stop: [5, INT]"), "stop: must be signals, each followed by seconds"),
        (agent("patterns: [{match: '(', class: auth}]"), "patterns[0].match: is not a regular expression"),
        (
            agent("patterns: [{match: x, class: auth, retry_after: x}]"),
            "needs a group that holds the seconds",
        ),
        (agent("patterns: [{match: x, clas: auth}]"), "did you mean 'class'?"),
        ("v: 1\nbudgets: {day: {usd: -1}}\n", "budgets.day.usd: must be greater than or equal to 0, not -1"),
        ("v: 1\nbudgets: {days: {usd: 1}}\n", "budgets.days: unknown key 'days'; did you mean 'day'?"),
        (agent("credential: team"), "there is no credential 'team'; add it below `credentials`"),
        ("v: 1\ncredentials: {team: {variable: 1x}}\n", "credentials.team.variable: is not a name"),
    ],
)
def test_what_is_wrong_is_said_in_words(tmp_path: Path, text: str, expected: str) -> None:
    assert any(expected in p for p in problems(tmp_path, text)), problems(tmp_path, text)


def test_several_agents_need_a_default_named_by_the_project(tmp_path: Path) -> None:
    text = MINIMAL + "  other: {adapter: command, argv: [x]}\n"
    assert "add `agent:` with one of other, shell" in only_problem(tmp_path, text)


def test_an_adapter_of_another_version_is_one_problem_not_one_for_every_key(tmp_path: Path) -> None:
    text = "v: 1\nagents:\n  c: {adapter: aider, binary: aider, turns: 3}\n"
    assert only_problem(tmp_path, text) == (
        "config.yaml:3:16 agents.c.adapter: there is no adapter 'aider'; "
        "this version has: claude, codex, gemini, opencode, command"
    )


def test_a_misspelt_placeholder_names_the_right_one_and_the_escape(tmp_path: Path) -> None:
    text = agent("").replace("[x]", '["{promt_file}"]')
    problem = only_problem(tmp_path, text)
    assert "did you mean 'prompt_file'?" in problem
    assert "{{promt_file}}" in problem


def test_braces_of_shells_and_json_are_not_placeholders(tmp_path: Path) -> None:
    words = r"""[sh, -c, 'echo ${home} {A} {"a": {"b": 1}} {{print}}', "{prompt_file}"]"""
    assert load(tmp_path, agent("").replace("[x]", words)).agents["a"].argv[0] == "sh"


def test_secrets_never_show_in_a_problem(tmp_path: Path) -> None:
    text = agent("env: {KEY: [sesame]}") + "credentials: {t: {variable: 'open sesame', file: [sesame]}}\n"
    assert "sesame" not in " ".join(problems(tmp_path, text))


def test_budgets_may_be_given_for_everything_a_day_convoys_and_projects(tmp_path: Path) -> None:
    assert not load(tmp_path, MINIMAL).budgeted
    loaded = load(tmp_path, project("budget: {tokens: 5}"))
    assert loaded.budgeted
    assert (loaded.projects["app"].budget.usd, loaded.projects["app"].budget.tokens) == (None, 5)
    loaded = load(
        tmp_path, MINIMAL + "budgets: {day: {usd: 20}, convoys: {'log in': {usd: 0}}, reserve_usd: 0.5}\n"
    )
    assert loaded.budgeted
    assert (loaded.budgets.day.usd, loaded.budgets.reserve_usd, loaded.budgets.fleet.limits) == (
        20.0,
        0.5,
        False,
    )
    assert loaded.budgets.convoys["log in"].usd == 0.0


# overrides and origins


def test_an_option_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    path = write(tmp_path, "v: 1\nworkers: 4\n")
    environ = {"HARNESS_WORKERS": "5"}
    assert config.load(path, environ={}).workers == 4
    assert config.load(path, environ=environ).workers == 5
    assert config.load(path, environ=environ, options={"workers": 6}).workers == 6
    assert config.load(path, environ=environ, options={"workers": None}).workers == 5


def test_settings_one_level_down_can_be_overridden(tmp_path: Path) -> None:
    given = {"HARNESS_HEALTH_BEAT_S": "0.5", "HARNESS_BUDGETS_RESERVE_USD": "2"}
    loaded = load(tmp_path, "v: 1\n", HARNESS_DURABILITY="process", **given)
    assert (loaded.health.beat_s, loaded.budgets.reserve_usd) == (0.5, 2.0)
    assert loaded.durability is Durability.PROCESS


def test_a_bad_override_names_its_variable(tmp_path: Path) -> None:
    assert only_problem(tmp_path, "v: 1\n", HARNESS_WORKERS="many") == (
        "HARNESS_WORKERS: must be a whole number, not 'many'"
    )


def test_variables_of_ours_that_are_no_settings_are_ignored(tmp_path: Path) -> None:
    assert load(tmp_path, "v: 1\n", HARNESS_ROOT="/x", HARNESS_ATTEMPT="a.1").workers == 3


def test_origins_name_the_line_the_variable_the_option_or_the_default(tmp_path: Path) -> None:
    path = write(tmp_path, "v: 1\nhealth: {beat_s: 2}\n")
    loaded = config.load(path, environ={"HARNESS_WORKERS": "5"}, options={"heal.rounds": 1})
    origins = {s.path: s.origin for s in settings(loaded)}
    assert origins["health.beat_s"] == "config.yaml:2:18"
    assert origins["workers"] == "HARNESS_WORKERS"
    assert origins["heal.rounds"] == "option heal.rounds"
    assert origins["drain_s"] == "default"


def test_shown_settings_hide_what_may_be_secret(tmp_path: Path) -> None:
    loaded = load(tmp_path, agent("env: {KEY: sesame}, stop: [TERM, 2, KILL]"))
    shown = {s.path: s.value for s in settings(loaded)}
    assert shown["agents.a.env.KEY"] == "(hidden)"
    assert shown["agents.a.stop"] == "[TERM, 2, KILL]"
    assert "sesame" not in repr(loaded)


def test_references_are_replaced_and_an_unset_one_is_named_without_its_value() -> None:
    assert config.expand("a ${X} $X", {"X": "1"}, where="env") == "a 1 $X"
    with pytest.raises(ConfigError, match="variable NOPE is not set"):
        config.expand("${NOPE}", {"X": "1"}, where="env")


# for editors and for init


def test_the_schema_for_editors_is_json_and_knows_the_parts() -> None:
    schema = config.Config.json_schema()
    json.dumps(schema)
    assert "name" not in schema["$defs"]["Project"]["properties"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["durability"]
    assert "class" in schema["$defs"]["Pattern"]["properties"]


@pytest.mark.parametrize("kind", list(AgentKind))
def test_the_template_loads_for_every_kind_of_agent(tmp_path: Path, kind: AgentKind) -> None:
    awkward = 'my "app": #1'
    loaded = load(tmp_path, template({"app": awkward, "web": "git@host:web.git"}, kind))
    assert loaded.projects["app"].path == str(tmp_path.resolve() / awkward)
    assert loaded.projects["web"].agent == tuple(loaded.agents)


@pytest.mark.parametrize("kind", list(AgentKind))
def test_the_template_without_projects_loads(tmp_path: Path, kind: AgentKind) -> None:
    assert load(tmp_path, template({}, kind)).projects == {}


@pytest.mark.parametrize("kind", list(AgentKind))
def test_every_example_that_the_template_comments_out_is_true(tmp_path: Path, kind: AgentKind) -> None:
    """With every example and default uncommented it still loads, and the defaults shown are the defaults."""
    plain_text = template({"app": "../app"}, kind).replace("    gates: []  ", "    # ")
    text = re.sub(r"(?m)^( *)# (\w+: )", r"\1\2", plain_text)
    assert text.count("\n") == plain_text.count("\n")
    changed = {s.path: s.value for s in settings(load(tmp_path, text))}
    plain = {s.path: s.value for s in settings(load(tmp_path, plain_text))}
    for setting in config.scalar_settings():
        assert changed[setting] == plain[setting]


def test_a_template_for_a_bad_name_or_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot name a project"):
        template({"No Good": "x"})
    with pytest.raises(ConfigError, match="known: command, claude"):
        template({}, "gpt")


def test_a_relative_folder_of_a_tools_configuration_starts_at_the_file(tmp_path: Path) -> None:
    text = "v: 1\nagents: {a: {adapter: codex, config_from: tools/codex}, b: {adapter: codex, config_from: '${HOME}/x'}}\n"
    agents = load(tmp_path, text).agents
    assert agents["a"].config_from == str(tmp_path / "tools/codex")
    assert agents["b"].config_from == "${HOME}/x"
