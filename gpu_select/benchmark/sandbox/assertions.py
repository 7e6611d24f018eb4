"""Tests as programs that go on after a failed assertion, and say how each of them went."""

from __future__ import annotations

import ast
import sys
import types

__all__ = ["BEGIN", "CANDIDATE", "END", "FAIL", "Tests", "parse_tests"]

BEGIN, END, FAIL = "__begin_assertion__", "__end_assertion__", "__fail_assertion__"
"""What the programs call: begin(i) -> whether to evaluate it, end(i, value), fail(i)."""

CANDIDATE = "__candidate__"
"""The function that the tests give to their `check(candidate)`, among `Tests.names` where they have one."""


class Tests:
    """The programs of a ground truth, and what they ask for."""

    def __init__(self) -> None:
        self.programs: list[types.CodeType] = []
        self.n_assertions = 0
        self.never: list[list[int]] = []
        """By program: assertions such as `assert False`, which pass where nobody comes to them."""
        self.names: list[str] = []
        """Names that the tests use and do not define."""
        self.builtin_names: list[str] = []
        """Those of them that Python has."""
        self.module_names: list[str] = []
        """Those that are modules of Python's library, such as sys in `sys.getsizeof(x)`."""


def parse_tests(tests: str | list[str]) -> Tests:
    """The tests of a ground truth: a list of programs, also as the text of such a list, or one program.

    `assert True` and the like test nothing and are no assertions.
    """
    if isinstance(tests, str) and tests.lstrip().startswith("["):
        try:
            listed = ast.literal_eval(tests.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            listed = None
        if isinstance(listed, list) and all(isinstance(item, str) for item in listed):
            tests = listed
    out = Tests()
    defined: set[str] = set()
    names: set[str] = set()
    bases: set[str] = set()
    for source in [tests] if isinstance(tests, str) else tests:
        marker = _Marker(out.n_assertions)
        try:
            tree = ast.parse(source)
            if _leaves_check_to_us(tree):
                tree.body += ast.parse(f"check({CANDIDATE})").body
            _collect(tree, defined, names, bases)
            tree = ast.fix_missing_locations(marker.visit(tree))
            program = compile(tree, "<tests>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue
        out.programs.append(program)
        out.n_assertions = marker.n_assertions
        out.never.append(marker.never)
    builtin_names = set(dir(__builtins__) if isinstance(__builtins__, types.ModuleType) else __builtins__)
    free = names - defined
    out.module_names = sorted(name for name in free if name in sys.stdlib_module_names and name in bases)
    out.builtin_names = sorted(free & builtin_names)
    out.names = sorted(free - builtin_names - set(out.module_names))
    return out


def _collect(tree: ast.Module, defined: set[str], names: set[str], bases: set[str]) -> None:
    """Add the names that a program defines anywhere, uses, and uses only as `name.attribute`."""
    attributes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    plain: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                names.add(node.id)
                (bases if id(node) in attributes else plain).add(node.id)
            else:
                defined.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.alias):
            defined.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            defined.add(node.name)
    bases -= plain


def _leaves_check_to_us(tree: ast.Module) -> bool:
    defines = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
    calls = any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "check"
        for statement in tree.body
        if not isinstance(statement, ast.FunctionDef)
        for node in ast.walk(statement)
    )
    return defines and not calls


class _Marker(ast.NodeTransformer):
    """Puts the calls around assertions, whose messages it drops."""

    def __init__(self, n_assertions: int) -> None:
        self.n_assertions = n_assertions
        self.never: list[int] = []

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        if isinstance(node.test, ast.Constant) and node.test.value:
            return ast.copy_location(ast.Pass(), node)
        number = ast.Constant(self.n_assertions)
        self.n_assertions += 1
        fail = ast.Expr(_call(FAIL, number))
        if isinstance(node.test, ast.Constant):
            self.never.append(self.n_assertions - 1)
            return ast.copy_location(fail, node)
        attempt = ast.Try(
            body=[ast.Expr(_call(END, number, node.test))],
            handlers=[ast.ExceptHandler(type=ast.Name("Exception", ast.Load()), name=None, body=[fail])],
            orelse=[],
            finalbody=[],
        )
        return ast.copy_location(ast.If(test=_call(BEGIN, number), body=[attempt], orelse=[]), node)


def _call(name: str, *args: ast.expr) -> ast.Call:
    return ast.Call(func=ast.Name(name, ast.Load()), args=list(args), keywords=[])
