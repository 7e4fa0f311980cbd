r"""Masked language modelling: the word at a mask token.

The outputs are the logits of all :math:`V` entries of the vocabulary at the position of the mask
token, which is never masked itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from captum_aml._utils.checks import as_count
from captum_aml._utils.rows import shown
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TokenizedText
from captum_aml.text.inputs import TextLike
from captum_aml.text.models.base import Question, TextModel
from captum_aml.text.models.loading import load_masked_language_model
from captum_aml.text.models.masked import MASKED, check_fills_masks, logits_at, mask_places
from captum_aml.text.models.registry import register_text_model
from captum_aml.text.models.targets import TargetsLike, targets_of_text
from captum_aml.text.models.vocabulary import entry_names, entry_of


@register_text_model
class MaskFiller(TextModel):
    """A masked language model and its tokenizer: the word that it puts where the mask token stands.

    Texts have the tokenizer's mask token in them, ``"The film was [MASK]."`` for BERT. What is
    explained is the likeliest word there, or ``target="good"``, or ``target=("good", "bad")`` for
    why the one and not the other; "all" is the word. A word is one entry of the vocabulary, given
    as it is written, as the vocabulary spells it, or by its number. A pass is one pass of the
    model, whose last layer is run at the mask token only.

    Args:
        model: A masked language model.
        tokenizer: Its fast tokenizer.
        mask_number (int, optional): Which mask token is filled in, counted from 0, where texts
            have several. Default: None, the only one.
        baseline (str, optional): See :class:`TextModel`.
        max_length (int, optional): See :class:`TextModel`.

    Raises:
        InvalidInputError: The model gives no logits of words, the tokenizer has no mask token, or
            see :class:`TextModel`.

    Examples:
        >>> explainer = TextExplainer("path/to/masked-language-model")
        >>> explanation = explainer("Paris is the [MASK] of France.", target="capital")[0]
    """

    task = "fill-mask"
    architectures = MASKED
    own_inputs = ("places",)

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        mask_number: int | None = None,
        baseline: str | None = None,
        max_length: int | None = None,
    ) -> None:
        check_fills_masks(model, tokenizer)
        super().__init__(model, tokenizer, baseline=baseline, max_length=max_length)
        self.mask_number = None if mask_number is None else as_count("mask_number", mask_number)
        self._names = entry_names(tokenizer, model.config.get_text_config().vocab_size)

    @staticmethod
    def load(source: str, *, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Loads a masked language model and its tokenizer from a folder or the hub."""
        return load_masked_language_model(source, dtype=dtype)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The V entries of the vocabulary."""
        return self._names

    def tokenize(self, texts: Iterable[TextLike]) -> list[TokenizedText]:
        """Tokenizes texts, cut to what the model takes, and finds their mask tokens.

        Raises:
            InvalidInputError: A text has none, or several where none of them is named, or it is
                beyond what the model takes, or see :class:`TextModel`.
        """
        return [self._placed(text) for text in super().tokenize(texts)]

    def _placed(self, text: TokenizedText) -> TokenizedText:
        token, found = self.tokenizer.mask_token, mask_places(text, self.tokenizer.mask_token_id)
        number = self.mask_number or 0
        several = len(found) > 1 and self.mask_number is None
        if several or number >= len(found):
            wanted = "one" if self.mask_number is None else f"number {number} from 0"
            cut = f" within the {len(text)} tokens that it is cut to" if text.n_tokens_cut else ""
            which = "; MaskFiller(..., mask_number=0) names one" if several else ""
            raise InvalidInputError(
                f"texts: expected the mask token {token!r}, {wanted}, got {len(found)}{cut} in "
                f"{shown(text.text)}{which}"
            )
        place = found[number]
        start, end = text.offsets[place]  # some mask tokens take in the space before them
        start = end - len(text.text[start:end].lstrip())
        return replace(
            text,
            maskable=tuple(own and i not in found for i, own in enumerate(text.maskable)),
            own_inputs={"places": (place,)},
            place=(start, end),
        )

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *extra_inputs: Tensor
    ) -> Tensor:
        """Logits (N, V) at the mask tokens."""
        *others, places = extra_inputs
        inputs: dict[str, Any] = dict(zip(self._extra_inputs, others, strict=False))
        inputs |= {"input_ids": input_ids, "attention_mask": attention_mask}
        return logits_at(self.model, inputs, places[:, 0]).to(input_ids.device)

    def check_targets(self, asked: TargetsLike) -> None:
        """Refuses what is no target of any text; a word depends on the text it is put into.

        Raises:
            InvalidInputError: There is no such number.
        """
        if isinstance(asked, tuple | list) and any(isinstance(item, str) for item in asked):
            for item in asked:
                self.check_targets(item)
        elif not isinstance(asked, str):
            super().check_targets(asked)

    def questions(
        self,
        texts: Sequence[TokenizedText],
        targets: Sequence[TargetsLike],
        *,
        batch_size: int = 32,
    ) -> list[list[Question]]:
        """The words asked for, where they stand in each text."""
        return [
            [Question(text, targets_of_text(self._numbered(asked, text), self._names))]
            for text, asked in zip(texts, targets, strict=True)
        ]

    def _numbered(self, asked: Any, text: TokenizedText) -> Any:
        """Targets of a text with the numbers of words in their place."""
        if isinstance(asked, tuple | list):
            return type(asked)(self._numbered(item, text) for item in asked)
        if not isinstance(asked, str):
            return asked
        assert text.place is not None
        start, end = text.place
        first, last = next((p for p in text.parts if p[0] <= start < p[1]), (0, len(text.text)))
        before, after = text.text[first:start], text.text[end:last]
        return entry_of(self.tokenizer, asked, before=before, after=after, name="target")
