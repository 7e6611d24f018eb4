"""Rules on the device: which decision each query of a batch falls under."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from gpu_select.config import DomainCondition, KeywordCondition, KeywordRule, Rule
from gpu_select.domains import KNOWN_DOMAINS

__all__ = ["DecisionRules"]


class DecisionRules(nn.Module):
    """The first of R rules that holds.

    Args:
        rules: in the order in which they are tried.

    Attributes:
        keyword_rules: the C keyword rules that occur in them.
        ask_for_domains: whether any of them looks at a query's domain.
    """

    holds_KR: Tensor

    def __init__(self, rules: Sequence[Rule]) -> None:
        super().__init__()
        leaves = [leaf for rule in rules for leaf in _leaves(rule)]
        self.keyword_rules: tuple[KeywordRule, ...] = tuple(
            dict.fromkeys(leaf.rule for leaf in leaves if isinstance(leaf, KeywordCondition))
        )
        self.ask_for_domains = any(isinstance(leaf, DomainCondition) for leaf in leaves)
        # Without keywords, a rule says the same of all queries of a domain: one table for all such rules.
        every_K = torch.arange(len(KNOWN_DOMAINS))
        nothing_KC = torch.zeros(len(KNOWN_DOMAINS), len(self.keyword_rules), dtype=torch.bool)
        self.register_buffer("holds_KR", torch.stack([self._holds(rule, every_K, nothing_KC) for rule in rules], dim=1))
        self._with_keywords = [
            (r, rule)
            for r, rule in enumerate(rules)
            if any(isinstance(leaf, KeywordCondition) for leaf in _leaves(rule))
        ]

    def forward(self, domain_B: Tensor, keywords_BC: Tensor) -> Tensor:
        """The rule of each query. No host sync.

        Args:
            domain_B: (B,) int64, indices into `domains.KNOWN_DOMAINS`.
            keywords_BC: (B, C) bool, whether each of `keyword_rules` holds.

        Returns:
            (B,) int64 in [0, R]; R where no rule holds.
        """
        holds_BR = self.holds_KR[domain_B]
        for r, rule in self._with_keywords:
            holds_BR[:, r] = self._holds(rule, domain_B, keywords_BC)
        # the first of the largest values
        return torch.cat([holds_BR, holds_BR.new_ones(len(holds_BR), 1)], dim=1).byte().argmax(dim=1)

    def _holds(self, rule: Rule, domain_B: Tensor, keywords_BC: Tensor) -> Tensor:
        if isinstance(rule, DomainCondition):
            return domain_B == KNOWN_DOMAINS.index(rule.name)
        if isinstance(rule, KeywordCondition):
            return keywords_BC[:, self.keyword_rules.index(rule.rule)]
        parts = [self._holds(condition, domain_B, keywords_BC) for condition in rule.conditions]
        if rule.operator == "NOT":
            return ~parts[0]
        if not parts:  # an AND of nothing
            return torch.ones_like(domain_B, dtype=torch.bool)
        joined_BP = torch.stack(parts, dim=1)
        return joined_BP.all(dim=1) if rule.operator == "AND" else joined_BP.any(dim=1)


def _leaves(rule: Rule) -> Iterator[DomainCondition | KeywordCondition]:
    if isinstance(rule, (DomainCondition, KeywordCondition)):
        yield rule
    else:
        for condition in rule.conditions:
            yield from _leaves(condition)
