"""HTML from untrusted texts: whatever is not already HTML is escaped."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable

from gpu_select import jsonio

__all__ = ["Html", "chart_text", "clean", "element", "inline_json", "inline_script", "join", "shortened"]

_VOID = ("br", "meta")
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSAFE_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


class Html(str):
    """A text that is HTML already, and is not escaped again."""

    __slots__ = ()


def clean(text: str) -> str:
    """The text without what changes its surroundings: control characters and marks of writing direction."""
    return "".join(" " if c in "\t\n\r\u2028\u2029" else "\ufffd" if _is_control(c) else c for c in text)


def _is_control(character: str) -> bool:
    # Cs: half of a surrogate pair
    return character in _DIRECTION or unicodedata.category(character) in ("Cc", "Cs")


def shortened(text: str, limit: int) -> str:
    """The cleaned text, its middle left out beyond `limit` characters: names often differ at the end."""
    text = clean(text)
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"


def element(name: str, /, *children: str, **attributes: str | int | float | bool | None) -> Html:
    """One element. Children that are not `Html` are cleaned and escaped; so are attributes.

    Args:
        name: the tag.
        children: texts and elements.
        attributes: a trailing underscore is dropped and others become hyphens; None and False leave one out, True
            gives it no value.
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        parts.append(f" {attribute}" if value is True else f' {attribute}="{html.escape(clean(str(value)))}"')
    parts.append(">")
    if name in _VOID:
        return Html("".join(parts))
    return Html(f"{''.join(parts)}{join(children)}</{name}>")


def join(children: Iterable[str]) -> Html:
    """Texts and elements one after another."""
    return Html("".join(child if isinstance(child, Html) else html.escape(clean(child)) for child in children))


def chart_text(text: str, limit: int = 60) -> str:
    """A text for plotly, which takes tags and entities in labels for markup."""
    return html.escape(shortened(text, limit), quote=False)


def inline_json(value: object) -> str:
    """JSON that may stand within <script>: no character in it can end the element or open another."""
    text = jsonio.dumps(value).decode("utf-8")
    return re.sub("[<>&\u2028\u2029]", lambda match: _UNSAFE_IN_SCRIPT[match[0]], text)


def inline_script(code: str) -> str:
    """Trusted JavaScript that may stand within <script>. In code, `</script` and `<!--` occur only in literals."""
    return re.sub(r"<(?=/script|!--)", r"<\\", code, flags=re.IGNORECASE)
