"""What routing reads of a record batch, without an object a row."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_select.errors import ConfigError
from gpu_select.logs.parquet import import_pyarrow

__all__ = ["check_vectors", "labels_of", "text_column", "vectors_of"]


def check_vectors(schema: Any, name: str, dim: int) -> None:
    """Refuse a column that cannot hold vectors of `dim` numbers.

    Args:
        schema: of a Parquet file.
        name: one of its columns.

    Raises:
        ConfigError: it holds something else than lists of floating-point numbers, or lists of another fixed length.
    """
    pa = import_pyarrow()
    kind = schema.field(name).type
    fixed = pa.types.is_fixed_size_list(kind)
    is_list = fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (is_list and pa.types.is_floating(kind.value_type)) or (fixed and kind.list_size != dim):
        expected = f"a column with lists of {dim} floating-point numbers, which is what the selector takes"
        raise ConfigError("embedding-field", f"{name}: {kind}", expected)


def vectors_of(batch: Any, name: str, dim: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A column of number lists as one array.

    Args:
        batch: B rows.
        name: of a column that `check_vectors` has let through.
        dim: numbers of a list.

    Returns:
        The (B, dim) vectors, NaN where a number is missing or the whole list is none of `dim`; and (B,) the length of
        each list, -1 where there is none.
    """
    import pyarrow.compute as pc

    column = batch.column(name)
    length_B = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    fits_B = length_B == dim
    if not fits_B.all():
        column = column.filter(import_pyarrow().array(fits_B))
    numbers = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(-1, dim)
    if len(numbers) == len(fits_B):
        return numbers, length_B
    vectors_Bd = np.full((len(fits_B), dim), np.nan, np.float32)
    vectors_Bd[fits_B] = numbers
    return vectors_Bd, length_B


def labels_of(batch: Any, names: Sequence[str]) -> tuple[NDArray[np.int64], list[Any]]:
    """In each row the first of some columns' values that is there and not an empty text.

    Args:
        batch: B rows.
        names: columns; those that it does not have count as empty.

    Returns:
        (B,) places in the list of the different values, and this list: None comes first and stands for no value.
    """
    import pyarrow.compute as pc

    pa = import_pyarrow()
    code_B, labels = np.zeros(batch.num_rows, np.int64), [None]
    for name in names:
        if name not in batch.schema.names:
            continue
        column = batch.column(name)
        if not pa.types.is_dictionary(column.type):
            try:
                column = pc.dictionary_encode(column)
            except pa.ArrowNotImplementedError:  # nested values, which are no labels
                column = pa.DictionaryArray.from_arrays(pa.array(range(len(column)), pa.int64()), column)
        values = [_plain(value) for value in column.dictionary]
        code_V = np.array([0 if v is None or v == "" else len(labels) + i for i, v in enumerate(values)] + [0])
        labels += values
        place_B = pc.fill_null(column.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
        code_B = np.where(code_B == 0, code_V[place_B], code_B)
    return code_B, labels


def _plain(scalar: Any) -> Any:
    with contextlib.suppress(ValueError):
        return scalar.as_py()
    return scalar.as_buffer().to_pybytes()  # a text that is not UTF-8


def text_column(values: Sequence[str], place_B: NDArray[np.int64], valid_B: NDArray[np.bool_]) -> Any:
    """An Arrow column of texts out of a few: `values[place_B]`, null where not `valid_B`."""
    pa = import_pyarrow()
    return pa.array(values, pa.string()).take(pa.array(place_B, mask=~valid_B))
