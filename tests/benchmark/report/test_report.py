"""The report: what its tables say, that nothing in it can do harm, and that a browser shows it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pytest

from captum_aml.benchmark.report import results_from_json, results_to_json, write_report
from captum_aml.benchmark.report.markdown import escaped, table, to_markdown
from captum_aml.benchmark.report.page import to_html
from captum_aml.benchmark.report.tables import (
    Entry,
    decimals_for,
    number,
    p_text,
    result_tables,
    summary,
)
from captum_aml.benchmark.results import (
    BenchmarkResults,
    Cell,
    Comparison,
    Cost,
    Curve,
    Failure,
    MethodRow,
    Role,
)
from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics import Metric
from captum_aml.visualization import ScoredText, TextCard
from tests._helpers.benchmark_results import realistic

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EVIL = "</td></script><script>alert(1)</script>\"' onload=alert(1) <img src=x> | `a` **b** \\"
UP = Metric("up", "Up", True, "faithfulness", "More is better.")
DOWN = Metric("down", "Down", False, "plausibility", "Less is better.")
NEITHER = Metric("neither", "Neither", None, "complexity", "As it is.")
COST = Cost(2.0, 1.0, 0.0123, None)


def row(method: str, role: Role = "baseline", **means: float) -> MethodRow:
    cells = {name: Cell(mean, mean - 0.1, mean + 0.1, 10) for name, mean in means.items()}
    return MethodRow(method, role, cells, COST, (0,))


def results(
    *rows: MethodRow, metrics: tuple[Metric, ...] = (UP, DOWN, NEITHER)
) -> BenchmarkResults:
    return BenchmarkResults("model", "data", 10, metrics, rows)


def compared(mean: float, p_value: float, *, better: bool) -> Cell:
    return Cell(mean, mean, mean, 10, Comparison("occlusion", mean - 0.5, p_value, better))


@dataclass
class Tag:
    """An element with what is in it."""

    name: str
    attributes: dict[str, str | None]
    text: str = ""
    children: list[Tag] = field(default_factory=list)

    def find(self, name: str) -> list[Tag]:
        found = [self] if self.name == name else []
        return found + [tag for child in self.children for tag in child.find(name)]


class Parsed(HTMLParser):
    """A page as a tree; complains about an end tag without a start."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Tag("", {})
        self._open = [self.root]
        self.feed(html)
        self.close()
        assert self._open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Tag(tag, dict(attrs))
        self._open[-1].children.append(element)
        if tag not in self.VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Tag(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().name == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data


def parse(found: BenchmarkResults) -> Tag:
    return Parsed("".join(to_html(found))).root


@cache
def realistic_html() -> str:
    return "".join(to_html(realistic()))


def hostile() -> BenchmarkResults:
    card = TextCard(EVIL, EVIL, 0.5, [ScoredText(EVIL, [(0, 5)], [0.5], target=EVIL, detail=EVIL)])
    metric = Metric(EVIL, EVIL, True, "faithfulness", EVIL)
    cell = Cell(0.5, 0.4, 0.6, 9, Comparison(EVIL, 0.1, 0.01, True))
    bad = MethodRow(
        EVIL,
        "learned",
        {EVIL: cell},
        COST,
        (0,),
        training=EVIL,
        failures=[Failure(3, 0, EVIL)],
        settings={EVIL: EVIL},
    )
    return BenchmarkResults(
        EVIL,
        EVIL,
        10,
        [metric],
        [bad, row("other")],
        curves=[Curve(EVIL, (0, 1), (1, 0))],
        examples=[card] * 4,
        protocol=[EVIL],
        settings={EVIL: EVIL},
        versions={EVIL: EVIL},
        fingerprints={EVIL: EVIL},
        notes=[EVIL],
    )


class TestTables:
    def entries(self, found: BenchmarkResults, column: str) -> dict[str, Entry]:
        return {
            line.method: entry
            for part in result_tables(found)
            for line in part.lines
            for head, entry in zip(part.columns, line.entries, strict=True)
            if head.title == column
        }

    def test_the_best_of_each_direction_is_marked(self) -> None:
        found = results(
            row("a", up=0.9, down=0.2, neither=1.0), row("b", up=0.1, down=0.1, neither=2.0)
        )
        best = {
            column: [name for name, entry in self.entries(found, column).items() if entry.best]
            for column in ("Up", "Down", "Neither")
        }
        assert best == {"Up": ["a"], "Down": ["b"], "Neither": []}

    def test_what_looks_equal_is_equally_best(self) -> None:
        found = results(row("a", up=0.90001), row("b", up=0.90002), row("c", up=0.8))
        best = [name for name, entry in self.entries(found, "Up").items() if entry.best]
        assert best == ["a", "b"]

    def test_verdicts(self) -> None:
        rows = [
            replace(row("better", "learned"), cells={"up": compared(0.9, 0.01, better=True)}),
            replace(row("worse", "learned"), cells={"up": compared(0.1, 0.01, better=False)}),
            replace(row("even", "learned"), cells={"up": compared(0.6, 0.05, better=True)}),
            replace(row("untested", "learned"), cells={"up": compared(0.6, math.nan, better=True)}),
            row("occlusion", up=0.5),
        ]
        verdicts = {name: e.verdict for name, e in self.entries(results(*rows), "Up").items()}
        assert verdicts == {
            "better": "better",
            "worse": "worse",
            "even": "n.s.",
            "untested": None,
            "occlusion": None,
        }

    def test_the_note_names_the_baseline_the_difference_and_p(self) -> None:
        ours = replace(row("a", "learned"), cells={"up": compared(0.4, 0.0312, better=False)})
        assert self.entries(results(ours), "Up")["a"].note == (
            "mean over 10 texts; against occlusion, the best baseline by mean: difference −0.100, "
            "p = 0.031 (corrected)"
        )

    def test_fewer_texts_are_shown(self) -> None:
        some = replace(row("a"), cells={"up": Cell(0.5, 0.4, 0.6, 7)})
        entries = self.entries(results(some, row("b", up=0.4)), "Up")
        assert entries["a"].remark == "n = 7"
        assert entries["b"].remark == ""

    def test_missing_values(self) -> None:
        nan = replace(row("nan"), cells={"up": Cell(math.nan, math.nan, math.nan, 0)})
        alone = replace(row("alone"), cells={"up": Cell(0.5, math.nan, math.nan, 1)})
        entries = self.entries(results(nan, row("none"), alone), "Up")
        assert (entries["nan"].text, entries["nan"].value) == ("–", None)
        assert (entries["none"].text, entries["none"].value) == ("–", None)
        assert (entries["alone"].text, entries["alone"].interval) == ("0.500", "")

    def test_lines_stand_by_rank_with_unranked_ones_last(self) -> None:
        rows = [
            replace(row(name), rank=rank) for name, rank in (("c", None), ("b", 2.0), ("a", 1.0))
        ]
        (part,) = result_tables(results(*rows))
        assert [line.method for line in part.lines] == ["a", "b", "c"]

    def test_failures_count_of_all_that_were_tried(self) -> None:
        some = replace(row("a"), seeds=(0, 1, 2), failures=[Failure(1, 0, ""), Failure(1, 1, "")])
        entry = self.entries(results(some), "Failed")["a"]
        assert (entry.text, entry.remark) == ("2", "of 30")

    def test_few_measures_share_a_table_and_many_are_grouped(self) -> None:
        (part,) = result_tables(results(row("a")))
        assert [column.title for column in part.columns] == [
            "Rank", "Up", "Down", "Neither", "Forward passes", "Backward passes", "ms per text",
            "Peak MiB", "Failed",
        ]  # fmt: skip
        many = (UP, replace(UP, name="u2"), replace(UP, name="u3"), DOWN, NEITHER, NEITHER)
        titles = [
            part.title.split(":")[0] for part in result_tables(results(row("a"), metrics=many))
        ]
        assert titles == ["Faithfulness", "Plausibility", "Complexity", "Cost"]

    def test_summary_counts_losses_like_wins(self) -> None:
        cells = {
            "up": compared(0.9, 0.001, better=True),
            "down": compared(0.9, 0.001, better=False),
        }
        found = results(replace(row("ours", "learned"), cells=cells), row("occlusion", up=0.5))
        assert summary(found) == [
            "ours against the best baseline: better on 1 of 2 metrics (Up), worse on 1 (Down), "
            "no significant difference on 0."
        ]

    @pytest.mark.parametrize(
        ("value", "decimals", "shown"),
        [
            (-0.5, 3, "−0.500"),
            (-0.0001, 3, "0.000"),
            (1234.5, 1, "1,234.5"),
            (math.nan, 3, "–"),
            (math.inf, 3, "∞"),
            (-math.inf, 3, "−∞"),
        ],
    )
    def test_numbers(self, value: float, decimals: int, shown: str) -> None:
        assert number(value, decimals) == shown

    @pytest.mark.parametrize(
        ("values", "decimals"),
        [
            ([0.6, -0.2], 3),
            ([1.0], 3),
            ([-3.2], 2),
            ([12.3], 1),
            ([123.0, math.nan], 0),
            ([0.0312], 4),
            ([], 3),
            ([0.0], 3),
            ([math.inf], 3),
            ([1e-30], 9),
        ],
    )
    def test_decimals(self, values: list[float], decimals: int) -> None:
        assert decimals_for(values) == decimals

    def test_p_values(self) -> None:
        assert p_text(0.0004) == "p < 0.001"
        assert p_text(0.0312) == "p = 0.031"


class TestPage:
    def test_cells(self) -> None:
        found = results(row("a", up=0.91, down=0.2, neither=1.0), row("b", up=0.1))
        (main,) = [
            t for t in parse(found).find("table") if "results" in (t.attributes.get("class") or "")
        ]
        head, *body = main.find("tr")
        assert [cell.text for cell in head.find("th")][:4] == [
            "Method",
            "Rank",
            "Up\xa0↑",
            "Down\xa0↓",
        ]
        assert [tr.find("th")[0].text for tr in body] == ["a", "b"]
        first, second = (tr.find("td") for tr in body)
        assert first[1].attributes["data-value"] == "0.91"
        assert first[1].text == "0.9100.810 to 1.010"
        assert [tag.text for tag in first[1].find("strong")] == ["0.910"]
        assert second[2].attributes["data-value"] == ""
        assert second[2].text == "–"

    def test_marks_are_equally_visible(self) -> None:
        rows = [
            replace(row("x", "learned"), cells={"up": compared(0.9, 0.01, better=True)}),
            replace(row("y", "learned"), cells={"up": compared(0.1, 0.01, better=False)}),
        ]
        spans = parse(results(*rows)).find("span")
        marks = [span for span in spans if (span.attributes.get("class") or "").startswith("mark")]
        assert [(mark.attributes["class"], mark.text) for mark in marks] == [
            ("mark better", "better"),
            ("mark worse", "worse"),
        ]

    def test_nothing_hostile_gets_through(self) -> None:
        root = parse(hostile())
        (script,) = root.find("script")
        assert "alert" not in script.text
        assert not root.find("img")
        for tag in [t for child in root.children for t in _all(child)]:
            assert not any(name.startswith("on") for name in tag.attributes)
            assert tag.attributes.get("src") is None
        shown = " ".join(EVIL.split())
        assert root.find("h1")[0].text == f"Attribution methods on {shown}"
        assert root.text.count("alert(1)</script>") > 15

    def test_only_our_script_may_run(self) -> None:
        root = Parsed(realistic_html()).root
        (policy,) = [
            tag.attributes["content"] or ""
            for tag in root.find("meta")
            if tag.attributes.get("http-equiv") == "Content-Security-Policy"
        ]
        (script,) = root.find("script")
        digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
        assert policy.split("; ") == [
            "default-src 'none'",
            "style-src 'unsafe-inline'",
            f"script-src 'sha256-{digest}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]

    def test_loads_nothing(self) -> None:
        html = realistic_html()
        for name in ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"):
            html = html.replace(name, "")
        assert not re.search(r"(?i)https?:|@import|<link|<img|<image|url\((?!#)", html)

    def test_ids_are_unique(self) -> None:
        ids = re.findall(r'\sid="([^"]+)"', realistic_html())
        assert len(ids) == len(set(ids)) > 0

    def test_further_texts_unfold(self) -> None:
        root = Parsed(realistic_html()).root
        folded = [tag for details in root.find("details") for tag in details.find("article")]
        assert len(root.find("article")) == 5
        assert len(folded) == 3

    def test_everything_about_the_run_is_there(self) -> None:
        found = realistic()
        text = Parsed(realistic_html()).root.text
        for shown in (*found.protocol, *found.notes, "RuntimeError: hook met twice in layer 77"):
            assert shown in text
        for mapping in (found.settings, found.versions, found.fingerprints):
            assert all(str(key) in text and str(value) in text for key, value in mapping.items())

    def test_one_method_and_nothing_else(self) -> None:
        root = parse(results(row("only", up=0.5), metrics=(UP,)))
        assert "only" in root.text
        assert not root.find("article")

    def test_no_rows_at_all(self) -> None:
        assert not parse(results()).find("svg")

    def test_hundreds_of_methods(self) -> None:
        rows = [row(f"method-{i}", up=i / 300) for i in range(300)]
        (main,) = parse(results(*rows, metrics=(UP,))).find("tbody")[:1]
        assert len(main.find("tr")) == 300


class TestMarkdown:
    def columns(self, line: str) -> int:
        return len(re.split(r"(?<!\\)(?:\\\\)*\|", line)) - 2

    @pytest.mark.parametrize("found", [realistic(), hostile(), results(row("a"))])
    @pytest.mark.parametrize("texts", [False, True])
    def test_every_row_of_a_table_has_as_many_cells(
        self, found: BenchmarkResults, texts: bool
    ) -> None:
        blocks = re.findall(r"(?m)(?:^\|.*\n)+", to_markdown(found, texts=texts))
        assert len(blocks) >= 3
        for block in blocks:
            lines = block.splitlines()
            assert len({self.columns(line) for line in lines}) == 1
            assert re.fullmatch(r"\|( -+:? \|)+", lines[1])

    def test_cells(self) -> None:
        ours = replace(row("ours", "learned"), cells={"up": compared(0.4, 0.01, better=False)})
        found = results(ours, row("occlusion", up=0.5), row("random", "random", up=0.1))
        lines = [line.split(" | ")[:3] for line in to_markdown(found).splitlines()]
        assert ["| ours (learned)", "–", "0.400 (0.400 to 0.400) *worse*"] in lines
        assert ["| occlusion", "–", "**0.500** (0.400 to 0.600)"] in lines
        assert ["| random", "–", "0.100 (0.000 to 0.200)"] in lines

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("a|b", r"a\|b"),
            ("a\\", "a\\\\"),
            ("a\\|b", r"a\\\|b"),
            ("<b>&", "&lt;b&gt;&amp;"),
            ("one\ntwo\r\n three", "one two three"),
            ("*a* _b_ `c` [d](e) ![f](g) $h$ ~i~", None),
            ("\x1b[31m", r"␛\[31m"),
        ],
    )
    def test_escaping(self, text: str, shown: str | None) -> None:
        if shown is not None:
            assert escaped(text) == shown
        else:
            assert not re.search(r"(?<!\\)[*_`\[\]!$~]", escaped(text))

    def test_table(self) -> None:
        assert table(["a", "b"], [("1", "2")], numeric=1) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"

    def test_holds_no_text_of_the_data_unless_asked(self) -> None:
        secret = "a secret sentence"
        card = TextCard(secret, "positive", 0.9, [ScoredText("m", [(0, 1)], [1.0])])
        failed = replace(row("a"), failures=[Failure(4, 0, f"cannot explain {secret!r}")])
        found = replace(results(failed), examples=[card])
        assert secret not in to_markdown(found)
        assert secret not in to_markdown(found).replace("\\", "")
        shown = to_markdown(found, texts=True)
        assert "m: *a* secret sentence" in shown
        assert "cannot explain" in shown
        assert "| a | 4 | 0 |" in to_markdown(found)

    def test_a_text_cannot_end_its_block(self) -> None:
        text = "````\n# heading"
        card = TextCard(text, "positive", 0.9, [ScoredText("m", [], [])])
        shown = to_markdown(replace(results(row("a")), examples=[card]), texts=True)
        assert f"`````text\nm: {text}\n`````" in shown


class TestJson:
    def test_round_trip(self) -> None:
        found = realistic()
        again = results_from_json(results_to_json(found))
        assert results_to_json(again) == results_to_json(found)
        assert again.examples == ()
        assert [r.method for r in again.rows] == [r.method for r in found.rows]
        assert again.rows[1].cells == found.rows[1].cells
        assert again.metrics == found.metrics
        assert to_markdown(again) == to_markdown(found)

    def test_nan_is_null_and_comes_back(self) -> None:
        nan = math.nan
        cells = {"up": Cell(nan, nan, math.inf, 0, Comparison("b", nan, nan, False))}
        bad = replace(row("a"), cells=cells, cost=Cost(nan, 1.0, nan, None))
        found = replace(results(bad), curves=[Curve("a", (0.0, 1.0), (0.5, nan))])
        text = results_to_json(found)
        assert not re.search("NaN|Infinity", text)
        assert json.loads(text)["rows"][0]["cells"]["up"]["mean"] is None
        again = results_from_json(text)
        assert math.isnan(again.rows[0].cells["up"].high)
        comparison = again.rows[0].cells["up"].comparison
        assert comparison is not None
        assert math.isnan(comparison.p_value)
        assert again.rows[0].cost.peak_memory_mib is None
        assert math.isnan(again.curves[0].probabilities[1])

    def test_holds_no_text_of_the_data(self) -> None:
        text = results_to_json(realistic())
        assert "gripping" not in text
        assert "examples" not in json.loads(text)

    def test_order_of_keys_is_fixed(self) -> None:
        found = results(row("a", up=0.5, down=0.2))
        other = results(row("a", down=0.2, up=0.5))
        assert results_to_json(found) == results_to_json(other)

    def test_values_that_json_lacks(self) -> None:
        settings = {
            "path": PurePosixPath("a/b"),
            "array": np.float32(0.5),
            "set": {"b", "a"},
            "tuple": (1, None, True),
            3: np.int64(4),
            "surrogate": "\ud800",
        }
        found = replace(results(row("a")), settings=settings)
        assert json.loads(results_to_json(found).encode())["settings"] == {
            "path": "a/b",
            "array": 0.5,
            "set": ["a", "b"],
            "tuple": [1, None, True],
            "3": 4,
            "surrogate": "\ud800",
        }

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "no JSON"),
            (b"\xff", "no JSON"),
            ("[1]", "expected the results"),
            ("{}", "expected the results"),
            ('{"format": "captum-aml benchmark results", "format_version": 9}', "version 1"),
            ('{"format": "captum-aml benchmark results", "format_version": 1}', "damaged"),
        ],
    )
    def test_other_files_are_refused(self, text: str | bytes, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            results_from_json(text)

    def test_a_damaged_file_is_refused(self) -> None:
        document = json.loads(results_to_json(realistic()))
        document["rows"][0]["cells"]["log-odds"]["surprise"] = 1
        del document["rows"][0]["cost"]["seconds"]
        with pytest.raises(InvalidInputError, match="seconds"):
            results_from_json(json.dumps(document))


class TestWriteReport:
    def test_writes_three_files_and_the_same_again(self, tmp_path: Path) -> None:
        paths = write_report(tmp_path / "new" / "folder", hostile())
        assert [path.name for path in paths] == ["report.html", "report.md", "results.json"]
        first = [path.read_bytes() for path in paths]
        assert [
            p.read_bytes() for p in write_report(tmp_path / "new" / "folder", hostile())
        ] == first
        assert len(list(paths.html.parent.iterdir())) == 3

    def test_a_failure_leaves_what_was_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paths = write_report(tmp_path, realistic())
        before = paths.html.read_bytes()

        def broken(*_: object) -> Iterator[str]:
            yield "<html>"
            raise KeyboardInterrupt

        monkeypatch.setattr("captum_aml.benchmark.report.to_html", broken)
        with pytest.raises(KeyboardInterrupt):
            write_report(tmp_path, hostile())
        assert paths.html.read_bytes() == before
        assert len(list(tmp_path.iterdir())) == 3

    def test_any_characters_can_be_written(self, tmp_path: Path) -> None:
        odd = "\ud800 日本語 \x00 \u202e"
        found = replace(results(row(odd, up=0.5)), notes=[odd])
        paths = write_report(tmp_path, found)
        assert "日本語 ␀ \ufffd" in paths.html.read_text(encoding="utf-8")
        assert "日本語 ␀ \ufffd" in paths.markdown.read_text(encoding="utf-8")


def _all(tag: Tag) -> Iterator[Tag]:
    yield tag
    for child in tag.children:
        yield from _all(child)


class TestBrowser:
    """Chromium shows the page; skipped where it or Playwright is missing."""

    @pytest.fixture
    def browser_page(self, browser: Browser) -> Iterator[Page]:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        self.complaints: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        yield page
        page.close()
        assert self.complaints == []

    def open(self, page: Page, folder: Path, found: BenchmarkResults) -> None:
        page.goto(write_report(folder, found).html.as_uri())

    def methods(self, page: Page, number: int = 0) -> list[str]:
        return page.locator("table.results").nth(number).locator("tbody .name").all_inner_texts()

    def test_shows_everything(self, browser_page: Page, tmp_path: Path) -> None:
        self.open(browser_page, tmp_path, realistic())
        assert browser_page.title() == "Attribution methods on ../shared/models/minilm-sst2"
        assert browser_page.locator("table.results").count() == 4
        assert browser_page.locator("svg:visible").count() == 2
        assert browser_page.locator("article:visible").count() == 2
        browser_page.locator("details summary").first.click()
        assert browser_page.locator("article:visible").count() == 3

    def test_fits_a_narrow_screen_and_a_dark_one(self, browser_page: Page, tmp_path: Path) -> None:
        browser_page.set_viewport_size({"width": 480, "height": 900})
        browser_page.emulate_media(color_scheme="dark")
        self.open(browser_page, tmp_path, realistic())
        # Tables and figures scroll within themselves, and the first column stays.
        assert browser_page.evaluate("document.documentElement.scrollWidth") == 480
        wide = browser_page.locator(".wide").first
        before = wide.locator("tbody th").first.bounding_box()
        wide.evaluate("element => element.scrollLeft = 300")
        assert wide.locator("tbody th").first.bounding_box() == before
        assert browser_page.locator("svg:visible").count() == 2
        ground = browser_page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(16, 18, 24)"

    def test_sorts_by_numbers_with_missing_ones_last(
        self, browser_page: Page, tmp_path: Path
    ) -> None:
        rows = [
            row("a", up=0.5, down=10.0),
            row("missing"),
            row("b", up=0.9, down=9.0),
            row("c", up=-0.1, down=-1e-7),
            row("least", up=-math.inf, down=11.0),
        ]
        self.open(browser_page, tmp_path, results(*rows))
        head = browser_page.locator("table.results thead th")
        head.nth(2).locator("button").click()
        assert self.methods(browser_page) == ["b", "a", "c", "least", "missing"]
        assert head.nth(2).get_attribute("aria-sort") == "descending"
        head.nth(2).locator("button").click()
        assert self.methods(browser_page) == ["least", "c", "a", "b", "missing"]
        assert head.nth(2).get_attribute("aria-sort") == "ascending"
        head.nth(3).locator("button").click()
        assert self.methods(browser_page) == ["c", "b", "a", "least", "missing"]
        assert head.nth(2).get_attribute("aria-sort") is None
        head.nth(0).locator("button").click()
        assert self.methods(browser_page) == ["a", "b", "c", "least", "missing"]

    def test_sorts_by_keyboard(self, browser_page: Page, tmp_path: Path) -> None:
        self.open(browser_page, tmp_path, results(row("a", up=0.5), row("b", up=0.9)))
        browser_page.locator("table.results thead th").nth(2).locator("button").focus()
        browser_page.keyboard.press("Enter")
        assert self.methods(browser_page) == ["b", "a"]
        browser_page.keyboard.press("Space")
        assert self.methods(browser_page) == ["a", "b"]

    def test_a_script_in_a_text_stays_text(self, browser_page: Page, tmp_path: Path) -> None:
        self.open(browser_page, tmp_path, hostile())
        assert browser_page.locator("article .text").first.inner_text() == EVIL
        assert browser_page.locator("script").count() == 1
        assert browser_page.locator("img").count() == 0

    def test_the_policy_stops_other_scripts(self, browser_page: Page, tmp_path: Path) -> None:
        paths = write_report(tmp_path, results(row("a", up=0.5)))
        html = paths.html.read_text(encoding="utf-8")
        paths.html.write_text(
            html.replace("<main>", "<main><script>document.title = 'taken'</script>"),
            encoding="utf-8",
        )
        browser_page.goto(paths.html.as_uri())
        assert browser_page.title() == "Attribution methods on model"
        assert any("Content Security Policy" in complaint for complaint in self.complaints)
        self.complaints.clear()
