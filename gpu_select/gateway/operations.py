"""Paths for programs that look after the gateway: models, health, metrics, the API's description, reloading."""

from __future__ import annotations

from aiohttp import web

from gpu_select.gateway.call import GATEWAY
from gpu_select.gateway.errors import ModelNotFoundError, PermissionError, UnavailableError
from gpu_select.gateway.metrics import CONTENT_TYPE
from gpu_select.gateway.openapi import document
from gpu_select.gateway.service import Generation
from gpu_select.jsonio import dumps

__all__ = ["health", "metrics", "model", "models", "openapi", "readiness", "reload"]

_RETRY_AFTER_S = 1.0
_OF_BROWSERS = ("Origin", "Sec-Fetch-Site")


def _json(value: object) -> web.Response:
    return web.Response(body=dumps(value), content_type="application/json")


async def models(request: web.Request) -> web.Response:
    """GET /v1/models."""
    return _json({"object": "list", "data": list(_models(request.app[GATEWAY].generation).values())})


async def model(request: web.Request) -> web.Response:
    """GET /v1/models/NAME."""
    name = request.match_info["name"]
    found = _models(request.app[GATEWAY].generation).get(name)
    if found is None:
        raise ModelNotFoundError(name)
    return _json(found)


async def health(request: web.Request) -> web.Response:
    """GET /healthz: the process answers."""
    return _json({"status": "ok"})


async def readiness(request: web.Request) -> web.Response:
    """GET /readyz: new requests are welcome."""
    gateway = request.app[GATEWAY]
    if gateway.stopping:
        raise UnavailableError("The gateway is stopping", _RETRY_AFTER_S)
    return _json({"status": "ready", "generation": gateway.generation.number})


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics."""
    return web.Response(body=request.app[GATEWAY].metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})


async def openapi(request: web.Request) -> web.Response:
    """GET /openapi.json."""
    return _json(document([*_models(request.app[GATEWAY].generation)]))


async def reload(request: web.Request) -> web.Response:
    """POST /admin/reload: for programs, and not for pages that somebody looks at on this machine."""
    if any(name in request.headers for name in _OF_BROWSERS):
        raise PermissionError("/admin is not for browsers: the request has the header Origin or Sec-Fetch-Site")
    generation = await request.app[GATEWAY].reload()
    return _json({"status": "reloaded", "generation": generation.number})


def _models(generation: Generation) -> dict[str, dict[str, object]]:
    own = generation.service.embedder
    names = [*generation.settings.aliases, *generation.endpoints, *([] if own is None else [own.name])]
    return {name: {"id": name, "object": "model", "created": 0, "owned_by": "gpu-select"} for name in names}
