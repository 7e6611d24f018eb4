import io
import os
import sys

import pytest

from gpu_select.errors import OutputError
from gpu_select.logs import open_writer

ROW = {"query": "a", "model": "gpt", "score": 0.5, "margin": 0.25, "error": None}
KINDS = ["jsonl", "csv", "tsv", "txt", "parquet", "jsonl.gz"]


@pytest.fixture(params=KINDS)
def kind(request):
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return request.param


def test_the_file_appears_at_the_end(tmp_path, kind):
    path = tmp_path / "folder" / f"out.{kind}"
    with open_writer(str(path)) as writer:
        writer.write([ROW])
        writer.write([])
        assert not path.exists()
    assert os.listdir(path.parent) == [path.name]
    assert path.stat().st_size


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path, kind, error):
    path = tmp_path / f"out.{kind}"
    path.write_bytes(b"old")
    with pytest.raises(error), open_writer(str(path)) as writer:
        raise error(writer.write([ROW] * 70_000))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


def test_a_folder_that_cannot_be_written_is_an_error_at_once(tmp_path, kind):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"^cannot write .*: (Not a directory|File exists)$"):
        open_writer(str(tmp_path / "file" / f"out.{kind}"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("log", "n_rows"), [*((log, n) for log in ("jsonl", "csv", "txt", "parquet") for n in (1, 70_000)), ("parquet", 0)]
)
def test_a_full_disk_is_one_error(log, n_rows):
    if log == "parquet":
        pytest.importorskip("pyarrow")
    with (
        pytest.raises(OutputError, match=r"^cannot write /dev/full: No space left on device$"),
        open_writer("/dev/full", format=log) as writer,
    ):
        writer.write([ROW] * n_rows)


def test_standard_output_is_json_lines_unless_told(monkeypatch):
    def written(**options):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
        with open_writer("-", **options) as writer:
            writer.write([ROW])
        return sys.stdout.buffer.getvalue()

    assert written() == b'{"query":"a","model":"gpt","score":0.5,"margin":0.25}\n'
    assert written(format="txt") == b"gpt\n"
    assert written(format="csv") == b"query,model,score,margin,error\na,gpt,0.5,0.25,\n"


def test_parquet_goes_to_standard_output_too(monkeypatch):
    pa = pytest.importorskip("pyarrow")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    with open_writer("-", format="parquet") as writer:
        writer.write([ROW])
    table = pa.parquet.read_table(io.BytesIO(sys.stdout.buffer.getvalue()))
    assert table.to_pylist() == [ROW]
