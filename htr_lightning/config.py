"""Compose the config of a run. Imports Hydra but not torch, so that help and errors in overrides appear at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from htr_lightning.errors import InputError

GROUPS = {"experiments": "experiment", "replay": "data@replay"}  # what people type, and what Hydra calls it


def fast_precision(accelerator: str) -> str:
    """Lightning's name for the fastest training precision: "bf16-mixed" if the device computes in bfloat16 natively,
    else "32-true". A processor that emulates bfloat16 takes nearly twice as long with it.

    Args:
        accelerator: of the trainer.
    """
    import torch  # takes seconds, and only runs need it

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"


OmegaConf.register_new_resolver("fast_precision", fast_precision, replace=True)  # ${fast_precision:ACCELERATOR}


def conf_dir() -> Path:
    """The folder of the config groups: inside the installed package, or beside it in a source tree."""
    here = Path(__file__).resolve().parent
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


def check_groups(overrides: Sequence[str]) -> None:
    """Raises InputError if a group is chosen by another name than its own."""
    for override in overrides:
        group, _, name = override.lstrip("+").partition("=")
        if group in GROUPS and name not in ("", "null"):
            raise InputError(f"{override}: write {GROUPS[group]}={name}")


def offer_experiments() -> None:
    """Make options of the group `experiment` of the recipes in experiments/, beside conf/ and in the working directory.

    Raises:
        InputError: one of them is not YAML.
    """
    for folder in dict.fromkeys((conf_dir().parent / "experiments", Path("experiments").resolve())):
        for file in folder.glob("*.yaml"):
            try:
                recipe = OmegaConf.load(file)
            except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
                raise InputError(f"{file}: not a recipe ({' '.join(str(error).split())}); correct it") from None
            ConfigStore.instance().store(file.stem, recipe, group="experiment", package="_global_")


def compose_train(overrides: Sequence[str]) -> DictConfig:
    """The config of train.py with overrides."""
    check_groups(overrides)
    offer_experiments()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed config as plain data, every interpolation resolved."""
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def make(settings: dict[str, Any]) -> Any:
    """The object that a part of a composed config describes."""
    return instantiate(settings, _convert_="all")
