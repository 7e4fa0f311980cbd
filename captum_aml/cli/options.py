"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option(
        help="A sequence-classification model, or a language model with --template: a local folder "
        "or a hub id."
    ),
]
Template = Annotated[
    str | None,
    typer.Option(
        help="The prompt of a language model that classifies by it, as in 'Text: {text} Label:'; "
        "\\n stands for a line break.",
        show_default=False,
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        help="The label words after the prompt, separated by commas, as in 'negative,positive', or "
        "with the classes' names, as in 'negative=bad,positive=good'.",
        show_default=False,
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(
        help="The entry of the tokenizer's vocabulary that stands for a removed token.",
        show_default="its mask, unknown, end-of-sequence or padding token, whichever comes first",
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option(help="Cut texts to this many tokens.", show_default="what the model takes", min=1),
]
TextColumn = Annotated[str, typer.Option(help="The column with the texts.")]
PassSize = Annotated[int, typer.Option(min=1, help="Texts in one pass of the model.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, ...")]

__all__ = [
    "Baseline",
    "Device",
    "Labels",
    "MaxLength",
    "Model",
    "PassSize",
    "Seed",
    "Template",
    "TextColumn",
]
