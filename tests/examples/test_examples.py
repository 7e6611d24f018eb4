from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGE = (ROOT / "docs" / "embedding-the-router.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_is_short_says_how_it_is_run_and_has_its_place_in_the_docs(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60
    assert path.name.removesuffix(".py") in ast.get_docstring(ast.parse("\n".join(lines)))
    assert f"(../examples/{path.name})" in PAGE
    assert (Path(__file__).parent / f"test_{path.name}").exists()


def test_the_page_is_linked_and_so_is_everything_on_it():
    assert "(docs/embedding-the-router.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert {path.stem for path in EXAMPLES} == {"load_package", "serve_fastapi", "serve_ray"}
