"""Training a checkpoint further: its own model, on other data and with another alphabet."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from htr_lightning import checkpoint
from htr_lightning.errors import InputError
from htr_lightning.training.launch import launch

NAME = "checkpoint"  # of the options that come from the checkpoint
GREEDY = {"_target_": "htr_lightning.decoder.ctc.Greedy"}
GREEDY_WRITER = {"_target_": "htr_lightning.decoder.autoregressive.Greedy"}
TWO_PASSES = "htr_lightning.decoder.rescoring.Rescoring"
RECIPES = (
    "torch.optim",
    "htr_lightning.optim",
    "htr_lightning.schedule",
)  # where an optimizer or scheduler of a checkpoint may come from


def fine_tune(path: str, overrides: Sequence[str]) -> None:
    """Run `conf/fine_tune.yaml` with a checkpoint's model, as train.py runs `conf/train.yaml`.

    Args:
        path: of the checkpoint.
        overrides: for Hydra, with its options, such as -m.

    Raises:
        InputError: the checkpoint cannot be used, or an override chooses another model.
    """
    offer(path)

    def check(config: DictConfig) -> None:
        if HydraConfig.get().runtime.choices["model"] != NAME or config.start != path:
            raise InputError("fine-tune: the model is the checkpoint's; omit model= and start=; keys such as "
                             "model.net.dropout=0.3 can be given")  # fmt: skip

    sys.argv[1:] = overrides  # Hydra reads them there
    launch("fine_tune", check, ("fine-tune", path))


def offer(path: str) -> None:
    """Make a checkpoint's model, decoder, optimizer and scheduler options of the config groups.

    Raises:
        InputError: see `checkpoint.read`; or it names a class that is not ours.
    """
    content = checkpoint.read(path)
    card: dict[str, Any] = content["htr"]
    if not isinstance(card.get("model"), dict) or "alphabet" not in card:
        raise InputError(f"{path}: names no model that could be trained further; give a checkpoint that train.py wrote")
    checkpoint.check_targets(card["model"], (), path)
    training = card.get("training") or {}
    for target in checkpoint.targets([training.get(part) for part in ("optimizer", "scheduler")]):
        _check_recipe(target, path)
    model = dict(card["model"], optimizer="${optimizer}", scheduler="${scheduler}", layer_decay=1.0)
    if "parts" in content:
        source = training.get("source")  # by which `config.build` knows that there are parts
        if not (source is None or (isinstance(source, str) and "${" not in source)):
            raise InputError(f"{path}: its training.source is not the name of a model; train it again")
        model["source"] = source
    parts = {part: training.get(part) for part in ("optimizer", "scheduler")}
    if "decoder" in model:
        model["decoder"], parts["decoder"] = "${decoder}", model["decoder"]
    if "language" in content:  # its weights were tuned for another model than the one to come
        parts["decoder"] = _without_language(card["model"]["decoder"])
        print(f"note: {path} uses a language model, which is dropped; give the result one with htr tune-decoder",
              file=sys.stderr)  # fmt: skip
    store = ConfigStore.instance()
    store.store(NAME, {"model": model, "start": path}, group="model", package="_global_")
    for part in ("optimizer", "scheduler", "decoder"):
        store.store(NAME, parts.get(part) or {}, group=part, package=part)


def _without_language(decoder: dict[str, Any]) -> dict[str, Any]:
    """What a tuned decoder becomes where there is no language model."""
    if decoder["_target_"] == TWO_PASSES:
        return decoder | {"alpha": 0.0, "beta": 0.0}
    longest = decoder.get("max_length")
    return GREEDY if longest is None else GREEDY_WRITER | {"max_length": longest}


def _check_recipe(target: Any, path: str) -> None:
    """Refuse an optimizer or a scheduler that neither torch nor this package defines, see `check_target`."""
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    found = getattr(import_module(module), name, None) if module in RECIPES else None
    if not callable(found) or not str(getattr(found, "__module__", "")).startswith(RECIPES):
        raise InputError(f"{path}: names '{target}', not an optimizer or scheduler of torch or ours; give "
                         "optimizer=adamw scheduler=one_cycle and a checkpoint without it")  # fmt: skip
