"""Texts for removal metrics, and naive references: one text, one subset, one unpadded pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2ForSequenceClassification

from captum_aml.masking.call import parse_call
from captum_aml.metrics import RemovalEvaluator
from captum_aml.typing import Baselines, ForwardFunc, Target, TensorOrTuple
from tests._helpers.models import MAX_LENGTH, VOCABULARY, tiny_encoder
from tests._helpers.text_models import BagOfTokens

PAD, FIRST, LAST, MASK = 0, 1, 2, 3
#: Ids from here on are words.
WORDS = 4

#: What a token adds to the probability of class 1, by id; padding and special tokens nothing.
WEIGHTS = [0, 0, 0, 1 / 64, 1 / 4, 1 / 8, 1 / 16, -1 / 16, 1 / 32, 0]
OFFSET = 1 / 4
TEXT = [4, 5, 6, 7, 8]  # p(X) = 1/4 + 1/4 + 1/8 + 1/16 - 1/16 + 1/32 = 21/32


def additive() -> BagOfTokens:
    """p(S) = 1/4 + the weights of the tokens in S, for class 1, in float64."""
    return BagOfTokens(WEIGHTS, offset=OFFSET, link="linear").double()


def evaluator_of(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    baselines: Baselines = None,
    additional_forward_args: object | None = None,
    target: Target = None,
    **options: Any,
) -> RemovalEvaluator:
    """An evaluator from a call's arguments as the caller gives them."""
    call = parse_call(inputs, baselines, target, additional_forward_args)
    return RemovalEvaluator(forward_func, call, **options)


def bert(kind: str = "bert") -> nn.Module:
    """A random encoder in float64, so that no difference is due to rounding."""
    return tiny_encoder(kind).double()


def gpt2() -> nn.Module:
    """A random causal classifier: it reads the last token that is not padding."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = GPT2ForSequenceClassification(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_positions=MAX_LENGTH,
                n_embd=16,
                n_layer=2,
                n_head=2,
                num_labels=3,
                pad_token_id=PAD,
                initializer_range=0.5,
            )
        )
    return model.eval().double()


@dataclass
class Text:
    """One text: ids, what replaces them, and further arguments by position."""

    ids: list[int]
    references: list[int]
    scores: list[float]
    types: list[int]

    @property
    def tokens(self) -> list[int]:
        return [i for i, (x, b) in enumerate(zip(self.ids, self.references, strict=True)) if x != b]

    @property
    def ranking(self) -> list[int]:
        return sorted(self.tokens, key=lambda i: (-self.scores[i], i))


def words(
    lengths: Sequence[int], *, seed: int = 0, special: bool = True, vocabulary: int = VOCABULARY
) -> list[Text]:
    """Random texts with so many words each, between special tokens that stay."""
    g = torch.Generator().manual_seed(seed)
    texts = []
    for length in lengths:
        ids = torch.randint(WORDS, vocabulary, (length,), generator=g).tolist()
        references = [MASK] * length
        if special:
            ids, references = [FIRST, *ids, LAST], [FIRST, *references, LAST]
        scores = torch.randn(len(ids), generator=g).tolist()
        types = torch.randint(0, 2, (len(ids),), generator=g).tolist()
        texts.append(Text(ids, references, scores, types))
    return texts


@dataclass
class Batch:
    """Texts padded to one length, (N, L) each."""

    ids: Tensor
    references: Tensor
    attention_mask: Tensor
    types: Tensor
    scores: Tensor


def padded(texts: Sequence[Text], *, left: bool = False, extra: int = 0) -> Batch:
    """Pads texts; scores at padding are higher than all others, which must not matter."""
    width = max(len(text.ids) for text in texts) + extra

    def table(rows: Sequence[Sequence[float]], fill: float) -> Tensor:
        return torch.tensor(
            [
                [*[fill] * (width - len(row)), *row]
                if left
                else [*row, *[fill] * (width - len(row))]
                for row in rows
            ]
        )

    return Batch(
        ids=table([text.ids for text in texts], PAD),
        references=table([text.references for text in texts], MASK),
        attention_mask=table([[1] * len(text.ids) for text in texts], 0),
        types=table([text.types for text in texts], 0),
        scores=table([text.scores for text in texts], 1e6).double(),
    )


def probability(
    forward: Callable[..., Any], text: Text, keep: Sequence[int], removal: str, target: int
) -> float:
    """p(keep) by one unpadded pass of (ids, attention mask, types)."""
    ids, mask, types = [], [], []
    for i, (x, b) in enumerate(zip(text.ids, text.references, strict=True)):
        stays = i in keep or x == b
        if not stays and removal == "delete":
            continue
        ids.append(x if stays else b)
        mask.append(0 if not stays and removal == "pad" else 1)
        types.append(text.types[i])
    with torch.no_grad():
        output = forward(*(torch.tensor([row], dtype=torch.long) for row in (ids, mask, types)))
    logits = getattr(output, "logits", output)[0].double().tolist()
    total = sum(math.exp(z) for z in logits)
    return math.exp(logits[target]) / total


def predicted(forward: Callable[..., Any], text: Text) -> int:
    scores = [probability(forward, text, text.tokens, "mask", c) for c in range(n_classes(forward))]
    return scores.index(max(scores))


def n_classes(forward: Callable[..., Any]) -> int:
    one = torch.ones(1, 1, dtype=torch.long)
    output = forward(one, one, one)
    return int(getattr(output, "logits", output).shape[1])


def naive(
    metric: str,
    forward: Callable[..., Any],
    text: Text,
    counts: Sequence[int],
    removal: str,
    *,
    target: int | None = None,
) -> float:
    """The mean of a metric over numbers of tokens."""
    target = predicted(forward, text) if target is None else target
    original = probability(forward, text, text.tokens, removal, target)
    total = 0.0
    for k in counts:
        top = text.ranking[:k]
        rest = [i for i in text.tokens if i not in top]
        if metric == "comprehensiveness":
            total += original - probability(forward, text, rest, removal, target)
        elif metric == "sufficiency":
            total += original - probability(forward, text, top, removal, target)
        else:
            p = probability(forward, text, rest, removal, target)
            total += math.log(p) - math.log(original)
    return total / len(counts)


@dataclass
class Counting:
    """A forward function that keeps what it was given, without padding."""

    forward_func: Callable[..., Any]
    seen: list[tuple[Any, ...]] = field(default_factory=list)
    largest: int = 0

    def __call__(self, ids: Tensor, attention_mask: Tensor, *args: Any) -> Any:
        self.largest = max(self.largest, len(ids))
        for row, mask in zip(ids.tolist(), attention_mask.tolist(), strict=True):
            places = [i for i, m in enumerate(mask) if m]
            last = places[-1] + 1 if places else len(row)
            self.seen.append((tuple(row[:last]), tuple(mask[:last])))
        return self.forward_func(ids, attention_mask, *args)
