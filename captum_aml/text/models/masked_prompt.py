r"""Classification by prompt with a masked language model: the label word at the mask token.

The logit of a class is that of its word at the mask token of the prompt, so that the classes'
probabilities are

.. math:: p(k \mid x) = \operatorname{softmax}_k z_{w_k}(\mathrm{prompt}(x)).

Source: the patterns and verbalizers of Schick and Schütze, "Exploiting Cloze Questions for Few Shot
Text Classification and Natural Language Inference" (EACL 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from captum_aml.text.encoding import TokenizedText
from captum_aml.text.inputs import Text
from captum_aml.text.models.loading import load_masked_language_model
from captum_aml.text.models.masked import MASKED, check_fills_masks, logits_at, mask_places
from captum_aml.text.models.prompted import PromptedModel
from captum_aml.text.models.registry import register_text_model
from captum_aml.text.models.template import PromptConfig, PromptTemplate, read_words
from captum_aml.text.models.vocabulary import entry_of


@register_text_model
class MaskedPromptClassifier(PromptedModel):
    """A masked language model that classifies by the word at the mask token of a prompt.

    The arguments are those of :class:`PromptClassifier`. The template has the tokenizer's mask
    token in it, once, where the label word stands: ``"{text} It was [MASK]."`` for BERT. A label
    word is a single token. A pass is one pass of the model.

    Raises:
        InvalidInputError: The template has no mask token or several, a label word is not one token,
            the tokenizer has no mask token, or see :class:`PromptClassifier`.

    Examples:
        >>> labels = {"negative": "bad", "positive": "good"}
        >>> explainer = TextExplainer(model, tokenizer, template="{text} It was [MASK].",
        ...                           labels=labels)
    """

    architectures = MASKED
    own_inputs = ("places",)

    @staticmethod
    def load(source: str, *, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Loads a masked language model and its tokenizer from a folder or the hub."""
        return load_masked_language_model(source, dtype=dtype)

    @property
    def label_ids(self) -> tuple[tuple[int, ...], ...]:
        """The token id of each class's word."""
        return self._label_ids

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *extra_inputs: Tensor
    ) -> Tensor:
        """Logits (N, C) of the label words at the mask token."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        logits = logits_at(self.model, inputs, extra_inputs[-1][:, 0]).to(input_ids.device)
        return logits[:, [own for (own,) in self._label_ids]]

    def _read_template(
        self, config: PromptConfig, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
    ) -> PromptTemplate:
        check_fills_masks(model, tokenizer)
        return PromptTemplate.of(config, mask=str(tokenizer.mask_token))

    def _read_labels(self, words: Sequence[str]) -> int:
        mask = str(self.tokenizer.mask_token)
        around = next(piece for piece in reversed(self._template.pieces) if mask in piece)
        before, _, after = around.rpartition(mask)
        ids = [
            (entry_of(self.tokenizer, word.strip(), before=before, after=after, name="labels"),)
            for word in words
        ]
        read_words(ids, self._label_names)  # which refuses the same token for two classes
        self._label_ids = tuple(ids)
        return 0

    def _encoded(self, text: Text) -> TokenizedText:
        encoded = super()._encoded(text)
        masks = mask_places(encoded, self.tokenizer.mask_token_id)
        # Texts, also those of the examples, may have mask tokens of their own.
        place = [i for i in masks if not encoded.maskable[i]][-1]
        return replace(encoded, own_inputs={"places": (place,)})
