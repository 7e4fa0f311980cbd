"""Zero-shot classification: labels of one's own, by a model of natural language inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from captum_aml._utils.rows import shown
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import Cut, TokenizedText
from captum_aml.text.inputs import Text
from captum_aml.text.models.base import Question, TextOutput
from captum_aml.text.models.checks import checked_length
from captum_aml.text.models.classifier import TextClassifier
from captum_aml.text.models.multi_label import checked_threshold, likely_labels
from captum_aml.text.models.registry import register_text_model
from captum_aml.text.models.stacked import Sequenced, StackedTextModel
from captum_aml.text.models.targets import TargetsLike
from captum_aml.text.models.template import PromptConfig, named_words

#: That of transformers' pipeline.
TEMPLATE = "This example is {}."


@register_text_model
class ZeroShotClassifier(StackedTextModel):
    r"""A model of natural language inference with labels of one's own, and its tokenizer.

    Each label :math:`k` stands in a hypothesis, "This example is sports.", and the text is the
    premise. With :math:`e_k` and :math:`c_k` the model's logits of entailment and of contradiction
    for the premise with the hypothesis, the probability of a label is

    .. math:: p_k = \frac{\exp e_k}{\sum_j \exp e_j}, \qquad\text{or}\qquad
              p_k = \frac{\exp e_k}{\exp e_k + \exp c_k}

    where several labels may be true (``multi_label``), as of transformers' pipeline
    "zero-shot-classification". The text's tokens are explained, by what they do in all pairs at
    once; the hypotheses are not maskable. A pass over a text is one over as many pairs as there are
    labels.

    Args:
        model: A sequence classifier of natural language inference: one of its labels begins with
            "entail".
        tokenizer: Its fast tokenizer.
        template: The hypothesis with the slot ``{}``, or ``{label}``; braces that are meant as such
            are doubled. Default: None, "This example is {}."
        labels: The labels: words, or a mapping from the labels' names to the words that stand for
            them in the hypothesis.
        multi_label: Whether several labels may be true of a text; always so with a single label. By
            default every label with a probability of at least the threshold is explained then, the
            likeliest one where there is none. Default: False.
        threshold: The least probability of a label that is explained by default, of several.
            Default: 0.5.
        baseline (str, optional): See :class:`TextModel`.
        max_length (int, optional): Each pair is cut to this many tokens, the hypothesis never.
            Default: None, to what the model takes.

    Raises:
        InvalidInputError: The model has no label for entailment (or, with ``multi_label``, for
            contradiction), the template has no slot, a hypothesis leaves no room for a text, or see
            :class:`TextModel`.

    Examples:
        >>> explainer = TextExplainer("path/to/nli-model", labels=["sports", "politics"])
        >>> explainer("The striker scored twice.")[0].target_label
        'sports'
    """

    task = "zero-shot-classification"
    architectures = ("ForSequenceClassification",)
    takes_labels = True
    cuts: ClassVar[Cut] = "only_first"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template: str | None = None,
        labels: Mapping[str, str] | Sequence[str] = (),
        *,
        multi_label: bool = False,
        threshold: float = 0.5,
        baseline: str | None = None,
        max_length: int | None = None,
    ) -> None:
        self._label_names, words = named_words(labels, least=1)
        self.threshold = checked_threshold(threshold)
        self.prompt_config: PromptConfig = PromptConfig(
            template=TEMPLATE if template is None else template,
            labels=dict(zip(self._label_names, words, strict=True)),
        )
        self.hypotheses = _hypotheses(self.prompt_config.template, words)
        self._classifier = TextClassifier(
            model, tokenizer, baseline=baseline, max_length=max_length
        )
        super().__init__(model, tokenizer, baseline=baseline, max_length=max_length)
        multi_label = multi_label or len(words) == 1
        self._outputs = _outputs(model, with_contradiction=multi_label)
        self.output: TextOutput = "independent_logits" if multi_label else "logits"
        longest = max(len(tokenizer("", each)["input_ids"]) for each in self.hypotheses)
        checked_length(model, tokenizer, self.max_length, least=longest + 1)

    @classmethod
    def pipeline_option(cls, name: str, value: Any) -> dict[str, Any] | None:
        """Labels, hypothesis, and whether several labels may be true."""
        if name == "multi_label":
            return {name: value}
        known = {"candidate_labels": "labels", "hypothesis_template": "template"}
        return {known[name]: value} if name in known else None

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the C labels, in order."""
        return self._label_names

    @property
    def settings(self) -> dict[str, str]:
        """The hypotheses."""
        return {"hypotheses": " | ".join(self.hypotheses)}

    def sequences(self, text: Text) -> list[Sequenced]:
        """The pairs of the text and each hypothesis.

        Raises:
            InvalidInputError: The text is a pair.
        """
        if text.parts:
            raise InvalidInputError(
                "texts: expected single texts, since the labels make the second one of each pair, "
                f"got several: {shown(text.text)}; without labels= the model classifies pairs"
            )
        return [
            Sequenced.of([(text.text, 0)], [(hypothesis, None)]) for hypothesis in self.hypotheses
        ]

    def questions(
        self,
        texts: Sequence[TokenizedText],
        targets: Sequence[TargetsLike],
        *,
        batch_size: int = 32,
    ) -> list[list[Question]]:
        """The predicted label, or the likely ones, where none are asked for."""
        asked = super().questions(texts, targets, batch_size=batch_size)
        if self.output == "logits":
            return asked
        return likely_labels(self, asked, targets, self.threshold, batch_size=batch_size)

    def run(self, input_ids: Tensor, attention_mask: Tensor, *extra_inputs: Tensor) -> Tensor:
        """The classifier's logits for each pair, (N R, classes)."""
        return self._classifier.forward(input_ids, attention_mask, *extra_inputs)

    def joined(self, found: Tensor) -> Tensor:
        """The labels' logits of entailment, less those of contradiction if several may be true."""
        entailment, contradiction = self._outputs
        logits = found[..., entailment]
        return logits if contradiction is None else logits - found[..., contradiction]


def _hypotheses(template: str | None, words: Sequence[str]) -> tuple[str, ...]:
    expected = "template: expected a hypothesis with the slot {} or {label} once"
    if not isinstance(template, str):
        raise InvalidInputError(f"{expected}, got {type(template).__name__}")
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise InvalidInputError(f"{expected}, got {template!r} ({error})") from None
    slots = [field for _, field, _, _ in parts if field is not None]
    if len(slots) != 1 or slots[0] not in ("", "0", "label"):
        raise InvalidInputError(f"{expected}, got {template!r}")
    return tuple(template.format(word, label=word) for word in words)


def _outputs(model: PreTrainedModel, *, with_contradiction: bool) -> tuple[int, int | None]:
    """The numbers of the outputs for entailment and contradiction; None for one not asked for.

    Without a label that begins with "contradict", the contradiction is the last output if the first
    is entailment, else the first, as of transformers' pipeline.
    """
    named = getattr(model.config, "id2label", None) or {}
    names = {int(number): str(name).lower() for number, name in named.items()}
    numbers = getattr(model.config, "label2id", None) or {}
    names |= {int(number): str(name).lower() for name, number in numbers.items()}
    entailment = next((i for i, name in names.items() if name.startswith("entail")), None)
    if entailment is None:
        raise InvalidInputError(
            "model: expected one of natural language inference, with a label that begins with "
            f"'entail' in its configuration, got {', '.join(names.values()) or 'none'}; a "
            "classifier of labels of its own takes no labels="
        )
    if not with_contradiction:
        return entailment, None
    other = max(names) if entailment == 0 else 0
    return entailment, next((i for i, n in names.items() if n.startswith("contradict")), other)
