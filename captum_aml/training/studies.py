"""Optuna's studies, kept in a file that a later search and other processes can go on with."""

from __future__ import annotations

import json
import math
import os
import platform
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import Timeout
from optuna.samplers import TPESampler
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from captum_aml._utils.files import locked
from captum_aml._utils.run_folder import check_same
from captum_aml.exceptions import InvalidInputError
from captum_aml.training.data import derived_seed
from captum_aml.training.records import Trial

_STUDY = "captum-aml"
_IDENTITY = "captum_aml_search"
_NOTE = "captum_aml_trial"
_OWNER = "captum_aml_owner"
_RATE = "learning_rate"
_SQLITE = (".db", ".sqlite", ".sqlite3")
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def sampler_of(trial: optuna.Trial, *, seed: int, n_startup_trials: int) -> TPESampler:
    """The tree-structured Parzen estimator with a seed for each trial.

    So a search that goes on proposes what it would have proposed, rather than the first trials'
    random draws once more, and processes that share a storage do not all draw the same.
    """
    seed = derived_seed(seed, "trial", trial.number) % 2**32
    return TPESampler(seed=seed, n_startup_trials=n_startup_trials)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Optuna's notices off the screen for a block."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def open_study(
    storage: str | os.PathLike[str] | None,
    identity: Mapping[str, Any],
    *,
    higher_is_better: bool,
    prune: bool,
) -> optuna.Study:
    """A new study, or the one that the storage holds.

    Raises:
        InvalidInputError: The storage is of another search, or no storage at all.
    """
    pruner = optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner()
    wanted = json.loads(json.dumps(dict(identity)))
    try:
        study = optuna.create_study(
            storage=_storage(storage),
            study_name=_STUDY,
            load_if_exists=True,
            direction="maximize" if higher_is_better else "minimize",
            pruner=pruner,
        )
        found = study.user_attrs.get(_IDENTITY)
    except Exception as error:  # Optuna, SQLAlchemy and JSON each have errors of their own
        if isinstance(error, OSError) or storage is None:
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInputError(
            f"storage: expected a new file or one of a search, got {os.fspath(storage)!r} "
            f"({reason})"
        ) from error
    if found is None:
        study.set_user_attr(_IDENTITY, wanted)
    else:
        what = f"storage: {os.fspath(storage or '')!r} holds another search"
        check_same(found, wanted, what, remedy="Choose another file")
    return study


def _storage(path: str | os.PathLike[str] | None) -> optuna.storages.BaseStorage | None:
    if path is None:
        return None
    file = Path(path)
    if file.is_dir():
        raise InvalidInputError(f"storage: expected a file, got the folder {os.fspath(path)!r}")
    if not file.parent.is_dir():
        raise InvalidInputError(f"storage: there is no folder {os.fspath(file.parent)!r}")
    if file.suffix.lower() in _SQLITE:
        return optuna.storages.RDBStorage(f"sqlite:///{file.resolve()}")
    _check_journal(file)
    return optuna.storages.JournalStorage(JournalFileBackend(os.fspath(path)))


def _check_journal(file: Path) -> None:
    """Refuses a file that is none of Optuna's, which would write its lines below what is there."""
    if not file.exists():
        return
    with file.open("rb") as stream:
        first = stream.readline(10_000)
    try:
        ours = not first or "op_code" in json.loads(first)
    except (ValueError, TypeError):
        ours = False
    if not ours:
        raise InvalidInputError(
            f"storage: expected a new file or one of a search, got {os.fspath(file)!r}, which "
            "holds something else"
        )


@dataclass(frozen=True)
class Owner:
    """A search among those that share a storage; its trials carry its name.

    It has a lock beside the storage as long as it goes on, which the system takes back however its
    process ends: a trial under way is over if its search's lock can be had. Optuna's heartbeats are
    of databases only, its journal has none.

    Attributes:
        storage: The storage, or None for one in memory, which nobody shares.
        name: The search's name.
    """

    storage: Path | None
    name: str

    def lock_of(self, name: str) -> Path | None:
        """The file that the search of a name has locked while it goes on."""
        storage = self.storage
        return None if storage is None else storage.with_name(f".{storage.name}.{name}.lock")

    def goes_on(self, name: str) -> bool:
        """Whether the search of a name goes on."""
        lock = self.lock_of(name)
        if lock is None:
            return False
        try:
            with locked(lock, wait=False):
                return False
        except Timeout:
            return True


@contextmanager
def presence(storage: str | os.PathLike[str] | None) -> Iterator[Owner]:
    """A block in which a search of a storage goes on, as others can see."""
    owner = Owner(None if storage is None else Path(storage), secrets.token_hex(8))
    lock = owner.lock_of(owner.name)
    with nullcontext() if lock is None else locked(lock):
        yield owner


def missing_trials(study: optuna.Study, n_trials: int, owner: Owner) -> Iterator[optuna.Trial]:
    """New trials until there are enough, those that other searches are busy with included.

    Args:
        study: The study.
        n_trials: How many are enough.
        owner: Whose they are. What searches of this machine that are over left behind has failed.
    """
    here = platform.node()
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        left = frozen.user_attrs.get(_OWNER)
        if isinstance(left, list) and left[0] == here and not owner.goes_on(str(left[1])):
            study.tell(frozen.number, state=TrialState.FAIL)
    while len(_counted(study)) < n_trials:
        trial = study.ask()
        trial.set_user_attr(_OWNER, [here, owner.name])
        # Others may have begun one at the same time: the lower number goes on.
        if sum(number < trial.number for number in _counted(study)) >= n_trials:
            study.tell(trial, state=TrialState.FAIL)
            return
        yield trial


def _counted(study: optuna.Study) -> list[int]:
    """The numbers of the trials that are finished or under way."""
    trials = study.get_trials(deepcopy=False)
    return [t.number for t in trials if t.state == TrialState.RUNNING or _is_finished(t)]


def _is_finished(trial: FrozenTrial) -> bool:
    return trial.state in _STATES and _NOTE in trial.user_attrs


def n_running(study: optuna.Study) -> int:
    """The number of trials that count as under way."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def note(
    trial: optuna.Trial,
    *,
    seconds: float,
    values: Mapping[str, float] | None = None,
    error: str = "",
) -> None:
    """Writes down what a trial took and gave; without this it is not counted as finished."""
    trial.set_user_attr(
        _NOTE, {"seconds": round(seconds, 3), "values": dict(values or {}), "error": error}
    )


def finished(study: optuna.Study) -> Sequence[FrozenTrial]:
    """The finished trials by number."""
    return [t for t in study.get_trials(deepcopy=False) if _is_finished(t)]


def record(trial: FrozenTrial, weights: Sequence[str]) -> Trial:
    """A trial as plain values."""
    noted = trial.user_attrs[_NOTE]
    value = trial.value
    return Trial(
        number=trial.number,
        state=_STATES[trial.state],  # type: ignore[arg-type]  # the literal's own values
        weights={name: trial.params[name] for name in weights},
        learning_rate=trial.params[_RATE],
        value=None if value is None or math.isnan(value) else float(value),
        values=noted["values"],
        seconds=noted["seconds"],
        error=noted["error"],
    )
