"""The feature vector: the embedding as it is, then a one for the domain's slot."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpu_select.domains import N_DOMAINS
from gpu_select.features import build_features


@pytest.mark.parametrize("n", [0, 1, 14])
def test_the_embedding_then_the_one_hot_domain(n):
    embeddings = torch.nn.functional.normalize(torch.randn(n, 5), dim=1)
    features = build_features(embeddings, torch.arange(n) % N_DOMAINS)
    expected = np.concatenate([embeddings.numpy(), np.eye(14, dtype=np.float32)[:n]], axis=1)
    assert features.dtype == torch.float32
    np.testing.assert_array_equal(features.numpy(), expected)
    torch.testing.assert_close(features.norm(dim=1), torch.full((n,), 2.0**0.5))
