"""Texts to models: the whole path equals its parts, whatever the order, repetition and way through."""

from __future__ import annotations

import copy
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_select.domains import DOMAIN_NAMES, domain_index
from gpu_select.encoder import EmbeddingCache, Encoder, embed, load_encoder, pack
from gpu_select.encoder.transformers_backbone import padded
from gpu_select.errors import (
    CandidateError,
    ConfigError,
    DataError,
    DeviceError,
    DimensionError,
    EncoderError,
    EncoderMismatchError,
    FileFormatError,
    InputError,
)
from gpu_select.features import build_features
from gpu_select.router import Router, Routes, route_features
from gpu_select.selectors import KMeansSelector
from gpu_select.stages import StageTimes
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

CPU = torch.device("cpu")
DIM = 32
MODELS = ["a", "b", "c"]
ALGORITHMS = ["knn", "kmeans", "svm", "mlp"]
TEXTS = [
    "what is the number of the city",
    "explain the law of energy and force in a court",
    "solve",
    "list the disease of the mind",
    "why is the market in a country of war and money and what is the answer to the question " * 3,
    "Write a function!",
    "year 1234567890",
    "how many cells and how much energy",
]

each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def features_of(rng, n):
    embeddings = rng.normal(size=(n, DIM))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.concatenate([embeddings, np.eye(14)[rng.integers(0, 14, n)]], axis=1).astype(np.float32)


def documents(own):
    """A file of each kind, for an encoder of width 32."""
    rng = np.random.default_rng(0)
    labels = [MODELS[i] for i in rng.integers(0, 3, 60)]
    vectors = features_of(rng, 20) / 2**0.5
    return {
        "knn": KNNFile(4, features_of(rng, 60), labels, rng.random(60), rng.integers(1, 10**10, 60), own=own),
        "kmeans": KMeansFile(features_of(rng, 12), MODELS * 4, own=own),
        "svm": SVMFile(
            MODELS,
            "Rbf",
            1.0,
            [LinearClassifier("a", rng.normal(size=DIM + 14) / 3, 0.0)],
            [RBFClassifier(name, rng.normal(size=20), vectors, 0.0, 1.0) for name in MODELS],
            own=own,
        ),
        "mlp": MLPFile(
            MODELS,
            [
                LinearLayer(rng.normal(size=(20, DIM + 14)).astype(np.float32)),
                ReLULayer(),
                LinearLayer((rng.normal(size=(3, 20)) / 5).astype(np.float32), rng.normal(size=3) / 20),
            ],
            own=own,
        ),
    }


@pytest.fixture(scope="module")
def encoder(tiny_encoder_path):
    return load_encoder(str(tiny_encoder_path))


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory, encoder, tiny_encoder_path):
    folder = tmp_path_factory.mktemp("models")
    own = {"encoder": {"name": str(tiny_encoder_path), "fingerprint": encoder.fingerprint}}
    for name, document in documents(own).items():
        write_selector_file(folder / f"{name}_model.json", document)
    return folder


@pytest.fixture(scope="module")
def routers(models_dir, encoder):
    return {name: Router.from_pretrained(models_dir, encoder=encoder, algorithm=name) for name in ALGORITHMS}


@pytest.fixture(params=ALGORITHMS)
def router(request, routers):
    return routers[request.param]


@pytest.fixture(scope="module")
def queries():
    rng = np.random.default_rng(1)
    texts = [f"{TEXTS[i % len(TEXTS)]} {i}" for i in range(60)]
    return texts, [DOMAIN_NAMES[i] for i in rng.integers(0, 14, 60)]


def same(routes: Routes, other: Routes, rows=slice(None)):
    """Equal decisions, and scores but for the rounding of another batch."""
    np.testing.assert_allclose(routes.scores, other.scores[rows], atol=2e-5)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(routes.margins, other.margins[rows], atol=4e-5)
    return routes.models == list(np.array(other.models)[rows])


# ---------------------------------------------------------------- loading


def test_the_default_algorithm_is_the_first_there_is(models_dir, encoder, tmp_path):
    assert Router.from_pretrained(models_dir, encoder=encoder).selector.algorithm == "knn"
    for name in ("mlp", "svm", "kmeans"):
        (tmp_path / f"{name}_model.json").write_bytes((models_dir / f"{name}_model.json").read_bytes())
        assert Router.from_pretrained(tmp_path, encoder=encoder).selector.algorithm == name
    assert Router.from_pretrained(models_dir / "svm_model.json", encoder=encoder).selector.algorithm == "svm"


def test_the_default_encoder_is_the_one_the_file_names(models_dir, encoder, queries):
    router = Router.from_pretrained(models_dir, device="cpu")
    assert router.encoder.fingerprint == encoder.fingerprint
    assert set(router.models) == set(MODELS)
    assert router.route(*queries).models == Router.from_pretrained(models_dir, encoder=encoder).route(*queries).models


def test_another_encoder_is_an_error_that_names_both(models_dir, encoder, tiny_encoder_path, write_tiny_bert, tmp_path):
    other = load_encoder(str(write_tiny_bert(tmp_path / "other-bert", pooling="cls")))
    assert other.fingerprint != encoder.fingerprint
    with pytest.raises(EncoderMismatchError) as caught:
        Router.from_pretrained(models_dir, encoder=other)
    assert str(caught.value) == (
        f"{models_dir / 'knn_model.json'}: trained with encoder {str(tiny_encoder_path)!r} (fingerprint "
        f"{encoder.fingerprint[:12]}), got 'other-bert' (fingerprint {other.fingerprint[:12]}); "
        "route with the first, or train again with the second"
    )


def test_vectors_of_another_length(encoder):
    selector = KMeansSelector(torch.zeros(1, 1038), ["a"])
    with pytest.raises(DimensionError) as caught:
        Router(encoder, selector)
    assert str(caught.value) == (
        "embedding dimension mismatch: file has D = 1038 (1024 + 14), encoder gives 46 (32 + 14)"
    )


def test_the_golden_files_with_the_real_encoder(shared_dir, minilm_path):
    with pytest.raises(DimensionError) as caught:
        Router.from_pretrained(shared_dir / "golden" / "kmeans_8.json.gz", encoder=str(minilm_path), device="cpu")
    assert str(caught.value) == (
        "embedding dimension mismatch: file has D = 1038 (1024 + 14), encoder gives 398 (384 + 14)"
    )


def test_what_is_not_there(tmp_path, models_dir, encoder):
    with pytest.raises(InputError, match=r"pretrained model not found: .* holds none of knn_model\.json"):
        Router.from_pretrained(tmp_path, encoder=encoder)
    for name in ("absent", "x" * 5000):
        with pytest.raises(InputError, match="pretrained model not found"):
            Router.from_pretrained(tmp_path / name, encoder=encoder)
    with pytest.raises(FileFormatError, match="algorithm: expected 'svm', got 'knn'"):
        Router.from_pretrained(models_dir / "knn_model.json", encoder=encoder, algorithm="svm")


# ---------------------------------------------------------------- routing


def test_the_whole_path_equals_its_parts(router, queries, engine, models_dir):
    texts, domains = queries
    routes = router.route(texts, domains)
    vectors = embed(router.encoder, texts).vectors
    features = build_features(vectors, torch.tensor([domain_index(name) for name in domains]))
    assert same(route_features(router.selector, features.numpy()), routes)
    assert len(set(routes.models)) == 3
    path = models_dir / f"{router.selector.algorithm}_model.json"
    assert routes.models == engine.decide(path, features.numpy())
    assert routes.scores.dtype == routes.margins.dtype == np.float32
    assert np.isfinite(routes.scores).all()
    assert np.isfinite(routes.margins).all()
    assert (routes.margins >= 0).all()


def test_one_by_one_decides_like_a_batch(router, queries):
    texts, domains = queries
    together = router.route(texts, domains)
    alone = [router.route([text], [domain]) for text, domain in zip(texts, domains, strict=True)]
    joined = Routes(
        [routes.models[0] for routes in alone],
        np.concatenate([routes.scores for routes in alone]),
        np.concatenate([routes.margins for routes in alone]),
    )
    assert same(joined, together)


@pytest.mark.parametrize("token_budget", [1, 40, 10**6])
def test_the_token_budget_decides_nothing(router, queries, token_budget):
    assert same(router.route(*queries, token_budget=token_budget), router.route(*queries))


def test_order_decides_nothing(router, queries):
    texts, domains = queries
    order = np.random.default_rng(2).permutation(len(texts))
    shuffled = router.route([texts[i] for i in order], [domains[i] for i in order])
    assert same(shuffled, router.route(texts, domains), order)


def test_equal_queries_are_decided_once(router, queries, monkeypatch):
    texts, domains = queries
    rows = []
    decide = router.decide_batch
    monkeypatch.setattr(
        router, "decide_batch", lambda batch, *rest: rows.append(len(batch.lengths)) or decide(batch, *rest)
    )
    once = router.route(texts[:5], domains[:5])
    assert sum(rows) == 5
    thrice = router.route(texts[:5] * 3, domains[:5] * 3)
    assert sum(rows) == 10
    assert thrice.models == once.models * 3
    assert thrice.scores.tolist() == once.scores.tolist() * 3
    assert thrice.n_tokens == once.n_tokens > 0


def test_one_text_of_two_domains_is_two_queries(routers):
    routes = routers["kmeans"].route(["solve"] * 14, DOMAIN_NAMES)
    assert len(set(routes.scores.tolist())) > 5
    assert len(set(routes.models)) > 1


def test_a_query_without_domain_is_other(router):
    expected = router.route(TEXTS, ["other"] * len(TEXTS))
    for domains in (None, [None] * len(TEXTS), ["engineering"] * len(TEXTS)):
        routes = router.route(TEXTS, domains)
        assert routes.models == expected.models
        assert routes.scores.tolist() == expected.scores.tolist()
    others = [router.route(TEXTS, [name] * len(TEXTS)).scores.tolist() for name in ("math", "law", "unknown")]
    assert others != [expected.scores.tolist()] * 3


def test_no_queries(router):
    for domains in (None, []):
        routes = router.route([], domains)
        assert (routes.models, len(routes.scores), len(routes.margins)) == ([], 0, 0)


def test_candidates(router, queries):
    free = router.route(*queries)
    for names in (["b"], ["c", "a"]):
        routes = router.route(*queries, candidates=names)
        assert set(routes.models) == set(names)
        assert np.isinf(routes.margins).all() == (len(names) == 1)
    assert same(router.route(*queries, candidates=MODELS), free)


def test_the_cache_decides_nothing(router, queries, tmp_path):
    texts, domains = queries
    direct = router.route(texts, domains, candidates=["a", "c"])
    cache = EmbeddingCache(tmp_path, router.encoder.fingerprint, "float32", router.encoder.dim)
    with cache:
        fresh = router.route(texts, domains, candidates=["a", "c"], cache=cache)
        again = router.route(texts, domains, candidates=["a", "c"], cache=cache)
    assert same(fresh, direct)
    assert same(again, direct)
    assert (fresh.n_tokens, fresh.n_cached) == (direct.n_tokens, 0)
    assert (again.n_tokens, again.n_cached) == (0, len(texts))


def test_truncated_texts_are_counted(routers):
    routes = routers["svm"].route([*TEXTS, TEXTS[4]])
    assert routes.n_truncated == 1
    assert routes.n_tokens <= 32 * len(TEXTS)


def test_progress_counts_distinct_queries(router):
    done = []
    router.route(TEXTS * 2, progress=done.append)
    assert sum(done) == len(TEXTS)


def test_less_memory_decides_nothing(router, queries, monkeypatch, caplog):
    expected = router.route(*queries)
    decide = router.decide_batch

    def small(batch, *rest):
        if len(batch.lengths) > 7:
            raise torch.OutOfMemoryError("out of memory")
        return decide(batch, *rest)

    monkeypatch.setattr(router, "decide_batch", small)
    with caplog.at_level(logging.WARNING, "gpu_select"):
        assert same(router.route(*queries), expected)
    assert "out of memory; going on with batches of" in caplog.text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite(router, monkeypatch, value):
    encode = router.encoder.encode

    def broken(*arguments, **options):
        features_BD = encode(*arguments, **options)
        features_BD[0, 3] = value
        return features_BD

    monkeypatch.setattr(router.encoder, "encode", broken)
    with pytest.raises(
        EncoderError, match=r"encoder tiny-bert: vectors are not finite in torch\.float32; use float32 or"
    ):
        router.route(TEXTS)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((["x", ""],), {}, DataError, "texts[1]: expected a text that is not empty, got ''"),
        (([" \n "],), {}, DataError, "texts[0]: expected a text that is not empty, got ' \\n '"),
        ((["x", None],), {}, DataError, "texts[1]: expected a text that is not empty, got None"),
        (([3],), {}, DataError, "texts[0]: expected a text that is not empty, got 3"),
        (("solve",), {}, DataError, "texts: expected a list of queries, got one text 'solve'"),
        ((["x", "y"], ["law"]), {}, DataError, "domains: expected 2 names, one a text, got ['law']"),
        ((["x"], "law"), {}, DataError, "domains: expected 1 names, one a text, got 'law'"),
        (
            (["x"], ["cooking"]),
            {},
            ConfigError,
            "domain: expected one of biology, business, chemistry, computer science",
        ),
        ((["x"],), {"candidates": []}, CandidateError, "candidates: expected at least one of "),
        ((["x"],), {"candidates": ["a", "gpt-9"]}, CandidateError, "candidates: expected names out of "),
        ((["x"],), {"token_budget": -1}, ConfigError, "token_budget: expected a whole number of at least 1, got -1"),
    ],
)
def test_what_cannot_be_routed(router, arguments, options, error, text):
    with pytest.raises(error) as caught:
        router.route(*arguments, **options)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- ready features


def test_ready_features_of_any_layout(routers):
    selector = routers["svm"].selector
    features = features_of(np.random.default_rng(3), 50)
    expected = route_features(selector, features)
    read_only = features.astype(np.float64)
    read_only.flags.writeable = False
    for other in (read_only, np.asfortranarray(features), np.repeat(features, 2, axis=0)[::2], features.astype(">f4")):
        assert same(route_features(selector, other), expected)
    assert route_features(selector, features[:0]).models == []


def test_ready_features_in_blocks(routers, monkeypatch):
    monkeypatch.setattr("gpu_select.router.SELECT_ROWS", 7)
    for router in routers.values():
        features = features_of(np.random.default_rng(4), 30)
        in_blocks = route_features(router.selector, features, candidates=["a", "b"])
        assert in_blocks.models == [
            route_features(router.selector, f[None], candidates=["a", "b"]).models[0] for f in features
        ]


@pytest.mark.parametrize("shape", [(3, 45), (3, 47), (46,), (2, 3, 46)])
def test_ready_features_of_another_width(routers, shape):
    with pytest.raises(DimensionError, match=r"features: expected shape \(B, 46\) for this kmeans file, got "):
        route_features(routers["kmeans"].selector, np.zeros(shape, np.float32))


# ---------------------------------------------------------------- one forward


class CountsOperations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


STALLS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "lift_fresh", "unique_dim"}
"""What makes the host wait on a device: reading a number, sizes that depend on numbers, a copy from the host."""


def batch_of(router, texts):
    """All texts packed, each with its number as its domain."""
    return pack(router.encoder.tokenizer.tokenize(texts), np.arange(len(texts)), CPU, np.arange(len(texts)))


@each_algorithm
def test_one_forward_never_looks_at_its_numbers(routers, monkeypatch, algorithm):
    router = routers[algorithm]
    batch = batch_of(router, TEXTS)
    inputs = *padded(batch, pad_id=0), torch.arange(len(TEXTS))
    candidates = router.selector.candidate_mask(["a", "b"])
    if algorithm == "knn":  # on a CPU the row search takes shortcuts; on a device, and when compiled, it does not
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with torch.inference_mode(), CountsOperations() as operations:
        router(*inputs)
        router(*inputs, candidates)
        router.decide_batch(batch)
        router.decide_batch(batch, candidates)
    assert operations.names.count("argmax") >= 4
    assert [name for name in operations.names if name in STALLS] == []


@each_algorithm
def test_one_forward_gives_what_route_gives(routers, algorithm):
    router = routers[algorithm]
    ids, mask = padded(batch_of(router, TEXTS), pad_id=0)
    with torch.inference_mode():
        choice = router(ids, mask, torch.full((len(TEXTS),), domain_index("other")))
    assert choice.model.dtype == torch.int64
    joined = Routes([router.models[m] for m in choice.model.tolist()], choice.score.numpy(), choice.margin.numpy())
    assert same(joined, router.route(TEXTS))


@each_algorithm
def test_a_packed_batch_gives_what_one_forward_gives(routers, algorithm):
    router = routers[algorithm]
    batch = batch_of(router, TEXTS)
    ids, mask = padded(batch, pad_id=0)
    for candidates in (None, ["b", "c"]):
        allowed = None if candidates is None else router.selector.candidate_mask(candidates)
        with torch.inference_mode():
            packed, one = router.decide_batch(batch, allowed), router(ids, mask, torch.arange(len(TEXTS)), allowed)
        assert packed.model.equal(one.model)
        torch.testing.assert_close(packed.score, one.score, atol=2e-5, rtol=0)
        torch.testing.assert_close(packed.margin, one.margin, atol=4e-5, rtol=0)


# ---------------------------------------------------------------- in three steps


def test_prepare_decide_and_wait_in_threads_give_what_route_gives(router, queries):
    texts, domains = queries
    windows = [slice(start, start + 25) for start in range(0, len(texts), 25)]
    times = StageTimes()
    with ThreadPoolExecutor(1) as host:
        prepared = list(host.map(lambda rows: router.prepare(texts[rows], domains[rows]), windows))
        pending = [router.decide(one, candidates=["a", "c"], times=times) for one in prepared]
        done = list(host.map(lambda one: one.routes(), reversed(pending)))[::-1]
    for rows, routes in zip(windows, done, strict=True):
        assert same(routes, router.route(texts[rows], domains[rows], candidates=["a", "c"]))
        assert routes.n_tokens == len(router.encoder.tokenizer.tokenize(texts[rows]).ids)
    seconds = times.seconds()
    assert all(seconds[stage] > 0 for stage in ("transfer", "encode", "select"))
    assert seconds["read"] == seconds["write"] == 0


def test_prepared_queries_are_distinct(routers):
    prepared = routers["kmeans"].prepare(["x", "y", "x", "x"], ["law", "law", "law", "math"])
    assert prepared.queries == ["x", "y", "x"]
    assert prepared.distinct_of.tolist() == [0, 1, 0, 2]
    assert prepared.slot_N.tolist() == [domain_index(name) for name in ("law", "law", "math")]
    assert len(prepared.tokenized) == 3
    assert routers["kmeans"].prepare(["x"], tokenize=False).tokenized is None


def test_routes_can_be_asked_for_again(router):
    pending = router.decide(router.prepare(TEXTS))
    assert same(pending.routes(), pending.routes())


def test_without_times_nothing_is_timed(routers, monkeypatch):
    """Events of a clock would break the recording of a CUDA graph."""

    def timed(*_):
        raise AssertionError("timed")

    router = routers["kmeans"]
    batch = batch_of(router, TEXTS)
    monkeypatch.setattr(StageTimes, "on_device", timed)
    with pytest.raises(AssertionError, match="timed"):
        router.decide_batch(batch, None, StageTimes())
    assert len(router.decide_batch(batch).model) == len(TEXTS)


def test_cuda_graphs_need_cuda(router):
    with pytest.raises(DeviceError, match="use_cuda_graphs: expected a router on a CUDA device, got one on cpu"):
        router.use_cuda_graphs()


def test_a_router_is_a_module(routers):
    router = routers["knn"]
    assert router.eval() is router
    assert not any(parameter.requires_grad for parameter in router.parameters())
    assert dict(router.named_children()).keys() == {"encoder", "selector"}


@each_algorithm
def test_every_number_is_in_the_state(routers, algorithm):
    router = copy.deepcopy(routers[algorithm])
    router.route(TEXTS)  # which packs weights, and makes indexes
    state = router.state_dict()
    assert state.keys() == {name for name, _ in (*router.named_parameters(), *router.named_buffers())}
    for name, module in router.named_modules():
        kept = {key for key, value in vars(module).items() if isinstance(value, torch.Tensor)}
        assert kept <= set(getattr(module, "derived", ())), name


@each_algorithm
def test_the_state_makes_one_router_of_another(routers, algorithm, queries):
    router, other = routers[algorithm], copy.deepcopy(routers[algorithm])
    expected = router.route(*queries)
    for tensor in other.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(0.5)
    other.load_state_dict(copy.deepcopy(other.state_dict()))  # what was written in place is seen
    assert other.route(*queries).scores.tolist() != expected.scores.tolist()
    keys = other.load_state_dict(router.state_dict(), strict=True)
    assert keys.missing_keys == keys.unexpected_keys == []
    assert same(other.route(*queries), expected)


@each_algorithm
def test_a_copy_is_a_router_of_its_own(routers, algorithm, queries):
    router = routers[algorithm]
    expected = router.route(*queries)
    other = copy.deepcopy(router)
    assert same(other.route(*queries), expected)
    for tensor in other.state_dict().values():
        tensor.zero_()
    assert same(router.route(*queries), expected)


def test_a_router_is_moved_as_a_whole(routers, queries):
    router = copy.deepcopy(routers["svm"]).to(CPU, torch.bfloat16)
    assert router.encoder.dtype == torch.bfloat16
    assert {buffer.dtype for buffer in router.selector.buffers()} == {torch.float32, torch.int64}
    assert np.isfinite(router.route(*queries).scores).all()
    assert router.to("meta").encoder.device.type == "meta"


def test_graphs_belong_to_a_device_and_to_one_router(routers, monkeypatch):
    made = []
    monkeypatch.setattr(
        "gpu_select.router.GraphCache", lambda decide, **limits: made.append((decide, limits)) or limits
    )
    monkeypatch.setattr(Encoder, "device", torch.device("cuda"))
    monkeypatch.setattr(Encoder, "can_be_recorded", True)
    router = copy.deepcopy(routers["kmeans"])
    assert router._recorded() is None
    router.use_cuda_graphs(max_tokens=100, max_texts=7)
    first = router._recorded()
    assert first == {"max_tokens": 100, "max_texts": 7}
    assert router._recorded() is first
    other = copy.deepcopy(router)
    other._recorded()
    router.float()
    router._recorded()
    assert [decide.__self__ is one for (decide, _), one in zip(made, (router, other, router), strict=True)] == [
        True
    ] * 3
    monkeypatch.setattr(Encoder, "device", CPU)
    assert other.to(CPU)._recorded() is None
