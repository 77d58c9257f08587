"""The commented config.yaml that `harnessctl init` writes. A test loads what it returns, for every kind of agent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum

from harness.errors import ConfigError
from harness.model import SLUG


class AgentKind(StrEnum):
    """What `init --agent` offers."""

    COMMAND = "command"  # any command; set up as a shell that runs the prompt, until you name your tool
    CLAUDE = "claude"
    CODEX = "codex"
    GEMINI = "gemini"
    OPENCODE = "opencode"


_HEAD = """\
# harness configuration. Everything is optional but `v`; what is commented out shows the default.
# Check it with `harnessctl config check`, see what is in force with `harnessctl config show --origin`.
# A running daemon reads it again on SIGHUP and keeps the old one when this one has a mistake.
v: 1

# workers: 3              # attempts that run at the same time
# durability: power       # power | process (survives any crash of a process, not power loss; faster)
# sandbox: auto           # auto | bwrap | landlock | none

"""
_PROJECT = """\
  {name}:
    path: {path}    # your clone, a bare repository or a URL; relative paths start at this file
    # target: main          # merges land here
    # agent: {agent}    # the default; an item may name another. A list holds fallbacks
    # setup: {{run: "npm ci", inputs: [package-lock.json]}}   # run when a worktree is new or an input changed
    # copy: [.env]          # untracked files that every worktree needs
    # keep: [node_modules]  # untracked caches that may stay in a reused worktree
    # protected: [.github/] # nothing below may change, unless the item says so
    gates: []               # commands that must pass before a merge, for example:
    #  - {{name: tests, run: "pytest -q", timeout_s: 600}}
    #  - {{name: lint, run: "ruff check .", required: false}}
    # merge: {{publish: push, gates: [], checkout: refuse}}
    #   publish: push | none; gates: names to run again on the merged tree;
    #   checkout: refuse | update (when `target` is checked out in your clone: update it if it is clean)
"""
_AGENTS = {
    AgentKind.COMMAND: """\
agents:
  shell:
    adapter: command
    # Any tool that works in the current directory. Words in braces are filled in:
    # {prompt} {prompt_file} {worktree} {session} {model} {run_id} {run_dir}
    argv: [sh, "{prompt_file}"]     # runs the prompt as a shell script: replace it with your tool
    prompt: file                    # argument | stdin | file
    # instructions: comment         # rules below the prompt: text | comment (behind "# ", for scripts) | none
    # env: {MYTOOL_HOME: "{run_dir}/home"}    # values may hold ${NAME} of the daemon's environment
    # env_pass: [MYTOOL_TOKEN]                # nothing else is inherited
    # exit_codes: {0: ok, 75: rate_limit, "*": crash}
    # First match in a line of the output wins, before exit codes:
    # patterns: [{match: '(?i)rate.?limit', class: rate_limit, retry_after: 'retry.after[: ]+(\\d+)'}]
    # stop: [INT, 5, TERM, 5, KILL]
    # credential: team

# credentials: {team: {variable: MYTOOL_KEY, file: /etc/harness/mytool.key}}
""",
    AgentKind.CLAUDE: """\
agents:
  claude:
    adapter: claude
    model: sonnet
    credential: claude
    # binary: claude                # its name or full path
    # max_turns: 60
    # max_budget_usd: 5             # of one attempt
    # permission_mode: acceptEdits  # nobody answers: what is not in allowed_tools is denied
    # allowed_tools: [Bash, Edit, Write, NotebookEdit, WebFetch, WebSearch]
    # config_from: /etc/harness/claude   # settings, MCP servers, skills, a login: each session begins with a copy

credentials:
  claude: {variable: ANTHROPIC_API_KEY}     # from the daemon's environment; or: file: /etc/harness/anthropic.key
  # a subscription: {variable: CLAUDE_CODE_OAUTH_TOKEN, file: ...}, made by `claude setup-token`
""",
    AgentKind.CODEX: """\
agents:
  codex:
    adapter: codex
    credential: codex
    # model: gpt-5-codex
    # max_turns: 100
    # config_from: /etc/harness/codex    # config.toml, a login (auth.json): each session begins with a copy

credentials:
  codex: {variable: CODEX_API_KEY}          # from the daemon's environment; or: file: /etc/harness/openai.key

# It tells tokens, and no cost. What a million of them costs, in USD, as on your bill:
# prices: {"gpt-*": {input: 1.0, output: 8.0, cached: 0.1}}
""",
    AgentKind.GEMINI: """\
agents:
  gemini:
    adapter: gemini
    model: gemini-2.5-pro
    credential: gemini
    # max_turns: 100
    # config_from: /etc/harness/gemini   # settings.json, a login: each session begins with a copy

credentials:
  gemini: {variable: GEMINI_API_KEY}        # from the daemon's environment; or: file: /etc/harness/gemini.key

# It tells tokens, and no cost. What a million of them costs, in USD, as on your bill:
# prices: {"gemini-*": {input: 1.0, output: 8.0, cached: 0.1}}
""",
    AgentKind.OPENCODE: """\
agents:
  opencode:
    adapter: opencode
    model: anthropic/claude-sonnet-4-5      # provider/model, as opencode calls them
    credential: opencode
    # max_turns: 100
    # config_from: /etc/harness/opencode    # opencode.json: each session begins with a copy

credentials:
  opencode: {variable: ANTHROPIC_API_KEY}   # the one that its provider reads; or: file: /etc/harness/anthropic.key
""",
}
_TAIL = """\

# health: {beat_s: 5, hang_s: 120, stall_s: 900, attempt_timeout_s: 3600}
# retry: {max_attempts: 3, first_delay_s: 10, max_delay_s: 300}
# heal: {rounds: 3}         # how often a red gate goes back to the same agent within one attempt
# drain_s: 600              # how long attempts may go on after the first TERM
# disk: {floor_mb: 512, floor_inodes: 2000}   # nothing is claimed while less is free
# budgets: {day: {usd: 20}}   # nothing starts that would pass it; also: fleet, convoys, and `budget` of a project
"""


def agent_entry(agent: str) -> str:
    """The part of config.yaml for one kind of agent. Raises ConfigError for a bad kind."""
    return _AGENTS[_kind(agent)]


def _kind(agent: str) -> AgentKind:
    try:
        return AgentKind(agent)
    except ValueError:
        kinds = ", ".join(k.value for k in AgentKind)
        raise ConfigError(f"no kind of agent {agent!r}", remedy=f"known: {kinds}") from None


def template(projects: Mapping[str, str], agent: str = AgentKind.COMMAND) -> str:
    """The text of a config.yaml for these projects (name -> path or URL). Raises ConfigError for a bad name or kind."""
    kind = _kind(agent)
    wrong = [name for name in projects if not SLUG.match(name)]
    if wrong:
        raise ConfigError(f"{wrong[0]!r} cannot name a project", remedy="use 1 to 40 of a-z, 0-9 and -")
    name_of_agent = "shell" if kind is AgentKind.COMMAND else kind.value
    head = _HEAD + ("projects:\n" if projects else "projects: {}\n")
    example = "" if projects else _commented(_PROJECT.format(name="app", path="../app", agent=name_of_agent))
    listed = "".join(
        # JSON is YAML: any path is quoted rightly.
        _PROJECT.format(name=name, path=json.dumps(path, ensure_ascii=False), agent=name_of_agent)
        for name, path in projects.items()
    )
    return head + listed + example + "\n" + _AGENTS[kind] + _TAIL


def _commented(text: str) -> str:
    return "".join(f"# {line}\n" for line in text.splitlines())
