"""The demonstration: six methods on the bundled classifier of reviews, scored by what is known.

The reviews come from a grammar that knows which words decide each label, so that an explanation can
be right or wrong. A method's *hit rate* is the share of deciding words among as many of its highest
tokens: 1 where it puts all of them first.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from captum_aml.cli.console import quiet_libraries, status
from captum_aml.cli.options import Seed

if TYPE_CHECKING:
    from captum_aml.reviews import Review
    from captum_aml.text import Explanation, TextClassifier
    from captum_aml.visualization import Table, TextCard


@dataclass(frozen=True)
class DemoMethod:
    """A row of the demonstration.

    Attributes:
        label: What is shown.
        name: The method's name in ``captum_aml.methods``.
        fitted: Whether it starts from the bundled masker.
        n_steps: Tuning steps; None for the method's own number.
    """

    label: str
    name: str
    fitted: bool = False
    n_steps: int | None = None


METHODS = (
    DemoMethod("AML, fitted", "aml", fitted=True),
    DemoMethod("AML, fitted and tuned 10 steps", "aml", fitted=True, n_steps=10),
    DemoMethod("AML, no masker, 30 steps", "aml", n_steps=30),
    DemoMethod("LA, fitted", "la", fitted=True),
    DemoMethod("Integrated Gradients", "ig"),
    DemoMethod("Occlusion", "occlusion"),
)


@dataclass(frozen=True)
class DemoRow:
    """How a method did.

    Attributes:
        label: The method.
        hit_rate: The mean share of deciding words among its highest tokens.
        all_found: The share of texts where it puts all deciding words first.
        seconds: Wall time per text; None where nothing is computed.
    """

    label: str
    hit_rate: float
    all_found: float
    seconds: float | None


@dataclass(frozen=True)
class DemoResult:
    """Everything that the demonstration shows.

    Attributes:
        cards: A handful of texts, explained by every method.
        rows: The methods' scores over the held-out texts, and a random ranking's.
        n_scored: The number of those texts.
    """

    cards: tuple[TextCard, ...]
    rows: tuple[DemoRow, ...]
    n_scored: int

    def table(self) -> Table:
        """The rows, ready to be shown."""
        from captum_aml.visualization import Table

        return Table(
            caption=f"Deciding words found, over {self.n_scored} held-out reviews",
            columns=("method", "hit rate", "all found", "ms per text"),
            rows=[
                (
                    row.label,
                    f"{row.hit_rate:.3f}",
                    f"{row.all_found:.1%}",
                    "" if row.seconds is None else f"{1000 * row.seconds:.1f}",
                )
                for row in self.rows
            ],
        )


def demo(
    output: Annotated[
        Path, typer.Option(help="Where to write the page.", show_default=True)
    ] = Path("captum_aml_demo.html"),
    texts: Annotated[int, typer.Option(min=1, help="How many texts are shown.")] = 5,
    seed: Seed = 0,
) -> None:
    """Show AML, LA, Integrated Gradients and occlusion side by side, offline.

    Explains reviews of which it is known which words decide, with a small classifier that comes
    with the package: shows a handful of them, how many deciding words each method finds in 200
    more and how long it takes, and writes a page with all of it.
    """
    from captum_aml._utils.files import atomic_file
    from captum_aml.text.writing import check_format

    if check_format(output) != ".html":
        raise typer.BadParameter("expected a name that ends in .html", param_hint="--output")
    import torch

    from captum_aml.visualization import page

    # The bundled model is too small to share among threads: on a busy machine they only wait.
    torch.set_num_threads(1)

    quiet_libraries()
    with status("Loading the classifier") as tell:
        result = run_demo(n_shown=texts, seed=seed, on_method=tell)
    _show(result)
    table = result.table()
    with atomic_file(output) as stream:
        for piece in page(
            result.cards,
            title="captum_aml: which words decide?",
            subtitle="Reviews from a grammar that knows the answer; every method explains the "
            "same classifier.",
            tables=[table],
        ):
            stream.write(piece.encode("utf-8"))
    typer.echo(f"\nThe page: {output.resolve()}")


def run_demo(
    *,
    n_shown: int = 5,
    n_scored: int = 200,
    seed: int = 0,
    on_method: Callable[[str], None] = lambda _: None,
) -> DemoResult:
    """Explains held-out reviews with every method of the demonstration.

    Args:
        n_shown: How many texts are shown. Default: 5.
        n_scored: How many texts count. Default: 200.
        seed: Seed of whatever is random. Default: 0.
        on_method: Told each method's label before it starts. Default: nothing is told.
    """
    from captum_aml.reviews import load_reviews_classifier, load_reviews_splits
    from captum_aml.text import TextClassifier

    model, tokenizer = load_reviews_classifier()
    classifier = TextClassifier(model.requires_grad_(False), tokenizer)
    held_out = load_reviews_splits().test
    scored = held_out[:n_scored]
    # Shown are texts that the classifier gets right: of others nobody knows what decided.
    others = held_out[n_scored : n_scored + 20 * n_shown]
    predicted = classifier.predict([review.text for review in others]).argmax(dim=1).tolist()
    right = [r for r, label in zip(others, predicted, strict=True) if r.label == label]
    shown = _varied(right, n_shown)
    rows: list[DemoRow] = []
    explained: list[list[Explanation]] = []
    for method in METHODS:
        on_method(method.label)
        explained.append(_explain(classifier, shown, method, seed))
        start = time.perf_counter()
        explanations = _explain(classifier, scored, method, seed)
        seconds = (time.perf_counter() - start) / len(scored)
        rates = [hit_rate(e, r) for e, r in zip(explanations, scored, strict=True)]
        rows.append(
            DemoRow(
                method.label,
                statistics.fmean(rates),
                statistics.fmean(rate == 1 for rate in rates),
                seconds,
            )
        )
    rows.append(_random_row(explanations, scored))
    return DemoResult(
        tuple(_card(of_text) for of_text in zip(*explained, strict=True)), tuple(rows), len(scored)
    )


def deciding_tokens(explanation: Explanation, review: Review) -> set[int]:
    """The tokens that share a character with a deciding word."""
    return {
        i
        for i, (start, end) in enumerate(explanation.offsets)
        if any(start < stop and first < end for first, stop in review.deciding)
    }


def hit_rate(explanation: Explanation, review: Review) -> float:
    """The share of deciding words among the k highest tokens, k being their number."""
    deciding = deciding_tokens(explanation, review)
    order = sorted(range(len(explanation.scores)), key=lambda i: -explanation.scores[i])
    return len(deciding.intersection(order[: len(deciding)])) / len(deciding)


def _explain(
    classifier: TextClassifier, reviews: Sequence[Review], method: DemoMethod, seed: int
) -> list[Explanation]:
    from captum_aml.reviews import reviews_masker_path
    from captum_aml.text import TextExplainer

    explainer = TextExplainer(
        classifier,
        method=method.name,
        masker=reviews_masker_path(method.name) if method.fitted else None,
        n_steps=method.n_steps,
        seed=seed,
    )
    return explainer([review.text for review in reviews])


def _random_row(explanations: Sequence[Explanation], reviews: Sequence[Review]) -> DemoRow:
    """What a random ranking is expected to find, exactly."""
    shares, all_found = [], []
    for explanation, review in zip(explanations, reviews, strict=True):
        n_deciding = len(deciding_tokens(explanation, review))
        shares.append(n_deciding / len(explanation.tokens))
        all_found.append(1 / math.comb(len(explanation.tokens), n_deciding))
    return DemoRow("Random ranking", statistics.fmean(shares), statistics.fmean(all_found), None)


def _varied(reviews: Sequence[Review], count: int) -> list[Review]:
    """Reviews that differ in how many words decide and in their label."""
    kinds: dict[tuple[int, int], list[Review]] = {}
    for review in reviews:
        kinds.setdefault((-len(review.deciding), review.label), []).append(review)
    by_turns = itertools.chain.from_iterable(
        itertools.zip_longest(*(kinds[kind] for kind in sorted(kinds)))
    )
    return list(itertools.islice(filter(None, by_turns), count))


def _card(explanations: Sequence[Explanation]) -> TextCard:
    from captum_aml.text.explanation import text_card

    card = text_card(explanations)
    rows = [
        replace(row, method=method.label) for row, method in zip(card.rows, METHODS, strict=True)
    ]
    return replace(card, rows=rows)


def _show(result: DemoResult) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from captum_aml.visualization import plain_text, terminal_text
    from captum_aml.visualization.segments import printable

    console = Console(highlight=False)
    colored = console.color_system is not None and not console.no_color
    width = max(len(row.method) for card in result.cards for row in card.rows)
    for card in result.cards:
        label = f"{printable(card.predicted)} {card.probability:.2f}"
        console.print(Text(f"\n{label}", style="bold"))
        for row in card.rows:
            text = terminal_text(card, row) if colored else Text(plain_text(card, row))
            console.print(Text(f"  {row.method:{width}}  ", style="dim") + text, soft_wrap=True)
    shown = result.table()
    made = Table(title=shown.caption, title_justify="left", title_style="bold")
    for i, column in enumerate(shown.columns):
        made.add_column(column, justify="left" if i == 0 else "right")
    for cells in shown.rows:
        made.add_row(*cells)
    console.print()
    console.print(made)


__all__ = ["METHODS", "DemoMethod", "DemoResult", "DemoRow", "demo", "hit_rate", "run_demo"]
