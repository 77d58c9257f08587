"""HTTP for the model server: reads requests, sends what the director has planned, refuses to be a proxy."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.agents.anthropic import Anthropic
from tests.agents.director import Asked, Director, NoScenario, Plan
from tests.agents.gemini import Gemini
from tests.agents.ledger import Ledger
from tests.agents.openai import Chat, Responses
from tests.agents.reply import Dialect, Failure, Json, pieces
from tests.agents.scripts import Break, Fail, How, Stall, Trouble, Where

SESSIONS = ("x-claude-code-session-id", "session-id", "session_id", "x-session-id")
"""Headers in which clients say which conversation this is."""
DIALECTS: Mapping[str, Dialect] = {
    "/messages": Anthropic(),
    "/responses": Responses(),
    "/chat/completions": Chat(),
    ":generateContent": Gemini(),
    ":streamGenerateContent": Gemini(),
}
"""How the path of a request for a reply ends."""
COUNTS: Mapping[str, Json] = {"/count_tokens": {"input_tokens": 1000}, ":countTokens": {"totalTokens": 1000}}
MODELS = ("claude-sonnet-4-5", "claude-haiku-4-5", "mock-model")
WORDS = 8
"""In one event of a stream."""
LOOK_S = 0.05
"""How often a stalled answer looks whether anybody still waits for it."""


class Gone(Exception):
    """The client has closed the connection, or the server is being closed."""


class Wire(ThreadingHTTPServer):
    """A thread for each connection; none of them outlives `hang_up`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, director: Director, ledger: Ledger, clock: Callable[[], float]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.director = director
        self.ledger = ledger
        self.clock = clock
        self.mistakes: list[str] = []
        """Of a test, or of this server."""
        self.closing = False
        self.gate = threading.Event()
        """Set when what stalls now shall go on."""
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()

    def accept(self) -> None:
        """Takes connections until `stop_accepting`."""
        while not self.closing:
            try:
                connection, address = self.get_request()
            except ConnectionError:
                continue  # the client has changed its mind
            except OSError as e:
                if not self.closing:
                    self.mistakes.append(f"the server: {e}")
                return
            self.process_request(connection, address)

    def release(self) -> None:
        gate, self.gate = self.gate, threading.Event()
        gate.set()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changed:
                self._open.discard(request)
                self._changed.notify_all()

    def stop_accepting(self) -> None:
        self.closing = True
        self.socket.shutdown(socket.SHUT_RDWR)  # accept(2) returns

    def hang_up(self, timeout_s: float) -> None:
        """Ends every connection, when `accept` has ended. Raises AssertionError when a handler does not end."""
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            if not self._changed.wait_for(lambda: not self._open, timeout_s):
                raise AssertionError(f"{len(self._open)} handlers do not end")

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, (Gone, ConnectionError)):
            self.mistakes.append(f"the server: {error!r}")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Wire
    _gate: threading.Event

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Nothing: the ledger has it all."""

    def _serve(self) -> None:
        raw = self._body()
        if self.command == "CONNECT" or not self.path.startswith("/"):
            self.server.ledger.escaped(self.server.clock(), self.command, self.path)
            self.close_connection = True
            self._json(403, {"error": {"message": "this proxy refuses everything"}}, {"connection": "close"})
        elif self.command == "POST":
            self._post(raw)
        elif self.command == "GET" and "/models" in self.path:
            self._other("models", 200, _models())
        elif self.command == "HEAD":
            self._other("head", 200, {})
        else:
            self._other("unknown", 404, _wrong("not_found_error", f"no such path: {self.path}"))

    # Every method: a proxy is asked with any of them.
    do_CONNECT = do_DELETE = do_GET = do_HEAD = do_OPTIONS = do_PATCH = do_POST = do_PUT = do_TRACE = _serve  # noqa: N815

    def _post(self, raw: bytes) -> None:
        path = self.path.partition("?")[0]
        for ending, counted in COUNTS.items():
            if path.endswith(ending):
                self._other("count", 200, counted)
                return
        dialect = next((d for ending, d in DIALECTS.items() if path.endswith(ending)), None)
        if dialect is None:
            self._other("unknown", 404, _wrong("not_found_error", f"no such path: {path}"))
            return
        body = _parsed(raw)
        if body is None:
            self._other("unreadable", 400, _wrong("invalid_request_error", "not a JSON object"))
            return
        self._gate = self.server.gate  # before the request can be seen: whoever has seen it can release it
        try:
            plan = self.server.director.plan(self._asked(path, dialect, body))
        except NoScenario as e:
            self.server.mistakes.append(str(e))
            self._other("unknown", 404, _wrong("not_found_error", str(e)))
            return
        try:
            self._answer(plan)
        except (Gone, ConnectionError):
            self.server.ledger.gone(plan.number)
            self.close_connection = True

    def _asked(self, path: str, dialect: Dialect, body: Json) -> Asked:
        """Without ``/s/...`` the scenario is ``plain``."""
        found = re.fullmatch(r"/s/([^/@+]+)(\+main)?(?:@([^/]+))?(/.*)", path)
        scenario, main, key, rest = found.groups() if found else ("plain", None, None, path)
        return Asked(
            path=path,
            scenario=scenario,
            main=bool(main),
            key=key or "",
            dialect=dialect,
            model=str(body.get("model") or rest.rpartition("/")[2].partition(":")[0]),
            session=next((self.headers[name] for name in SESSIONS if name in self.headers), ""),
            stream=path.endswith(":streamGenerateContent") or bool(body.get("stream")),
            body=body,
        )

    # An answer is noted before its last bytes are sent: whoever has read it finds it in the ledger.

    def _answer(self, plan: Plan) -> None:
        ledger, fault, reply = self.server.ledger, plan.fault, plan.reply
        if plan.failure:
            ledger.note(plan.number, status=plan.failure.status)
            self._fail(plan.failure)
            return
        if isinstance(fault, Stall) and fault.where is Where.HEADERS:
            self._wait(fault.seconds, self._gate)
        if plan.stream:
            self._stream(plan)
        elif isinstance(fault, Break):
            self._break(plan, fault.how)
        else:
            ledger.note(plan.number, status=200, tokens=reply.tokens)
            self._json(200, plan.dialect.whole(reply), reply.headers)

    def _break(self, plan: Plan, how: How) -> None:
        """An answer that does not stream."""
        match how:
            case How.CUT:
                self.server.ledger.note(plan.number, status=200)
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            case How.GARBAGE:
                self.server.ledger.note(plan.number, status=200)
                self._send(200, b"<html>", {"content-type": "application/json"})
            case How.OVERLOADED:
                failure = plan.dialect.failure(Fail(Trouble.OVERLOADED), None, self.server.clock())
                self.server.ledger.note(plan.number, status=failure.status)
                self._fail(failure)

    def _stream(self, plan: Plan) -> None:
        dialect, fault, reply = plan.dialect, plan.fault, plan.reply
        sse = {"content-type": "text/event-stream", "cache-control": "no-cache", "connection": "close"}
        self._head(200, sse | dict(reply.headers))
        self.close_connection = True
        self.wfile.write(dialect.opening(reply))
        if isinstance(fault, Stall) and fault.where is Where.START:
            self._wait(fault.seconds, self._gate)
        if isinstance(fault, Break) and fault.how is not How.CUT:
            self.server.ledger.note(plan.number, status=200)
            fail = Fail(Trouble.OVERLOADED) if fault.how is How.OVERLOADED else None
            self.wfile.write(dialect.broken(reply, fail))
            return
        for number, text in enumerate(pieces(reply.text, 1 if plan.word_s or fault else WORDS)):
            self.wfile.write(dialect.words(reply, text))
            if number == 0 and isinstance(fault, Stall) and fault.where is Where.TEXT:
                self._wait(fault.seconds, self._gate)
            if isinstance(fault, Break):
                break
            if plan.word_s:
                self._wait(plan.word_s, threading.Event())
        if isinstance(fault, Break):
            self.server.ledger.note(plan.number, status=200)
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.server.ledger.note(plan.number, status=200, tokens=reply.tokens)
            self.wfile.write(dialect.closing(reply))

    def _fail(self, failure: Failure) -> None:
        self._json(failure.status, failure.body, failure.headers)

    def _other(self, answer: str, status: int, body: Json) -> None:
        """What is not a request for a reply."""
        self.server.ledger.other(self.server.clock(), self.command, self.path, answer, status)
        self._json(status, body, {})

    # ---- bytes -------------------------------------------------------------------------------------------------------

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            raw = b"".join(self._chunks())
        else:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        return gzip.decompress(raw) if self.headers.get("content-encoding") == "gzip" else raw

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0] or b"0", 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"request-id": "req_test", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _json(self, status: int, body: Json, headers: Mapping[str, str]) -> None:
        self._send(status, json.dumps(body).encode(), {"content-type": "application/json", **headers})

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self._head(status, {"content-length": str(len(data)), **headers})
        if self.command != "HEAD":
            self.wfile.write(data)

    def _wait(self, seconds: float, gate: threading.Event) -> None:
        """Until the gate opens or the time is over. Raises Gone when the client or the server goes."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        while (left_s := deadline - time.monotonic()) > 0 and not gate.wait(min(left_s, LOOK_S)):
            if self.server.closing or (poll.poll(0) and not self.connection.recv(1, socket.MSG_PEEK)):
                raise Gone


def _parsed(raw: bytes) -> Json | None:
    try:
        body = json.loads(raw or b"{}")
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _models() -> Json:
    about = {"type": "model", "object": "model", "created_at": "2025-01-01T00:00:00Z"}
    data = [about | {"id": name, "display_name": name} for name in MODELS]
    return {"object": "list", "has_more": False, "data": data}


def _wrong(kind: str, message: str) -> Json:
    return {"type": "error", "error": {"type": kind, "message": message}}
