"""One request as the gateway sees it: its id, its body within bounds, and what the log will say of it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import web

from gpu_select.config.gateway import GatewayConfig
from gpu_select.gateway.body import JsonBody
from gpu_select.gateway.errors import (
    BadRequestError,
    BodyTimeoutError,
    BodyTooLargeError,
    UnsupportedMediaTypeError,
)
from gpu_select.gateway.gateway import Gateway
from gpu_select.gateway.headers import REQUEST_ID, request_id

__all__ = ["CALL", "GATEWAY", "Call", "read_json"]

_LONG_BYTES = 1 << 16
"""Shorter bodies are read in less time than it takes to hand them over to a thread, or in a few milliseconds."""


class Call:
    """What is known of a request while it is answered."""

    def __init__(self, request: web.Request) -> None:
        self.id = request_id(request.headers.get(REQUEST_ID))
        self.start = time.perf_counter()
        resource = request.match_info.route.resource
        self.route = "unknown" if resource is None else resource.canonical
        self.is_answered = False
        """Whether the head of the answer has gone out."""
        self.notes: dict[str, Any] = {}
        """Fields for the log: names of the configuration, counts and times; nothing that a client wrote."""

    @property
    def seconds(self) -> float:
        """Since its head was there."""
        return time.perf_counter() - self.start


GATEWAY = web.AppKey("gateway", Gateway)
CALL = web.RequestKey("call", Call)


async def read_json(request: web.Request, settings: GatewayConfig) -> JsonBody:
    """The body of a request.

    Raises:
        BodyTooLargeError, BodyTimeoutError, UnsupportedMediaTypeError, BadRequestError: what is wrong with it.
    """
    if request.content_type != "application/json":
        # also keeps out requests that a web page can make a browser send without asking
        raise UnsupportedMediaTypeError("Expected the header Content-Type: application/json")
    limit = settings.max_body_bytes
    if request.content_length is not None and request.content_length > limit:
        raise BodyTooLargeError(limit)
    pieces: list[bytes] = []
    n_bytes = 0
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            # counted after decompression, so that a small body cannot become a large one
            async for piece in request.content.iter_any():
                n_bytes += len(piece)
                if n_bytes > limit:
                    raise BodyTooLargeError(limit)
                pieces.append(piece)
    except TimeoutError as error:
        raise BodyTimeoutError(f"The body was not complete after {settings.body_timeout_s:g} s") from error
    except web.RequestPayloadError as error:
        raise BadRequestError("The body breaks off, or is not compressed as its headers say") from error
    data = b"".join(pieces)
    # a long one in a thread, so that others are answered in the meantime
    return await asyncio.to_thread(JsonBody, data) if len(data) > _LONG_BYTES else JsonBody(data)
