"""Call Hydra 1.3 and 1.4, whose entry points differ.

Hydra 1.4 warns if it gets a `version_base`, without which 1.3 warns, if it instantiates a config without a list of
allowed classes, and if a config replaces another without being told to. No list is given: a user's own classes are as
welcome in a config as in code, and the classes that a checkpoint names are checked when it is read (`slots`).
"""

from collections.abc import Callable
from typing import Any

import hydra
from hydra import utils
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

IS_NEW = tuple(map(int, hydra.__version__.split(".")[:2])) >= (1, 4)
BASE = {} if IS_NEW else {"version_base": "1.3"}
ANY_CLASS = getattr(utils, "UNSAFE_DISABLE_EXECUTION_CHECKS", None)

register_resolver: Callable[..., None] = (
    OmegaConf.register_resolver
    if IS_NEW
    else OmegaConf.register_new_resolver  # the first is another one in OmegaConf 2.3
)


def instantiate(config: Any, **others: Any) -> Any:
    """Instantiate the object that a config describes; see `hydra.utils.instantiate`."""
    return utils.instantiate(config, **others, **({"_execution_whitelist_": ANY_CLASS} if IS_NEW else {}))


def initialize_config_dir(folder: str) -> Any:
    """Return a context in which configs are composed from a folder; see `hydra.initialize_config_dir`."""
    return hydra.initialize_config_dir(folder, **BASE)


def store(name: str, config: Any, group: str) -> None:
    """Add an option to a config group, or replace it; its keys start at the root of the config."""
    options = {"replace": True} if IS_NEW else {}
    ConfigStore.instance().store(name, config, group=group, package="_global_", **options)  # type: ignore[arg-type]


def main(folder: str, config_name: str, task: Callable[[Any], Any]) -> None:
    """Call a function with the config described by `sys.argv`, once for each job of a sweep; see `hydra.main`."""
    options = {"execution_whitelist": ANY_CLASS} if IS_NEW else BASE
    hydra.main(config_path=folder, config_name=config_name, **options)(task)()
