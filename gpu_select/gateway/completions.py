"""POST /v1/chat/completions and /v1/completions: choose a model where that is asked for, and pass everything on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from gpu_select.decisions import Decided, Query
from gpu_select.errors import ConfigError, DataError, DecisionError, GpuSelectError
from gpu_select.gateway import headers
from gpu_select.gateway.body import JsonBody
from gpu_select.gateway.call import CALL, GATEWAY, read_json
from gpu_select.gateway.errors import ApiError, BadRequestError, InternalError, ModelNotFoundError
from gpu_select.gateway.failover import first_answer
from gpu_select.gateway.gateway import Routed
from gpu_select.gateway.relay import relay
from gpu_select.gateway.schemas import RoutedText, conversation_text, prompt_text, requested_model, wants_stream
from gpu_select.gateway.service import Generation
from gpu_select.gateway.upstream import Endpoint, EndpointRequest

__all__ = ["chat_completions", "completions", "error_of", "pass_on"]


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    settings = request.app[GATEWAY].generation.settings
    return await _complete(request, "/chat/completions", lambda values: conversation_text(values, settings.route_on))


async def completions(request: web.Request) -> web.StreamResponse:
    """POST /v1/completions."""
    return await _complete(request, "/completions", prompt_text)


async def _complete(
    request: web.Request, path: str, text_of: Callable[[Mapping[str, Any]], RoutedText]
) -> web.StreamResponse:
    gateway = request.app[GATEWAY]
    generation = gateway.generation
    body = await read_json(request, generation.settings)
    name = requested_model(body.values)
    stream = wants_stream(body.values)
    if name not in generation.settings.aliases:
        return await pass_on(request, generation, [_endpoint(generation, name)], path, body, stream, {})
    text = text_of(body.values)
    (routed,) = await gateway.decide([Query(text.text, request.headers.get(headers.DOMAIN))])
    decided = _decision(routed)
    own = decision_headers(routed, decided)
    if text.ignored_note:
        own[headers.IGNORED] = headers.safe_value(text.ignored_note)
    request[CALL].notes |= {
        "decision": decided.decision,
        "category": decided.domain,
        "routing_ms": round(routed.routing_ms, 3),
        "query_tokens": decided.n_tokens,
        "ignored_parts": sum(text.ignored.values()) or None,
    }
    endpoints = routed.generation.endpoints
    candidates = [endpoints[model] for model in decided.ranking]
    return await pass_on(request, routed.generation, candidates, path, body, stream, own)


async def pass_on(
    request: web.Request,
    generation: Generation,
    candidates: Sequence[Endpoint],
    path: str,
    body: JsonBody,
    stream: bool,
    own_headers: Mapping[str, str],
) -> web.StreamResponse:
    """Send a request to the first candidate that answers, and its answer back.

    Args:
        request: the client's.
        generation: which the candidates belong to.
        candidates: the best first.
        path: after an endpoint's base URL.
        body: the client's; only its model is replaced.
        stream: whether the answer is to come piece by piece.
        own_headers: of the answer, besides the endpoint's.
    """
    gateway, call = request.app[GATEWAY], request[CALL]
    timeouts = generation.settings.upstream

    def request_to(endpoint: Endpoint) -> EndpointRequest:
        sent = headers.endpoint_headers(request.headers, endpoint.model, call.id)
        return EndpointRequest(path, body.with_model(endpoint.name), sent, stream)

    start = time.perf_counter()
    first = await first_answer(gateway.pool, candidates, request_to, timeouts, gateway.count_try)
    endpoint = first.answer.endpoint
    call.notes |= {
        "model": endpoint.name,
        "attempts": first.n_asked,
        "first_byte_ms": round((time.perf_counter() - start) * 1000, 3),
    }
    sent = {
        **own_headers,
        headers.SELECTED_MODEL: headers.safe_value(endpoint.name),
        headers.ATTEMPTS: str(first.n_asked),
    }

    def on_cut() -> None:
        first.attempt.fail()
        gateway.metrics.cut.labels(endpoint.name).inc()

    with first.attempt:
        response, end = await relay(request, first.answer, sent, timeouts.idle_s, on_cut)
        if end == "complete":
            first.attempt.succeed()
    if end != "complete":
        call.notes["cut"] = end
    return response


def decision_headers(routed: Routed, decided: Decided) -> dict[str, str]:
    """What an answer tells of its decision."""
    return {
        headers.SELECTED_MODEL: headers.safe_value(decided.model),
        headers.SELECTED_DECISION: headers.safe_value(decided.decision),
        headers.SELECTED_CATEGORY: headers.safe_value(decided.domain),
        headers.ROUTING_MS: f"{routed.routing_ms:.3f}",
    }


def error_of(error: GpuSelectError) -> ApiError:
    """A query's error, as the client gets it."""
    if isinstance(error, (ConfigError, DataError, DecisionError)):
        return BadRequestError(str(error))
    return InternalError(f"The query could not be routed: {type(error).__name__}")


def _decision(routed: Routed) -> Decided:
    if isinstance(routed.decided, GpuSelectError):
        raise error_of(routed.decided) from routed.decided
    return routed.decided


def _endpoint(generation: Generation, name: str) -> Endpoint:
    endpoint = generation.endpoints.get(name)
    if endpoint is None:
        raise ModelNotFoundError(name)
    return endpoint
