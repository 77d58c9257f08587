"""Anthropic Messages: ``POST .../v1/messages``, plain and as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from tests.agents.dialogue import Entry, Replied, Result, prompts
from tests.agents.reply import Failure, Json, Reply, each, event, waiting
from tests.agents.scripts import Fail, Stop, Trouble

ERRORS = {
    Trouble.RATE_LIMIT: (
        429,
        "rate_limit_error",
        "This request would exceed the rate limit of your organization.",
    ),
    Trouble.USAGE_LIMIT: (429, "rate_limit_error", "The usage limit has been reached."),
    Trouble.OVERLOADED: (529, "overloaded_error", "Overloaded"),
    Trouble.SERVER: (500, "api_error", "Internal server error"),
    Trouble.AUTH: (401, "authentication_error", "invalid x-api-key"),
    Trouble.FORBIDDEN: (403, "permission_error", "Your key may not use this resource."),
    Trouble.BILLING: (
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.",
    ),
    Trouble.NO_MODEL: (404, "not_found_error", "model: no such model"),
    Trouble.TOO_LONG: (400, "invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum"),
}
STOPS = {Stop.REFUSAL: "refusal", Stop.LENGTH: "max_tokens"}
WEEK_S = 7 * 24 * 3600


def limit_headers(status: str, resets_at: float, utilization: float) -> dict[str, str]:
    """What a subscription is told of its limits with each answer."""
    head = "anthropic-ratelimit-unified-"
    return {
        f"{head}status": status,
        f"{head}reset": str(int(resets_at)),
        f"{head}representative-claim": "five_hour",
        f"{head}5h-status": status,
        f"{head}5h-reset": str(int(resets_at)),
        f"{head}5h-utilization": str(utilization),
        f"{head}7d-status": "allowed",
        f"{head}7d-reset": str(int(resets_at) + WEEK_S),
        f"{head}7d-utilization": "0.4",
        f"{head}fallback-percentage": "0.5",
        f"{head}overage-status": "rejected",
    }


class Anthropic:
    name = "anthropic"

    def entries(self, body: Json) -> Iterator[Entry]:
        for message in body.get("messages") or []:
            parts = message.get("content")
            kinds = (
                {p.get("type") for p in parts if isinstance(p, dict)} if isinstance(parts, list) else set()
            )
            if message.get("role") == "assistant":
                yield Replied("tool_use" in kinds)
                continue
            if "tool_result" in kinds:
                yield Result()
            yield from prompts(each(parts, lambda p: p.get("text")))

    def tools(self, body: Json) -> Iterable[str]:
        return [str(tool.get("name")) for tool in body.get("tools") or []]

    def failure(self, fail: Fail, resets_at: float | None, now: float) -> Failure:
        status, kind, message = ERRORS[fail.trouble]
        headers: dict[str, str] = {}
        wait = waiting(fail, resets_at, now)
        if wait.retry_after_s is not None:
            headers["retry-after"] = str(wait.retry_after_s)
        if wait.resets_at is not None and fail.trouble is Trouble.USAGE_LIMIT:
            headers |= limit_headers("rejected", wait.resets_at, 1.0)
        if wait.resets_at is not None and fail.trouble is Trouble.RATE_LIMIT:
            at = datetime.fromtimestamp(wait.resets_at, UTC)
            prefix = "anthropic-ratelimit-requests-"
            headers |= {
                f"{prefix}limit": "50",
                f"{prefix}remaining": "0",
                f"{prefix}reset": f"{at:%Y-%m-%dT%H:%M:%SZ}",
            }
        error = {"type": kind, "message": fail.message or message}
        return Failure(
            status=status, body={"type": "error", "error": error, "request_id": "req_test"}, headers=headers
        )

    def _message(self, reply: Reply, out: int) -> Json:
        usage = {
            "input_tokens": reply.tokens.fresh,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": reply.tokens.cached,
            "output_tokens": out,
            "service_tier": "standard",
        }
        return {
            "id": f"msg_{reply.id}",
            "type": "message",
            "role": "assistant",
            "model": reply.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }

    def _stopped(self, reply: Reply) -> str:
        return STOPS[reply.stop] if reply.stop else "tool_use" if reply.calls else "end_turn"

    def whole(self, reply: Reply) -> Json:
        content: list[Json] = [{"type": "text", "text": reply.text}] if reply.text else []
        content += [
            {"type": "tool_use", "id": f"toolu_{call.id}", "name": call.name, "input": call.parsed()}
            for call in reply.calls
        ]
        return self._message(reply, reply.tokens.out) | {
            "content": content,
            "stop_reason": self._stopped(reply),
        }

    def opening(self, reply: Reply) -> bytes:
        begun = _event("message_start", message=self._message(reply, 1))
        if reply.text:
            begun += _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        return begun

    def words(self, reply: Reply, text: str) -> bytes:
        return _event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    def closing(self, reply: Reply) -> bytes:
        out = _event("content_block_stop", index=0) if reply.text else b""
        for index, call in enumerate(reply.calls, start=1 if reply.text else 0):
            block = {"type": "tool_use", "id": f"toolu_{call.id}", "name": call.name, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": call.arguments}
            out += _event("content_block_start", index=index, content_block=block)
            out += _event("content_block_delta", index=index, delta=delta)
            out += _event("content_block_stop", index=index)
        stop = {"stop_reason": self._stopped(reply), "stop_sequence": None}
        out += _event("message_delta", delta=stop, usage={"output_tokens": reply.tokens.out})
        return out + _event("message_stop")

    def broken(self, reply: Reply, fail: Fail | None) -> bytes:
        if fail is None:
            return event('{"type":"content_block_delta","ind', "content_block_delta") + event(
                "<html>", "content_block_delta"
            )
        _, kind, message = ERRORS[fail.trouble]
        return _event("error", error={"type": kind, "message": message})


def _event(kind: str, **more: object) -> bytes:
    return event({"type": kind, **more}, kind)
