"""Run `conf/train.yaml` or `conf/fine_tune.yaml` from the command line.

Does not import torch before a job starts, so that help, completion and errors in overrides appear immediately.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from htr_lightning.config import (
    check_overrides,
    conf_dir,
    external_rank,
    external_ranks,
    groups,
    is_sweep,
    offer_experiments,
    options,
    recipes,
)
from htr_lightning.errors import InputError
from htr_lightning.hydra_version import main
from htr_lightning.parameters import check_value
from htr_lightning.training import run_folder  # also registers the resolver for hydra.run.dir
from htr_lightning.training.sweep import concluding
from htr_lightning.training.sweep_job import run_apart, stoppable

USAGE = """Usage: python train.py KEY=VALUE ...   (or htr train, if the package is installed)

  python train.py experiment=synthetic                      run a recipe
  python train.py model=crnn data=copiste trainer=gpu       select options of config groups
  python train.py model.net.hidden=512 trainer.max_time=2h  set individual values
  python train.py -m optimizer.lr=1e-3,3e-3                 run a sweep, with one run per value

Recipes (experiment=NAME; add your own as experiments/NAME.yaml in the working directory):"""
HINT = "Use --cfg job to print all keys and values, and --hydra-help to list Hydra's options, such as shell completion."


def launch(config_name: str, check: Callable[[DictConfig], None], command: Sequence[str] = ()) -> None:
    """Compose a config from `sys.argv` and train with it; with `-m`, once for each job in the sweep.

    Args:
        config_name: name of a file in `conf/`, without its suffix.
        check: function called with the composed config before training; it raises InputError if the config is invalid.
        command: arguments of `htr` that precede the overrides; Lightning needs them to start further ranks.

    Raises:
        InputError: if an override is invalid.
    """
    flags = [argument for argument in sys.argv[1:] if argument in ("-m", "--multirun")]
    overrides = [argument for argument in sys.argv[1:] if argument not in flags]
    check_overrides(overrides, sweep=bool(flags))
    if external_ranks():
        overrides += _as_rank(overrides, sweep=bool(flags))
    sys.argv[1:] = flags + overrides  # Hydra accepts no option between overrides
    offer_experiments()

    def job(config: DictConfig) -> float | None:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            return run_apart(command or ("train",))
        check_value(config.run_dir, str, "run_dir")  # the log is in this folder
        check(config)
        sys.argv[1:1] = command
        with Console(stderr=True).status("loading PyTorch and Lightning"):
            from htr_lightning.training.run import train as run
        try:
            return run(config)
        except InputError:
            _discard(Path(config.run_dir))
            raise

    if not flags:
        main(str(conf_dir()), config_name, job)
        return
    with stoppable(), concluding():
        try:
            main(str(conf_dir()), config_name, job)
        except RuntimeError as error:
            if missing := re.search("Unknown plugin class : '(.*)'", str(error)):
                raise InputError(f"{missing[1]}: not installed; install htr-lightning[sweep]") from None
            raise


def _as_rank(overrides: Sequence[str], sweep: bool) -> list[str]:
    """Return the overrides with which a process that torchrun or SLURM has started shares the folder of the run."""
    if sweep:
        raise InputError("-m: a sweep starts the processes of its jobs itself; start it once, without torchrun or srun")
    if not any(override.startswith("hydra.run.dir=") for override in overrides):
        raise InputError("the processes of a run need the same folder; add hydra.run.dir=FOLDER")
    return ["hydra.output_subdir=null"] if external_rank() else []  # the first process writes the config


def train(command: Sequence[str] = ()) -> None:
    """Train a recognizer, or print the help if `sys.argv` contains `-h`.

    Args:
        command: see `launch`.
    """
    if {"-h", "--help"}.isdisjoint(sys.argv[1:]):
        launch("train", _check, command)
    else:
        print(usage())


def _discard(folder: Path) -> None:
    """Delete the folder of a run that was refused before it began; the folder of a job in a sweep is kept."""
    if is_sweep() or os.environ.get("LOCAL_RANK", "0") != "0" or not folder.is_dir():
        return
    if {path.name for path in folder.iterdir()} <= {".hydra", "train.log"}:
        shutil.rmtree(folder, ignore_errors=True)


def usage() -> str:
    """Return the help text of `train.py`, which replaces the thousand lines that Hydra would print."""
    listed = [f"  {name:24}{what}"[:120] for name, what in recipes().items()]
    listed_groups = [
        fill(", ".join(options(group)), 120, initial_indent=f"  {group:24}", subsequent_indent=" " * 26)
        for group in groups()
    ]
    return "\n".join([USAGE, *listed, "", "Config groups (GROUP=OPTION):", *listed_groups, "", HINT])


def _check(config: DictConfig) -> None:
    asked = config.resume not in (None, run_folder.AUTO) and not is_sweep()  # whose stopped jobs go on by themselves
    if asked and config.start is not None:
        raise InputError(
            "start= and resume= cannot be combined, since a resumed run has its own weights; remove one of them"
        )
    if config.get("find") is not None and config.resume is not None:
        raise InputError(f"find={config.find}: starts from new weights, so resume={config.resume} would have no "
                         "effect; remove one of them, or use start=")  # fmt: skip
    chosen = HydraConfig.get().runtime.choices
    if "decoder" not in config.model and chosen.get("decoder", "greedy") != "greedy":
        raise InputError(f"decoder={chosen['decoder']}: model={chosen['model']} has no decoder; remove this override")
