import io

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpu_select.lines import Lines, decode_line, read_lines

BOM = b"\xef\xbb\xbf"


def lines_of(data, max_line_bytes=1 << 20):
    return [line for lines in read_lines(io.BytesIO(data), max_line_bytes) for line in lines]


def expected_lines(data, max_line_bytes):
    lines = data.removeprefix(BOM).split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [line if len(line) <= max_line_bytes else None for line in lines]


@settings(deadline=None)
@given(
    data=st.lists(st.sampled_from([b"\n", b"\r", b"a", b"bc" * 3, b"\xff", b"x" * 9])).map(b"".join),
    bom=st.booleans(),
    max_line_bytes=st.integers(3, 12),
)
@example(data=b"", bom=True, max_line_bytes=3)
@example(data=b"\n", bom=True, max_line_bytes=3)
@example(data=b"abcd", bom=False, max_line_bytes=3)
@example(data=b"abcdef\nabc\nabcd\n\nab", bom=False, max_line_bytes=3)
def test_no_line_is_lost_whatever_the_blocks(data, bom, max_line_bytes):
    data = BOM * bom + data
    assert lines_of(data, max_line_bytes) == expected_lines(data, max_line_bytes)


@settings(deadline=None)
@given(
    data=st.lists(st.sampled_from([b"\n", b"\r", b"a", b"bc" * 3, b"x" * 9, BOM])).map(b"".join),
    max_line_bytes=st.integers(3, 12),
)
@example(data=BOM + b"a\n" + BOM + b"b", max_line_bytes=12)
def test_each_line_can_be_found_again_where_the_one_before_ends(data, max_line_bytes):
    lines = Lines(io.BytesIO(data), max_line_bytes)
    pairs = [pair for block in lines for pair in zip(block, lines.ends(block), strict=True)]
    start = 0
    for line, end in pairs:
        found = data[start:end].removesuffix(b"\n")
        found = found.removeprefix(BOM) if start == 0 else found
        assert line == (found if len(found) <= max_line_bytes else None)
        start = end
    assert start == len(data) or data == BOM
    for i, end in enumerate(end for _, end in pairs):
        rest = [line for block in Lines(io.BytesIO(data[end:]), max_line_bytes, offset=end) for line in block]
        assert rest == [line for line, _ in pairs[i + 1 :]]


def test_lines_longer_than_a_block_are_put_together():
    data = b"\n".join([b"a" * 700_000, b"", b"b" * 300_000, b"c"])
    assert lines_of(data) == data.split(b"\n")


def test_a_mark_in_the_middle_is_text():
    assert lines_of(b"a\n" + BOM + b"b") == [b"a", BOM + b"b"]


def test_faults_of_a_line():
    assert decode_line("grün".encode()) == ("grün", None)
    assert decode_line(b"") == ("", None)
    assert decode_line(None) == ("", "longer than 64 MiB")
    assert decode_line(b"gr\xfcn")[1] == "not UTF-8"
    assert decode_line("hi".encode("utf-16-le"))[1] == "a NUL byte, which no text has"
