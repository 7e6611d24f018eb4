from __future__ import annotations

import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from gpu_select.errors import InputError
from gpu_select.throughput import read_corpus


@pytest.fixture
def python_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes]], None]:
    """Call with names and contents: Python's own folders then hold these files only, one folder inside the other."""

    def fill(files: dict[str, bytes]) -> None:
        for name, data in files.items():
            path = tmp_path / "lib" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    folders = {"stdlib": tmp_path / "lib", "purelib": tmp_path / "lib" / "site", "platlib": tmp_path / "lib" / "site"}
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(folders[name]))
    return fill


def test_it_holds_text_of_the_known_kinds_only_and_each_file_once(python_folders):
    python_folders(
        {
            "a.py": b"import this",
            "site/b.md": "Grüße".encode(),
            "site/c.rst": b"text",
            "d.txt": b"plain",
            "e.so": b"binary",
            "f.py": b"zero \0 byte",
            "g.txt": b"\xff\xfe\xfa\xfb\xfc\xfd no UTF-8",
            "h.py": b"  \n",
            "__pycache__/i.py": b"left out",
        }
    )
    assert sorted(read_corpus()) == ["Grüße", "import this", "plain", "text"]


def test_it_stops_at_the_bound(python_folders):
    python_folders({f"{i}.py": b"x" * 100 for i in range(50)})
    assert len(read_corpus(1000)) == 10


def test_a_large_file_counts_with_its_first_part_even_if_that_ends_within_a_character(python_folders):
    python_folders({"a.py": b"x" + "é".encode() * 100_000})
    (text,) = read_corpus()
    assert text == "x" + "é" * (2**16 - 1)


def test_without_any_text_it_says_so(python_folders):
    python_folders({"a.so": b"binary"})
    with pytest.raises(InputError, match=r"no \.py, \.md, \.rst or \.txt file found in Python's own folders"):
        read_corpus()


def test_it_is_the_same_each_time():
    first = read_corpus(300_000)
    assert first == read_corpus(300_000)
    assert len(first) > 3
    assert 300_000 <= sum(len(text.encode()) for text in first) < 300_000 + 2**17
