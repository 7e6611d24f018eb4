"""In a process that has torch, and not this project; a compiled router is what it loads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gpu_select.export import export_router, export_selector

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "load_package.py"
TEXTS = ["what is the number of the city", "explain the law of energy", "solve"]
DOMAINS = ["math", "law", "other"]

ALONE = f"""
import sys
sys.path.append({str(Path(torch.__file__).parents[1])!r})
import runpy
runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")
assert not {{"gpu_select", "transformers"}} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def packages(router, tmp_path_factory):
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.mktemp("packages")
    export_router(router, folder / "full.pt2")
    export_selector(router.selector, folder / "selector.pt2", takes_candidates=True)
    return folder


def run_example(package, *lines):
    """The process, when it has ended."""
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE, str(package)],
        input="".join(line + "\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def decide(package, rows):
    """What the example prints."""
    run = run_example(package, *map(json.dumps, rows))
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def same(rows, expected):
    assert [row["model"] for row in rows] == expected.models
    assert [row["score"] for row in rows] == pytest.approx(expected.scores.tolist(), abs=1e-4)


def test_texts_and_tokens(packages, router):
    expected = router.route(TEXTS, DOMAINS)
    rows = [{"text": text, "domain": domain} for text, domain in zip(TEXTS, DOMAINS, strict=True)]
    same(decide(packages / "full.pt2", rows), expected)
    tokenized = router.encoder.tokenizer.tokenize(TEXTS)
    ids = [tokenized.ids[a:b].tolist() for a, b in zip(tokenized.offsets, tokenized.offsets[1:], strict=False)]
    rows = [{"input_ids": row, "domain": domain} for row, domain in zip(ids, DOMAINS, strict=True)]
    same(decide(packages / "full.pt2", rows), expected)
    same(decide(packages / "full.pt2", [rows[0], {"text": TEXTS[1], "domain": DOMAINS[1]}, rows[2]]), expected)
    same(decide(packages / "full.pt2", [{"text": TEXTS[0]}]), router.route(TEXTS[:1]))


def test_features(packages, router):
    from gpu_select.encoder import embed
    from gpu_select.features import build_features

    vectors = embed(router.encoder, TEXTS).vectors
    features = build_features(vectors, torch.tensor([0, 8, 12]))
    rows = [{"features": row} for row in features.tolist()]
    same(decide(packages / "selector.pt2", rows), router.route(TEXTS, DOMAINS))


def test_no_line_gives_no_line(packages):
    assert decide(packages / "full.pt2", []) == []


@pytest.mark.parametrize(
    ("package", "line", "text"),
    [
        ("full", "nope", "JSONDecodeError: Expecting value"),
        ("full", "{}", "KeyError: 'text'"),
        ("full", '{"input_ids": [-1]}', "ValueError: expected 1 to "),
        ("full", f'{{"input_ids": {[1] * 9999}}}', "ValueError: expected 1 to "),
        ("full", '{"text": "solve", "domain": "maths"}', "ValueError: 'maths' is not in list"),
        ("selector", '{"text": "solve"}', "KeyError: 'features'"),
        ("selector", '{"features": [1, 2]}', "RuntimeError: shape '["),
    ],
)
def test_a_line_that_cannot_be_decided_on_is_named(packages, package, line, text):
    run = run_example(packages / f"{package}.pt2", "", line)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"line 2: {text}")
    assert run.stderr.count("\n") == 1


def test_features_may_be_whole_numbers(packages, router):
    row = [1] + [0] * (router.selector.dim - 1)
    assert len(decide(packages / "selector.pt2", [{"features": row}])) == 1
