"""Around every request: its id, its key, errors as OpenAI clients expect them, a line in the log, the metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from gpu_select.gateway.call import CALL, GATEWAY, Call
from gpu_select.gateway.errors import (
    ApiError,
    BadRequestError,
    BodyTooLargeError,
    InternalError,
    MethodError,
    NotFoundError,
)
from gpu_select.gateway.event_log import log_event, log_failure
from gpu_select.gateway.headers import REQUEST_ID
from gpu_select.gateway.sending import hold_little, send_whole
from gpu_select.jsonio import dumps

__all__ = ["around", "name_itself"]

OPEN_PATHS = ("/healthz", "/readyz", "/metrics", "/openapi.json")
"""For programs that have no key."""

_CLIENT_LEFT = 499  # as nginx counts them; nobody is there to get it


@web.middleware
async def around(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """The middleware."""
    gateway = request.app[GATEWAY]
    call = request[CALL] = Call(request)
    status = 500
    gateway.metrics.in_flight.inc()
    if request.transport is not None:
        hold_little(request.transport)
    try:
        try:
            _authorize(request)
            response = await handler(request)
        except (ApiError, web.HTTPException) as error:
            response = _answer(_api_error(error, request), call)
        except (asyncio.CancelledError, ConnectionError):
            status = _CLIENT_LEFT
            raise
        except Exception as error:
            log_failure("request failed", error, request_id=call.id, route=call.route)
            if call.is_answered:
                raise  # part of the answer has gone out: the end of the connection has to say that it is no whole
            response = _answer(InternalError(f"The gateway failed; its log has the id {call.id}"), call)
        if not response.prepared:
            status = _CLIENT_LEFT
            idle_s = gateway.generation.settings.upstream.idle_s
            await send_whole(request, response, idle_s, lambda: call.notes.update(cut="client too slow"))
        status = response.status
        return response
    finally:
        gateway.metrics.in_flight.dec()
        gateway.metrics.requests.labels(call.route, str(status)).inc()
        gateway.metrics.request_s.labels(call.route).observe(call.seconds)
        log_event(
            "request",
            level=logging.DEBUG if request.path in OPEN_PATHS and status == 200 else logging.INFO,
            request_id=call.id,
            method=request.method if call.route != "unknown" else None,
            route=call.route,
            status=status,
            ms=round(call.seconds * 1000, 3),
            **call.notes,
        )


async def name_itself(request: web.Request, response: web.StreamResponse) -> None:
    """Give an answer the request's id, and no versions of what serves it."""
    response.headers["Server"] = "gpu-select"
    call = request.get(CALL)
    if call is not None:
        response.headers[REQUEST_ID] = call.id
        call.is_answered = True


def _authorize(request: web.Request) -> None:
    keys = request.app[GATEWAY].generation.keys
    authorization = request.headers.get("authorization")
    if request.path.startswith("/admin"):
        keys.check_admin(authorization, request.remote)
    elif request.path not in OPEN_PATHS:
        keys.check_client(authorization)


def _api_error(error: ApiError | web.HTTPException, request: web.Request) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return MethodError(f"{request.method} is not for this path; it takes {allowed}", headers={"Allow": allowed})
    if error.status == 404:
        return NotFoundError("No such path; GET /openapi.json lists those that there are")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return BodyTooLargeError(request.app[GATEWAY].generation.settings.max_body_bytes)
    return BadRequestError(error.reason) if error.status < 500 else InternalError(error.reason)


def _answer(error: ApiError, call: Call) -> web.Response:
    call.notes["error"] = error.code or error.type
    return web.Response(
        status=error.status, body=dumps(error.as_json()), content_type="application/json", headers=error.headers
    )
