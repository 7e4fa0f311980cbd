"""What ``captum-aml fit`` says while it goes on: a bar in a terminal, lines everywhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

from captum_aml.training import FitCallback, FitState


class FitLines(FitCallback):
    """A line for every validation and epoch, and in a terminal a bar with the time left.

    Args:
        bar: Whether there is a bar, too.
    """

    def __init__(self, *, bar: bool) -> None:
        self._wants_bar = bar
        self._bar: tqdm | None = None
        self._start = time.perf_counter()
        self._first = 0

    def on_fit_start(self, state: FitState) -> None:
        """Shows where a run that goes on stands."""
        self._start, self._first = time.perf_counter(), state.step
        if state.step:
            self._write(f"Goes on after step {state.step} of {state.n_steps}.")
        if self._wants_bar:
            self._bar = tqdm(total=state.n_steps, initial=state.step, desc="Fitting", unit="step")

    def on_step_end(self, state: FitState) -> None:
        """Moves the bar."""
        if self._bar is not None:
            shown = {name: f"{value:.3f}" for name, value in state.epoch_means.items()}
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update()

    def on_validation_end(self, state: FitState) -> None:
        """Says what the validation gave."""
        assert state.validation is not None
        best = ", the best so far" if state.validation.improved else ""
        self._write(
            f"Epoch {state.epoch}/{state.n_epochs}, step {state.step}/{state.n_steps or '?'}: "
            f"training loss {means_text(state.epoch_means)}; "
            f"validation {means_text(state.validation.means)}{best}{self._left(state)}"
        )

    def on_fit_end(self, state: FitState) -> None:
        """Ends the bar."""
        self.close()

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _left(self, state: FitState) -> str:
        now, done = time.perf_counter(), state.step - self._first
        since, self._start, self._first = now - self._start, now, state.step
        if not done or state.n_steps is None or state.step >= state.n_steps:
            return ""
        # By the pace since the last validation: the first epoch computes what later ones reuse.
        seconds = since / done * (state.n_steps - state.step)
        left = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
        return f"; about {left} left"

    def _write(self, line: str) -> None:
        tqdm.write(line, file=sys.stderr)


def means_text(means: Mapping[str, float]) -> str:
    """Means in words: the total, and in brackets the rest."""
    rest = ", ".join(f"{name} {value:.4f}" for name, value in means.items() if name != "total")
    return f"{means.get('total', float('nan')):.4f}" + (f" ({rest})" if rest else "")


__all__ = ["FitLines", "means_text"]
