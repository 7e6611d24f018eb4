"""From the best candidate to the next one, until an endpoint answers. Nothing has gone to the client by then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from gpu_select.config.gateway import UpstreamConfig
from gpu_select.gateway.breaker import Attempt
from gpu_select.gateway.errors import ApiError, EndpointError, EndpointTimeoutError, UnavailableError
from gpu_select.gateway.pool import Pool
from gpu_select.gateway.upstream import Answer, Endpoint, EndpointFailedError, EndpointRequest, FailureKind, ask

__all__ = ["FirstAnswer", "Outcome", "first_answer"]

Outcome = Literal["answered", "refused", "failed", FailureKind]
"""Of one try: answered; refused by a status that another endpoint may not give; failed with 5xx or by sending us
elsewhere; or no answer."""

_REFUSALS = (401, 403, 404, 408, 429)
"""The endpoint's own affair: our key, its list of models, its load. Other 4xx would come from everywhere."""

_BUSY_S = 1.0
"""After which a client may try again where all connections are in use."""


@dataclass(frozen=True, eq=False)
class FirstAnswer:
    """What an endpoint answered.

    Attributes:
        answer: with its head; to be closed.
        attempt: where the body is still to come, it has to be told how that went, or dropped.
        n_asked: endpoints that were asked.
    """

    answer: Answer
    attempt: Attempt
    n_asked: int


async def first_answer(
    pool: Pool,
    candidates: Sequence[Endpoint],
    request_to: Callable[[Endpoint], EndpointRequest],
    config: UpstreamConfig,
    observe: Callable[[Endpoint, Outcome], None],
) -> FirstAnswer:
    """Ask one candidate after the other, until one answers; those whose circuit is open come last, or never.

    Args:
        pool: the connections.
        candidates: the best first.
        request_to: gives what to send to a candidate.
        config: limits.
        observe: called after each try.

    Returns:
        The answer. When all refuse or fail with a status, it is the last one of these.

    Raises:
        EndpointError, EndpointTimeoutError: no candidate gave an answer.
        UnavailableError: the circuits of all candidates are open, or they have as many requests as they may.
    """
    ready = [endpoint for endpoint in candidates if endpoint.breaker.allows()]
    if not ready:
        names = ", ".join(endpoint.name for endpoint in candidates)
        retry_after_s = min(endpoint.breaker.retry_after_s for endpoint in candidates)
        raise UnavailableError(f"The endpoints of {names} keep failing, and are being left alone", retry_after_s)
    # a circuit that is open may have healed: better than an error, once the others have failed
    order = [*ready, *(endpoint for endpoint in candidates if endpoint not in ready)]
    kept: tuple[Answer, Attempt] | None = None
    error: ApiError | None = None
    n_asked = 0
    try:
        for endpoint in order:
            attempt = endpoint.breaker.attempt()
            answer, outcome = await _try(pool, endpoint, attempt, request_to(endpoint), config)
            observe(endpoint, outcome)
            n_asked += outcome != "busy"
            if answer is None:
                error = _no_answer(endpoint, outcome)
            elif 300 <= answer.status < 400:
                # it would lead a client past the gateway, which follows no redirects itself: a key would go along
                answer.close()
                error = EndpointError(f"The endpoint of {endpoint.name} redirects elsewhere ({answer.status})")
            elif outcome == "answered":
                return FirstAnswer(answer, attempt, n_asked)
            else:
                if kept is not None:
                    kept[0].close()
                kept = answer, attempt
        if kept is None:
            assert error is not None
            raise error
        answer, attempt = kept
        if answer.status in (401, 403):
            raise EndpointError(f"The endpoint of {answer.endpoint.name} refused the gateway's key ({answer.status})")
        kept = None
        return FirstAnswer(answer, attempt, n_asked)
    finally:
        if kept is not None:
            kept[0].close()


async def _try(
    pool: Pool, endpoint: Endpoint, attempt: Attempt, request: EndpointRequest, config: UpstreamConfig
) -> tuple[Answer | None, Outcome]:
    try:
        answer = await ask(pool, endpoint, request, config)
    except EndpointFailedError as failure:
        (attempt.drop if failure.kind == "busy" else attempt.fail)()
        return None, failure.kind
    except BaseException:
        attempt.drop()
        raise
    if answer.status >= 500 or 300 <= answer.status < 400:
        attempt.fail()
        return answer, "failed"
    refused = answer.status in _REFUSALS
    if refused or answer.complete:
        attempt.succeed()
    return answer, "refused" if refused else "answered"


def _no_answer(endpoint: Endpoint, outcome: Outcome) -> ApiError:
    if outcome == "busy":
        return UnavailableError(f"The endpoint of {endpoint.name} has as many requests as it may", _BUSY_S)
    if outcome == "timeout":
        return EndpointTimeoutError(f"The endpoint of {endpoint.name} did not answer in time")
    causes: dict[Outcome, str] = {"unreachable": "cannot be reached", "cut": "broke off before its answer"}
    return EndpointError(f"The endpoint of {endpoint.name} {causes.get(outcome, 'did not answer with valid HTTP')}")
