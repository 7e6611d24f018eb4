"""Which module may import which: read from the syntax trees, so that imports inside functions count too."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

RANKS = {
    "errors": 0,
    "files": 0,
    "jsonio": 0,
    "lines": 0,
    "signals": 0,
    "arriving": 1,
    "derived": 1,
    "domains": 1,
    "exporting": 1,
    "resampling": 1,
    "simulation_templates": 1,
    "stages": 1,
    "wire": 1,
    "yamlio": 1,
    "config": 2,
    "domain_file": 2,
    "features": 2,
    "encoder": 2,
    "records": 2,
    "selectors": 2,
    "artifacts": 3,
    "domain_head": 3,
    "graphs": 3,
    "pretrained": 3,
    "simulation": 3,
    "training": 3,
    "decisions": 4,
    "download": 4,
    "evaluation": 4,
    "holdout": 4,
    "logs": 4,
    "router": 4,
    "decision_router": 5,
    "benchmark": 6,
    "export": 6,
    "gateway": 6,
    "pipeline": 6,
    "report": 6,
    "batch": 7,
    "replay": 7,
    "shards": 7,
    "throughput": 7,
    "ray_data": 8,
    "commands": 9,
    "__main__": 10,
}
"""A module imports lower ranks, its own folder, and `errors`."""

OWNERS = {
    "aiohttp": ("gpu_select/gateway/*", "gpu_select/benchmark/*"),
    "click": ("gpu_select/commands/*",),
    "faiss": ("gpu_select/selectors/knn*.py",),
    "huggingface_hub": ("gpu_select/download/connection.py", "gpu_select/pretrained/hub.py"),
    "math_verify": ("gpu_select/benchmark/metrics/math_worker.py",),
    "orjson": ("gpu_select/jsonio.py", "gpu_select/wire.py"),
    "plotly": ("gpu_select/report/page.py",),
    "prometheus_client": ("gpu_select/gateway/metrics.py",),
    "pyarrow": ("gpu_select/logs/*",),
    "ray": ("gpu_select/ray_data/*",),
    "safetensors": (
        "gpu_select/domain_file.py",
        "gpu_select/encoder/*",
        "gpu_select/pretrained/*",
        "gpu_select/throughput/synthetic.py",
    ),
    "sympy": ("gpu_select/benchmark/metrics/math_worker.py",),
    "tokenizers": ("gpu_select/encoder/*", "gpu_select/throughput/bpe.py"),
    "tqdm": ("gpu_select/commands/*",),
    "transformers": ("gpu_select/encoder/*",),
    "triton": ("kernels/gpu_select_kernels/*_triton.py",),
    "yaml": ("gpu_select/yamlio.py",),
    "zstandard": ("gpu_select/files.py",),
}
"""Which files may import a dependency."""

WITHOUT_TORCH = (
    "gpu_select/__main__.py",
    "gpu_select/benchmark/*",
    "gpu_select/config/*",
    "gpu_select/domain_file.py",
    "gpu_select/domains.py",
    "gpu_select/errors.py",
    "gpu_select/evaluation/*",
    "gpu_select/files.py",
    "gpu_select/gateway/*",
    "gpu_select/jsonio.py",
    "gpu_select/lines.py",
    "gpu_select/logs/*",
    "gpu_select/records/*",
    "gpu_select/report/*",
    "gpu_select/shards/[!pr]*.py",  # the first process of a run; of the others, `pool` counts GPUs and `routing` routes
    "gpu_select/shards/plan*.py",
    "gpu_select/shards/run.py",
    "gpu_select/simulation*.py",
    "gpu_select/wire.py",
    "gpu_select/yamlio.py",
)
FORWARD_PASSES = {
    ("gpu_select/decision_router.py", "DecisionRouter"): ("forward", "decide_batch", "select"),
    ("gpu_select/decisions/ranking.py", "CandidateRanking"): ("forward",),
    ("gpu_select/decisions/ranking.py", "_Part"): ("forward",),
    ("gpu_select/decisions/rules.py", "DecisionRules"): ("forward", "_holds"),
    ("gpu_select/domain_head.py", "DomainHead"): ("forward", "predict"),
    ("gpu_select/router.py", "Router"): ("forward", "decide_batch", "select"),
}
"""Methods in which nothing may wait for the device, by file and class."""
HOST_SYNCS = ("cpu", "item", "nonzero", "numpy", "synchronize", "tolist")
EXECUTING = (
    "gpu_select/benchmark/sandbox/assertions.py",
    "gpu_select/benchmark/sandbox/examiner.py",
    "gpu_select/benchmark/sandbox/source.py",
)
"""What runs in a confined process, and is there to run the code of others."""
NEVER_IMPORTED = ("bench", "configs", "dill", "joblib", "marshal", "pickle", "shelve", "sklearn", "tests")

SOURCES = sorted(
    path.relative_to(ROOT).as_posix() for top in ("gpu_select", "kernels") for path in ROOT.glob(f"{top}/**/*.py")
)


def tree_of(source: str) -> ast.Module:
    return ast.parse((ROOT / source).read_text(encoding="utf-8"), source)


def imported_names(tree: ast.AST, path: str) -> Iterator[str]:
    """Dotted names of all imports; `from a import b` gives `a.b`, and relative ones are made absolute."""
    package = Path(path).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = (*base, *(node.module or "").split(".")) if node.module else base
            yield from (".".join((*stem, alias.name)) for alias in node.names)
        elif isinstance(node, ast.Call) and called_name(node) in ("import_module", "__import__"):
            yield from (
                arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            )


def called_name(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def layer_faults(path: str, tree: ast.AST) -> Iterator[str]:
    """What is wrong with the imports of the module at `path`."""
    parts = Path(path).with_suffix("").parts
    in_kernels = parts[0] == "kernels"
    unit = "" if in_kernels else parts[1]
    if not in_kernels and unit not in (*RANKS, "__init__"):
        yield f"{path}: {unit} has no rank: add it to RANKS and to CONTRIBUTING.md"
        return
    for name in imported_names(tree, path):
        top, _, rest = name.partition(".")
        if top in NEVER_IMPORTED:
            yield f"{path}: imports {name}"
        if top in OWNERS and not any(fnmatch(path, owner) for owner in OWNERS[top]):
            yield f"{path}: imports {name}, which belongs to {', '.join(OWNERS[top])}"
        if top == "torch" and any(fnmatch(path, pattern) for pattern in WITHOUT_TORCH):
            yield f"{path}: imports {name}, and is to do without torch"
        if top == "gpu_select" and in_kernels:
            yield f"{path}: imports {name}: kernels know nothing of gpu_select"
        elif top == "gpu_select" and unit != "__init__":
            target = rest.partition(".")[0]
            if target in ("", "__version__") or target == unit or target == "errors":
                continue
            if target not in RANKS:
                yield f"{path}: imports {name}: {target} is no ranked module; import names from where they are defined"
            elif RANKS[target] >= RANKS[unit]:
                yield f"{path} (rank {RANKS[unit]}): imports {name} (rank {RANKS[target]})"


def forbidden_faults(path: str, tree: ast.AST) -> Iterator[str]:
    """What the module at `path` does that no module may do."""
    if Path(path).name in ("utils.py", "helpers.py", "common.py"):
        yield f"{path}: a file is named after what it holds"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        where = f"{path}:{node.lineno}"
        if isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec", "compile") and path not in EXECUTING:
            yield f"{where}: calls {node.func.id}"
        for keyword in node.keywords:
            is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            is_false = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if keyword.arg in ("trust_remote_code", "allow_pickle") and not is_false:
                yield f"{where}: {keyword.arg} is not False"
            if keyword.arg == "weights_only" and not is_true:
                yield f"{where}: weights_only is not True"
        if ast.unparse(node.func) == "torch.load" and not any(
            keyword.arg == "weights_only" for keyword in node.keywords
        ):
            yield f"{where}: torch.load without weights_only=True"


def host_sync_faults(path: str, tree: ast.AST) -> Iterator[str]:
    """Calls inside forward passes that make the host wait for the device."""
    for cls in ast.walk(tree):
        if not (isinstance(cls, ast.ClassDef) and (path, cls.name) in FORWARD_PASSES):
            continue
        for method in cls.body:
            if not (isinstance(method, ast.FunctionDef) and method.name in FORWARD_PASSES[path, cls.name]):
                continue
            for node in ast.walk(method):
                if isinstance(node, ast.Call) and called_name(node) in HOST_SYNCS:
                    yield f"{path}:{node.lineno}: {cls.name}.{method.name} calls {called_name(node)}()"


@pytest.mark.parametrize("source", SOURCES)
def test_a_module_imports_only_what_lies_below_it(source):
    assert list(layer_faults(source, tree_of(source))) == []


@pytest.mark.parametrize("source", SOURCES)
def test_a_module_does_nothing_forbidden(source):
    assert list(forbidden_faults(source, tree_of(source))) == []


@pytest.mark.parametrize(("path", "cls"), FORWARD_PASSES)
def test_a_forward_pass_has_no_host_sync(path, cls):
    tree = tree_of(path)
    methods = {
        method.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name == cls
        for method in node.body
        if isinstance(method, ast.FunctionDef)
    }
    assert methods >= set(FORWARD_PASSES[path, cls])
    assert list(host_sync_faults(path, tree)) == []


def test_every_source_is_seen():
    assert "gpu_select/errors.py" in SOURCES
    assert "gpu_select/training/__init__.py" in SOURCES


def test_the_table_in_contributing_is_the_one_that_is_tested():
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", CONTRIBUTING, flags=re.MULTILINE)
    table = {name: int(rank) for rank, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert table == RANKS


LAYER_FAULTS = {
    ("gpu_select/wire.py", "from gpu_select.selectors import knn"): "gpu_select.selectors.knn (rank 2)",
    ("gpu_select/wire.py", "from gpu_select import records"): "gpu_select.records (rank 2)",
    ("gpu_select/wire.py", "import gpu_select.domains"): "gpu_select.domains (rank 1)",
    ("gpu_select/wire.py", "def f():\n    from gpu_select.router import Router"): "gpu_select.router.Router (rank 4)",
    ("gpu_select/wire.py", "from . import router"): "gpu_select.router (rank 4)",
    ("gpu_select/encoder/cache.py", "from ..router import Router"): "gpu_select.router.Router (rank 4)",
    ("gpu_select/selectors/knn.py", "from gpu_select.encoder.tokens import pack"): "gpu_select.encoder.tokens.pack",
    ("gpu_select/pipeline.py", "from gpu_select import Router"): "import names from where they are defined",
    ("gpu_select/novelty.py", ""): "novelty has no rank",
    ("gpu_select/novelties/thing.py", ""): "novelties has no rank",
    ("gpu_select/selectors/svm.py", "import faiss"): "imports faiss, which belongs to gpu_select/selectors/knn*.py",
    ("gpu_select/router.py", "import importlib\nimportlib.import_module('faiss')"): "imports faiss",
    ("gpu_select/training/knn.py", "from tqdm.auto import tqdm"): "imports tqdm.auto.tqdm, which belongs to",
    ("gpu_select/logs/reader.py", "def f():\n    import torch.nn"): "is to do without torch",
    ("gpu_select/training/svm.py", "from sklearn.svm import SVC"): "imports sklearn.svm.SVC",
    ("gpu_select/artifacts.py", "import pickle"): "imports pickle",
    ("gpu_select/commands/train.py", "from tests import data"): "imports tests.data",
    ("kernels/gpu_select_kernels/rbf.py", "import gpu_select.errors"): "kernels know nothing of gpu_select",
    ("kernels/gpu_select_kernels/rbf.py", "import triton"): "imports triton, which belongs to",
}


@pytest.mark.parametrize(("path", "text"), LAYER_FAULTS)
def test_a_bad_import_is_found(path, text):
    faults = list(layer_faults(path, ast.parse(text)))
    assert len(faults) == 1
    assert LAYER_FAULTS[path, text] in faults[0]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "gpu_select/router.py",
            "from gpu_select.artifacts import load\nfrom gpu_select import __version__\nimport torch",
        ),
        ("gpu_select/selectors/knn_faiss.py", "from gpu_select.selectors.base import Selector\nimport faiss"),
        ("gpu_select/selectors/knn.py", "from .base import Selector\nfrom . import base"),
        ("gpu_select/files.py", "from gpu_select.errors import InputError\nimport zstandard"),
        ("gpu_select/__init__.py", "def f():\n    from gpu_select import router"),
        (
            "kernels/gpu_select_kernels/rbf_triton.py",
            "import triton.language as tl\nfrom gpu_select_kernels import rbf",
        ),
    ],
)
def test_a_good_import_is_let_through(path, text):
    assert list(layer_faults(path, ast.parse(text))) == []


@pytest.mark.parametrize(
    ("path", "text", "fault"),
    [
        ("gpu_select/utils.py", "", "a file is named after what it holds"),
        ("gpu_select/wire.py", "x = eval('1')", ":1: calls eval"),
        ("gpu_select/wire.py", "def f():\n    exec('1')", ":2: calls exec"),
        ("gpu_select/wire.py", "np.load(p, allow_pickle=True)", "allow_pickle is not False"),
        ("gpu_select/wire.py", "load(p, trust_remote_code=flag)", "trust_remote_code is not False"),
        ("gpu_select/wire.py", "torch.load(p)", "torch.load without weights_only=True"),
        ("gpu_select/wire.py", "torch.load(p, weights_only=False)", "weights_only is not True"),
    ],
)
def test_a_forbidden_call_is_found(path, text, fault):
    faults = list(forbidden_faults(path, ast.parse(text)))
    assert len(faults) == 1
    assert fault in faults[0]


def test_harmless_calls_are_let_through():
    text = "re.compile(p)\nmodel.eval()\nnp.load(p, allow_pickle=False)\ntorch.load(p, weights_only=True)"
    assert list(forbidden_faults("gpu_select/wire.py", ast.parse(text))) == []


@pytest.mark.parametrize(
    ("call", "name"), [("scores.max().item()", "item"), ("scores.cpu()", "cpu"), ("torch.nonzero(scores)", "nonzero")]
)
def test_a_host_sync_in_the_forward_pass_is_found(call, name):
    text = f"class Router:\n    def route(self): return x.item()\n    def forward(self, scores):\n        return {call}"
    faults = list(host_sync_faults("gpu_select/router.py", ast.parse(text)))
    assert faults == [f"gpu_select/router.py:4: Router.forward calls {name}()"]
