"""Checkpoints of format 1 converted to format 2: classes and settings under their new names, the same texts read."""

from pathlib import Path
from typing import Any

from htr_lightning import checkpoint
from htr_lightning.card import FORMAT
from htr_lightning.errors import InputError

OLD = "htr_lightning"
CLASSES = {  # old and new name below the package
    "data.preprocess.FitCore": "data.preprocess.NormalizeHandwriting",
    "data.preprocess.FixedSize": "data.character.FixedSize",
    "data.reader.htr_united.HtrUnited": "data.reader.page_xml.PageXml",
    "data.squash.Squash": "data.preprocess.FitFrame",
    "optim.OneCycle": "schedule.OneCycle",
    "optim.plateau": "schedule.OneCycle",
}
KEYS: dict[str, dict[str, str | None]] = {  # by the old class: old and new key; None drops it
    "data.datamodule.LineDataModule": {
        "part": "subset",
        "part_by": "subset_by",
        "keep": "cache_mb",
        "replay_share": "replay_fraction",
        "replay_fade": "replay_decay",
        "augment": None,  # its classes have changed, and it is for training alone
        "replay": None,
    },
    "data.reader.page_xml.PageXml": {"max_height": None, "turn": "rotate"},
    "data.reader.htr_united.HtrUnited": {"max_height": None, "turn": "rotate", "revision": None},
    "data.reader.iam.Iam": {"max_height": None},
    "data.reader.casia.CasiaCharacters": {"val_share": "val_fraction", "test_share": "test_fraction"},
    "data.reader.casia.CasiaLines": {"val_share": "val_fraction", "test_share": "test_fraction"},
    "data.reader.synthetic.Synthetic": {
        "hands": "writers",
        "font_share": "font_fraction",
        "rare": "rare_characters",
        "rare_share": "rare_fraction",
        "invented": "pseudoword_fraction",
        "struck": "crossed_out_fraction",
        "incomplete": "incomplete_fonts",
        "neighbours": "neighbor_fraction",
    },
    "data.reader.huggingface.HuggingFace": {"counts": "check_counts", "cache": "cache_dir"},
    "data.preprocess.FitHeight": {"squeeze": "width_scale"},
    "data.preprocess.FitCore": {
        "squeeze": "width_scale",
        "core": "x_height",
        "middle": "x_height_center",
        "pace": "stroke_spacing",
        "evenness": "spacing_strength",
        "least": "min_scale",
        "most": "max_scale",
    },
    "data.preprocess.FixedSize": {"speck": "min_blob", "upright": "deslant"},
    "data.squash.Squash": {"contrast": None},
    "decoder.prefix_beam.PrefixBeam": {"labels": "top_labels", "threshold": "min_probability", "cut": "prune_margin"},
    "decoder.rescoring.Rescoring": {
        "labels": "top_labels",
        "threshold": "min_probability",
        "cut": "prune_margin",
        "readings": "candidates",
        "ctc_share": "ctc_weight",
    },
    "model.seq2seq.Seq2SeqRecognizer": {"blank_paper": "blank_fraction"},
    "model.trocr_pretrained.PretrainedTrOCRRecognizer": {"smoothing": "label_smoothing"},
    "net.distort.Distort": {"turn": "rotation"},
    "optim.plateau": {"monitor": None, "mode": None, "factor": None, "patience": None},
}
VALUES: dict[str, dict[str, dict[Any, Any]]] = {  # by the old class and the new key: old and new value
    "data.reader.page_xml.PageXml": {"rotate": {"level": "deskew", "read": "reading"}},
    "data.reader.htr_united.HtrUnited": {"rotate": {"level": "deskew", "read": "reading"}},
}
ADDED: dict[str, dict[str, Any]] = {  # by the old class
    "data.squash.Squash": {"keep_aspect": False},
    "optim.plateau": {"warmup": 0.0, "start": 1.0, "end": 1.0},
}
GONE = {  # by the old class: what to do instead
    "model.masked.MaskedColumns": "pre-training on masked columns no longer exists; train a recognizer without it",
}


def upgrade_file(path: str | Path, out: Path) -> str | None:
    """Write a copy of a checkpoint of format 1 in format 2.

    Returns:
        A note if lines of some scans may be read from other pixels than before, see `reduction_note`.

    Raises:
        InputError: the file cannot be read, has format 2 already, or is of a kind that no longer exists.
    """
    old = checkpoint.read(path, expected=1)
    content = upgrade(old, str(path))
    checkpoint.check_targets(content["htr"]["model"], (), str(path))
    checkpoint.AtomicCheckpointIO().save_checkpoint(content, out)
    return reduction_note(old["htr"])


def reduction_note(card: dict[str, Any]) -> str | None:
    """What to know of a recognizer of lines whose training scans were not reduced as all scans are now: to twice its
    height, or 64 rows if that is more.

    Args:
        card: of format 1.
    """
    preprocess, reader = card["model"]["preprocess"], card["training"]["data"].get("reader", {})
    if preprocess["_target_"].endswith("FixedSize"):
        return None  # characters are not reduced
    rows = max(64, 2 * preprocess["height"])
    if reader.get("source", "forms") == "forms" and reader.get("max_height") == rows:
        return None
    return (
        f"lines scanned at more than {rows} rows are now reduced to {rows} before they are read; their text may differ"
    )


def upgrade(content: dict[str, Any], path: str) -> dict[str, Any]:
    """The content of a checkpoint of format 1 as that of format 2; language model, calibration and parts are kept.

    Args:
        content: see `checkpoint.read`.
        path: of the file, for messages.

    Raises:
        InputError: the checkpoint is of a kind that no longer exists.
    """
    card = content["htr"]
    if not card["alphabet"]:
        raise InputError(f"{path}: pre-trained on images without texts, a kind that no longer exists; train without it")
    training = dict(card["training"])
    training["data"] = renamed(training["data"], path)
    for part in ("optimizer", "scheduler"):
        training[part] = renamed(training.get(part), path)
    new = {**card, "format": FORMAT, "model": renamed(card["model"], path), "training": training}
    return {**content, "htr": new}


def renamed(node: Any, path: str) -> Any:
    """Plain config data with its classes, keys and values of format 1 replaced by those of format 2.

    Raises:
        InputError: a setting has no equivalent.
    """
    if isinstance(node, list):
        return [renamed(value, path) for value in node]
    if not isinstance(node, dict):
        return node
    target = str(node.get("_target_", "")).removeprefix(f"{OLD}.")
    if target in GONE:
        raise InputError(f"{path}: {GONE[target]}")
    keys, values = KEYS.get(target, {}), VALUES.get(target, {})
    result: dict[str, Any] = {}
    for key, value in node.items():
        new = keys.get(key, key)
        if new is not None:
            value = renamed(value, path)
            result[new] = values.get(new, {}).get(value, value) if new in values else value
    if target in CLASSES:
        result["_target_"] = f"{OLD}.{CLASSES[target]}"
    return result | ADDED.get(target, {})
