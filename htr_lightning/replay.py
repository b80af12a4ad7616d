"""Any data as lines that are mixed into the training lines of other data."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from htr_lightning.config import conf_dir

SOURCE = ("_target_", "root", "repo", "pack", "reader", "preprocess", "normalizer")  # of a data config


def offer_replay(overrides: Sequence[str]) -> None:
    """Make of every data config an option of the group `replay`: its lines, without what is the data's own to say.

    Args:
        overrides: for Hydra; where none of them can ask for it nothing is done, since it takes a second.
    """
    if any(word.startswith(("replay", "experiment", "+experiment")) for word in overrides):
        _offer()


@cache  # Hydra's store is the process's
def _offer() -> None:
    store = ConfigStore.instance()
    store.store("data_alone", {"defaults": [{"data": "???"}]})
    with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
        for name in sorted(file.stem for file in (conf_dir() / "data").glob("*.yaml")):
            data = compose("data_alone", overrides=[f"data={name}"]).data
            node = {key: OmegaConf.to_container(data)[key] for key in SOURCE if key in data}  # type: ignore[index,call-overload]
            store.store(name, _moved(node), group="replay", package="replay")


def _moved(node: Any) -> Any:
    """A data config whose references to itself are right in its new place."""
    if isinstance(node, dict):
        return {key: _moved(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_moved(value) for value in node]
    return node.replace("${data.", "${replay.") if isinstance(node, str) else node
