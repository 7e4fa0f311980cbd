"""A text classifier of transformers whose outputs are sums over tokens: answers are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import BertConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import SequenceClassifierOutput

_SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]")


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
    vocabulary = {token: index for index, token in enumerate((*_SPECIAL, *words))}
    n_classes = len(next(iter(words.values())))
    table = torch.zeros(len(vocabulary), n_classes)
    for word, said in words.items():
        table[vocabulary[word]] = torch.tensor(said)
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        unk_token="[UNK]",
    )
    config = BertConfig(num_labels=n_classes, problem_type=problem_type)
    return AdditiveForSequenceClassification(config, table).eval(), tokenizer
