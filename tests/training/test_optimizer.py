"""Single steps: which are skipped, at which rate they go, and in which precision."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import get_scheduler

from captum_aml import AMLAttribution, AMLObjective
from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.masking.problem import MaskingProblem
from captum_aml.objectives import MaskedOutcome, Terms
from captum_aml.training import FitCallback, FitSettings, FitState
from captum_aml.training.optimizer import Updater, learning_rates
from captum_aml.typing import Batch
from tests._helpers.fit_runs import (
    batches_of,
    equal,
    planted,
    random_attribution,
    weights_of,
)
from tests._helpers.models import PlantedClassifier, tiny_encoder

BAD = 29  # an id for which the model below gives NaN


class NaNFor(PlantedClassifier):
    """NaN for texts with one certain id."""

    def forward(self, ids: Tensor) -> Tensor:
        bad = (ids == BAD).any(dim=1, keepdim=True)
        return super().forward(ids).masked_fill(bad, math.nan)


def clean(n_batches: int) -> list[Tensor]:
    return [b.masked_fill(b == BAD, 3) for b in batches_of(n_batches, 4)]


def spoilt(batch: Tensor) -> Tensor:
    batch = batch.clone()
    batch[1, 3] = BAD
    return batch


def fit(batches: list[Tensor], **settings: Any) -> AMLAttribution:
    aml = planted()
    aml.forward_func = NaNFor().eval()
    given = {"epochs": 1, "learning_rate": 1e-2, "scheduler": "constant", **settings}
    return aml.fit(batches, **given)


# Skipping


def test_a_step_that_is_not_finite_is_as_if_it_were_not_there() -> None:
    good = clean(4)
    aml = fit([good[0], spoilt(good[1]), good[1], good[2], good[3]])
    expected = fit(good)
    assert equal(weights_of(aml), weights_of(expected))
    assert aml.history_ is not None
    assert expected.history_ is not None
    (record,), (without,) = aml.history_, expected.history_
    assert (record.n_skipped_steps, record.n_steps, record.n_examples) == (1, 5, 16)
    assert (without.n_skipped_steps, without.n_steps) == (0, 4)
    assert record.train == without.train
    assert aml.fit_summary_ is not None
    assert aml.fit_summary_.n_skipped_steps == 1


def test_a_bad_batch_takes_the_others_of_its_step_with_it() -> None:
    good = clean(4)
    aml = fit([*good[:2], good[2], spoilt(good[3])], gradient_accumulation_steps=2)
    assert equal(weights_of(aml), weights_of(fit(good[:2], gradient_accumulation_steps=2)))


def test_too_many_in_a_row_stop_the_fit_and_say_what_to_try() -> None:
    good = clean(2)
    bad = [spoilt(good[1])] * 3
    assert fit([good[0], *bad], max_skipped_steps=3).is_fitted
    with pytest.raises(NonFiniteError) as caught:
        fit([good[0], *bad], max_skipped_steps=2)
    for fragment in ("forward_func", "3 steps in a row", "learning_rate", "mixed_precision='no'"):
        assert fragment in str(caught.value)
    # The good one in between starts the count again.
    assert fit([*bad[:2], good[0], *bad[:2], good[1]], max_skipped_steps=2).is_fitted


def test_a_fit_without_a_good_step_is_an_error() -> None:
    with pytest.raises(NonFiniteError, match="every step had"):
        fit([spoilt(b) for b in clean(2)])


def test_an_epoch_without_a_good_step_is_allowed_as_long_as_the_limit_is() -> None:
    class BadAtFirst:
        """One bad batch in the first epoch, good ones later."""

        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __iter__(self) -> Iterator[Tensor]:
            (batch,) = clean(1)
            yield spoilt(batch) if self.epoch == 0 else batch

    aml = fit(BadAtFirst(), epochs=2)  # type: ignore[arg-type]
    assert [r.n_skipped_steps for r in aml.history_ or []] == [1, 0]
    with pytest.raises(NonFiniteError, match="1 steps in a row"):
        fit(BadAtFirst(), epochs=2, max_skipped_steps=0)  # type: ignore[arg-type]


def test_lowering_the_scale_is_no_skip_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps overflow until the scale fits."""
    step, left = Updater.step, iter(range(4))

    def overflowing(self: Updater, gradients: Any, *rest: Any) -> bool:
        if next(left, None) is not None:
            gradients = [None if g is None else g * math.inf for g in gradients]
        return step(self, gradients, *rest)

    monkeypatch.setattr(Updater, "step", overflowing)
    aml = fit(clean(6), mixed_precision="fp16", max_skipped_steps=0)
    assert aml.fit_summary_ is not None
    assert aml.fit_summary_.n_skipped_steps == 4
    left = iter(range(100))  # it does not go on below a scale of 1
    with pytest.raises(NonFiniteError, match="2 steps in a row"):
        fit(clean(1) * 30, mixed_precision="fp16", max_skipped_steps=1)


def test_a_gradient_that_is_not_finite_is_skipped_too() -> None:
    class Steep(AMLObjective):
        """Finite, with an infinite gradient for the batches with a certain id."""

        def __call__(self, outcome: MaskedOutcome) -> Terms:
            terms = super().__call__(outcome)
            if len(outcome.mask) == 3:
                zero = (outcome.mask - outcome.mask.detach()).sum(dim=1)
                terms = Terms(terms.total + zero.abs().clamp(min=0).sqrt(), terms.parts)
            return terms

    good = clean(2)
    aml = planted(objective=Steep()).fit(
        [good[0], good[0][:3], good[1]], epochs=1, scheduler="constant"
    )
    assert aml.fit_summary_ is not None
    assert aml.fit_summary_.n_skipped_steps == 1
    expected = planted(objective=Steep()).fit(good, epochs=1, scheduler="constant")
    assert equal(weights_of(aml), weights_of(expected))


# Schedules


@pytest.mark.parametrize("warmup", [0.0, 0.3])
@pytest.mark.parametrize(
    "name", ["linear", "cosine", "cosine_with_restarts", "polynomial", "inverse_sqrt"]
)
def test_rates_are_those_that_transformers_steps_through(name: str, warmup: float) -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = get_scheduler(
        name, optimizer, num_warmup_steps=math.ceil(warmup * 9), num_training_steps=9
    )
    ours = learning_rates(FitSettings(learning_rate=0.3, scheduler=name, warmup_ratio=warmup), 9)
    for step in range(10):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12, abs=1e-15)
        optimizer.step()
        theirs.step()


def test_fit_goes_at_these_rates() -> None:
    seen: list[float] = []

    class Rates(FitCallback):
        def on_step_end(self, state: FitState) -> None:
            seen.append(state.learning_rate)

    planted().fit(
        batches_of(4, 4), epochs=2, learning_rate=0.1, warmup_ratio=0.25, callbacks=(Rates(),)
    )
    # Two steps up, then down to zero after the eighth.
    assert seen == pytest.approx([0.05, 0.1, *(0.1 * k / 6 for k in (5, 4, 3, 2, 1, 0))])


# Precision


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_used_where_it_should_be_and_learns_the_same(precision: str) -> None:
    seen: dict[str, set[torch.dtype]] = {"model": set(), "objective": set()}

    class Noting(AMLObjective):
        def __call__(self, outcome: MaskedOutcome) -> Terms:
            assert outcome.kept is not None
            seen["objective"] |= {outcome.kept.dtype, outcome.mask.dtype}
            assert not torch.is_autocast_enabled("cpu")
            return super().__call__(outcome)

    model = tiny_encoder("bert")

    def forward(ids: Tensor) -> Tensor:
        logits = model(ids).logits
        seen["model"].add(logits.dtype)
        return logits

    def fit(**settings: Any) -> dict[str, Tensor]:
        aml = random_attribution()
        aml.forward_func, aml.objective = forward, Noting()
        aml.embedding_layers = (model.get_input_embeddings(),)
        # The last step of a run in fp16 is kept, whatever the first scale led to.
        return weights_of(aml.fit(batches_of(3, 4), epochs=2, learning_rate=1e-3, **settings))

    half = fit(mixed_precision=precision)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert seen["model"] == {torch.float32, dtype}  # the unmasked pass is in full precision
    assert seen["objective"] == {torch.float32}
    seen["model"].clear()
    full = fit()
    assert seen["model"] == {torch.float32}
    assert all(t.dtype == full[name].dtype for name, t in half.items())
    start = random_attribution().masker
    assert start is not None
    moved = torch.cat([(full[k] - v).flatten() for k, v in start.state_dict().items()])
    moved_half = torch.cat([(half[k] - v).flatten() for k, v in start.state_dict().items()])
    assert not torch.equal(moved, moved_half)
    assert torch.cosine_similarity(moved, moved_half, dim=0) > 0.8


def test_two_precisions_in_a_process_and_beside_an_accelerator_of_the_callers() -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    first = weights_of(planted().fit(batches_of(2, 4), epochs=1))
    planted().fit(batches_of(2, 4), epochs=1, mixed_precision="fp16")
    planted().fit(batches_of(2, 4), epochs=1, mixed_precision="bf16")
    assert accelerator.mixed_precision == "bf16"
    assert equal(weights_of(planted().fit(batches_of(2, 4), epochs=1)), first)


# The explained model


def test_no_weight_of_the_explained_model_asks_for_a_gradient_meanwhile() -> None:
    model = tiny_encoder("bert")
    model.classifier.weight.requires_grad_(False)
    required = {n: p.requires_grad for n, p in model.named_parameters()}
    seen: list[bool] = []

    class Looking(FitCallback):
        def on_step_end(self, state: FitState) -> None:
            seen.append(any(p.requires_grad for p in model.parameters()))
            raise KeyboardInterrupt

    for forward in (model, lambda ids: model(ids), model.forward):
        aml = random_attribution()
        aml.forward_func, aml.embedding_layers = forward, (model.get_input_embeddings(),)
        with pytest.raises(KeyboardInterrupt):
            aml.fit(batches_of(1, 4), epochs=1, callbacks=(Looking(),))
        assert {n: p.requires_grad for n, p in model.named_parameters()} == required
        assert all(p.grad is None for p in model.parameters())
    assert seen == [False] * 3


# Bad data


def test_a_batch_that_lacks_an_argument_is_named() -> None:
    model = PlantedClassifier().eval()

    def forward(ids: Tensor, attention_mask: Tensor) -> Tensor:
        return model(ids * attention_mask)

    ids = batches_of(1, 4)[0]
    whole: Batch = {"inputs": ids, "additional_forward_args": (torch.ones_like(ids),)}
    aml = AMLAttribution(forward, embedding_layer=model.embedding, masker=planted().masker)
    with pytest.raises(InvalidInputError, match=r"train_batches, batch 2: .*attention_mask"):
        aml.fit([whole, whole, {"inputs": ids}], epochs=1)
    with pytest.raises(InvalidInputError, match=r"val_batches, batch 1: .*attention_mask"):
        aml.fit([whole], [whole, {"inputs": ids}], epochs=1)


def test_texts_longer_than_the_model_takes_are_named() -> None:
    short, long = torch.randint(3, 30, (2, 6)), torch.randint(3, 30, (2, 40))
    with pytest.raises(InvalidInputError, match="train_batches, batch 1"):
        random_attribution().fit([short, long], epochs=1)


def test_a_set_that_can_teach_one_class_only_is_warned_of() -> None:
    ids = batches_of(2, 4)[0]
    with pytest.warns(UserWarning, match="explained for class 2"):
        planted().fit([{"inputs": ids, "target": 2}] * 2, epochs=1)
    with pytest.warns(UserWarning, match="expected several examples, got one"):
        planted().fit([ids[:1]], epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        planted().fit(batches_of(3, 8), epochs=1)


def test_problems_are_built_once_for_each_batch_and_epoch() -> None:
    """A stream without a length is read, but not explained, to count it."""
    built: list[int] = []
    original = MaskingProblem.build.__func__  # type: ignore[attr-defined]

    def counting(cls: type, *args: Any, **named: Any) -> Any:
        built.append(1)
        return original(cls, *args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskingProblem, "build", classmethod(counting))
        planted().fit(iter(batches_of(3, 4)), epochs=1)
    assert len(built) == 3
