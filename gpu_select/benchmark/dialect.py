"""The ways in which servers differ in what they let a request say, and which of them a refusal points to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gpu_select.benchmark.targets import Target

__all__ = ["Dialect"]


@dataclass(frozen=True)
class Dialect:
    """How a chat completion is asked for."""

    stream: bool = True
    stream_usage: bool = True
    """Ask for the token counts of a stream; some servers refuse the option."""
    max_tokens_name: str = "max_tokens"
    """OpenAI's reasoning models want max_completion_tokens."""
    temperature: bool = True
    """The same models take none but their own."""

    def body(self, target: Target, prompt: str) -> dict[str, Any]:
        """The request's JSON object."""
        body: dict[str, Any] = {
            "model": target.name,
            "messages": [{"role": "user", "content": prompt}],
            self.max_tokens_name: target.max_tokens,
        }
        if self.temperature:
            body["temperature"] = target.temperature
        if self.stream:
            body["stream"] = True
            if self.stream_usage:
                body["stream_options"] = {"include_usage": True}
        return body

    def after_refusal(self, text: str) -> Dialect | None:
        """The dialect to try next, after a status 400 or 422; None where the text points to none.

        Args:
            text: the body of the refusal, whatever its form.
        """
        if self.stream and self.stream_usage and ("stream_options" in text or "include_usage" in text):
            return replace(self, stream_usage=False)
        if self.max_tokens_name == "max_tokens" and "max_completion_tokens" in text:
            return replace(self, max_tokens_name="max_completion_tokens")
        if self.temperature and "temperature" in text:
            return replace(self, temperature=False)
        if self.stream and "stream" in text:
            return replace(self, stream=False)
        return None
