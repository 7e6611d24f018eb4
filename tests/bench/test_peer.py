"""The peer decides as we do: otherwise its speed would say nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from gpu_select.artifacts import selector_of
from gpu_select.encoder import load_encoder
from gpu_select.router import Router, route_features
from gpu_select.throughput import random_document
from gpu_select.wire import ALGORITHMS


@pytest.fixture(scope="module")
def encoder(models):
    return load_encoder(str(models / "random-tiny"))


@pytest.fixture(scope="module")
def documents(encoder):
    return {name: random_document(encoder, name, 90) for name in ALGORITHMS}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_scikit_learn_decides_as_our_selectors(script, documents, algorithm):
    rng = np.random.default_rng(0)
    features = np.hstack([rng.normal(size=(200, 64)), np.eye(14)[rng.integers(14, size=200)]]).astype(np.float32)
    features[:, :64] /= np.linalg.norm(features[:, :64], axis=1, keepdims=True)
    ours = route_features(selector_of(documents[algorithm]), features).models
    theirs = script("peer").decider(documents[algorithm])(features)
    assert np.mean([a == b for a, b in zip(ours, theirs, strict=True)]) > 0.98
    assert len(set(theirs)) > 2


def test_a_log_is_routed_to_the_same_models(script, models, encoder, documents, tmp_path):
    rows = [{"query": f"what is {i} plus {i}?", "domain": d} for i, d in enumerate(["math", "law", "engineering"] * 9)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    peer = script("peer").Peer(str(models / "random-tiny"), "cpu", torch.float32, documents)
    peer.tune(str(tmp_path / "log.jsonl"))
    assert peer.batch_size in peer.trials
    shared, own = peer.route(str(tmp_path / "log.jsonl"), {name: str(tmp_path / name) for name in documents})
    assert shared > 0
    assert set(own) == set(documents)
    for name, document in documents.items():
        out = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        assert [{k: row[k] for k in ("query", "domain")} for row in out] == rows
        ours = Router(encoder, selector_of(document)).route([r["query"] for r in rows], [r["domain"] for r in rows])
        assert np.mean([row["model"] == model for row, model in zip(out, ours.models, strict=True)]) > 0.9
