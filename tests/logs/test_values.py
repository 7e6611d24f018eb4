import datetime
import decimal

import pytest

from gpu_select.logs.values import cell, plain_value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("", ""),
        ('say "hi"', 'say "hi"'),
        (True, "true"),
        (12, "12"),
        (2**70, str(2**70)),
        (0.5, "0.5"),
        (float("nan"), ""),
        ([1, None, "é"], '[1,null,"é"]'),
        ({"a": b"b"}, '{"a":"b"}'),
        ((1, decimal.Decimal("2.50")), '[1,"2.50"]'),
        (b"a\xffb", "a\\xffb"),
        (decimal.Decimal("1.20"), "1.20"),
    ],
)
def test_the_text_of_a_cell(value, text):
    assert cell(value) == text


def test_a_type_that_no_reader_gives_is_our_own_mistake():
    with pytest.raises(TypeError, match="a row holds a date"):
        plain_value(datetime.date(2020, 1, 1))


def test_scalars_of_parquet_columns():
    pa = pytest.importorskip("pyarrow")
    assert cell(pa.scalar(1, pa.timestamp("s", "Asia/Tokyo"))) == "1970-01-01T00:00:01Z"
    assert cell(pa.scalar(1500, pa.duration("ms"))) == "1500 ms"
    assert cell(pa.scalar(None, pa.date32())) == ""
    kind = pa.struct([("at", pa.date32()), ("data", pa.binary()), ("n", pa.float64())])
    assert cell(pa.scalar({"at": 1, "data": b"x", "n": 0.5}, kind)) == '{"at":"1970-01-02","data":"x","n":0.5}'
