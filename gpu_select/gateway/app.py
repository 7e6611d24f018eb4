"""The aiohttp application: which path is answered by what."""

from __future__ import annotations

from aiohttp import web

from gpu_select.gateway import operations
from gpu_select.gateway.call import GATEWAY
from gpu_select.gateway.completions import chat_completions, completions
from gpu_select.gateway.embeddings import embeddings
from gpu_select.gateway.gateway import Gateway
from gpu_select.gateway.middleware import around, name_itself
from gpu_select.gateway.routing import route

__all__ = ["build_app"]


def build_app(gateway: Gateway) -> web.Application:
    """The application of a gateway, for the gateway's event loop."""
    app = web.Application(middlewares=[around])
    app[GATEWAY] = gateway
    app.on_response_prepare.append(name_itself)
    app.add_routes(
        [
            web.post("/v1/chat/completions", chat_completions),
            web.post("/v1/completions", completions),
            web.post("/v1/embeddings", embeddings),
            web.post("/v1/route", route),
            web.get("/v1/models", operations.models),
            web.get("/v1/models/{name:.+}", operations.model),
            web.get("/healthz", operations.health),
            web.get("/readyz", operations.readiness),
            web.get("/metrics", operations.metrics),
            web.get("/openapi.json", operations.openapi),
            web.post("/admin/reload", operations.reload),
        ]
    )
    return app
