"""Describe a checkpoint and its figures: data, config, versions, hardware, and the definitions of the metrics."""

import platform
import subprocess
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from htr_lightning.checkpoint import TRAINING
from htr_lightning.cores import cores
from htr_lightning.data.datamodule import SPLITS, LineDataModule
from htr_lightning.data.files import file_hash
from htr_lightning.data.sample import Skipped
from htr_lightning.metrics import confidence, significance
from htr_lightning.metrics.edits import DEFINITION
from htr_lightning.pretrained import locate
from htr_lightning.slots import FORMAT
from htr_lightning.text.codec import name
from htr_lightning.version import versions


def card(
    settings: dict[str, Any], alphabet: list[str], data: LineDataModule, unknown: Counter[str] | None = None
) -> dict[str, Any]:
    """Return the card of a recognizer that is about to be trained, as plain data.

    Args:
        settings: resolved config of train.py.
        alphabet: characters that the recognizer can read.
        data: data that the recognizer is trained on.
        unknown: counts of training characters outside the alphabet, which are left out of the texts.
    """
    training = {key: value for key, value in settings.items() if key != "model"}
    training |= {key: settings["model"][key] for key in TRAINING if key in settings["model"]}
    splits = {split: describe(data, split) for split in SPLITS}
    if data.replay is not None:
        splits["replay"] = describe(data.replay, "train")
    splits["train"]["skipped"] |= {f"character {name(c)}": count for c, count in (unknown or {}).items()}
    return {
        "format": FORMAT,
        "alphabet": alphabet,
        "model": {key: value for key, value in settings["model"].items() if key not in TRAINING},
        "training": training,
        "data": splits,
        "metric": DEFINITION,
        "commit": git_commit(),
        "versions": versions(),
    }


def figure_card(
    recognizers: Sequence[Any],
    checkpoints: Sequence[str | Path],
    data: LineDataModule,
    split: str,
    greedy: bool = False,
) -> dict[str, Any]:
    """Return all that the figures of an evaluation depend on, as plain data.

    Args:
        recognizers: one recognizer, or the members of an ensemble, of the kind of `transcription.Transcriber`.
        checkpoints: paths to their checkpoints or exported files.
        data: data set that they are evaluated on.
        split: train, val or test.
        greedy: whether they read without beam search, language model or lexicon.
    """
    cards = [recognizer.card for recognizer in recognizers]
    devices = {getattr(recognizer, "device", None) for recognizer in recognizers}  # exported ones have none
    return {
        "split": split,
        "data": describe(data, split),
        "definition": DEFINITION | confidence.DEFINITION | significance.DEFINITION,
        "normalizer": cards[0]["model"]["normalizer"],
        "decoder": _one_or_all(["greedy" if greedy else its["model"].get("decoder", "argmax") for its in cards]),
        "language_model": _one_or_all([None if greedy else its.get("tuned") for its in cards]),
        "checkpoint_sha256": _one_or_all([file_hash(locate(path)) for path in checkpoints]),
        "seed": _one_or_all([its.get("training", {}).get("seed") for its in cards]),
        "commit": {"evaluated": git_commit(), "trained": _one_or_all([its.get("commit") for its in cards])},
        "hardware": hardware(next(iter(devices)) or torch.device("cpu")),
        "versions": versions(),
    }


def hardware(device: torch.device) -> dict[str, Any]:
    """Describe the machine, and the device on it that computes."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": _processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }


def _processor() -> str:
    """Return the name of the processor, for which Python only knows its architecture on Linux."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def describe(data: LineDataModule, split: str) -> dict[str, Any]:
    """Return the size of a split and a hash of its sample ids and references; equal hashes mean the same lines."""
    lines = data.lines(split)
    digest = sha256("\n".join(f"{i}\t{t}" for i, t in sorted(zip(lines.reader.ids, lines.texts, strict=True))).encode())
    return {
        "lines": len(lines),
        "characters": sum(map(len, lines.texts)),
        "groups": len(set(lines.reader.groups)),
        "skipped": dict(Counter(map(_reason, lines.reader.skipped))),
        "sha256": digest.hexdigest(),
        **getattr(lines.reader, "about", {}),  # how texts were changed; results are comparable only if this matches
    }


def _reason(skipped: Skipped) -> str:
    return skipped.kind + (f" (data.reader.{skipped.by}=skip)" if skipped.by else "")


def git_commit() -> str | None:
    """Return the commit of the source tree, with "-dirty" if there are changes; None for an installed package."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        run = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
        return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # git is not installed, or there is no commit yet
