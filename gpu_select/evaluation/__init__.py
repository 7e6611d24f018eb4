"""Ways to choose, compared on recorded outcomes: selectors, an oracle, single models, lookup tables and chance."""

from gpu_select.evaluation.by_domain import DomainRow, by_domain
from gpu_select.evaluation.comparisons import Comparison, compare
from gpu_select.evaluation.confidence import ConfidenceBin, confidence
from gpu_select.evaluation.curves import CurvePoint, curve
from gpu_select.evaluation.document import Validation, validate
from gpu_select.evaluation.play import Play, Selection, play
from gpu_select.evaluation.strategies import Strategy, evaluate, summarize

__all__ = [
    "Comparison",
    "ConfidenceBin",
    "CurvePoint",
    "DomainRow",
    "Play",
    "Selection",
    "Strategy",
    "Validation",
    "by_domain",
    "compare",
    "confidence",
    "curve",
    "evaluate",
    "play",
    "summarize",
    "validate",
]
