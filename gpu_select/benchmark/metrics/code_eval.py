"""Code evaluation: the share of assertions that an answer's code passes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gpu_select.benchmark.metrics.code_blocks import code_blocks
from gpu_select.benchmark.sandbox.limits import ASSERTION_S, WALL_S
from gpu_select.errors import IsolationError

if TYPE_CHECKING:
    from gpu_select.benchmark.sandbox.isolation import Isolation

__all__ = ["code_eval"]

_LEAST_S = 0.1


def code_eval(response: str, tests: str | list[str], query: str, isolation: Isolation) -> float | None:
    """Share of the assertions that pass; None where there are none.

    An assertion that does not end, or ends the process, fails; those after it are asked of a new process, until the
    time for all of them is over.

    Args:
        response: the answer; `code_blocks` finds its code.
        tests: assertions, as a list of texts, the text of such a list (MBPP), or a program, whose `check` is called
            with the function that the answer is about (HumanEval).
        query: what was asked; where it is the start of a program, the answer may continue it.
        isolation: where the code runs.
    Raises:
        IsolationError: the code could not be run.
    Source:
        HumanEval (Chen et al., 2021, arXiv:2107.03374) and MBPP (Austin et al., 2021, arXiv:2108.07732), which count an
        answer as right or wrong.
    """
    blocks = code_blocks(response)
    deadline = time.monotonic() + WALL_S
    passed: set[int] = set()
    failed: set[int] = set()
    skip: set[int] = set()
    while True:
        left_s = deadline - time.monotonic()
        verdicts = isolation.run(blocks, query, tests, skip=skip, wall_s=left_s, assertion_s=min(ASSERTION_S, left_s))
        if verdicts.fault:
            raise IsolationError(f"code_eval: the code could not be run: {verdicts.fault}")
        if not verdicts.n:
            return None
        passed |= verdicts.passed
        failed |= verdicts.failed
        stuck = verdicts.begun
        if stuck is not None:
            failed.add(stuck)
            skip.add(stuck)
        if verdicts.done or stuck is None or deadline - time.monotonic() < _LEAST_S:
            return len(passed - failed) / verdicts.n
