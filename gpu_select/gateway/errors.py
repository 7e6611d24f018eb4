"""What an OpenAI client gets when something is wrong: a status, and an error object that its library understands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from gpu_select.errors import brief

__all__ = [
    "ApiError",
    "AuthenticationError",
    "BadRequestError",
    "BodyTimeoutError",
    "BodyTooLargeError",
    "ConfigRefusedError",
    "EndpointError",
    "EndpointTimeoutError",
    "InternalError",
    "MethodError",
    "ModelNotFoundError",
    "NotFoundError",
    "OverloadedError",
    "PermissionError",
    "UnavailableError",
    "UnsupportedMediaTypeError",
]

_NOTHING: Mapping[str, str] = MappingProxyType({})


class ApiError(Exception):
    """Base of all errors that are answered with an error object.

    Args:
        message: for a human; may quote what the client sent, so that it never goes into a log.
        param: the parameter of the request at fault.
        headers: of the answer.
    """

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None, headers: Mapping[str, str] = _NOTHING) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = headers

    def as_json(self) -> dict[str, Any]:
        """The error object, as OpenAI writes it."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class BadRequestError(ApiError):
    """400: the request can never be answered as it is."""

    status, type = 400, "invalid_request_error"


class AuthenticationError(ApiError):
    """401: no key, or a wrong one."""

    status, type, code = 401, "invalid_request_error", "invalid_api_key"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class PermissionError(ApiError):
    """403: not for this client."""

    status, type, code = 403, "invalid_request_error", "forbidden"


class NotFoundError(ApiError):
    """404: no such path."""

    status, type, code = 404, "invalid_request_error", "not_found"


class ModelNotFoundError(ApiError):
    """404: no such model."""

    status, type, code = 404, "invalid_request_error", "model_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"The model {brief(name)} does not exist; GET /v1/models lists those that do", param="model")


class MethodError(ApiError):
    """405: the path knows other methods."""

    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class BodyTimeoutError(ApiError):
    """408: the body did not arrive in time."""

    status, type, code = 408, "invalid_request_error", "request_timeout"


class BodyTooLargeError(ApiError):
    """413: the body is longer than the limit."""

    status, type, code = 413, "invalid_request_error", "request_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The body is longer than {limit_bytes:,} bytes (gateway.max_body_mb in the configuration)")


class UnsupportedMediaTypeError(ApiError):
    """415: the body is no JSON."""

    status, type, code = 415, "invalid_request_error", "unsupported_media_type"


class ConfigRefusedError(ApiError):
    """422: the new configuration cannot be used; the old one stays."""

    status, type, code = 422, "invalid_request_error", "invalid_config"


class OverloadedError(ApiError):
    """429: too much is waiting."""

    status, type, code = 429, "rate_limit_error", "queue_full"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(
            "Too many requests wait to be routed; try again later", headers={"Retry-After": _whole(retry_after_s)}
        )


class InternalError(ApiError):
    """500: a fault of the gateway."""


class EndpointError(ApiError):
    """502: the endpoint did not give an answer that can be passed on."""

    status, type, code = 502, "server_error", "endpoint_failed"


class UnavailableError(ApiError):
    """503: nobody is there to answer, for now."""

    status, type, code = 503, "server_error", "unavailable"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, headers={"Retry-After": _whole(retry_after_s)})


class EndpointTimeoutError(ApiError):
    """504: the endpoint took too long."""

    status, type, code = 504, "server_error", "endpoint_timeout"


def _whole(seconds: float) -> str:
    """Seconds as the header Retry-After wants them."""
    return str(max(1, math.ceil(seconds)))
