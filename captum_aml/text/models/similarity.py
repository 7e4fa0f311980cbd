r"""Similarity of two texts by a bi-encoder, which embeds each by itself.

The value is the cosine of both embeddings, :math:`s(a, b) = \cos(f(a), f(b))`. A token of one text
counts by what it does to the similarity to the other text as it is,

.. math:: v(a', b') = s(a', b) + s(a, b') - s(a, b),

with :math:`a', b'` the texts of which tokens are removed: :math:`v(a, b) = s(a, b)`, and the
contributions of a text's tokens sum to the difference to the similarity without this text. Removed
from both texts at once, tokens would be explained against two texts without anything, which are
alike: their cosine is 1.

A token that is hidden from attention is left out of the pooling by the same share. In place of a
removed token stands the tokenizer's mask token, as elsewhere: padding that is seen is no closer to
nothing (on twelve pairs and all-MiniLM-L6-v2, contributions of words had rank correlations with
what deleting a word does of 0.72 with mask tokens and 0.68 with padding; 0.63 with tokens removed
from both texts at once, 0.70 with hidden tokens in the pooling).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from captum_aml._utils.rows import shown
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TextBatch, TokenizedText
from captum_aml.text.inputs import AS_OPTIONS, Text
from captum_aml.text.models.base import TextOutput
from captum_aml.text.models.loading import load_encoder
from captum_aml.text.models.pooling import checked_modes, pooled, token_shares
from captum_aml.text.models.registry import register_text_model
from captum_aml.text.models.sentence_encoder import encoder_of, options_of_folder
from captum_aml.text.models.stacked import Sequenced, StackedTextModel
from captum_aml.text.models.trial import PaddingSide

_MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": lambda a, b: F.cosine_similarity(a, b, dim=-1),
    "dot": lambda a, b: (a * b).sum(dim=-1),
}


@register_text_model
class SimilarityModel(StackedTextModel):
    """An encoder that embeds texts, and its tokenizer: the similarity of two texts is explained.

    Texts are pairs, ``(a, b)``. Contributions are signed, of the tokens of both texts; for the
    equation see :mod:`captum_aml.text.models.similarity`. A pass over a pair is one of the encoder
    over both texts, and over both once more for each batch, as they are.

    Args:
        model: An encoder, or a model with a head, which is left out.
        tokenizer: Its fast tokenizer.
        pooling: How hidden states of tokens become an embedding, by the names of
            sentence-transformers: "mean", "cls", "max", "lasttoken", "weightedmean",
            "mean_sqrt_len_tokens", or several of them. Default: "mean".
        prompts: What goes before the first and before the second text, such as ``("query: ",
            "passage: ")``; it is not masked. Default: nothing.
        similarity: "cosine", or "dot" for the product. Default: "cosine".
        layers: Layers that the embedding goes through. Default: ().
        lower_case: Whether texts are written in lower case first. Default: False.
        baseline (str, optional): See :class:`TextModel`.
        max_length (int, optional): Each text is cut to this many tokens, its prompt included.
            Default: None, to what the model takes.

    Raises:
        InvalidInputError: There is no such pooling or similarity, or see :class:`TextModel`.

    Examples:
        >>> explainer = TextExplainer("path/to/sentence-transformers-model")
        >>> explainer(("a small cat", "a kitten"))[0].value
    """

    task = "sentence-similarity"
    output: TextOutput = "value"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pooling: str | Sequence[str] = "mean",
        prompts: tuple[str, str] = ("", ""),
        similarity: str = "cosine",
        layers: Sequence[nn.Module] = (),
        lower_case: bool = False,
        baseline: str | None = None,
        max_length: int | None = None,
    ) -> None:
        if similarity not in _MEASURES:
            raise InvalidInputError(
                f"similarity: expected one of {', '.join(_MEASURES)}, got {similarity!r}"
            )
        self.pooling = checked_modes(pooling)
        self.prompts = prompts
        self.similarity = similarity
        self.lower_case = lower_case
        super().__init__(model, tokenizer, baseline=baseline, max_length=max_length)
        inner = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
        assert isinstance(inner, nn.Module)
        self._encoder = inner
        self._layers = nn.Sequential(*layers).to(self.device)

    @classmethod
    def is_for(cls, config: PreTrainedConfig | None) -> bool:
        """Never by itself: an encoder is one for any task."""
        return False

    @staticmethod
    def load(source: str, *, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Loads an encoder and its tokenizer from a folder or the hub."""
        return load_encoder(encoder_of(source), dtype=dtype)

    @classmethod
    def options_of(cls, source: str) -> dict[str, Any]:
        """What a folder of sentence-transformers says."""
        return options_of_folder(source)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The name of the value."""
        return ("similarity",)

    @property
    def settings(self) -> dict[str, str]:
        """Pooling, similarity and prompts."""
        prompts = {"prompts": repr(self.prompts)} if any(self.prompts) else {}
        return {"pooling": ", ".join(self.pooling), "similarity": self.similarity, **prompts}

    def sequences(self, text: Text) -> list[Sequenced]:
        """Both texts, each behind its prompt.

        Raises:
            InvalidInputError: It is no pair.
        """
        if len(text.parts) != 2 or text.n_options:
            raise InvalidInputError(
                "texts: expected pairs, whose similarity is explained, such as ('a text', 'another "
                f"one') ({AS_OPTIONS}), got {shown(text.text)}"
            )
        return [
            Sequenced.of([(prompt, None), (self._written(piece), start)])
            for prompt, piece, (start, _) in zip(self.prompts, text.pieces, text.parts, strict=True)
        ]

    def collate(
        self, texts: Sequence[TokenizedText], *, padding_side: PaddingSide | None = None
    ) -> TextBatch:
        """Pads both texts to the longest one, (N, 2 L'), and adds them as they stay."""
        batch = super().collate(texts, padding_side=padding_side)
        intact = {"intact": batch.input_ids, "intact_mask": batch.attention_mask}
        return replace(batch, extra_inputs={**batch.extra_inputs, **intact})

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *extra_inputs: Tensor
    ) -> Tensor:
        """The value v (N, 1) for the ids of both texts.

        Args:
            input_ids: (N, 2 L').
            attention_mask: See ``forward``.
            *extra_inputs: See ``forward``; at last the ids of both texts as they are given and
                their attention mask, (N, 2 L') each.
        """
        *others, intact, intact_mask = extra_inputs
        # By a pass of its own, in which nothing is in the place of tokens.
        with torch.no_grad():
            as_given = self._embedded_once(intact, intact_mask, *others)
        removed = super().__call__(input_ids, attention_mask, *others)
        (a, b), (without_a, without_b) = as_given.unbind(dim=1), removed.unbind(dim=1)
        measure = _MEASURES[self.similarity]
        value = measure(without_a, b) + measure(a, without_b) - measure(a, b)
        return value[:, None]

    def run(self, input_ids: Tensor, attention_mask: Tensor, *extra_inputs: Tensor) -> Tensor:
        """The embeddings of texts, (N R, D)."""
        named = dict(zip(self._extra_inputs, extra_inputs, strict=False))
        output = self._encoder(input_ids=input_ids, attention_mask=attention_mask, **named)
        shares = token_shares(attention_mask).to(output.last_hidden_state.device)
        found: Tensor = self._layers(pooled(output.last_hidden_state, shares, self.pooling))
        return found

    def joined(self, found: Tensor) -> Tensor:
        """The embeddings of both texts, (N, 2, D)."""
        return found

    def _embedded_once(self, input_ids: Tensor, attention_mask: Tensor, *extra: Tensor) -> Tensor:
        """The embeddings of both texts of N pairs, (N, 2, D), equal pairs by one pass."""
        given = [input_ids, attention_mask, *extra]
        different, back = torch.unique(torch.cat(given, dim=1), dim=0, return_inverse=True)
        ids, mask, *others = different.split([part.shape[1] for part in given], dim=1)
        return self.forward(ids, mask, *others)[back]

    def _written(self, text: str) -> str:
        """A text in lower case where the model reads it so, each character in its place."""
        if not self.lower_case:
            return text
        return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
