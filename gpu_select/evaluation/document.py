"""Everything that `validate` finds, and the JSON document that carries it to a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gpu_select.evaluation.by_domain import DomainRow, by_domain
from gpu_select.evaluation.comparisons import Comparison, compare
from gpu_select.evaluation.confidence import ConfidenceBin, confidence
from gpu_select.evaluation.curves import CurvePoint, curve
from gpu_select.evaluation.play import Selection, play
from gpu_select.evaluation.strategies import Strategy, summarize
from gpu_select.records import OutcomeTable

__all__ = ["Validation", "validate"]

_EXAMPLE_CHARACTERS = 80
_N_EXAMPLES = 5


@dataclass(frozen=True)
class Validation:
    """Strategies on held-out queries."""

    table: OutcomeTable
    best_single: str
    strategies: list[Strategy]
    comparisons: list[Comparison]
    domains: list[DomainRow]
    curves: dict[tuple[str, str], list[CurvePoint]]
    """By selector and "cost" or "latency"; without those that cannot be drawn."""
    confidence: dict[str, list[ConfidenceBin]]

    def difference(self, a: str, b: str) -> Comparison | None:
        """Strategy `a` against strategy `b`, whichever of them comes first; None where they share no query."""
        for found in self.comparisons:
            if (found.a, found.b) == (a, b):
                return found
            if (found.a, found.b) == (b, a):
                return Comparison(a, b, -found.difference, (-found.ci95[1], -found.ci95[0]))
        return None

    def document(self, *, data_file: str, encoder: str, left_out: Sequence[str]) -> dict[str, Any]:
        """The JSON document.

        Args:
            data_file: what was read.
            encoder: name of the encoder.
            left_out: texts of the queries that were left out, as they were in training.
        """
        return {
            "format": "gpu_select.validation",
            "version": 1,
            "data_file": data_file,
            "encoder": encoder,
            "queries": len(self.table.queries),
            "models": self.table.models,
            "left_out": {
                "in_training": len(left_out),
                "examples": [text[:_EXAMPLE_CHARACTERS] for text in left_out[:_N_EXAMPLES]],
            },
            "strategies": [asdict(strategy) for strategy in self.strategies],
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "domains": [asdict(row) for row in self.domains],
            "curves": [
                {"strategy": name, "against": against, "points": [asdict(point) for point in points]}
                for (name, against), points in self.curves.items()
            ],
            "confidence": [
                {"strategy": name, "bins": [asdict(found) for found in bins]} for name, bins in self.confidence.items()
            ],
        }


def validate(
    table: OutcomeTable,
    selections: Mapping[str, Selection],
    *,
    domain_models: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Validation:
    """Compare selectors with baselines in every way.

    Args:
        table: Q queries x M models, held out from training.
        selections: by selector name.
        domain_models: the best model of each domain on the training data, as in `evaluate`.
        seed: of the bootstrap.

    Raises:
        DataError: nothing to compare: no query has an outcome.
    """
    choices = {name: selection.choice_Q for name, selection in selections.items()}
    played = play(table, choices, domain_models=domain_models)
    curves = {
        (name, against): curve(played, selection, price_QM)
        for name, selection in selections.items()
        for against, price_QM in (("cost", played.cost_usd_QM), ("latency", played.latency_s_QM))
    }
    bins = {name: confidence(played, name, selection, seed=seed) for name, selection in selections.items()}
    return Validation(
        table=table,
        best_single=played.best_single,
        strategies=summarize(played, seed=seed),
        comparisons=compare(played, seed=seed),
        domains=by_domain(played, selections),
        curves={key: points for key, points in curves.items() if points},
        confidence={name: found for name, found in bins.items() if found},
    )
