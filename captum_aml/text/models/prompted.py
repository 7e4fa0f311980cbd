"""Texts inside prompts: a text's tokens keep their characters, those of the prompt have none."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from captum_aml._utils.tokenizers import has_beginning
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TokenizedText
from captum_aml.text.inputs import Span, Text, TextLike, each_text
from captum_aml.text.models.base import TextModel
from captum_aml.text.models.checks import checked_length
from captum_aml.text.models.template import (
    PromptConfig,
    PromptTemplate,
    beginning,
    named_words,
    text_offsets,
)


class PromptedModel(TextModel):
    """A language model that reads a text inside a prompt and is asked for label words.

    Subclasses say where the words are read. For the arguments see :class:`PromptClassifier`.
    """

    task = "prompt-classification"
    takes_labels = True

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        labels: Mapping[str, str] | Sequence[str],
        *,
        examples: Sequence[tuple[TextLike, str]] = (),
        description: str = "",
        separator: str = "\n\n",
        add_special_tokens: bool = True,
        baseline: str | None = None,
        max_length: int | None = None,
    ) -> None:
        self._label_names, self._label_words = named_words(labels)
        self.prompt_config: PromptConfig = PromptConfig(
            template=template,
            labels=dict(zip(self._label_names, self._label_words, strict=True)),
            examples=tuple(examples),
            description=description,
            separator=separator,
            add_special_tokens=add_special_tokens,
        )
        self._template = self._read_template(self.prompt_config, tokenizer, model)
        super().__init__(model, tokenizer, baseline=baseline)
        self._adds = add_special_tokens and not has_beginning(tokenizer, self._template.pieces[0])
        self._extra_inputs = ()  # token types are those of a single text
        n_reserved = self._read_labels(self._label_words)
        frame = len(self._encoded(Text.of("" if len(self._template.slots) == 1 else ("", ""))))
        self.max_length = checked_length(
            model, tokenizer, max_length, least=frame + 1, n_reserved=n_reserved
        )
        if self.max_length is not None and frame >= self.max_length:
            raise InvalidInputError(
                f"template: expected a prompt that leaves room for a text within "
                f"{self.max_length} tokens, got one of {frame}; give fewer examples"
            )

    @abstractmethod
    def _read_template(
        self, config: PromptConfig, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
    ) -> PromptTemplate:
        """The template of a prompt; refuses a model or tokenizer that cannot answer it."""

    @abstractmethod
    def _read_labels(self, words: Sequence[str]) -> int:
        """Finds the tokens of the label words; gives how many of them follow the prompt."""

    @property
    def _goes_on(self) -> bool:
        """Whether the answer follows the last token of the prompt, which then marks no end."""
        return False

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the C classes, in order."""
        return self._label_names

    @property
    def settings(self) -> dict[str, str]:
        """The prompt and the label words."""
        slots = [f"{{{slot}}}" for slot in sorted(self._template.slots)]
        shown = Text.of(slots[0] if len(slots) == 1 else tuple(slots))
        return {"prompt": self.prompt(shown), "label_words": ", ".join(self._label_words)}

    def prompt(self, text: TextLike) -> str:
        """The whole prompt around a text, as the tokenizer is given it.

        Raises:
            InvalidInputError: A pair is given and the template has no slot for it, or the other
                way around.
        """
        return self._template.fill(Text.of(text))[0]

    def tokenize(self, texts: Iterable[TextLike]) -> list[TokenizedText]:
        """Tokenizes texts inside their prompts; texts that are too long are cut, prompts never.

        Offsets are those in the text: a token of the prompt, or with no character of the text,
        has none and is not maskable.
        """
        return [self._tokenized(text) for text in each_text(texts)]

    def _encoded(self, text: Text) -> TokenizedText:
        """A text inside its prompt, however long."""
        prompt, spans = self._template.fill(text)
        return prompt_tokens(
            self.tokenizer,
            prompt,
            text,
            spans,
            add_special_tokens=self._adds,
            goes_on=self._goes_on,
        )

    def _tokenized(self, text: Text) -> TokenizedText:
        whole = encoded = self._encoded(text)
        while self.max_length is not None and len(encoded) > self.max_length:
            # Cut before the first token without room; several tokens may be parts of a character.
            starts = sorted(start for start, end in encoded.offsets if end > start)
            room = len(starts) - (len(encoded) - self.max_length)
            encoded = self._encoded(beginning(text, starts[room] if room > 0 else 0))
        return replace(
            encoded,
            text=text.text,
            n_tokens_cut=sum(whole.maskable) - sum(encoded.maskable),
            parts=text.parts,
            words=text.words,
        )


def prompt_tokens(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    text: Text,
    spans: Sequence[tuple[Span, int]],
    *,
    add_special_tokens: bool,
    goes_on: bool,
) -> TokenizedText:
    """The tokens of a prompt, of which those of a text are maskable.

    Args:
        tokenizer: A fast tokenizer.
        prompt: The prompt.
        text: The text in it.
        spans: Where its maskable parts stand in the prompt, and where each begins in the text.
        add_special_tokens: Whether the tokenizer adds its special tokens.
        goes_on: Whether the answer follows the last token, so that none is to mark an end.
    """
    encoding = tokenizer(
        prompt, add_special_tokens=add_special_tokens, truncation=False, verbose=False
    ).encodings[0]
    n_tokens = len(encoding.ids)
    while goes_on and n_tokens and encoding.special_tokens_mask[n_tokens - 1]:
        n_tokens -= 1
    offsets = text_offsets(encoding.offsets[:n_tokens], spans)
    return TokenizedText(
        text=text.text,
        model_inputs={
            "input_ids": list(encoding.ids[:n_tokens]),
            "attention_mask": [1] * n_tokens,
        },
        tokens=tuple(encoding.tokens[:n_tokens]),
        offsets=offsets,
        maskable=tuple(end > start for start, end in offsets),
        n_tokens_cut=0,
        parts=text.parts,
        words=text.words,
    )
