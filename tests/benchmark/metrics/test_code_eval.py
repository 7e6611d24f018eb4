"""Answers of honest models: what works in them, and what their score is."""

from __future__ import annotations

import pytest

from gpu_select.benchmark.metrics import code_eval as module
from gpu_select.benchmark.metrics.code_eval import code_eval
from gpu_select.benchmark.sandbox.isolation import Verdicts
from gpu_select.errors import IsolationError

TESTS = ["assert f(1) == 2", "assert f(2) == 3", "assert f(5) == 6"]
HUMAN_EVAL_PROMPT = '''from typing import List


def below_zero(operations: List[int]) -> bool:
    """ Detect if at any point the balance of an account that starts with zero falls below zero.
    >>> below_zero([1, 2, 3])
    False
    >>> below_zero([1, 2, -4, 5])
    True
    """
'''
HUMAN_EVAL_TEST = """

METADATA = {
    'author': 'jt',
}


def check(candidate):
    assert candidate([]) == False
    assert candidate([1, 2, -3, 1, 2, -3]) == False
    assert candidate([1, 2, -4, 5, 6]) == True
    assert True
"""
BODY = """    balance = 0

    for op in operations:
        balance += op
        if balance < 0:
            return True

    return False
"""

WORKS = {
    "plain": """
def f(x):
    return x + 1
""",
    "recursion": """
def f(x):
    return 2 if x == 1 else f(x - 1) + 1
""",
    "helper functions": """
def g(x):
    return x + 1

def f(x):
    return g(x)
""",
    "imports": """
import math, re, json, itertools, heapq, random, datetime, decimal, sqlite3, hashlib
from typing import *
from collections import *
from functools import lru_cache

@lru_cache(None)
def f(x: int) -> int:
    return math.floor(x) + 1
""",
    "an import that is not there": """
import numpy as np
import pandas

def f(x):
    return x + 1
""",
    "classes": """
class Adder:
    def __init__(self, n):
        self.n = n

    def add(self, x):
        return x + self.n

def f(x):
    return Adder(1).add(x)
""",
    "dataclasses": """
from dataclasses import dataclass

@dataclass
class P:
    x: int

def f(x):
    return P(x + 1).x
""",
    "code at the top": """
ONE = 1
TABLE = {x: x + ONE for x in range(10)}
print(TABLE)

def f(x):
    return TABLE[x]
""",
    "a name of the module": """
one = 1

def f(x):
    global one
    return x + one
""",
    "a usage example": """
def f(x):
    return x + 1

if __name__ == '__main__':
    1 / 0
print(f(int(input())))
""",
    "threads": """
import threading

def f(x):
    out = []
    thread = threading.Thread(target=lambda: out.append(x + 1))
    thread.start()
    thread.join()
    return out[0]
""",
    "asyncio": """
import asyncio

async def g(x):
    await asyncio.sleep(0)
    return x + 1

def f(x):
    return asyncio.run(g(x))
""",
    "files of its own": """
import os, tempfile

def f(x):
    assert os.listdir() == []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'a')
        open(path, 'w').write(str(x))
        return int(open(path).read()) + 1
""",
}

STACK = """
class Stack:
    def __init__(self):
        self.items = []

    def push(self, x):
        self.items.append(x)

    def __len__(self):
        return len(self.items)

    def __eq__(self, other):
        return self.items == other.items
"""


@pytest.fixture(autouse=True)
def short_limits(monkeypatch):
    monkeypatch.setattr(module, "ASSERTION_S", 2.0)


@pytest.mark.parametrize("name", WORKS)
def test_what_works(name, isolation):
    if name == "files of its own" and not isolation.confinement.namespaces:
        pytest.skip("folders need a file system of their own")
    assert code_eval(f"Sure:\n```python\n{WORKS[name]}\n```", TESTS, "", isolation) == 1.0


def test_the_score_is_the_share_of_assertions_that_pass(isolation):
    code = "def f(x):\n    if x == 2:\n        raise ValueError\n    return x + 1"
    assert code_eval(code, TESTS, "", isolation) == pytest.approx(2 / 3)
    assert code_eval("def f(x):\n    return 2", TESTS, "", isolation) == pytest.approx(1 / 3)
    assert code_eval("def g(x):\n    return x + 1", TESTS, "", isolation) == 0.0
    assert code_eval("no code", TESTS, "", isolation) == 0.0


@pytest.mark.parametrize("tests", [str(TESTS), "\n".join(TESTS), "def test():\n    assert f(1) == 2\ntest()"])
def test_forms_of_assertions(tests, isolation):
    assert code_eval(WORKS["plain"], tests, "", isolation) == 1.0


@pytest.mark.parametrize("tests", ["", "no assertions", "assert True", []])
def test_without_assertions_there_is_no_score(tests, isolation):
    assert code_eval(WORKS["plain"], tests, "", isolation) is None


@pytest.mark.parametrize(
    "response",
    [
        BODY,
        f"```python\n{BODY}```",
        f"```python\n{HUMAN_EVAL_PROMPT}{BODY}```",
        f"```python\ndef below_zero(operations: List[int]) -> bool:\n{BODY}```",
        f"[BEGIN]\n{HUMAN_EVAL_PROMPT}{BODY}[DONE]",
        f"Here is the function.\n\n{HUMAN_EVAL_PROMPT}{BODY}\nIt adds up the operations.",
    ],
)
def test_human_eval(response, isolation):
    assert code_eval(response, HUMAN_EVAL_TEST, HUMAN_EVAL_PROMPT, isolation) == 1.0


def test_human_eval_without_the_prompt_or_with_a_wrong_answer(isolation):
    full = f"```python\n{HUMAN_EVAL_PROMPT}{BODY}```"
    assert code_eval(full, HUMAN_EVAL_TEST, "", isolation) == 1.0
    assert code_eval(full.replace("< 0", "< 9"), HUMAN_EVAL_TEST, HUMAN_EVAL_PROMPT, isolation) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("def f(x):\n    yield x", "assert list(f(1)) == [1]"),
        ("def f(x):\n    return map(str, x)", "assert list(f([1, 2])) == ['1', '2']"),
        ("from collections import Counter\ndef f(x):\n    return Counter(x)", "assert f('aa') == {'a': 2}"),
        ("def f(x):\n    return {1}, (3, [4.5]), None, b'x', 1j", "assert f(1) == ({1}, (3, [4.5]), None, b'x', 1j)"),
        ("def f(x):\n    x.sort()", "x = [2, 1]\nf(x)\nassert x == [1, 2]"),
        ("def f(g, x):\n    return g(g(x))", "assert f(lambda x: x * 2, 3) == 12"),
        ("def f(x):\n    raise KeyError(x)", "try:\n    f(1)\n    assert False\nexcept KeyError:\n    pass"),
        ("def sum(a, b):\n    return a * b", "assert sum(10, 15) == 150"),
        ("import sys\ndef f(x):\n    return sys.getsizeof(x)", "assert f((1, 2)) == sys.getsizeof((1, 2))"),
        (STACK, "s = Stack()\ns.push(3)\nassert s.items == [3] and len(s) == 1"),
        (STACK, "s = Stack()\nassert s == Stack()\ns.push(3)\nassert not s == Stack()"),
        ("import re\ndef f(x):\n    return re.match(x, 'abc')", "assert f('a') and not f('b')"),
        ("LIMIT = 3", "assert LIMIT == 3"),
    ],
)  # fmt: skip
def test_what_assertions_may_ask(code, test, isolation):
    assert code_eval(code, [test], "", isolation) == 1.0


def test_one_value_is_not_another(isolation):
    code = "def f(x):\n    return [1, 2] if x else (True, 1.0, '1')"
    assert code_eval(code, ["assert f(1) == (1, 2)", "assert f(0) == ('1', 1, True)"], "", isolation) == 0.0


def test_code_that_cannot_be_run_is_no_score_but_an_error(monkeypatch):
    class Broken:
        def run(self, *args, **keywords):
            return Verdicts(fault="mount: No space left on device")

    with pytest.raises(IsolationError, match=r"^code_eval: the code could not be run: mount: No space left on device$"):
        code_eval("x = 1", TESTS, "", Broken())  # type: ignore[arg-type]
