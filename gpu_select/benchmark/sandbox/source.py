"""Running an answer's code: its blocks one after the other, and the function that it is about."""

from __future__ import annotations

import types
from typing import Any

__all__ = ["entry_point", "run_answer"]

_MAX_CUTS = 400


def run_answer(namespace: dict[str, Any], blocks: list[str], prompt: str) -> list[str]:
    """Run the answer in `namespace`; returns the sources that ran.

    A block that fails leaves what it had defined, as a usage example at its end may fail for want of input. One that is
    no Python is cut from its end until it is. Where the prompt is the start of a program, as HumanEval's are, it runs
    first, and an answer that does not define the prompt's function is taken for what follows the prompt.
    """
    promised = _promised(prompt)
    stub = None
    sources = []
    if promised is not None:
        _run(prompt, namespace)
        stub = namespace.get(promised)
    for block in blocks:
        source = _longest_program(block)
        if source is not None:
            sources.append(source)
            _run(source, namespace)
    if promised is not None and namespace.get(promised) is stub:
        text = "\n".join(blocks)
        indented = "".join(f"    {line}\n" for line in text.splitlines())
        for continued in (f"{prompt.rstrip()}\n{text}", f"{prompt.rstrip()}\n{indented}"):
            source = _longest_program(continued, keep=prompt.rstrip().count("\n") + 2)
            if source is not None:
                _run(source, namespace)
                return [source]
    return sources


def _promised(prompt: str) -> str | None:
    """The name of the last function that a prompt begins; None for one that is no program."""
    if "def " not in prompt or _compiled(prompt) is None:
        return None
    import ast

    names = [node.name for node in ast.parse(prompt).body if isinstance(node, ast.FunctionDef)]
    return names[-1] if names else None


def _compiled(source: str) -> types.CodeType | None:
    try:
        return compile(source, "<answer>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError):
        return None


def _longest_program(text: str, keep: int = 1) -> str | None:
    """The text, or its first lines, at least `keep`, that are a program."""
    lines = text.splitlines()
    for end in range(len(lines), max(keep - 1, len(lines) - _MAX_CUTS), -1):
        source = "\n".join(lines[:end]) + "\n"
        if _compiled(source) is not None:
            return source
    return None


def _run(source: str, namespace: dict[str, Any]) -> None:
    code = _compiled(source)
    if code is None:
        return
    try:
        _execute(code, namespace)
    except ImportError:
        _run_without_failing_imports(source, namespace)
    except BaseException:
        return


def _run_without_failing_imports(source: str, namespace: dict[str, Any]) -> None:
    """Again, a statement at a time: many an answer imports numpy, which is not here, and does not use it."""
    import ast

    statements = ast.parse(source).body
    futures = [node for node in statements if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    for statement in statements:
        program = ast.Module([*futures, statement], [])
        try:
            _execute(compile(program, "<answer>", "exec", dont_inherit=True), namespace)
        except ImportError:
            continue
        except BaseException:
            return


def _execute(code: types.CodeType, namespace: dict[str, Any]) -> None:
    exec(code, namespace)  # noqa: S102 - to run code of others is what this confined process is for


def entry_point(sources: list[str], prompt: str, namespace: dict[str, Any]) -> str | None:
    """The name of the function that a test of `candidate` means.

    It is the prompt's, where that is a program; else the last function of the answer that no other one of them calls.
    """
    import ast

    promised = _promised(prompt)
    if promised is not None and callable(namespace.get(promised)):
        return promised
    functions: dict[str, set[str]] = {}
    for source in sources:
        for node in ast.parse(source).body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and callable(namespace.get(node.name)):
                functions.pop(node.name, None)  # the later definition counts, in its place
                functions[node.name] = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    names = [name for name in functions if name not in ("check", "main") and not name.startswith("test_")]
    uncalled = [name for name in names if not any(name in used for other, used in functions.items() if other != name)]
    found = uncalled or names
    return found[-1] if found else None
