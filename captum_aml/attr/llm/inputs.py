"""Captum's text inputs as token ids with the feature that each token belongs to.

Captum switches features off one call at a time and renders the prompt anew. A soft mask needs one
prompt, in which every token belongs to a feature or to none:

- of a ``TextTokenInput`` every token that is not skipped is a feature;
- of a ``TextTemplateInput`` a feature has the tokens that share a character with its values. A
  token with characters of several features belongs to the one with the most of them, the first of
  equals. A feature that is left without a token of its own shares the score of the token that
  holds most of it.

Where a value stands is found by putting another string, which occurs nowhere else, in its place:
what stays the same around that string is not the value. So equal values, and values within others,
are distinct, and a template may change a value (its case, say) as long as it shows it.

A prompt that begins with the beginning-of-sequence token, as a chat template renders it, has all
its special tokens: none is added to it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_aml._captum import InterpretableInput, TextTemplateInput, TextTokenInput
from captum_aml._utils.rendered import absent_number, gaps
from captum_aml._utils.tokenizers import has_beginning, ids_with_offsets
from captum_aml.exceptions import InvalidInputError

#: Start and end of characters in a prompt.
_Span = tuple[int, int]


@dataclass(frozen=True)
class Prompt:
    """A prompt of L tokens with F features.

    Attributes:
        inp: What the caller gave, or stands for it.
        ids: Token ids, (L,).
        baselines: The ids with all features removed, (L,); the same where nothing can be removed.
        features: The feature of each token, (L,); -1 where it belongs to none.
        holders: For each feature the one whose tokens hold it, (F,): itself, another one where it
            has no token of its own, -1 where it has no characters.
    """

    inp: Any  # one of Captum's interpretable inputs, which have no types
    ids: Tensor
    baselines: Tensor
    features: Tensor
    holders: Tensor


def as_prompt(inp: Any, tokenizer: Any, baseline: int) -> Prompt:
    """Reads an input of Captum's.

    Args:
        inp: A ``TextTokenInput``, a ``TextTemplateInput``, or a string.
        tokenizer: The model's tokenizer.
        baseline: The token that stands for a removed one, where the input does not say.

    Raises:
        InvalidInputError: It is something else, it has no features, or its values cannot be found
            in the prompt.
    """
    if isinstance(inp, str):
        unknown = getattr(tokenizer, "unk_token_id", None)
        special = [i for i in getattr(tokenizer, "all_special_ids", []) if i != unknown]
        own = _AddsNone(tokenizer) if has_beginning(tokenizer, inp) else tokenizer
        inp = TextTokenInput(inp, own, baselines=baseline, skip_tokens=special)
    if isinstance(inp, TextTokenInput):
        _warn_of_two_beginnings(inp, tokenizer)
        prompt = _of_tokens(inp)
    elif isinstance(inp, TextTemplateInput):
        prompt = _of_template(inp, tokenizer, baseline)
    else:
        kind = type(inp).__name__
        why = ", which is no text" if isinstance(inp, InterpretableInput) else ""
        raise InvalidInputError(
            "inp: expected captum.attr.TextTokenInput, captum.attr.TextTemplateInput or a string, "
            f"got {kind}{why}"
        )
    if not len(prompt.holders):
        raise InvalidInputError(
            "inp: expected a prompt with at least one feature to explain, got one without any "
            "(no values, an empty text, or only skipped tokens)"
        )
    return prompt


class _AddsNone:
    """A tokenizer that adds no special tokens, for Captum, which cannot ask for that."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str, **options: Any) -> Any:
        """The ids of a text as it is."""
        return self._tokenizer.encode(text, add_special_tokens=False, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def _warn_of_two_beginnings(inp: Any, tokenizer: Any) -> None:
    beginning = getattr(tokenizer, "bos_token_id", None)
    if beginning is not None and inp.inp_tensor[0, :2].tolist() == [beginning] * 2:
        warnings.warn(
            "inp: the prompt has two beginning-of-sequence tokens, one of its own and one that "
            "TextTokenInput has added; give it as a string, which gets none",
            stacklevel=5,
        )


def _of_tokens(inp: Any) -> Prompt:
    ids = inp.inp_tensor[0].clone().cpu()
    kept = torch.ones_like(ids, dtype=torch.bool) if inp.itp_mask is None else inp.itp_mask[0].cpu()
    baselines = ids.masked_fill(kept, inp.baselines)
    features = (kept.long().cumsum(dim=0) - 1).masked_fill(~kept, -1)
    return Prompt(inp, ids, baselines, features, torch.arange(int(kept.sum())))


def _of_template(inp: Any, tokenizer: Any, baseline: int) -> Prompt:
    values = list(inp.values)
    text, places = _rendered(inp, values)
    encoded, offsets = ids_with_offsets(tokenizer, text)
    ids = torch.tensor(encoded, dtype=torch.long)
    groups = list(range(len(values))) if inp.mask is None else list(inp.formatted_mask)
    overlap = torch.zeros(inp.n_itp_features, len(ids), dtype=torch.long)
    for group, spans in zip(groups, places, strict=True):
        for span in spans:
            overlap[group] += _shared_characters(offsets, span)
    features, holders = _owners(overlap)
    baselines = ids.masked_fill(features >= 0, baseline)
    removed = _baseline_values(inp)
    if any(removed):
        other, other_places = _rendered(inp, removed)
        other_ids, other_offsets = ids_with_offsets(tokenizer, other)
        for group, spans, replaced in zip(groups, places, other_places, strict=True):
            # A value that the template shows several times is replaced at each of its places.
            for span, by in zip(spans, replaced, strict=False):
                own = (_shared_characters(offsets, span) > 0) & (features == group)
                new = _shared_characters(other_offsets, by).nonzero().flatten().tolist()
                for place, source in zip(own.nonzero().flatten().tolist(), new, strict=False):
                    baselines[place] = other_ids[source]
    return Prompt(inp, ids, baselines, features, holders)


def _owners(overlap: Tensor) -> tuple[Tensor, Tensor]:
    """The feature of each token, and the holder of each feature.

    Args:
        overlap: How many characters of a token are a feature's, (F, L).
    """
    if not overlap.numel():
        return torch.full((overlap.shape[1],), -1), torch.full((overlap.shape[0],), -1)
    features = overlap.argmax(dim=0).masked_fill(overlap.sum(dim=0) == 0, -1)
    holders = []
    for feature, shared in enumerate(overlap):
        if bool((features == feature).any()):
            holders.append(feature)
        else:
            holders.append(int(features[shared.argmax()]) if bool(shared.any()) else -1)
    return features, torch.tensor(holders)


def _shared_characters(offsets: Sequence[_Span], span: _Span) -> Tensor:
    """The number of a span's characters that each of L tokens has, (L,)."""
    bounds = torch.tensor(offsets, dtype=torch.long).reshape(-1, 2)
    return (bounds[:, 1].clamp(max=span[1]) - bounds[:, 0].clamp(min=span[0])).clamp(min=0)


def _rendered(inp: Any, values: Sequence[Any]) -> tuple[str, list[list[_Span]]]:
    """A template filled in, and the places of each value: none if it is empty, or several.

    Raises:
        InvalidInputError: The template does not take the values, or does not show one.
    """
    text = _filled(inp, values)
    sentinel = absent_number(text)
    spans: list[list[_Span]] = []
    for index, value in enumerate(values):
        if value == "":
            spans.append([])
            continue
        marked = _filled(inp, [*values[:index], sentinel, *values[index + 1 :]])
        found = gaps(text, marked.split(sentinel))
        if found is None:
            name = inp.dict_keys[index] if inp.dict_keys else index
            raise InvalidInputError(
                f"inp: expected a template that shows every value, and whose other text does not "
                f"depend on it; the value {name!r}, {value!r}, cannot be found in {text!r}"
            )
        spans.append(found)
    return text, spans


def _filled(inp: Any, values: Sequence[Any]) -> str:
    named = inp.dict_keys
    try:
        text = (
            inp.format_fn(**dict(zip(named, values, strict=True)))
            if named
            else inp.format_fn(*values)
        )
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"inp: expected a template for {len(values)} values, got one that fails on them "
            f"({type(error).__name__}: {error})"
        ) from error
    if not isinstance(text, str):
        raise InvalidInputError(
            f"inp: expected a template that gives a string, got {type(text).__name__}"
        )
    return text


def _baseline_values(inp: Any) -> list[str]:
    """The baselines of the values, in their order."""
    given = inp.baselines() if callable(inp.baselines) else inp.baselines
    if isinstance(given, dict):
        missing = [key for key in inp.dict_keys if key not in given]
        if missing:
            raise InvalidInputError(
                f"inp: expected baselines for all values, got none for {missing}"
            )
        given = [given[key] for key in inp.dict_keys]
    if len(given) != len(inp.values):
        raise InvalidInputError(
            f"inp: expected one baseline for each of the {len(inp.values)} values, got {len(given)}"
        )
    return list(given)
