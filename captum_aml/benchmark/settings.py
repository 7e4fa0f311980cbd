"""Settings of a benchmark."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics import Convention, LimitSearch


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """Settings of a benchmark.

    Attributes:
        methods: Names from :func:`captum_aml.methods.available`; None for all that can run.
            ``random`` and ``occlusion`` always take part.
        metrics: Names from :func:`captum_aml.metrics.available_metrics`, perhaps with an
            operator (``aopc-sufficiency@pad``); None for the usual ones.
        convention: A convention or the name of a preset.
        seeds: Seeds for the methods that draw at random.
        maskers: Folders of fitted maskers, one for AML and one for LA at most.
        n_steps: Steps or samples by method, where not the method's own number.
        batch_size: The most texts, or variants of texts, in a pass of the model.
        search: How the limits of normalized AOPC are searched.
        n_examples: Texts that the report shows with every method's scores.
    """

    methods: Sequence[str] | None = None
    metrics: Sequence[str] | None = None
    convention: str | Convention = "default"
    seeds: Sequence[int] = (0,)
    maskers: Sequence[str | os.PathLike[str]] = ()
    n_steps: Mapping[str, int] = field(default_factory=dict)
    batch_size: int = 32
    search: LimitSearch = field(default_factory=LimitSearch)
    n_examples: int = 5

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise InvalidInputError(
                f"seeds: expected different numbers of at least 0, got {list(self.seeds)}"
            )
        if self.batch_size < 1:
            raise InvalidInputError(f"batch_size: expected 1 or more, got {self.batch_size}")
        if self.n_examples < 0:
            raise InvalidInputError(f"n_examples: expected 0 or more, got {self.n_examples}")
