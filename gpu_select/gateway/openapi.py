"""The API's description, as GET /openapi.json gives it. What is passed on to endpoints is described only in part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpu_select import __version__
from gpu_select.gateway import headers

__all__ = ["document"]

_NAME = {"type": "string", "minLength": 1}
_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_DOMAIN = {"type": ["string", "null"], "description": "One of the documented domains; by default it is predicted."}
_PART = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": _NAME, "text": _TEXT},
    "description": "Texts take part in the decision; images, audio and files do not.",
}
_MESSAGES = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {"type": "string", "examples": ["user", "assistant", "system", "tool"]},
            "content": {"anyOf": [_TEXT, {"type": "null"}, {"type": "array", "items": _PART}]},
        },
    },
}
_MODEL = {"$ref": "#/components/schemas/ModelName"}
_STREAM = {"type": ["boolean", "null"]}
_QUERY = {"type": "string", "minLength": 1}

_SCHEMAS: dict[str, Any] = {
    "ChatCompletionRequest": {
        "type": "object",
        "required": ["model", "messages"],
        "properties": {"model": _MODEL, "messages": _MESSAGES, "stream": _STREAM},
    },
    "CompletionRequest": {
        "type": "object",
        "required": ["model", "prompt"],
        "properties": {
            "model": _MODEL,
            "prompt": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]},
            "stream": _STREAM,
        },
    },
    "EmbeddingRequest": {
        "type": "object",
        "required": ["model", "input"],
        "properties": {
            "model": _MODEL,
            "input": {"anyOf": [_QUERY, {"type": "array", "items": _QUERY, "minItems": 1, "maxItems": 2048}]},
            "encoding_format": {"enum": ["float", "base64"]},
            "dimensions": {"type": "integer", "minimum": 1},
        },
    },
    "EmbeddingList": {
        "type": "object",
        "required": ["object", "data", "model", "usage"],
        "properties": {
            "object": {"const": "list"},
            "data": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["object", "index", "embedding"],
                    "properties": {
                        "object": {"const": "embedding"},
                        "index": _COUNT,
                        "embedding": {"anyOf": [{"type": "array", "items": {"type": "number"}}, _TEXT]},
                    },
                },
            },
            "model": _NAME,
            "usage": {
                "type": "object",
                "required": ["prompt_tokens", "total_tokens"],
                "properties": {"prompt_tokens": _COUNT, "total_tokens": _COUNT},
            },
        },
    },
    "RouteRequest": {
        "type": "object",
        "description": "One of query, messages and queries.",
        "properties": {
            "query": _QUERY,
            "messages": _MESSAGES,
            "domain": _DOMAIN,
            "queries": {
                "type": "array",
                "minItems": 1,
                "maxItems": 2048,
                "items": {
                    "anyOf": [
                        _QUERY,
                        {
                            "type": "object",
                            "required": ["query"],
                            "properties": {"query": _QUERY, "domain": _DOMAIN},
                        },
                    ]
                },
            },
        },
        "oneOf": [{"required": ["query"]}, {"required": ["messages"]}, {"required": ["queries"]}],
    },
    "Route": {
        "type": "object",
        "required": ["object", "model", "decision", "category", "category_given", "ranking", "tokens"],
        "properties": {
            "object": {"const": "route"},
            "model": _NAME,
            "decision": _TEXT,
            "category": _TEXT,
            "category_given": {"type": "boolean"},
            "score": {"type": ["number", "null"]},
            "margin": {"type": ["number", "null"], "description": "null: there is no runner-up."},
            "ranking": {"type": "array", "items": _NAME, "description": "The decision's models, the best first."},
            "tokens": _COUNT,
        },
    },
    "RouteList": {
        "type": "object",
        "required": ["object", "data"],
        "properties": {
            "object": {"const": "list"},
            "data": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["index"],
                    "properties": {"index": _COUNT},
                    "anyOf": [{"$ref": "#/components/schemas/Route"}, {"$ref": "#/components/schemas/Error"}],
                },
            },
        },
    },
    "Model": {
        "type": "object",
        "required": ["id", "object", "created", "owned_by"],
        "properties": {"id": _NAME, "object": {"const": "model"}, "created": _COUNT, "owned_by": _TEXT},
    },
    "ModelList": {
        "type": "object",
        "required": ["object", "data"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
        },
    },
    "Status": {
        "type": "object",
        "required": ["status"],
        "properties": {"status": _TEXT, "generation": {"type": "integer", "minimum": 1}},
    },
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": _TEXT,
                    "type": _TEXT,
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    },
}

_STATUSES = {
    400: "The request cannot be answered as it is.",
    401: "No API key, or a wrong one.",
    403: "Not for this client.",
    404: "No such model.",
    408: "The body was not there in time.",
    413: "The body is too long.",
    415: "The body is no JSON.",
    422: "The new configuration cannot be used; the old one stays.",
    429: "Too many requests wait; Retry-After says how long to.",
    502: "No endpoint gave an answer.",
    503: "Nobody can answer for now; Retry-After says how long.",
    504: "No endpoint answered in time.",
}
_OF_A_BODY = (400, 401, 404, 408, 413, 415, 429)
_OF_AN_ENDPOINT = (502, 503, 504)

_DECISION_HEADERS = {
    headers.SELECTED_MODEL: "The model that answered.",
    headers.SELECTED_DECISION: "The decision that it was chosen by.",
    headers.SELECTED_CATEGORY: "The query's domain.",
    headers.ROUTING_MS: "How long the decision took, in milliseconds.",
    headers.ATTEMPTS: "Endpoints that were asked until one answered.",
    headers.IGNORED: "Content parts that had no part in the decision.",
}


def document(models: Sequence[str]) -> dict[str, Any]:
    """An OpenAPI 3.1 document.

    Args:
        models: what a request may name.
    """
    model_name = {"type": "string", "enum": [*models], "description": "A model, or an alias that means: choose one."}
    domain = {"name": headers.DOMAIN, "in": "header", "required": False, "schema": _TEXT}
    domain["description"] = "The query's domain, where it is known."
    chat = _posted("Answer a chat, by a model of choice.", "ChatCompletionRequest", None, _OF_AN_ENDPOINT)
    text = _posted("Complete a text, by a model of choice.", "CompletionRequest", None, _OF_AN_ENDPOINT)
    for operation in (chat, text):
        operation["parameters"] = [domain]
        operation["responses"]["200"]["headers"] = {
            name: {"description": meaning, "schema": _TEXT} for name, meaning in _DECISION_HEADERS.items()
        }
    name = {"name": "name", "in": "path", "required": True, "schema": _MODEL}
    route = _posted("Decide, and send nothing on.", "RouteRequest", "Route")
    route["responses"]["200"]["content"]["application/json"]["schema"] = {
        "anyOf": [{"$ref": "#/components/schemas/Route"}, {"$ref": "#/components/schemas/RouteList"}]
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gpu_select gateway",
            "version": __version__,
            "description": 'An OpenAI-compatible endpoint that chooses the model where a request asks for "auto".',
        },
        "paths": {
            "/v1/chat/completions": {"post": chat},
            "/v1/completions": {"post": text},
            "/v1/embeddings": {
                "post": _posted("Embed texts.", "EmbeddingRequest", "EmbeddingList", _OF_AN_ENDPOINT),
            },
            "/v1/route": {"post": route},
            "/v1/models": {"get": _operation("List the models.", "ModelList", (401,))},
            "/v1/models/{name}": {
                "get": {**_operation("Describe a model.", "Model", (401, 404)), "parameters": [name]}
            },
            "/healthz": {"get": _operation("Tell that the process answers.", "Status", (), secured=False)},
            "/readyz": {"get": _operation("Tell that requests are welcome.", "Status", (503,), secured=False)},
            "/metrics": {"get": _unsecured("Count, for Prometheus.", "text/plain")},
            "/openapi.json": {"get": _unsecured("Describe the API.", "application/json")},
            "/admin/reload": {"post": _operation("Load the configuration again.", "Status", (401, 403, 422))},
        },
        "components": {
            "schemas": {**_SCHEMAS, "ModelName": model_name},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _posted(summary: str, body: str, answer: str | None, more: tuple[int, ...] = ()) -> dict[str, Any]:
    operation = _operation(summary, answer, (*_OF_A_BODY, *more))
    schema = {"$ref": f"#/components/schemas/{body}"}
    operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if answer is None:  # the endpoint's own
        streamed: dict[str, Any] = {"application/json": {"schema": {}}, "text/event-stream": {}}
        operation["responses"]["200"]["content"] = streamed
    return operation


def _operation(summary: str, answer: str | None, errors: tuple[int, ...], *, secured: bool = True) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": "Done."}}
    if answer is not None:
        schema = {"$ref": f"#/components/schemas/{answer}"}
        responses["200"]["content"] = {"application/json": {"schema": schema}}
    for status in errors:
        error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        responses[str(status)] = {"description": _STATUSES[status], "content": error}
    return {"summary": summary, "responses": responses, "security": [{"key": []}, {}] if secured else []}


def _unsecured(summary: str, content_type: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "security": [],
        "responses": {"200": {"description": "Done.", "content": {content_type: {"schema": {}}}}},
    }
