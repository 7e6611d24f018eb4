"""The 14 domains: the names users write, and the fixed order of the one-hot that production routers build."""

from __future__ import annotations

from gpu_select.errors import ConfigError

__all__ = ["DEFAULT_DOMAIN", "DOMAIN_NAMES", "KNOWN_DOMAINS", "N_DOMAINS", "WIRE_ORDER", "domain_index"]

WIRE_ORDER = (
    "math",
    "physics",
    "chemistry",
    "biology",
    "computer science",
    "history",
    "economics",
    "business",
    "law",
    "health",
    "psychology",
    "philosophy",
    "other",
    "unknown",
)
"""Slot i of the one-hot is WIRE_ORDER[i]."""

N_DOMAINS = len(WIRE_ORDER)

DEFAULT_DOMAIN = "other"
"""The domain of a query that comes with none."""

DOMAIN_NAMES = tuple(sorted({*WIRE_ORDER, "engineering"} - {"unknown"}))
"""The documented names. `engineering` has no slot of its own: it lands in `other`. `unknown` is valid input too."""

KNOWN_DOMAINS = (*DOMAIN_NAMES, "unknown")
"""Everything that is valid input. Rules tell all of these apart, while the one-hot has no slot for `engineering`."""

_INDEX = {name: slot for slot, name in enumerate(WIRE_ORDER)} | {"engineering": WIRE_ORDER.index("other")}


def domain_index(name: object) -> int:
    """Slot of a domain name in the one-hot.

    Raises:
        ConfigError: the name is none of the documented ones; the text lists them.
    """
    index = _INDEX.get(name) if isinstance(name, str) else None
    if index is None:
        raise ConfigError("domain", name, f"one of {', '.join(KNOWN_DOMAINS)}")
    return index
