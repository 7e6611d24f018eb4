"""Decisions in one forward pass: a batch of any mixture decides as its queries one by one, and as plain routers do."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_select.config import (
    AlgorithmConfig,
    DecisionConfig,
    DomainCondition,
    Junction,
    KeywordCondition,
    KeywordRule,
    ModelRef,
    RouterConfig,
)
from gpu_select.decision_router import Decided, DecisionRouter, Query
from gpu_select.domains import DOMAIN_NAMES, KNOWN_DOMAINS
from gpu_select.encoder import EmbeddingCache, load_encoder, pack
from gpu_select.encoder.transformers_backbone import padded
from gpu_select.errors import (
    ConfigError,
    DataError,
    DecisionError,
    DimensionError,
    EncoderError,
    EncoderMismatchError,
    InputError,
)
from gpu_select.router import Router
from gpu_select.stages import StageTimes

CPU = torch.device("cpu")
URGENT = KeywordRule("urgent", "OR", ("urgent", "asap"))
SHELL = KeywordRule("shell", "AND", ("write", "function"))
MODELS = tuple("abcd")


def decision(name, rules, models, algorithm=None, priority=0, **parameters):
    chosen = None if algorithm is None else AlgorithmConfig(algorithm, **parameters)
    refs = tuple(ModelRef(model) for model in models)
    return DecisionConfig(name, f"decisions.{name}", rules, refs, priority, chosen)


def domains(*names):
    return Junction("OR", tuple(map(DomainCondition, names)))


DECISIONS = (
    decision("science", domains("physics", "chemistry", "biology"), "abc", "knn", 10),
    decision("wide", domains("math"), "dab", "knn", 10, k=60),
    decision("urgent", Junction("AND", (KeywordCondition(URGENT), Junction("NOT", (domains("law"),)))), "ca", None, 90),
    decision("people", domains("law", "psychology", "history"), "bd", "svm", 10, kernel="rbf", gamma=1.0),
    decision("code", Junction("OR", (domains("computer science"), KeywordCondition(SHELL))), "abcd", "mlp", 20),
    decision("rest", domains("other", "engineering"), "acd", "kmeans", num_clusters=16),
    decision("never", domains("other"), "a", "mlp", -5),
)


@pytest.fixture(scope="module")
def encoder(tiny_encoder_path):
    return load_encoder(str(tiny_encoder_path))


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory, encoder, tiny_encoder_path, write_tiny_models):
    own = {"encoder": {"name": str(tiny_encoder_path), "fingerprint": encoder.fingerprint}}
    return write_tiny_models(tmp_path_factory.mktemp("models"), own, models=MODELS)


@pytest.fixture(scope="module")
def config(models_dir):
    return RouterConfig("config.yaml", DECISIONS, models_path=str(models_dir))


@pytest.fixture(scope="module")
def router(config, encoder):
    return DecisionRouter.from_config(config, encoder=encoder)


@pytest.fixture(scope="module")
def plain(models_dir, encoder):
    """A router for each selector, k = 60 apart."""
    routers = {
        name: Router.from_pretrained(models_dir, encoder=encoder, algorithm=name)
        for name in ["knn", "kmeans", "svm", "mlp"]
    }
    wide = Router.from_pretrained(models_dir, encoder=encoder, algorithm="knn")
    wide.selector = wide.selector.with_neighbors(60)
    return {**routers, "wide": wide}


TEXTS = [
    "what is the number of the city",
    "explain the law of energy and force in a court",
    "solve this asap",
    "URGENT: list the disease of the mind",
    "why is the market in a country of war and money and what is the answer to the question " * 3,
    "Write a function!",
    "year 1234567890",
    "how many cells and how much energy, urgent write a function",
]
QUERIES = st.builds(
    Query,
    st.sampled_from(TEXTS) | st.text("aeiou tsrn", min_size=1).filter(str.strip),
    st.none() | st.sampled_from(KNOWN_DOMAINS),
)


def expected_decision(text, domain):
    """The rules of DECISIONS, written once more in another way."""
    words = text.lower().replace(":", " ").replace("!", " ").replace(",", " ").split()
    if {"urgent", "asap"} & {*words} and domain != "law":
        return "urgent"
    if domain == "computer science" or {"write", "function"} <= {*words}:
        return "code"
    by_domain = {"math": "wide", "other": "rest", "engineering": "rest"}
    by_domain |= dict.fromkeys(("physics", "chemistry", "biology"), "science")
    by_domain |= dict.fromkeys(("law", "psychology", "history"), "people")
    return by_domain.get(domain)


# ---------------------------------------------------------------- deciding


def test_every_query_goes_to_its_decision_and_is_decided_as_by_a_router_of_its_own(router, plain):
    queries = [Query(f"{text} {i}", domain) for i, text in enumerate(TEXTS) for domain in (*KNOWN_DOMAINS, None)]
    by_name = {one.name: one for one in DECISIONS}
    seen = set()
    for query, decided in zip(queries, router.decide(queries), strict=True):
        domain = decided.domain if isinstance(decided, Decided) else query.domain
        name = expected_decision(query.text, domain)
        seen.add(name)
        if name is None:
            assert isinstance(decided, DecisionError)
            continue
        assert (decided.decision, decided.domain_given) == (name, query.domain is not None)
        assert query.domain in (None, decided.domain)
        chosen = by_name[name]
        assert sorted(decided.ranking) == sorted(chosen.models)
        assert decided.model == decided.ranking[0]
        assert decided.n_tokens == len(router.encoder.tokenizer.tokenize([query.text]).ids)
        if chosen.algorithm is None:
            assert (decided.ranking, decided.score, decided.margin) == (chosen.models, 0.0, 1.0)
            continue
        alone = plain["wide" if name == "wide" else chosen.algorithm.type]
        routes = alone.route([query.text], [decided.domain], candidates=chosen.models)
        assert decided.model == routes.models[0]
        assert decided.score == pytest.approx(routes.scores[0], abs=2e-5)
        assert decided.margin == pytest.approx(routes.margins[0], abs=4e-5)
    assert seen == {"science", "wide", "urgent", "people", "code", "rest", None}


@settings(max_examples=60)
@given(queries=st.lists(QUERIES, max_size=12), seed=st.integers(0, 99))
def test_a_batch_decides_as_one_by_one(exact_router, queries, seed):
    together = exact_router.decide(queries)
    assert len(together) == len(queries)
    alone = [one for query in queries for one in exact_router.decide([query])]
    assert list(map(comparable, together)) == list(map(comparable, alone))
    order = np.random.default_rng(seed).permutation(len(queries))
    shuffled = exact_router.decide([queries[i] for i in order])
    assert [comparable(together[i]) for i in order] == list(map(comparable, shuffled))


def comparable(one):
    return one if isinstance(one, Decided) else str(one)


@pytest.fixture(scope="module")
def exact_router(config, tiny_encoder_path):
    return DecisionRouter.from_config(replace(config, encoder=str(tiny_encoder_path)), deterministic=True)


def test_the_ranking_is_the_order_of_scores(router, plain):
    """Taking the winner out of the candidates gives the next one."""
    queries = [Query(f"{text} {i}", "psychology") for i, text in enumerate(TEXTS[:2])]
    for query, decided in zip(queries, router.decide(queries), strict=True):
        routes = plain["svm"].route([query.text], [query.domain], candidates=decided.ranking[1:])
        assert routes.models == [decided.ranking[1]]


def test_without_a_match_the_default_takes_it(config, encoder):
    query = Query("how much", "economics")
    to_model = DecisionRouter.from_config(replace(config, default_model="z"), encoder=encoder)
    (decided,) = to_model.decide([query])
    assert (decided.decision, decided.ranking, decided.score, decided.margin) == ("default", ("z",), 0.0, math.inf)
    assert sorted(to_model.models) == ["a", "b", "c", "d", "z"]
    to_decision = DecisionRouter.from_config(replace(config, default_decision="people"), encoder=encoder)
    (decided,) = to_decision.decide([query])
    assert decided.decision == "people"
    assert sorted(decided.ranking) == ["b", "d"]


def test_without_a_match_and_a_default_it_is_an_error_of_that_query(router):
    good, bad = router.decide([Query("how much", "law"), Query("how much", "economics")])
    assert isinstance(good, Decided)
    assert str(bad) == (
        "decision: no decision's rules hold for this query of domain 'economics', and there is no default"
    )


def test_bad_queries_are_errors_of_their_own(router):
    empty, other, good, none = router.decide(
        [Query(" "), Query("x", "magic"), Query("x", "law"), Query(None)]  # type: ignore[arg-type]
    )
    assert isinstance(empty, DataError)
    assert str(empty) == "query: expected a text that is not empty, got ' '"
    assert isinstance(other, ConfigError)
    assert str(other).startswith("domain: expected one of biology, business")
    assert isinstance(good, Decided)
    assert str(none) == "query: expected a text that is not empty, got None"
    assert router.decide([]) == []


def test_domains_are_predicted_by_the_head(router, encoder):
    texts = [f"{text} {i}" for i, text in enumerate(TEXTS * 5)]
    head = router.domain_head
    with torch.no_grad():
        vectors = encoder.encode(pack(encoder.tokenizer.tokenize(texts), np.arange(len(texts)), CPU))
        names = [DOMAIN_NAMES[i] for i in (vectors @ head.weight_Cd.T).argmax(dim=1).tolist()]
    routes = router.decide_prepared(router.prepare(texts)).routes()
    assert [KNOWN_DOMAINS[i] for i in routes.domain_N] == names
    assert len({*names}) >= 3
    assert not routes.given_N.any()


def test_without_a_head_rules_need_domains(config, encoder, models_dir, tmp_path):
    for path in models_dir.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = replace(config, models_path=str(tmp_path))
    headless = DecisionRouter.from_config(config, encoder=encoder)
    given, missing = headless.decide([Query("x", "law"), Query("x")])
    assert isinstance(given, Decided)
    text = f"as rules ask for it, got none, and there is no {tmp_path}/domain_model.safetensors to predict it by"
    assert text in str(missing)
    with pytest.raises(ConfigError, match=r"config\.yaml: domain: expected one of .* \(gpu-select train writes it\)"):
        DecisionRouter.from_config(config, encoder=encoder, needs_domains=True)
    # rules that do not ask: the query counts as `other`, as without decisions
    catch_all = decision("all", Junction("AND", ()), "abcd", "knn")
    anyway = DecisionRouter.from_config(replace(config, decisions=(catch_all,)), encoder=encoder, needs_domains=True)
    (decided,) = anyway.decide([Query("what is it")])
    assert (decided.domain, decided.domain_given) == ("other", False)
    assert decided.model == Router.from_pretrained(tmp_path, encoder=encoder).route(["what is it"]).models[0]


def test_files_are_loaded_once_and_rows_are_shared(router):
    algorithms = [part.selector.algorithm for part in router.ranking.parts]
    assert sorted(algorithms) == ["kmeans", "knn", "knn", "mlp", "svm"]
    first, second = (part.selector for part in router.ranking.parts if part.selector.algorithm == "knn")
    assert (first.n_neighbors, second.n_neighbors) == (4, 60)
    assert first.index is second.index


# ---------------------------------------------------------------- loading


def test_parameters_and_models_that_disagree_with_the_files_are_named_at_once(config, encoder, models_dir):
    decisions = (
        decision("a", domains("law"), "ab", "kmeans", num_clusters=8),
        decision("b", domains("law"), "axb", "svm", kernel="linear", gamma=0.5),
        decision("c", domains("law"), "y", "knn", k=9),
    )
    with pytest.raises(ConfigError) as caught:
        DecisionRouter.from_config(replace(config, decisions=decisions), encoder=encoder)
    trained, cure = "with which {}/{}_model.json was trained, got {}", "leave it out, or train again"
    can = "expected a model that {}/{}_model.json knows ({}), got {!r}"
    assert str(caught.value).split("; ") == [
        "config.yaml: decisions.a.algorithm.kmeans.num_clusters: expected 16, "
        f"{trained.format(models_dir, 'kmeans', 8)}: {cure}",
        f"decisions.b.algorithm.svm.kernel: expected rbf, {trained.format(models_dir, 'svm', 'linear')}: {cure}",
        f"decisions.b.algorithm.svm.gamma: expected 1.0, {trained.format(models_dir, 'svm', 0.5)}: {cure}",
        f"decisions.b.modelRefs[1].model: {can.format(models_dir, 'svm', 'a, b, c, d', 'x')}",
        f"decisions.c.modelRefs[0].model: {can.format(models_dir, 'knn', 'a, b, c, d', 'y')}",
    ]


def test_what_training_knew_may_be_named(config, encoder, write_tiny_models, tmp_path):
    own = {"data": {"models": ["a", "b", "never"]}, "options": {"kmeans": {"clusters": 40}}}
    folder = str(write_tiny_models(tmp_path, own, models="ab"))
    some = decision("some", domains("law"), ("never", "a"), "kmeans", num_clusters=40)
    router = DecisionRouter.from_config(replace(config, decisions=(some,), models_path=folder), encoder=encoder)
    (decided,) = router.decide([Query("x", "law")])
    assert (decided.ranking, decided.margin) == (("a", "never"), math.inf)
    none = (decision("none", domains("law"), ("never",), "kmeans", num_clusters=41),)
    with pytest.raises(ConfigError) as caught:
        DecisionRouter.from_config(replace(config, decisions=none, models_path=folder), encoder=encoder)
    assert "decisions.none.algorithm.kmeans.num_clusters: expected 8, with which " in str(caught.value)
    assert str(caught.value).endswith(
        f"decisions.none.modelRefs: expected a model that {folder}/kmeans_model.json chooses for some query (a, b), "
        "got only others"
    )


def test_a_missing_file_is_named_with_its_cure(config, encoder, models_dir, tmp_path):
    (tmp_path / "knn_model.json").write_bytes((models_dir / "knn_model.json").read_bytes())
    with pytest.raises(ConfigError) as caught:
        DecisionRouter.from_config(replace(config, models_path=str(tmp_path)), encoder=encoder)
    assert str(caught.value).startswith(
        f"config.yaml: decisions.people.algorithm.type: pretrained model not found: {tmp_path} holds no svm_model.json "
        f"(train it: gpu-select train --data-file RECORDS.jsonl --output-dir {tmp_path} --algorithm svm); "
        f"decisions.code.algorithm.type: pretrained model not found"
    )
    with pytest.raises(InputError, match=r"pretrained model not found: .*absent holds none of knn_model"):
        DecisionRouter.from_config(replace(config, models_path=str(tmp_path / "absent")), encoder=encoder)


def test_another_encoder_is_refused(config, encoder, write_tiny_bert, write_tiny_models, tmp_path):
    other = load_encoder(str(write_tiny_bert(tmp_path / "other", pooling="cls")))
    with pytest.raises(EncoderMismatchError, match=r"knn_model\.json: trained with encoder"):
        DecisionRouter.from_config(config, encoder=other)
    static = (decision("all", domains("law"), "a"),)
    with pytest.raises(EncoderMismatchError, match=r"domain_model\.safetensors: trained with encoder"):
        DecisionRouter.from_config(replace(config, decisions=static), encoder=other)
    narrow = write_tiny_models(tmp_path / "narrow", {}, dim=16)
    with pytest.raises(
        DimensionError, match=r"narrow/domain_model\.safetensors has d = 16, encoder tiny-bert gives 32"
    ):
        DecisionRouter.from_config(replace(config, decisions=static, models_path=str(narrow)), encoder=encoder)
    with pytest.raises(
        DimensionError, match=r"narrow/\w+_model\.json has D = 30 \(16 \+ 14\), encoder gives 46 \(32 \+ 14\)"
    ):
        DecisionRouter.from_config(replace(config, decisions=DECISIONS[:1], models_path=str(narrow)), encoder=encoder)


def test_the_encoder_is_the_one_that_the_files_name(config, tiny_encoder_path):
    assert DecisionRouter.from_config(config).encoder.name == tiny_encoder_path.name
    with pytest.raises(EncoderError, match="nobody"):
        DecisionRouter.from_config(replace(config, encoder="./nobody"))


# ---------------------------------------------------------------- the forward pass


class CountsOperations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


STALLS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "lift_fresh", "unique_dim"}
"""What makes the host wait on a device: reading a number, sizes that depend on numbers, a copy from the host."""


def test_one_forward_never_looks_at_its_numbers_nor_at_queries_one_by_one(router, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # on a CPU, KNN's search takes shortcuts
    counts = []
    for texts in (TEXTS, TEXTS * 8):
        numbers = torch.arange(len(texts)) % 16 - 1
        keywords = torch.from_numpy(router.prepare([f"{t} {i}" for i, t in enumerate(texts)]).keywords_NC)
        tokenized = router.encoder.tokenizer.tokenize(texts)
        ids, mask = padded(pack(tokenized, np.arange(len(texts)), CPU), pad_id=0)
        with torch.inference_mode(), CountsOperations() as operations:
            router(ids, mask, numbers, keywords)
        assert [name for name in operations.names if name in STALLS] == []
        counts.append(len(operations.names))
    assert counts[0] == counts[1]  # as many operations for 8 queries as for 64


def test_one_forward_gives_what_prepared_queries_get(router):
    prepared = router.prepare(TEXTS, ["law", None] * 4)
    ids, mask = padded(pack(prepared.tokenized, np.arange(len(TEXTS)), CPU), pad_id=0)
    with torch.inference_mode():
        ruled = router(ids, mask, torch.from_numpy(prepared.domain_N), torch.from_numpy(prepared.keywords_NC))
    routes = router.decide_prepared(prepared).routes()
    assert ruled.decision_B.tolist() == routes.decision_N.tolist()
    assert ruled.domain_B.tolist() == routes.domain_N.tolist()
    assert ruled.model_BK[:, 0].tolist() == routes.model_NK[:, 0].tolist()
    np.testing.assert_allclose(ruled.score_B, routes.score_N, atol=2e-5)


@pytest.mark.parametrize("token_budget", [1, 40, 10**6])
def test_the_token_budget_and_the_cache_decide_nothing(router, tmp_path, token_budget):
    texts, names = [f"{text} {i % 30}" for i, text in enumerate(TEXTS * 5)], ["law", None, "math", "other"] * 10
    routes = router.decide_prepared(router.prepare(texts, names), token_budget=token_budget).routes()
    with EmbeddingCache(tmp_path, router.encoder.fingerprint, router.encoder.precision, router.encoder.dim) as cache:
        for cached in (0, len({*texts})):
            prepared = router.prepare(texts, names, tokenize=False)
            other = router.decide_prepared(prepared, cache=cache).routes()
            assert [row["model"] for row in other.rows()] == [row["model"] for row in routes.rows()]
            assert [row["decision"] for row in other.rows()] == [row["decision"] for row in routes.rows()]
            assert (other.n_cached > 0) == (cached > 0)


def test_equal_queries_are_decided_once_and_times_are_kept(router):
    times, seen = StageTimes(), []
    prepared = router.prepare(["x", "y", "x", "x"], ["law", "law", "law", "math"])
    assert prepared.queries == ["x", "y", "x"]
    routes = router.decide_prepared(prepared, times=times, progress=seen.append).routes()
    assert sum(seen) == 3
    assert len(list(routes.rows())) == 4
    assert all(times.seconds()[stage] > 0 for stage in ("transfer", "encode", "select"))


def test_vectors_that_are_not_finite(router, monkeypatch):
    monkeypatch.setattr(router.encoder, "encode", lambda batch: torch.full((len(batch.lengths), 32), math.nan))
    with pytest.raises(EncoderError, match="vectors are not finite"):
        router.decide([Query("x", "law"), Query("urgent x"), Query("x", "economics")])


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((["x", ""],), DataError, "texts[1]: expected a text that is not empty"),
        (("x",), DataError, "texts: expected a list of queries, got one text 'x'"),
        ((["x"], ["law", "law"]), DataError, "domains: expected 1 names, one a text"),
        ((["x"], ["magic"]), ConfigError, "domain: expected one of biology"),
    ],
)
def test_what_cannot_be_prepared(router, arguments, error, text):
    with pytest.raises(error) as caught:
        router.prepare(*arguments)
    assert text in str(caught.value)


def test_rows_for_a_log(router):
    routes = router.decide_prepared(router.prepare(["x asap", "x"], [None, "economics"])).routes()
    first, second = routes.rows()
    assert list(first) == ["decision", "domain", "model", "score", "margin", "error"]
    assert (first["decision"], first["model"], first["error"]) == ("urgent", "c", None)
    assert {name: value for name, value in second.items() if value is not None}.keys() == {"error"}
