"""Explains a stream of texts: batches of similar length, results in the order of the input."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice

import torch
from torch import Tensor, nn
from tqdm import tqdm

from captum_aml import methods
from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.methods import Setting, TokenMethod
from captum_aml.text.encoding import TokenizedText
from captum_aml.text.explanation import Explanation
from captum_aml.text.model import TextModel

# Texts are read this many batches ahead, to be sorted by length.
_BATCHES_PER_WINDOW = 16


def explain_texts(
    classifier: TextModel,
    texts: Iterable[str],
    *,
    method: str = "aml",
    masker: str | os.PathLike[str] | nn.Module | None = None,
    target: int | str | None = None,
    n_steps: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = False,
) -> Iterator[Explanation]:
    """Explains texts one after the other.

    Memory does not grow with the number of texts: 16 batches are read ahead, sorted by length,
    explained, and given in the order in which they came. A text without tokens, such as an empty
    one, gets an explanation without tokens.

    Args:
        classifier: The model to explain.
        texts: Any iterable of strings.
        method: One of ``captum_aml.methods.available()``. Default: "aml".
        masker (optional): A folder with a fitted masker, or a masker module. Default: None.
        target (int or str, optional): Index or label of the class to explain. Default: None, the
            predicted class of each text.
        n_steps (int, optional): Steps or samples. Default: None, the method's own number.
        batch_size: The most texts, or variants of a text, in one pass. Default: 32.
        seed: Seed of everything random. Default: 0.
        progress: Whether to show a progress bar on standard error. Default: False.

    Yields:
        An ``Explanation`` for every text.

    Raises:
        InvalidInputError: An argument or a text is of a wrong kind. Arguments are checked at the
            call, before the first text is read.
        NonFiniteError: The model's output, or a score, is NaN or infinite.
    """
    if isinstance(texts, str):
        raise InvalidInputError("texts: expected an iterable of strings, got one string")
    entry = methods.spec(method)
    token_method = methods.create(
        method,
        classifier,
        classifier.embedding_layer,
        n_steps=n_steps,
        seed=seed,
        batch_size=batch_size,
        masker=masker,
    )
    explainer = _BatchExplainer(
        classifier=classifier,
        method=token_method,
        name=method,
        signed=entry.signed,
        target=None if target is None else classifier.class_index(target),
    )
    return _explain(explainer, texts, batch_size=batch_size, progress=progress)


def _explain(
    explainer: _BatchExplainer, texts: Iterable[str], *, batch_size: int, progress: bool
) -> Iterator[Explanation]:
    remaining = iter(texts)
    total = len(texts) if isinstance(texts, Sized) else None
    with tqdm(total=total, unit="text", disable=not progress) as bar:
        while window := list(islice(remaining, _BATCHES_PER_WINDOW * batch_size)):
            tokenized = explainer.classifier.tokenize(window)
            order = sorted(range(len(tokenized)), key=lambda i: len(tokenized[i]))
            done: dict[int, Explanation] = {}
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                explanations = explainer([tokenized[row] for row in rows])
                done.update(zip(rows, explanations, strict=True))
                bar.update(len(rows))
            yield from (done[row] for row in range(len(tokenized)))


class _BatchExplainer:
    """Explains one batch of tokenized texts."""

    def __init__(
        self,
        *,
        classifier: TextModel,
        method: TokenMethod,
        name: str,
        signed: bool,
        target: int | None,
    ) -> None:
        self.classifier = classifier
        self.method = method
        self.name = name
        self.signed = signed
        self.target = target
        self.settings: Mapping[str, Setting] = {
            **method.settings,
            "baseline_token": classifier.baseline.token,
        }

    def __call__(self, texts: Sequence[TokenizedText]) -> list[Explanation]:
        classifier = self.classifier
        batch = classifier.collate(texts)
        with classifier.evaluating():
            with torch.no_grad():
                logits = classifier(batch.input_ids, *batch.forward_args)
            _require_finite(logits, texts, "the model's output")
            probabilities = logits.float().softmax(dim=-1)
            predicted = probabilities.argmax(dim=-1)
            explained = (
                predicted if self.target is None else torch.full_like(predicted, self.target)
            )
            scores = self.method(
                batch.input_ids,
                classifier.reference_ids(batch),
                target=explained,
                additional_forward_args=batch.forward_args,
            )
        _require_finite(scores, texts, f"a score of {self.name}")
        labels = classifier.label_names
        table = probabilities.cpu()
        explanations = []
        for row, text in enumerate(texts):
            keep = [i for i, ordinary in enumerate(text.ordinary) if ordinary]
            values = scores[row][batch.ordinary[row]].float().cpu().numpy()
            first, chosen = int(predicted[row]), int(explained[row])
            explanations.append(
                Explanation(
                    text=text.text,
                    tokens=tuple(text.tokens[i] for i in keep),
                    offsets=tuple(text.offsets[i] for i in keep),
                    # The shortest decimal of a float32; as a double it would drag noise along.
                    scores=tuple(float(str(value)) for value in values),
                    predicted=first,
                    predicted_label=labels[first],
                    probability=float(table[row, first]),
                    explained=chosen,
                    explained_label=labels[chosen],
                    explained_probability=float(table[row, chosen]),
                    method=self.name,
                    signed=self.signed,
                    settings=self.settings,
                    n_tokens_cut=text.n_tokens_cut,
                )
            )
        return explanations


def _require_finite(values: Tensor, texts: Sequence[TokenizedText], what: str) -> None:
    finite = values.isfinite().flatten(start_dim=1).all(dim=1)
    if not finite.all():
        text = texts[int((~finite).nonzero()[0])].text
        shown = text if len(text) <= 60 else f"{text[:60]}..."
        raise NonFiniteError(f"{what} is NaN or infinite for the text {shown!r}")
