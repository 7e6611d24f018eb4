"""Rules on tensors decide as the same rules read one query at a time."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.config import DomainCondition, Junction, KeywordCondition, KeywordRule
from gpu_select.decisions import DecisionRules
from gpu_select.domains import KNOWN_DOMAINS

RULES = [KeywordRule(name, "OR", (name,)) for name in "xyz"]
LEAVES = st.sampled_from(
    [*map(DomainCondition, ("law", "math", "other", "engineering", "unknown")), *map(KeywordCondition, RULES)]
)


def junctions(inner):
    joined = st.builds(Junction, st.sampled_from(["AND", "OR"]), st.lists(inner, min_size=1, max_size=3).map(tuple))
    negated = st.builds(Junction, st.just("NOT"), inner.map(lambda one: (one,)))
    return joined | negated | st.just(Junction("AND", ()))


TREES = st.recursive(LEAVES, junctions, max_leaves=8)


def reading(rule, domain, keywords):
    if isinstance(rule, DomainCondition):
        return rule.name == domain
    if isinstance(rule, KeywordCondition):
        return rule.rule.name in keywords
    parts = [reading(condition, domain, keywords) for condition in rule.conditions]
    return {"AND": all, "OR": any, "NOT": lambda p: not p[0]}[rule.operator](parts)


@given(
    trees=st.lists(TREES, min_size=1, max_size=5),
    queries=st.lists(
        st.tuples(st.sampled_from(KNOWN_DOMAINS), st.sets(st.sampled_from("xyz"))), min_size=1, max_size=9
    ),
)
def test_the_first_rule_that_holds(trees, queries):
    rules = DecisionRules(trees)
    domain_B = torch.tensor([KNOWN_DOMAINS.index(domain) for domain, _ in queries])
    keywords_BC = torch.tensor([[rule.name in found for rule in rules.keyword_rules] for _, found in queries]).bool()
    expected = [next((r for r, tree in enumerate(trees) if reading(tree, *query)), len(trees)) for query in queries]
    assert rules(domain_B, keywords_BC.reshape(len(queries), -1)).tolist() == expected


def test_what_rules_ask_for():
    keyword, domain = KeywordCondition(RULES[0]), DomainCondition("law")
    asking = DecisionRules([Junction("AND", (keyword, Junction("NOT", (domain,)))), keyword])
    assert (asking.keyword_rules, asking.ask_for_domains) == ((RULES[0],), True)
    assert DecisionRules([keyword, Junction("AND", ())]).ask_for_domains is False
    assert DecisionRules([domain]).keyword_rules == ()
