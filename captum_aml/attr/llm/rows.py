"""Rows of prompts and their targets, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from captum_aml._utils.batching import chunks, length_batches
from captum_aml.attr.llm.inputs import Prompt

# Training examples are sorted by length within this many batches.
_BATCHES_PER_WINDOW = 16


@dataclass(frozen=True)
class Example:
    """A prompt and what follows it.

    Attributes:
        prompt: The prompt, L tokens.
        target: The target's ids, (T,).
        end: What follows a target that is explained as a whole, (0,) or (1,).
    """

    prompt: Prompt
    target: Tensor
    end: Tensor

    def __len__(self) -> int:
        return len(self.prompt.ids) + len(self.target)


@dataclass(frozen=True)
class Row:
    """One explanation: of a whole target, or of one of its tokens.

    A row ends with its target token, or with one more token where the whole target is meant.
    No later token has an influence on it, so that a masker can infer from a row which it is.

    Attributes:
        example: The prompt and the target.
        token: The target's token, counted from 0; None for all of them.
    """

    example: Example
    token: int | None = None

    def tensors(self, no_feature: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Ids, baselines, attention mask, mask of the target and features of S tokens, all (S,)."""
        prompt, target = self.example.prompt, self.example.target
        if self.token is None:
            answer = torch.cat([target, self.example.end])
            marked = torch.arange(len(answer)) < len(target)
        else:
            answer = target[: self.token + 1]
            marked = torch.arange(len(answer)) == self.token
        ids = torch.cat([prompt.ids, answer])
        features = torch.cat([prompt.features, torch.full_like(answer, -1)])
        return (
            ids,
            torch.cat([prompt.baselines, answer]),
            torch.ones_like(ids),
            torch.cat([torch.zeros_like(prompt.ids, dtype=torch.bool), marked]),
            features.masked_fill(features < 0, no_feature),
        )


def all_rows(example: Example) -> list[Row]:
    """The rows for the target and for each of its tokens: one if it has a single token."""
    n_tokens = len(example.target)
    return [Row(example), *(Row(example, t) for t in range(n_tokens if n_tokens > 1 else 0))]


class RowBatch(TypedDict):
    """Rows as arguments of ``attribute``, all (N, S); a batch that ``fit`` takes, too.

    The further arguments of the forward function are the attention mask and the mask of the target.
    """

    inputs: Tensor
    baselines: Tensor
    additional_forward_args: tuple[Tensor, Tensor]
    feature_mask: Tensor


def collate(rows: Sequence[Row], device: torch.device) -> RowBatch:
    """Puts rows into one batch, padded on the right.

    What follows a prompt equals its baselines, which is how attributions know that it is not to be
    masked.
    """
    none = max(len(row.example.prompt.holders) for row in rows)
    ids, baselines, mask, target_mask, features = (
        pad_sequence(list(each), batch_first=True, padding_value=fill).to(device)
        for each, fill in zip(
            zip(*(row.tensors(none) for row in rows), strict=True), (0, 0, 0, 0, none), strict=True
        )
    )
    return {
        "inputs": ids,
        "baselines": baselines,
        "additional_forward_args": (mask, target_mask),
        "feature_mask": features,
    }


def feature_scores(prompt: Prompt, scores: Tensor, *, total: bool) -> Tensor:
    """The scores of a prompt's features from those of its tokens.

    Args:
        prompt: The prompt, L tokens and F features.
        scores: Scores of tokens, (N, S), S at least L; all tokens of a feature have the same.
        total: Whether scores are contributions, which add up: a feature has the sum of its tokens',
            in equal parts where other features have no token but these. Otherwise it has the score
            that they have.

    Returns:
        Tensor (N, F); 0 for features without characters.
    """
    scores = scores[:, : len(prompt.ids)]
    n_features = len(prompt.holders)
    member = torch.arange(n_features).unsqueeze(1) == prompt.features
    holders = prompt.holders.clamp(min=0)
    if total:
        held = prompt.holders[prompt.holders >= 0].bincount(minlength=n_features).clamp(min=1)
        each = scores @ (member / held.unsqueeze(1)).to(scores).T
    else:
        each = scores[:, member.int().argmax(dim=1).to(scores.device)]
    return each[:, holders.to(scores.device)].masked_fill(
        (prompt.holders < 0).to(scores.device), 0.0
    )


@dataclass(frozen=True)
class TrainingBatches:
    """Batches of rows to fit a masker on: the whole target of each prompt, and a token of it.

    The order of the prompts, and which token, are drawn anew for each epoch from torch's generator.
    Prompts of similar length stand together.

    Attributes:
        examples: Prompts and targets.
        batch_size: Prompts in a batch; it has up to twice as many rows.
        device: Where the tensors go.
    """

    examples: Sequence[Example]
    batch_size: int
    device: torch.device

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def __iter__(self) -> Iterator[RowBatch]:
        order = torch.randperm(len(self.examples)).tolist()
        for window in chunks(order, self.batch_size * _BATCHES_PER_WINDOW):
            examples = [self.examples[i] for i in window]
            batches = length_batches(examples, self.batch_size, longest_first=True)
            for number in torch.randperm(len(batches)).tolist():
                yield self._batch([examples[i] for i in batches[number]])

    def _batch(self, examples: Sequence[Example]) -> RowBatch:
        several = [example for example in examples if len(example.target) > 1]
        tokens = [int(torch.randint(len(example.target), ())) for example in several]
        rows = [Row(example) for example in examples]
        rows += [Row(e, token) for e, token in zip(several, tokens, strict=True)]
        return collate(rows, self.device)


def validation_batches(
    examples: Sequence[Example], *, batch_size: int, device: torch.device
) -> list[RowBatch]:
    """Batches to validate on: as for training, with tokens and an order that stay the same."""
    batches: list[RowBatch] = []
    for indices in length_batches(examples, batch_size):
        chosen = [examples[i] for i in indices]
        numbered = enumerate(chosen, start=len(batches) * batch_size)
        rows = [Row(example) for example in chosen]
        rows += [Row(e, n % len(e.target)) for n, e in numbered if len(e.target) > 1]
        batches.append(collate(rows, device))
    return batches
