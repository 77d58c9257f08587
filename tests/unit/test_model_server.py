"""The model server of the tests with real agents answers as its script says, and keeps count of what it was asked."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.agents.dialogue import Dialogue, Entry, Prompt, Replied, Result, told
from tests.agents.ledger import Price
from tests.agents.scripts import (
    Break,
    Call,
    Fail,
    How,
    Say,
    Script,
    Shell,
    Stall,
    Tokens,
    Trouble,
    Where,
    Write,
    costly,
    healing,
    limited,
)
from tests.agents.server import ModelServer
from tests.support import FakeClock, until

Json = dict[str, Any]
NOW = 1_800_000_000.0
PATHS = {
    "anthropic": "v1/messages",
    "responses": "v1/responses",
    "chat": "v1/chat/completions",
    "gemini": "v1beta/models/m:generateContent",
}
SHELLS = {"anthropic": "Bash", "responses": "exec_command", "chat": "bash", "gemini": "run_shell_command"}
dialects = pytest.mark.parametrize("dialect", list(PATHS))


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """Of a stream, without the mark at its end."""
        lines = [
            line.removeprefix(b"data: ") for line in self.body.split(b"\n") if line.startswith(b"data: ")
        ]
        return [json.loads(line) for line in lines if line != b"[DONE]"]


def ask(url: str, method: str = "POST", body: Json | None = None, **headers: str) -> Answer:
    """One request on a connection of its own. Raises http.client.HTTPException when the server hangs up."""
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, f"/{path}", json.dumps(body or {}), named)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@dataclass(slots=True)
class Client:
    """A conversation in Anthropic's dialect: it asks, remembers the reply, and gives each tool a result."""

    url: str
    messages: list[Json]
    headers: dict[str, str]

    def ask(self) -> Answer:
        body = {"model": "claude-sonnet-4-5", "messages": self.messages, "tools": [{"name": "Bash"}]}
        return ask(f"{self.url}/v1/messages", body=body, **self.headers)

    def step(self) -> str:
        """The text of the next reply."""
        answer = self.ask()
        assert answer.status == 200, answer
        content = answer.data["content"]
        self.messages.append({"role": "assistant", "content": content})
        results = [
            {"type": "tool_result", "tool_use_id": c["id"]} for c in content if c["type"] == "tool_use"
        ]
        if results:
            self.messages.append({"role": "user", "content": results})
        return "".join(c["text"] for c in content if c["type"] == "text")

    def prompt(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})


def client(url: str, prompt: str, **headers: str) -> Client:
    return Client(url, [{"role": "user", "content": prompt}], headers)


def body(dialect: str, prompt: str = "Do it.") -> Json:
    """A first request of a client with a shell."""
    tool = {"name": SHELLS[dialect]}
    match dialect:
        case "anthropic":
            return {"model": "m", "messages": [{"role": "user", "content": prompt}], "tools": [tool]}
        case "responses":
            part = {"type": "input_text", "text": prompt}
            return {"model": "m", "input": [{"role": "user", "content": [part]}], "tools": [tool]}
        case "chat":
            tools = [{"type": "function", "function": tool}]
            return {"model": "m", "messages": [{"role": "user", "content": prompt}], "tools": tools}
        case _:
            contents = [{"role": "user", "parts": [{"text": prompt}]}]
            return {"contents": contents, "tools": [{"functionDeclarations": [tool]}]}


def text_and_command(dialect: str, data: Json) -> tuple[str, str]:
    """Of an answer that was not streamed."""
    match dialect:
        case "anthropic":
            text, call = data["content"]
            return text["text"], call["input"]["command"]
        case "responses":
            text, call = data["output"]
            return text["content"][0]["text"], json.loads(call["arguments"])["cmd"]
        case "chat":
            message = data["choices"][0]["message"]
            return message["content"], json.loads(message["tool_calls"][0]["function"]["arguments"])[
                "command"
            ]
        case _:
            text, call = data["candidates"][0]["content"]["parts"]
            return text["text"], call["functionCall"]["args"]["command"]


STEPS = Script((Say("one", (Shell("a"),)), Say("two", (Shell("b"),)), Say("three")))


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer({"steps": STEPS}) as made:
        yield made


# ---- replies -----------------------------------------------------------------------------------------------------------


@dialects
def test_a_reply_has_its_text_and_the_client_s_own_tool(server: ModelServer, dialect: str) -> None:
    answer = ask(f"{server.base('steps')}/{PATHS[dialect]}", body=body(dialect))
    assert text_and_command(dialect, answer.data) == ("one", "a")


@dialects
def test_a_stream_says_the_same(server: ModelServer, dialect: str) -> None:
    path = PATHS[dialect].replace(":generate", ":streamGenerate")
    answer = ask(f"{server.base('steps')}/{path}", body=body(dialect) | {"stream": True})
    said = json.dumps(answer.events)
    assert answer.headers["content-type"] == "text/event-stream"
    assert '"one"' in said
    assert SHELLS[dialect] in said
    assert answer.events[-1] != answer.events[0]


def test_the_stream_of_a_message_has_its_events_in_order(server: ModelServer) -> None:
    answer = ask(f"{server.base('steps')}/v1/messages", body=body("anthropic") | {"stream": True})
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert [e["type"] for e in answer.events] == [
        "message_start",
        *block,
        *block,
        "message_delta",
        "message_stop",
    ]


def test_a_file_is_written_by_the_client_s_tool_or_by_its_shell() -> None:
    with ModelServer({"w": Script((Say(tools=(Write("a b.txt", "it's"),)),))}) as server:
        url = f"{server.base('w')}/v1/messages"
        with_tool = ask(url, body=body("anthropic") | {"tools": [{"name": "Bash"}, {"name": "Write"}]})
        without = ask(url, body=body("anthropic"))
    assert with_tool.data["content"][0]["input"] == {"file_path": "a b.txt", "content": "it's"}
    assert without.data["content"][0]["input"]["command"] == """printf %s 'it'"'"'s' > 'a b.txt'"""


def test_a_call_can_be_broken(server: ModelServer) -> None:
    server.script("broken", Script((Say(tools=(Call("", '{"comm'),)),)))
    answer = ask(f"{server.base('broken')}/v1/chat/completions", body=body("chat"))
    function = answer.data["choices"][0]["message"]["tool_calls"][0]["function"]
    assert function == {"name": "bash", "arguments": '{"comm'}


def test_models_and_tokens_are_known(server: ModelServer) -> None:
    assert "mock-model" in str(ask(f"{server.base('plain')}/v1/models", "GET").data)
    assert ask(f"{server.base('plain')}/v1/messages/count_tokens").data == {"input_tokens": 1000}
    assert [r.answer for r in server.log] == ["models", "count"]
    assert server.requests() == ()


def test_a_request_without_tools_is_answered_beside_the_script(server: ModelServer) -> None:
    titled = ask(f"{server.base('steps')}/v1/messages", body=body("anthropic") | {"tools": []})
    scripted = ask(f"{server.base('steps+main')}/v1/messages", body=body("anthropic") | {"tools": []})
    assert titled.data["content"] == [{"type": "text", "text": "Title"}]
    assert scripted.data["content"][0]["text"] == "one"
    assert [r.side for r in server.log] == [True, False]


# ---- the place in the script -------------------------------------------------------------------------------------------


def test_conversations_with_one_base_url_have_each_their_own_place(server: ModelServer) -> None:
    first, second = (client(server.base("steps"), f"Item {name}.") for name in "ab")
    assert [first.step(), first.step(), second.step(), first.step(), second.step()] == [
        "one", "two", "one", "three", "two",
    ]  # fmt: skip
    assert server.conversations() == ("Item a.", "Item b.")
    assert [r.turn for r in server.requests("Item b.")] == [0, 1]


def test_a_prompt_after_the_last_reply_begins_the_script_again(server: ModelServer) -> None:
    person = client(server.base("steps"), "Do it.")
    assert [person.step() for _ in range(3)] == ["one", "two", "three"]
    person.prompt("Once more.")
    assert person.step() == "one"


def test_a_prompt_amid_the_script_goes_on_with_it(server: ModelServer) -> None:
    person = client(server.base("steps"), "Do it.")
    person.step()
    person.prompt("Where were you?")
    assert person.step() == "two"


def test_after_its_end_a_script_has_no_more_to_do(server: ModelServer) -> None:
    server.script("short", Script((Say("only", (Shell("a"),)),)))
    person = client(server.base("short"), "Do it.")
    assert [person.step(), person.step()] == ["only", "Done."]


def test_an_endless_script_begins_again() -> None:
    with ModelServer({"loop": Script(STEPS.steps[:2], endless=True)}) as server:
        person = client(server.base("loop"), "Do it.")
        assert [person.step() for _ in range(5)] == ["one", "two", "one", "two", "one"]


def test_notes_of_a_client_are_not_prompts(server: ModelServer) -> None:
    note = {"type": "text", "text": "<system-reminder>\nToday is a day.\n</system-reminder>"}
    person = client(server.base("plain"), "")
    person.messages = [{"role": "user", "content": [note, {"type": "text", "text": "Do it."}]}]
    person.step()
    assert server.conversations() == ("Do it.",)


def test_parts_of_one_reply_count_once() -> None:
    entries: list[Entry] = [
        Prompt("p"),
        Replied(False),
        Replied(True),
        Replied(True),
        Result(),
        Result(),
        Replied(True),
    ]
    assert told(entries) == Dialogue(prompts=("p",), asked="p", turn=2)


def test_a_conversation_is_named_by_its_session_or_by_a_pattern() -> None:
    with ModelServer() as server:
        client(server.base("plain"), "Item: a", X_Claude_Code_Session_Id="s1").step()
        assert server.conversations() == ("s1",)
    with ModelServer(conversation=r"Item: (\w+)") as server:
        client(server.base("plain"), "Do it.\nItem: a", X_Claude_Code_Session_Id="s1").step()
        assert server.conversations() == ("a",)
        assert server.log[0].session == "s1"


def test_the_name_of_a_conversation_is_filled_in() -> None:
    with ModelServer(conversation=r"Item: (.*)") as server:
        answer = client(server.base("item"), "Item: a b/c").ask()
    assert answer.data["content"][1]["input"]["command"] == "printf %s 'a-b-c\n' > a-b-c.txt"


# ---- corrections -------------------------------------------------------------------------------------------------------


def test_work_is_repaired_when_the_gate_s_words_are_heard() -> None:
    script = healing("check failed", rounds=2)
    with ModelServer({"heal": script}) as server:
        person = client(server.base("heal"), "Do it.")
        written = []
        for said in ("A check failed: 1 of 2", "A check failed: 2 of 2", "A check failed: 3 of 2", ""):
            person.step()
            written.append(person.messages[-2]["content"][1]["input"]["command"])
            person.step()
            assert person.step() == "Done: work.txt is committed."
            person.prompt(said)
    contents = [command.removeprefix("printf %s '").removesuffix("' > work.txt") for command in written]
    assert contents == ["bad\n", "bad\n1\n", "good\n", "good\n"]
    assert [r.correction for r in server.log if r.turn == 0] == [0, 1, 2, 3]


def test_a_correction_is_counted_without_a_memory_and_not_twice_when_it_is_asked_again() -> None:
    with ModelServer({"heal": healing("check failed", rounds=2)}, conversation=r"Item (\w+)") as server:
        for said in (
            "Item a: a check failed (1)",
            "Item a: a check failed (1)",
            "Item a: a check failed (2)",
        ):
            client(server.base("heal"), said).step()
        client(server.base("heal"), "Item b: a check failed (1)").step()
    assert [(r.conversation, r.correction) for r in server.log] == [("a", 1), ("a", 1), ("a", 2), ("b", 1)]


# ---- troubles ----------------------------------------------------------------------------------------------------------


def test_troubles_are_counted_for_each_conversation_or_for_each_key(server: ModelServer) -> None:
    def statuses(url: str, prompt: str, n: int) -> list[int]:
        return [client(url, prompt).ask().status for _ in range(n)]

    assert statuses(server.base("rate2"), "a", 3) == [429, 429, 200]
    assert statuses(server.base("rate2"), "b", 1) == [429]
    assert statuses(server.base("rate2", "k"), "a", 1) + statuses(server.base("rate2", "k"), "b", 2) == [
        429,
        429,
        200,
    ]


def test_trouble_comes_where_the_script_has_it(server: ModelServer) -> None:
    person = client(server.base("rate_amid"), "Do it.")
    person.step()
    assert [person.ask().status, person.ask().status] == [429, 429]
    assert [r.answer for r in server.log] == ["tools", "rate_limit", "rate_limit"]


@pytest.mark.parametrize(
    ("trouble", "statuses"),
    [
        (Trouble.RATE_LIMIT, [429, 429, 429, 429]),
        (Trouble.USAGE_LIMIT, [429, 429, 429, 429]),
        (Trouble.OVERLOADED, [529, 503, 503, 503]),
        (Trouble.SERVER, [500, 500, 500, 500]),
        (Trouble.AUTH, [401, 401, 401, 401]),
        (Trouble.FORBIDDEN, [403, 403, 403, 403]),
        (Trouble.BILLING, [400, 429, 429, 403]),
        (Trouble.NO_MODEL, [404, 404, 404, 404]),
        (Trouble.TOO_LONG, [400, 400, 400, 400]),
    ],
)
def test_each_api_has_its_own_status_for_a_trouble(trouble: Trouble, statuses: list[int]) -> None:
    with ModelServer({"fail": limited(Fail(trouble, message="this is why"))}) as server:
        answers = [ask(f"{server.base('fail')}/{PATHS[d]}", body=body(d)) for d in PATHS]
    assert [answer.status for answer in answers] == statuses
    assert all("this is why" in str(answer.data["error"]["message"]) for answer in answers)
    assert [r.status for r in server.log] == statuses


def test_a_rate_limit_says_when_to_come_again_only_when_the_script_does() -> None:
    scripts = {
        "none": limited(Fail(Trouble.RATE_LIMIT)),
        "after": limited(Fail(Trouble.RATE_LIMIT, retry_after_s=7)),
        "reset": limited(Fail(Trouble.RATE_LIMIT, resets_at=NOW + 60)),
    }
    with ModelServer(scripts, clock=FakeClock(NOW).wall) as server:
        headers = {name: client(server.base(name), "Do it.").ask().headers for name in scripts}
        chat = ask(f"{server.base('reset')}/v1/chat/completions", body=body("chat")).headers
        gemini = ask(f"{server.base('after')}/{PATHS['gemini']}", body=body("gemini")).data
    reset = "anthropic-ratelimit-requests-reset"
    assert [(h.get("retry-after"), h.get(reset)) for h in headers.values()] == [
        (None, None),
        ("7", "2027-01-15T08:00:07Z"),
        (None, "2027-01-15T08:01:00Z"),
    ]
    assert chat["x-ratelimit-reset-requests"] == "60s"
    assert gemini["error"]["details"][0]["retryDelay"] == "7s"


def test_a_usage_limit_ends_when_it_is_reset() -> None:
    clock = FakeClock(NOW)
    with ModelServer(resets_at=NOW + 90, clock=clock.wall) as server:
        answer = client(server.base("usage_limit"), "Do it.").ask()
        other = ask(f"{server.base('usage_limit')}/v1/responses", body=body("responses"))
        clock.advance(90)
        assert client(server.base("usage_limit"), "Do it.").ask().status == 200
    assert answer.status == 429
    assert answer.headers["retry-after"] == "90"
    assert answer.headers["anthropic-ratelimit-unified-reset"] == str(int(NOW) + 90)
    assert other.data["error"]["resets_at"] == int(NOW) + 90


@dialects
def test_a_limit_holds_for_every_request_until_its_time(dialect: str) -> None:
    clock = FakeClock(NOW)
    with ModelServer(clock=clock.wall) as server:
        url = f"{server.base('plain')}/{PATHS[dialect]}"
        server.limit(NOW + 30)
        limited = [ask(url, body=body(dialect, f"Item {n}")) for n in range(2)]
        assert ask(url, body=body(dialect) | {"tools": []}).status == 429
        clock.advance(30)
        assert ask(url, body=body(dialect)).status == 200
        server.limit(NOW + 60)
        assert ask(url, body=body(dialect)).status == 429
        server.limit(0)
        assert ask(url, body=body(dialect)).status == 200
    assert [answer.status for answer in limited] == [429, 429]
    assert "30" in str(limited[0].headers) + str(limited[0].data)
    assert [r.answer for r in server.log].count("usage_limit") == 4


def test_a_warning_is_in_the_headers(server: ModelServer) -> None:
    headers = client(server.base("near_limit"), "Do it.").ask().headers
    assert headers["anthropic-ratelimit-unified-status"] == "allowed_warning"
    assert headers["anthropic-ratelimit-unified-5h-utilization"] == "0.93"


def test_a_client_s_own_requests_share_what_lasts_and_use_up_nothing(server: ModelServer) -> None:
    side = body("anthropic") | {"tools": []}
    assert ask(f"{server.base('auth')}/v1/messages", body=side).status == 401
    assert ask(f"{server.base('rate2')}/v1/messages", body=side).status == 200
    assert [client(server.base("rate2"), "Do it.").ask().status for _ in range(3)] == [429, 429, 200]


@dialects
@pytest.mark.parametrize("how", list(How))
def test_a_broken_stream_costs_nothing(dialect: str, how: How) -> None:
    path = PATHS[dialect].replace(":generate", ":streamGenerate")
    with ModelServer({"broken": limited(Break(how))}) as server:
        answer = ask(f"{server.base('broken')}/{path}", body=body(dialect) | {"stream": True})
    assert answer.status == 200
    assert b"here I am" not in answer.body.lower()
    assert server.spent().cost_usd == 0
    assert [r.answer for r in server.log] == [how.value]


def test_a_broken_answer_is_broken_without_a_stream_too(server: ModelServer) -> None:
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        client(server.base("cut"), "Do it.").ask()
    assert client(server.base("garbage"), "Do it.").ask().body == b"<html>"
    assert client(server.base("overloaded_in_stream"), "Do it.").ask().status == 529


@pytest.mark.parametrize("where", list(Where))
def test_a_stalled_answer_goes_on_when_it_is_released(where: Where) -> None:
    answers: list[Answer] = []
    with ModelServer({"stall": limited(Stall(where))}) as server:
        url, asked = f"{server.base('stall')}/v1/messages", body("anthropic") | {"stream": True}
        asking = threading.Thread(target=lambda: answers.append(ask(url, body=asked)))
        asking.start()
        until(server.requests, what="the request is there")
        assert server.log[0].status == 0
        server.release()
        asking.join(10)
    assert answers[0].events[-1] == {"type": "message_stop"}
    assert (server.log[0].status, server.log[0].gone) == (200, False)


def test_who_does_not_wait_is_noted(server: ModelServer) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    text = json.dumps(body("anthropic"))
    with socket.create_connection((host, int(port)), 10) as connection:
        head = f"POST /s/stall_headers/v1/messages HTTP/1.1\r\nContent-Length: {len(text)}\r\n\r\n"
        connection.sendall((head + text).encode())
        until(server.requests, what="the request is there")
    until(lambda: server.log[0].gone, what="it is noted that the client went")
    assert server.spent().cost_usd == 0


def test_a_server_that_is_closed_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with ModelServer() as server:
        url, asked = f"{server.base('stall_headers')}/v1/messages", body("anthropic")

        def hang() -> None:
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                ask(url, body=asked)

        asking = threading.Thread(target=hang)
        asking.start()
        until(server.requests, what="the request is there")
    asking.join(10)
    until(lambda: set(threading.enumerate()) <= before, what="its threads have ended")


# ---- counting ----------------------------------------------------------------------------------------------------------


def test_costs_are_summed_for_each_conversation() -> None:
    prices = {
        "claude-sonnet": Price(fresh=3, cached=0.3, out=15),
        "claude-haiku": Price(fresh=1, cached=0.1, out=5),
    }
    with ModelServer({"costly": costly(200_000, 20_000, cached=100_000)}, prices=prices) as server:
        first, second = (client(server.base("costly"), f"Item {name}.") for name in "ab")
        for _ in range(3):
            first.step()
        second.step()
        title = {"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": "Item a."}]}
        ask(f"{server.base('costly')}/v1/messages", body=title)
        a, b = server.spent("Item a."), server.spent("Item b.")
    assert (a.requests, a.replies, a.tokens_in, a.tokens_cached, a.tokens_out) == (
        4,
        4,
        901_000,
        300_000,
        60_050,
    )
    assert a.cost_usd == pytest.approx(3 * 0.93 + 0.00125, abs=1e-12)
    assert server.spent("Item a.", sides=False).cost_usd == pytest.approx(2.79, abs=1e-12)
    assert b.cost_usd == pytest.approx(0.93, abs=1e-12)
    assert server.spent().cost_usd == pytest.approx(a.cost_usd + b.cost_usd, abs=1e-12)


@dialects
def test_an_answer_says_what_the_ledger_counts(dialect: str) -> None:
    script = Script((Say("text", tokens=Tokens(fresh=700, cached=300, out=20)),))
    with ModelServer({"some": script}) as server:
        data = ask(f"{server.base('some')}/{PATHS[dialect]}", body=body(dialect)).data
    used = data.get("usage") or data["usageMetadata"]
    assert next(iter(used.values())) == (700 if dialect == "anthropic" else 1000)
    assert "300" in str(used)
    assert "20" in str(used)
    assert (server.spent().tokens_in, server.spent().tokens_cached, server.spent().tokens_out) == (
        1000,
        300,
        20,
    )


def test_requests_at_the_same_time_are_all_counted(server: ModelServer) -> None:
    people = [client(server.base("steps"), f"Item {n}.") for n in range(8)]

    def three(person: Client) -> None:
        for _ in range(3):
            person.step()

    threads = [threading.Thread(target=three, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(server.requests()) == 24
    assert {server.spent(f"Item {n}.").replies for n in range(8)} == {3}
    assert [r.number for r in server.log] == list(range(24))


# ---- the way out, and mistakes -----------------------------------------------------------------------------------------


def raw(server: ModelServer, head: str, data: str = "") -> bytes:
    """All that is answered to these bytes."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(f"{head}\r\nContent-Length: {len(data)}\r\n\r\n{data}".encode())
        parts = iter(lambda: connection.recv(65536), b"")
        return b"".join(parts)


def test_every_attempt_to_leave_is_refused_and_kept(server: ModelServer) -> None:
    tried = [
        ("CONNECT", "model.example.invalid:443"),
        ("GET", "http://model.example.invalid/v1/models"),
        ("POST", "http://model.example.invalid/s/plain/v1/messages"),
        ("PUT", f"{server.url}/s/plain/v1/messages"),
    ]
    for method, target in tried:
        assert raw(server, f"{method} {target} HTTP/1.1", "{}").startswith(b"HTTP/1.1 403 ")
    assert [(e.method, e.target) for e in server.escapes] == tried
    assert server.log == ()


def test_a_client_is_told_to_ask_us_for_other_hosts(server: ModelServer) -> None:
    env = server.proxies()
    assert {env[name] for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")} == {server.url}
    assert env["NO_PROXY"] == "127.0.0.1,localhost"


def test_a_scenario_that_does_not_exist_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="no scenario 'plian'"), ModelServer() as server:
        assert client(server.base("plian"), "Do it.").ask().status == 404


def test_what_cannot_be_read_is_refused(server: ModelServer) -> None:
    assert b" 400 " in raw(server, "POST /s/plain/v1/messages HTTP/1.1\r\nConnection: close", "no JSON")
    assert ask(f"{server.base('plain')}/v1/nothing").status == 404
    assert [r.answer for r in server.log] == ["unreadable", "unknown"]


def test_a_body_in_chunks_is_read(server: ModelServer) -> None:
    host = server.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=10)
    parts = iter([json.dumps(body("anthropic"))[:30].encode(), json.dumps(body("anthropic"))[30:].encode()])
    connection.request("POST", "/s/plain/v1/messages", parts, encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()
    assert server.conversations() == ("Do it.",)
