"""Why a call failed, whether another try may help, and whether it would fail for every query alike."""

from __future__ import annotations

from enum import Enum
from typing import Any

from gpu_select.benchmark.retry import MAX_ASKED_S
from gpu_select.jsonio import loads

__all__ = ["CallFailedError", "Refusal", "one_line", "refusal_of"]

_RETRIED = (408, 409, 425, 429)
_REFUSED = (401, 402, 403, 404, 405, 410)
_NO_CREDIT = "insufficient_quota"
"""OpenAI's code for an account without credit; it comes with status 429, and no wait helps."""
_MAX_TEXT = 300
_MAX_SAID = 240


class Refusal(Enum):
    """Whether a server refuses, and what."""

    NO = "no"
    """It may well take the next try."""
    THIS = "this"
    """This request, which will never do."""
    FOR_ALL = "all"
    """Whatever the query: a wrong key, an unknown model, no credit."""


class CallFailedError(Exception):
    """A call without an answer. The text is one line.

    Attributes:
        refusal: what the server refuses.
        may_retry: whether another try may help.
        asked_s: seconds that the server asks to wait before it.
        status: of HTTP, where there is one.
        body: what came with the status.
    """

    def __init__(
        self,
        text: str,
        *,
        refusal: Refusal = Refusal.NO,
        may_retry: bool | None = None,
        asked_s: float | None = None,
        status: int | None = None,
        body: str = "",
    ) -> None:
        super().__init__(one_line(text))
        self.refusal = refusal
        self.may_retry = refusal is Refusal.NO if may_retry is None else may_retry
        self.asked_s = asked_s
        self.status = status
        self.body = body

    @classmethod
    def of_status(cls, status: int, body: str, asked_s: float | None) -> CallFailedError:
        """The failure that an HTTP status from 300 on stands for.

        Args:
            status: the status.
            body: what came with it, without secrets.
            asked_s: seconds of the header Retry-After.
        """
        said = _message(body)
        if 300 <= status < 400:
            said = "the endpoint redirects elsewhere, and a key would go along"
        text = f"HTTP {status}: {one_line(said, _MAX_SAID)}" if said else f"HTTP {status}"
        refusal = refusal_of(status, body)
        may_retry = refusal is Refusal.NO
        if may_retry and asked_s is not None and asked_s > MAX_ASKED_S:
            may_retry, text = False, f"{text} (it asks to wait for {asked_s:.0f} s)"
        return cls(text, refusal=refusal, may_retry=may_retry, asked_s=asked_s, status=status, body=body)


def refusal_of(status: int, body: str) -> Refusal:
    """What a status from 300 on refuses."""
    if status in _REFUSED or 300 <= status < 400 or (status == 429 and _NO_CREDIT in body):
        return Refusal.FOR_ALL
    return Refusal.NO if status in _RETRIED or status >= 500 else Refusal.THIS


def one_line(text: str, most: int = _MAX_TEXT) -> str:
    """A text from outside on one short line, without characters that do something to a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def _message(body: str) -> str:
    """What an error object says, else the body."""
    try:
        document: Any = loads(body.encode())
    except ValueError:
        return body
    error = document.get("error", document) if isinstance(document, dict) else document
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return error if isinstance(error, str) else body
