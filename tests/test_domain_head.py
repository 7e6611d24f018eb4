"""The domain head: the logits of its file, and the same ones in any batch where asked for."""

from __future__ import annotations

import numpy as np
import torch

from gpu_select.domain_file import DomainFile
from gpu_select.domain_head import DomainHead
from gpu_select.domains import DOMAIN_NAMES, KNOWN_DOMAINS


def test_logits_and_the_most_probable_domain():
    rng = np.random.default_rng(0)
    weight_Cd, bias_C = rng.normal(size=(3, 7)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    head = DomainHead(DomainFile(("engineering", "law", "math"), weight_Cd, bias_C))
    x_Bd = torch.randn(50, 7)
    expected_BC = x_Bd.double().numpy() @ weight_Cd.T.astype(np.float64) + bias_C
    torch.testing.assert_close(head(x_Bd), torch.from_numpy(expected_BC).float())
    names = [KNOWN_DOMAINS[i] for i in head.predict(x_Bd).tolist()]
    assert names == [head.domains[c] for c in expected_BC.argmax(axis=1)]
    assert (head.dim, {*names}) == (7, {"engineering", "law", "math"})


def test_a_deterministic_head_gives_the_same_bits_in_any_batch():
    rng = np.random.default_rng(0)
    weight_Cd = rng.normal(size=(14, 384)).astype(np.float32)
    head = DomainHead(DomainFile(DOMAIN_NAMES, weight_Cd, np.zeros(14, np.float32)))
    head.deterministic = True
    x_Bd = torch.randn(600, 384)
    together = head(x_Bd)
    for rows in (slice(0, 1), slice(7, 9), slice(255, 258), slice(300, 600)):
        assert head(x_Bd[rows]).equal(together[rows])
