from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_select.errors import IsolationError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="code is isolated on Linux only")


def test_nothing_gets_out(isolation):
    from gpu_select.benchmark.sandbox.finding import what_gets_out

    assert what_gets_out(isolation) == ""


def test_what_gets_out_is_said(weaker_isolation):
    from gpu_select.benchmark.sandbox.finding import what_gets_out
    from gpu_select.benchmark.sandbox.isolation import Isolation

    isolation = weaker_isolation(namespaces=False, landlock=True)
    said = what_gets_out(Isolation(isolation.confinement._replace(landlock=False), isolation.python))
    assert said.startswith("code can ")
    for what in ("read /etc/passwd", "see /etc/passwd", "write /"):
        assert what in said
    for what in ("TCP", "UDP", "Unix", "signals", "start a process", "memory", "root"):
        assert what not in said


def test_a_library_out_of_reach_is_said(isolation):
    from gpu_select.benchmark.sandbox.finding import what_gets_out
    from gpu_select.benchmark.sandbox.isolation import Isolation

    bare = isolation.confinement._replace(readable=("/etc/ld.so.cache",))
    assert what_gets_out(Isolation(bare)) == "not even Python's library can be used"


@pytest.mark.parametrize(("namespaces", "landlock"), [(True, False), (False, True)])
def test_each_way_alone(namespaces, landlock, weaker_isolation):
    isolation = weaker_isolation(namespaces=namespaces, landlock=landlock)
    verdicts = isolation.run(
        ["def f(x): return x + 1"], "", ["assert f(1) == 2"], skip=set(), wall_s=10.0, assertion_s=5.0
    )
    assert verdicts.passed == {0}
    assert verdicts.done


def test_where_nothing_works_it_is_refused_and_said_why(monkeypatch):
    from gpu_select.benchmark.sandbox import finding

    monkeypatch.setattr(finding, "what_gets_out", lambda isolation: "unshare: Operation not permitted")
    with pytest.raises(IsolationError) as caught:
        finding.find_isolation()
    text = str(caught.value)
    assert text.startswith("code_eval: expected a system that can isolate code, got Linux ")
    assert "namespaces: unshare: Operation not permitted" in text
    assert "Landlock: unshare: Operation not permitted" in text
    assert text.endswith(
        "leave code execution out, or allow user namespaces, or run on Linux 6.2 or newer with Landlock"
    )
    assert "\n" not in text


def test_a_weaker_way_is_taken_where_the_stronger_ones_fail(monkeypatch):
    from gpu_select.benchmark.sandbox import finding

    monkeypatch.setattr(finding, "what_gets_out", lambda isolation: "no" if isolation.confinement.namespaces else "")
    confinement = finding.find_isolation().confinement
    assert (confinement.namespaces, confinement.landlock) == (False, True)


def test_a_python_that_does_not_start_is_a_fault(isolation):
    from gpu_select.benchmark.sandbox.finding import what_gets_out
    from gpu_select.benchmark.sandbox.isolation import Isolation

    assert what_gets_out(Isolation(isolation.confinement, "/bin/false")) == "the launcher ended with status 1"


def test_another_user_has_isolation_too(weaker_isolation):
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    python = weaker_isolation(namespaces=False, landlock=True).python
    if python == sys.executable:
        pytest.skip("tried by the other tests of this file")
    code = (
        "from gpu_select.benchmark.sandbox.finding import find_isolation\nprint(find_isolation().confinement.landlock)"
    )
    root = Path(__file__).parents[3]
    other = {"user": 64_999, "group": 64_999, "extra_groups": []}
    try:
        process = subprocess.run(
            [python, "-B", "-c", code], cwd=root, env={}, capture_output=True, text=True, check=False, **other
        )
    except PermissionError:
        pytest.skip("the other user cannot read this folder")
    assert process.stdout == "True\n", process.stderr
