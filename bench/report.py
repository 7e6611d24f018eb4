"""Turns bench/results/*.json into the README's tables and a chart.

    python bench/report.py                  rewrite the tables in README.md, draw bench/results/throughput.png
    python bench/report.py --table cuda     print the tables of one device, and change nothing

What was not measured does not appear.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "bench" / "results"
CHART = RESULTS / "throughput.png"
BEGIN, END = "<!-- bench/report.py writes from here -->", "<!-- to here -->"

DEVICES = ("cuda", "cpu")
NAMES = {"knn": "KNN", "kmeans": "KMeans", "svm": "SVM", "mlp": "MLP"}
SELECTION = {
    "knn": "KNN, 7,500 rows, k = 5",
    "kmeans": "KMeans, 64 clusters",
    "svm": "SVM, 6 x 1,000 support vectors",
}
"""What bench/selection.py measures."""

COLORS = {"gpu_select, float32": "#5fb49c", "gpu_select, bfloat16": "#0b6e4f", "gpu_select": "#b7dfd0"}
PEER_COLOR = "#b0b0b0"

Document = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", choices=DEVICES, help="print the tables of this device only")
    device = parser.parse_args().table
    if device is not None:
        blocks, broken = tables(device)
        print("\n\n".join(blocks) if blocks else f"nothing was measured on {device}")
        sys.exit("\n".join(broken) or None)
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"-> {README}")
    draw(CHART)


def with_tables(readme: str) -> str:
    """The README with the tables that the results give."""
    blocks: list[str] = []
    for device in DEVICES:
        found, broken = tables(device)
        if broken:
            sys.exit("\n".join(broken))
        blocks += found
    if CHART.exists():
        where = CHART.relative_to(ROOT).as_posix()
        blocks.insert(0, f"![Tokens a second from file to file, gpu_select beside its peer]({where})")
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        sys.exit(f"README.md: expected the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n" + "\n\n".join(blocks) + f"\n\n{END}{after}"


def tables(device: str) -> tuple[list[str], list[str]]:
    """Markdown for each result file of a device, and which ones could not be understood."""
    blocks, broken = [], []
    for name, write in SECTIONS.items():
        path = RESULTS / f"{name}-{device}.json"
        if not path.exists():
            continue
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            text, header, rows = write(document)
            blocks.append(f"{text} ({_where(document)}):\n\n{_markdown(header, rows)}")
        except (KeyError, TypeError, ValueError) as error:
            broken.append(f"{path.name}: {type(error).__name__}: {error}")
    return blocks, broken


def _where(document: Document) -> str:
    return f"{_place(document)}; torch {document['versions']['torch']}; `{document['command']}`"


def _place(document: Document) -> str:
    threads = "1 thread" if document["threads"] == 1 else f"{document['threads']} threads"
    return document["gpu"] or f"{document['cpu']}, {threads}"


def _markdown(header: list[str], rows: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


Section = tuple[str, list[str], list[list[str]]]


def _end_to_end(document: Document) -> Section:
    # a roof on a CPU that others use too says little
    on_gpu = document["gpu"] is not None
    rows, batch_sizes = [], []
    for log, result in document["results"].items():
        peer = result["peer"]
        batch_sizes.append(f"{peer['batch_size']}")
        for dtype, ours in result["ours"].items():
            for name, row in ours.items():
                beside = ["-"] * 3
                if "same_models" in row:
                    theirs = peer["selectors"][name]["tokens_per_s"]
                    beside = [f"{theirs:,.0f}", f"{row['speed_over_peer']:.2f}", f"{row['same_models']:.2%}"]
                rows.append(
                    [
                        f"{log}, {result['queries']:,} queries" if not log.endswith("tokens") else log,
                        _selector(name),
                        dtype,
                        f"{row['tokens_per_s']:,.0f}",
                        f"{row['queries_per_s']:,.0f}",
                        *([f"{row['utilisation']:.0%}"] if on_gpu else []),
                        f"{row['stage_shares']['select']:.1%}",
                        *beside,
                    ]
                )
    roofs = ", ".join(f"{roof['flops_per_s'] / 1e12:.3g} TFLOP/s in {name}" for name, roof in document["roofs"].items())
    dtypes = "/".join(sorted({result["peer"]["dtype"] for result in document["results"].values()}))
    roof = f" The roof is a matrix product measured in the same run: {roofs}." if on_gpu else ""
    text = (
        f"**From log file to routed file**, tokenising included; encoder: {document['encoder']}.{roof} "
        f"Peer: sentence-transformers in {dtypes} (batch size "
        f"{'/'.join(dict.fromkeys(batch_sizes))}, the fastest of those tried) and scikit-learn. "
        f"Medians of {document['repeats']} interleaved runs"
    )
    header = ["log", "selector", "encoder in", "tokens/s", "queries/s", *["of the roof"] * on_gpu, "selecting"]
    return text, [*header, "peer, tokens/s", "ratio", "same model"], rows


def _selector(name: str) -> str:
    first, _, rest = name.partition(",")
    return NAMES.get(first, first) + (f",{rest}" if rest else "")


def _selection(document: Document) -> Section:
    rows = [
        [SELECTION.get(name, name), _time(ours), peer, _time(seconds), f"{seconds / ours:.2f}"]
        for name, result in document["results"].items()
        for ours in [result["seconds"]["ours"]]
        for peer, seconds in result["seconds"].items()
        if peer != "ours"
    ]
    text = f"**Selection** of 8,192 queries at D = 1038, medians of {document['repeats']} interleaved runs"
    return text, ["selector", "gpu_select", "peer", "", "ratio"], rows


def _knn(document: Document) -> Section:
    peers = list(dict.fromkeys(peer for result in document["results"].values() for peer in result["seconds"]))
    rows = [
        [
            name,
            *(f"{document['batch'] / s:,.0f}" if (s := result["seconds"].get(peer)) else "-" for peer in peers),
            *(f"{result['queries with a wrong row'][peer]:.2%}" for peer in ("ours",)),
        ]
        for name, result in document["results"].items()
    ]
    text = (
        f"**Exact nearest neighbours**, queries a second in batches of {document['batch']:,}, k = {document['k']}, "
        f"D = 1038, medians of {document['repeats']} interleaved runs"
    )
    header = ["rows", *("gpu_select" if peer == "ours" else peer for peer in peers), "wrong rows in gpu_select"]
    return text, header, rows


def _kernels(document: Document) -> Section:
    def time_of(row: Document, key: str) -> str:
        value = row["milliseconds"].get(key)
        return _time(value / 1e3) if isinstance(value, float) else "-"

    rows = [
        [
            row["name"],
            *(time_of(row, key) for key in ("kernel", "torch", "torch.compile")),
            f"{row['share_of_roof']:.0%} of {row['roof']}",
            *(f"{row['error'][key]:.0e}" if key in row["error"] else "-" for key in ("kernel", "torch")),
        ]
        for row in document["results"]
    ]
    roofs = ", ".join(f"{name} {roof['rate']:,.0f} {roof['unit']}" for name, roof in document["roofs"].items())
    text = f"**Fused kernels**; roofs measured in the same run: {roofs}; errors against float64"
    return text, ["kernel", "time", "torch", "torch.compile", "rate", "error", "torch's error"], rows


def _determinism(document: Document) -> Section:
    rows = [
        [
            dtype,
            NAMES.get(name, name),
            *(f"{row[way][name][key]:.2%}" for way in row for key in ("other_models", "other_score_bits")),
            f"{row['deterministic'][name]['seconds'] / row['free'][name]['seconds']:.2f}",
        ]
        for dtype, row in document["results"].items()
        for name in row["free"]
    ]
    text = (
        f"**The same query in other batches**: {document['queries']:,} queries in 5 random orders and token budgets; "
        f"share of queries that got another model, or another last bit of the score, without and with `deterministic`; "
        f"encoder: {document['encoder']}"
    )
    header = ["encoder in", "selector", "other model", "other bits", "deterministic: other model", "other bits"]
    return text, [*header, "times the time"], rows


def _quality(document: Document) -> Section:
    peers = list(document["results"][0]["against"])

    def difference(row: Document, peer: str) -> str:
        if row["strategy"] == peer:
            return "-"
        found = row["against"][peer]
        return f"{found['mean']:+.4f} ({found['ci95'][0]:+.4f} to {found['ci95'][1]:+.4f})"

    rows = [
        [NAMES.get(row["strategy"], row["strategy"]), f"{row['quality']:.4f}", *(difference(row, p) for p in peers)]
        for row in document["results"]
    ]
    bounds = document["bounds"]
    text = (
        f"**Quality of the chosen models**, tuned and trained on {' and '.join(document['data'])}, judged on "
        f"{document['queries']:,} queries ({document['test']}); mean performance, and differences with paired 95 % "
        f"intervals; encoder: {document['encoder']}; oracle {bounds['oracle']:.4f}, random {bounds['random']:.4f}"
    )
    return text, ["choice by", "quality", *(f"against {peer}" for peer in peers)], rows


def _svm(document: Document) -> Section:
    rows = [
        [
            f"{row['rows']:,} queries x {row['models']} models, {row['target']}, "
            f"gamma {row['gamma']:g}, C {row['C']:g}",
            *(_time(row["seconds"][key]) for key in ("ours", "SVC")),
            f"{row['speedup_over_SVC']:.2f}",
            f"{row['objective_difference']:.0e}",
            f"{row['gap']:.0e}",
        ]
        for row in document["results"]
    ]
    tuning = document["tuning"]
    text = (
        f"**Training of SVM machines** on {document['data']} at D = {document['dim']}, the kernel matrix included, "
        f"medians of {document['repeats']} interleaved runs; the {tuning['machines']:,} machines of a cross-validation "
        f"took {_time(tuning['seconds'])}"
    )
    header = ["problem", "gpu_select", "SVC, one by one", "ratio", "objectives differ by", "our largest KKT gap"]
    return text, header, rows


def _gateway(document: Document) -> Section:
    rows = [
        [
            f"{about}, {result['tokens_per_query']:.0f} tokens",
            path,
            *(f"{modes[mode]['requests_per_s']:,.0f}" for mode in ("batched", "one_by_one")),
            f"{modes['ratio']:.2f}",
            *(f"{modes[mode]['ms']['p50']:,.0f} ms" for mode in ("batched", "one_by_one")),
            *(f"{result['single_client'][key]:.1f} ms" for key in ("bare_p50_ms", "added_p50_ms")),
        ]
        for about, result in document["results"].items()
        for path, modes in result["at_once"].items()
    ]
    text = (
        f"**Serving** {document['clients']} clients at once, on the gateway's own cores, in batches of up to 64 "
        f"queries and one by one; last, a single client: the bare router's median, and what the gateway adds. "
        f"Encoder: {document['encoder']} in {document['dtype']}. Medians of {document['repeats']} interleaved runs"
    )
    header = ["queries", "path", "requests/s", "one by one", "ratio", "p50", "one by one, p50"]
    return text, [*header, "bare router", "added"], rows


def _domains(document: Document) -> Section:
    rows = [
        [
            f"{row['ridge']:g}" + (" (the default)" if row["ridge"] == document["default"] else ""),
            f"{row['cross_validated']['accuracy']:.4f}",
            f"{row['cross_validated_few']['accuracy']:.4f}",
            f"{row['test']['accuracy']:.4f}",
        ]
        for row in document["results"]
    ]
    text = (
        f"**Domains predicted** by the head trained on {document['data']}: share of queries in their category, "
        f"cross-validated ({document['folds']} parts) and on {document['test_queries']:,} other queries of "
        f"{document['test']}; encoder: {document['encoder']}. Always the most frequent category: "
        f"{document['most_frequent']:.4f}; scikit-learn's LogisticRegression at {document['default']:g}: "
        f"{document['scikit_learn']['accuracy']:.4f}"
    )
    few = f"cross-validated on {document['few_queries']:,} queries"
    return text, ["ridge", "cross-validated", few, document["test"]], rows


def _export(document: Document) -> Section:
    rows = []
    for name, result in document["results"].items():
        kind, _, algorithm = name.partition(", ")
        size, load = f"{result['package']['bytes'] / 1e6:.1f} MB", _time(result["package"]["load_s"])
        for case, row in result["cases"].items():
            over = row["speed_over"]
            packed = f"{over['packed']:.2f}" if "packed" in over else "-"
            times = [_time(row["seconds"][key]) for key in ("package", "eager")]
            same = f"{row['same_models']} of {row['queries']}"
            rows.append(
                [f"{kind}, {_selector(algorithm)}", case, *times, f"{over['eager']:.2f}", packed, same, size, load]
            )
    text = (
        f"**Compiled packages** (`gpu-select export`) beside eager mode on the same tensors, and beside the packed "
        f"batches of `Router.route`; encoder: {document['encoder']} in float32. Medians of {document['repeats']} "
        f"interleaved runs"
    )
    header = ["package", "batch", "time", "eager", "ratio", "ratio to packed", "same model", "size", "loads in"]
    return text, header, rows


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


SECTIONS: dict[str, Callable[[Document], Section]] = {
    "quality_mmlu_pro": _quality,
    "quality_mmlu_pro_dev": _quality,
    "quality_llmrouter": _quality,
    "domains": _domains,
    "gateway": _gateway,
    "svm": _svm,
    "end_to_end": _end_to_end,
    "selection": _selection,
    "knn": _knn,
    "export": _export,
    "kernels": _kernels,
    "determinism": _determinism,
}


def draw(path: Path) -> None:
    """Bars of tokens a second, one panel a device."""
    measured = {
        device: json.loads(file.read_text(encoding="utf-8"))
        for device in DEVICES
        for file in [RESULTS / f"end_to_end-{device}.json"]
        if file.exists()
    }
    if not measured:
        print("no end_to_end results: no chart")
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = {device: _groups(document) for device, document in measured.items()}
    heights = [0.24 * sum(len(bars) + 0.8 for _, bars in rows) + 1.0 for rows in groups.values()]
    figure, axes = pyplot.subplots(
        len(groups), 1, figsize=(9, sum(heights)), squeeze=False, height_ratios=heights, layout="constrained"
    )
    for axis, (device, rows) in zip(axes[:, 0], groups.items(), strict=True):
        place, ticks, most = 0.0, [], 0.0
        for _, bars in rows:
            ticks.append(place + (len(bars) - 1) / 2)
            for label, value in bars:
                color = COLORS.get(label, COLORS["gpu_select"] if label.startswith("gpu_") else PEER_COLOR)
                drawn = axis.barh(place, value, color=color, height=0.86, label=label)
                axis.bar_label(drawn, [f"{value:,.0f}"], padding=4, fontsize=9)
                place, most = place + 1, max(most, value)
            place += 0.8
        axis.set_yticks(ticks, [name for name, _ in rows])
        axis.tick_params(axis="y", length=0)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.15 * most)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.set_title(f"{_place(measured[device])}: tokens a second from log file to routed file", fontsize=11)
        handles, labels = axis.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        axis.legend(once.values(), once.keys(), fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    print(f"-> {path}")


def _groups(document: Document) -> list[tuple[str, list[tuple[str, float]]]]:
    """For each log and selector that both sides measured: its name, and who routed how many tokens a second."""
    groups = []
    for log, result in document["results"].items():
        peer = result["peer"]
        for name, theirs in peer["selectors"].items():
            bars = [
                (f"gpu_select, {dtype}", ours[name]["tokens_per_s"])
                for dtype, ours in result["ours"].items()
                if name in ours
            ]
            bars.append((f"sentence-transformers\n+ scikit-learn, {peer['dtype']}", theirs["tokens_per_s"]))
            groups.append((f"{log}, {_selector(name)}", bars))
    return groups


if __name__ == "__main__":
    main()
