"""What is exported: tensors in, a dict of tensors out, with names and shapes that are written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from gpu_select.domains import N_DOMAINS
from gpu_select.encoder import Encoder
from gpu_select.router import Router, decide_features
from gpu_select.selectors import Choice, Selector

__all__ = ["MOST_QUERIES", "Input", "RouterProgram", "SelectorProgram", "outputs"]

MOST_QUERIES = 1 << 20
"""Of a batch; torch.export wants a bound."""

_EXAMPLE_QUERIES, _EXAMPLE_TOKENS = 64, 32
"""Any number from 2 on would do; oneDNN packs weights for about as many."""


@dataclass(frozen=True)
class Input:
    """A tensor that the program takes."""

    name: str
    shape: tuple[str | int, ...]
    """batch and length are free."""
    dtype: torch.dtype
    about: str


class SelectorProgram(nn.Module):
    """Features in, decisions out.

    Args:
        selector: on any device.
        takes_candidates: whether there is a second input, (B, M) bool, of models to choose from.
    """

    def __init__(self, selector: Selector, *, takes_candidates: bool) -> None:
        super().__init__()
        self.selector = selector
        self.takes_candidates = takes_candidates

    def forward(self, features: Tensor, candidates: Tensor | None = None) -> dict[str, Tensor]:
        """(B, D) float32 -> see `outputs`."""
        return _named(decide_features(self.selector, features, candidates))

    @property
    def inputs(self) -> list[Input]:
        """What `forward` takes."""
        D = self.selector.dim
        about = f"a unit embedding of {D - N_DOMAINS} numbers, then the one-hot of its domain"
        return [Input("features", ("batch", D), torch.float32, about), *_candidates(self)]

    @property
    def dims(self) -> dict[str, Any]:
        """torch.export's free sizes, by the name that `inputs` gives them."""
        return {"batch": Dim("batch", min=1, max=MOST_QUERIES)}

    def example(self, n_queries: int = _EXAMPLE_QUERIES, seed: int = 0) -> tuple[Tensor, ...]:
        """Made-up inputs."""
        generator = torch.Generator().manual_seed(seed)
        embeddings = torch.randn(n_queries, self.selector.dim - N_DOMAINS, generator=generator)
        embeddings = nn.functional.normalize(embeddings, dim=1)
        domain = torch.eye(N_DOMAINS)[torch.randint(N_DOMAINS, (n_queries,), generator=generator)]
        inputs = torch.cat([embeddings, domain], dim=1), *_example_candidates(self, n_queries, generator)
        return tuple(tensor.to(self.selector.device) for tensor in inputs)


class RouterProgram(nn.Module):
    """Tokens in, decisions out.

    Args:
        router: on any device.
        takes_candidates: as there.
    """

    def __init__(self, router: Router, *, takes_candidates: bool) -> None:
        super().__init__()
        self.router = router
        self.takes_candidates = takes_candidates

    @property
    def selector(self) -> Selector:
        """The router's."""
        return self.router.selector

    @property
    def encoder(self) -> Encoder:
        """The router's."""
        return self.router.encoder

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, domain: Tensor, candidates: Tensor | None = None
    ) -> dict[str, Tensor]:
        """(B, T) int64 tokens and mask, (B,) int64 domains -> see `outputs`."""
        return _named(self.router(input_ids, attention_mask, domain, candidates))

    @property
    def inputs(self) -> list[Input]:
        """What `forward` takes."""
        tokens = "batch", "length"
        return [
            Input("input_ids", tokens, torch.int64, "tokens, special ones included, padded on one side"),
            Input("attention_mask", tokens, torch.int64, "1 on tokens, 0 on padding; at least one token a query"),
            Input("domain", ("batch",), torch.int64, "index into domains"),
            *_candidates(self),
        ]

    @property
    def dims(self) -> dict[str, Any]:
        """As there."""
        return {
            "batch": Dim("batch", min=1, max=MOST_QUERIES),
            "length": Dim("length", min=1, max=self.encoder.settings.max_length),
        }

    def example(self, n_queries: int = _EXAMPLE_QUERIES, seed: int = 0) -> tuple[Tensor, ...]:
        """Made-up inputs, of lengths of their own."""
        generator = torch.Generator().manual_seed(seed)
        length = min(_EXAMPLE_TOKENS, self.encoder.settings.max_length)
        vocabulary = self.encoder.tokenizer.vocab_size
        ids = torch.randint(vocabulary, (n_queries, length), generator=generator)
        n_tokens = torch.randint(1, length + 1, (n_queries, 1), generator=generator)
        mask = (torch.arange(length) < n_tokens).long()
        domain = torch.randint(N_DOMAINS, (n_queries,), generator=generator)
        inputs = ids, mask, domain, *_example_candidates(self, n_queries, generator)
        return tuple(tensor.to(self.encoder.device) for tensor in inputs)


Program = SelectorProgram | RouterProgram


def outputs(models: int) -> list[dict[str, Any]]:
    """What comes out, as it stands in a package's metadata."""
    return [
        {"name": "model", "dtype": "int64", "shape": ["batch"], "about": f"index into the {models} models"},
        {"name": "score", "dtype": "float32", "shape": ["batch"], "about": "the chosen model's; NaN for bad numbers"},
        {"name": "margin", "dtype": "float32", "shape": ["batch"], "about": "how far the runner-up lies behind"},
    ]


def _named(choice: Choice) -> dict[str, Tensor]:
    # a plain dict: a named tuple would ask for its class where the program is loaded
    return {"model": choice.model, "score": choice.score, "margin": choice.margin}


def _candidates(program: Program) -> list[Input]:
    if not program.takes_candidates:
        return []
    shape = "batch", len(program.selector.models)
    return [Input("candidates", shape, torch.bool, "models that may be chosen, at least one a query")]


def _example_candidates(program: Program, n_queries: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    if not program.takes_candidates:
        return ()
    M = len(program.selector.models)
    mask = torch.rand(n_queries, M, generator=generator) < 0.5
    always = torch.randint(M, (n_queries, 1), generator=generator)
    return (mask.scatter(1, always, True),)
