from __future__ import annotations

import pytest

from gpu_select.benchmark.failure import CallFailedError, Refusal, one_line, refusal_of


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_what_may_help_is_tried_again(status):
    failure = CallFailedError.of_status(status, "", None)
    assert (failure.refusal, failure.may_retry, str(failure)) == (Refusal.NO, True, f"HTTP {status}")


@pytest.mark.parametrize("status", [400, 413, 422, 451])
def test_a_request_that_will_never_do_is_not(status):
    failure = CallFailedError.of_status(status, "", None)
    assert (failure.refusal, failure.may_retry) == (Refusal.THIS, False)


@pytest.mark.parametrize("status", [301, 307, 401, 402, 403, 404, 405])
def test_some_refusals_are_for_every_query(status):
    failure = CallFailedError.of_status(status, "", None)
    assert (failure.refusal, failure.may_retry) == (Refusal.FOR_ALL, False)


def test_an_account_without_credit_is_no_matter_of_time():
    assert refusal_of(429, '{"error": {"code": "insufficient_quota"}}') is Refusal.FOR_ALL
    assert refusal_of(429, '{"error": {"code": "rate_limit_exceeded"}}') is Refusal.NO


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('{"error": {"message": "no such model", "type": "x"}}', "HTTP 404: no such model"),
        ('{"error": "no such model"}', "HTTP 404: no such model"),
        ('{"detail": "Not Found"}', "HTTP 404: Not Found"),
        ('{"message": "nope"}', "HTTP 404: nope"),
        (
            '{"object": "error", "message": {"detail": [1]}}',
            'HTTP 404: {"object": "error", "message": {"detail": [1]}}',
        ),
        ("<html>\n  not\x1b[31m here", "HTTP 404: <html> not [31m here"),
        ("[]", "HTTP 404: []"),
        ("", "HTTP 404"),
        ("x" * 1000, f"HTTP 404: {'x' * 237}..."),
    ],
)
def test_what_the_server_says_on_one_line(body, text):
    assert str(CallFailedError.of_status(404, body, None)) == text


def test_a_wait_that_is_too_long_is_said_and_not_waited_for():
    soon, late = (CallFailedError.of_status(429, "quota", asked_s) for asked_s in (300.0, 86_400.0))
    assert (str(soon), soon.may_retry, soon.asked_s) == ("HTTP 429: quota", True, 300.0)
    assert (str(late), late.may_retry) == ("HTTP 429: quota (it asks to wait for 86400 s)", False)
    assert late.refusal is Refusal.NO


def test_a_redirect_says_why_it_is_not_followed():
    text = "HTTP 302: the endpoint redirects elsewhere, and a key would go along"
    assert str(CallFailedError.of_status(302, "<html>", None)) == text


def test_long_texts_are_cut_before_anything_is_done_with_them():
    assert one_line("a\u2028b\u202ec " * 10_000_000) == ("a b c " * 100)[:297] + "..."
