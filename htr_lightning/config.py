"""Compose the config of a run.

Imports Hydra but not torch, so that help and errors in overrides appear immediately.
"""

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from htr_lightning.cores import cores
from htr_lightning.errors import InputError
from htr_lightning.hydra_version import initialize_config_dir, instantiate, register_resolver, store
from htr_lightning.parameters import check_parameters
from htr_lightning.yaml_file import load_yaml

HYDRA_OPTIONS = ("cfg", "package", "config-path", "config-name", "config-dir", "info", "experimental-rerun")
KEY = re.compile(r"(\+\+?|~)?[\w$-]+([./][\w$-]+)*(@[\w$.-]*)?", re.ASCII)
SEVERAL = ("logger",)  # config groups of which several options may be chosen, as in logger=[wandb,tensorboard]
GROUPS = {"experiments": "experiment", "replay": "data@replay"}  # common mistakes and the correct names


def fast_precision(accelerator: str) -> str:
    """Return the fastest training precision: "bf16-mixed" if the device supports bfloat16, else "32-true".

    Only native support counts, since training in emulated bfloat16 takes nearly twice as long as in float32.

    Args:
        accelerator: `trainer.accelerator`.
    """
    import torch  # the import takes seconds, and only training needs it

    if on_cpu(accelerator, True, False):
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if native else "32-true"


def on_cpu(accelerator: str, value: Any, otherwise: Any) -> Any:
    """Return one value if a run uses the CPU, and another if it uses a GPU.

    Args:
        accelerator: `trainer.accelerator`; "auto" uses a GPU if one is available.
        value: value for the CPU.
        otherwise: value for a GPU.
    """
    import torch

    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    return value if accelerator == "cpu" or (accelerator == "auto" and not has_gpu) else otherwise


def loading_processes() -> int:
    """Return the number of loading processes that keep a GPU busy: the number of cores minus 1, from 1 to 8."""
    return max(1, min(8, (os.cpu_count() or 1) - 1))


def cpu_threads(accelerator: str, devices: Any) -> int:
    """Return the number of threads of a training process: two if it is the only one and has two cores, else one.

    Args:
        accelerator: `trainer.accelerator`.
        devices: `trainer.devices`.
    """
    return on_cpu(accelerator, min(2, cores()), 1) if devices in (1, "1", "auto") else 1


def is_sweep() -> bool:
    """Return whether the current run is a job of a sweep, which has a number."""
    return HydraConfig.initialized() and not OmegaConf.is_missing(HydraConfig.get().job, "num")


def external_rank() -> int:
    """Return the rank of this process if torchrun or SLURM started it as one of several, else 0."""
    return int(os.environ["RANK" if "TORCHELASTIC_RUN_ID" in os.environ else "SLURM_PROCID"]) if external_ranks() else 0


def external_ranks() -> bool:
    """Return whether torchrun or SLURM starts the processes of a run, rather than Lightning."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["WORLD_SIZE"]) > 1
    return "SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_NTASKS", 1)) > 1


def varying(overrides: Iterable[str], folder: Path) -> list[str]:
    """Return the overrides of a job that vary within its sweep, or all of them if the sweeper chooses the keys.

    Args:
        overrides: overrides of the job.
        folder: sweep folder, in which Hydra stores the overrides of all jobs.
    """
    hydra = load_yaml(folder / "multirun.yaml")["hydra"]
    parsed = OverridesParser.create().parse_overrides(hydra["overrides"]["task"])
    keys = {str(one.input_line).partition("=")[0] for one in parsed if one.is_sweep_override()}
    keys |= set(hydra.get("sweeper", {}).get("params") or ())
    return [one for one in overrides if not keys or one.partition("=")[0] in keys]


def varied_values() -> dict[str, Any]:
    """Return the values of a run, by key, that vary within its sweep, or all values that were given outside a sweep."""
    if not HydraConfig.initialized():
        return {}
    hydra = HydraConfig.get()
    given = varying(hydra.overrides.task, Path(hydra.sweep.dir)) if is_sweep() else list(hydra.overrides.task)
    parsed = OverridesParser.create().parse_overrides(given)
    values = {one.key_or_group: None if one.is_delete() else one.value() for one in parsed}
    return {key: value if isinstance(value, int | float | None) else str(value) for key, value in values.items()}


@cache
def new_folder(path: str) -> str:
    """Create a run folder, with a number appended to its name if another run has just taken the name.

    Args:
        path: path of the folder.
    """
    for number in range(1, 1000):
        folder = Path(path if number == 1 else f"{path}-{number}")
        try:
            folder.mkdir(parents=True)
            return str(folder)
        except FileExistsError:
            continue
        except OSError:
            break  # Hydra reports why the folder cannot be created
    return path


def sweep_group() -> str | None:
    """Return a name for the current sweep, derived from its folder, or None outside a sweep."""
    return "/".join(Path(HydraConfig.get().sweep.dir).parts[-2:]) if is_sweep() else None


def job_name(name: str) -> str:
    """Return the name of a run; if it belongs to a sweep, the name includes the overrides that vary."""
    if not is_sweep():
        return name
    hydra = HydraConfig.get()
    return " ".join([name, *varying(hydra.overrides.task, Path(hydra.sweep.dir))])


def run_tags() -> ListConfig:
    """Return the names of the model and data of a run, plus "sweep" if the run belongs to one."""
    if not HydraConfig.initialized():
        return ListConfig([])
    choices = HydraConfig.get().runtime.choices
    return ListConfig([choices["model"], choices["data"], *(["sweep"] if is_sweep() else [])])


for resolver in (fast_precision, on_cpu, loading_processes, cpu_threads, new_folder, sweep_group, job_name, run_tags):
    register_resolver(resolver.__name__, resolver, replace=True)


def conf_dir() -> Path:
    """Return the folder of the config groups: inside the installed package, or next to it in a source tree."""
    here = Path(__file__).resolve().parent
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


def groups() -> list[str]:
    """Return the names of all config groups except `experiment` and those of Hydra."""
    return sorted(path.name for path in conf_dir().iterdir() if path.is_dir() and path.name != "hydra")


def options(group: str) -> list[str]:
    """Return the names of the options in a config group."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def check_overrides(overrides: Sequence[str], sweep: bool = False) -> None:
    """Check overrides before Hydra parses them, since its syntax errors name neither the key nor a remedy.

    Args:
        overrides: overrides from the command line; other arguments are ignored.
        sweep: whether the overrides describe a sweep, in which a key may have several values.

    Raises:
        InputError: if an override cannot be parsed, or uses the wrong name or no option of a config group.
    """
    parser = OverridesParser.create()
    for override in overrides:
        key, equals, value = override.partition("=")
        if equals and key.startswith("--") and key[2:] not in HYDRA_OPTIONS:
            raise InputError(f"{override}: overrides have no dashes; write {override.lstrip('-')}")
        if not equals and key.startswith("-") and key.lstrip("-") in groups():
            raise InputError(f"{override}: overrides have no dashes; write {key.lstrip('-')}=OPTION")
        if not equals or key.startswith("-"):
            continue
        quoted = shlex.quote(f"{key}=" + '"' + value.replace('"', '\\"') + '"')
        if not KEY.fullmatch(key):
            raise InputError(f"{override}: invalid key; write KEY=VALUE, e.g. data.root=FOLDER")
        try:
            (parsed,) = parser.parse_overrides([override])
        except HydraException:
            remedy = f"write {key}=$HOME{value[1:]}" if value.startswith("~/") else f"quote it: {quoted}"
            raise InputError(f"{override}: invalid value; {remedy}") from None
        if parsed.is_sweep_override() and not sweep:
            raise InputError(f"{override}: several values need -m; if this is a single value, quote it: {quoted}")
        group = key.lstrip("+")
        if group in GROUPS and value not in ("", "null"):
            raise InputError(f"{override}: '{group}' is not a config group; use {GROUPS[group]}={value}")
        group = group.partition("@")[0]
        several = (str, list) if group in SEVERAL else str
        if group in groups() and not sweep and not isinstance(parsed.value(), several):
            raise InputError(f"{override}: expected one of {', '.join(options(group))}")
        if group == "experiment" and not sweep and not isinstance(parsed.value(), str | list):
            raise InputError(
                f"{override}: expected one of {', '.join(recipe_files())}; for no recipe, remove this override"
            )


def recipe_files() -> dict[str, Path]:
    """Return the recipe files, keyed by name, in the `experiments/` folders next to `conf/` and in the working
    directory."""
    folders = (conf_dir().parent / "experiments", Path("experiments").resolve())
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.yaml"))}


def recipes() -> dict[str, str]:
    """Return the first sentence of the comment at the top of each recipe, keyed by recipe name."""
    found = {}
    for name, file in sorted(recipe_files().items()):
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("# @package")]
        comment = " ".join(line[2:] for line in takewhile(lambda line: line.startswith("#"), lines))
        found[name] = re.split("[.:;]( |$)", comment)[0]
    return found


def offer_experiments() -> None:
    """Add each recipe as an option to the config group `experiment`.

    Raises:
        InputError: if a recipe cannot be read or is not valid YAML.
    """
    for name, file in recipe_files().items():
        recipe = load_yaml(file, OmegaConf.create)
        if not isinstance(recipe, DictConfig):
            raise InputError(f"{file}: expected a recipe, a mapping of keys to values; correct or remove the file")
        store(name, recipe, "experiment")


def compose_train(overrides: Sequence[str]) -> DictConfig:
    """Compose the config of train.py with the given overrides."""
    check_overrides(overrides)
    offer_experiments()
    with initialize_config_dir(str(conf_dir())):
        return compose("train", overrides=list(overrides))


def compose_data(overrides: Sequence[str]) -> DictConfig:
    """Compose the config of train.py with overrides that select the data.

    Raises:
        InputError: if no override selects the data.
    """
    if not any(override.lstrip("+").startswith(("data=", "experiment=")) for override in overrides):
        raise InputError("no data set specified; add data=NAME, e.g. data=copiste data.root=FOLDER")
    return compose_train(overrides)


def plain(config: DictConfig) -> dict[str, Any]:
    """Convert a composed config to plain Python containers, with all interpolations resolved."""
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def make(settings: dict[str, Any], path: str) -> Any:
    """Instantiate the object that a section of a composed config describes.

    Args:
        settings: section of a config, as plain data.
        path: key of the section, used in messages.

    Raises:
        InputError: if a setting has the wrong type or is out of range.
    """
    check_parameters(settings, path)
    return instantiate(settings, _convert_="all")
