"""What only a CUDA device can show; everything else runs on the CPU too."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import transformers

from gpu_select.artifacts import load_selector
from gpu_select.config import (
    AlgorithmConfig,
    DecisionConfig,
    DomainCondition,
    KeywordCondition,
    KeywordRule,
    ModelRef,
    RouterConfig,
)
from gpu_select.decision_router import DecisionRouter
from gpu_select.decision_router import Prepared as PreparedDecisions
from gpu_select.decisions import DecisionArtifacts
from gpu_select.domain_file import DomainFile
from gpu_select.domains import DOMAIN_NAMES, N_DOMAINS
from gpu_select.encoder import Encoder, TokenBatch, Tokenized, layouts, pack
from gpu_select.encoder.backbone import backbone_of
from gpu_select.encoder.layouts import RunsLayout, VarlenLayout, packed_layout
from gpu_select.encoder.settings import EncoderSettings
from gpu_select.encoder.transformers_backbone import padded
from gpu_select.router import Prepared, Router, Routes, route_features
from gpu_select.selectors import KMeansSelector, KNNSelector
from gpu_select.wire import (
    KMeansFile,
    KNNFile,
    LinearClassifier,
    LinearLayer,
    MLPFile,
    RBFClassifier,
    ReLULayer,
    SVMFile,
    write_selector_file,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

CUDA = torch.device("cuda", 0)
GOLDEN = Path(__file__).parents[2] / "shared" / "golden"


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden files beside the repository")
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json.gz")), ids=lambda path: path.name)
def test_cuda_decides_as_the_engine(path: Path) -> None:
    selector = load_selector(path, device="cuda").selector
    decisions = route_features(selector, np.load(GOLDEN / "queries.npy")).models
    assert decisions == Path(str(path).replace(".json.gz", ".decisions.txt")).read_text().split()


@pytest.mark.parametrize(("n_rows", "dim", "k"), [(63, 17, 5), (1000, 100, 33), (5003, 398, 100)])
def test_cuda_finds_the_rows_that_the_cpu_finds(n_rows: int, dim: int, k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n_rows, dim, generator=generator)
    rows[n_rows // 2 :] = rows[: n_rows - n_rows // 2].clone()
    queries = torch.randn(129, dim, generator=generator)
    labels = [f"m{i % 7}" for i in range(n_rows)]
    mask = torch.rand(129, 7, generator=generator) < 0.5
    mask[:, 0] = True
    cpu = KNNSelector(rows, labels, n_neighbors=k)
    cuda = KNNSelector(rows, labels, n_neighbors=k).cuda()
    assert torch.equal(cuda.neighbors(queries.cuda()).cpu(), cpu.neighbors(queries))
    assert torch.equal(cuda.neighbors(queries.cuda(), mask.cuda()).cpu(), cpu.neighbors(queries, mask))


def test_tf32_set_by_the_caller_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    selector = KMeansSelector(torch.randn(33, 1038, generator=generator), [f"m{i}" for i in range(33)]).cuda()
    queries = torch.randn(129, 1038, generator=generator).cuda()
    expected = selector(queries)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(selector(queries), expected)
    finally:
        torch.set_float32_matmul_precision("highest")


# ---------------------------------------------------------------- packed encoders

WIDE = {"num_hidden_layers": 4, "vocab_size": 500, "initializer_range": 0.02}
CONFIGS: dict[str, Any] = {
    "bert": transformers.BertConfig(**WIDE, hidden_size=192, num_attention_heads=6, intermediate_size=500),
    "qwen3": transformers.Qwen3Config(
        **WIDE, hidden_size=192, num_attention_heads=6, num_key_value_heads=2, head_dim=64, intermediate_size=520
    ),
    # no kernel for variable lengths takes these heads
    "qwen3 of odd heads": transformers.Qwen3Config(
        **WIDE, hidden_size=100, num_attention_heads=3, num_key_value_heads=1, head_dim=20, intermediate_size=300
    ),
}
LENGTHS = [300, 129, 64, 33, 33, 33, 17, 8, 8, 5, 2, 1, 1]
each_model = pytest.mark.parametrize("name", CONFIGS)
each_pooling = pytest.mark.parametrize("pooling", ["last", "mean", "cls"])


def encoder_of(name: str, pooling: Any, dtype: torch.dtype, device: torch.device = CUDA) -> Encoder:
    """The same random weights every time, none of them 0 or 1."""
    config = copy.deepcopy(CONFIGS[name])
    config.use_cache = False
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    tokenizer: Any = SimpleNamespace(settings=EncoderSettings(pooling=pooling, prefix="", max_length=512), pad_id=0)
    encoder = Encoder(backbone_of(model, pooling), tokenizer, name="x", fingerprint="x", dim=config.hidden_size)
    assert encoder.takes_packed
    return encoder.eval().requires_grad_(False).to(device, dtype)


def tokens_of(lengths: list[int], seed: int = 0) -> Tokenized:
    ids = np.random.default_rng(seed).integers(3, 500, sum(lengths)).astype(np.int32)
    return Tokenized(ids, np.cumsum([0, *lengths]), np.zeros(len(lengths), dtype=np.bool_))


def batch_of(tokens: Tokenized, rows: Any = None, device: torch.device = CUDA) -> TokenBatch:
    """Some texts, each with a domain."""
    rows = np.arange(len(tokens)) if rows is None else np.asarray(rows)
    return pack(tokens, rows, device, np.arange(len(tokens)) % N_DOMAINS)


@torch.inference_mode()
def vectors_of(encoder: Encoder, batch: TokenBatch) -> torch.Tensor:
    return encoder.encode(batch)


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.double().cpu() * other.double().cpu()).sum(dim=1).min())


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """An error for whatever makes the host wait for the device."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_what_waits_is_an_error() -> None:
    with pytest.raises(RuntimeError), no_waiting():
        torch.ones(1, device=CUDA).item()


@each_model
@each_pooling
def test_vectors_are_those_of_the_cpu(name: str, pooling: str) -> None:
    tokens = tokens_of(LENGTHS)
    cpu = torch.device("cpu")
    expected = vectors_of(encoder_of(name, pooling, torch.float32, cpu), batch_of(tokens, device=cpu))
    full = vectors_of(encoder_of(name, pooling, torch.float32), batch_of(tokens))
    assert full.dtype == torch.float32
    assert cosine(full, expected) >= 0.999999
    for dtype in (torch.bfloat16, torch.float16):
        half = vectors_of(encoder_of(name, pooling, dtype), batch_of(tokens))
        assert half.dtype == torch.float32
        assert cosine(half, full) >= 0.9999
        assert not half.equal(full)


@pytest.mark.parametrize("deterministic", [False, True])
@each_pooling
@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_attention_over_variable_lengths_is_that_over_runs(
    name: str, pooling: str, deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, batch = encoder_of(name, pooling, torch.bfloat16), batch_of(tokens_of(LENGTHS))
    if deterministic:
        encoder.make_deterministic()
    head_dim: Any = encoder.backbone.head_dim
    assert type(packed_layout(batch, torch.bfloat16, head_dim, deterministic=deterministic)) is VarlenLayout
    varlen = vectors_of(encoder, batch)
    monkeypatch.setattr(layouts, "_has_varlen", lambda device: False)
    assert type(packed_layout(batch, torch.bfloat16, head_dim, deterministic=deterministic)) is RunsLayout
    assert cosine(varlen, vectors_of(encoder, batch)) >= 0.9999


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "head_dim"), [((6, 6), 32), ((6, 2), 64), ((5, 1), 40), ((16, 8), 128)])
def test_attention_over_variable_lengths_against_float64(
    heads: tuple[int, int], head_dim: int, dtype: torch.dtype, causal: bool, deterministic: bool
) -> None:
    batch = batch_of(tokens_of(LENGTHS))
    generator = torch.Generator().manual_seed(0)
    sizes = heads[0], heads[1], heads[1]
    q, k, v = (torch.randn(sum(LENGTHS), n, head_dim, generator=generator).to(CUDA, dtype) for n in sizes)
    layout = VarlenLayout(batch, deterministic=deterministic)
    once = layout.pick(q, "last")
    found, found_once = layout.attend(q, k, v, causal=causal), layout.attend_once(once, k, v)
    assert (found.dtype, found.shape) == (dtype, q.shape)
    groups = heads[0] // heads[1]
    ends = np.cumsum(LENGTHS).tolist()
    for text, (length, end) in enumerate(zip(LENGTHS, ends, strict=True)):
        part = slice(end - length, end)
        q_Hd, k_Hd, v_Hd = (x[part].double().transpose(0, 1) for x in (q, k, v))
        k_Hd, v_Hd = (x.repeat_interleave(groups, dim=0) for x in (k_Hd, v_Hd))
        scores = q_Hd @ k_Hd.transpose(1, 2) / head_dim**0.5
        last = (scores[:, -1:].softmax(dim=2) @ v_Hd).transpose(0, 1)[0]
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        expected = (scores.softmax(dim=2) @ v_Hd).transpose(0, 1)
        torch.testing.assert_close(found[part].double(), expected, atol=2e-2, rtol=0)
        torch.testing.assert_close(found_once[text].double(), last, atol=2e-2, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("deterministic", [False, True])
@each_pooling
@each_model
def test_packing_and_encoding_never_wait_for_the_device(
    name: str, pooling: str, deterministic: bool, dtype: torch.dtype
) -> None:
    encoder, tokens = encoder_of(name, pooling, dtype), tokens_of(LENGTHS)
    if deterministic:
        encoder.make_deterministic()
    first = vectors_of(encoder, batch_of(tokens))  # kernels are compiled, and libraries set up
    with no_waiting(), torch.inference_mode():
        batch = batch_of(tokens)
        features = encoder.encode(batch, batch.tag_B.long(), n_domains=N_DOMAINS)
    assert features[:, : encoder.dim].equal(first)
    assert features[:, encoder.dim :].cpu().equal(torch.eye(N_DOMAINS)[torch.arange(len(tokens)) % N_DOMAINS])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@each_pooling
@each_model
def test_a_deterministic_encoder_gives_the_same_bits_in_any_batch(name: str, pooling: str, dtype: torch.dtype) -> None:
    encoder, tokens = encoder_of(name, pooling, dtype), tokens_of(LENGTHS * 3)
    encoder.make_deterministic()
    everything = np.arange(len(tokens))
    alone = torch.cat([vectors_of(encoder, batch_of(tokens, [i])) for i in everything])
    generator = np.random.default_rng(0)
    by_length = np.argsort(-tokens.lengths, kind="stable")
    for rows in (everything, by_length, by_length[5::3], generator.permutation(everything), everything[::-1].copy()):
        assert vectors_of(encoder, batch_of(tokens, rows)).equal(alone[torch.from_numpy(rows).to(alone.device)])


# ---------------------------------------------------------------- routing


def selector_of(algorithm: str, dim: int, folder: Path, device: torch.device = CUDA) -> Any:
    """Three models, from a file of each kind."""
    generator = np.random.default_rng(0)
    models = ["a", "b", "c"]
    vectors = generator.normal(size=(60, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.concatenate([vectors, np.eye(N_DOMAINS)[np.arange(60) % N_DOMAINS]], axis=1).astype(np.float32)
    documents: dict[str, Any] = {
        "knn": KNNFile(4, rows, [models[i % 3] for i in range(60)], generator.random(60), np.arange(1, 61) * 1000),
        "kmeans": KMeansFile(rows[:12], models * 4),
        "svm": SVMFile(
            models,
            "Rbf",
            1.0,
            [LinearClassifier("a", generator.normal(size=dim + N_DOMAINS), 0.0)],
            [RBFClassifier(name, generator.normal(size=20), rows[:20], 0.0, 1.0) for name in models],
        ),
        "mlp": MLPFile(
            models,
            [
                LinearLayer(generator.normal(size=(40, dim + N_DOMAINS)).astype(np.float32)),
                ReLULayer(),
                LinearLayer((generator.normal(size=(3, 40)) / 6).astype(np.float32), np.zeros(3)),
            ],
        ),
    }
    path = folder / f"{algorithm}_model.json"
    write_selector_file(path, documents[algorithm])
    return load_selector(path, device=device).selector


each_algorithm = pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])


@pytest.mark.parametrize("candidates", [None, ["a", "c"]])
@pytest.mark.parametrize("deterministic", [False, True])
@each_algorithm
def test_deciding_never_waits_for_the_device(
    algorithm: str, deterministic: bool, candidates: list[str] | None, tmp_path: Path
) -> None:
    encoder = encoder_of("qwen3", "last", torch.bfloat16)
    if deterministic:
        encoder.make_deterministic()
    router = Router(encoder, selector_of(algorithm, encoder.dim, tmp_path))
    mask = None if candidates is None else router.selector.candidate_mask(candidates)
    batch = batch_of(tokens_of(LENGTHS))
    ids, attention_mask = padded(batch, pad_id=0)
    with torch.inference_mode():
        for _ in range(2):  # the first compiles kernels
            packed = router.decide_batch(batch, mask)
            whole = router(ids, attention_mask, batch.tag_B.long(), mask)
        with no_waiting():
            packed = router.decide_batch(batch, mask)
            whole = router(ids, attention_mask, batch.tag_B.long(), mask)
    for choice in (packed, whole):
        assert torch.isfinite(choice.score).all()
        assert candidates is None or 1 not in choice.model.tolist()


def prepared_of(tokens: Tokenized) -> Prepared:
    everything = np.arange(len(tokens))
    return Prepared([str(i) for i in everything], everything % N_DOMAINS, everything, tokens)


@each_algorithm
def test_a_window_is_enqueued_without_waiting(algorithm: str, tmp_path: Path) -> None:
    encoder = encoder_of("qwen3", "last", torch.bfloat16)
    router = Router(encoder, selector_of(algorithm, encoder.dim, tmp_path))
    prepared = prepared_of(tokens_of(LENGTHS * 3))
    expected = router.decide(prepared, token_budget=500).routes()
    with no_waiting():
        pending = [router.decide(prepared, token_budget=500) for _ in range(2)]
    for one in pending:
        routes = one.routes()
        assert routes.models == expected.models
        np.testing.assert_array_equal(routes.scores, expected.scores)


def assert_near(found: Routes, expected: Routes) -> None:
    """The same decisions but where two models lie as near as bfloat16 rounds."""
    np.testing.assert_allclose(found.scores, expected.scores, atol=3e-2)
    clear = expected.margins > 6e-2
    assert clear.any()
    assert [m for m, c in zip(found.models, clear, strict=True) if c] == [
        m for m, c in zip(expected.models, clear, strict=True) if c
    ]


@each_pooling
@each_model
def test_small_batches_are_replayed_as_graphs(name: str, pooling: str, tmp_path: Path) -> None:
    encoder = encoder_of(name, pooling, torch.bfloat16)
    assert encoder.can_be_recorded == (name != "qwen3 of odd heads")
    router = Router(encoder, selector_of("kmeans", encoder.dim, tmp_path))
    windows = [
        prepared_of(tokens_of(lengths, seed)) for seed, lengths in enumerate(([9], [5, 3], [40, 7, 1], [30, 1, 1], [4]))
    ]
    expected = [router.decide(prepared).routes() for prepared in windows]
    router.use_cuda_graphs()
    for _ in range(2):  # recorded, then replayed
        pending = [router.decide(prepared) for prepared in windows]
        for one, wanted in zip(pending, expected, strict=True):
            assert_near(one.routes(), wanted)
    large = prepared_of(tokens_of([300] * 9))  # more than a graph takes
    assert len(router.decide(large).routes().models) == 9


# ---------------------------------------------------------------- decisions


def decision_router_of(encoder: Encoder, folder: Path, device: torch.device = CUDA) -> DecisionRouter:
    """A decision for each algorithm, one by keyword, and a domain head."""
    domains = {"law": "knn", "math": "kmeans", "health": "svm", "other": "mlp"}
    decisions = [
        DecisionConfig(
            *(name, name, DomainCondition(name), (ModelRef("c"), ModelRef("a"))),
            0,
            AlgorithmConfig(cast(Any, algorithm)),
        )
        for name, algorithm in domains.items()
    ]
    urgent = KeywordCondition(KeywordRule("urgent", "OR", ("urgent",)))
    decisions.append(DecisionConfig("urgent", "urgent", urgent, (ModelRef("b"),), 9))
    generator = np.random.default_rng(0)
    head = DomainFile(
        DOMAIN_NAMES, generator.normal(size=(14, encoder.dim)).astype(np.float32), np.zeros(14, np.float32)
    )
    artifacts = DecisionArtifacts(
        tuple(selector_of(algorithm, encoder.dim, folder, device) for algorithm in domains.values()),
        {name: s for s, name in enumerate(domains)},
        (),
        folder / "domain_model.safetensors",
        head,
    )
    return DecisionRouter(encoder, RouterConfig("config.yaml", tuple(decisions), default_model="z"), artifacts)


def decision_queries(tokens: Tokenized) -> PreparedDecisions:
    everything = np.arange(len(tokens))
    return PreparedDecisions(
        [str(i) for i in everything], everything % 16 - 1, (everything % 5 == 0)[:, None], everything, tokens
    )


@pytest.mark.parametrize("deterministic", [False, True])
def test_decisions_are_enqueued_without_waiting(deterministic: bool, tmp_path: Path) -> None:
    router = decision_router_of(encoder_of("qwen3", "last", torch.bfloat16), tmp_path)
    if deterministic:
        router.make_deterministic()
    prepared = decision_queries(tokens_of(LENGTHS * 3))
    router.decide_prepared(prepared, token_budget=500).routes()  # compiles kernels
    expected = router.decide_prepared(prepared, token_budget=500).routes()
    with no_waiting():
        pending = [router.decide_prepared(prepared, token_budget=500) for _ in range(2)]
    for one in pending:
        routes = one.routes()
        np.testing.assert_array_equal(routes.decision_N, expected.decision_N)
        np.testing.assert_array_equal(routes.model_NK[:, 0], expected.model_NK[:, 0])
        np.testing.assert_array_equal(routes.score_N, expected.score_N)


def test_cuda_decides_as_the_cpu(tmp_path: Path) -> None:
    found = []
    for device in (CUDA, torch.device("cpu")):
        router = decision_router_of(encoder_of("bert", "mean", torch.float32, device), tmp_path, device)
        found.append(router.decide_prepared(decision_queries(tokens_of(LENGTHS * 3))).routes())
    on_cuda, on_cpu = found
    np.testing.assert_array_equal(on_cuda.domain_N, on_cpu.domain_N)
    np.testing.assert_array_equal(on_cuda.decision_N, on_cpu.decision_N)
    np.testing.assert_allclose(on_cuda.score_N, on_cpu.score_N, atol=1e-3)
    clear = on_cpu.margin_N > 2e-3
    np.testing.assert_array_equal(on_cuda.model_NK[clear, 0], on_cpu.model_NK[clear, 0])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_router_may_be_on_another_device_than_the_current_one(tmp_path: Path) -> None:
    other = torch.device("cuda", 1)
    prepared = prepared_of(tokens_of(LENGTHS))
    routes = []
    for device in (torch.device("cuda", 0), other):
        encoder = encoder_of("qwen3", "last", torch.bfloat16, device)
        router = Router(encoder, selector_of("kmeans", encoder.dim, tmp_path, device))
        routes.append(router.decide(prepared).routes())
    assert_near(routes[1], routes[0])
