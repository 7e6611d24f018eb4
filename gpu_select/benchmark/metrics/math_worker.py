"""A process that compares formulas by Math-Verify: run by `math_equality`, bounded in memory and time.

Standard input has one JSON list a line, [truth, answer] in LaTeX; standard output gets one line for each, `true` or
`false`. The first line is a list of import paths, its answer is `"ready"` or the reason why not.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from typing import Any

MEMORY_BYTES = 2 << 30
SECONDS = 3
"""For one comparison; the process ends itself, for nobody may be left to do so."""


def main() -> None:
    """Answer until standard input ends."""
    lines = iter(sys.stdin.readline, "")
    sys.path[:] = json.loads(next(lines))
    is_equal = _load()
    _limit_memory()
    print('"ready"', flush=True)
    for line in lines:
        truth, answer = json.loads(line)
        _end_after(SECONDS)
        equal = is_equal(truth, answer)
        _end_after(0)
        print(json.dumps(equal), flush=True)


def _load() -> Callable[[str, str], bool]:
    from math_verify import LatexExtractionConfig, parse, verify
    from sympy import Float, Integer, Symbol, simplify
    from sympy.parsing import sympy_parser

    logging.disable(logging.CRITICAL)
    x = Symbol("x")
    simplify((x + 1) ** 2 - 1 / x)  # loads what simplification needs, before texts are refused

    def number_only(text: str, *_: Any, **__: Any) -> Any:
        """What sympify may make of a text. Its own way to read one is eval."""
        if re.fullmatch(r"[-+]?\d{1,4000}", text):
            return Integer(int(text))
        if re.fullmatch(r"[-+]?(?:\d+\.\d*|\.\d+)(?:e[-+]?\d{1,3})?", text):
            return Float(text)
        raise ValueError("no number")

    sympy_parser.parse_expr = number_only
    config = [LatexExtractionConfig()]

    def is_equal(truth: str, answer: str) -> bool:
        try:
            # this process is bounded as a whole, and the library's own time limits need signals
            parsed = [
                parse(f"${text}$", extraction_config=config, fallback_mode="no_fallback", parsing_timeout=None)
                for text in (truth, answer)
            ]
            return all(parsed) and bool(verify(*parsed, allow_set_relation_comp=True, timeout_seconds=None))
        except (Exception, RecursionError, MemoryError):
            return False

    return is_equal


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _end_after(seconds: int) -> None:
    import signal

    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


if __name__ == "__main__":
    main()
