"""OpenAI: Responses (``POST .../responses``) and Chat Completions (``POST .../chat/completions``), plain and as a stream."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from tests.agents.dialogue import Entry, Replied, Result, prompts
from tests.agents.reply import Called, Failure, Json, Reply, each, event, waiting
from tests.agents.scripts import Fail, Stop, Trouble

ERRORS = {
    Trouble.RATE_LIMIT: (429, "rate_limit_exceeded", "Rate limit reached. Please try again later."),
    Trouble.USAGE_LIMIT: (429, "usage_limit_reached", "The usage limit has been reached."),
    Trouble.OVERLOADED: (503, "server_is_overloaded", "Overloaded"),
    Trouble.SERVER: (500, "server_error", "Internal server error"),
    Trouble.AUTH: (401, "invalid_api_key", "Incorrect API key provided."),
    Trouble.FORBIDDEN: (403, "permission_denied", "Your key may not use this resource."),
    Trouble.BILLING: (
        429,
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    Trouble.NO_MODEL: (404, "model_not_found", "The model does not exist."),
    Trouble.TOO_LONG: (
        400,
        "context_length_exceeded",
        "Your input exceeds the context window of this model.",
    ),
}


def _failure(fail: Fail, resets_at: float | None, now: float) -> Failure:
    status, kind, message = ERRORS[fail.trouble]
    headers: dict[str, str] = {}
    wait = waiting(fail, resets_at, now)
    if wait.retry_after_s is not None:
        headers["retry-after"] = str(wait.retry_after_s)
    error: Json = {"message": fail.message or message, "type": kind, "code": kind, "param": None}
    if wait.resets_at is not None:
        left_s = max(0, math.ceil(wait.resets_at - now))
        if fail.trouble is Trouble.USAGE_LIMIT:
            error |= {"plan_type": "plus", "resets_in_seconds": left_s, "resets_at": int(wait.resets_at)}
        if fail.trouble is Trouble.RATE_LIMIT:
            headers |= {"x-ratelimit-limit-requests": "50", "x-ratelimit-remaining-requests": "0",
                        "x-ratelimit-reset-requests": f"{left_s}s"}  # fmt: skip
    return Failure(status=status, body={"error": error}, headers=headers)


class Responses:
    name = "responses"

    def entries(self, body: Json) -> Iterator[Entry]:
        given = body.get("input")
        if isinstance(given, str):
            yield from prompts([given])
            return
        for item in given or []:
            kind = item.get("type", "message")
            if kind == "message" and item.get("role") == "user":
                yield from prompts(each(item.get("content"), lambda p: p.get("text")))
            elif kind == "message" and item.get("role") == "assistant":
                yield Replied(False)
            elif kind.endswith("_call"):
                yield Replied(True)
            elif kind.endswith("_output"):
                yield Result()

    def tools(self, body: Json) -> Iterable[str]:
        return [str(tool.get("name") or tool.get("type")) for tool in body.get("tools") or []]

    def failure(self, fail: Fail, resets_at: float | None, now: float) -> Failure:
        return _failure(fail, resets_at, now)

    def _usage(self, reply: Reply) -> Json:
        tokens = reply.tokens
        return {
            "input_tokens": tokens.fresh + tokens.cached,
            "input_tokens_details": {"cached_tokens": tokens.cached},
            "output_tokens": tokens.out,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens.fresh + tokens.cached + tokens.out,
        }

    def _begun(self, reply: Reply) -> Json:
        return {"id": f"resp_{reply.id}", "object": "response", "created_at": 0, "status": "in_progress",
                "model": reply.model, "output": []}  # fmt: skip

    def _message(self, reply: Reply) -> Json:
        content = [{"type": "output_text", "text": reply.text, "annotations": []}]
        return {"type": "message", "id": f"msg_{reply.id}", "role": "assistant", "status": "completed",
                "content": content}  # fmt: skip

    def _call(self, call: Called) -> Json:
        return {"type": "function_call", "id": f"fc_{call.id}", "call_id": f"call_{call.id}", "name": call.name,
                "arguments": call.arguments, "status": "completed"}  # fmt: skip

    def _ended(self, reply: Reply) -> Json:
        output = [self._message(reply)] if reply.text else []
        output += [self._call(call) for call in reply.calls]
        ended = self._begun(reply) | {"status": "completed", "output": output, "usage": self._usage(reply)}
        if reply.stop:
            reason = {Stop.REFUSAL: "content_filter", Stop.LENGTH: "max_output_tokens"}[reply.stop]
            ended |= {"status": "incomplete", "incomplete_details": {"reason": reason}}
        return ended

    def whole(self, reply: Reply) -> Json:
        return self._ended(reply)

    def opening(self, reply: Reply) -> bytes:
        begun = _event("response.created", response=self._begun(reply))
        if reply.text:
            item = self._message(reply) | {"content": [], "status": "in_progress"}
            begun += _event("response.output_item.added", output_index=0, item=item)
        return begun

    def words(self, reply: Reply, text: str) -> bytes:
        place = {"item_id": f"msg_{reply.id}", "output_index": 0, "content_index": 0}
        return _event("response.output_text.delta", **place, delta=text)

    def closing(self, reply: Reply) -> bytes:
        out = (
            _event("response.output_item.done", output_index=0, item=self._message(reply))
            if reply.text
            else b""
        )
        for index, call in enumerate(reply.calls, start=1 if reply.text else 0):
            item = self._call(call)
            out += _event("response.output_item.added", output_index=index, item=item | {"arguments": ""})
            out += _event("response.output_item.done", output_index=index, item=item)
        ended = self._ended(reply)
        return out + _event(f"response.{ended['status']}", response=ended)

    def broken(self, reply: Reply, fail: Fail | None) -> bytes:
        if fail is None:
            return event('{"type":"response.output_item.done","it', "response.output_item.done") + event(
                "<html>"
            )
        _, kind, message = ERRORS[fail.trouble]
        failed = self._begun(reply) | {"status": "failed", "error": {"code": kind, "message": message}}
        return _event("response.failed", response=failed)


class Chat:
    name = "chat"

    def entries(self, body: Json) -> Iterator[Entry]:
        for message in body.get("messages") or []:
            match message.get("role"):
                case "assistant":
                    yield Replied(bool(message.get("tool_calls")))
                case "tool":
                    yield Result()
                case "user":
                    yield from prompts(each(message.get("content"), lambda p: p.get("text")))
                case _:
                    pass  # the client's instructions

    def tools(self, body: Json) -> Iterable[str]:
        return [str(tool.get("function", {}).get("name")) for tool in body.get("tools") or []]

    def failure(self, fail: Fail, resets_at: float | None, now: float) -> Failure:
        return _failure(fail, resets_at, now)

    def _usage(self, reply: Reply) -> Json:
        tokens = reply.tokens
        return {
            "prompt_tokens": tokens.fresh + tokens.cached,
            "completion_tokens": tokens.out,
            "total_tokens": tokens.fresh + tokens.cached + tokens.out,
            "prompt_tokens_details": {"cached_tokens": tokens.cached},
        }

    def _calls(self, reply: Reply) -> list[Json]:
        return [
            {
                "index": index,
                "id": f"call_{call.id}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for index, call in enumerate(reply.calls)
        ]

    def _finish(self, reply: Reply) -> str:
        if reply.stop:
            return {Stop.REFUSAL: "content_filter", Stop.LENGTH: "length"}[reply.stop]
        return "tool_calls" if reply.calls else "stop"

    def whole(self, reply: Reply) -> Json:
        message: Json = {"role": "assistant", "content": reply.text or None}
        if reply.calls:
            message["tool_calls"] = self._calls(reply)
        choice = {"index": 0, "finish_reason": self._finish(reply), "message": message}
        return self._about(reply, "chat.completion") | {"choices": [choice], "usage": self._usage(reply)}

    def _about(self, reply: Reply, kind: str) -> Json:
        return {"id": f"chatcmpl-{reply.id}", "object": kind, "created": 0, "model": reply.model}

    def _chunk(self, reply: Reply, choices: list[Json], **more: Any) -> bytes:
        return event(self._about(reply, "chat.completion.chunk") | {"choices": choices} | more)

    def _delta(self, reply: Reply, delta: Json, finish: str | None = None) -> bytes:
        return self._chunk(reply, [{"index": 0, "delta": delta, "finish_reason": finish}])

    def opening(self, reply: Reply) -> bytes:
        return self._delta(reply, {"role": "assistant", "content": ""})

    def words(self, reply: Reply, text: str) -> bytes:
        return self._delta(reply, {"content": text})

    def closing(self, reply: Reply) -> bytes:
        out = self._delta(reply, {"tool_calls": self._calls(reply)}) if reply.calls else b""
        out += self._delta(reply, {}, self._finish(reply))
        return out + self._chunk(reply, [], usage=self._usage(reply)) + event("[DONE]")

    def broken(self, reply: Reply, fail: Fail | None) -> bytes:
        if fail is None:
            return event('{"id":"x","choices":[{"del') + event("<html>")
        _, kind, message = ERRORS[fail.trouble]
        return event({"error": {"message": message, "type": kind, "code": kind}})


def _event(kind: str, **more: Any) -> bytes:
    return event({"type": kind, **more}, kind)
