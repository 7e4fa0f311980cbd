r"""Classification by prompt: a language model reads a text inside a prompt and answers with a word.

With :math:`w_k = (w_{k,1}, \dots, w_{k,T_k})` the tokens of the word for class :math:`k`, the
logit of a class is the log-probability of its word after the prompt,

.. math:: \ell_k = \sum_{t=1}^{T_k} \log p(w_{k,t} \mid \mathrm{prompt}(x), w_{k,<t}),

whose softmax over the classes is explained. The prompt around the text (a description, examples,
``Label:``) is not maskable and scores 0.

Source: the decoders of Barkan et al., Findings of EMNLP 2024, who read the logits of label words
of one token each. Words of several tokens are our own addition; their log-probabilities are summed,
not averaged, so that they are those of the words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TokenizedText
from captum_aml.text.models.continuation import (
    check_causal,
    decoder_logits,
    encoder_decoder_logits,
    forced_ids,
)
from captum_aml.text.models.loading import load_language_model
from captum_aml.text.models.prompted import PromptedModel
from captum_aml.text.models.registry import register_text_model
from captum_aml.text.models.template import PromptConfig, PromptTemplate, read_words


@register_text_model
class PromptClassifier(PromptedModel):
    """A language model that classifies by the word it continues a prompt with.

    Decoders and encoder-decoders (T5) of Hugging Face. A pass costs one pass of the model where
    every label word is one token; otherwise one for each different beginning of the words.

    Args:
        model: A causal or sequence-to-sequence language model.
        tokenizer: Its fast tokenizer.
        template: The prompt with the slot ``{text}``, and for pairs ``{text_pair}``; braces that
            are meant as such are doubled. For instance ``"Text: {text} Label:"``.
        labels: The words that stand for the classes: a mapping from the classes' names, or the
            words alone. Where neither template nor word has a space between them, one is added.
        examples: Solved examples that go before, pairs of a text and a class's name or word.
            Default: ().
        description: What goes first of all. Default: "".
        separator: What stands between description, examples and the text's own prompt.
            Default: an empty line.
        add_special_tokens: Whether the tokenizer adds its special tokens, such as one for the
            beginning. A prompt that begins with that one, as those of chat templates do, has them
            already: none is added. Default: True.
        baseline (str, optional): The vocabulary entry that stands for a removed token. Default:
            None, the first that the tokenizer has of: mask, unknown, end of sequence, padding.
        max_length (int, optional): Texts are cut so that the prompt has this many tokens at most;
            the prompt itself is never cut. Default: None, to what the model takes.

    Attributes:
        prompt_config: Template, labels and what goes with them.

    Raises:
        InvalidInputError: The template has no slot for the text, there are fewer than two
            different label words, an example is of another class, the prompt leaves no room for a
            text, the model writes no text, or the tokenizer gives no offsets.
    """

    embeds_ids = True

    @staticmethod
    def load(source: str, *, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Loads a language model and its tokenizer from a folder or the hub."""
        return load_language_model(source, dtype=dtype)

    @property
    def is_decoder(self) -> bool:
        """True: text is written."""
        return True

    @property
    def _writes(self) -> bool:
        """Whether a decoder of its own writes the answer."""
        return bool(self.model.config.is_encoder_decoder)

    @property
    def _goes_on(self) -> bool:
        return not self._writes

    def _read_template(
        self, config: PromptConfig, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
    ) -> PromptTemplate:
        if model.get_output_embeddings() is None:
            raise InvalidInputError(
                f"model: expected a language model, which gives logits of the next token, got "
                f"{type(model).__name__}; a classifier needs no prompt"
            )
        if not model.config.is_encoder_decoder:
            check_causal(model)
        return PromptTemplate.of(config)

    def _read_labels(self, words: Sequence[str]) -> int:
        self._words, self._branches = read_words(
            [self._label_ids(word) for word in words], self._label_names
        )
        # A decoder is given all tokens of a word but the last one after the prompt.
        return 0 if self._writes else self._branches.shape[1]

    @property
    def label_ids(self) -> tuple[tuple[int, ...], ...]:
        """The token ids of each class's word."""
        return tuple(word.ids for word in self._words)

    @property
    def batches_any(self) -> bool:
        """Whether any texts may share a batch."""
        return (self._writes or not self._branches.shape[1]) and super().batches_any

    def batch_key(self, text: TokenizedText) -> int:
        """The length of prompts that words of several tokens follow, otherwise nothing.

        Padding between a prompt and its word would change what many decoders say: windows of
        attention, distances and states count it.
        """
        return 0 if self._writes or not self._branches.shape[1] else len(text)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *extra_inputs: Tensor
    ) -> Tensor:
        """Log-probabilities of the label words after prompts, the sum over a word's tokens."""
        found = self._along(input_ids, attention_mask)
        columns = []
        for word in self._words:
            after = found[:, word.branch, : len(word.ids)]
            ids = torch.tensor(word.ids, device=found.device)
            columns.append(
                after.gather(2, ids[None, :, None].expand(len(found), -1, 1)).sum((1, 2))
            )
        return torch.stack(columns, dim=1).to(input_ids.device)

    def _along(self, ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Log-probabilities (N, B, T + 1, V) after the prompt and after each token of a branch."""
        branches = self._branches.to(ids.device).expand(len(ids), -1, -1)
        if not self._writes:
            logits = decoder_logits(
                self.model,
                self.embedding_layer,
                ids,
                attention_mask,
                branches,
                accepted=self._accepted,
            )
            return F.log_softmax(logits, dim=-1)
        forced = branches.new_tensor(forced_ids(self.model))
        branches = torch.cat([forced.expand(*branches.shape[:2], -1), branches], dim=2)
        logits = encoder_decoder_logits(
            self.model, self.embedding_layer, ids, attention_mask, branches
        )
        return F.log_softmax(logits[:, :, len(forced) :], dim=-1)

    def _label_ids(self, word: str) -> tuple[int, ...]:
        """The tokens of a label word where it follows the prompt."""
        if self._writes:
            ids = self.tokenizer(word.strip(), add_special_tokens=False)["input_ids"]
            return tuple(int(i) for i in ids)
        # Which tokens a word has may depend on what is before it: a tokenizer may put a space
        # before whatever comes first.
        before = self._template.tail or ":"
        alone, joined = (
            self.tokenizer(string, add_special_tokens=False)["input_ids"]
            for string in (before, before + self._template.joined(word))
        )
        if joined[: len(alone)] != alone or len(joined) == len(alone):
            raise InvalidInputError(
                f"labels: expected words that begin a token after the template's end, but the "
                f"tokenizer joins {word!r} with {before[-10:]!r}; end the template with a "
                "punctuation mark and begin the word with a space"
            )
        return tuple(int(i) for i in joined[len(alone) :])
