r"""Text generation: the tokens that a language model writes after a prompt.

With :math:`x` the prompt and :math:`y_1, \dots, y_T` the answer, the outputs are log-odds of parts
:math:`S` of it: of all of it, of each token, and of the spans that are asked for,

.. math::

    \log \frac{p_S}{1 - p_S}, \qquad
    p_S = \prod_{t \in S} p(y_t \mid x, y_{<t}).

A contrast between two continuations :math:`a` and :math:`b` at one place of the answer explains
:math:`\log p_a - \log p_b`.

Source: the contrast is that of Yin and Neubig, "Interpreting Language Models with Contrastive
Explanations" (EMNLP 2022), there for single tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from captum_aml._utils.batching import length_batches
from captum_aml._utils.checks import as_count
from captum_aml._utils.rows import shown
from captum_aml._utils.tokenizers import has_beginning
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TokenizedText
from captum_aml.text.inputs import Span, Text, TextLike, each_text
from captum_aml.text.models.base import Question, TextModel, TextOutput
from captum_aml.text.models.chat import rendered_chat
from captum_aml.text.models.checks import checked_length
from captum_aml.text.models.continuation import (
    check_causal,
    decoder_logits,
    encoder_decoder_logits,
    forced_ids,
)
from captum_aml.text.models.loading import load_language_model
from captum_aml.text.models.parts import completed_text, log_odds, odds_of_parts
from captum_aml.text.models.prompted import prompt_tokens
from captum_aml.text.models.registry import register_text_model
from captum_aml.text.models.targets import Target, TargetsLike
from captum_aml.text.models.written import Answer, continued, written_answers

if TYPE_CHECKING:
    from captum_aml.methods.registry import MethodOutput

# The tokens of a prompt that say how what follows it is tokenized.
_CONTEXT = 8


@register_text_model
class TextGenerator(TextModel):
    """A language model, decoder or encoder-decoder, and its tokenizer: what it writes.

    A text is a prompt, and what the model writes after it, the likeliest token each time, is
    explained. A pair of texts is a prompt and the answer to explain instead. A list of messages is
    a chat, which the tokenizer's chat template renders, and the answer is its last message where
    that is the assistant's.

    Targets are parts of the answer: 0, the default, for all of it; 1, 2, ... for its tokens;
    ``slice(1, 3)`` for tokens 1 and 2 as one; a string in it, ``"Paris"``, for its tokens as one;
    "all" for each token by itself. A pair is a contrast, ``("Paris", "London")``: why the first
    rather than the second at the place of the first, or, where it is not in the answer, right after
    the prompt.

    One pass of prompt and answer gives the outputs of all parts; of a contrast, one of two rows.
    The answer itself is never masked. Every method explains log-odds, since the probability of a
    long answer is next to 0. A prompt after which the model writes nothing has no explanation,
    which a warning says.

    Args:
        model: A causal or sequence-to-sequence language model.
        tokenizer: Its fast tokenizer.
        max_new_tokens: The most tokens that it writes. Default: 20.
        roles: Whose messages of a chat are masked and scored. Default: the user's.
        baseline (str, optional): See :class:`TextModel`.
        max_length (int, optional): The most tokens of a prompt. What an encoder reads is cut to it;
            a longer prompt of a decoder is refused. Default: None, what the model takes, beside
            ``max_new_tokens`` of a decoder.

    Raises:
        InvalidInputError: The model writes no text, or see :class:`TextModel`.

    Examples:
        >>> explainer = TextExplainer("path/to/language-model")
        >>> explanation = explainer("The capital of France is", target=("Paris", "London"))[0]
    """

    task = "text-generation"
    architectures = (
        "ForCausalLM",
        "ForConditionalGeneration",
        "LMHeadModel",
        "ModelWithLMHead",
        "MTModel",
        "EncoderDecoderModel",
        "GenerationDecoder",
    )
    no_fit = "what is explained is written first"
    embeds_ids = True
    own_inputs = ("answer", "other", "parts")
    output: TextOutput = "independent_logits"
    compared = "log-probability"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_new_tokens: int = 20,
        roles: Collection[str] = ("user",),
        baseline: str | None = None,
        max_length: int | None = None,
    ) -> None:
        if model.get_output_embeddings() is None or not model.can_generate():
            raise InvalidInputError(
                f"model: expected a language model, which writes text, got {type(model).__name__}"
            )
        self._writes = bool(model.config.is_encoder_decoder)
        if not self._writes:
            check_causal(model)
        self.max_new_tokens = as_count("max_new_tokens", max_new_tokens, least=1)
        self.roles = tuple(roles)
        super().__init__(model, tokenizer, baseline=baseline)
        self._extra_inputs = ()
        # A decoder's positions are those of prompt and answer.
        reserved = 0 if self._writes else self.max_new_tokens
        self.max_length = checked_length(model, tokenizer, max_length, least=2, n_reserved=reserved)

    @staticmethod
    def load(source: str, *, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Loads a language model and its tokenizer from a folder or the hub."""
        return load_language_model(source, dtype=dtype)

    @classmethod
    def pipeline_option(cls, name: str, value: Any) -> dict[str, Any] | None:
        """How much is written; one beam, say, and a factor of 1 are as here."""
        if name == "max_new_tokens":
            return {"max_new_tokens": value}
        return {} if value == 1 else None

    @property
    def label_names(self) -> tuple[str, ...]:
        """No name: outputs are parts of each text's own answer."""
        return ()

    @property
    def is_decoder(self) -> bool:
        """True: text is written."""
        return True

    @property
    def method_output(self) -> MethodOutput:
        """Log-odds as they are: probabilities of long answers are next to 0."""
        return "log_odds"

    def read(self, outputs: Tensor) -> Tensor:
        """Probabilities in float64 on the CPU, which has room for those of long answers."""
        return outputs.cpu().double().sigmoid()

    @property
    def settings(self) -> dict[str, str]:
        """How much is written."""
        return {"max_new_tokens": str(self.max_new_tokens)}

    def tokenize(self, texts: Iterable[TextLike]) -> list[TokenizedText]:
        """Tokenizes prompts, with the tokens of the answers that are given.

        Raises:
            InvalidInputError: A prompt, with its answer, is longer than the model takes, or is a
                chat that the tokenizer cannot render.
        """
        return [self._tokenized(text) for text in each_text(texts)]

    def _tokenized(self, text: Text) -> TokenizedText:
        if text.n_options:
            raise InvalidInputError("texts: expected prompts, got options to choose from")
        prompt, answer = _parts(text)
        if prompt.messages:
            string, spans = rendered_chat(self.tokenizer, prompt, self.roles)
            added = False
        else:
            string = prompt.text
            spans = [((0, len(string)), 0)]
            added = not has_beginning(self.tokenizer, string)
        if self._writes and added:
            (tokens,) = super().tokenize([string])
        else:
            tokens = prompt_tokens(
                self.tokenizer,
                string,
                prompt,
                spans,
                add_special_tokens=added,
                goes_on=not self._writes,
            )
        if not len(tokens):
            raise InvalidInputError("texts: expected a prompt of at least one token, got none")
        given: tuple[int, ...] = ()
        if answer is not None:
            word = text.text[slice(*answer)]
            if not word.strip():
                raise InvalidInputError(
                    "texts: expected an answer with the prompt, got an empty one; give the prompt "
                    "alone to explain what the model writes"
                )
            given = (*self._lead, *self._continuation(tokens, (), word))
        self._check_length(tokens, len(given))
        return replace(
            tokens,
            text=text.text,
            parts=text.parts,
            words=text.words,
            place=answer,
            own_inputs={"answer": given, "other": (), "parts": ()},
        )

    @property
    def _lead(self) -> tuple[int, ...]:
        """The tokens that every answer begins with."""
        return forced_ids(self.model) if self._writes else ()

    def _check_length(self, tokens: TokenizedText, n_given: int) -> None:
        if self.max_length is None:
            return
        room = self.max_length
        if not self._writes and n_given:
            room += self.max_new_tokens - n_given
        if len(tokens) > room:
            with_answer = f" beside an answer of {n_given}" if n_given else ""
            raise InvalidInputError(
                f"texts: expected a prompt of at most {max(room, 0)} tokens{with_answer}, got "
                f"{len(tokens)}"
            )

    def _continuation(
        self, tokens: TokenizedText, before: Sequence[int], word: str
    ) -> tuple[int, ...]:
        """The tokens of a word after a prompt and the first tokens of its answer."""
        prompt = [] if self._writes else tokens.model_inputs["input_ids"]
        context = [*prompt, *before][-_CONTEXT:]
        known = str(self.tokenizer.decode(context, clean_up_tokenization_spaces=False))
        if known[-1:].isspace():
            word = word.lstrip()
        elif not before and prompt and prompt[-1] not in self.tokenizer.all_special_ids:
            word = word if word[:1].isspace() else f" {word}"
        return continued(self.tokenizer, known, word)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *extra_inputs: Tensor
    ) -> Tensor:
        """Log-odds (N, C) of parts of the answers.

        Args:
            input_ids: The prompts (N, L).
            attention_mask: See :class:`TextModel`.
            *extra_inputs: The answers (N, T), and other continuations, (N, T') or (N, 0), padded
                with -1; and the C parts of each text, (N, 3 C), as the number of the continuation,
                the first token, and the one behind the last.
        """
        answers, others, parts = extra_inputs
        branches = [answers, others] if others.shape[1] else [answers]
        longest = max(branch.shape[1] for branch in branches)
        wanted = torch.stack(
            [F.pad(branch, (0, longest - branch.shape[1]), value=-1) for branch in branches], dim=1
        ).clamp(min=0)
        if self._writes:
            logits = encoder_decoder_logits(
                self.model, self.embedding_layer, input_ids, attention_mask, wanted[:, :, :-1]
            )
        else:
            logits = decoder_logits(
                self.model,
                self.embedding_layer,
                input_ids,
                attention_mask,
                wanted[:, :, :-1],
                accepted=self._accepted,
            )
        log_probs = F.logsigmoid(log_odds(logits, wanted.to(logits.device)))
        return odds_of_parts(log_probs, parts.to(logits.device)).to(input_ids.device)

    def difference(self, fact: Tensor, foil: Tensor) -> Tensor:
        """What a contrast explains: the difference of log-probabilities."""
        return F.logsigmoid(fact) - F.logsigmoid(foil)

    def check_targets(self, asked: TargetsLike) -> None:
        """Passes: which parts an answer has is known with it."""

    def questions(
        self,
        texts: Sequence[TokenizedText],
        targets: Sequence[TargetsLike],
        *,
        batch_size: int = 32,
    ) -> list[list[Question]]:
        """The parts of what is given or written; nothing where the model writes nothing."""
        answers = self._answers(texts, batch_size)
        found = [
            self._questions(text, answer, asked)
            for text, answer, asked in zip(texts, answers, targets, strict=True)
        ]
        _warn_of_silence([text.text for text, some in zip(texts, found, strict=True) if not some])
        return found

    def batch_key(self, text: TokenizedText) -> tuple[bool, int]:
        """Contrasts, which take twice the work, and prompts of a decoder by their length.

        Padding between a prompt and its answer would change what many decoders say: windows of
        attention, distances and states count it.
        """
        return bool(text.own_inputs["other"]), 0 if self._writes else len(text)

    def _answers(self, texts: Sequence[TokenizedText], batch_size: int) -> list[Answer]:
        """What is given, or else what the model writes."""
        found = {
            number: Answer.of(self.tokenizer, text.own_inputs["answer"])
            for number, text in enumerate(texts)
            if text.own_inputs["answer"]
        }
        # Without padding: prompts of one length.
        by_length: dict[int, list[int]] = {}
        for number, text in enumerate(texts):
            if number not in found:
                by_length.setdefault(len(text), []).append(number)
        for numbers in by_length.values():
            for rows in length_batches([texts[number] for number in numbers], batch_size):
                chosen = [numbers[row] for row in rows]
                written = self._written([texts[number] for number in chosen])
                found.update(zip(chosen, written, strict=True))
        return [found[number] for number in range(len(texts))]

    def _written(self, texts: Sequence[TokenizedText]) -> list[Answer]:
        """What the model writes after prompts of one length."""
        batch = self.collate(texts)
        with self.evaluating():
            return written_answers(
                self.model,
                self.tokenizer,
                batch.input_ids,
                batch.attention_mask,
                max_new_tokens=self.max_new_tokens,
            )

    def _questions(self, text: TokenizedText, answer: Answer, asked: TargetsLike) -> list[Question]:
        """One question for targets that follow each other, one for each contrast, in order."""
        n_tokens = len(answer.ids)
        wanted: list[Any] = asked if isinstance(asked, list) else [0 if asked is None else asked]
        made: list[Question] = []
        parts: list[Span] = []
        for item in wanted:
            if isinstance(item, tuple):
                made += self._about(text, answer, parts)
                made.append(self._contrast(text, answer, item))
                parts = []
            elif isinstance(item, str) and item == "all":
                parts += [(number, number + 1) for number in range(n_tokens)]
            elif n_tokens:
                parts.append(self._part(answer, item))
        return made + self._about(text, answer, parts)

    def _part(self, answer: Answer, asked: object) -> Span:
        found = answer.part(asked)
        if found is None:
            raise InvalidInputError(
                f"target: expected a part of the answer {answer.text!r}, got {asked!r}; give the "
                "prompt with another answer, as a pair, to explain that"
            )
        return found

    def _about(self, text: TokenizedText, answer: Answer, asked: list[Span]) -> list[Question]:
        """The question about parts of the answer; none where there are none."""
        if not asked:
            return []
        n_tokens = len(answer.ids)
        parts = [(0, n_tokens), *((number, number + 1) for number in range(n_tokens))]
        parts += [part for part in dict.fromkeys(asked) if part not in parts]
        names = [answer.label(part) for part in parts]
        completed = completed_text(
            text, answer.lead, answer.ids, (), [(0, *part) for part in parts], names
        )
        return [Question(completed, tuple(Target(parts.index(p)) for p in asked), predicted=0)]

    def _contrast(self, text: TokenizedText, answer: Answer, asked: tuple[Any, ...]) -> Question:
        """The question why the answer goes on with the first rather than with the second."""
        if len(asked) != 2 or not isinstance(asked[1], str) or not asked[1].strip():
            raise InvalidInputError(
                "target: expected a contrast as a pair of what is written and a string instead of "
                f"it, such as ('Paris', 'London'), got {asked!r}"
            )
        fact, foil = asked
        found = answer.part(fact)
        if found is None:
            own, other = (self._continuation(text, (), word) for word in (fact, foil))
            parts = [(0, 0, len(own)), (1, 0, len(other))]
            names, target = [fact.strip(), foil.strip()], Target(0, foil=1)
        else:
            first, last = found
            own, n_tokens = answer.ids, len(answer.ids)
            word = f" {foil.strip()}" if answer.begins_with_space(first) else foil.strip()
            other = (*own[:first], *self._continuation(text, own[:first], word))
            parts = [(0, 0, n_tokens), (0, first, last), (1, first, len(other))]
            names = [answer.label((0, n_tokens)), answer.label(found), foil.strip()]
            target = Target(1, foil=2)
        if own[: len(other)] == other[: len(own)]:
            raise InvalidInputError(
                f"target: expected a contrast between two continuations, got {fact!r} and "
                f"{foil!r}, of which one begins with the other"
            )
        completed = completed_text(text, answer.lead, own, other, parts, names)
        return Question(completed, (target,), predicted=None if found is None else 0)


def _warn_of_silence(prompts: Sequence[str]) -> None:
    """Warns of prompts after which the model writes nothing, if any."""
    if prompts:
        which = f"the prompt {shown(prompts[0])}"
        if len(prompts) > 1:
            which = f"{len(prompts)} prompts, the first of which is {shown(prompts[0])}"
        warnings.warn(
            f"texts: the model writes nothing after {which}; there is no answer to explain",
            stacklevel=3,
        )


def _parts(text: Text) -> tuple[Text, Span | None]:
    """The prompt of a text, and where the answer stands that is given with it."""
    if text.messages and text.messages[-1][0] == "assistant":
        return replace(text, messages=text.messages[:-1]), text.messages[-1][1]
    if text.parts:
        return Text(text.pieces[0]), text.parts[1]
    return text, None
