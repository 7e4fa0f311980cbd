"""Ten explanations on one page, and one alone, as a browser shows them.

Skipped where Chromium or Playwright is missing. With ``SCREENSHOTS`` naming a folder, the pictures
are left there to be looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from captum_aml.text import Explanation, write_explanations
from captum_aml.text.inputs import PAIR_SEPARATOR
from captum_aml.text.segmentation import sentence_spans, word_spans
from captum_aml.visualization.segments import printable
from tests._helpers.scripts import TEXTS
from tests._helpers.text_models import EXPLANATION as MASKED

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ElementHandle, Page

Rgb = tuple[float, float, float]

EVIL = "<script>document.title = 'taken'</script> &lt;b&gt; &amp; \"' onload=x \x00\x1b[31m\u202e"


def explanation(text: str, *, unit: str = "token", **changes: object) -> Explanation:
    """Scores for the words or sentences of a text, in [0, 1], or in [-1, 1] where signed."""
    spans = sentence_spans(text) if unit == "sentence" else word_spans(text)
    low = -1.0 if changes.get("signed") else 0.0
    step = (1 - low) / max(1, len(spans) - 1)
    return replace(
        MASKED,
        **{
            "text": text,
            "tokens": tuple(text[a:b] for a, b in spans),
            "offsets": tuple(spans),
            "scores": tuple(round(low + i * step, 3) for i in range(len(spans))),
            "unit": unit,
            **changes,
        },
    )


def ten() -> list[Explanation]:
    first, second = "A soccer game with several men playing.", "Some men are playing a sport."
    pair = first + PAIR_SEPARATOR + second
    borders = ((0, len(first)), (len(first) + 1, len(pair)))
    long = explanation("a text that is longer than the model takes")
    unseen = " and goes on where it was cut off" * 3
    return [
        explanation("a gripping, beautifully shot film"),
        explanation("It isn't bad at all, but the plot is a mess.", signed=True, method="ig"),
        explanation(pair, parts=borders, predicted_label="entailment"),
        explanation(
            TEXTS["latin"] + " And so on, for a line or two.", unit="sentence", signed=True
        ),
        replace(long, text=long.text + unseen, n_tokens_cut=1234),
        explanation(TEXTS["chinese"] + TEXTS["japanese"]),
        explanation(TEXTS["arabic"], signed=True),
        explanation(TEXTS["emoji"] + " " + TEXTS["devanagari"] + TEXTS["thai"]),
        explanation(EVIL, predicted_label=EVIL, target_label=EVIL * 2, method=EVIL),
        explanation("x" * 300, predicted_label="label" * 40, method="method" * 40),
    ]


@pytest.fixture
def browser_page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda r: r.url.startswith("file:") or complaints.append(r.url))
    yield page
    page.close()
    assert complaints == []


def luminance(color: Rgb) -> float:
    linear = [
        c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: Rgb, second: Rgb) -> float:
    """The contrast ratio of two colours as WCAG 2 defines it."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def parsed(color: str) -> tuple[Rgb, float]:
    red, green, blue, *rest = map(float, re.findall(r"[\d.]+", color))
    return (red, green, blue), (rest[0] if rest else 1.0)


def colors(element: ElementHandle) -> tuple[Rgb, Rgb]:
    """The colour of an element's text, and of what lies behind it."""
    ink, grounds = element.evaluate(
        """element => {
            const grounds = [];
            for (let e = element; e; e = e.parentElement)
                grounds.push(getComputedStyle(e).backgroundColor);
            return [getComputedStyle(element).color, grounds];
        }"""
    )
    behind: Rgb = (255, 255, 255)
    for ground in reversed(grounds):
        color, alpha = parsed(ground)
        behind = tuple(alpha * c + (1 - alpha) * b for c, b in zip(color, behind, strict=True))
    return parsed(ink)[0], behind


def screenshot(page: Page, name: str) -> bytes:
    folder = os.environ.get("SCREENSHOTS")
    path = Path(folder) / f"{name}.png" if folder else None
    return page.screenshot(full_page=True, path=path)


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
class TestTen:
    @pytest.fixture
    def shown(self, browser_page: Page, tmp_path: Path, mode: str, width: int) -> Page:
        path = tmp_path / "page.html"
        write_explanations(path, ten(), title="Ten", subtitle="explanations " * 9 + "x" * 90)
        browser_page.set_viewport_size({"width": width, "height": 900})
        browser_page.emulate_media(color_scheme=mode)
        browser_page.goto(path.as_uri())
        return browser_page

    def test_texts_are_those_that_were_given(self, shown: Page) -> None:
        assert shown.title() == "Ten"
        assert shown.locator("article").count() == 10
        assert shown.locator("script, img, iframe, b").count() == 0
        expected = [printable(e.text[a:b]) for e in ten() for a, b in e.parts or [(0, len(e.text))]]
        assert shown.locator("article .text").all_text_contents() == expected
        assert shown.locator("article .which").all_text_contents() == ["1", "2"]
        assert shown.locator("article .cut").all_text_contents() == [
            "1,234 tokens cut off: the text is longer than the model takes."
        ]

    def test_everything_is_inside_the_window(self, shown: Page, width: int, mode: str) -> None:
        assert len(screenshot(shown, f"ten-{mode}-{width}")) > 10_000
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        outside = shown.evaluate(
            """width => Array.from(document.querySelectorAll("body *"))
                .filter(e => e.getBoundingClientRect().right > width + 0.5
                          || e.getBoundingClientRect().left < -0.5)
                .map(e => e.outerHTML.slice(0, 80))""",
            width,
        )
        assert outside == []

    def test_every_text_is_readable(self, shown: Page, mode: str) -> None:
        elements = shown.query_selector_all("article *, header *")
        checked, strongest = 0, 0.0
        for element in elements:
            own_text = element.evaluate(
                "e => Array.from(e.childNodes).some(n => n.nodeType === 3 && n.data.trim())"
            )
            if own_text:
                ink, behind = colors(element)
                assert contrast(ink, behind) >= 4.5, element.inner_text()
                checked += 1
                strongest = max(
                    strongest, contrast(behind, colors(shown.query_selector("article"))[1])
                )
        assert checked > 100
        assert strongest > 1.8, "the highest scores stand out from the ground"
        (ground, _) = parsed(shown.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert (luminance(ground) < 0.1) == (mode == "dark")

    def test_scores_are_shown_on_hover(self, shown: Page) -> None:
        spans = shown.locator("article .text span[title]:not(.unseen)")
        titles = spans.evaluate_all("spans => spans.map(s => s.title)")
        scores = [f"{score:+.3f}" for e in ten() for score in e.scores]
        assert titles == scores
        unseen = shown.locator("article .unseen")
        assert unseen.get_attribute("title") == "beyond the model's maximum length"
        assert "goes on where it was cut off" in unseen.text_content()

    def test_text_runs_from_right_to_left_where_it_has_to(self, shown: Page) -> None:
        text = shown.locator("article", has_text=TEXTS["arabic"][:10]).locator(".text")
        assert text.evaluate("e => getComputedStyle(e).direction") == "rtl"
        first, last = text.locator("span").first, text.locator("span").nth(2)
        assert first.bounding_box()["x"] > last.bounding_box()["x"]


#: How pages say which theme they have.
THEMES = {
    "jupyterlab": '<body data-jp-theme-light="{}">',
    "vscode": '<body class="vscode-{}">',
    "sphinx": '<body data-theme="{}">',
}


@pytest.mark.parametrize("mode", ["light", "dark"])
class TestFragment:
    """In a page of somebody else, with a style of its own."""

    def open(self, page: Page, folder: Path, body: str = "<body>") -> None:
        path = folder / "notebook.html"
        style = ".row { margin: -99px } .label { color: white } p { color: lime } .p { opacity: 0 }"
        head = f"<!DOCTYPE html><title>N</title><style>{style}</style>"
        shown = "".join(e.to_html() for e in ten())
        path.write_text(f"{head}{body}<p class='mine'>mine</p>{shown}", encoding="utf-8")
        page.goto(path.as_uri())

    def dark(self, page: Page) -> bool:
        ground = page.locator(".captum-aml article").first.evaluate(
            "e => getComputedStyle(e).backgroundColor"
        )
        return luminance(parsed(ground)[0]) < 0.1

    def test_follows_the_system(self, browser_page: Page, tmp_path: Path, mode: str) -> None:
        browser_page.emulate_media(color_scheme=mode)
        self.open(browser_page, tmp_path)
        assert self.dark(browser_page) == (mode == "dark")
        for element in browser_page.query_selector_all(".captum-aml span, .captum-aml p.caml-cut"):
            if element.text_content():
                ink, behind = colors(element)
                assert contrast(ink, behind) >= 4.5, element.inner_text()
        screenshot(browser_page, f"fragment-{mode}")

    @pytest.mark.parametrize("theme", THEMES)
    def test_follows_the_theme_of_its_page(
        self, browser_page: Page, tmp_path: Path, mode: str, theme: str
    ) -> None:
        browser_page.emulate_media(color_scheme="light" if mode == "dark" else "dark")
        name = {"dark": "false", "light": "true"}[mode] if theme == "jupyterlab" else mode
        self.open(browser_page, tmp_path, THEMES[theme].format(name))
        assert self.dark(browser_page) == (mode == "dark")

    def test_neither_changes_the_page_nor_is_changed(
        self, browser_page: Page, tmp_path: Path, mode: str
    ) -> None:
        browser_page.emulate_media(color_scheme=mode)
        self.open(browser_page, tmp_path)
        mine = browser_page.query_selector("p.mine")
        assert colors(mine) == ((0, 255, 0), (255, 255, 255))
        row = browser_page.locator(".captum-aml .caml-row").first
        assert row.evaluate("e => getComputedStyle(e).marginLeft") == "0px"
        token = browser_page.locator(".captum-aml .caml-p").first
        assert token.evaluate("e => getComputedStyle(e).opacity") == "1"
        assert browser_page.title() == "N"

    def test_alone_in_a_file(self, browser_page: Page, tmp_path: Path, mode: str) -> None:
        # Nothing says which encoding it is but the fragment itself.
        browser_page.emulate_media(color_scheme=mode)
        browser_page.set_viewport_size({"width": 400, "height": 900})
        text = TEXTS["emoji"] + TEXTS["cyrillic"]
        path = tmp_path / "alone.html"
        path.write_text(explanation(text).to_html(), encoding="utf-8")
        browser_page.goto(path.as_uri())
        assert browser_page.locator(".caml-text").text_content() == text
        assert browser_page.evaluate("document.documentElement.scrollWidth") == 400
