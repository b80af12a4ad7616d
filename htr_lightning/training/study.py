"""Optuna studies: the distributions of a sweep, a storage for several machines, and pruning during validation.

Optuna is imported when a study is opened, since Hydra imports its sweepers for every run.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from htr_lightning.errors import InputError, first_line

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

OWNER, REPEATS, PRUNED = "owner", "repeats", "pruned_at_step"  # attributes of trials


def open_study(settings: Mapping[str, Any]) -> "Study":
    """Open the study of a sweep, which is created if it does not exist.

    Args:
        settings: `storage` (path of a journal, or URL of a database), `study_name`, `direction`, and perhaps `sampler`
            and `pruner`.

    Raises:
        InputError: if Optuna is not installed or the storage cannot be used.
    """
    study, _ = _open(settings)
    if study.get_trials(deepcopy=False):
        study.sampler.reseed_rng()  # with the same seed, it would draw the first values again
    return study


def open_trial(settings: Mapping[str, Any], number: int) -> "Trial":
    """Open a trial that another process has asked for; `settings` are those of `open_study`.

    Raises:
        InputError: see `open_study`.
    """
    study, storage = _open(settings)
    from optuna.trial import Trial

    study_id = storage.get_study_id_from_name(settings["study_name"])
    return Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))


def _open(settings: Mapping[str, Any]) -> "tuple[Study, BaseStorage]":
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ModuleNotFoundError:
        raise InputError("hydra/sweeper=optuna: needs optuna; install htr-lightning[sweep]") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = str(settings["storage"])
    try:
        storage: BaseStorage
        if "://" in place:
            storage = optuna.storages.RDBStorage(place)
        else:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            storage = optuna.storages.JournalStorage(JournalFileBackend(place))
        study = optuna.create_study(
            storage=storage,
            study_name=settings["study_name"],
            direction=settings["direction"],
            sampler=settings.get("sampler"),
            pruner=settings.get("pruner"),
            load_if_exists=True,
        )
    except Exception as error:
        known = isinstance(error, OSError | ValueError | ImportError)  # the last one without SQLAlchemy or a driver
        if not known and not type(error).__module__.startswith(("sqlalchemy.", "optuna.")):
            raise
        raise InputError(f"hydra.sweeper.storage={place}: {first_line(error)}; choose another file, URL or "
                         "direction") from None  # fmt: skip
    return study, storage


def distribution(override: Override) -> "BaseDistribution":
    """Return the Optuna distribution of an override of a sweep.

    Choices are strings in Hydra's syntax. Ranges exclude their end, as in Python. The tag `log` makes the logarithm of
    an interval uniform.

    Raises:
        InputError: if Optuna has no such distribution.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        kind = IntDistribution if isinstance(value.start, int) and isinstance(value.end, int) else FloatDistribution
        try:
            return kind(value.start, value.end, log="log" in value.tags)  # type: ignore[arg-type]
        except ValueError as error:
            raise InputError(f"{override.input_line}: {error}; change the interval") from None
    if isinstance(value, RangeSweep) and not value.shuffle and value.step > 0:
        assert value.start is not None
        assert value.stop is not None
        values = list(value.range())
        if values and all(isinstance(one, int) for one in values):
            return IntDistribution(int(values[0]), int(values[-1]), step=int(value.step))
        if values:
            return FloatDistribution(float(values[0]), float(values[-1]), step=float(value.step))
    if isinstance(value, ChoiceSweep) or override.is_discrete_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    raise InputError(f"{override.input_line}: expected an interval, a range or a list of values")


def done(study: "Study") -> list["FrozenTrial"]:
    """Return the trials that count: those that have ended, other than by an interruption, and those that still run."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    repeated = {one.user_attrs.get(REPEATS) for one in trials}
    return [one for one in trials if one.state is not TrialState.WAITING and one.number not in repeated]


def own(trial: "Trial") -> None:
    """Note that this process runs a trial."""
    trial.set_user_attr(OWNER, f"{socket.gethostname()}:{os.getpid()}")


def interrupt(study: "Study", trial: "Trial | FrozenTrial") -> None:
    """End a trial that was interrupted, and queue its values again."""
    from optuna.trial import TrialState

    if all(one.user_attrs.get(REPEATS) != trial.number for one in study.get_trials(deepcopy=False)):
        study.enqueue_trial(trial.params, user_attrs={REPEATS: trial.number})  # and perhaps be killed before the next
    study.tell(trial.number, state=TrialState.FAIL)


def release(study: "Study") -> None:
    """End the trials whose process on this machine was killed, and queue their values again."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        host, _, process = str(trial.user_attrs.get(OWNER, "")).rpartition(":")
        if host == socket.gethostname() and not _lives(int(process)):
            interrupt(study, trial)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True
