"""Scores explanations that were made elsewhere, by the metrics of the benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from captum_aml._utils.rows import shown
from captum_aml.benchmark.explain import Record
from captum_aml.benchmark.explanations import GivenExplanation, scores_for_tokens
from captum_aml.benchmark.plan import Plan, data_fingerprint
from captum_aml.benchmark.results import BenchmarkResults, Cost, MethodRow
from captum_aml.benchmark.score import RunKey, Scorer
from captum_aml.benchmark.settings import BenchmarkSettings
from captum_aml.benchmark.summary import Collected, findings
from captum_aml.exceptions import InvalidInputError
from captum_aml.methods import ScoreMeaning
from captum_aml.text import TextModel
from captum_aml.text.data import LabelledText
from captum_aml.text.models.labels import class_index
from captum_aml.text.saved import model_fingerprint

_UNNAMED = "given"
#: Settings that say how explanations are made, which is not known here.
_OF_EXPLAINING = ("seeds", "steps")


def evaluate_explanations(
    text_model: TextModel,
    explanations: Sequence[GivenExplanation],
    settings: BenchmarkSettings | None = None,
    *,
    model_name: str = "model",
    data_name: str = "explanations",
    show_progress: bool = False,
) -> BenchmarkResults:
    """Scores given explanations with the same metrics, and by the same code, as a benchmark.

    Scores of words or spans are carried to the model's own tokens by their characters. A text that
    one method explains and another does not counts as a failure of the other.

    Args:
        text_model: The model that they explain.
        explanations: From :func:`~captum_aml.benchmark.explanations.read_explanations`; each row
            of the result is a method, which may have several seeds.
        settings: Metrics, convention, batch size, search and number of examples are used; the rest
            has no meaning here. Default: None, everything as usual.
        model_name: What the report calls the model. Default: "model".
        data_name: What the report calls the explanations. Default: "explanations".
        show_progress: Whether to show a progress bar. Default: False.

    Raises:
        InvalidInputError: There is no explanation, a setting is wrong, a method explains a text
            twice with the same seed, or explanations of one text are of different classes.
    """
    settings = settings or BenchmarkSettings()
    if not explanations:
        raise InvalidInputError("explanations: expected one or more, got none")
    texts, by_run = _by_run(explanations)
    scorer = Scorer.of(text_model, texts, settings, _targets(text_model, texts, explanations))
    collected = Collected(range(min(settings.n_examples, len(texts))))
    predictions = _predictions(text_model, texts, scorer.targets, settings.batch_size)
    records = {key: _records(given, scorer.plan, predictions) for key, given in by_run.items()}
    with scorer.bar(len(by_run), show=show_progress) as bar:
        scored = scorer.score(records, on_record=collected.add, on_window=bar.update)
    facts = {key.method: MethodRow(key.method, "baseline") for key in by_run}
    found = findings(
        scorer,
        scored,
        collected,
        facts,
        _meanings(explanations),
        settings,
        model=model_name,
        data=data_name,
        made_here=False,
    )
    return replace(
        found,
        rows=[replace(row, cost=Cost.unknown()) for row in found.rows],
        settings={k: value for k, value in found.settings.items() if k not in _OF_EXPLAINING},
        fingerprints={"model": model_fingerprint(text_model), "data": data_fingerprint(texts)},
        notes=["These explanations were made elsewhere; nothing is known of their cost."],
    )


def _by_run(
    explanations: Sequence[GivenExplanation],
) -> tuple[list[LabelledText], dict[RunKey, dict[int, GivenExplanation]]]:
    """The different texts, and by run the explanations of each by its number."""
    numbers: dict[tuple[str, str | None], int] = {}
    texts: list[LabelledText] = []
    by_run: dict[RunKey, dict[int, GivenExplanation]] = {}
    for given in explanations:
        example = given.example
        number = numbers.setdefault((example.text, example.id), len(texts))
        if number == len(texts):
            texts.append(example)
        else:
            texts[number] = _merged(texts[number], example)
        key = RunKey(given.method or _UNNAMED, given.seed or 0)
        explained = by_run.setdefault(key, {})
        if number in explained:
            raise InvalidInputError(
                f"explanations: expected one of a text by a method with a seed, got two by "
                f"{key.method!r} for {shown(example.text)}; tell equal texts apart by a field 'id'"
            )
        explained[number] = given
    return texts, by_run


def _meanings(explanations: Sequence[GivenExplanation]) -> dict[str, ScoreMeaning]:
    """What is seen of each method's scores: of either sign, or none below 0."""
    lowest: dict[str, float] = {}
    for given in explanations:
        name = given.method or _UNNAMED
        lowest[name] = min(lowest.get(name, 0.0), *given.scores, 0.0)
    return {name: ScoreMeaning(signed=low < 0, relative=True) for name, low in lowest.items()}


def _merged(first: LabelledText, second: LabelledText) -> LabelledText:
    """Label and rationale of one text from two lines, either of which may lack them."""
    for name in ("label", "rationale"):
        known, given = getattr(first, name), getattr(second, name)
        if None not in (known, given) and known != given:
            raise InvalidInputError(
                f"{name}: expected the same for all explanations of a text, got {known!r} and "
                f"{given!r} for {shown(first.text)}"
            )
    return replace(
        first,
        label=second.label if first.label is None else first.label,
        rationale=second.rationale if first.rationale is None else first.rationale,
    )


def _targets(
    text_model: TextModel,
    texts: Sequence[LabelledText],
    explanations: Sequence[GivenExplanation],
) -> list[int] | None:
    """The explained class of each text; None where no explanation names one."""
    chosen: dict[tuple[str, str | None], int] = {}
    for given in explanations:
        if given.target is None:
            continue
        key = (given.example.text, given.example.id)
        target = class_index(given.target, text_model.label_names)
        if chosen.setdefault(key, target) != target:
            raise InvalidInputError(
                "target: expected one class for all explanations of a text, got "
                f"{chosen[key]} and {target} for {shown(given.example.text)}"
            )
    if not chosen:
        return None
    missing = [item.text for item in texts if (item.text, item.id) not in chosen]
    if missing:
        raise InvalidInputError(
            f"target: expected a class for every text or for none, got none for {shown(missing[0])}"
        )
    return [chosen[item.text, item.id] for item in texts]


def _predictions(
    text_model: TextModel,
    texts: Sequence[LabelledText],
    targets: Sequence[int] | None,
    batch_size: int,
) -> list[tuple[int, float]]:
    """The explained class of each text and its probability."""
    table = text_model.predict([item.text for item in texts], batch_size=batch_size)
    classes = table.argmax(dim=1).tolist() if targets is None else targets
    return [(c, float(row[c])) for c, row in zip(classes, table, strict=True)]


def _records(
    given: Mapping[int, GivenExplanation], plan: Plan, predictions: Sequence[tuple[int, float]]
) -> Iterator[Record]:
    """Records of a run, in the order of the plan."""
    for place, index in enumerate(plan.indices):
        if index not in given:
            yield {"index": index, "error": "no explanation given"}
            continue
        text = plan.texts[place]
        offsets = [o for o, maskable in zip(text.offsets, text.maskable, strict=True) if maskable]
        scores = scores_for_tokens(given[index].spans, given[index].scores, offsets)
        explained, probability = predictions[index]
        yield {
            "index": index,
            "scores": scores,
            "predicted": explained,
            "probability": probability,
        }
