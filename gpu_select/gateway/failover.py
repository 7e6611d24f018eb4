"""From the best candidate to the next one, until an endpoint answers. Nothing has gone to the client by then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import aiohttp

from gpu_select.config.gateway import UpstreamConfig
from gpu_select.gateway.errors import ApiError, EndpointError, EndpointTimeoutError, UnavailableError
from gpu_select.gateway.upstream import Answer, Endpoint, EndpointFailedError, EndpointRequest, FailureKind, ask

__all__ = ["Outcome", "first_answer"]

Outcome = Literal["answered", "refused", "failed", FailureKind]
"""Of one try: answered; refused by a status that another endpoint may not give; failed with 5xx; or no answer."""

_REFUSALS = (401, 403, 404, 408, 429)
"""The endpoint's own affair: our key, its list of models, its load. Other 4xx would come from everywhere."""


async def first_answer(
    session: aiohttp.ClientSession,
    candidates: Sequence[Endpoint],
    request_to: Callable[[Endpoint], EndpointRequest],
    config: UpstreamConfig,
    observe: Callable[[Endpoint, Outcome], None],
) -> tuple[Answer, int]:
    """Ask one candidate after the other, until one answers; those whose circuit is open come last, or never.

    Args:
        session: the pool.
        candidates: the best first.
        request_to: gives what to send to a candidate.
        config: time limits.
        observe: called after each try.

    Returns:
        The answer, which the caller closes, and how many endpoints were asked. When all refuse or fail with a status,
        it is the last one of these.

    Raises:
        EndpointError, EndpointTimeoutError: no candidate gave an answer.
        UnavailableError: the circuits of all candidates are open.
    """
    ready = [endpoint for endpoint in candidates if endpoint.breaker.allows()]
    if not ready:
        names = ", ".join(endpoint.name for endpoint in candidates)
        retry_after_s = min(endpoint.breaker.retry_after_s for endpoint in candidates)
        raise UnavailableError(f"The endpoints of {names} keep failing, and are being left alone", retry_after_s)
    # a circuit that is open may have healed: better than an error, once the others have failed
    order = [*ready, *(endpoint for endpoint in candidates if endpoint not in ready)]
    kept: Answer | None = None
    error: ApiError | None = None
    try:
        for n_asked, endpoint in enumerate(order, 1):
            answer, outcome = await _try(session, endpoint, request_to(endpoint), config)
            observe(endpoint, outcome)
            if answer is None:
                error = _no_answer(endpoint, outcome)
                continue
            if outcome == "answered":
                return answer, n_asked
            if kept is not None:
                kept.close()
            kept = answer
        if kept is None:
            assert error is not None
            raise error
        if kept.status in (401, 403):
            raise EndpointError(f"The endpoint of {kept.endpoint.name} refused the gateway's key ({kept.status})")
        answer, kept = kept, None
        return answer, len(order)
    finally:
        if kept is not None:
            kept.close()


async def _try(
    session: aiohttp.ClientSession, endpoint: Endpoint, request: EndpointRequest, config: UpstreamConfig
) -> tuple[Answer | None, Outcome]:
    with endpoint.breaker.attempt() as attempt:
        try:
            answer = await ask(session, endpoint, request, config)
        except EndpointFailedError as failure:
            attempt.fail()
            return None, failure.kind
        if answer.status >= 500 or 300 <= answer.status < 400:
            attempt.fail()
            return answer, "failed"
        attempt.succeed()
        return answer, "refused" if answer.status in _REFUSALS else "answered"


def _no_answer(endpoint: Endpoint, outcome: Outcome) -> ApiError:
    if outcome == "timeout":
        return EndpointTimeoutError(f"The endpoint of {endpoint.name} did not answer in time")
    causes: dict[Outcome, str] = {"unreachable": "cannot be reached", "cut": "broke off before its answer"}
    return EndpointError(f"The endpoint of {endpoint.name} {causes.get(outcome, 'did not answer with valid HTTP')}")
