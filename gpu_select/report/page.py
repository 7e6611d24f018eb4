"""The page: head, sections, charts and scripts in one file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import PurePath

from gpu_select import __version__
from gpu_select.errors import MissingDependencyError
from gpu_select.report import formats
from gpu_select.report.charts import Figures, description
from gpu_select.report.comparison_matrix import comparison_matrix
from gpu_select.report.confidence_charts import confidence
from gpu_select.report.domain_charts import chosen_models, quality_by_domain
from gpu_select.report.markup import Html, element, inline_json, inline_script, join
from gpu_select.report.palette import Palette
from gpu_select.report.replay import Replay
from gpu_select.report.replay_section import replay_section
from gpu_select.report.strategy_table import strategy_table
from gpu_select.report.summary import summary
from gpu_select.report.tradeoff_charts import tradeoffs
from gpu_select.report.tuning import Tuning
from gpu_select.report.tuning_charts import tuning_figures, tuning_summary
from gpu_select.report.validation import Validation

__all__ = ["render"]


def render(validations: Sequence[Validation], tunings: Sequence[Tuning], replays: Sequence[Replay] = ()) -> str:
    """The whole page as HTML.

    Raises:
        MissingDependencyError: the package plotly, which brings the charts' JavaScript, is not installed.
    """
    library = _plotly_js()
    palette = Palette(
        [s.name for v in validations for s in v.of_kind("selector")]
        + [a for t in tunings for a in t.algorithms]
        + [p.name for r in replays for p in r.of_kind("selector")],
        [m for v in validations for m in v.models]
        + [m for t in tunings for m in t.models]
        + [m for r in replays for m in r.models],
    )
    sheet = Figures()
    sections = [_validation(v, i, palette, sheet) for i, v in enumerate(validations, 1)]
    sections += [_tuning(t, i, palette, sheet) for i, t in enumerate(tunings, 1)]
    sections += [replay_section(r, f"replay-{i}", palette, sheet) for i, r in enumerate(replays, 1)]
    contents = [(f"validation-{i}", f"Validation on {_short(v.data_file)}") for i, v in enumerate(validations, 1)]
    contents += [(f"tuning-{i}", f"Tuning on {_short(t.data_file)}") for i, t in enumerate(tunings, 1)]
    contents += [(f"replay-{i}", f"Replay of {_short(r.log_file)}") for i, r in enumerate(replays, 1)]
    title = "Routing quality"
    body = [
        element("header", element("h1", title), _contents(contents)),
        element("noscript", element("p", "The charts need JavaScript; the tables below do without.", class_="note")),
        element("main", *sections),
        element("footer", element("p", f"Written by gpu-select {__version__}. This page loads nothing else.")),
    ]
    return _document(title, join(body), sheet, library)


def _validation(validation: Validation, number: int, palette: Palette, sheet: Figures) -> Html:
    name = f"validation-{number}"
    return element(
        "section",
        element("h2", f"Validation on {_short(validation.data_file)}", id=name),
        summary(validation),
        _facts(validation),
        element("h3", "Strategies"),
        strategy_table(validation, palette),
        element(
            "p",
            "Quality is the mean outcome of the models that a strategy chooses. Bold: the paired 95 % interval "
            "excludes 0. The thin line is the best single model; the oracle, who knows all outcomes, is off the drawn "
            "scale.",
            class_="note",
        ),
        element("h3", "Quality by domain"),
        quality_by_domain(validation, palette, sheet),
        element("h3", "Chosen models by domain"),
        chosen_models(validation, palette, sheet),
        element("h3", "Quality against cost and latency"),
        tradeoffs(validation, palette, sheet),
        element("h3", "Confidence"),
        confidence(validation, palette, sheet),
        element("h3", "Comparisons"),
        element(
            "p",
            "Mean quality of the row minus that of the column, in points. ▲ ▼: the 95 % interval of the paired "
            "difference excludes 0. Each interval stands alone: of twenty pairs without a difference, one gets a mark.",
            class_="note",
        ),
        comparison_matrix(validation, palette),
        aria_labelledby=name,
    )


def _tuning(tuning: Tuning, number: int, palette: Palette, sheet: Figures) -> Html:
    name = f"tuning-{number}"
    facts = [
        ("Data", tuning.data_file),
        ("Encoder", tuning.encoder),
        ("Queries", f"{formats.count(tuning.queries)}, in {tuning.folds} folds, seed {tuning.seed}"),
        ("Models", ", ".join(tuning.models)),
        ("Weight of quality", f"{tuning.quality_weight:g}"),
    ]
    return element(
        "section",
        element("h2", f"Tuning on {_short(tuning.data_file)}", id=name),
        tuning_summary(tuning),
        description(facts),
        tuning_figures(tuning, palette, sheet),
        aria_labelledby=name,
    )


def _facts(validation: Validation) -> Html:
    facts = [
        ("Data", validation.data_file),
        ("Encoder", validation.encoder),
        ("Queries", formats.count(validation.queries)),
        ("Models", ", ".join(validation.models)),
    ]
    if not validation.in_training:
        return description([*facts, ("Left out", "no query")])
    count = validation.in_training
    text = f"{formats.count(count)} {'query' if count == 1 else 'queries'} that the selectors were trained on"
    examples = [element("li", example) for example in validation.examples]
    fold = element("details", element("summary", "Examples"), element("ul", *examples)) if examples else Html()
    return join([description([*facts, ("Left out", text)]), fold])


def _contents(entries: Sequence[tuple[str, str]]) -> Html:
    if len(entries) < 2:
        return Html()
    links = (element("li", element("a", text, href=f"#{name}")) for name, text in entries)
    return element("nav", element("ul", *links), aria_label="Contents")


def _short(path: str) -> str:
    return PurePath(path).name or path


def _document(title: str, body: Html, sheet: Figures, library: str) -> str:
    page_js, css = inline_script(_resource("page.js")), _resource("page.css")
    scripts = [inline_script(library), page_js] if sheet.charts else [page_js]
    # Only scripts of these very bytes run, and nothing may be fetched. Plotly sets styles itself, and before version 7
    # it tries out a picture that it holds as data.
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(css)),
    ]
    data = element("script", Html(inline_json(sheet.charts)), type="application/json", id="charts")
    ends = [data, *(element("script", Html(script)) for script in scripts)]
    html = element("html", element("head", *head), element("body", body, *ends), lang="en")
    return f"<!DOCTYPE html>\n{html}\n"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _resource(name: str) -> str:
    # a browser reads every line end as \n before it takes the hash
    text = resources.files("gpu_select.report").joinpath(name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")


def _plotly_js() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingDependencyError("plotly", "a report", "'gpu-select[report]'") from error
    return str(get_plotlyjs()).replace("\r\n", "\n")
