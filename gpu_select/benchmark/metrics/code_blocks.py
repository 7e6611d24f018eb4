"""The code in an answer."""

from __future__ import annotations

import re
import textwrap

__all__ = ["code_blocks"]

_MARKED = re.compile(r"\[BEGIN\](.*?)(?:\[DONE\]|\Z)", re.DOTALL | re.IGNORECASE)
_FENCED = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,}+|~{3,}+)[ \t]*(?P<language>[\w+#.-]*)[^\n]*\n"
    r"(?P<code>.*?)(?:^[ \t]*(?P=fence)[`~]*[ \t]*$|\Z)",
    re.DOTALL | re.MULTILINE,
)
_PYTHON = ("python", "python3", "py", "python2", "pycon")
_FIRST_LINE = re.compile(
    r"^(?:from\s+[\w.]+\s+import\b|import\s+[\w.]+|(?:async\s+)?def\s+\w+\s*\(|class\s+\w+\s*[(:]|@\w)", re.MULTILINE
)


def code_blocks(response: str) -> list[str]:
    """The pieces of Python in an answer, in their order.

    They are the fenced blocks that say they are Python, or else those that say nothing; without any, the text from the
    first line that begins a program, or all of it, as it may continue the question's program. An answer between
    `[BEGIN]` and `[DONE]`, as MBPP's prompt asks for, is taken from there. A block that is cut off goes to the end.
    """
    marked = _MARKED.search(response)
    text = marked[1] if marked else response
    fenced = [(match["language"].lower(), _block(match)) for match in _FENCED.finditer(text)]
    blocks = [code for language, code in fenced if language in _PYTHON]
    blocks = blocks or [code for language, code in fenced if not language]
    if blocks:
        return blocks
    first = _FIRST_LINE.search(text)
    return [text[first.start() :] if first else text.strip("\n")]


def _block(match: re.Match[str]) -> str:
    return textwrap.dedent(match["code"]) if match["indent"] else match["code"]
