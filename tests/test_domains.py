"""The 14 names users write, and the 14 slots that routers build; they are not the same."""

from __future__ import annotations

import pytest

from gpu_select.domains import DEFAULT_DOMAIN, DOMAIN_NAMES, N_DOMAINS, WIRE_ORDER, domain_index
from gpu_select.errors import ConfigError

IN_FILES = (
    "math, physics, chemistry, biology, computer science, history, economics, business, law, health, psychology, "
    "philosophy, other, unknown"
)
FOR_USERS = (
    "biology, business, chemistry, computer science, economics, engineering, health, history, law, math, other, "
    "philosophy, physics, psychology"
)
SLOTS, DOCUMENTED = IN_FILES.split(", "), FOR_USERS.split(", ")


def test_the_order_of_slots_is_fixed():
    assert list(WIRE_ORDER) == SLOTS
    assert N_DOMAINS == 14
    assert [domain_index(name) for name in SLOTS] == list(range(14))


def test_the_documented_names():
    assert list(DOMAIN_NAMES) == DOCUMENTED
    assert DEFAULT_DOMAIN == "other"
    assert {name: SLOTS[domain_index(name)] for name in DOCUMENTED} == {
        name: "other" if name == "engineering" else name for name in DOCUMENTED
    }


@pytest.mark.parametrize(
    "name", ["cooking", "Math", " math", "", "computer_science", "a" * 1000, 3, True, None, ["math"], {}]
)
def test_other_names_are_an_error_that_lists_the_valid_ones(name):
    with pytest.raises(ConfigError) as caught:
        domain_index(name)
    start = f"domain: expected one of {FOR_USERS}, unknown, got "
    assert str(caught.value).startswith(start)
    assert str(caught.value) == start + repr(name) or len(repr(name)) > 80
    assert len(str(caught.value)) < len(start) + 81
