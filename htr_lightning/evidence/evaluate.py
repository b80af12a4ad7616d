"""A checkpoint measured on a split: every line's prediction, and the counts."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from jaxtyping import UInt8
from numpy import ndarray
from omegaconf import DictConfig, OmegaConf

from htr_lightning import checkpoint
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.pack import Pack
from htr_lightning.data.sample import Sample
from htr_lightning.data.sampler import BucketBatchSampler
from htr_lightning.errors import InputError
from htr_lightning.metrics.calibration import (
    PlattScaling,
    calibration_error,
    character_trials,
    check_platt_scaling,
    line_trial,
)
from htr_lightning.metrics.edits import EditCounts, EditTotals
from htr_lightning.model.base import Recognizer, learned_height
from htr_lightning.model.learner import Learner
from htr_lightning.model.line import LineRecognizer
from htr_lightning.reading.transcribe import BATCH_COLUMNS, BATCH_LINES
from htr_lightning.reading.voting import Rover, difference, vote
from htr_lightning.transcription import Prediction, Transcriber, Transcription

T = TypeVar("T")
SCANNED = 100_000  # rows that no line has


def conf_dir() -> Path:
    """The config groups: in the installed package, or beside it in a source tree."""
    here = Path(__file__).parent.parent
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


def compose_train(overrides: Sequence[str]) -> DictConfig:
    """The config of train.py with overrides."""
    with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
        # Only our own groups, unless a recipe is named: the folder one stands in may hold a `data` of anybody's.
        named = any(override.lstrip("+").startswith("experiments=") for override in overrides)
        return compose("train", overrides=[*([] if named else ["hydra.searchpath=[]"]), *overrides])


def data_for(recognizer: Transcriber | Learner, overrides: Sequence[str] = ()) -> LineDataModule:
    """The data that overrides describe, prepared as the recognizer needs it.

    With `data=NAME` among the overrides that config is composed; else they change the one the recognizer was trained
    on. Preprocessing and normaliser are always the recognizer's own.

    Raises:
        InputError: an override does not fit.
    """
    for override in overrides:
        if not override.lstrip("+~").startswith(("data.", "data=")):
            raise InputError(f"{override}: only the data can be changed here, as by data=copiste or data.root=FOLDER")
    card = recognizer.card
    named = any(override.lstrip("+").startswith("data=") for override in overrides)
    if named:
        config = compose_train(overrides)
        OmegaConf.set_struct(config, False)
        config.model = card["model"]
    else:
        config = OmegaConf.create({"data": card["training"]["data"]})
        OmegaConf.set_struct(config, True)
        given = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(list(overrides))}
        for key, value in given.items():
            OmegaConf.update(config, key, value)
        _drop_sources(config.data, set(given))
    settings = OmegaConf.to_container(config.data, resolve=True)
    assert isinstance(settings, dict)
    settings.pop("replay", None)  # what training mixed in is no part of a split
    if "max_height" in settings["reader"] and not any("max_height=" in override for override in overrides):
        members = recognizer.members if isinstance(recognizer, Rover) else [recognizer]
        heights = {learned_height(member.card) for member in members}
        height = heights.pop() if len(heights) == 1 else SCANNED  # else each member reduces for itself
        if height is not None:
            settings["reader"]["max_height"] = height  # reduced only once
    if not named:
        settings["reader"].pop("fetch", None)  # what a checkpoint names is not downloaded; give data=NAME or data.root
        for target in checkpoint.targets(settings):
            checkpoint.check_target(target, (), "the checkpoint's config")
    settings |= {key: card["model"][key] for key in ("preprocess", "normalizer")} | {"alphabet": card["alphabet"]}
    settings.pop("augment", None)
    settings["cache_mb"] = 0  # every line is read once
    for key, many in (("max_lines", BATCH_LINES), ("max_columns", BATCH_COLUMNS)):
        if not any(f"data.{key}=" in override for override in overrides):
            settings[key] = many  # as transcribing does: no gradients are kept
    for target in checkpoint.targets(card["model"]):
        checkpoint.check_target(target, (), "the checkpoint's config")
    data: LineDataModule = instantiate(settings, _convert_="all")
    return data


def _drop_sources(data: DictConfig, given: set[str]) -> None:
    """Of the places that a checkpoint's data came from, those that the overrides leave meaningless, and downloads."""
    moved = given & {"data.root", "data.repo"}
    if moved and "data.pack" not in given and data.get("pack") is not None:
        data.pack = None
    if "data.repo" in given and "data.root" not in given:
        data.root = None
    if "data.repo" not in given and data.get("repo") is not None and data.root is None:
        data.repo = None


def evaluate(
    recognizer: Transcriber,
    data: LineDataModule,
    split: str = "test",
    advance: Callable[[int], None] = lambda lines: None,
) -> tuple[list[Prediction], EditTotals]:
    """Every line of a split read once, as `htr transcribe` reads it, and the counts.

    Args:
        recognizer: in evaluation mode, on the device to use.
        data: see `data_for`.
        split: train, val or test.
        advance: called with the count of lines done, for a progress bar.

    Raises:
        InputError: a line cannot be read; it is named.
    """
    return measured(read_split(recognizer, recognizer.read, data, split, advance))


class Line(NamedTuple):
    """A line of a split that was read."""

    id: str
    reference: str
    group: str


def measured(read: Sequence[tuple[Line, Transcription]]) -> tuple[list[Prediction], EditTotals]:
    """What was read beside what stands there, and the counts."""
    predictions = [Prediction(line.id, line.reference, one.text, one.confidence, line.group) for line, one in read]
    counts = EditCounts()
    counts.update([one.reference for one in predictions], [one.hypothesis for one in predictions])
    return predictions, counts.compute()


def read_split(
    recognizer: Transcriber,
    read: Callable[[Sequence[UInt8[ndarray, "_ _"]]], Sequence[T]],
    data: LineDataModule,
    split: str,
    advance: Callable[[int], None],
) -> list[tuple[Line, T]]:
    """What a function of raw images, of a recognizer, gives for every line of a split, in order; see `evaluate`."""
    lines = data.lines(split)
    if data.pack is not None and isinstance(recognizer, Rover):
        for member in recognizer.members:  # one may want higher lines than the first
            Pack(data.pack, split, member.preprocess)
    found: dict[int, tuple[Line, T]] = {}
    for batch in BucketBatchSampler(lines.widths, data.max_lines, data.max_columns):
        samples = [lines.reader[index] for index in batch.indices]
        for index, sample, one in zip(batch.indices, samples, _read(read, samples), strict=True):
            found[index] = Line(sample.id, lines.texts[index], sample.group), one
        advance(len(samples))
    return [found[index] for index in range(len(lines))]


def _read(read: Callable[[Sequence[UInt8[ndarray, "_ _"]]], Sequence[T]], samples: Sequence[Sample]) -> Sequence[T]:
    try:
        return read([sample.image for sample in samples])
    except ValueError as error:
        if len(samples) > 1:
            return [one for sample in samples for one in _read(read, [sample])]
        raise InputError(f"{samples[0].id}: {error}") from None


def calibration(predictions: Sequence[Prediction]) -> dict[str, float]:
    """The expected calibration error of characters and of whole lines, see `metrics.calibration.DEFINITION`."""
    read = [(one.reference, one.hypothesis, one.confidence) for one in predictions]
    return {
        "ece": calibration_error([character_trials(*one) for one in read]),
        "line_ece": calibration_error([line_trial(*one) for one in read]),
    }


def make_folder(folder: Path) -> None:
    """Make a folder for results.

    Raises:
        InputError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".probe").touch()
        (folder / ".probe").unlink()
    except OSError as error:
        raise InputError(f"{error.filename or folder}: {error.strerror}; choose another --out") from None


def write(folder: Path, predictions: Sequence[Prediction], totals: EditTotals, about: dict[str, Any]) -> None:
    """Write `predictions.jsonl` and `metrics.json`.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        with open(folder / "predictions.jsonl", "w", encoding="utf-8") as file:
            for prediction in predictions:
                file.write(json.dumps(prediction._asdict(), ensure_ascii=False) + "\n")
        rates = {"cer": totals.cer, "wer": totals.wer, "line_accuracy": totals.line_accuracy}
        metrics = {**rates, **totals._asdict(), **calibration(predictions), **about}
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{error.filename or folder}: {error.strerror}; choose another --out") from None


def load(path: str, device: str = "auto", greedy: bool = False, alternatives: int = 0) -> Recognizer:
    """A checkpoint's recognizer on a device.

    Args:
        path: of the checkpoint.
        device: "auto" is the GPU where there is one.
        greedy: read by the best path, whatever decoder the checkpoint has.
        alternatives: readings to give of each line.

    Raises:
        InputError: see `checkpoint.load`; or there is no such device, or its decoder has no alternatives.
    """
    recognizer = checkpoint.load(path)
    if greedy:
        before = getattr(recognizer, "decoder", None)
        recognizer.set_greedy()
        if type(getattr(recognizer, "decoder", None)) is not type(before):
            recognizer.calibration = PlattScaling()  # fitted on what the other decoder gave
    if alternatives:
        if not hasattr(getattr(recognizer, "decoder", None), "n_best"):
            remedy = (
                "give a checkpoint that htr tune-decoder wrote"
                if isinstance(recognizer, LineRecognizer)
                else "models of lines have several, with decoder=autoregressive_beam or after htr tune-decoder"
            )
            if greedy and hasattr(before, "n_best"):
                remedy = "leave --greedy away"
            raise InputError(f"--n-best {alternatives}: {path} has one reading a line; {remedy}")
        recognizer.alternatives = alternatives
    try:
        return recognizer.to(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    except (RuntimeError, AssertionError):
        raise InputError(
            f"--device {device}: no such device here; use auto, cpu, or cuda:N for an NVIDIA GPU"
        ) from None


def load_all(
    paths: Sequence[str],
    device: str = "auto",
    greedy: bool = False,
    alternatives: int = 0,
    way: str | None = None,
    views: int = 1,
    scale: str | None = None,
    weights: str | None = None,
) -> Transcriber:
    """A checkpoint's recognizer, or several that vote.

    Args:
        paths: of the checkpoints.
        device, greedy, alternatives: see `load`.
        way: see `model.ensemble.vote`; None for "auto".
        views: of each line, see `net.view`.
        scale: SLOPE,BIAS of the confidences, in place of the checkpoint's own.
        weights: of the checkpoints in a vote, joined by commas; None: they weigh the same.

    Raises:
        InputError: see `load` and `model.ensemble.vote`; or there is nothing to vote.
    """
    if way is not None and len(paths) == views == 1:
        raise InputError(f"--vote {way}: {paths[0]} is the only checkpoint; name two or more, or read it with --tta 5")
    weighed = None if weights is None else _weights(weights, paths)
    members = [load(path, device, greedy, 0 if number else alternatives) for number, path in enumerate(paths)]
    recognizer: Transcriber = members[0]
    if len(members) > 1 or views > 1:
        recognizer = vote(members, paths, way or "auto", views, several=not greedy, weights=weighed)
        if weights is not None and not isinstance(recognizer, Rover):
            raise InputError(f"--weights {weights}: checkpoints that vote by frames weigh the same; leave it away")
    if alternatives and isinstance(recognizer, Rover):
        other = "" if difference(members, paths) else ", or vote with --vote frames"
        raise InputError(f"--n-best {alternatives}: a vote by rover has one reading a line; leave it away{other}")
    if scale is not None:
        try:
            recognizer.calibration = check_platt_scaling(scale.split(","))
        except ValueError:
            raise InputError(f"--calibration {scale}: give SLOPE,BIAS, as htr calibrate prints them") from None
    return recognizer


def _weights(text: str, paths: Sequence[str]) -> list[float]:
    if len(paths) == 1:
        raise InputError(f"--weights {text}: {paths[0]} is the only checkpoint; leave it away, or name several")
    try:
        weights = list(map(float, text.split(",")))
    except ValueError:
        weights = []
    if len(weights) != len(paths) or not all(0 <= one < math.inf for one in weights) or not any(weights):
        raise InputError(
            f"--weights {text}: give a number for each of the {len(paths)} checkpoints, none below 0 and one above it, "
            "as htr calibrate prints them"
        )
    return weights
