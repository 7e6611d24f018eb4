"""The rules of decisions: which domains and keywords they ask for, joined by AND, OR and NOT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from gpu_select.config.environment import shown
from gpu_select.config.sections import Section
from gpu_select.domains import KNOWN_DOMAINS
from gpu_select.errors import brief

__all__ = [
    "DomainCondition",
    "Junction",
    "KeywordCondition",
    "KeywordRule",
    "Rule",
    "parse_keyword_rules",
    "parse_rule",
]

_MOST = 10_000
"""Keyword rules, keywords of one, and conditions under one operator."""


@dataclass(frozen=True)
class KeywordRule:
    """A named question about a query's text."""

    name: str
    operator: Literal["AND", "OR", "NOR"]
    """Whether all keywords have to occur, any of them, or none."""
    keywords: tuple[str, ...]
    case_sensitive: bool = False


@dataclass(frozen=True)
class DomainCondition:
    """The query's domain is this one."""

    name: str


@dataclass(frozen=True)
class KeywordCondition:
    """A keyword rule holds for the query's text."""

    rule: KeywordRule


@dataclass(frozen=True)
class Junction:
    """Conditions under an operator: all of them, any of them, or not the only one."""

    operator: Literal["AND", "OR", "NOT"]
    conditions: tuple[Rule, ...]
    """An AND without conditions always holds."""


Rule = DomainCondition | KeywordCondition | Junction


def parse_keyword_rules(top: Section) -> dict[str, KeywordRule]:
    """The `keyword_rules` of a configuration, by name."""
    rules: dict[str, KeywordRule] = {}
    for where, value in top.items("keyword_rules", "rules", most=_MOST):
        section = Section(value, where, top.problems)
        name = section.text("name", required=True) or ""
        operator = section.choice("operator", ("AND", "OR", "NOR"), required=True) or "OR"
        keywords = tuple(_keywords(section))
        case_sensitive = section.boolean("case_sensitive") or False
        section.finish()
        if name in rules:
            top.problems.add(section.path("name"), f"expected each name once, got {brief(name)} again")
        rules[name] = KeywordRule(name, cast(Any, operator), keywords, case_sensitive)
    return rules


def _keywords(section: Section) -> list[str]:
    out = []
    for where, value in section.items("keywords", "keywords", least=1, most=_MOST):
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            section.problems.add(where, f"expected a text of one line that is not empty, got {shown(value)}")
        else:
            out.append(str(value).strip())
    return out


def parse_rule(value: Any, where: str, keyword_rules: Mapping[str, KeywordRule], parent: Section) -> Rule:
    """A condition (type and name), or conditions under an operator.

    Args:
        value: as `load_yaml` gives it.
        where: its path.
        keyword_rules: what conditions of type keyword may name.
        parent: the section it stands in.
    """
    section = Section(value, where, parent.problems)
    rule: Rule
    if "type" in section.names():
        rule = _condition(section, keyword_rules)
    else:
        operator = section.choice("operator", ("AND", "OR", "NOT"), required=True) or "AND"
        least, most = {"AND": (0, _MOST), "OR": (1, _MOST), "NOT": (1, 1)}[operator]
        if operator == "NOT" and isinstance(value, dict) and isinstance(value.get("conditions"), list):
            n = len(value["conditions"])
            if n > 1:
                cure = "put them under one OR or AND inside it"
                section.problems.add(section.path("conditions"), f"expected one condition under NOT, got {n}: {cure}")
                most = _MOST
        inner = section.items("conditions", "conditions", least=least, most=most)
        rule = Junction(
            cast(Any, operator), tuple(parse_rule(item, place, keyword_rules, section) for place, item in inner)
        )
    section.finish()
    return rule


def _condition(section: Section, keyword_rules: Mapping[str, KeywordRule]) -> Rule:
    kind = section.choice("type", ("domain", "keyword"), required=True)
    name = section.text("name", required=True)
    if name is None or kind is None:
        return DomainCondition("")
    if kind == "domain":
        if name not in KNOWN_DOMAINS:
            section.expected("name", f"one of {', '.join(KNOWN_DOMAINS)}")
        return DomainCondition(name)
    if name not in keyword_rules:
        known = f"one of {', '.join(keyword_rules)}, as keyword_rules names them" if keyword_rules else None
        section.expected("name", known or "the name of one of keyword_rules, of which there are none")
        return DomainCondition("")
    return KeywordCondition(keyword_rules[name])
