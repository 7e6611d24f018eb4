"""What tuning tried: each algorithm's trials by setting, and the full table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpu_select.report import formats
from gpu_select.report.charts import Chart, Figures, Trace, axis, hover, layout, numbers, table
from gpu_select.report.markup import Html, chart_text, element, join
from gpu_select.report.palette import Mark, Palette, symbol
from gpu_select.report.tuning import Setting, Trial, Tuning

__all__ = ["tuning_figures", "tuning_summary"]

_MAX_TICKS = 12


def tuning_figures(tuning: Tuning, palette: Palette, sheet: Figures) -> Html:
    """What was chosen, then a figure an algorithm, then the trials as a table."""
    parts = [_chosen(tuning)]
    for algorithm in tuning.algorithms:
        parts.append(element("h4", symbol(palette.selector(algorithm)), " ", algorithm))
        parts.append(_figure(tuning, algorithm, palette, sheet))
    return join([*parts, _all_trials(tuning)])


def tuning_summary(tuning: Tuning) -> Html:
    """The best of the chosen trials, in a sentence."""
    best = max((t for t in tuning.trials if t.chosen), key=lambda t: t.gain, default=None)
    if best is None:
        return element("p", "No trial is marked as chosen.", class_="lead")
    low, high = best.gain_ci95
    side = "above" if best.gain >= 0 else "below"
    within = f"95 % interval {formats.interval_points((low, high))}"
    sure = "" if low > 0 or high < 0 else ", but not distinguishable from it"
    text = (
        f" with the chosen settings has mean quality {formats.quality(best.quality)} on held-out folds: "
        f"{formats.points(abs(best.gain)).lstrip('+')} points {side} the best single model, {tuning.best_single}"
        f"{sure} ({within}). {formats.count(len(tuning.trials))} trials were compared on the same "
        f"{tuning.folds} folds, which flatters the chosen ones a little; "
    )
    end = element("code", "gpu-select validate"), " on other queries decides."
    return element("p", element("b", best.algorithm), text, *end, class_="lead")


def _chosen(tuning: Tuning) -> Html:
    rows = []
    for algorithm in tuning.algorithms:
        trials = tuning.of(algorithm)
        trial = next((t for t in trials if t.chosen), None)
        settings = tuning.chosen.get(algorithm, {}) if trial is None else trial.settings
        rows.append(
            [
                algorithm,
                _settings(settings),
                formats.quality(trial.quality) if trial else formats.NONE,
                f"{formats.points(trial.gain)} [{formats.interval_points(trial.gain_ci95)}]" if trial else formats.NONE,
                formats.count(len(trials)),
            ]
        )
    baselines = (
        f"On the same folds: oracle {formats.quality(tuning.oracle)}, best model of each domain "
        f"{formats.quality(tuning.per_domain)}, best single model {formats.quality(tuning.best_single_quality)}, "
        f"chance {formats.quality(tuning.random)}."
    )
    head = ["algorithm", "chosen settings", "quality", "against best single, points", "trials"]
    return join([table("Chosen settings", head, rows, texts=2), element("p", baselines, class_="note")])


def _figure(tuning: Tuning, algorithm: str, palette: Palette, sheet: Figures) -> Html:
    trials = tuning.of(algorithm)
    names = list(dict.fromkeys(name for trial in trials for name in trial.settings))
    varied = [name for name in names if len({_key(t.settings.get(name)) for t in trials}) > 1]
    fixed = [f"{name} = {_value(trials[0].settings.get(name))}" for name in names if name not in varied]
    mark = palette.selector(algorithm)
    charts = [_strip(tuning, trials, name, mark) for name in varied] or [_strip(tuning, trials, "", mark)]
    caption = (
        f"{algorithm}: each dot is a trial, its gain in points over the best single model on held-out queries. The "
        "line joins the best trial at each value, with its 95 % interval; the ring marks the chosen one. Lines across: "
        "the best single model (solid) and, where it is on the scale, the best model of each domain (dotted)."
    )
    caption += f" Everywhere {', '.join(fixed)}." if fixed else ""
    return sheet.figure(charts, caption)


def _strip(tuning: Tuning, trials: Sequence[Trial], name: str, mark: Mark) -> Chart:
    groups: dict[tuple[int, float, str], list[Trial]] = {}
    for trial in trials:  # the best first
        groups.setdefault(_key(trial.settings.get(name)), []).append(trial)
    keys = sorted(groups)
    at = {key: i for i, key in enumerate(keys)}
    best = [groups[key][0] for key in keys]
    rest = [(at[key], trial) for key in keys for trial in groups[key][1:]]
    traces: list[Trace] = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [i + _jitter(n) for n, (i, _) in enumerate(rest)],
            "y": [100 * trial.gain for _, trial in rest],
            "marker": {"color": mark.color, "size": 5, "opacity": 0.4},
            "hoverinfo": "text",
            "hovertext": [_hover(trial) for _, trial in rest],
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": list(range(len(best))),
            "y": [100 * trial.gain for trial in best],
            "line": {"color": mark.color, "width": 1.5},
            "marker": {"color": mark.color, "symbol": mark.symbol, "size": 8},
            "error_y": {
                "type": "data",
                "array": [100 * max(t.gain_ci95[1] - t.gain, 0) for t in best],
                "arrayminus": [100 * max(t.gain - t.gain_ci95[0], 0) for t in best],
                "color": mark.color,
                "thickness": 1,
                "width": 0,
            },
            "hoverinfo": "text",
            "hovertext": [_hover(trial) for trial in best],
        },
    ]
    chosen = [(at[_key(t.settings.get(name))], t) for t in trials if t.chosen]
    traces.append(
        {
            "type": "scatter",
            "mode": "markers",
            "x": [i for i, _ in chosen],
            "y": [100 * trial.gain for _, trial in chosen],
            "marker": {"color": "--ink", "symbol": "circle-open", "size": 17, "line": {"width": 2}},
            "hoverinfo": "skip",
        }
    )
    gains = [100 * t.gain for t in trials] + [100 * end for t in best for end in t.gain_ci95] + [0.0]
    low, high = min(gains), max(gains)
    pad = 0.06 * (high - low) or 1.0
    lines = []
    if tuning.per_domain is not None:
        level = 100 * (tuning.per_domain - tuning.best_single_quality)
        if low - pad <= level <= high + 3 * pad:
            high = max(high, level)
            lines.append(_level(level))
    step = -(-len(keys) // _MAX_TICKS)
    return Chart(
        name,
        f"Gain over the best single model by {name or 'trial'}, {len(trials)} trials",
        traces,
        layout(
            axis(
                tickvals=list(range(0, len(keys), step)),
                ticktext=[chart_text(key[2], 14) for key in keys[::step]],
                range=[-0.5, len(keys) - 0.5],
                showgrid=False,
            ),
            axis(
                "points over best single",
                range=[low - pad, high + pad],
                nticks=6,
                zeroline=True,
                zerolinecolor="--ink",
                zerolinewidth=1.2,
            ),
            shapes=lines,
        ),
        height=270,
    )


def _level(y: float) -> dict[str, object]:
    line = {"color": "--muted", "width": 1.2, "dash": "dot"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "layer": "below", "line": line}


def _jitter(n: int) -> float:
    """Spreads dots of one value a little, the same at every drawing."""
    return 0.28 * ((n * 0.618034) % 1 - 0.5)


def _key(value: Setting) -> tuple[int, float, str]:
    """Numbers in their order, then other values in that of their text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return 0, float(value), _value(value)
    return 1, 0.0, _value(value)


def _value(value: Setting) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:g}"


def _settings(settings: Mapping[str, Setting]) -> str:
    return ", ".join(f"{name} = {_value(value)}" for name, value in settings.items()) or "defaults"


def _hover(trial: Trial) -> str:
    gain = f"{formats.points(trial.gain)} points, 95 % interval {formats.interval_points(trial.gain_ci95)}"
    return hover(trial.algorithm, _settings(trial.settings), f"quality {formats.quality(trial.quality)}", gain)


def _all_trials(tuning: Tuning) -> Html:
    rows = [
        [
            f"{algorithm}{' (chosen)' if t.chosen else ''}",
            _settings(t.settings),
            formats.quality(t.quality),
            formats.points(t.gain),
            formats.interval_points(t.gain_ci95),
            " ".join(formats.quality(fold) for fold in t.folds),
            formats.quality(t.utility),
        ]
        for algorithm in tuning.algorithms
        for t in tuning.of(algorithm)
    ]
    head = ["algorithm", "settings", "quality", "gain, points", "95 % interval", "quality a fold", "utility"]
    return numbers(f"All {formats.count(len(rows))} trials", head, rows, texts=2)
