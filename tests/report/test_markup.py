from __future__ import annotations

import json
import re
import string
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from gpu_select.report.markup import Html, chart_text, clean, element, inline_json, inline_script, join, shortened

hostile = st.text(st.characters(exclude_categories=["Cs"])) | st.text(st.sampled_from("<>&\"'/=;!-$%{}scriptb \u202e"))


class Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


def parsed(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


@given(hostile, hostile)
def test_a_text_stays_a_text(text, attribute):
    reader = parsed(element("p", element("b", text), "|", text, title=attribute))
    assert reader.tags == ["p", "b"]
    assert "".join(reader.texts) == f"{clean(text)}|{clean(text)}"
    assert dict(reader.attributes)["title"] == clean(attribute)


def test_html_is_not_escaped_twice():
    assert join([Html("<b>x</b>"), "<b>"]) == "<b>x</b>&lt;b&gt;"


def test_attributes():
    assert element("p", "x", class_="a", data_sort=1.5, hidden=True, title=None, id=False) == (
        '<p class="a" data-sort="1.5" hidden>x</p>'
    )
    assert element("meta", name="viewport") == '<meta name="viewport">'


def test_what_turns_the_writing_direction_or_controls_a_terminal_is_replaced():
    assert clean("a\u202eb\x00c\x1b[1m\nd\te\u2028f") == "a\ufffdb\ufffdc\ufffd[1m d e f"


@given(hostile)
def test_the_json_ends_no_script_and_reads_back(text):
    written = inline_json({"name": text})
    assert not re.search("[<>&\u2028\u2029]", written)
    assert json.loads(written) == {"name": text}


def test_a_script_cannot_be_ended_by_its_own_literals():
    code = inline_script("a = '</script>'; b = '</SCRIPT'; c = '<!-- x'; d = 1 </re/;")
    assert code == "a = '<\\/script>'; b = '<\\/SCRIPT'; c = '<\\!-- x'; d = 1 </re/;"


@given(hostile)
def test_a_chart_label_holds_no_markup(text):
    assert "<" not in chart_text(text)
    assert not re.search(r"&(?!amp;|lt;|gt;)", chart_text(text))


@given(st.text(string.printable, max_size=40), st.integers(3, 20))
def test_a_long_text_keeps_both_ends(text, limit):
    short = shortened(text, limit)
    assert len(short) == min(len(text), limit)
    if len(text) > limit:
        start, end = short.split("…")
        assert clean(text).startswith(start)
        assert clean(text).endswith(end)
