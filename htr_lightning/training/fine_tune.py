"""Fine-tune a checkpoint on other data, which may have a different alphabet."""

import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from htr_lightning import checkpoint
from htr_lightning.errors import InputError
from htr_lightning.hydra_version import store
from htr_lightning.slots import check_config
from htr_lightning.training.launch import launch

NAME = "checkpoint"  # name of the config group options that come from the checkpoint
GREEDY = {"_target_": "htr_lightning.decoder.ctc.Greedy"}
GREEDY_WRITER = {"_target_": "htr_lightning.decoder.autoregressive.Greedy"}
TWO_PASSES = "htr_lightning.decoder.rescoring.Rescoring"


def fine_tune(path: str, overrides: Sequence[str], keeps_language: bool = False) -> None:
    """Fine-tune a checkpoint as described by `conf/fine_tune.yaml`.

    Args:
        path: path to the checkpoint.
        overrides: Hydra overrides and options, such as -m.
        keeps_language: whether the caller adds the language model of the checkpoint to the fine-tuned one.

    Raises:
        InputError: if the checkpoint cannot be used, or an override selects another model.
    """
    offer(path, keeps_language)

    def check(config: DictConfig) -> None:
        if HydraConfig.get().runtime.choices["model"] != NAME or config.start != path:
            raise InputError("fine-tune: the model comes from the checkpoint; remove model= and start= (keys such "
                             "as model.net.dropout=0.3 are allowed)")  # fmt: skip

    sys.argv[1:] = overrides  # Hydra reads them from there
    launch("fine_tune", check, ("fine-tune", path))


def offer(path: str, keeps_language: bool = False) -> None:
    """Add a checkpoint's model, decoder, optimizer and scheduler as options to the config groups.

    Args:
        path, keeps_language: see `fine_tune`.

    Raises:
        InputError: if the checkpoint cannot be read (see `checkpoint.read`) or uses an unsupported class.
    """
    content = checkpoint.read(path)
    card: dict[str, Any] = content["htr"]
    checkpoint.check_model(content, path)
    training = card.get("training")
    training = training if isinstance(training, dict) else {}
    parts = {part: training.get(part) for part in ("optimizer", "scheduler")}
    for part, config in parts.items():
        if config:
            check_config(config, part, path)
    model = {key: value for key, value in card["model"].items() if key not in checkpoint.TRAINING}
    model |= {"optimizer": "${optimizer}", "scheduler": "${scheduler}", "layer_decay": 1.0}
    if "parts" in content:  # `build` loads the parts if there is a source, which is only recorded
        source = training.get("source")
        if not (source is None or (isinstance(source, str) and "${" not in source)):
            raise InputError(f"{path}: training.source is not a model name; use a checkpoint written by train.py")
        model["source"] = source
    if "decoder" in model:
        model["decoder"], parts["decoder"] = "${decoder}", model["decoder"]
    if "language" in content:  # the weight of the language model was tuned for the predictions of the checkpoint
        parts["decoder"] = _without_language(card["model"]["decoder"])
        if not keeps_language:
            print(f"note: the language model in {path} is not used; add one to the fine-tuned model with htr "
                  "tune-decoder", file=sys.stderr)  # fmt: skip
    store(NAME, {"model": model, "start": path}, "model")
    for part in ("optimizer", "scheduler", "decoder"):
        config = {part: parts.get(part) or {}}  # nested, so that Hydra finds no `defaults` of the checkpoint in it
        store(NAME, config, part)


def _without_language(decoder: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a tuned decoder without its language model."""
    if decoder["_target_"] == TWO_PASSES:
        return decoder | {"alpha": 0.0, "beta": 0.0}
    longest = decoder.get("max_length")
    return GREEDY if longest is None else GREEDY_WRITER | {"max_length": longest}
