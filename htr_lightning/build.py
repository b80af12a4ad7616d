"""Build the data and the recognizer that a config describes."""

import json
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from htr_lightning import checkpoint, resolution
from htr_lightning.card import card
from htr_lightning.config import check_overrides, compose_data, compose_train, make, on_cpu, plain
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.sampler import READING_COLUMNS, READING_LINES
from htr_lightning.errors import InputError, first_line
from htr_lightning.model.base import Recognizer
from htr_lightning.parameters import check_parameters
from htr_lightning.slots import check_config, construct
from htr_lightning.transcription import Transcriber

BLANK = np.full((64, 64), 255, np.uint8)
WHERE = "the checkpoint's config"
OWN = ("preprocess", "normalizer", "alphabet")  # settings of the data that come from the recognizer
STORED = re.compile(r"data=[\w-]+|data\.(?!repo=)[\w.]+=[^$]*", re.ASCII)  # in a file: without interpolations
UNUSED = (*OWN, "augment", "replay")  # settings of a run's data that reading does not use

log = logging.getLogger("htr_lightning")


def build(config: DictConfig, known: Sequence[str] = ()) -> tuple[LineDataModule, Recognizer]:
    """Build the data and the recognizer of a composed config, and check that the training texts can be learned.

    Args:
        config: composed config of train.py.
        known: characters to include in the alphabet in addition to those in the data.

    Raises:
        InputError: if the data cannot be read, or a training text cannot be learned.
    """
    settings = plain(config)
    data: LineDataModule = make(settings["data"], "data")
    alphabet = list(dict.fromkeys([*known, *data.alphabet]))
    before = settings.get("resume") or settings.get("start")
    parts: dict[str, Any] = {}
    if before and "source" in settings["model"]:  # the checkpoint replaces the source
        parts = checkpoint.check_parts(checkpoint.read(before), before) | {"source": None}
    recognizer = _recognizer(settings, alphabet, parts)
    unknown: Counter[str] = Counter()
    for lines in data.sources:
        unknown += recognizer.check_targets(lines.reader.ids, lines.texts)
    _set_resolution(settings, data, recognizer)
    recognizer.card = card(settings, recognizer.alphabet, data, unknown)
    return data, recognizer


def _recognizer(settings: dict[str, Any], alphabet: list[str], parts: dict[str, Any]) -> Recognizer:
    """Build the recognizer of a run, and check that its weights fit into memory and that it accepts an image.

    Raises:
        InputError: if a check fails, or a constructor rejects its arguments.
    """
    made = make(settings["model"], "model")
    try:
        if "source" not in settings["model"]:
            with torch.device("meta"):  # allocates nothing
                sketch = made(alphabet=alphabet)
            _check_memory(sum(weight.numel() for weight in sketch.parameters()), settings["trainer"]["accelerator"])
        recognizer: Recognizer = made(alphabet=alphabet, **parts)
        with recognizer.eval().exact():
            recognizer.net(*recognizer.prepare_batch([BLANK]))
    except TypeError as error:
        if "required" not in str(error):  # an argument that a base class requires is missing
            raise
        raise InputError(f"model: {error}; remove the override that deletes it") from None
    except (ValueError, RuntimeError, ZeroDivisionError) as error:  # torch names the value, not the key
        raise InputError(f"model: {first_line(error)}; check the overrides of model") from error
    return recognizer.train()


def _set_resolution(settings: dict[str, Any], data: LineDataModule, recognizer: Recognizer) -> None:
    """Choose the settings of the preprocessing that are null in a config (see `resolution`), and use them.

    Weights from a checkpoint are used at the resolution at which they were trained, and a teacher is imitated at its
    own.
    """
    given = preprocess = settings["model"]["preprocess"]
    before = settings.get("resume") or settings.get("start") or settings.get("teacher")
    if before and None in given.values():
        trained = checkpoint.read(before)["htr"]["model"]["preprocess"]
        if trained["_target_"] == given["_target_"]:
            preprocess = {key: trained.get(key) if value is None else value for key, value in given.items()}
        elif settings.get("resume"):
            raise InputError(
                f"resume: the checkpoint was trained with {trained['_target_'].rpartition('.')[2]}, not with "
                f"{given['_target_'].rpartition('.')[2]}; repeat the overrides of its run, which are listed in "
                ".hydra/overrides.yaml in its run folder, and set model.preprocess"
            )
    if chosen := resolution.choose(preprocess, recognizer, data.lines("train"), data.augment):
        log.info("resolution: %s", chosen)
        preprocess = preprocess | chosen.settings
    if preprocess != given:
        settings["model"]["preprocess"] = settings["data"]["preprocess"] = preprocess
        recognizer.preprocess = make(preprocess, "model.preprocess")
        data.set_preprocess(recognizer.preprocess)


def _check_memory(weights: int, accelerator: str) -> None:
    """Raise InputError if a number of weights does not fit into the memory of this machine."""
    needed = 4 * weights * on_cpu(accelerator, 4, 1)  # a CPU also stores the gradients and two moments
    if not hasattr(os, "sysconf"):
        return  # Windows
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        raise InputError(f"model: {weights / 1e6:,.0f} million weights require {needed / 1e9:,.0f} GB of memory, but "
                         f"this machine has {available / 1e9:,.0f} GB; reduce the sizes in model.net")  # fmt: skip


class OpenedData(NamedTuple):
    """The data specified by overrides, with the composed configs of the data and the model."""

    data: LineDataModule
    settings: dict[str, Any]  # config of the data
    model: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """A hash of all settings that affect the lines."""
        keys = ("root", "repo", "subset", "subset_by", "held_out", "texts", "reduce_scans", "preprocess", "normalizer")
        lines = {key: self.settings.get(key) for key in keys}
        lines["reader"] = {key: value for key, value in self.settings["reader"].items() if key != "preload"}
        return sha256(json.dumps(lines, sort_keys=True).encode()).hexdigest()


def open_data(
    overrides: Sequence[str],
    augment: str | None = None,
    lenient: bool = False,
    one_pass: bool = False,
    full: bool = False,
) -> OpenedData:
    """Build the data specified by overrides, without replay, and prepare it for the model that the overrides specify.

    Args:
        overrides: overrides of the config of train.py.
        augment: option of the config group `augment` to apply to the training lines; None for no augmentation.
        lenient: whether to skip empty and faulty lines even if the reader is configured to raise an error.
        one_pass: whether each line is read only once, in which case no lines are kept in memory.
        full: whether to keep scans at full resolution instead of reducing them for the model.

    Raises:
        InputError: if no override selects the data.
    """
    config = compose_data([*overrides, *([] if augment is None else [f"augment={augment}"])])
    settings, model = plain(config.data), plain(config.model)
    reader = dict(settings["reader"])
    if lenient:
        reader |= {key: "skip" for key in ("empty", "faulty") if reader.get(key) == "error"}
    if one_pass and "preload" in reader:
        reader["preload"] = False
    if full:
        settings["reduce_scans"] = False
    left_out = {"replay": None} | ({"augment": None} if augment is None else {})
    return OpenedData(make(settings | left_out | {"reader": reader}, "data"), settings, model)


def data_for(
    recognizer: Transcriber,
    overrides: Sequence[str] = (),
    full: bool = False,
    unlabelled: bool = False,
    stored_in: str = "",
) -> LineDataModule:
    """Build the data specified by overrides, prepared for a trained recognizer.

    If the overrides include `data=NAME`, the config of that name is composed; otherwise, the overrides are applied to
    the data config that the recognizer was trained with. Preprocessing and text normalisation are always those of the
    recognizer.

    Args:
        recognizer: trained recognizer.
        overrides: overrides of the data config.
        full: whether to keep scans at full resolution, for a recognizer that reduces them itself.
        unlabelled: whether to include lines without text, unless splits or subsets are sampled from the labelled lines.
        stored_in: file that the overrides come from, which may be a stranger's: they can neither name callables nor
            download; "" if the user gave them.

    Raises:
        InputError: if an override is invalid, does not concern the data, or may not come from a file.
    """
    for override in overrides:
        if stored_in and not STORED.fullmatch(override):
            raise InputError(f"{stored_in}: contains the override {override}; if you trust it, give it as an argument")
        if not override.lstrip("+~").startswith(("data.", "data=")):
            raise InputError(
                f"{override}: only the data can be changed here, e.g. with data=copiste or data.root=FOLDER"
            )
    check_overrides(overrides)
    card = recognizer.card
    named = any(override.lstrip("+").startswith("data=") for override in overrides)
    try:
        settings = _composed(card, overrides) if named else _overridden(card, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        if not stored_in:
            raise
        raise InputError(f"{stored_in}: overrides {' '.join(overrides)} cannot be used ({first_line(error)})") from None
    if stored_in:
        settings = _without_downloads({key: value for key, value in settings.items() if key not in UNUSED})
        check_config(settings, "data", stored_in)
    if len({member.preprocess.max_rows for member in recognizer.members}) > 1:
        full = True  # each member reduces the scans itself
    if full:
        settings["reduce_scans"] = False
    if unlabelled:
        _keep_unlabelled(settings)
    settings = {key: value for key, value in settings.items() if key not in UNUSED}
    settings |= {"_partial_": True, "cache_mb": 0, "measured_lines": 0}  # each line is read once
    for key, many in (("max_lines", READING_LINES), ("max_columns", READING_COLUMNS)):
        if not any(f"data.{key}=" in override for override in overrides):
            settings[key] = many
    if not named:
        _print_paths(settings, {override.lstrip("+").partition("=")[0] for override in overrides})
    own = dict(zip(OWN, (recognizer.preprocess, recognizer.normalizer, card["alphabet"]), strict=True))
    check_parameters(settings, "data")
    # the config of a checkpoint or a file is never interpolated
    data: LineDataModule = (make(settings, "data") if named and not stored_in else construct(settings))(**own)
    return data


def _composed(card: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the data config that `data=NAME` selects, with the overrides, for the recognizer of a card."""
    config = compose_train(overrides)
    OmegaConf.set_struct(config, False)
    config.model = card["model"]
    return plain(config.data)


def _overridden(card: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the data config of a card with the overrides."""
    config = OmegaConf.create({"data": _data_of(card)})
    OmegaConf.set_struct(config, True)
    given = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(list(overrides))}
    for key, value in given.items():
        OmegaConf.update(config, key, value)
    _drop_sources(config.data, set(given))
    return plain(config.data)


def _data_of(card: dict[str, Any]) -> dict[str, Any]:
    """Return the data config of a checkpoint without the settings that download or write files.

    Raises:
        InputError: if the checkpoint contains no data config, or the config is rejected by `check_config`.
    """
    training = card.get("training")
    trained = training.get("data") if isinstance(training, dict) else None
    if not isinstance(trained, dict) or not isinstance(trained.get("reader"), dict):
        raise InputError(f"{WHERE} contains no data; add data=NAME")
    trained = _without_downloads(trained) | {key: None for key in UNUSED if key in trained}
    check_config(trained, "data", WHERE)
    return trained


def _without_downloads(data: dict[str, Any]) -> dict[str, Any]:
    """Return a data config whose reader neither downloads nor writes files."""
    reader = {key: value for key, value in data["reader"].items() if key not in ("fetch", "repo")}
    reader |= {key: value for key, value in (("download", False), ("cache_dir", None)) if key in reader}
    return {**data, "reader": reader}


def _print_paths(settings: dict[str, Any], given: set[str]) -> None:
    """Print the paths that are read because a checkpoint names them.

    Raises:
        InputError: if a path is neither a file nor a folder, but for example a device.
    """
    named = {f"data.{key}": settings.get(key) for key in ("root", "pack", "texts")}
    named |= {f"data.reader.{key}": value for key, value in settings["reader"].items()}
    for key, value in named.items():
        if key not in given and isinstance(value, str) and value != "." and os.path.exists(value):
            if not (os.path.isfile(value) or os.path.isdir(value)):
                raise InputError(f"{WHERE}: {key}={value} is neither a file nor a folder; set {key}")
            print(f"note: reading {key}={value}, which {WHERE} names", file=sys.stderr)


def check_whole(overrides: Sequence[str], split: str) -> None:
    """Raise InputError if a subset of the training lines is requested for another split."""
    for override in overrides:
        if split != "train" and override.lstrip("+").startswith("data.subset="):
            raise InputError(
                f"{override}: applies only to training lines, but the split is {split}; remove this override"
            )


def _keep_unlabelled(settings: dict[str, Any]) -> None:
    """Make a reader keep lines without text, unless this would change how the other lines are split or sampled."""
    empty, splits = (settings["reader"].get(key) for key in ("empty", "splits"))
    drawn = isinstance(splits, dict) and not all(isinstance(value, str) for value in splits.values())
    if empty == "error" or (empty == "skip" and settings.get("subset") is None and not drawn):
        settings["reader"]["empty"] = "keep"


def _drop_sources(data: DictConfig, given: set[str]) -> None:
    """Clear the settings for a checkpoint's data sources, downloads included, if the overrides replace them."""
    moved = given & {"data.root", "data.repo"}
    if moved and "data.pack" not in given and data.get("pack") is not None:
        data.pack = None
    if "data.repo" in given and "data.root" not in given:
        data.root = None
    if "data.repo" not in given and data.get("repo") is not None and data.root is None:
        data.repo = None
