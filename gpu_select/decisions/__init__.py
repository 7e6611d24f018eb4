"""The parts of a router of decisions: rules, keywords, rankings, the files behind them, and what comes out."""

from __future__ import annotations

from gpu_select.decisions.artifacts import DecisionArtifacts, load_decision_artifacts
from gpu_select.decisions.keywords import KeywordMatcher
from gpu_select.decisions.ranking import CandidateRanking, Ranked
from gpu_select.decisions.results import DECISION_FIELDS, Decided, DecisionRoutes, Query
from gpu_select.decisions.rules import DecisionRules

__all__ = [
    "DECISION_FIELDS",
    "CandidateRanking",
    "Decided",
    "DecisionArtifacts",
    "DecisionRoutes",
    "DecisionRules",
    "KeywordMatcher",
    "Query",
    "Ranked",
    "load_decision_artifacts",
]
