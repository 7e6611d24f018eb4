from __future__ import annotations

from typing import Any

import pytest

from gpu_select.benchmark.sandbox.source import entry_point, run_answer

PROMPT = 'from math import floor\n\ndef helper(x):\n    return floor(x)\n\ndef f(x: int) -> int:\n    """Adds one."""\n'


def load(*blocks: str, prompt: str = "") -> tuple[dict[str, Any], str | None]:
    namespace: dict[str, Any] = {"__name__": "answer"}
    sources = run_answer(namespace, list(blocks), prompt)
    return namespace, entry_point(sources, prompt, namespace)


def test_blocks_run_one_after_the_other_and_the_last_definition_counts():
    namespace, _ = load("import math\ndef f(x):\n    return 0\n", "def f(x):\n    return math.floor(x)\n")
    assert namespace["f"](1.5) == 1


def test_what_fails_leaves_what_was_defined():
    namespace, _ = load("def f(x):\n    return x\nprint(1 / 0)\ndef g(): pass\n", "def h(): pass")
    assert {"f", "h"} <= namespace.keys()
    assert "g" not in namespace


def test_an_import_that_fails_is_left_out():
    namespace, _ = load("from __future__ import annotations\nimport no_such_module\ndef f(x: Unknown):\n    return x\n")
    assert namespace["f"](1) == 1


def test_the_end_that_is_no_python_is_cut():
    namespace, _ = load("def f(x):\n    return x\n\nThis function returns its argument.\nIsn't it nice?\n")
    assert namespace["f"](1) == 1


def test_sys_exit_does_not_end_it():
    namespace, _ = load("def f(x):\n    return x\nraise SystemExit\n", "y = 1")
    assert "y" in namespace


def test_the_main_block_does_not_run():
    namespace, _ = load("if __name__ == '__main__':\n    x = 1\n")
    assert "x" not in namespace


@pytest.mark.parametrize(
    "answer",
    [
        "    return helper(x) + 1\n",
        "return helper(x) + 1",
        "    return helper(x) + 1\n\nThis adds one.",
        "def f(x):\n    return helper(x) + 1\n",
        "def other():\n    pass\n\ndef f(x):\n    return floor(x) + 1\n",
    ],
)
def test_an_answer_may_continue_the_prompt(answer):
    namespace, name = load(answer, prompt=PROMPT)
    assert name == "f"
    assert namespace["f"](1) == 2


def test_a_prompt_that_is_no_program_is_left_out():
    namespace, name = load("def g(x):\n    return 1\n", prompt="Write a function: def f(x)")
    assert name == "g"
    assert "f" not in namespace


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(x): return g(x)\ndef g(x): return x", "f"),
        ("def g(x): return x\ndef f(x): return g(x)", "f"),
        ("def f(x): return f(x - 1)", "f"),
        ("def a(x): return b(x)\ndef b(x): return a(x)", "b"),
        ("def f(x): return x\ndef test_f(): assert f(1)\ndef main(): f(1)", "f"),
        ("def check_it(x): return x", "check_it"),
        ("x = 1", None),
        ("", None),
    ],
)
def test_the_function_that_an_answer_is_about(code, expected):
    assert load(code)[1] == expected
