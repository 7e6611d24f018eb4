"""A model's answer in the OpenAI chat protocol, whole or streamed: its text, why it ended, and its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpu_select.errors import brief
from gpu_select.jsonio import loads

__all__ = ["Answer", "AnswerError", "StreamedAnswer", "TooLongError", "Usage", "whole_answer"]

_MAX_TEXT_BYTES = 8 << 20
_MAX_TOKENS = 10**9
_MAX_REASON = 40
_DONE = b"[DONE]"


class AnswerError(Exception):
    """What came is no answer of the protocol, or one that says that it failed. Another try may help.

    Attributes:
        status: of the error object, where it names one.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class TooLongError(Exception):
    """An answer beyond all bounds. Another try would only cost more."""

    def __init__(self) -> None:
        super().__init__(f"expected an answer of at most {_MAX_TEXT_BYTES >> 20} MiB, got a longer one")


@dataclass(frozen=True)
class Usage:
    """What an answer counts for; None where the server does not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True)
class Answer:
    """An answer, and how long it took."""

    text: str
    """Without what a model thought before (`reasoning_content`)."""
    finish_reason: str | None
    input_tokens: int | None
    output_tokens: int | None
    seconds: float
    """From sending the request to the answer's last byte."""
    first_token_s: float | None
    """From sending to the first token, of thoughts as well; None where the answer was not streamed."""
    with_temperature: bool = True
    """Whether the server took the temperature that was asked for; else the model answered with its own."""


def whole_answer(data: bytes) -> tuple[str, str | None, Usage]:
    """Text, reason of its end, and tokens of an answer that came in one piece.

    Raises:
        AnswerError: not what the protocol says.
        TooLongError: the text is too long for a record.
    """
    document = _object(data)
    choice = _choice(document)
    message = choice.get("message") if choice is not None else None
    if choice is None or not isinstance(message, dict):
        raise AnswerError(f"expected choices[0].message, got {brief(document)}")
    text = _text(message.get("content"))
    if len(text.encode()) > _MAX_TEXT_BYTES:
        raise TooLongError
    return text, _finish_reason(choice), _usage(document)


class StreamedAnswer:
    """An answer that comes in pieces."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._n_bytes = 0
        self._has_choice = False
        self.finish_reason: str | None = None
        self.usage = Usage()
        self.has_begun = False
        """Whether a token has come, be it of the model's thoughts."""
        self.is_done = False
        """Whether the server has said that this is all."""

    @property
    def text(self) -> str:
        """What has come so far."""
        return "".join(self._pieces)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing, should the stream end here."""
        return self._has_choice and (self.is_done or self.finish_reason is not None)

    def add(self, event: bytes) -> None:
        """Take the data of one event.

        Raises:
            AnswerError: not what the protocol says.
            TooLongError: the text is too long for a record.
        """
        self.is_done = self.is_done or event.strip() == _DONE
        if self.is_done:
            return
        document = _object(event)
        usage = _usage(document)
        if usage != Usage():
            self.usage = usage
        choice = _choice(document)
        if choice is None:  # the last one, with the tokens
            return
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            raise AnswerError(f"expected choices[0].delta, got {brief(document)}")
        self._has_choice = True
        text = _text(delta.get("content"))
        self._n_bytes += len(text.encode())
        if self._n_bytes > _MAX_TEXT_BYTES:
            raise TooLongError
        if text:
            self._pieces.append(text)
        # "reasoning" and "reasoning_content": vLLM and others; the tokens of a model's thoughts
        self.has_begun = self.has_begun or bool(text or delta.get("reasoning_content") or delta.get("reasoning"))
        self.finish_reason = _finish_reason(choice) or self.finish_reason


def _object(data: bytes) -> dict[str, Any]:
    try:
        document = loads(data)
    except UnicodeDecodeError as error:
        raise AnswerError("expected JSON, got bytes that are not UTF-8") from error
    except ValueError as error:
        raise AnswerError(f"expected JSON, got {brief(data.decode('utf-8', 'replace'))}") from error
    if not isinstance(document, dict):
        raise AnswerError(f"expected a JSON object, got {brief(document)}")
    if document.get("error"):
        fault = document["error"]
        message = fault.get("message", fault) if isinstance(fault, dict) else fault
        code = fault.get("code") if isinstance(fault, dict) else None
        raise AnswerError(f"an error: {message}", code if type(code) is int else None)
    return document


def _choice(document: dict[str, Any]) -> dict[str, Any] | None:
    """The first choice; None in a document without any."""
    choices = document.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise AnswerError(f"expected a list of choices, got {brief(document)}")
    return choices[0] if choices else None


def _text(content: Any) -> str:
    """A message's content: a text, nothing, or parts of which those with text count."""
    if content is None:
        return ""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        content = "".join(part["text"] for part in content if isinstance(part.get("text"), str))
    if not isinstance(content, str):
        raise AnswerError(f"expected a text as content, got {brief(content)}")
    return content


def _finish_reason(choice: dict[str, Any]) -> str | None:
    reason = choice.get("finish_reason")
    if reason == "error":
        raise AnswerError("the server broke its answer off with an error")
    return reason[:_MAX_REASON] if isinstance(reason, str) and reason else None


def _usage(document: dict[str, Any]) -> Usage:
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return Usage()
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    return Usage(*(count if type(count) is int and 0 <= count <= _MAX_TOKENS else None for count in counts))
