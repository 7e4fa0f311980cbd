"""What a report needs of the records beside their scores: costs, failures, texts to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from captum_aml.benchmark.plan import Plan
from captum_aml.benchmark.scoring import RunKey
from captum_aml.benchmark.summary import Tally
from captum_aml.text import TextModel
from captum_aml.visualization import ScoredText, TextCard


@dataclass
class Collected:
    """What is kept of the records on their way to be scored."""

    shown: range
    tallies: dict[str, Tally] = field(default_factory=dict)
    scores: dict[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)

    def add(self, key: RunKey, record: Mapping[str, Any]) -> None:
        """Takes a record on its way."""
        self.tallies.setdefault(key.method, Tally()).add(key.seed, record)
        if record["index"] in self.shown and record.get("scores") is not None:
            # The first seed's.
            self.scores.setdefault((key.method, record["index"]), record)

    def cards(
        self, classifier: TextModel, plan: Plan, signed: Mapping[str, bool]
    ) -> list[TextCard]:
        """Texts with every method's scores; ``signed`` says of each what its scores can be."""
        places = {index: place for place, index in enumerate(plan.indices)}
        labels = classifier.label_names
        cards = []
        for index in self.shown:
            text = plan.texts[places[index]]
            offsets = [
                o for o, ordinary in zip(text.offsets, text.ordinary, strict=True) if ordinary
            ]
            records = {m: self.scores[m, index] for m in signed if (m, index) in self.scores}
            if not records:
                continue
            first = next(iter(records.values()))
            last = max((end for _, end in offsets), default=0)
            cards.append(
                TextCard(
                    text=text.text,
                    predicted=labels[first["predicted"]],
                    probability=first["probability"],
                    rows=[
                        ScoredText(
                            method=method,
                            offsets=offsets,
                            scores=record["scores"],
                            signed=signed[method],
                            explained=labels[record["predicted"]],
                        )
                        for method, record in records.items()
                    ],
                    seen=last if text.n_tokens_cut else None,
                )
            )
        return cards


__all__ = ["Collected"]
