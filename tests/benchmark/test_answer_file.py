from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.benchmark.answer_file import AnswerFile
from gpu_select.errors import DataError, OutputError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs file locks")


def row(i, **more):
    return {"query": f"q{i}", "model_name": "m", **more}


def lines(*rows):
    return b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in rows)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.jsonl"


def load(file):
    return [record for _, _, record in file.records()]


def test_what_is_appended_is_on_disk_at_once_and_read_again(path):
    with AnswerFile(path) as file:
        assert load(file) == []
        spans = [file.append(row(i, response="ü" * i)) for i in range(3)]
        assert load(file) == [row(i, response="ü" * i) for i in range(3)]
        assert [span for _, span, _ in file.records()] == spans
        assert [json.loads(line) for line in path.read_bytes().splitlines()] == load(file)
        assert file.read(spans[1]) == row(1, response="ü")
    with AnswerFile(path) as file:
        assert [number for number, _, _ in file.records()] == [1, 2, 3]
        file.append(row(3))
        assert [record["query"] for record in load(file)] == ["q0", "q1", "q2", "q3"]


def test_folders_are_created(tmp_path):
    path = tmp_path / "a" / "b" / "out.jsonl"
    with AnswerFile(path) as file:
        load(file)
    assert path.read_bytes() == b""


def test_a_link_is_followed(tmp_path, path):
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    with AnswerFile(link) as file:
        load(file)
        old = file.append(row(0))
        file.append(row(1), replaces=old)
        file.compact()
    assert link.is_symlink()
    assert path.read_bytes() == lines(row(1)).replace(b": ", b":").replace(b", ", b",")


def test_lines_of_others_stay_as_they_are_when_some_are_replaced(path):
    odd = b'\xef\xbb\xbf{"query" : "a", "model_name":"m"}\r\n\n  \n'
    path.write_bytes(odd + lines(row(0), row(1), row(2)) + b'{"query":"z",   "model_name":"m"}\n')
    os.chmod(path, 0o640)
    with AnswerFile(path) as file:
        spans = {record["query"]: span for _, span, record in file.records()}
        assert file.read(spans["a"])["query"] == "a"
        new = file.append(row(1, response="new"), replaces=spans["q1"])
        file.drop(spans["q2"])
        file.drop(new)
        newest = file.append(row(1, response="newest"))
        assert len(load(file)) == 7
        file.compact()
        assert [record["query"] for record in load(file)] == ["a", "q0", "z", "q1"]
        after = file.append(row(9))
        assert file.read(after) == row(9)
        assert newest != after
        file.compact()  # nothing is left to do
        assert path.read_bytes().startswith(odd + lines(row(0)) + b'{"query":"z",   "model_name":"m"}\n')
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in path.parent.iterdir()] == [path.name]


WHOLE = row(1, response="Grüße\n", performance=0.5)


@pytest.mark.parametrize("cut", range(1, len(lines(WHOLE)) - 1))
def test_a_line_that_was_cut_anywhere_is_cut_off_and_said_to_be(path, cut):
    path.write_bytes(lines(row(0)) + lines(WHOLE)[:cut])
    with AnswerFile(path) as file:
        assert load(file) == [row(0)]
        assert path.read_bytes() == lines(row(0))
        assert file.warnings == [
            f"{path}: the last line was half-written ({cut} bytes) and is cut off; its call is made again"
        ]
        file.append(row(2))
        assert load(file) == [row(0), row(2)]


def test_a_line_that_lacks_nothing_but_its_end_is_kept(path):
    path.write_bytes((lines(row(0)) + lines(WHOLE))[:-1])
    with AnswerFile(path) as file:
        assert load(file) == [row(0), WHOLE]
        file.append(row(2))
        assert load(file) == [row(0), WHOLE, row(2)]
        assert file.warnings == []


def test_zeros_that_a_power_cut_left_are_cut_off(path):
    path.write_bytes(lines(row(0)) + b"\0" * 4096)
    with AnswerFile(path) as file:
        assert load(file) == [row(0)]
        assert len(file.warnings) == 1


CURE = "; mend or remove the line, or give another --output"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"{half", "expected a benchmark record, got no JSON ("),
        (b"[1, 2]", "expected a benchmark record with a text as query, got None"),
        (b'{"query": "a"}', "expected a benchmark record with a text as model_name, got None"),
        (b'{"query": 5, "model_name": "m"}', "expected a benchmark record with a text as query, got 5"),
    ],
)
def test_another_broken_line_is_an_error_and_stays(path, line, text):
    data = lines(row(0)) + line + b"\n" + lines(row(1)) + b'{"query": "half'
    path.write_bytes(data)
    with AnswerFile(path) as file, pytest.raises(DataError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{path}: line 2: {text}")
    assert str(caught.value).endswith(CURE)
    assert path.read_bytes() == data


@pytest.mark.parametrize("data", [b"models:\n  - name: a", b"just text", b"[1, 2", b"\x89PNG\r\n\x1a\n\0\0"])
def test_a_file_of_another_kind_given_by_mistake_is_left_alone(path, data):
    path.write_bytes(data)
    with AnswerFile(path) as file, pytest.raises(DataError, match="expected a benchmark record"):
        load(file)
    assert path.read_bytes() == data


def test_names_that_cannot_be_appended_to(tmp_path):
    for name in ("-", "out.jsonl.gz", "out.jsonl.zst"):
        with pytest.raises(OutputError, match=r"expected the name of a plain \.jsonl file, as records are appended$"):
            AnswerFile(name)
    with pytest.raises(OutputError, match=r"^cannot write /dev/null: expected a plain file, as records are appended$"):
        AnswerFile("/dev/null")
    with pytest.raises(OutputError, match=r"^cannot write .*: Is a directory$"):
        AnswerFile(tmp_path)
    with pytest.raises(OutputError, match=r"^cannot write a\0b: embedded null byte$"):
        AnswerFile("a\0b")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"^cannot write .*: (Not a directory|File exists)$"):
        AnswerFile(tmp_path / "file" / "out.jsonl")


def test_a_file_has_one_writer(path):
    with AnswerFile(path) as file:
        with pytest.raises(OutputError) as caught:
            AnswerFile(path)
        assert str(caught.value) == (
            f"cannot write {path}: another benchmark is writing it; let it end, or give another --output"
        )
        load(file)
        old = file.append(row(0))
        file.append(row(1), replaces=old)
        file.compact()  # another file has the name now
        with pytest.raises(OutputError, match="another benchmark is writing it"):
            AnswerFile(path)
    with AnswerFile(path) as file:
        assert load(file) == [row(1)]


def test_a_file_that_is_replaced_while_it_is_opened_is_opened_anew(path, monkeypatch):
    from gpu_select.benchmark import answer_file

    path.write_bytes(lines(row(0)))
    lock, n_locked = answer_file._lock, []

    def replaced_meanwhile(descriptor, name):
        lock(descriptor, name)
        if not n_locked:
            other = path.with_name("other")
            other.write_bytes(lines(row(1)))
            os.replace(other, path)
        n_locked.append(descriptor)

    monkeypatch.setattr(answer_file, "_lock", replaced_meanwhile)
    with AnswerFile(path) as file:
        assert load(file) == [row(1)]
    assert len(n_locked) == 2


def test_what_a_killed_compaction_left_is_removed(path):
    left = path.with_name(f".{path.name}.compacting")
    left.write_bytes(b"x" * 100)
    with AnswerFile(path) as file:
        load(file)
    assert not left.exists()


def test_a_full_disk_takes_nothing_that_is_there(path, monkeypatch):
    write = os.write

    def full(descriptor, data):
        if len(data) > 20:
            return write(descriptor, data[:10])
        raise OSError(28, "No space left on device")

    with AnswerFile(path) as file:
        load(file)
        span = file.append(row(0))
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OutputError, match=r"^cannot write .*: No space left on device$"):
            file.append(row(1, response="x" * 50))
        assert path.read_bytes() == lines(row(0)).replace(b": ", b":").replace(b", ", b",")
        file.drop(span)
        monkeypatch.setattr(os, "replace", lambda *_: full(0, b""))
        with pytest.raises(OutputError, match="No space left"):
            file.compact()
        monkeypatch.undo()
        assert load(file) == [row(0)]
        file.append(row(2))
        assert [one.name for one in path.parent.iterdir()] == [path.name]
    with AnswerFile(path) as file:
        assert load(file) == [row(0), row(2)]


KILLED = """
import os, signal, sys
from gpu_select.benchmark.answer_file import AnswerFile
file = AnswerFile(sys.argv[1])
assert not list(file.records())
file.append({"query": "a", "model_name": "m"})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_appended_outlives_the_process(path):
    process = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=Path(__file__).parents[2], check=False)
    assert process.returncode == -9
    with AnswerFile(path) as file:
        assert load(file) == [{"query": "a", "model_name": "m"}]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=12), st.integers(0, 12))
def test_what_is_kept_is_what_nothing_has_replaced(tmp_path_factory, steps, n_before):
    path = tmp_path_factory.getbasetemp() / "any_out.jsonl"
    path.unlink(missing_ok=True)
    newest, kept = {}, []
    with AnswerFile(path) as file:
        load(file)
        for i, (key, replaces) in enumerate(steps):
            if i == n_before:
                file.compact()
                newest = {record["query"]: span for _, span, record in file.records()}
            old = newest.get(f"q{key}") if replaces else None
            if old is not None:
                kept = [one for one in kept if (one["query"], one["n"]) != (f"q{key}", file.read(old)["n"])]
            record = row(key, n=i)
            newest[f"q{key}"] = file.append(record, replaces=old)
            kept.append(record)
        file.compact()
        assert load(file) == kept
