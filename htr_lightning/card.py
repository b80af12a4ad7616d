"""Describe a checkpoint: its data, config and versions, and the definitions of its metrics."""

import subprocess
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

from htr_lightning.checkpoint import TRAINING
from htr_lightning.data.datamodule import SPLITS, LineDataModule
from htr_lightning.data.sample import Skipped
from htr_lightning.metrics.edits import DEFINITION
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
