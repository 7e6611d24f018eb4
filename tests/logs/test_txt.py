import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.files import atomic_write
from gpu_select.logs import open_log

lines = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"))


@settings(deadline=None)
@given(queries=st.lists(lines), end=st.sampled_from(["\n", "\r\n"]), last=st.booleans())
def test_every_line_is_a_query(tmp_path_factory, read_rows, queries, end, last):
    path = tmp_path_factory.getbasetemp() / "log.txt"
    text = "".join(query + end for query in queries) + ("last" if last else "")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [row.fields for row in read_rows(path)] == [{"query": query} for query in [*queries, *["last"] * last]]


@settings(deadline=None)
@given(data=st.binary())
def test_any_bytes_give_a_row_a_line(tmp_path_factory, read_rows, data):
    path = tmp_path_factory.getbasetemp() / "bytes.txt"
    path.write_bytes(data)
    data = data.removeprefix(b"\xef\xbb\xbf")
    assert len(read_rows(path)) == data.count(b"\n") + (data != b"" and not data.endswith(b"\n"))


def test_broken_lines_keep_their_place(tmp_path, read_rows, packing):
    path = tmp_path / f"log.txt{packing}"
    with atomic_write(path) as stream:
        stream.write(b"one\n\n\xff\nth\0ree\nfour")
    rows = read_rows(path)
    assert [row.fields.get("query") for row in rows] == ["one", "", None, None, "four"]
    assert [row.error for row in rows if row.error] == ["line 3: not UTF-8", "line 4: a NUL byte, which no text has"]


def test_the_column_is_known_in_advance(tmp_path):
    (tmp_path / "log.txt").write_bytes(b"")
    with open_log(str(tmp_path / "log.txt")) as reader:
        assert reader.columns == ["query"]
        assert list(reader.windows(3)) == []


@pytest.mark.parametrize("name", ["a\nb", "a\r\nb", "a\u2028b"])
def test_a_model_a_line(tmp_path, write_rows, name):
    write_rows(
        tmp_path / "out.txt", [{"model": "é"}, {"model": None, "error": "broken"}, {"model": name}, {"model": "z"}]
    )
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == "é\n\na b\nz\n"
