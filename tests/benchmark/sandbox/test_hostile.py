"""Answers that want more than to be scored: each is contained, scored by its assertions, and leaves nothing behind."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

from gpu_select.benchmark.metrics import code_eval as code_eval_module
from gpu_select.benchmark.metrics.code_eval import code_eval
from gpu_select.benchmark.sandbox.isolation import unused_uids

MARK = "gpu-select-hostile"
TESTS = ["assert f(1) == 2", "assert f(2) == 3", "assert f(3) == 4"]
KEPT_OUT = ["assert f(1) == 'kept out'"]

GOOD = "def f(x):\n    return x + 1\n"

TRY = """
def tried(*attempts):
    for attempt in attempts:
        try:
            result = attempt()
        except (OSError, AttributeError, MemoryError, RuntimeError):
            continue
        return result or "got out"
    return "kept out"
"""

# name: (code, tests, score)
HOSTILE: dict[str, tuple[str, Any, float]] = {
    # time
    "endless loop": ("def f(x):\n    while True: pass", TESTS[:1], 0.0),
    "endless loop for one argument": ("def f(x):\n    while x == 2: pass\n    return x + 1", TESTS, 2 / 3),
    "endless loop when loaded": (f"{GOOD}while True: pass", TESTS, 0.0),
    "endless sleep": ("import time\ndef f(x):\n    time.sleep(1e6)", TESTS[:1], 0.0),
    "endless recursion": ("def f(x):\n    return f(x)", TESTS, 0.0),
    "endless generator": (
        "import itertools\ndef f(x):\n    return itertools.count()",
        ["assert list(f(1)) == [1]"],
        0.0,
    ),
    "endless regular expression": ("import re\ndef f(x):\n    re.match('(a+)+$', 'a' * 64 + 'b')", TESTS[:1], 0.0),
    "endless power": ("def f(x):\n    return 10 ** (10 ** 10)", TESTS[:1], 0.0),
    "endless event loop": (
        "import asyncio\nasync def wait():\n    await asyncio.Event().wait()\ndef f(x):\n    asyncio.run(wait())",
        TESTS[:1],
        0.0,
    ),
    "endless loop without a timer": (
        "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nsignal.setitimer(signal.ITIMER_REAL, 0)\n"
        "def f(x):\n    while True: pass",
        TESTS[:1],
        0.0,
    ),
    # memory, processes, output, files
    "100 GB allocation": ("def f(x):\n    return len(bytearray(100 << 30))", TESTS, 0.0),
    "memory bit by bit": (
        "def f(x):\n    parts = []\n    while True: parts.append(bytearray(8 << 20))",
        TESTS[:1],
        0.0,
    ),
    "deep recursion in C": (
        "import sys\nsys.setrecursionlimit(10 ** 9)\nclass A:\n    def __repr__(self): return repr(self)\n"
        "def f(x):\n    return repr(A())",
        TESTS[:1],
        0.0,
    ),
    "fork bomb": (f"import os\n{TRY}def f(x):\n    return tried(*[os.fork] * 100)", KEPT_OUT, 1.0),
    "fork bomb when loaded": (f"import os\n{GOOD}while True: os.fork()", TESTS, 1.0),
    "processes of multiprocessing": (
        f"import multiprocessing\n{TRY}"
        "def f(x):\n    return tried(*[multiprocessing.get_context('fork').Process(target=f, args=(x,)).start] * 9)",
        KEPT_OUT,
        1.0,
    ),
    "other programs": (
        f"import os, subprocess\n{TRY}def f(x):\n"
        "    sh = '/bin/sh'\n    return tried(lambda: subprocess.run([sh, '-c', 'id']), lambda: os.execv(sh, [sh]),"
        " lambda: os.posix_spawn(sh, [sh], {}), lambda: os.popen('id').read())",
        KEPT_OUT,
        1.0,
    ),
    "background daemon": (
        f"import os, time\ndef daemon():\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n"
        f"            while True: open('/tmp/{MARK}', 'w'); time.sleep(0.1)\n"
        f"{TRY}def f(x):\n    return tried(daemon)",
        KEPT_OUT,
        1.0,
    ),
    "thread bomb": (
        "import threading, time\ndef f(x):\n    try:\n        for _ in range(5000):\n"
        "            threading.Thread(target=time.sleep, args=(1e6,)).start()\n"
        "    except RuntimeError:\n        pass\n    return x + 1",
        TESTS,
        1.0,
    ),
    "thread that stays": (
        "import threading\ndef run():\n    while True: pass\n"
        "def f(x):\n    threading.Thread(target=run).start()\n    return x + 1",
        TESTS,
        1.0,
    ),
    "huge output": (
        "import sys\ndef f(x):\n    for _ in range(64):\n        sys.stdout.write('x' * (1 << 20))\n"
        "        sys.stderr.write('x' * (1 << 20))\n    return x + 1",
        TESTS,
        1.0,
    ),
    "huge result": ("def f(x):\n    return 'x' * (64 << 20)", TESTS[:1], 0.0),
    "deep result": ("def f(x):\n    y = []\n    for _ in range(10 ** 5): y = [y]\n    return y", TESTS[:1], 0.0),
    "result that holds itself": ("def f(x):\n    y = []\n    y.append(y)\n    return y", TESTS[:1], 0.0),
    "full disk": (
        "def f(x):\n    try:\n        for i in range(1000): open(str(i), 'wb').write(bytes(1 << 20))\n"
        "    except OSError:\n        return 'kept out'",
        KEPT_OUT,
        1.0,
    ),
    "large file": (
        "def f(x):\n    try:\n        open('large', 'wb').truncate(1 << 40)\n"
        "    except OSError:\n        return 'kept out'",
        KEPT_OUT,
        1.0,
    ),
    "shared memory": (
        f"import ctypes\nfrom multiprocessing import shared_memory\n{TRY}libc = ctypes.CDLL(None)\n"
        f"def f(x):\n    return tried(lambda: shared_memory.SharedMemory('{MARK}', create=True, size=1 << 20),"
        " lambda: int(libc.shmget(0x6770, 4096, 0o1666) < 0) * 'kept out')",
        KEPT_OUT,
        1.0,
    ),
    # files of others
    "reading /etc/passwd": (f"{TRY}def f(x):\n    return tried(lambda: open('/etc/passwd').read())", KEPT_OUT, 1.0),
    "reading the environment": (
        f"import os\n{TRY}def f(x):\n    return tried(lambda: os.environ and 'got out' or 'kept out', "
        "*[lambda p=p: open(f'/proc/{p}/environ').read() for p in ('self', 1, os.getppid())])",
        KEPT_OUT,
        1.0,
    ),
    "reading a secret by its path": (
        f"{TRY}def f(x):\n    return tried(lambda: open('SECRET').read(), lambda: open('SECRET', 'a'))",
        KEPT_OUT,
        1.0,
    ),
    "reading a secret by a link": (
        f"import os\n{TRY}def f(x):\n    return tried(lambda: os.symlink('SECRET', 'a') or open('a').read(),"
        " lambda: os.link('SECRET', 'b') or open('b').read())",
        KEPT_OUT,
        1.0,
    ),
    "writing outside": (
        f"import os\n{TRY}def f(x):\n    return tried(*[lambda p=p: open(p + '/{MARK}', 'w') for p in "
        "('/tmp', '/var/tmp', '/dev/shm', '/root', '/', os.path.dirname(os.__file__), 'FOLDER', '..')])",
        KEPT_OUT,
        1.0,
    ),
    "changing files of others": (
        f"import os\n{TRY}def f(x):\n    return tried(lambda: os.chmod('SECRET', 0o777) or 'got out', "
        "lambda: os.utime('SECRET') or 'got out', lambda: os.unlink('SECRET') or 'got out', "
        "lambda: os.truncate('SECRET', 0) or 'got out', lambda: os.rename('SECRET', 'own') or 'got out')",
        KEPT_OUT,
        1.0,
    ),
    "a new root": (
        f"import ctypes, os\n{TRY}libc = ctypes.CDLL(None)\ndef f(x):\n"
        "    calls = (libc.unshare(0x10000000), libc.unshare(0x20000), libc.mount(b'none', b'/', b'tmpfs', 0, None),\n"
        "             libc.setns(0, 0), libc.chroot(b'/'))\n"
        "    return 'kept out' if set(calls) == {-1} else 'got out'",
        KEPT_OUT,
        1.0,
    ),
    # network and other processes
    "TCP": (
        f"import socket\n{TRY}def f(x):\n    return tried(lambda: socket.create_connection(('127.0.0.1', PORT)))",
        KEPT_OUT,
        1.0,
    ),
    "UDP and names": (
        f"import socket\n{TRY}def f(x):\n    return tried(lambda: socket.socket(type=socket.SOCK_DGRAM)"
        ".sendto(b'x', ('127.0.0.1', PORT)), lambda: socket.getaddrinfo('localhost.localdomain', PORT))",
        KEPT_OUT,
        1.0,
    ),
    "Unix and raw sockets": (
        f"import socket\n{TRY}def f(x):\n    return tried(lambda: socket.socket(socket.AF_UNIX), "
        "lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW), lambda: socket.socket(socket.AF_NETLINK), "
        "lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))",
        KEPT_OUT,
        1.0,
    ),
    "killing the parent": (
        f"import os\n{TRY}def f(x):\n    return tried(*[lambda p=p: os.kill(p, 9) or 'got out' "
        "for p in (PARENT, os.getppid(), -1, 0) if p != os.getpid()], lambda: os.killpg(os.getpgid(0), 9))",
        KEPT_OUT,
        1.0,
    ),
    "tracing the parent": (
        "import ctypes\nlibc = ctypes.CDLL(None)\ndef f(x):\n"
        "    calls = (libc.ptrace(16, PARENT, 0, 0), libc.process_vm_readv(PARENT, 0, 0, 0, 0, 0),\n"
        "             libc.syscall(434, PARENT, 0), libc.prlimit(PARENT, 0, 0, 0))\n"
        "    return 'kept out' if set(calls) == {-1} else 'got out'",
        KEPT_OUT,
        1.0,
    ),
    "more rights and limits": (
        f"import os, resource\n{TRY}def f(x):\n    return tried(lambda: os.setuid(0) or 'got out', "
        "lambda: os.setgroups([0]) or 'got out', lambda: os.nice(-10) and 'got out', "
        "lambda: more(resource.RLIMIT_AS), lambda: more(resource.RLIMIT_CPU))\n"
        "def more(limit):\n    try:\n        resource.setrlimit(limit, (-1, -1))\n    except ValueError:\n"
        "        raise OSError from None",
        KEPT_OUT,
        1.0,
    ),
    # ends
    "os._exit(0) when loaded": (f"import os\n{GOOD}os._exit(0)", TESTS, 0.0),
    "os._exit(0) in a call": ("import os\ndef f(x):\n    if x == 2: os._exit(0)\n    return x + 1", TESTS, 2 / 3),
    "sys.exit": (f"import sys\n{GOOD}sys.exit(0)", TESTS, 1.0),
    "sys.exit in a call": ("import sys\ndef f(x):\n    sys.exit(0)", TESTS, 0.0),
    "killing itself": ("import os\ndef f(x):\n    os.kill(os.getpid(), 9)\n    os.abort()", TESTS[:1], 0.0),
    "segmentation fault": ("import ctypes\ndef f(x):\n    ctypes.string_at(0)", TESTS[:1], 0.0),
    "KeyboardInterrupt": ("def f(x):\n    raise KeyboardInterrupt", TESTS, 0.0),
    "error whose text fails": (
        "class E(BaseException):\n    def __str__(self): raise self\ndef f(x):\n    raise E",
        TESTS,
        0.0,
    ),
    # verdicts
    "object that equals everything": (
        "class A:\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
        "    def __bool__(self): return True\n    def __sub__(self, other): return 0\n    __rsub__ = __sub__\n"
        "    def __abs__(self): return 0\n    def __lt__(self, other): return True\n"
        "def f(x):\n    return A()",
        [*TESTS, "assert abs(f(1) - 2) < 1e-6", "assert f(1) in (1, 2)", "assert f(1) < 2", "assert [f(1)] == [2]"],
        0.0,
    ),
    "number that equals everything": (
        "class I(int):\n    def __eq__(self, other): return True\n    def __hash__(self): return 1\n"
        "def f(x):\n    return I(99)",
        TESTS,
        0.0,
    ),
    "patched names of the assertion": (
        "import builtins\nbuiltins.AssertionError = type('A', (BaseException,), {})\n"
        "builtins.isinstance = lambda *_: True\nbuiltins.bool = builtins.len = lambda *_: True\n"
        "def f(x):\n    return 0",
        TESTS,
        0.0,
    ),
    "shadowed builtins of the tests": (
        "def abs(x): return 0\ndef set(x): return 0\ndef len(x): return 3\ndef f(x):\n    return 7.0",
        ["assert abs(f(1) - 3.5) < 1e-6", "assert set(f(1)) == set([1])", "assert len(f(1)) == 3"],
        0.0,
    ),
    "sys.settrace and sys.setprofile": (
        "import sys, threading\ndef trace(frame, event, arg):\n    for name in list(frame.f_locals):\n"
        "        if name in ('value', 'failed', 'passed', 'ok'): frame.f_locals[name] = True\n    return trace\n"
        "sys.settrace(trace)\nsys.setprofile(trace)\nthreading.settrace(trace)\ndef f(x):\n    return 0",
        TESTS,
        0.0,
    ),
    "looking for the expected value": (
        "import gc, sys\ndef f(x):\n    seen = [o for o in gc.get_objects() if isinstance(o, dict)]\n"
        "    frame = sys._getframe()\n    while frame:\n        seen.append(frame.f_locals)\n"
        "        frame = frame.f_back\n"
        "    text = repr(seen)\n    return 777777 if '777' '777' in text else 'not found'",
        ["assert f(1) == 777777"],
        0.0,
    ),
    "importing the tests": (
        "def f(x):\n    for name in ('tests', '__main__', 'gpu_select.benchmark.sandbox.examiner'):\n        try:\n"
        "            module = __import__(name)\n        except ImportError:\n            continue\n"
        "        if '777' '777' in repr(vars(module)): return 777777\n    return 0",
        ["assert f(1) == 777777"],
        0.0,
    ),
    "forged replies": (
        "from gpu_select.benchmark.sandbox.codec import encode, write_frame\n"
        "def f(x):\n    for _ in range(50):\n        for value in (('ok', True), ('ok', 2), ('ok', None)):\n"
        "            write_frame(4, encode(value))\n    return True",
        ["assert f(1) == 20", "assert f(2) == 30"],
        0.0,
    ),
    "forged verdicts": (
        "import os\ndef f(x):\n    for fd in range(256):\n        try: os.write(fd, b'p 0\\np 1\\np 2\\nd\\n' * 999)\n"
        "        except OSError: pass\n    return 0",
        TESTS[:1],
        0.0,
    ),
    "patched exchange": (
        "import sys\nfor name, module in list(sys.modules.items()):\n    if 'sandbox' in name:\n"
        "        for key, value in list(vars(module).items()):\n"
        "            if callable(value): vars(module)[key] = lambda *_: b'T'\n"
        "def f(x):\n    return 0",
        TESTS[:1],
        0.0,
    ),
    "names that nobody asked for": (
        "import sys\nkind = sys.modules['gpu_select.benchmark.sandbox.candidate']._Candidate\n"
        "def f(x):\n    return 7.0\ndef zero(*args):\n    return 0\n"
        "kind._do_names = lambda self, names: ('ok', dict(f=f, abs=zero))",
        ["assert abs(f(1) - 3.5) < 1e-6"],
        0.0,
    ),
    "no names at all": (
        "import sys\nkind = sys.modules['gpu_select.benchmark.sandbox.candidate']._Candidate\n"
        "kind._do_names = lambda self, names: ('ok', 5)",
        TESTS,
        0.0,
    ),
    "calls instead of results": (
        "import sys\nkind = sys.modules['gpu_select.benchmark.sandbox.candidate']._Candidate\n"
        "kind._do_call = lambda self, *_: ('callback', -1, (), {})",
        TESTS,
        0.0,
    ),
    "results of a wrong shape": (
        "import sys\nkind = sys.modules['gpu_select.benchmark.sandbox.candidate']._Candidate\n"
        "replies = iter([('ok', 0, 5), ('error', 5, 5), ('error', ['Exception', 'OSError'], ['x']), 5] * 9)\n"
        "kind._do_call = lambda self, *_: next(replies)\ndef f(x): pass",
        TESTS,
        0.0,
    ),
    "closed handles": ("import os\ndef f(x):\n    os.closerange(0, 256)\n    return x + 1", TESTS[:1], 0.0),
    "garbage on the handles": (
        "import os\ndef f(x):\n    while True: os.write(4, os.urandom(1 << 16))",
        TESTS[:1],
        0.0,
    ),
    "errors instead of results": (
        "def f(x):\n    raise AssertionError",
        ["try:\n    assert f(1) == 2\nexcept: pass"],
        0.0,
    ),
    "last words": (
        "import atexit, os\n@atexit.register\ndef bye():\n    os.write(4, b'p 0')\n"
        "class A:\n    def __del__(self): os.fork()\na = A()\ndef f(x):\n    return 0",
        TESTS,
        0.0,
    ),
}


def marked_files() -> list[str]:
    places = {
        tempfile.gettempdir(),
        "/tmp",
        "/var/tmp",
        "/dev/shm",
        "/",
        str(Path.home()),
        os.getcwd(),
        os.path.dirname(os.__file__),
    }
    return [name for place in places if os.path.isdir(place) for name in os.listdir(place) if MARK in name]


def processes_of(folder: str, uids: tuple[int, ...]) -> list[str]:
    """Command lines of what was started with a folder there, which forked processes share, or runs as such a user."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes().decode(errors="replace")
            owner = process.stat().st_uid
        except OSError:  # it has ended
            continue
        if folder in text or owner in uids:
            found.append(text)
    return found


def check_containment(name: str, isolation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, tests, expected = HOSTILE[name]
    if name == "full disk" and not isolation.confinement.namespaces:
        expected = 0.0  # on a disk that it shares with others, an answer is ended
    monkeypatch.setattr(code_eval_module, "ASSERTION_S", 0.5 if "endless" in name and expected == 0.0 else 2.0)
    own_temporary = tmp_path / "temporary"
    own_temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own_temporary))
    secret = tmp_path / "secret"
    secret.write_text("secret", encoding="utf-8")
    for path, mode in ((secret, 0o666), (tmp_path, 0o777)):
        path.chmod(mode)
    before = secret.stat()
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.0)
        for placeholder, value in (
            ("SECRET", secret),
            ("FOLDER", tmp_path),
            ("PORT", server.getsockname()[1]),
            ("PARENT", os.getpid()),
        ):
            code = code.replace(placeholder, str(value))
        score = code_eval(f"```python\n{code}\n```", tests, "", isolation)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert score == pytest.approx(expected)
    assert list(own_temporary.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "temporary"]
    after = secret.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_size) == (before.st_mode, before.st_mtime_ns, before.st_size)
    assert marked_files() == []
    assert Path("/proc/self/mountinfo").read_text(encoding="utf-8") == mounts
    assert processes_of(str(own_temporary), unused_uids()) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_contained(name, isolation, tmp_path, monkeypatch):
    check_containment(name, isolation, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(("namespaces", "landlock"), [(True, False), (False, True)], ids=["namespaces", "landlock"])
def test_each_way_contains_it_alone(name, namespaces, landlock, weaker_isolation, tmp_path, monkeypatch):
    isolation = weaker_isolation(namespaces=namespaces, landlock=landlock)
    check_containment(name, isolation, tmp_path, monkeypatch)


def test_there_are_enough_of_them():
    assert len(HOSTILE) >= 25
