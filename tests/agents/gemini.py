"""Gemini: ``POST .../models/M:generateContent`` and ``:streamGenerateContent``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from tests.agents.dialogue import Entry, Replied, Result, prompts
from tests.agents.reply import Failure, Json, Reply, each, event, waiting
from tests.agents.scripts import Fail, Stop, Trouble

ERRORS = {
    Trouble.RATE_LIMIT: (429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
    Trouble.USAGE_LIMIT: (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota."),
    Trouble.OVERLOADED: (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    Trouble.SERVER: (500, "INTERNAL", "An internal error has occurred."),
    Trouble.AUTH: (401, "UNAUTHENTICATED", "API key not valid. Please pass a valid API key."),
    Trouble.FORBIDDEN: (403, "PERMISSION_DENIED", "Your key may not use this resource."),
    Trouble.BILLING: (403, "PERMISSION_DENIED", "This API method requires billing to be enabled."),
    Trouble.NO_MODEL: (404, "NOT_FOUND", "The model is not found."),
    Trouble.TOO_LONG: (
        400,
        "INVALID_ARGUMENT",
        "The input token count exceeds the maximum number of tokens allowed.",
    ),
}
RPC = "type.googleapis.com/google.rpc."


class Gemini:
    name = "gemini"

    def entries(self, body: Json) -> Iterator[Entry]:
        for message in body.get("contents") or []:
            parts = message.get("parts") or []
            if message.get("role") == "model":
                yield Replied(any("functionCall" in part for part in parts))
                continue
            if any("functionResponse" in part for part in parts):
                yield Result()
            yield from prompts(each(parts, lambda p: p.get("text")))

    def tools(self, body: Json) -> Iterable[str]:
        return [
            str(known.get("name"))
            for tool in body.get("tools") or []
            for known in tool.get("functionDeclarations", [])
        ]

    def failure(self, fail: Fail, resets_at: float | None, now: float) -> Failure:
        status, kind, message = ERRORS[fail.trouble]
        message = fail.message or message
        wait = waiting(fail, resets_at, now)
        details: list[Json] = []
        if fail.trouble is Trouble.USAGE_LIMIT:
            quota = {"quotaId": "GenerateRequestsPerDayPerProjectPerModel", "quotaValue": "250"}
            details.append({"@type": f"{RPC}QuotaFailure", "violations": [quota]})
        if wait.resets_at is not None:
            left_s = max(0, math.ceil(wait.resets_at - now))
            details.append({"@type": f"{RPC}RetryInfo", "retryDelay": f"{left_s}s"})
            message += f" Please retry in {left_s}s."
        error = {"code": status, "message": message, "status": kind, "details": details}
        return Failure(status=status, body={"error": error}, headers={})

    def _chunk(self, reply: Reply, parts: list[Json], finish: str = "") -> Json:
        tokens = reply.tokens
        candidate: Json = {"index": 0, "content": {"role": "model", "parts": parts}}
        if finish:
            candidate["finishReason"] = finish
        usage = {
            "promptTokenCount": tokens.fresh + tokens.cached,
            "cachedContentTokenCount": tokens.cached,
            "candidatesTokenCount": tokens.out,
            "totalTokenCount": tokens.fresh + tokens.cached + tokens.out,
        }
        return {
            "candidates": [candidate],
            "usageMetadata": usage,
            "modelVersion": reply.model,
            "responseId": reply.id,
        }

    def _calls(self, reply: Reply) -> list[Json]:
        return [{"functionCall": {"name": call.name, "args": call.parsed()}} for call in reply.calls]

    def _finish(self, reply: Reply) -> str:
        return {Stop.REFUSAL: "SAFETY", Stop.LENGTH: "MAX_TOKENS"}[reply.stop] if reply.stop else "STOP"

    def whole(self, reply: Reply) -> Json:
        parts: list[Json] = [{"text": reply.text}] if reply.text else []
        return self._chunk(reply, parts + self._calls(reply), self._finish(reply))

    def opening(self, reply: Reply) -> bytes:
        return b""

    def words(self, reply: Reply, text: str) -> bytes:
        return event(self._chunk(reply, [{"text": text}]))

    def closing(self, reply: Reply) -> bytes:
        return event(self._chunk(reply, self._calls(reply) or [{"text": ""}], self._finish(reply)))

    def broken(self, reply: Reply, fail: Fail | None) -> bytes:
        if fail is None:
            return event('{"candidates":[{"content":{"pa')
        status, kind, message = ERRORS[fail.trouble]
        return event({"error": {"code": status, "status": kind, "message": message}})
