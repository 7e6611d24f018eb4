from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="code is isolated on Linux only")

ROOT = Path(__file__).parents[3]


def run(isolation, code, tests, *, prompt="", skip=(), assertion_s=3.0):
    return isolation.run([code], prompt, tests, skip=set(skip), wall_s=10.0, assertion_s=assertion_s)


def launched(folder: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in text:
            found.append(text)
    return found


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_verdicts(isolation):
    verdicts = run(isolation, "def f(x): return x + 1", ["assert f(1) == 2", "assert f(1) == 3", "assert f('x')"])
    assert verdicts.n == 3
    assert verdicts.passed == {0}
    assert verdicts.failed == {1, 2}
    assert verdicts.begun is None
    assert verdicts.done
    assert verdicts.fault == ""


def test_what_is_to_be_skipped_is(isolation):
    verdicts = run(isolation, "def f(x): return x", ["assert f(1)", "assert f(2)"], skip=[0])
    assert verdicts.n == 2
    assert verdicts.passed == {1}


def test_the_assertion_that_does_not_end_is_named(isolation):
    code = "def f(x):\n    while x == 2: pass\n    return x"
    verdicts = run(isolation, code, ["assert f(1)", "assert f(2)", "assert f(3)"], assertion_s=0.3)
    assert verdicts.passed == {0}
    assert verdicts.begun == 1
    assert not verdicts.done


def test_nothing_is_left(isolation, temporary):
    run(isolation, "open('own', 'w').write('x')\ndef f(x): return x", ["assert f(1)"])
    assert list(temporary.iterdir()) == []
    assert launched(temporary) == []


def test_a_run_starts_quickly(isolation):
    run(isolation, "def f(x): return x", ["assert f(1)"])
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert run(isolation, "def f(x): return x", ["assert f(1)"]).passed == {0}
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5  # about 0.05 where nothing else runs


def test_many_threads_run_at_once(isolation, temporary):
    def score(i):
        return run(isolation, f"def f(x): return x + {i}", [f"assert f(1) == {i + 1}", "assert f(1) == 4"]).passed

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(score, range(18)))
    assert found == [{0, 1} if i == 3 else {0} for i in range(18)]
    assert list(temporary.iterdir()) == []


def test_many_assertions(isolation):
    verdicts = run(isolation, "def f(x): return x", "for i in range(3000):\n    assert f(i) == i")
    assert verdicts.passed == {0}
    assert verdicts.done


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_runs_ends_with_its_caller(number, isolation, tmp_path):
    if isolation.python != sys.executable:
        pytest.skip("needs the isolation of this Python")
    program = (
        "import signal, tempfile\nfrom gpu_select.benchmark.sandbox.finding import find_isolation\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background processes ignore it
        f"tempfile.tempdir = {str(tmp_path)!r}\nisolation = find_isolation()\nprint('ready', flush=True)\n"
        "code, tests = ['def f(x):\\n    while True: pass'], ['assert f(1)']\n"
        "isolation.run(code, '', tests, skip=set(), wall_s=60.0, assertion_s=60.0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 30
        while len(launched(tmp_path)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(launched(tmp_path)) >= 3  # launcher, candidate and examiner, and who waits for them
        os.kill(process.pid, number)
        process.wait(10)
    deadline = time.monotonic() + 5
    while launched(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert launched(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_the_descriptors_of_the_caller_are_closed_again(isolation):
    run(isolation, "", ["assert f(1)"])
    before = os.listdir("/proc/self/fd")
    n_threads = threading.active_count()
    for _ in range(3):
        run(isolation, "", ["assert f(1)"])
    assert os.listdir("/proc/self/fd") == before
    assert threading.active_count() == n_threads
