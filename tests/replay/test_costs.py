"""Costs by tokens and prices, by the records' own costs, and what is missing where neither tells."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpu_select.records import OutcomeTable
from gpu_select.replay.costs import Costs
from gpu_select.replay.expected import Expected

NAN = float("nan")


def table_of(**columns) -> OutcomeTable:
    return OutcomeTable(
        ["one two", "three"], ["law", "law"], ["a", "b"], np.ones((2, 2)), np.full((2, 2), NAN),
        **{name: np.array(value, dtype=float) for name, value in columns.items()},
    )  # fmt: skip


def words(texts) -> np.ndarray:
    return np.array([len(text.split()) for text in texts])


def expected_of(output_tokens=NAN, cost_usd=NAN, n: int = 2) -> Expected:
    def full(value):
        return torch.full((n, 2), value) if isinstance(value, float) else torch.tensor(value).expand(n, 2)

    return Expected(full(0.5), full(NAN), full(output_tokens), full(cost_usd), 0)


def usd(costs: Costs, expected: Expected, logged=(NAN, NAN), counted=(0, 0)) -> list:
    return costs.usd(expected, np.array(logged), np.array(counted)).tolist()


def test_tokens_times_prices():
    costs = Costs.of(table_of(output_tokens_QM=[[10, 20], [10, 20]]), {"a": (1.0, 2.0), "b": (10.0, 0.0)}, words)
    assert costs.unknown == {}
    assert costs.pay_for_input
    found = usd(costs, expected_of([100.0, 50.0]), logged=[1000, NAN], counted=[7, 30])
    assert found[0] == pytest.approx([(1000 + 200) / 1e6, 10_000 / 1e6])
    assert found[1] == pytest.approx([(30 + 200) / 1e6, 300 / 1e6])


def test_counted_tokens_are_scaled_to_what_the_records_say_of_each_model():
    table = table_of(output_tokens_QM=[[1, 1], [1, 1]], input_tokens_QM=[[20, 3], [10, NAN]])
    costs = Costs.of(table, {"a": (1.0, 0.0), "b": (1.0, 0.0)}, words)
    np.testing.assert_allclose(costs.ratio_M, [10.0, 1.5])
    assert usd(costs, expected_of(), counted=[4, 4])[0] == pytest.approx([40 / 1e6, 6 / 1e6])
    assert usd(costs, expected_of(), logged=[4, 4])[0] == pytest.approx([4 / 1e6, 4 / 1e6])


def test_records_that_name_costs_need_no_prices():
    costs = Costs.of(table_of(cost_usd_QM=[[0.1, NAN], [0.2, NAN]]), {}, words)
    assert costs.unknown == {"b": "it has no prices"}
    assert not costs.pay_for_input
    found = usd(costs, expected_of(cost_usd=[0.15, NAN]))
    assert found[0][0] == pytest.approx(0.15)
    assert np.isnan(found[0][1])


def test_a_model_that_costs_nothing_needs_no_tokens():
    costs = Costs.of(table_of(), {"a": (0.0, 0.0), "b": (0.0, 1.0)}, words)
    assert costs.unknown == {"b": "the records have no output_tokens of it"}
    found = usd(costs, expected_of())
    assert found[0][0] == 0
    assert np.isnan(found[0][1])


def test_half_a_price_is_none():
    costs = Costs.of(table_of(output_tokens_QM=[[1, 1], [1, 1]]), {"a": (1.0, None)}, words)
    assert costs.unknown == {"a": "it has no prices", "b": "it has no prices"}
