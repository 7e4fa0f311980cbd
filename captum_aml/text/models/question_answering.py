"""Extractive question answering: the answer's span in a context, or its start or end."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from captum_aml._utils.checks import as_count
from captum_aml._utils.rows import shown
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TextBatch, TokenizedText
from captum_aml.text.inputs import AS_OPTIONS, Text, TextLike, each_text
from captum_aml.text.models.answers import Answer, AnswerPart, FoundAnswer, wishes
from captum_aml.text.models.base import Question, TextModel
from captum_aml.text.models.loading import load_question_answerer
from captum_aml.text.models.places import positions_of, token_outputs
from captum_aml.text.models.registry import register_text_model
from captum_aml.text.models.spans import best_span, span_logits, token_log_probabilities
from captum_aml.text.models.targets import TargetsLike


@register_text_model
class QuestionAnswerer(TextModel):
    r"""An extractive question-answering model and its tokenizer.

    A text is a pair of question and context, as a tuple, or as a mapping with both names. By
    default the model's answer is explained: the log-odds of its probability

    .. math:: p = p_{start}(a)\, p_{end}(b),

    where starts and ends are those in the context, or the classification token, at which a model
    reads that there is no answer. ``Explanation.place`` is the answer, in the question and in the
    answer itself, too, tokens can be decisive.

    Targets are "answer", "start" and "end" of it, "no answer", other words of the context (where
    they stand there several times, the likeliest of these), or characters (start, end) of
    ``Explanation.text``. Two of them are a contrast: ``target=("1789", "1799")`` explains
    :math:`\log p_a - \log p_b`, why the one and not the other. "all" is answer, start and end.

    The cost is one pass to find the answer, and that of the method for each target.

    Args:
        model: A question-answering model that gives logits of starts and ends.
        tokenizer: Its fast tokenizer. With one that pads on the left the context comes before the
            question, as such models were trained.
        max_answer_length: The most tokens of an answer that is found. Default: 15.
        no_answer: Whether the model may say that there is no answer. Default: True.
        baseline (str, optional): See :class:`TextModel`.
        max_length (int, optional): See :class:`TextModel`.

    Raises:
        InvalidInputError: See :class:`TextModel`.

    Examples:
        >>> explainer = TextExplainer(model, tokenizer)
        >>> explanation = explainer(("When did it begin?", "It began in 1789, in Paris."))[0]
        >>> explanation.target_label, explanation.top(3)
    """

    task = "question-answering"
    architectures = ("ForQuestionAnswering", "ForQuestionAnsweringSimple")
    no_fit = "the answer is found first"
    own_inputs: ClassVar[tuple[str, ...]] = ("context", "spans")

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_answer_length: int = 15,
        no_answer: bool = True,
        baseline: str | None = None,
        max_length: int | None = None,
    ) -> None:
        self.max_answer_length = as_count("max_answer_length", max_answer_length, least=1)
        self.no_answer = no_answer
        super().__init__(model, tokenizer, baseline=baseline, max_length=max_length)
        self._context_part = 0 if tokenizer.padding_side == "left" else 1

    @staticmethod
    def load(source: str, *, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Loads a question-answering model and its tokenizer from a folder or the hub."""
        return load_question_answerer(source, dtype=dtype)

    @property
    def label_names(self) -> tuple[str, ...]:
        """What can be asked of every text."""
        return get_args(AnswerPart)

    def tokenize(self, texts: Iterable[TextLike]) -> list[TokenizedText]:
        """Tokenizes questions with their contexts; until a question is asked about all of it.

        Raises:
            InvalidInputError: A text is no pair, or see :meth:`TextModel.tokenize`.
        """
        pairs = []
        for text in each_text(texts):
            if not text.parts:
                raise InvalidInputError(
                    "texts: expected pairs of question and context, such as ('Who?', 'I did.') "
                    f"({AS_OPTIONS}), got {shown(text.text)}"
                )
            question, context = text.pieces
            pairs.append(text if self._context_part else Text.of((context, question)))
        return [self._completed(text) for text in super().tokenize(pairs)]

    def _completed(self, text: TokenizedText) -> TokenizedText:
        begin, stop = text.parts[self._context_part]
        inside = [
            i
            for i, (start, end) in enumerate(text.offsets)
            if text.maskable[i] and begin <= start and end <= stop
        ]
        ids = zip(text.model_inputs["input_ids"], text.maskable, strict=True)
        added = [-1 if maskable else token for token, maskable in ids]
        cls = self.tokenizer.cls_token_id
        none = added.index(cls) if cls in added else -1
        first, last = (inside[0], inside[-1]) if inside else (0, -1)
        whole = (first, last) if inside else (max(none, 0),) * 2
        return replace(text, own_inputs={"context": (first, last + 1, none), "spans": whole})

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *extra_inputs: Tensor
    ) -> Tensor:
        """Logits of spans and of all others.

        Args:
            input_ids: (N, L).
            attention_mask (Tensor, optional): See :meth:`TextModel.forward`.
            *extra_inputs: What else the model takes, (N, L) each; the context's first token, the
                one after its last, and the one for no answer or -1, (N, 3); and the first and last
                token of each of S spans, -1 for any, (N, 2 S).

        Returns:
            See :func:`captum_aml.text.models.spans.span_logits`, (N, S + 1).

        Raises:
            InvalidInputError: The model gives no logits of starts and ends.
        """
        *named, context, spans = extra_inputs
        start, end = self._log_probabilities(input_ids, attention_mask, named, context)
        return span_logits(start, end, positions_of(spans, attention_mask, input_ids))

    def _log_probabilities(
        self,
        ids: Tensor,
        attention_mask: Tensor | None,
        extra_inputs: Sequence[Tensor],
        context: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities of tokens as start and as end, (N, L) each."""
        named: dict[str, Any] = dict(zip(self._extra_inputs, extra_inputs, strict=False))
        output = self.model(input_ids=ids, attention_mask=attention_mask, **named)
        found = [getattr(output, f"{name}_logits", None) for name in ("start", "end")]
        logits = [each for each in found if isinstance(each, Tensor) and each.shape == ids.shape]
        if len(logits) < 2:
            raise InvalidInputError(
                "model: expected one with logits of each token as start and as end of an answer, "
                f"got {type(self.model).__name__}"
            )
        first, stop, none = positions_of(context, attention_mask, ids)[..., None].unbind(dim=1)
        places = torch.arange(ids.shape[1], device=ids.device)
        allowed = ((places >= first) & (places < stop)) | (places == none)
        start, end = (token_log_probabilities(each.to(ids.device), allowed) for each in logits)
        return start, end

    def predict(self, texts: object, *, batch_size: int = 32) -> Tensor:
        """Not to be used: outcomes are those of spans; see :meth:`answers`.

        Raises:
            InvalidInputError: Always.
        """
        raise InvalidInputError(
            "predict: a text has no outcomes by itself here; use answers(texts)"
        )

    def answers(self, texts: Iterable[TextLike], *, batch_size: int = 32) -> list[Answer | None]:
        """The model's answer to each question; None where there is no context and nothing said.

        Args:
            texts: Pairs, not one alone.
            batch_size: The most texts in a pass. Default: 32.
        """
        tokenized = self.tokenize(texts)
        found = self._found(tokenized, batch_size)
        return [None if each is None else each.answer for each in found]

    def check_targets(self, asked: TargetsLike) -> None:
        """Refuses what is no target of any text; see :meth:`TextModel.check_targets`."""
        wishes(asked)

    def batch_key(self, text: TokenizedText) -> Hashable:
        """Texts with as many spans may share a batch."""
        return len(text.own_inputs["spans"])

    def questions(
        self,
        texts: Sequence[TokenizedText],
        targets: Sequence[TargetsLike],
        *,
        batch_size: int = 32,
    ) -> list[list[Question]]:
        """One for each target, of spans that it and the model's answer are.

        Raises:
            InvalidInputError: A context does not have the words or characters asked for.
        """
        asked = [wishes(target) for target in targets]
        found = self._found(texts, batch_size)
        return [
            [] if each is None else [each.question(wish) for wish in some]
            for each, some in zip(found, asked, strict=True)
        ]

    def _found(self, texts: Sequence[TokenizedText], batch_size: int) -> list[FoundAnswer | None]:
        """What the model says of each text; None where no token may be an answer."""

        def run(batch: TextBatch) -> Tensor:
            attention_mask, *named, context, _ = batch.forward_args
            both = self._log_probabilities(batch.input_ids, attention_mask, named, context)
            return torch.stack(both, dim=-1)

        rows = token_outputs(self, texts, run, batch_size=batch_size)
        return [self._read(text, row) for text, row in zip(texts, rows, strict=True)]

    def _read(self, text: TokenizedText, log_probabilities: Tensor) -> FoundAnswer | None:
        first, stop, none = text.own_inputs["context"]
        start, end = log_probabilities.unbind(dim=-1)
        candidates = []
        if stop > first:
            candidates.append(best_span(start, end, first, stop, self.max_answer_length))
        if none >= 0 and (self.no_answer or not candidates):
            candidates.append((none, none))
        if not candidates:
            return None
        said = max(candidates, key=lambda tokens: float(start[tokens[0]] + end[tokens[1]]))
        return FoundAnswer(text, start, end, text.parts[self._context_part], said)
