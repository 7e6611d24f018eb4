"""Documents as `validate` and `tune` write them, with believable numbers, and a browser to open pages in."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MODELS = ["qwen2.5-7b", "gemma-2-9b", "llama-3.1-8b", "ministral-8b", "phi-3.5-mini", "granite-3-8b"]
DOMAINS = (
    ("math", 271), ("physics", 260), ("chemistry", 226), ("law", 221), ("engineering", 194), ("other", 185),
    ("economics", 169), ("health", 164), ("psychology", 160), ("business", 158), ("biology", 143),
    ("philosophy", 100), ("computer science", 82), ("history", 76),
)  # fmt: skip
SELECTORS = {"knn": 0.452, "kmeans": 0.4455, "svm": 0.4562, "mlp": 0.4531}
SINGLES = dict(zip(MODELS, (0.4391, 0.4287, 0.4012, 0.3805, 0.3711, 0.3302), strict=True))
COSTS = dict(zip(MODELS, (0.00031, 0.00022, 0.00024, 0.0002, 0.00011, 0.00026), strict=True))
LATENCIES = dict(zip(MODELS, (2.91, 3.4, 2.25, 1.9, 1.4, 3.05), strict=True))


def validation_document(models: list[str] = MODELS, domains=DOMAINS) -> dict[str, Any]:
    """As `gpu-select validate --json` writes it."""
    rng = random.Random(0)
    n = sum(size for _, size in domains)
    singles = {
        model: list(SINGLES.values())[i % len(MODELS)] - 0.01 * (i // len(MODELS)) for i, model in enumerate(models)
    }
    costs = {model: list(COSTS.values())[i % len(MODELS)] for i, model in enumerate(models)}
    latencies = {model: list(LATENCIES.values())[i % len(MODELS)] for i, model in enumerate(models)}
    best = max(singles, key=singles.__getitem__)
    cheapest = min(costs, key=costs.__getitem__)
    quality = {"oracle": 0.7523, **SELECTORS, **{f"always:{m}": q for m, q in singles.items()}}
    quality |= {"per-domain": 0.4466, f"cheapest:{cheapest}": singles[cheapest], "random": 0.3918}
    kinds = {"oracle": "oracle", **dict.fromkeys(SELECTORS, "selector")}

    def shares_of(name: str) -> dict[str, float]:
        if ":" in name:
            return {model: float(model == name.partition(":")[2]) for model in models}
        weights = [rng.random() * math.exp(6 * q) for q in singles.values()]
        return {model: weight / sum(weights) for model, weight in zip(models, weights, strict=True)}

    strategies = []
    for name, value in quality.items():
        shares = shares_of(name)
        strategies.append(
            {
                "name": name,
                "kind": kinds.get(name, "single" if name.startswith("always:") else "baseline"),
                "mean_quality": value,
                "ci95": [value - 0.0195, value + 0.0195],
                "mean_latency_s": sum(share * latencies[m] for m, share in shares.items()),
                "mean_cost_usd": sum(share * costs[m] for m, share in shares.items()),
                "best_rate": min(1.0, value / 0.7523),
                "n_scored": n,
                "gain_over_random": value - quality["random"],
                "gain_over_best_single": value - singles[best],
                "gap_share": (value - singles[best]) / (quality["oracle"] - singles[best]),
                "shares": shares,
            }
        )
    half = {name: 0.012 if name in SELECTORS else 0.018 for name in quality}
    comparisons = [
        {
            "a": a,
            "b": b,
            "difference": quality[a] - quality[b],
            "ci95": [quality[a] - quality[b] - max(half[a], half[b]), quality[a] - quality[b] + max(half[a], half[b])],
        }
        for a, b in itertools.combinations(quality, 2)
    ]

    def chosen(size: int) -> dict[str, int]:
        picks = rng.choices(models, [rng.random() ** 2 for _ in models], k=size)
        return {model: picks.count(model) for model in models if model in picks}

    def by_domain(size: int) -> dict[str, Any]:
        level = rng.uniform(-0.18, 0.2)
        return {
            "quality": {name: value + level + rng.gauss(0, 0.35 / math.sqrt(size)) for name, value in quality.items()},
            "chosen": {name: chosen(size) for name in SELECTORS},
        }

    def points(name: str, against: str) -> list[dict[str, Any]]:
        out = []
        for i in range(40):
            weight = i / 39
            amount = 1 - (1 - weight) ** 2.2
            out.append(
                {
                    "weight": weight,
                    "quality": 0.36 + (SELECTORS[name] - 0.36) * amount + 0.002 * math.sin(7 * weight),
                    "cost_usd": 0.00011 + 0.00016 * weight**1.4,
                    "latency_s": (1.4 if against == "latency" else 1.9) + 1.2 * weight**1.4,
                    "shares": shares_of(name),
                }
            )
        return out

    def bins(name: str) -> list[dict[str, Any]]:
        out = []
        for i in range(10):
            value = SELECTORS[name] - 0.1 + 0.02 * i + rng.gauss(0, 0.02)
            out.append(
                {
                    "margin": [0.0031 * i**1.6, 0.0031 * (i + 1) ** 1.6],
                    "queries": n // 10,
                    "quality": value,
                    "best_single_quality": 0.4391 + rng.gauss(0, 0.02) - 0.004 * i,
                    "ci95": [value - 0.06, value + 0.06],
                }
            )
        return out

    return {
        "format": "gpu_select.validation",
        "version": 1,
        "data_file": "data/mmlu_pro_dev.jsonl.gz",
        "encoder": "sentence-transformers/all-MiniLM-L6-v2",
        "queries": n,
        "models": models,
        "left_out": {"in_training": 12, "examples": ["What is the derivative of x^2?", "A block slides down a ramp"]},
        "strategies": strategies,
        "comparisons": comparisons,
        "domains": [{"name": name, "queries": size, **by_domain(size)} for name, size in domains],
        "curves": [
            {"strategy": name, "against": against, "points": points(name, against)}
            for name in SELECTORS
            for against in ("cost", "latency")
        ],
        "confidence": [{"strategy": name, "bins": bins(name)} for name in SELECTORS],
    }


def tuning_document() -> dict[str, Any]:
    """As `gpu-select tune` writes it."""
    rng = random.Random(1)
    grids: dict[str, dict[str, list[Any]]] = {
        "knn": {"n_neighbors": [5, 20, 50, 100, 200, 400], "onehot_weight": [0.0, 0.5, 1.0], "weighted": [True, False]},
        "kmeans": {"n_clusters": [8, 16, 32, 64, 128], "shrinkage": [8, 24, 64]},
        "svm": {"kernel": ["rbf"], "gamma": [0.25, 0.5, 1, 2, "scale"], "C": [0.01, 0.1, 1.0, 10.0]},
        "mlp": {"hidden": [64, 256], "weight_decay": [0.0, 1e-4, 1e-2]},
    }
    trials = []
    for algorithm, grid in grids.items():
        first = len(trials)
        for values in itertools.product(*grid.values()):
            gain = 0.015 - 0.004 * abs(rng.gauss(0, 1)) - (0.05 if 5 in values else 0)
            trials.append(
                {
                    "algorithm": algorithm,
                    "settings": dict(zip(grid, values, strict=True)),
                    "quality": 0.4391 + gain,
                    "utility": 0.4391 + gain,
                    "gain": gain,
                    "gain_ci95": [gain - 0.009, gain + 0.009],
                    "folds": [0.4391 + gain + rng.gauss(0, 0.01) for _ in range(5)],
                    "chosen": False,
                }
            )
        max(trials[first:], key=lambda t: t["gain"])["chosen"] = True
    return {
        "format": "gpu_select.tuning",
        "version": 1,
        "data_file": "data/mmlu_pro_train.jsonl.gz",
        "encoder": "sentence-transformers/all-MiniLM-L6-v2",
        "queries": 5000,
        "models": MODELS,
        "folds": 5,
        "seed": 0,
        "quality_weight": 1.0,
        "baselines": {
            "oracle": 0.75,
            "best_single": {"model": MODELS[0], "quality": 0.4391},
            "per_domain": 0.4466,
            "random": 0.3918,
        },
        "chosen": {t["algorithm"]: t["settings"] for t in trials if t["chosen"]},
        "trials": trials,
    }


def replay_document(models: list[str] = MODELS, domains=DOMAINS) -> dict[str, Any]:
    """As `gpu-select replay --json` writes it, with a budget and a share."""
    rng = random.Random(2)
    n = sum(size for _, size in domains)
    quality, times, costs = (
        {model: list(values.values())[i % len(MODELS)] for i, model in enumerate(models)}
        for values in (SINGLES, LATENCIES, COSTS)
    )

    def mean(values: dict[str, float], counts: dict[str, int]) -> float:
        return sum(values[model] * count for model, count in counts.items()) / max(sum(counts.values()), 1)

    def figures(counts: dict[str, int], gain: float) -> dict[str, Any]:
        return {
            "queries": sum(counts.values()),
            "quality": mean(quality, counts) + gain,
            "time_s": mean(times, counts),
            "cost_usd": mean(costs, counts),
        }

    def policy(name: str, kind: str, gain: float, outcomes: list[dict[str, Any]]) -> dict[str, Any]:
        single = name.partition(":")[2]
        by_domain = {}
        for domain, size in domains:
            picks = [single] * size if single else rng.choices(models, [rng.random() ** 2 for _ in models], k=size)
            by_domain[domain] = {model: picks.count(model) for model in models if model in picks}
        totals = {model: sum(counts.get(model, 0) for counts in by_domain.values()) for model in models}
        return {
            "name": name,
            "kind": kind,
            **figures(totals, gain),
            "models": [
                {
                    "model": model,
                    **(figures({model: count}, gain) if count else dict.fromkeys(_FIGURES) | {"queries": 0}),
                }
                for model, count in sorted(totals.items(), key=lambda item: -item[1])
            ],
            "domains": [
                {"name": domain, **figures(counts, gain), "chosen": counts} for domain, counts in by_domain.items()
            ],
            "outcomes": outcomes,
        }

    def outcome(figure: str, rows: int) -> dict[str, Any]:
        return {"figure": figure, "rows": rows, "expected": 0.44, "realised": 0.43, "ci95": [-0.03, 0.01]}

    def point(weight: float) -> dict[str, Any]:
        shares = [rng.random() + 0.1 for _ in models]
        return {
            "weight": weight,
            "quality": 0.37 + 0.09 * weight**0.5,
            "time_s": 1.4 + weight,
            "cost_usd": 0.0001 + 0.0002 * weight,
            "shares": {model: share / sum(shares) for model, share in zip(models, shares, strict=True)},
        }

    logged = [outcome("quality", n), outcome("time_s", n), outcome("cost_usd", n)]
    return {
        "format": "gpu_select.replay",
        "version": 1,
        "log_file": "logs/august.jsonl.gz",
        "data_file": "data/mmlu_pro_train.jsonl.gz",
        "encoder": "sentence-transformers/all-MiniLM-L6-v2",
        "rows": n + 3,
        "queries": n,
        "queries_in_records": 17,
        "record_queries": 4976,
        "models": models,
        "candidates": models,
        "check": {"queries": 4976, "expected": 0.478, "realised": 0.4785, "ci95": [-0.0128, 0.0137]},
        "policies": [
            policy("as logged", "logged", 0.0, logged),
            *(policy(name, "selector", 0.05, [outcome("quality", 400)]) for name in SELECTORS),
            *(policy(f"always:{model}", "single", 0.0, []) for model in models),
            policy("best-expected", "best", 0.07, []),
            policy("within-limits", "limits", 0.06, []),
        ],
        "sweeps": [{"against": against, "points": [point(i / 39) for i in range(40)]} for against in ("time", "cost")],
        "limits": {
            "quality_weight": 1.0,
            "budget_usd": 0.75,
            "max_share": {models[0]: 0.1},
            "utility": 0.47,
            "bound": 0.4700001,
            "nearest": point(0.625),
            "nearest_keeps": True,
        },
    }


_FIGURES = ("quality", "time_s", "cost_usd")


@pytest.fixture(scope="session")
def _validation() -> dict[str, Any]:
    return validation_document()


@pytest.fixture
def validation(_validation: dict[str, Any]) -> dict[str, Any]:
    """A document of `validate --json`: 2,409 queries, 4 selectors, 6 models; the test's own copy."""
    return copy.deepcopy(_validation)


@pytest.fixture
def tuning() -> dict[str, Any]:
    """A document of `tune`: four algorithms, 77 trials."""
    return tuning_document()


@pytest.fixture
def replay() -> dict[str, Any]:
    """A document of `replay --json`: 2,409 queries, 4 selectors, 6 models, a budget and a share."""
    return replay_document()


@pytest.fixture(scope="session")
def make_replay() -> Callable[..., dict[str, Any]]:
    """Call with model names and (domain, queries) pairs."""
    return replay_document


@pytest.fixture(scope="session")
def make_validation() -> Callable[..., dict[str, Any]]:
    """Call with model names and (domain, queries) pairs."""
    return validation_document


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Call with a document and perhaps a file name: writes it as JSON, returns the path."""

    def run(document: Any, name: str = "document.json") -> str:
        path = tmp_path / name
        path.write_text(json.dumps(document), encoding="utf-8")
        return str(path)

    return run


@pytest.fixture
def page(save: Callable[..., str]) -> Callable[..., str]:
    """Call with validation, tuning and replay documents: the page as text."""
    pytest.importorskip("plotly")

    def run(*documents: dict[str, Any]) -> str:
        from gpu_select.report import write_report

        kinds = ("validation", "tuning", "replay")
        paths: dict[str, list[str]] = {f"gpu_select.{kind}": [] for kind in kinds}
        for i, document in enumerate(documents):
            paths[document["format"]].append(save(document, f"{i}.json"))
        output = Path(paths[documents[0]["format"]][0]).with_suffix(".html")
        write_report(*paths.values(), str(output))
        return output.read_text(encoding="utf-8")

    return run


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium: `with browser.page() as tab: tab.open(path)`."""
    path = Path(__file__).with_name("browser.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    found = module.find()
    if found is None:
        pytest.skip(f"needs a browser: one of {', '.join(module.NAMES)}")
    with module.started(found, tmp_path_factory.mktemp("browser") / "profile") as running:
        yield running


def _colored(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _colored(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_colored(item, key) for item in value]
    return "#123456" if isinstance(value, str) and value.startswith("--") and key.endswith("color") else value


@pytest.fixture
def check_with_plotly() -> Callable[[dict[str, Any]], None]:
    """Call with a chart: the Python package checks names and values; colours are put in as page.js does it."""
    graph_objects = pytest.importorskip("plotly.graph_objects")

    def check(chart: dict[str, Any]) -> None:
        figure = graph_objects.Figure(data=_colored(chart["data"]), layout=_colored(chart["layout"]))
        assert len(figure.data) == len(chart["data"])
        for changes, trace in zip(chart["narrow"], chart["data"], strict=False):
            graph_objects.Figure(data=[_colored({**trace, **changes})])

    return check
