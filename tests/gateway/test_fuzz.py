"""Requests that schemathesis makes up from /openapi.json: none of them makes the gateway fail."""

from __future__ import annotations

import subprocess
import sys
import urllib.request

import pytest

pytest.importorskip("schemathesis")

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
"""Not whether exactly what fits the schema is taken: a text to choose a model by is no matter of form, and what goes on
under a model's name is the endpoint's to judge."""


@pytest.mark.slow
def test_no_request_of_any_form_makes_it_fail(served, tmp_path):

    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"]
    options = ["--max-examples=200", "--seed=0", f"--checks={','.join(CHECKS)}", "--no-color"]
    done = subprocess.run(
        [*command, f"{served.url}/openapi.json", *options],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert "Tested: 10" in done.stdout
    assert served.process.poll() is None
    with urllib.request.urlopen(f"{served.url}/metrics") as answer:
        counted = [line for line in answer.read().decode().splitlines() if line.startswith("gpu_select_requests_total")]
    assert sum(float(line.rpartition(" ")[2]) for line in counted) > 1000
    assert [line for line in counted if 'status="5' in line] == []
    assert [entry for entry in served.events if entry["event"] in ("request failed", "no JSON")] == []
