from __future__ import annotations

from dataclasses import replace

import pytest

from gpu_select.benchmark.dialect import Dialect
from gpu_select.benchmark.targets import Target

TARGET = Target("m", "http://h/v1/chat/completions", {}, 99, 0.5, 1.0, None, None, None)


def test_what_is_asked_for():
    message = {"role": "user", "content": "why?"}
    common = {"model": "m", "messages": [message]}
    assert Dialect().body(TARGET, "why?") == common | {
        "max_tokens": 99,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert Dialect(stream=False).body(TARGET, "why?") == common | {"max_tokens": 99, "temperature": 0.5}
    plainest = Dialect(stream_usage=False, max_tokens_name="max_completion_tokens", temperature=False)
    assert plainest.body(TARGET, "why?") == common | {"max_completion_tokens": 99, "stream": True}


ALL = Dialect()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # OpenAI, Groq and Mistral in their own words
        ("Unknown parameter: 'stream_options'.", replace(ALL, stream_usage=False)),
        ("property 'stream_options' is unsupported, did you mean 'stream'?", replace(ALL, stream_usage=False)),
        ('{"loc": ["body", "stream_options", "include_usage"]}', replace(ALL, stream_usage=False)),
        (
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
            replace(ALL, max_tokens_name="max_completion_tokens"),
        ),
        (
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is supported.",
            replace(ALL, temperature=False),
        ),
        ("stream is not supported", replace(ALL, stream=False)),
        ("the prompt is too long", None),
        ("", None),
    ],
)
def test_a_refusal_points_to_the_next_dialect(text, expected):
    assert ALL.after_refusal(text) == expected


@pytest.mark.parametrize("text", ["stream_options", "max_completion_tokens", "temperature", "stream"])
def test_there_is_an_end_to_it(text):
    dialect, n = Dialect(), 0
    while (following := dialect.after_refusal(text)) is not None:
        dialect, n = following, n + 1
    assert n in (1, 2)


def test_all_refusals_together_leave_what_every_server_takes():
    dialect = Dialect()
    for text in ("stream_options", "max_completion_tokens", "temperature", "stream"):
        dialect = dialect.after_refusal(text)
    assert set(dialect.body(TARGET, "x")) == {"model", "messages", "max_completion_tokens"}
