"""Hydra's plugin for Optuna sweeps; Hydra finds sweepers in packages below `hydra_plugins`."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial


class OptunaSweeper(Sweeper):
    """A Hydra sweeper that lets Optuna choose the values of each job; a trial is the job of the same number.

    Args:
        storage: path of the study's journal, or the URL of a database.
        study_name: name of the study in its storage.
        direction: "minimize" or "maximize".
        n_trials: number of trials in the study after the sweep, including those of earlier sweeps.
        n_jobs: number of trials that are chosen, and given to the launcher, at the same time.
        sampler: config of an Optuna sampler.
        pruner: config of an Optuna pruner, used by jobs with `callbacks=pruning`.
        params: distributions in Hydra's syntax by key; overrides on the command line replace them.
    """

    def __init__(
        self,
        storage: str,
        study_name: str,
        direction: str,
        n_trials: int,
        n_jobs: int,
        sampler: Any,
        pruner: Any,
        params: Mapping[str, Any],
    ) -> None:
        self.settings = {"storage": storage, "study_name": study_name, "direction": direction}
        self.strategies = {"sampler": sampler, "pruner": pruner}
        self.n_trials, self.n_jobs, self.params = n_trials, n_jobs, params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from htr_lightning.hydra_version import instantiate
        from htr_lightning.training.study import done, open_study, own, release

        assert self.config is not None
        fixed, space = self._space(arguments)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        study = open_study(self.settings | {name: instantiate(its) for name, its in self.strategies.items()})
        release(study)
        while (left := self.n_trials - len(done(study))) > 0:
            trials = []
            for _ in range(min(left, self.n_jobs)):
                trials.append(study.ask(space))
                own(trials[-1])
            self._run(study, trials, fixed, folder)
        _save(study, folder)

    def _space(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, "BaseDistribution"]]:
        """Return the overrides that all jobs share, and the distributions of the others."""
        from htr_lightning.training.study import distribution

        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = {one.partition("=")[0]: one for one in (*(f"{k}={v}" for k, v in self.params.items()), *arguments)}
        fixed, space = [], {}
        for override in parser.parse_overrides(list(given.values())):
            key = override.get_key_element()
            if override.is_sweep_override():
                space[key] = distribution(override)
            else:
                fixed.append(str(override.input_line))
        return fixed, space

    def _run(self, study: "Study", trials: Sequence["Trial"], fixed: list[str], folder: Path) -> None:
        """Run trials as jobs of the same numbers, and tell the study how they ended."""
        from htr_lightning.training.study import interrupt
        from htr_lightning.training.sweep_job import lost_process

        untold = {trial.number: trial for trial in trials}
        try:
            numbered = groupby(enumerate(trials), key=lambda pair: pair[1].number - pair[0])
            for _, group in numbered:  # the numbers have gaps if other machines use the study
                batch = [trial for _, trial in group]
                jobs = [[*fixed, *(f"{key}={_written(value)}" for key, value in trial.params.items())]
                        for trial in batch]  # fmt: skip
                self.validate_batch_is_legal(jobs)
                lost = False
                try:
                    self.launcher.launch(jobs, initial_job_idx=batch[0].number)
                except Exception as error:
                    if not (lost := lost_process(error)):
                        raise
                finally:
                    for trial in batch:
                        if _tell(study, trial, folder / str(trial.number), lost):
                            del untold[trial.number]
        finally:
            for trial in untold.values():
                interrupt(study, trial)


def _tell(study: "Study", trial: "Trial", folder: Path, lost: bool) -> bool:
    """Tell the study how a job ended, and return whether it has ended; lost processes have."""
    from optuna.trial import TrialState

    from htr_lightning.training.sweep_job import read_record

    found = read_record(folder)
    state, value = found.get("state"), found.get("value")
    if state == "pruned":
        study.tell(trial, state=TrialState.PRUNED)
    elif state == "done" and value == value:  # a number
        study.tell(trial, value)
    elif lost or state in ("done", "failed"):
        study.tell(trial, state=TrialState.FAIL)
    else:
        return False
    return True


def _written(value: Any) -> str:
    """Return a value in the syntax of overrides; choices are already written in it."""
    return value if isinstance(value, str) else repr(value)


def _save(study: "Study", folder: Path) -> None:
    """Write the best trial and the importance of each parameter as `optimization_results.yaml`."""
    from optuna.importance import get_param_importances
    from optuna.trial import TrialState

    finished = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if not finished:
        return
    best = study.best_trial
    results = {"name": "optuna", "best_trial": best.number, "best_value": best.value, "best_params": best.params}
    if len(finished) > 1 and len({trial.value for trial in finished}) > 1:
        results["importances"] = {key: float(share) for key, share in get_param_importances(study).items()}
    OmegaConf.save(OmegaConf.create(results), folder / "optimization_results.yaml")
