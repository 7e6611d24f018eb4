from __future__ import annotations

import numpy as np
import pytest
import torch

from gpu_select.artifacts import selector_of
from gpu_select.training import mlp
from gpu_select.training.mlp import MLPSettings, fit_mlp, fit_networks
from gpu_select.wire import DropoutLayer, LinearLayer, ReLULayer, read_selector_file, write_selector_file

NAN = float("nan")
MODELS = ["a", "b", "c"]
SMALL = MLPSettings(hidden_sizes=(8,), members=3, epochs=3, batch_size=32)


def task(n: int, seed: int, dim: int = 17) -> tuple[torch.Tensor, np.ndarray]:
    """Features as the router builds them, and utilities that depend on them."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    taste = np.random.default_rng(1234).standard_normal((dim, 3))
    utility = 1 / (1 + np.exp(-3 * rows @ taste + 0.3 * rng.standard_normal((n, 3))))
    features = np.hstack([rows, np.eye(14)[rng.integers(14, size=n)]])
    return torch.from_numpy(features.astype(np.float32)), utility


def fit(features, models, utility, settings, *, seed: int):
    domain = features[:, -14:].argmax(dim=1).cpu().numpy()
    return fit_mlp(features, models, np.asarray(utility, dtype=float), domain, settings, seed=seed)


def choices(document, features) -> np.ndarray:
    return selector_of(document)(features).argmax(dim=1).numpy()


def numbers(document) -> list[np.ndarray]:
    linear = [layer for layer in document.layers if isinstance(layer, LinearLayer)]
    return [array for layer in linear for array in (layer.weight_OI, layer.bias_O)]


@pytest.mark.parametrize(
    "settings",
    [
        MLPSettings(),
        MLPSettings(hidden_sizes=(24, 16), members=4),
        MLPSettings(hidden_sizes=()),
        MLPSettings(members=1),
    ],
)
def test_the_choices_are_worth_more_than_any_single_model(settings):
    features, utility = task(600, 4)
    document = fit(features, MODELS, utility, settings, seed=0)
    queries, outcome = task(600, 5)
    chosen = choices(document, queries)
    assert outcome[np.arange(600), chosen].mean() > outcome.mean(axis=0).max() + 0.1


@pytest.mark.parametrize(("n_rows", "n_epochs"), [(60, 50), (2, 200), (700, 12)])
def test_few_queries_are_gone_through_more_often(monkeypatch, n_rows, n_epochs):
    values = []
    keep_best = mlp._Trainer.keep_best
    monkeypatch.setattr(mlp._Trainer, "keep_best", lambda self, v: (values.append(v), keep_best(self, v))[1])
    features, utility = task(n_rows, 4)
    fit(features, MODELS, utility, MLPSettings(hidden_sizes=(8,), members=1, epochs=10), seed=0)
    assert len(values) == n_epochs


def test_the_gain_counts_not_how_often_a_model_wins():
    """Model b is a little better on most queries of a kind, and much worse on the rest."""
    features, _ = task(600, 0)
    rng = np.random.default_rng(0)
    utility = np.where(rng.random(600)[:, None] < 0.8, [0.5, 0.55], [0.5, 0.0])
    assert (choices(fit(features, ["a", "b"], utility, MLPSettings(), seed=0), features) == 0).mean() > 0.95


def test_the_file_holds_the_members_side_by_side():
    features, utility = task(100, 0)
    settings = MLPSettings(hidden_sizes=(5, 4), members=3, epochs=2, dropout=0.3)
    document = fit(features, MODELS, utility, settings, seed=0)
    assert (document.feature_dim, document.hidden_sizes, document.dropout) == (31, [15, 12], 0.3)
    kinds = [type(layer) for layer in document.layers]
    assert kinds == [LinearLayer, ReLULayer, DropoutLayer, LinearLayer, ReLULayer, DropoutLayer, LinearLayer]
    first, second, third = (layer for layer in document.layers if isinstance(layer, LinearLayer))
    assert [layer.weight_OI.dtype for layer in (first, second, third)] == [np.float32] * 3
    members = np.zeros((12, 15), bool)
    for k in range(3):
        members[4 * k : 4 * k + 4, 5 * k : 5 * k + 5] = True
    assert (second.weight_OI[~members] == 0).all()
    assert (second.weight_OI[members] != 0).all()
    x = features.double().numpy()
    mean = np.zeros((100, 3))
    for k in range(3):
        of_first, of_second = slice(5 * k, 5 * k + 5), slice(4 * k, 4 * k + 4)
        h = np.maximum(x @ first.weight_OI[of_first].T + first.bias_O[of_first], 0)
        h = np.maximum(h @ second.weight_OI[of_second, of_first].T + second.bias_O[of_second], 0)
        mean += h @ third.weight_OI[:, of_second].T
    np.testing.assert_allclose(selector_of(document)(features), mean + third.bias_O, atol=1e-5)


def test_a_written_file_decides_the_same(tmp_path, engine):
    features, utility = task(200, 0)
    document = fit(features, MODELS, utility, MLPSettings(hidden_sizes=(16, 8)), seed=0)
    write_selector_file(tmp_path / "mlp_model.json", document)
    again = read_selector_file(tmp_path / "mlp_model.json")
    assert all(np.array_equal(one, other) for one, other in zip(numbers(document), numbers(again), strict=True))
    queries = task(200, 1)[0]
    expected = [MODELS[m] for m in choices(document, queries)]
    assert engine.decide(tmp_path / "mlp_model.json", queries.numpy()) == expected
    assert len(set(expected)) == 3


def test_the_seed_decides_and_no_global_state(tmp_path):
    features, utility = task(130, 0)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    for name, seed in (("first", 7), ("again", 7), ("other", 8)):
        write_selector_file(tmp_path / name, fit(features, MODELS, utility, SMALL, seed=seed))
        torch.rand(3)
    torch.set_rng_state(torch_state)
    fit(features, MODELS, utility, SMALL, seed=7)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()
    first, again, other = ((tmp_path / name).read_bytes() for name in ("first", "again", "other"))
    assert first == again != other


@pytest.mark.parametrize("n_rows", [1, 2, 3, 15, 16, 17, 31, 33, 64, 65, 257])
def test_any_number_of_queries(n_rows):
    """32 and 1 among them: one query is left for the last step."""
    features, utility = task(n_rows, 0)
    document = fit(features, MODELS, utility, SMALL, seed=0)
    assert all(np.isfinite(array).all() for array in numbers(document))
    assert len(choices(document, features)) == n_rows


def test_a_last_step_of_one_query_learns_too(monkeypatch):
    sizes = []
    step = mlp._Trainer.step

    def seen(self, x_BD, *others):
        sizes.append(len(x_BD))
        step(self, x_BD, *others)

    monkeypatch.setattr(mlp._Trainer, "step", seen)
    monkeypatch.setattr(mlp, "_LEAST_STEPS_IN_ALL", 50)
    features, utility = task(513, 0)
    fit(features, MODELS, utility, SMALL, seed=0)
    assert sizes == ([32] * 16 + [1]) * 3


def test_a_single_model():
    features, utility = task(40, 0)
    document = fit(features, ["only"], utility[:, :1], SMALL, seed=0)
    assert choices(document, features).tolist() == [0] * 40


@pytest.mark.parametrize("value", [0.0, 0.7, 1.0])
def test_where_nothing_sets_the_models_apart_they_tie(value):
    features, _ = task(40, 0)
    scores = selector_of(fit(features, MODELS, np.full((40, 3), value), SMALL, seed=0))(features)
    assert torch.equal(scores, torch.zeros(40, 3))


def test_equal_queries_of_other_outcomes():
    features = torch.ones(50, 20) / 20**0.5
    utility = np.tile([0.2, 0.6, 0.4], (50, 1))
    assert set(choices(fit(features, MODELS, utility, MLPSettings(), seed=0), features)) == {1}


def test_what_a_query_is_worth_to_all_models_is_of_no_matter():
    features, utility = task(200, 0)
    easy = np.random.default_rng(0).random((200, 1))
    plain = numbers(fit(features, MODELS, utility, SMALL, seed=0))
    for other in (utility + easy, 5 * utility):
        found = numbers(fit(features, MODELS, other, SMALL, seed=0))
        for one, two in zip(plain, found, strict=True):
            np.testing.assert_allclose(one, two, atol=2e-3)


def test_the_epoch_that_does_best_on_held_out_queries_is_kept(monkeypatch):
    features, utility = task(200, 0)
    seen = []

    def value(trainer, *others):
        seen.append([weight.detach().clone() for weight in trainer.weights])
        return torch.tensor([[0.1], [0.3], [0.3], [0.2]][len(seen) - 1])

    monkeypatch.setattr(mlp, "_value", value)
    monkeypatch.setattr(mlp, "_LEAST_STEPS_IN_ALL", 0)
    settings = MLPSettings(hidden_sizes=(8,), members=1, epochs=4)
    (network,) = fit_networks(features, utility[None], settings, seed=0, rows_PQ=torch.ones(1, 200, dtype=torch.bool))
    torch.testing.assert_close(network.layers[1][0], seen[1][1][0].T)
    assert not torch.equal(seen[1][1], seen[2][1])


def test_members_are_judged_by_queries_that_they_have_not_learned_from():
    """Outcomes by chance can be learned by heart, and are worth nothing on other queries."""
    features, _ = task(300, 0, dim=200)
    utility = np.random.default_rng(0).random((300, 3))
    values = []
    keep_best = mlp._Trainer.keep_best

    def seen(self, value_P):
        values.append(float(value_P))
        keep_best(self, torch.full_like(value_P, len(values)))  # so the last epoch is kept

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlp._Trainer, "keep_best", seen)
        settings = MLPSettings(epochs=40, dropout=0.0, learning_rate=1e-2, weight_decay=0.0)
        everything_PQ = torch.ones(1, 300, dtype=torch.bool)
        (network,) = fit_networks(features, utility[None], settings, seed=0, rows_PQ=everything_PQ)
    chosen = network.scores(features).argmax(dim=1).numpy()
    learned = utility[np.arange(300), chosen].mean() - utility.mean()
    assert learned > 0.2
    assert abs(np.mean(values) / 300) < 0.15  # in units of the gains' size


# ---------------------------------------------------------------- missing outcomes


def test_missing_outcomes_are_of_no_matter_where_enough_are_known():
    features, utility = task(800, 4)
    holes = np.random.default_rng(0).random(utility.shape) < 0.5
    holes[holes.all(axis=1), 0] = False
    document = fit(features, MODELS, np.where(holes, NAN, utility), MLPSettings(), seed=0)
    queries, outcome = task(600, 5)
    assert outcome[np.arange(600), choices(document, queries)].mean() > outcome.mean(axis=0).max() + 0.08


def test_a_model_that_answered_the_easy_queries_is_no_better_for_it():
    """Both are the same on every query; b was asked only where all do well."""
    features, _ = task(600, 0)
    easy = np.random.default_rng(0).random(600) < 0.5
    quality = np.where(easy, 0.9, 0.1) + np.array([[0.05], [0.0], [0.0]])[:, 0].reshape(3, 1)
    utility = quality.T.copy()
    utility[~easy, 1] = NAN
    shares = np.bincount(choices(fit(features, MODELS, utility, MLPSettings(), seed=0), features), minlength=3)
    assert shares[0] > 550


def test_a_rarely_scored_model_gets_neither_all_nor_nothing():
    """Three kinds of queries; the model is the best for one of them by far, and has ten outcomes of each."""
    own, others = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        kind = np.arange(900) % 3
        rows = rng.standard_normal((3, 17))[kind] + 0.7 * rng.standard_normal((900, 17))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        features = torch.from_numpy(np.hstack([rows, np.eye(14)[rng.integers(14, size=900)]])).float()
        utility = 0.5 + 0.1 * rng.standard_normal((900, 3))
        utility[:, 2] = rng.random(900) < np.where(kind == 0, 0.9, 0.2)
        utility[30:, 2] = NAN
        chosen = choices(fit(features, MODELS, utility, MLPSettings(members=4), seed=0), features) == 2
        own.append(chosen[kind == 0].mean())
        others.append(chosen[kind != 0].mean())
    assert np.mean(own) > 0.5
    assert max(others) < 0.5
    assert np.mean(others) < 0.2


def test_a_model_without_any_outcome():
    features, utility = task(200, 0)
    utility[:, 1] = NAN
    chosen = choices(fit(features, MODELS, utility, MLPSettings(), seed=0), features)
    assert (chosen == 1).mean() < 0.5


@pytest.mark.parametrize("n_known", [1, 3])
def test_a_few_lucky_outcomes_do_not_take_all(n_known):
    features, utility = task(900, 10)
    utility[:, 2] = NAN
    utility[:n_known, 2] = 1.0
    chosen = choices(fit(features, MODELS, utility, MLPSettings(), seed=0), features)
    assert (chosen == 2).mean() < 0.5


# ---------------------------------------------------------------- several at once


def test_committees_that_train_together_are_those_that_train_alone():
    features, utility = task(300, 0)
    rows_PQ = torch.arange(300) % 3 != torch.arange(3)[:, None]
    together = fit_networks(features, np.stack([utility] * 3), SMALL, seed=0, rows_PQ=rows_PQ)
    for network, rows_Q in zip(together, rows_PQ, strict=True):
        (alone,) = fit_networks(features, utility[None], SMALL, seed=0, rows_PQ=rows_Q[None])
        torch.testing.assert_close(network.scores(features), alone.scores(features), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(together[0].scores(features), together[1].scores(features), atol=1e-2)


def test_rows_that_are_left_out_tell_nothing():
    features, utility = task(300, 0)
    rows_PQ = (torch.arange(300) % 4 != 1)[None]
    (first,) = fit_networks(features, utility[None], SMALL, seed=0, rows_PQ=rows_PQ)
    spoilt = np.where(rows_PQ[0].numpy()[:, None], utility, 1000 - 3 * utility)
    (other,) = fit_networks(features, spoilt[None], SMALL, seed=0, rows_PQ=rows_PQ)
    for (weight, bias), (other_weight, other_bias) in zip(first.layers, other.layers, strict=True):
        assert torch.equal(weight, other_weight)
        assert torch.equal(bias, other_bias)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_it_learns_as_well_and_steps_wait_for_nothing(monkeypatch):
    features, utility = task(600, 4)
    step = mlp._Trainer.step
    n_steps = [0]

    def strict(self, *arguments):
        n_steps[0] += 1
        if n_steps[0] == 1:
            return step(self, *arguments)
        torch.cuda.set_sync_debug_mode("error")
        try:
            return step(self, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(mlp._Trainer, "step", strict)
    documents = [fit(features.cuda(), MODELS, utility, MLPSettings(), seed=0) for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(*map(numbers, documents), strict=True))
    queries, outcome = task(600, 5)
    chosen = choices(documents[0], queries)
    assert outcome[np.arange(600), chosen].mean() > outcome.mean(axis=0).max() + 0.1
