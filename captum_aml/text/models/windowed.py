r"""Long documents in windows that overlap: nothing of them is cut.

A text of :math:`T` tokens that is longer than the model takes is read in :math:`R` windows of equal
length, each with the special tokens of a text of its own. What is explained is the mean of what the
model says of them,

.. math:: z = \frac{1}{R} \sum_{r=1}^{R} z_r,

of the logits of classes, of the log-odds of labels, or of values. Probabilities are those of the
mean, softmax z or sigmoid z: for classes the geometric mean of the windows' probabilities, made to
sum to 1. A token in several windows has one mask value, and a score for what it does in all of
them.

Neighbouring windows share at least ``stride`` tokens, the name that transformers has for it, or
half a window where that is less: :math:`R = 1 + \lceil (T - W) / (W - s) \rceil` windows of
:math:`W` tokens with a stride :math:`s`, which begin at equal distances. Of a pair the longer text
is read in windows, each beside the other text, of which at most half a window is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from captum_aml._utils.checks import as_count
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TokenizedText, tokenize
from captum_aml.text.inputs import TextLike
from captum_aml.text.models.base import TextModel
from captum_aml.text.models.classifier import TextClassifier
from captum_aml.text.models.multi_label import MultiLabelClassifier, checked_threshold
from captum_aml.text.models.regression import TextRegressor
from captum_aml.text.models.stacked import MultiSequenceModel


class WindowedClassifier(MultiSequenceModel, TextClassifier):
    """A classifier of texts longer than its model takes, which are read in windows.

    A text that fits is one window, and its outputs are the model's. Texts with different numbers of
    windows share no batch, and a batch holds at most ``batch_size`` windows, or one text. A masker
    cannot be fitted.

    Args:
        model: A sequence-classification model with two classes or more.
        tokenizer: Its fast tokenizer.
        stride: The tokens that neighbouring windows share, at least.
        baseline (str, optional): See :class:`TextModel`.
        max_length (int, optional): The most tokens of a window, everything that is added
            included. Default: None, what the model takes.

    Raises:
        InvalidInputError: ``stride`` leaves a window no tokens of its own, or see
            :class:`TextClassifier`.

    Examples:
        >>> explainer = TextExplainer("path/to/model", unit="sentence", stride=64)
        >>> explainer(long_document)[0].n_tokens_cut
        0
    """

    no_fit = "long texts are read in windows (stride=)"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stride: int,
        baseline: str | None = None,
        max_length: int | None = None,
    ) -> None:
        super().__init__(model, tokenizer, baseline=baseline, max_length=max_length)
        self.stride = as_count("stride", stride)
        room = (self.max_length or 10**9) - int(tokenizer.num_special_tokens_to_add())
        if self.stride >= room:
            raise InvalidInputError(
                f"stride: expected fewer than the {room} tokens of a text in a window, got {stride}"
            )

    @property
    def settings(self) -> dict[str, str]:
        """Settings beside the weights that decide the outputs."""
        return {**super().settings, "stride": str(self.stride)}

    def tokenize(self, texts: Iterable[TextLike]) -> list[TokenizedText]:
        """Tokenizes texts, each as its windows one after the other."""
        return [_stacked(*self._windows(text)) for text in tokenize(self.tokenizer, texts)]

    def run(self, input_ids: Tensor, attention_mask: Tensor, *extra_inputs: Tensor) -> Tensor:
        """Outputs of windows, (N R, C)."""
        return TextClassifier.forward(self, input_ids, attention_mask, *extra_inputs)

    def joined(self, found: Tensor) -> Tensor:
        """The mean of the windows' outputs, (N, C)."""
        return found.mean(dim=1)

    def _windows(self, text: TokenizedText) -> tuple[TokenizedText, list[list[int]]]:
        """A text, shortened where it is a pair without room, and the tokens of its windows."""
        everything = list(range(len(text)))
        if self.max_length is None or len(text) <= self.max_length:
            return text, [everything]
        blocks = sorted(_blocks(text), key=len)
        long = blocks[-1]
        if len(blocks) > 1:
            added = len(text) - len(long) - len(blocks[0])
            over = blocks[0][max(1, (self.max_length - added) // 2) :]
            if over:
                return self._windows(_without(text, over))
        width = self.max_length - (len(text) - len(long))
        if width < 1:  # what is no token of the text leaves no room
            return self._windows(_without(text, range(self.max_length, len(text))))
        before, after = everything[: long.start], everything[long.stop :]
        return text, [
            [*before, *long[start : start + width], *after]
            for start in window_starts(len(long), width, self.stride)
        ]


class WindowedMultiLabelClassifier(WindowedClassifier, MultiLabelClassifier):
    """A multi-label classifier of texts longer than its model takes, read in windows.

    Args:
        model: A sequence-classification model.
        tokenizer: Its fast tokenizer.
        stride: See :class:`WindowedClassifier`.
        threshold: See :class:`MultiLabelClassifier`. Default: 0.5.
        baseline (str, optional): See :class:`TextModel`.
        max_length (int, optional): See :class:`WindowedClassifier`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stride: int,
        threshold: float = 0.5,
        baseline: str | None = None,
        max_length: int | None = None,
    ) -> None:
        super().__init__(model, tokenizer, stride=stride, baseline=baseline, max_length=max_length)
        self.threshold = checked_threshold(threshold)


class WindowedRegressor(WindowedClassifier, TextRegressor):
    """A regression model or reranker for texts longer than it takes, read in windows.

    Args:
        model: A sequence-classification model with one output.
        tokenizer: Its fast tokenizer.
        stride: See :class:`WindowedClassifier`.
        baseline (str, optional): See :class:`TextModel`.
        max_length (int, optional): See :class:`WindowedClassifier`.
    """


_WINDOWED: dict[type[TextModel], type[WindowedClassifier]] = {
    TextClassifier: WindowedClassifier,
    MultiLabelClassifier: WindowedMultiLabelClassifier,
    TextRegressor: WindowedRegressor,
}


def windowed_kind(kind: type[TextModel]) -> type[WindowedClassifier]:
    """The class that reads in windows what a class of text models cuts.

    Raises:
        InvalidInputError: There is none.
    """
    if kind not in _WINDOWED:
        raise InvalidInputError(
            f"stride: expected none for the task {kind.task!r}, got one; classifiers and "
            "regression models read long texts in windows"
        )
    return _WINDOWED[kind]


def window_starts(length: int, width: int, stride: int) -> list[int]:
    """Where windows begin in a sequence that is longer than they are.

    Args:
        length: The length of the sequence.
        width: That of a window.
        stride: What neighbouring windows share at least; half a window where that is less.
    """
    distance = width - min(stride, width // 2)
    intervals = -(-(length - width) // distance)
    return [number * (length - width) // intervals for number in range(intervals + 1)]


def _blocks(text: TokenizedText) -> list[range]:
    """The tokens of a text, or of each text of a pair, with special ones between them."""
    places = [place for place, maskable in enumerate(text.maskable) if maskable]
    if text.parts:
        second = text.parts[1][0]
        sides = [
            [place for place in places if text.offsets[place][0] < second],
            [place for place in places if text.offsets[place][0] >= second],
        ]
    else:
        sides = [places]
    return [range(side[0], side[-1] + 1) if side else range(0) for side in sides]


def _without(text: TokenizedText, cut: range) -> TokenizedText:
    """A text without some of its tokens."""
    kept = [place for place in range(len(text)) if place not in cut]
    n_cut = sum(text.maskable[place] for place in cut)
    return replace(_taken(text, kept), n_tokens_cut=text.n_tokens_cut + n_cut)


def _stacked(text: TokenizedText, windows: Sequence[Sequence[int]]) -> TokenizedText:
    """One tokenized text of windows, each of which has these tokens of a text."""
    places = [place for place, maskable in enumerate(text.maskable) if maskable]
    number = {place: rank for rank, place in enumerate(places)}
    lengths = tuple(map(len, windows))
    places = [place for window in windows for place in window]
    return replace(
        _taken(text, places),
        own_inputs={"lengths": lengths},
        sequences=lengths,
        copies=tuple(number[place] for place in places if place in number),
    )


def _taken(text: TokenizedText, places: Sequence[int]) -> TokenizedText:
    """A text of the tokens at some places of another."""
    return replace(
        text,
        model_inputs={
            name: [values[place] for place in places] for name, values in text.model_inputs.items()
        },
        tokens=tuple(text.tokens[place] for place in places),
        offsets=tuple(text.offsets[place] for place in places),
        maskable=tuple(text.maskable[place] for place in places),
    )
