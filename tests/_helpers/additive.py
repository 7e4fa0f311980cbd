"""A text classifier of transformers whose outputs are sums over tokens: answers are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import BertConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import SequenceClassifierOutput

from tests._helpers.planted_models import word_tokenizer


class AdditiveForSequenceClassification(PreTrainedModel):
    """Outputs (N, C) that are sums of what the tokens' embeddings (D = C) say for each class."""

    config_class = BertConfig
    base_model_prefix = "words"

    def __init__(self, config: BertConfig, table: Tensor) -> None:
        super().__init__(config)
        self.words = nn.Embedding.from_pretrained(table)

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def get_output_embeddings(self) -> None:
        return None

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> SequenceClassifierOutput:
        said = self.words(input_ids)
        shown = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return SequenceClassifierOutput(logits=(said * shown[..., None]).sum(dim=1))


def additive_classifier(
    words: Mapping[str, Sequence[float]], *, problem_type: str | None = None
) -> tuple[AdditiveForSequenceClassification, PreTrainedTokenizerFast]:
    """A classifier with its tokenizer from what each word says for each class.

    Args:
        words: The C numbers of each word; special tokens, and words not named, have zeros.
        problem_type: The configuration's. Default: None.
    """
    tokenizer = word_tokenizer(tuple(words))
    n_classes = len(next(iter(words.values())))
    table = torch.zeros(len(tokenizer), n_classes)
    for word, said in words.items():
        table[tokenizer.convert_tokens_to_ids(word)] = torch.tensor(said)
    config = BertConfig(num_labels=n_classes, problem_type=problem_type)
    return AdditiveForSequenceClassification(config, table).eval(), tokenizer
