"""Token classification: the entities of a text, each for its label."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TextBatch, TokenizedText
from captum_aml.text.grouping import group_text
from captum_aml.text.inputs import Span, Text, TextLike
from captum_aml.text.models.base import Question, TextModel
from captum_aml.text.models.labels import class_names, n_outputs
from captum_aml.text.models.loading import load_token_classifier
from captum_aml.text.models.places import positions_of, token_outputs, word_places
from captum_aml.text.models.registry import register_text_model
from captum_aml.text.models.tags import TagScheme
from captum_aml.text.models.targets import Target, TargetsLike, targets_of_text
from captum_aml.text.segmentation import trimmed

#: How labels of tokens become entities; see :class:`TokenClassifier`.
Aggregation: TypeAlias = Literal["first", "simple", "none"]


@dataclass(frozen=True)
class Entity:
    """Characters of a text with a label of their own.

    Attributes:
        label: The label, without a prefix.
        span: The characters.
        places: The positions of the tokens at which the label is read.
    """

    label: str
    span: Span
    places: tuple[int, ...]


@register_text_model
class TokenClassifier(TextModel):
    r"""A token-classification model, such as one that finds names, and its tokenizer.

    Each entity that the model finds has an explanation of its own, for its label; a text without
    one has none. ``Explanation.place`` is the entity, and its own tokens can be decisive, too. What
    is explained are the logits of the C tags, which are labels without prefixes, as mean over the
    P tokens of the entity at which its label is read,

    .. math:: z_t = \frac{1}{P} \sum_{p} \log \sum_{k:\ t_k = t} \exp z_{pk},

    so that differences of them are mean log-odds: ``target=("PER", "LOC")`` explains why the one
    and not the other, at each entity. "PER" stands for "B-PER" and "I-PER" together. An entity is
    found by the likeliest label of its tokens, with prefixes; where a tag's probability is split
    between both, another tag can be likelier than the one that is found.

    Words are chosen by a mapping: ``target={"Paris": None}`` explains the likeliest tag of each
    "Paris" in the text, ``{"Paris": "LOC"}`` or ``{"Paris": ("LOC", "PER")}`` what is asked there,
    and ``{(11, 16): None}`` that of characters.

    The cost is one pass for all entities of a text, and that of the method for each.

    Args:
        model: A token-classification model.
        tokenizer: Its fast tokenizer.
        aggregation: How labels of tokens become entities. ``first``: a word, as
            ``Explanation.words`` has them or as they were given, has the label of its first token,
            at which most models are trained, and neighbours of one tag are an entity; ``simple``:
            neighbouring tokens of one tag are; ``none``: every token by itself. The latter two are
            those of transformers' pipeline; its ``first`` may have other words. Default: "first".
        ignore: Labels, with or without prefix, that make no entity. Default: ("O",).
        baseline (str, optional): See :class:`TextModel`.
        max_length (int, optional): See :class:`TextModel`.

    Raises:
        InvalidInputError: The aggregation is unknown, or see :class:`TextModel`.

    Examples:
        >>> explainer = TextExplainer(TokenClassifier(model, tokenizer, aggregation="simple"))
        >>> for explanation in explainer("Anna lives in Paris"):
        ...     print(explanation.about, explanation.target_label, explanation.top(2))
    """

    task = "token-classification"
    architectures = ("ForTokenClassification",)
    no_fit = "the entities are found first"
    own_inputs: ClassVar[tuple[str, ...]] = ("places",)

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        aggregation: Aggregation = "first",
        ignore: Sequence[str] = ("O",),
        baseline: str | None = None,
        max_length: int | None = None,
    ) -> None:
        if aggregation not in get_args(Aggregation):
            raise InvalidInputError(
                f"aggregation: expected one of {get_args(Aggregation)}, got {aggregation!r}"
            )
        if isinstance(ignore, str):
            raise InvalidInputError(f"ignore: expected a list of labels, got {ignore!r}")
        self.aggregation: Aggregation = aggregation
        self.ignore = tuple(ignore)
        self.scheme = TagScheme(class_names(model.config.id2label or {}, n_outputs(model)))
        super().__init__(model, tokenizer, baseline=baseline, max_length=max_length)

    @staticmethod
    def load(source: str, *, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Loads a token classifier and its tokenizer from a folder or the hub."""
        return load_token_classifier(source, dtype=dtype)

    @classmethod
    def pipeline_option(cls, name: str, value: Any) -> dict[str, Any] | None:
        """How tokens become entities, where it is known here, and which labels make none."""
        if name == "aggregation_strategy" and value in get_args(Aggregation):
            return {"aggregation": value}
        return {"ignore": tuple(value)} if name == "ignore_labels" else None

    @property
    def label_names(self) -> tuple[str, ...]:
        """The C tags: names of labels without prefixes, in the order of the labels."""
        return self.scheme.tags

    @property
    def settings(self) -> dict[str, str]:
        """How tokens become entities."""
        return {"aggregation": self.aggregation}

    def tokenize(self, texts: Iterable[TextLike]) -> list[TokenizedText]:
        """Tokenizes texts; until a question names their places, these are all of their tokens.

        Raises:
            InvalidInputError: See :meth:`TextModel.tokenize`.
        """
        return [
            replace(text, own_inputs={"places": tuple(range(len(text)))})
            for text in super().tokenize(texts)
        ]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *extra_inputs: Tensor
    ) -> Tensor:
        """Logits of the tags at places.

        Args:
            input_ids: (N, L).
            attention_mask (Tensor, optional): See :meth:`TextModel.forward`.
            *extra_inputs: What else the model takes, (N, L) each, and the positions of the tokens
                that count, (N, P), -1 for none.

        Returns:
            The mean over the places, (N, C).

        Raises:
            InvalidInputError: The model gives no logits for each token.
        """
        *named, places = extra_inputs
        logits = self._token_logits(input_ids, attention_mask, named)
        places = positions_of(places, attention_mask, input_ids)
        index = places.clamp(min=0)[..., None].expand(-1, -1, logits.shape[-1])
        tags = self.scheme.logits(logits.gather(1, index))
        counts = (places >= 0)[..., None]
        return (tags * counts).sum(dim=1) / counts.sum(dim=1)

    def _token_logits(
        self, ids: Tensor, attention_mask: Tensor | None, extra_inputs: Sequence[Tensor]
    ) -> Tensor:
        """Logits (N, L, K) of the labels of each token."""
        named: dict[str, Any] = dict(zip(self._extra_inputs, extra_inputs, strict=False))
        logits = self.model(input_ids=ids, attention_mask=attention_mask, **named).logits
        assert isinstance(logits, Tensor)
        if logits.dim() != 3:
            raise InvalidInputError(
                f"model: expected a token classifier, got {type(self.model).__name__}, which gives "
                "no logits for each token"
            )
        return logits.to(ids.device)

    def predict(self, texts: object, *, batch_size: int = 32) -> Tensor:
        """Not to be used: labels are those of places; see :meth:`entities`.

        Raises:
            InvalidInputError: Always.
        """
        raise InvalidInputError("predict: a text has no label as a whole here; use entities(texts)")

    def check_targets(self, asked: TargetsLike) -> None:
        """Refuses what is no target at any place; see :meth:`TextModel.check_targets`."""
        for _, wanted in _by_place(asked):
            targets_of_text(wanted, self.label_names)

    def entities(self, texts: Sequence[TextLike], *, batch_size: int = 32) -> list[list[Entity]]:
        """The entities that the model finds in each text, in order.

        Args:
            texts: Texts, not one alone.
            batch_size: The most texts in a pass. Default: 32.
        """
        tokenized = self.tokenize(texts)
        found = self._token_labels(tokenized, batch_size)
        return [self._entities(*each) for each in zip(tokenized, found, strict=True)]

    def questions(
        self,
        texts: Sequence[TokenizedText],
        targets: Sequence[TargetsLike],
        *,
        batch_size: int = 32,
    ) -> list[list[Question]]:
        """One for each entity found, and for each chosen word, in the order asked.

        Raises:
            InvalidInputError: A text does not have a chosen word, or see
                :meth:`TextModel.questions`.
        """
        asked = [_by_place(given) for given in targets]
        finds = any(place is None for each in asked for place, _ in each)
        none: list[list[int]] = [[]] * len(texts)
        labels = self._token_labels(texts, batch_size) if finds else none
        made = []
        for text, own, each in zip(texts, labels, asked, strict=True):
            questions: list[Question] = []
            for place, wanted in each:
                chosen = targets_of_text(wanted, self.label_names)
                if place is None:
                    questions += [
                        self._at(text, entity.span, entity.places, chosen, entity.label)
                        for entity in self._entities(text, own)
                    ]
                else:
                    questions += [
                        self._at(text, span, self._read_at(text, tokens), chosen)
                        for span, tokens in word_places(text, place)
                    ]
            made.append(questions)
        return made

    def _at(
        self,
        text: TokenizedText,
        span: Span,
        places: tuple[int, ...],
        targets: tuple[Target, ...],
        label: str | None = None,
    ) -> Question:
        """What is explained at places of a text; ``label`` is what was found there."""
        predicted = None if label is None else self.label_names.index(label)
        if predicted is not None:
            targets = targets or (Target(predicted),)
        return Question(
            replace(text, own_inputs={"places": places}, place=span), targets, predicted
        )

    def _token_labels(self, texts: Sequence[TokenizedText], batch_size: int) -> list[list[int]]:
        """The likeliest label of each token."""

        def run(batch: TextBatch) -> Tensor:
            attention_mask, *named, _ = batch.forward_args
            return self._token_logits(batch.input_ids, attention_mask, named)

        logits = token_outputs(self, texts, run, batch_size=batch_size)
        return [each.argmax(dim=-1).tolist() for each in logits]

    def _entities(self, text: TokenizedText, labels: Sequence[int]) -> list[Entity]:
        units = self._units(text)
        own = [labels[place] for place, _ in units]
        if self.aggregation == "none":
            stretches = [(i, i + 1) for i in range(len(own))]
        else:
            starts = [span[0] for _, span in units]
            breaks = [bisect_left(starts, start) for start, _ in text.parts]
            stretches = self.scheme.grouped(own, breaks)
        found = []
        for start, end in stretches:
            label = self.scheme.labels[own[start]]
            tag = self.label_names[self.scheme.tag_of[own[start]]]
            if label in self.ignore or tag in self.ignore:
                continue
            (first, *_), (*_, last) = units[start][1], units[end - 1][1]
            places = tuple(place for place, _ in units[start:end])
            found.append(Entity(tag, trimmed(text.text, (first, last)), places))
        return found

    def _read_at(self, text: TokenizedText, tokens: Sequence[int]) -> tuple[int, ...]:
        """Of some tokens those at which a label is read, or all where none of them is."""
        heads = {place for place, _ in self._units(text)}
        return tuple(token for token in tokens if token in heads) or tuple(tokens)

    def _units(self, text: TokenizedText) -> list[tuple[int, Span]]:
        """What has a label: the position of the token where it is read, and the characters."""
        tokens = [i for i, maskable in enumerate(text.maskable) if maskable]
        if self.aggregation != "first":
            return [(token, text.offsets[token]) for token in tokens]
        groups = group_text(
            Text(text.text, text.parts, text.words),
            [text.offsets[token] for token in tokens],
            "word",
            truncated=text.n_tokens_cut > 0,
        )
        first: dict[int, int] = {}
        for token, member in zip(tokens, groups.members, strict=True):
            first.setdefault(member, token)
        return [(first[number], span) for number, span in enumerate(groups.spans)]


def _by_place(asked: Any) -> list[tuple[object, Any]]:
    """What is asked at which place, None for the entities that are found."""
    if isinstance(asked, Mapping):
        return list(asked.items())
    if not isinstance(asked, list) or not any(isinstance(item, Mapping) for item in asked):
        return [(None, asked)]
    at_found = [item for item in asked if not isinstance(item, Mapping)]
    chosen = [pair for item in asked if isinstance(item, Mapping) for pair in item.items()]
    return [(None, at_found), *chosen] if at_found else chosen
