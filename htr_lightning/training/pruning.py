"""Stop a job of an Optuna sweep whose validation score is worse than that of others."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from lightning import Callback, LightningModule, Trainer
from omegaconf import OmegaConf

from htr_lightning.errors import InputError
from htr_lightning.hydra_version import instantiate
from htr_lightning.training.callbacks import log
from htr_lightning.training.study import PRUNED, open_trial
from htr_lightning.training.sweep_job import record


class Pruning(Callback):
    """Report each validation to the study of the sweep, and end the run if the study's pruner advises it.

    A pruned run ends as if it had reached its last step: its best checkpoint is tested. The study knows the pruned run
    by its last score.

    Args:
        monitor: name of the logged score.
    """

    def __init__(self, monitor: str = "val/cer") -> None:
        self.monitor = monitor

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        hydra = HydraConfig.get() if HydraConfig.initialized() else None
        if hydra is None or OmegaConf.is_missing(hydra.job, "num") or "study_name" not in hydra.sweeper:
            raise InputError("callbacks=pruning: compares the jobs of an Optuna sweep; add -m hydra/sweeper=optuna, or "
                             "remove it")  # fmt: skip
        if trainer.is_global_zero:
            settings = {key: hydra.sweeper[key] for key in ("storage", "study_name", "direction")}
            self._trial = open_trial(settings | {"pruner": instantiate(hydra.sweeper.pruner)}, hydra.job.num)
            self._folder = Path(hydra.runtime.output_dir)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        score = float(trainer.callback_metrics[self.monitor])
        stop = trainer.is_global_zero and self._advised(score, trainer.global_step)
        if trainer.strategy.broadcast(stop):
            trainer.should_stop = True

    def _advised(self, score: float, step: int) -> bool:
        """Report a score, and return whether the run is to end."""
        self._trial.report(score, step)
        if not self._trial.should_prune():
            return False
        self._trial.set_user_attr(PRUNED, step)
        record(self._folder, state="pruned")
        log.info(f"pruned at step {step}: other trials had a better score than {score:.2%}")
        return True
