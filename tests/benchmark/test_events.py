from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.benchmark.events import EventData


def take_apart(*pieces: bytes) -> list[bytes]:
    stream = EventData()
    out = [event for piece in pieces for event in stream.feed(piece)]
    return out + stream.end()


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata:b\r\n\r\n", [b"a", b"b"]),
        (b"data:  a \n\n", [b" a "]),
        (b": OPENROUTER PROCESSING\n\ndata: a\n\n", [b"a"]),
        (b"event: message\nid: 7\nretry: 3\ndata: a\n\n", [b"a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\n\n\n\n\n", [b"a"]),
        (b"data: a", [b"a"]),
        (b"data: a\n", [b"a"]),
        (b"data\n\ndatax: b\n\n", []),
        (b"", []),
        ("data: Grüße\n\n".encode(), ["Grüße".encode()]),
    ],
)
def test_the_data_of_events(data, events):
    assert take_apart(data) == events


@given(
    st.lists(st.sampled_from([b"data: ab", b"data: {}", b"\n", b"\r\n", b": x", b"data:", b"id: 1", b"\xff"])),
    st.data(),
)
def test_pieces_may_end_anywhere(parts, draw):
    data = b"".join(parts)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert take_apart(*pieces) == take_apart(data)


def test_an_event_comes_out_as_soon_as_it_is_complete():
    stream = EventData()
    assert stream.feed(b"data: a\n") == []
    assert stream.feed(b"\nda") == [b"a"]
    assert stream.feed(b"ta: b\n\n") == [b"b"]
