"""What of a request has to be understood: the model it asks for, and the text to choose a model by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gpu_select.config.gateway import RouteOn
from gpu_select.errors import brief
from gpu_select.gateway.errors import BadRequestError

__all__ = [
    "EmbeddingRequest",
    "RouteQuery",
    "RoutedText",
    "conversation_text",
    "embedding_request",
    "prompt_text",
    "requested_model",
    "route_queries",
    "wants_stream",
]

_MOST_INPUTS = 2048  # as OpenAI's own limit for embeddings
_TEXT_PARTS = ("text", "input_text")
_MOST_KINDS = 5


@dataclass(frozen=True)
class RoutedText:
    """The text to choose a model by, and what was left out of it."""

    text: str
    ignored: Mapping[str, int] = field(default_factory=dict)
    """How many content parts of which type have no text: images, audio, files."""

    @property
    def ignored_note(self) -> str:
        """The same in a line, such as "image_url=2, input_audio=1"; empty where nothing was left out."""
        return ", ".join(f"{kind}={count}" for kind, count in sorted(self.ignored.items()))


@dataclass(frozen=True)
class RouteQuery:
    """One query of POST /v1/route."""

    routed: RoutedText
    domain: str | None


@dataclass(frozen=True)
class EmbeddingRequest:
    """A request for embeddings of our own encoder."""

    texts: tuple[str, ...]
    encoding: Literal["float", "base64"]


def requested_model(values: Mapping[str, Any]) -> str:
    """The name in a body's `model`.

    Raises:
        BadRequestError: it is missing or no text.
    """
    model = values.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequestError(f"model: expected the name of a model, {_got(values, 'model')}", param="model")
    return model


def wants_stream(values: Mapping[str, Any]) -> bool:
    """Whether the answer is to come piece by piece.

    Raises:
        BadRequestError: `stream` is neither boolean nor null.
    """
    stream = values.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequestError(f"stream: expected true or false, {_got(values, 'stream')}", param="stream")
    return bool(stream)


def conversation_text(values: Mapping[str, Any], route_on: RouteOn) -> RoutedText:
    """The text of a chat to choose a model by.

    Args:
        values: the body of a chat completion.
        route_on: the last message of the user, or all messages, joined by blank lines.

    Raises:
        BadRequestError: no messages, messages of another form, or no text in them.
    """
    messages = values.get("messages")
    if not isinstance(messages, list) or not messages:
        got = "an empty list" if messages == [] else _got(values, "messages").removeprefix("got ")
        raise BadRequestError(f"messages: expected a list of at least one message, got {got}", param="messages")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequestError(f"messages[{i}]: expected an object with a role", param=f"messages[{i}]")
    chosen = [*enumerate(messages)]
    if route_on == "last_user_message":
        chosen = [(i, message) for i, message in chosen if message["role"] == "user"][-1:]
        if not chosen:
            raise BadRequestError("messages: expected one of the role user, to choose a model by", param="messages")
    parts = [_content(message.get("content"), f"messages[{i}].content") for i, message in chosen]
    text = "\n\n".join(part.text for part in parts if part.text.strip())
    if not text:
        where = f"messages[{chosen[-1][0]}].content"
        raise BadRequestError(f"{where}: expected text to choose a model by; or name a model", param=where)
    ignored: Counter[str] = Counter()
    for part in parts:
        ignored.update(part.ignored)
    return RoutedText(text, ignored)


def prompt_text(values: Mapping[str, Any]) -> RoutedText:
    """The text of a completion's prompt; several prompts are joined by line ends, as one model answers them all.

    Raises:
        BadRequestError: no prompt, token numbers, or no text in it.
    """
    prompt = values.get("prompt")
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise BadRequestError(
            f"prompt: expected a text or a list of texts to choose a model by, {_got(values, 'prompt')}; "
            "with token numbers, name a model",
            param="prompt",
        )
    text = "\n".join(texts)
    if not text.strip():
        raise BadRequestError("prompt: expected text to choose a model by; or name a model", param="prompt")
    return RoutedText(text)


def route_queries(values: Mapping[str, Any], route_on: RouteOn) -> tuple[list[RouteQuery], bool]:
    """The queries of POST /v1/route, and whether they came as a list.

    A body has `query` (a text), `messages` (as a chat completion) or `queries` (a list of texts, or of objects with
    `query` and `domain`); `domain` stands beside the first two.

    Raises:
        BadRequestError: none of them, several, or one of another form.
    """
    given = [key for key in ("query", "queries", "messages") if key in values]
    if len(given) != 1:
        raise BadRequestError(f"expected one of query, queries and messages, got {' and '.join(given) or 'none'}")
    if given == ["messages"]:
        return [RouteQuery(conversation_text(values, route_on), _domain(values, "domain"))], False
    if given == ["query"]:
        return [RouteQuery(RoutedText(_query(values, "query")), _domain(values, "domain"))], False
    queries = values["queries"]
    if not isinstance(queries, list) or not 1 <= len(queries) <= _MOST_INPUTS:
        got = f"got {len(queries)}" if isinstance(queries, list) else _got(values, "queries")
        raise BadRequestError(f"queries: expected a list of 1 to {_MOST_INPUTS} queries, {got}", param="queries")
    out = []
    for i, item in enumerate(queries):
        entry = item if isinstance(item, dict) else {"query": item}
        where = f"queries[{i}]"
        text = _query(entry, f"{where}.query" if isinstance(item, dict) else where)
        out.append(RouteQuery(RoutedText(text), _domain(entry, f"{where}.domain")))
    return out, True


def embedding_request(values: Mapping[str, Any], dim: int) -> EmbeddingRequest:
    """The texts to embed.

    Args:
        values: the body.
        dim: dimensions of the encoder's vectors.

    Raises:
        BadRequestError: texts, encoding or dimensions that the encoder does not serve.
    """
    texts = values.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not 1 <= len(texts) <= _MOST_INPUTS:
        got = f"got {len(texts)}" if isinstance(texts, list) else _got(values, "input")
        raise BadRequestError(f"input: expected a text or a list of 1 to {_MOST_INPUTS} texts, {got}", param="input")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text:
            raise BadRequestError(
                f"input[{i}]: expected a text that is not empty (no token numbers), got {brief(text)}", param="input"
            )
    encoding = values.get("encoding_format")
    if encoding not in (None, "float", "base64"):
        raise BadRequestError(
            f"encoding_format: expected float or base64, {_got(values, 'encoding_format')}", param="encoding_format"
        )
    if values.get("dimensions") not in (None, dim):
        raise BadRequestError(
            f"dimensions: expected {dim}, as this encoder has, {_got(values, 'dimensions')}", param="dimensions"
        )
    return EmbeddingRequest(tuple(texts), "base64" if encoding == "base64" else "float")


def _content(content: Any, where: str) -> RoutedText:
    """A message's content: a text, a list of parts, or nothing."""
    if content is None or isinstance(content, str):
        return RoutedText(content or "")
    if not isinstance(content, list):
        raise BadRequestError(f"{where}: expected a text or a list of content parts, got {brief(content)}", param=where)
    texts: list[str] = []
    ignored: Counter[str] = Counter()
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise BadRequestError(f"{where}[{i}]: expected a content part with a type", param=f"{where}[{i}]")
        if kind not in _TEXT_PARTS:
            ignored[kind if len(ignored) < _MOST_KINDS or kind in ignored else "other"] += 1
        elif isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            raise BadRequestError(f"{where}[{i}].text: expected a text", param=f"{where}[{i}].text")
    return RoutedText("\n".join(texts), ignored)


def _query(values: Mapping[str, Any], where: str) -> str:
    query = values.get("query")
    if not isinstance(query, str) or not query.strip():
        raise BadRequestError(f"{where}: expected a text that is not empty, {_got(values, 'query')}", param=where)
    return query


def _domain(values: Mapping[str, Any], where: str) -> str | None:
    domain = values.get("domain")
    if domain is not None and not isinstance(domain, str):
        raise BadRequestError(f"{where}: expected the name of a domain, {_got(values, 'domain')}", param=where)
    return domain


def _got(values: Mapping[str, Any], key: str) -> str:
    return f"got {brief(values[key])}" if key in values else "got none"
