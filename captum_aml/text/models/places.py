"""Places in a text: words or characters that a user names, and the tokens that stand for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from captum_aml._utils.rows import shown
from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.text.encoding import TextBatch, TokenizedText
from captum_aml.text.grouping import unit_spans
from captum_aml.text.inputs import Span, Text
from captum_aml.text.models._causal import shown_tokens
from captum_aml.text.models.base import TextModel


def word_places(
    text: TokenizedText, place: object, *, within: Span | None = None
) -> list[tuple[Span, tuple[int, ...]]]:
    """Where words, or characters, stand in a text.

    Args:
        text: The text.
        place: One or several words as they are written in the text, which are found wherever they
            begin and end with words; or a span (start, end).
        within: The characters that count, such as one text of a pair. Default: None, all.

    Returns:
        The span and the maskable tokens of each place, at least one, in the order of the text.

    Raises:
        InvalidInputError: There is no such place, or the model sees no token of one.
    """
    begin, end = (0, len(text.text)) if within is None else within
    spans = _occurrences(text, place) if isinstance(place, str) else [_checked_span(text, place)]
    inside = [span for span in spans if begin <= span[0] and span[1] <= end]
    if not inside:
        raise InvalidInputError(
            f"target: expected words of the text {shown(text.text[begin:end])}, got {place!r}"
        )
    return [(span, span_tokens(text, span)) for span in inside]


def token_outputs(
    text_model: TextModel,
    texts: Sequence[TokenizedText],
    run: Callable[[TextBatch], Tensor],
    *,
    batch_size: int,
) -> list[Tensor]:
    """What a model gives for each token of texts, in batches of similar length.

    Args:
        text_model: The text model.
        texts: Its tokenized texts.
        run: Gives a tensor (N, L, K) for a batch.
        batch_size: The most texts in a pass.

    Returns:
        (L, K) for each text, without padding, in float32 on the CPU.

    Raises:
        NonFiniteError: The model's output is NaN or infinite.
    """
    rows: list[Tensor] = [torch.empty(0)] * len(texts)
    with text_model.evaluating(), torch.no_grad():
        for numbers in text_model.batches(texts, batch_size):
            batch = text_model.collate([texts[number] for number in numbers])
            there = batch.attention_mask.bool().cpu()
            outputs = run(batch).float().cpu()
            for number, row, tokens in zip(numbers, outputs, there, strict=True):
                rows[number] = row[tokens]
                if not rows[number].isfinite().all():
                    raise NonFiniteError(
                        "the model's output is NaN or infinite for the text "
                        f"{shown(texts[number].text)}"
                    )
    return rows


def positions_of(places: Tensor, attention_mask: Tensor | None, ids: Tensor) -> Tensor:
    """Positions in padded ids (N, L) of tokens that are numbered without padding.

    Args:
        places: Numbers of tokens (N, P), -1 for none, which stays.
        attention_mask: See :meth:`TextModel.forward`.
        ids: (N, L).
    """
    first = shown_tokens(attention_mask, ids).long().argmax(dim=1, keepdim=True)
    return torch.where(places < 0, places, places + first)


def _checked_span(text: TokenizedText, given: object) -> Span:
    """A span of characters in a text.

    Raises:
        InvalidInputError: It is none.
    """
    if (
        isinstance(given, tuple)
        and len(given) == 2
        and all(isinstance(border, int) and not isinstance(border, bool) for border in given)
        and 0 <= given[0] < given[1] <= len(text.text)
    ):
        return given[0], given[1]
    raise InvalidInputError(
        "target: expected words of the text, or characters (start, end) of its "
        f"{len(text.text)}, got {given!r}"
    )


def span_tokens(text: TokenizedText, span: Span) -> tuple[int, ...]:
    """The positions of the maskable tokens that share characters with a span.

    Raises:
        InvalidInputError: There is none, as where the text was cut before it.
    """
    tokens = tuple(
        place
        for place, (start, end) in enumerate(text.offsets)
        if text.maskable[place] and start < span[1] and end > span[0]
    )
    if not tokens:
        cut = f"; {text.n_tokens_cut} tokens were cut off" if text.n_tokens_cut else ""
        raise InvalidInputError(
            f"target: expected characters that the model sees, got {text.text[slice(*span)]!r} at "
            f"{span}{cut}"
        )
    return tokens


def _occurrences(text: TokenizedText, words: str) -> list[Span]:
    units = unit_spans(Text(text.text, text.parts, text.words), "word")
    begins, ends = {start for start, _ in units}, {end for _, end in units}
    found = []
    start = text.text.find(words) if words else -1
    while start >= 0:
        if start in begins and start + len(words) in ends:
            found.append((start, start + len(words)))
        start = text.text.find(words, start + 1)
    return found
