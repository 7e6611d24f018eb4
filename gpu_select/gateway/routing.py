"""POST /v1/route: decide, and send nothing on."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gpu_select.decisions import Query
from gpu_select.errors import GpuSelectError
from gpu_select.gateway.call import CALL, GATEWAY, read_json
from gpu_select.gateway.completions import decision_headers, error_of
from gpu_select.gateway.gateway import Routed
from gpu_select.gateway.headers import IGNORED, ROUTING_MS, safe_value
from gpu_select.gateway.schemas import route_queries
from gpu_select.jsonio import dumps

__all__ = ["route"]


async def route(request: web.Request) -> web.Response:
    """POST /v1/route. In a list, a query that cannot be routed has an error in its place."""
    gateway, call = request.app[GATEWAY], request[CALL]
    settings = gateway.generation.settings
    body = await read_json(request, settings)
    queries, many = route_queries(body.values, settings.route_on)
    routed = await gateway.decide([Query(one.routed.text, one.domain) for one in queries])
    call.notes |= {"queries": len(queries), "routing_ms": round(routed[0].routing_ms, 3)}
    if many:
        data = [{"index": i, **_entry(one)} for i, one in enumerate(routed)]
        sent = {ROUTING_MS: f"{routed[0].routing_ms:.3f}"}
        return web.Response(body=dumps({"object": "list", "data": data}), content_type="application/json", headers=sent)
    decided = routed[0].decided
    if isinstance(decided, GpuSelectError):
        raise error_of(decided) from decided
    call.notes |= {"decision": decided.decision, "category": decided.domain, "model": decided.model}
    sent = decision_headers(routed[0], decided)
    if note := queries[0].routed.ignored_note:
        sent[IGNORED] = safe_value(note)
    return web.Response(body=dumps(_entry(routed[0])), content_type="application/json", headers=sent)


def _entry(routed: Routed) -> dict[str, Any]:
    decided = routed.decided
    if isinstance(decided, GpuSelectError):
        return error_of(decided).as_json()
    return {
        "object": "route",
        "model": decided.model,
        "decision": decided.decision,
        "category": decided.domain,
        "category_given": decided.domain_given,
        "score": decided.score,
        "margin": decided.margin,
        "ranking": decided.ranking,
        "tokens": decided.n_tokens,
    }
