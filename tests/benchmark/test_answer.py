from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.benchmark import answer
from gpu_select.benchmark.answer import AnswerError, StreamedAnswer, TooLongError, Usage, whole_answer


def whole(content="yes", finish="stop", **more):
    message = {"role": "assistant", "content": content}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}], **more}).encode()


def chunk(delta=None, finish=None, **more):
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return json.dumps({"choices": choices, **more}).encode()


def streamed(*events):
    out = StreamedAnswer()
    for event in events:
        out.add(event)
    return out


def test_an_answer_in_one_piece():
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert whole_answer(whole(usage=usage)) == ("yes", "stop", Usage(3, 5))
    assert whole_answer(whole("", "length")) == ("", "length", Usage())
    assert whole_answer(whole(None, None)) == ("", None, Usage())
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    assert whole_answer(whole(parts))[0] == "ab"


def test_thoughts_are_no_part_of_an_answer():
    message = {"content": "42", "reasoning_content": "let me see", "reasoning": "hm"}
    data = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
    assert whole_answer(data)[0] == "42"
    stream = streamed(chunk({"reasoning_content": "let me"}), chunk({"content": "42"}), chunk({}, "stop"))
    assert stream.text == "42"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, Usage()),
        ([], Usage()),
        ({"prompt_tokens": 2}, Usage(2, None)),
        ({"prompt_tokens": -1, "completion_tokens": 1.5}, Usage()),
        ({"prompt_tokens": True, "completion_tokens": 10**10}, Usage()),
        ({"prompt_tokens": "7", "completion_tokens": 0}, Usage(None, 0)),
    ],
)
def test_token_counts_that_are_none_are_unknown(usage, expected):
    assert whole_answer(whole(usage=usage))[2] == expected


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "expected JSON, got ''"),
        (b"<html>", "expected JSON, got '<html>'"),
        (whole()[:-3], 'expected JSON, got \'{"choices": [{'),
        (b"\xff", "expected JSON, got bytes that are not UTF-8"),
        (b'{"a": NaN}', "expected JSON, got '{\"a\": NaN}'"),
        (b"[1]", "expected a JSON object, got [1]"),
        (b"{}", "expected choices[0].message, got {}"),
        (b'{"choices": []}', "expected choices[0].message, got"),
        (b'{"choices": {}}', "expected a list of choices, got"),
        (b'{"choices": [1]}', "expected a list of choices, got"),
        (b'{"choices": [{}]}', "expected choices[0].message, got"),
        (whole(5), "expected a text as content, got 5"),
        (whole(["a"]), "expected a text as content, got ['a']"),
        (whole(finish="error"), "the server broke its answer off with an error"),
        (b'{"error": {"message": "overloaded"}}', "an error: overloaded"),
        (b'{"error": "overloaded", "choices": []}', "an error: overloaded"),
    ],
)
def test_what_is_no_answer(data, text):
    with pytest.raises(AnswerError) as caught:
        whole_answer(data)
    assert str(caught.value).startswith(text)


def test_an_error_within_an_answer_may_have_a_status():
    with pytest.raises(AnswerError) as caught:
        whole_answer(b'{"error": {"message": "slow down", "code": 429}}')
    assert caught.value.status == 429
    with pytest.raises(AnswerError) as caught:
        whole_answer(b'{"error": {"message": "slow down", "code": "rate_limit"}}')
    assert caught.value.status is None


def test_a_stream():
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    stream = streamed(chunk({"role": "assistant", "content": ""}))
    assert (stream.has_begun, stream.is_complete) == (False, False)
    for event in (chunk({"content": "Grü"}), chunk({"content": "ße"})):
        stream.add(event)
    assert (stream.has_begun, stream.is_complete) == (True, False)
    stream.add(chunk({}, "stop"))
    assert (stream.is_complete, stream.is_done) == (True, False)
    stream.add(chunk(usage=usage))
    stream.add(b" [DONE] ")
    assert (stream.text, stream.finish_reason, stream.usage, stream.is_done) == ("Grüße", "stop", Usage(3, 2), True)


def test_the_last_token_counts_of_a_stream_are_taken():
    stream = streamed(
        chunk({"content": "a"}, usage={"prompt_tokens": 3, "completion_tokens": 1}),
        chunk({"content": "b"}, usage={"prompt_tokens": 3, "completion_tokens": 2}),
        chunk({}, "stop", usage=None),
    )
    assert stream.usage == Usage(3, 2)


def test_thoughts_are_tokens():
    assert streamed(chunk({"reasoning_content": "hm"})).has_begun
    assert streamed(chunk({"reasoning": "hm"})).has_begun
    assert not streamed(chunk({"reasoning": None, "content": ""})).has_begun


@pytest.mark.parametrize("events", [[], [b"[DONE]"], [chunk(usage={"prompt_tokens": 1})], [chunk({"content": "half"})]])
def test_a_stream_that_says_nothing_or_not_all_is_not_complete(events):
    assert not streamed(*events).is_complete


def test_a_stream_without_reason_is_complete_when_the_server_says_so():
    stream = streamed(chunk({"content": "all"}), b"[DONE]")
    assert (stream.is_complete, stream.finish_reason) == (True, None)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (b'{"choices": [{}]}', "expected choices[0].delta, got"),
        (b'{"error": {"message": "out of memory"}}', "an error: out of memory"),
        (chunk({"content": 3}), "expected a text as content, got 3"),
        (b'{"choices"', "expected JSON, got"),
    ],
)
def test_what_is_no_event_of_an_answer(event, text):
    with pytest.raises(AnswerError) as caught:
        streamed(event)
    assert str(caught.value).startswith(text)


def test_an_answer_has_a_bound(monkeypatch):
    monkeypatch.setattr(answer, "_MAX_TEXT_BYTES", 10)
    assert whole_answer(whole("ä" * 5))[0] == "ä" * 5
    with pytest.raises(TooLongError):
        whole_answer(whole("ä" * 5 + "b"))
    with pytest.raises(TooLongError, match=r"^expected an answer of at most 0 MiB, got a longer one$"):
        streamed(*[chunk({"content": "abc"})] * 4)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.sampled_from(["", "a", "error", "stop"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "delta", "content", "finish_reason", "usage", "error", "code"]),
            inner,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200)
@given(ANY)
def test_any_document_is_an_answer_or_an_error_of_ours(document):
    data = json.dumps(document).encode()
    for take in (whole_answer, streamed):
        with contextlib.suppress(AnswerError):
            take(data)
