"""What the pages in docs/ show exists."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import click
import pytest

from gpu_select.errors import MissingDependencyError

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(page, language):
    """The fenced blocks in a language; "" for those that name none."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_parses_and_imports_what_there_is(page):
    nodes = [node for block in blocks(page, "python") for node in ast.walk(ast.parse(block))]
    ours = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module.startswith("gpu_select")]
    for node in ours:
        try:
            module = importlib.import_module(node.module)
        except MissingDependencyError as error:
            pytest.skip(str(error))
        assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page):
    lines = "\n".join(blocks(page, "")).replace("\\\n", " ").splitlines()
    for line in lines:
        used = re.match(r"gpu-select (\w+) ?(.*)", line)
        if used:
            command: click.Command = importlib.import_module(f"gpu_select.commands.{used[1]}").command
            known = {flag for param in command.params for flag in param.opts}
            assert set(re.findall(r"--[a-z-]+", used[2])) <= known
