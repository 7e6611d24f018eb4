"""Parts of a file hold together what the whole file holds, wherever it is cut."""

from __future__ import annotations

import gzip
import hashlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpu_select.errors import InputError
from gpu_select.logs import LogFile, Place, RowCounter

BOM = b"\xef\xbb\xbf"
PIECES = [b"\n", b"\r\n", b" ", b"\n\n", b"a", b'"', b",", b'{"query": "x"}', b'{"a": [1]}\n', b"\xff", BOM, b"\0"]


def whole(path, **options):
    with LogFile(str(path), **options) as file:
        return [row for rows, _ in file.chunks() for row in rows]


def places(path, n_rows, **options):
    """Where the parts of `n_rows` rows begin and end."""
    out = []
    with LogFile(str(path), **options) as file:
        counter = RowCounter(file)
        while True:
            start = counter.place
            n = counter.advance(n_rows)
            if n:
                out.append((start, counter.place, n))
            if n < n_rows:
                return out


def in_parts(path, parts, **options):
    with LogFile(str(path), **options) as file:
        return [[row for rows, _ in file.part(start, end) for row in rows] for start, end, _ in parts]


def write(path, data):
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@settings(max_examples=150)
@given(
    data=st.lists(st.sampled_from(PIECES)).map(b"".join),
    kind=st.sampled_from(["jsonl", "txt", "csv"]),
    packing=st.sampled_from(["", ".gz"]),
    n_rows=st.integers(1, 5),
    backwards=st.booleans(),
)
@example(data=BOM + b"{}\n" + BOM + b"{}\n{}", kind="jsonl", packing="", n_rows=1, backwards=False)
@example(data=b'"\n\n"\n\n\na\n"', kind="csv", packing="", n_rows=1, backwards=False)
def test_parts_hold_the_rows_of_the_file(tmp_path_factory, data, kind, packing, n_rows, backwards):
    path = tmp_path_factory.mktemp("logs") / f"log.{kind}{packing}"
    write(path, b"query\n" + data if kind == "csv" else data)
    parts = places(path, n_rows)
    order = parts[::-1] if backwards else parts
    found = in_parts(path, order)
    assert [len(rows) for rows in found] == [n for _, _, n in order]
    rows = [row for part in (found[::-1] if backwards else found) for row in part]
    assert rows == whole(path)
    assert all(n == n_rows for _, _, n in parts[:-1])


def test_lines_and_rows_of_many_blocks(tmp_path, packing):
    if packing == ".zst":
        data = pytest.importorskip("zstandard").ZstdCompressor().compress(b"".join(lines(30_000)))
        (tmp_path / "log.jsonl.zst").write_bytes(data)
    else:
        write(tmp_path / f"log.jsonl{packing}", b"".join(lines(30_000)))
    path = tmp_path / f"log.jsonl{packing}"
    parts = places(path, 7001)
    found = in_parts(path, parts)
    assert [len(rows) for rows in found] == [7001] * 4 + [30_000 - 4 * 7001]
    assert [row.fields["i"] for rows in found for row in rows] == list(range(30_000))
    assert in_parts(path, parts[3:]) == found[3:]
    assert in_parts(path, [parts[4], parts[1]]) == [found[4], found[1]]


def lines(n):
    return [b'{"i": %d, "query": "%s"}\n' % (i, b"x" * (i % 50)) for i in range(n)]


def test_a_counter_goes_on_from_a_place_of_another(tmp_path):
    path = write(tmp_path / "log.jsonl", b"\n".join([*lines(10), b"", *lines(10)]))
    parts = places(path, 3)
    with LogFile(str(path)) as file:
        counter = RowCounter(file)
        counter.go_to(parts[3][1])
        assert counter.advance(3) == 3
        assert counter.place == parts[4][1]
        counter.go_to(parts[0][0])
        assert (counter.advance(100), counter.advance(1)) == (20, 0)


def test_a_fault_names_its_line_in_the_file(tmp_path):
    path = write(tmp_path / "log.jsonl", b'{"query": "a"}\n\nnot JSON\n{"query": "b"}\n[]\n')
    found = in_parts(path, places(path, 2))
    assert found[0][1].error.startswith("line 3: not JSON")
    assert found[1][1].error == "line 5: expected a JSON object, got a list"


def test_the_digest_is_that_of_the_parts_own_bytes(tmp_path):
    path = write(tmp_path / "log.jsonl", b"".join(lines(10)))
    start, end, _ = places(path, 4)[1]
    digest = hashlib.sha256()
    with LogFile(str(path)) as file:
        list(file.part(start, end, digest))
    assert digest.digest() == hashlib.sha256(b"".join(lines(10)[4:8])).digest()


def test_a_file_that_has_become_shorter(tmp_path):
    path = write(tmp_path / "log.jsonl", b"".join(lines(10)))
    parts = places(path, 4)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"^cannot read .*log.jsonl: it has become shorter since its rows were count"):
        in_parts(path, parts)


# ---------------------------------------------------------------- Parquet


@pytest.fixture
def parquet_log(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pa.table({"i": range(10_000), "query": [f"query {i % 7}" for i in range(10_000)]})
    table = table.set_column(1, "query", table["query"].dictionary_encode())
    parquet.write_table(table, tmp_path / "log.parquet", row_group_size=3000)
    return tmp_path / "log.parquet"


@pytest.mark.parametrize("n_rows", [700, 3000, 4500, 20_000])
def test_parts_of_parquet(parquet_log, n_rows):
    parts = places(parquet_log, n_rows)
    assert [n for _, _, n in parts[:-1]] == [n_rows] * (len(parts) - 1)
    found = in_parts(parquet_log, parts)
    assert [row for rows in found for row in rows] == whole(parquet_log)
    assert in_parts(parquet_log, parts[::-1]) == found[::-1]
    assert in_parts(parquet_log, parts[1::2]) == found[1::2]


def test_what_a_batch_of_parquet_holds_hangs_on_the_part_alone(parquet_log):
    def batches(file, start, end):
        digest = hashlib.sha256()
        out = list(file.part_batches(Place(start, start), Place(end, end), digest))
        return [batch.to_pylist() for batch in out], digest.hexdigest()

    with LogFile(str(parquet_log)) as file:
        expected = batches(file, 2500, 6100)
    assert [len(rows) for rows in expected[0]] == [1024, 1024, 1024, 528]
    for before in ([(0, 2500)], [(0, 100), (700, 800)], [(9000, 10_000)], [(2500, 6100)], [(2500, 2501)]):
        with LogFile(str(parquet_log)) as file:
            for part in before:
                batches(file, *part)
            assert batches(file, 2500, 6100) == expected


def test_a_row_of_parquet_that_is_no_text_names_its_row_in_the_file(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = pa.array([b"good"] * 7 + [b"\xff"] + [b"good"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"query": texts}), tmp_path / "log.parquet")
    found = in_parts(tmp_path / "log.parquet", places(tmp_path / "log.parquet", 5))
    assert found[1][2].error.startswith("row 8: column 'query': ")


def test_a_bad_row_group_leaves_the_others_readable(parquet_log):
    from pyarrow import parquet

    column = parquet.ParquetFile(parquet_log).metadata.row_group(1).column(0)
    data = bytearray(parquet_log.read_bytes())
    data[column.data_page_offset : column.data_page_offset + 400] = b"\xff" * 400
    parquet_log.write_bytes(data)
    parts = places(parquet_log, 3000)
    assert len(in_parts(parquet_log, [parts[0], parts[2]])[1]) == 3000
    with pytest.raises(InputError, match=r"^cannot read .*log\.parquet: \S"):
        in_parts(parquet_log, [parts[1]])
