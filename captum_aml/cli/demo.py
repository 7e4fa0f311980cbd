"""The demonstration: seven methods on the bundled classifier of reviews, scored by what is known.

The reviews come from a grammar that knows which words decide each label, so that an explanation can
be right or wrong. A method's *hit rate* is the share of deciding words among as many of its highest
tokens: 1 where it puts all of them first.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from captum_aml.cli.console import quiet_libraries, show_table
from captum_aml.cli.options import Seed

if TYPE_CHECKING:
    from captum_aml.reviews import Review
    from captum_aml.text import Explanation, TextClassifier
    from captum_aml.visualization import Table, TextCard


#: By label: the method's name, whether it starts from the bundled masker, and its steps.
METHODS: Mapping[str, tuple[str, bool, int | None]] = {
    "AML, nothing prepared": ("mask-gradient", False, None),
    "AML, fitted": ("aml", True, None),
    "AML, fitted and tuned 10 steps": ("aml", True, 10),
    "LA, nothing prepared": ("la", False, None),
    "LA, fitted": ("la", True, None),
    "Integrated Gradients": ("ig", False, None),
    "Occlusion": ("occlusion", False, None),
}
#: Held-out texts that count.
_N_SCORED = 200


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
    from rich.console import Console

    from captum_aml.visualization import page

    # The bundled model is too small to share among threads: on a busy machine they only wait.
    torch.set_num_threads(1)

    quiet_libraries()
    with Console(stderr=True).status("Loading the classifier") as shown:
        cards, table = run_demo(n_shown=texts, seed=seed, on_method=shown.update)
    _show(cards)
    show_table(table)
    with atomic_file(output) as stream:
        for piece in page(
            cards,
            title="captum_aml: which words decide?",
            subtitle="Reviews from a grammar that knows the answer; every method explains the "
            "same classifier.",
            tables=[table],
        ):
            stream.write(piece.encode("utf-8"))
    typer.echo(f"\nThe page: {output.resolve()}")


def run_demo(
    *, n_shown: int, seed: int, on_method: Callable[[str], None]
) -> tuple[list[TextCard], Table]:
    """Explains held-out reviews with every method of the demonstration.

    Args:
        n_shown: How many texts are shown.
        seed: Seed of whatever is random.
        on_method: Gets each method's label before it starts.

    Returns:
        A handful of texts, explained by every method; and the methods' scores over the held-out
        texts, with a random ranking's.
    """
    from captum_aml.reviews import hit_rate, load_reviews_classifier, load_reviews_splits
    from captum_aml.text import TextClassifier
    from captum_aml.text.explanation import text_card
    from captum_aml.visualization import Table

    model, tokenizer = load_reviews_classifier()
    text_model = TextClassifier(model.requires_grad_(False), tokenizer)
    held_out = load_reviews_splits().test
    scored = held_out[:_N_SCORED]
    # Shown are texts that the classifier gets right: of others nobody knows what decided.
    others = held_out[_N_SCORED : _N_SCORED + 20 * n_shown]
    predicted = text_model.predict([review.text for review in others]).argmax(dim=1).tolist()
    right = [r for r, label in zip(others, predicted, strict=True) if r.label == label]
    shown = _varied(right, n_shown)
    rows: list[tuple[str, ...]] = []
    explained: list[list[Explanation]] = []
    for label in METHODS:
        on_method(label)
        explained.append(_explain(text_model, shown, label, seed))
        start = time.perf_counter()
        explanations = _explain(text_model, scored, label, seed)
        seconds = (time.perf_counter() - start) / len(scored)
        rates = [hit_rate(e, r) for e, r in zip(explanations, scored, strict=True)]
        found = [float(rate == 1) for rate in rates]
        rows.append((label, *_means(rates, found), f"{1000 * seconds:.1f}"))
    # What a random ranking is expected to find, exactly.
    sizes = [(len(r.deciding), len(e.tokens)) for e, r in zip(explanations, scored, strict=True)]
    by_chance = [k / n for k, n in sizes], [1 / math.comb(n, k) for k, n in sizes]
    rows.append(("Random ranking", *_means(*by_chance), ""))
    cards = []
    for of_text in zip(*explained, strict=True):
        card = text_card(of_text)
        named = zip(card.rows, METHODS, strict=True)
        cards.append(replace(card, rows=[replace(row, method=label) for row, label in named]))
    return cards, Table(
        caption=f"Deciding words found, over {len(scored)} held-out reviews",
        columns=("method", "hit rate", "all found", "ms per text"),
        rows=rows,
    )


def _means(rates: Sequence[float], found: Sequence[float]) -> tuple[str, str]:
    return f"{statistics.fmean(rates):.3f}", f"{statistics.fmean(found):.1%}"


def _explain(
    text_model: TextClassifier, reviews: Sequence[Review], label: str, seed: int
) -> list[Explanation]:
    from captum_aml.reviews import reviews_masker_path
    from captum_aml.text import TextExplainer

    method, fitted, n_steps = METHODS[label]
    explainer = TextExplainer(
        text_model,
        method=method,
        masker=reviews_masker_path(method) if fitted else None,
        n_steps=n_steps,
        seed=seed,
    )
    return explainer([review.text for review in reviews])


def _varied(reviews: Sequence[Review], count: int) -> list[Review]:
    """Reviews that differ in how many words decide and in their label."""
    kinds: dict[tuple[int, int], list[Review]] = {}
    for review in reviews:
        kinds.setdefault((-len(review.deciding), review.label), []).append(review)
    by_turns = itertools.chain.from_iterable(
        itertools.zip_longest(*(kinds[kind] for kind in sorted(kinds)))
    )
    return list(itertools.islice(filter(None, by_turns), count))


def _show(cards: Sequence[TextCard]) -> None:
    from rich.console import Console
    from rich.text import Text

    from captum_aml.visualization import legend_text, plain_text, shows_colors, terminal_text
    from captum_aml.visualization.cards import number_of
    from captum_aml.visualization.segments import printable

    console = Console(highlight=False)
    colored = shows_colors(console)
    width = max(map(len, METHODS))
    for card in cards:
        label = f"{printable(card.prediction)} {number_of(card.probability, card.value)}"
        console.print(Text(f"\n{label}", style="bold"))
        for row in card.rows:
            text = terminal_text(card, row) if colored else Text(plain_text(card, row))
            console.print(Text(f"  {row.method:{width}}  ", style="dim") + text, soft_wrap=True)
    rows = [row for card in cards for row in card.rows]
    console.print(Text(f"\n{legend_text(rows, colored=colored)}\n", style="dim"), soft_wrap=True)
