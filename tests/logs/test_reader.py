import io
import sys
import tracemalloc

import pytest

from gpu_select.errors import ConfigError, InputError, MissingDependencyError
from gpu_select.logs import open_log, open_logs, open_writer

RESULT = {"model": "gpt", "score": 0.5, "margin": 0.25, "error": None}


def write_log(path, n_rows):
    query = "why is the sky blue and not some other colour " * 3
    with open_writer(str(path), columns=["id", "query"]) as writer:
        for start in range(0, n_rows, 4096):
            ids = range(start, min(start + 4096, n_rows))
            writer.write([{"id": f"q{i}", "query": query} | RESULT for i in ids])


@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt", "parquet"])
@pytest.mark.parametrize("n_rows", [1, 7, 1024, 5000])
def test_windows_are_full_but_for_the_last(tmp_path, kind, n_rows):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    write_log(tmp_path / f"log.{kind}", 2500)
    with open_log(str(tmp_path / f"log.{kind}")) as reader:
        sizes = [len(window) for window in reader.windows(n_rows)]
    assert sizes == [n_rows] * (2500 // n_rows) + [2500 % n_rows] * (2500 % n_rows > 0)


def test_windows_of_huge_rows_are_smaller(tmp_path):
    path = tmp_path / "log.jsonl"
    with open(path, "wb") as file:
        for _ in range(3):
            file.write(b'{"query": "' + b"x" * (40 << 20) + b'"}\n')
        file.write(b'{"query": "small"}\n' * 3)
    with open_log(str(path)) as reader:
        sizes = [len(window) for window in reader.windows(4096)]
    assert sizes == [2, 4]


@pytest.mark.parametrize(("kind", "n_rows"), [("jsonl", 200_000), ("jsonl.gz", 40_000), ("csv", 40_000)])
def test_memory_stays_flat_as_the_log_grows(tmp_path, kind, n_rows):
    write_log(tmp_path / f"in.{kind}", n_rows)
    tracemalloc.start()
    try:
        with (
            open_log(str(tmp_path / f"in.{kind}")) as reader,
            open_writer(str(tmp_path / f"out.{kind}"), columns=reader.columns) as writer,
        ):
            for window in reader.windows(4096):
                writer.write([row.fields | RESULT for row in window])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / f"out.{kind}").read_bytes() == (tmp_path / f"in.{kind}").read_bytes()
    assert peak < 12 << 20  # a window, a block and what is written; all rows would take 24 to 120 MiB


def test_memory_stays_flat_for_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    write_log(tmp_path / "in.parquet", 50_000)
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    held = 0
    tracemalloc.start()
    try:
        with open_log(str(tmp_path / "in.parquet")) as reader:
            for _ in reader.windows(4096):
                held = max(held, pool.bytes_allocated() - before)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(peak / 2**20, held / 2**20)
    assert peak < 12 << 20
    assert held < 12 << 20


def test_standard_input_is_json_lines_unless_told(monkeypatch, read_rows):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"query": "a"}\n')))
    assert [row.fields for row in read_rows("-")] == [{"query": "a"}]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"id,query\n1,a\n")))
    assert [row.fields for row in read_rows("-", format="csv")] == [{"id": "1", "query": "a"}]
    with pytest.raises(InputError, match=r"^cannot read Parquet from standard input, .*: name a file$"):
        open_log("-", format="parquet")


def test_a_missing_file_is_an_error_at_once(tmp_path):
    for kind in ("jsonl", "csv", "txt", "jsonl.gz"):
        with pytest.raises(InputError, match=r"^cannot read .*: No such file or directory$"):
            open_log(str(tmp_path / f"log.{kind}"))


def test_a_cut_off_log_is_an_error_after_the_rows_before(tmp_path):
    path = tmp_path / "log.jsonl.gz"
    write_log(path, 20_000)
    path.write_bytes(path.read_bytes()[:-20])
    windows = []
    with open_log(str(path)) as reader, pytest.raises(InputError, match=r"^cannot read .*: damaged \.gz data"):
        windows.extend(reader.windows(1000))
    assert len(windows) > 10


def test_json_lines_have_no_columns_in_advance(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b"")
    with open_log(str(tmp_path / "log.jsonl")) as reader:
        assert (reader.columns, reader.schema) == (None, None)
        assert list(reader.windows(10)) == []


@pytest.mark.parametrize("start", [open_log, open_writer])
def test_a_missing_package_is_named(tmp_path, monkeypatch, start):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "log.parquet").write_bytes(b"")
    with pytest.raises(MissingDependencyError) as caught:
        start(str(tmp_path / "log.parquet"))
    assert str(caught.value) == (
        "a Parquet file needs the package pyarrow, which is not installed: pip install 'gpu-select[parquet]'"
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.parquet"]


def test_several_files_are_one_log_and_faults_name_their_file(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"query": "a"}\n[]\n')
    (tmp_path / "b.csv").write_text("query,id\nb,1\nc\n")
    paths = [str(tmp_path / name) for name in ("a.jsonl", "b.csv")]
    with open_logs(paths, needed=[("query-field", "query")]) as log:
        rows = [row for window in log.windows(3) for row in window]
        assert (log.columns, log.schema, log.has_batches) == (None, None, False)
    assert [row.fields for row in rows] == [{"query": "a"}, {}, {"query": "b", "id": "1"}, {}]
    assert rows[1].error == f"{paths[0]}: line 2: expected a JSON object, got a list"
    assert rows[3].error == f"{paths[1]}: line 3: expected 2 columns, got 1"


def test_a_column_that_one_of_several_files_lacks(tmp_path):
    (tmp_path / "a.csv").write_text("query\na\n")
    (tmp_path / "b.csv").write_text("text\nb\n")
    paths = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    text = r"^query-field: expected one of the columns of .*b\.csv: text, got 'query'$"
    with open_logs(paths, needed=[("query-field", "query")]) as log, pytest.raises(ConfigError, match=text):
        list(log.windows(3))
    with pytest.raises(ConfigError, match=text):
        open_logs(paths[::-1], needed=[("query-field", "query")])


def test_batches_of_several_parquet_files(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    tables = pa.table({"n": range(3000)}), pa.table({"n": range(10)}), pa.table({"n": ["x", "y"]})
    paths = [str(tmp_path / f"{i}.parquet") for i in range(3)]
    for table, path in zip(tables, paths, strict=True):
        parquet.write_table(table, path, row_group_size=1000)
    with open_logs(paths) as log:
        batches = list(log.batches(2048))
    assert [batch.num_rows for batch in batches] == [2048, 962, 2]
    assert [n for batch in batches for n in batch.column(0).to_pylist()] == [*range(3000), *range(10), "x", "y"]
