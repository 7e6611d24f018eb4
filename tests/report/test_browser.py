"""The page in a real browser: all of it is drawn, nothing is fetched, nothing fails, at any size and theme."""

from __future__ import annotations

import copy
import json
import re

import pytest

HOSTILE = [
    "</script><img src=x onerror=\"document.title='owned'\">",
    "<b>bold</b>&lt;i&gt;",
    "$\\alpha$ %{x} ${y} $$",
    '"onmouseover="alert(1)',
    "\u202emodel\u0000\u2028name " + "x" * 300,
    "&amp;lt;svg onload=alert(1)&gt;",
    "-->]]><style>*{display:none}</style>",
]
DRAWN = """(() => [...document.querySelectorAll('.chart')].map(box => [
    box.id,
    box.querySelectorAll('.main-svg').length,
    box.querySelectorAll('.scatterlayer .trace, .barlayer .trace').length,
]))()"""
FITS = """(() => {
    const page = document.documentElement;
    const scrolls = [...document.querySelectorAll('.scroll')].map(box => box.getBoundingClientRect().right);
    return [page.scrollWidth, page.clientWidth, Math.max(0, ...scrolls)];
})()"""


@pytest.fixture
def opened(browser, page, tmp_path):
    """Call with documents, then options of `open`: the page in a tab."""
    tabs = []

    def run(*documents, edit=lambda text: text, **options):
        path = tmp_path / "opened.html"
        path.write_text(edit(page(*documents)), encoding="utf-8")
        tabs.append(browser.page())
        return tabs[-1].__enter__().open(path, **options)

    yield run
    for tab in tabs:
        tab.__exit__(None, None, None)


def faults(tab):
    return (
        tab.seen.errors,
        tab.run("document.documentElement.dataset.faults"),
        tab.run("document.body.innerText.length"),
    )


def check_sound(tab, n_charts):
    errors, counted, length = faults(tab)
    assert errors == []
    assert counted is None
    assert length > 1000
    assert [url for url in tab.seen.requests if not url.startswith(("file://", "data:"))] == []
    assert len([url for url in tab.seen.requests if url.startswith("file://")]) == 1
    drawn = tab.run(DRAWN)
    assert len(drawn) == n_charts
    for name, n_pictures, n_traces in drawn:
        assert n_pictures > 0, name
        assert n_traces > 0, name


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_drawn_whole_and_fits(opened, validation, tuning, width, dark):
    tab = opened(validation, tuning, width=width, dark=dark)
    check_sound(tab, 20)
    scroll_width, client_width, right = tab.run(FITS)
    assert scroll_width == client_width == width
    assert right <= width
    color = tab.run("getComputedStyle(document.body).backgroundColor")
    assert color == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")
    tick = tab.run("getComputedStyle(document.querySelector('.ytick text')).fill")
    assert tick == ("rgb(164, 171, 182)" if dark else "rgb(92, 99, 110)")


def test_the_check_for_errors_can_fail(opened, validation):
    """The same page with a script that throws, one that finds no library, and a picture from elsewhere."""
    thrown = opened(validation, edit=lambda text: broken(text, 'document.getElementById("charts")', "nowhere.at.all"))
    errors, _, _ = faults(thrown)
    assert any("nowhere is not defined" in error for error in errors)
    with pytest.raises(AssertionError):
        check_sound(thrown, 11)

    failing = opened(validation, edit=lambda text: broken(text, "window.Plotly.react(", "window.Plotly.missing("))
    assert failing.run("document.documentElement.dataset.faults") == "11"
    assert "This chart could not be drawn" in failing.run("document.body.innerText")

    picture = '<img src="https://example.com/x.png" alt=""><main>'
    fetched = opened(validation, edit=lambda text: text.replace("<main>", picture, 1))
    assert fetched.run("document.documentElement.dataset.faults") == "1" or fetched.seen.errors
    assert any("Content Security Policy" in error for error in fetched.seen.errors)


def broken(text, old, new):
    """The page with a changed script that the policy lets run all the same."""
    assert old in text
    open_policy = re.sub(r"script-src [^;]+;", "script-src &#x27;unsafe-inline&#x27;;", text, count=1)
    return open_policy.replace(old, new)


def test_a_script_that_was_not_there_does_not_run(opened, validation):
    injected = "<main><script>document.title = 'owned'</script>"
    tab = opened(validation, edit=lambda text: text.replace("<main>", injected, 1))
    assert tab.run("document.title") == "Routing quality"
    assert any("Content Security Policy" in error for error in tab.seen.errors)


def test_hostile_names_are_shown_and_do_nothing(opened, make_validation, tuning):
    validation = make_validation(HOSTILE, [(name, 20 + i) for i, name in enumerate(HOSTILE)])
    validation = json.loads(json.dumps(validation).replace('"mlp"', json.dumps(HOSTILE[0])))
    validation.update(data_file=HOSTILE[0], encoder=HOSTILE[1])
    validation["left_out"]["examples"] = HOSTILE
    tuning = json.loads(
        json.dumps(tuning).replace('"n_neighbors"', json.dumps(HOSTILE[1])).replace('"rbf"', json.dumps(HOSTILE[2]))
    )
    tab = opened(validation, tuning, width=390)
    check_sound(tab, 20)
    assert tab.run("document.title") == "Routing quality"
    assert tab.run("document.querySelectorAll('img, iframe, .chart a, [onerror], [onload], [onmouseover]').length") == 0
    assert tab.run("document.body.querySelectorAll('style').length") == 0
    scroll_width, client_width, _ = tab.run(FITS)
    assert scroll_width == client_width
    labels = tab.run("[...document.querySelectorAll('.ytick text')].map(label => label.textContent)")
    assert any("</script>" in label for label in labels)
    assert any("<b>bold</b>&lt;i&gt;" in label for label in labels)
    assert tab.run("document.querySelectorAll('.ytick tspan[style*=bold]').length") == 0


def test_a_table_sorts_by_the_column_that_is_clicked(opened, validation):
    tab = opened(validation)
    names = "[...document.querySelectorAll('table.sortable tbody tr')].map(row => row.cells[0].dataset.sort)"
    click = "document.querySelectorAll('table.sortable th button')[{}].click()"
    sort = "[...document.querySelectorAll('table.sortable th')].map(cell => cell.getAttribute('aria-sort'))"
    assert tab.run(names)[:3] == ["oracle", "svm", "mlp"]
    tab.run(click.format(0))
    assert tab.run(names) == sorted(tab.run(names), key=str.casefold)
    assert tab.run(sort)[:2] == ["ascending", None]
    tab.run(click.format(0))
    assert tab.run(names) == sorted(tab.run(names), key=str.casefold, reverse=True)
    tab.run(click.format(1))
    qualities = {s["name"]: s["mean_quality"] for s in validation["strategies"]}
    shown = [qualities[name] for name in tab.run(names)]
    assert shown == sorted(shown, reverse=True)
    tab.run(click.format(1))
    shown = [qualities[name] for name in tab.run(names)]
    assert shown == sorted(shown)
    assert tab.run(sort)[:3] == [None, "ascending", None]


def test_unknown_values_are_sorted_last_either_way(opened, validation):
    validation["strategies"][1]["gap_share"] = None
    tab = opened(validation)
    column = "[...document.querySelectorAll('table.sortable tbody tr')].map(row => row.cells[4].dataset.sort)"
    for _ in range(2):
        tab.run("document.querySelectorAll('table.sortable th')[4].querySelector('button').click()")
        assert tab.run(column)[-1] == ""
        assert tab.run(column)[0] != ""


def test_the_charts_follow_the_theme_and_the_window(opened, validation):
    tab = opened(validation, width=1280)
    wide = tab.run("document.querySelector('.chart .main-svg').clientWidth")
    tab.media(scheme="dark")
    tab.settle()
    assert tab.run("getComputedStyle(document.querySelector('.ytick text')).fill") == "rgb(164, 171, 182)"
    tab.resize(600, 900)
    tab.settle()
    narrow = tab.run("document.querySelector('.chart .main-svg').clientWidth")
    assert narrow < 600 < wide
    scroll_width, client_width, _ = tab.run(FITS)
    assert scroll_width == client_width
    check_sound(tab, 11)


def test_paper_is_light_and_no_chart_is_wider(opened, validation, tuning):
    tab = opened(validation, tuning, width=1280, dark=True)
    tab.run(
        """window.addEventListener('beforeprint', () => {
            const pictures = [...document.querySelectorAll('.chart')];
            window.printed = {
                rights: pictures.map(box => box.getBoundingClientRect().left + box.firstElementChild.scrollWidth),
                edge: document.body.getBoundingClientRect().right,
                width: document.body.clientWidth,
                tick: getComputedStyle(document.querySelector('.ytick text')).fill,
            };
        })"""
    )
    assert tab.pdf().startswith(b"%PDF")
    printed = tab.run("window.printed")
    assert len(printed["rights"]) == 20
    assert printed["width"] == 680
    assert max(printed["rights"]) <= printed["edge"] + 1
    assert printed["tick"] == "rgb(92, 99, 110)"
    tab.settle()
    assert tab.run("document.querySelector('.chart .main-svg').clientWidth") > 700  # and back
    assert tab.run("getComputedStyle(document.querySelector('.ytick text')).fill") == "rgb(164, 171, 182)"
    assert tab.seen.errors == []


def test_the_tables_do_without_scripts(opened, validation):
    tab = opened(validation, edit=lambda text: re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))
    assert tab.run("document.querySelectorAll('table.sortable tbody tr').length") == len(validation["strategies"])


def test_what_is_unknown_leaves_a_page_without_faults(opened, validation):
    bare = copy.deepcopy(validation)
    for strategy in bare["strategies"]:
        strategy.update(mean_cost_usd=None, mean_latency_s=None)
    bare.update(curves=[], confidence=[], domains=[], comparisons=[])
    check_sound(opened(bare), 0)
