"""domain_model.safetensors: what is written is read again, the same every time, and everything else is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from gpu_select.domain_file import DOMAIN_FILE, DomainFile, read_domain_file, write_domain_file
from gpu_select.errors import FileFormatError, GpuSelectError, InputError

WEIGHT = np.arange(15, dtype=np.float32).reshape(3, 5)
BIAS = np.array([0.5, -1, 2], np.float32)
ABOUT = {"domains": ["engineering", "law", "math"], "encoder": {"name": "e", "fingerprint": "f"}}


def contents(about=ABOUT, **arrays):
    note = about if about is None or isinstance(about, str) else json.dumps(about)
    return save({"weight": WEIGHT, "bias": BIAS} | arrays, None if note is None else {"gpu_select": note})


def test_what_is_written_is_read_and_has_the_same_bytes(tmp_path):
    own = {"encoder": {"name": "e", "fingerprint": "f"}, "data": {"queries": 7}}
    for name in ("a", "b"):
        write_domain_file(tmp_path / name / DOMAIN_FILE, DomainFile(("law", "math", "physics"), WEIGHT, BIAS, own))
    first, second = ((tmp_path / name / DOMAIN_FILE).read_bytes() for name in "ab")
    assert first == second
    document = read_domain_file(tmp_path / "a" / DOMAIN_FILE)
    assert document.domains == ("law", "math", "physics")
    assert document.own == own
    np.testing.assert_array_equal(document.weight_Cd, WEIGHT)
    np.testing.assert_array_equal(document.bias_C, BIAS)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "contents: expected a safetensors file, got "),
        (b"\xff" * 99, "contents: expected a safetensors file, got "),
        (contents()[:-1], "contents: expected a safetensors file, got "),
        (save({"weight": WEIGHT}), "tensors: expected weight and bias, got ['weight']"),
        (contents(more=BIAS), "tensors: expected weight and bias, got ['bias', 'more', 'weight']"),
        (contents(bias=BIAS.astype(np.float64)), "bias: expected dtype F32, got 'F64'"),
        (contents(weight=WEIGHT[0]), "weight: expected shape (C, d) for 2 to 14 domains, got (5,)"),
        (contents(weight=WEIGHT[:1], bias=BIAS[:1]), "weight: expected shape (C, d) for 2 to 14 domains, got (1, 5)"),
        (contents(weight=np.zeros((15, 5), np.float32)), "weight: expected shape (C, d) for 2 to 14 domains, got (15,"),
        (contents(weight=WEIGHT[:, :0]), "weight: expected shape (C, d) for 2 to 14 domains, got (3, 0)"),
        (contents(bias=BIAS[:2]), "bias: expected shape (3,), one a row of weight, got (2,)"),
        (contents(weight=WEIGHT * np.nan), "weight: expected finite numbers of at most 1e+12, got another one"),
        (contents(bias=BIAS + np.inf), "bias: expected finite numbers of at most 1e+12, got another one"),
        (contents(None), "metadata gpu_select: expected a JSON object, got nothing"),
        (contents("[1]"), "metadata gpu_select: expected a JSON object, got '[1]'"),
        (contents("{"), "metadata gpu_select: expected a JSON object, got '{'"),
        (contents({}), "gpu_select.domains: expected 3 different names of biology, "),
        (contents({"domains": ["law", "math"]}), "gpu_select.domains: expected 3 different names of biology, "),
        (contents({"domains": ["law", "math", "law"]}), "gpu_select.domains: expected 3 different names of biology, "),
        (contents({"domains": ["law", "math", "unknown"]}), "gpu_select.domains: expected 3 different names of biolog"),
        (contents({"domains": ["law", "math", ["law"]]}), "gpu_select.domains: expected 3 different names of biology"),
    ],
)
def test_what_is_no_domain_head_is_refused(tmp_path, data, text):
    path = tmp_path / DOMAIN_FILE
    path.write_bytes(data)
    with pytest.raises(FileFormatError) as caught:
        read_domain_file(path)
    assert str(caught.value).startswith(f"{path}: {text}")
    assert "\n" not in str(caught.value)


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / DOMAIN_FILE
    with open(path, "wb") as stream:
        stream.truncate(1 << 27)
    with pytest.raises(FileFormatError, match="size: expected at most 64 MiB, got 128 MiB"):
        read_domain_file(path)


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*absent: No such file or directory"):
        read_domain_file(tmp_path / "absent")
    with pytest.raises((InputError, FileFormatError), match=str(tmp_path)):
        read_domain_file(tmp_path)


@settings(max_examples=200)
@given(place=st.integers(0, 2**16), value=st.integers(0, 255))
def test_a_changed_byte_gives_a_head_or_a_one_line_error(tmp_path_factory, place, value):
    data = bytearray(contents())
    data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(data)
    text = ""
    try:
        document = read_domain_file(path)
        assert document.weight_Cd.shape == (3, 5)
        assert np.isfinite(document.weight_Cd).all()
    except GpuSelectError as error:
        text = str(error)
    assert "\n" not in text
