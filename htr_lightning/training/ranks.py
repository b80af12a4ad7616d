"""Ranks of the jobs of a sweep."""

import os
import sys
from typing import Any

import torch.distributed
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

RANK_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class SweepRanks(Callback):
    """Makes each job of `-m` look like a run of its own.

    Lightning starts further ranks by running `sys.argv` again, which in a sweep covers all jobs, and leaves its
    rank variables set, so that the next job takes itself for one of those ranks. While a job runs, `sys.argv` describes
    that job alone; when it ends, the process group is destroyed and the variables are restored.
    """

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._argv = list(sys.argv)
        self._variables = {name: os.environ.get(name) for name in RANK_VARIABLES}
        hydra = HydraConfig.get()
        if hydra.mode is not None and hydra.mode.name == "MULTIRUN":
            options = [f"--config-name={hydra.job.config_name}"]
            added = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
            options += [f"--config-dir={path}" for path in added]
            folder = f'hydra.run.dir="{hydra.runtime.output_dir}"'
            sys.argv = [sys.argv[0], *options, *hydra.overrides.task, folder]

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        sys.argv = self._argv
        if wandb := sys.modules.get("wandb"):
            wandb.finish()  # or the next job would log to the W&B run of this one
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in self._variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
