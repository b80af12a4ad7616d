"""Convert checkpoints from format 1 to format 2, renaming classes and settings but keeping the weights."""

from pathlib import Path
from typing import Any

from htr_lightning import checkpoint
from htr_lightning.errors import InputError
from htr_lightning.slots import FORMAT

OLD = "htr_lightning"
CLASSES = {  # old to new names, relative to the package
    "data.preprocess.FitCore": "data.preprocess.NormalizeHandwriting",
    "data.preprocess.FixedSize": "data.character.FixedSize",
    "data.reader.htr_united.HtrUnited": "data.reader.page_xml.PageXml",
    "data.squash.Squash": "data.preprocess.FitFrame",
    "optim.OneCycle": "schedule.OneCycle",
    "optim.plateau": "schedule.OneCycle",
}
KEYS: dict[str, dict[str, str | None]] = {  # by old class: old to new keys; None removes the key
    "data.datamodule.LineDataModule": {
        "part": "subset",
        "part_by": "subset_by",
        "keep": "cache_mb",
        "replay_share": "replay_fraction",
        "replay_fade": "replay_decay",
        "augment": None,  # its classes have changed, and only training uses it
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
        "incomplete": None,
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
VALUES: dict[str, dict[str, dict[Any, Any]]] = {  # by old class and new key: old to new values
    "data.reader.page_xml.PageXml": {"rotate": {"level": "deskew", "read": "reading"}},
    "data.reader.htr_united.HtrUnited": {"rotate": {"level": "deskew", "read": "reading"}},
}
ADDED: dict[str, dict[str, Any]] = {  # by old class: added keys
    "data.squash.Squash": {"keep_aspect": False},
    "optim.plateau": {"warmup": 0.0, "start": 1.0, "end": 1.0},
}
GONE = {  # by old class: why it cannot be converted and what to do
    "model.masked.MaskedColumns": "masked-column pre-training is no longer supported; train a recognizer without it",
}


def upgrade_file(path: str | Path, out: Path) -> str | None:
    """Convert a format 1 checkpoint to format 2, and write it to a new file.

    Returns:
        A note if some lines may be transcribed differently than before (see `reduction_note`), or None.

    Raises:
        InputError: if the file cannot be read, already has format 2, or is of a kind that is no longer supported.
    """
    old = checkpoint.read(path, expected=1)
    try:
        content = upgrade(old, str(path))
        note = reduction_note(old["htr"])
    except (AttributeError, KeyError, TypeError):
        raise InputError(f"{path}: contains no complete config; use a checkpoint written by train.py") from None
    checkpoint.check_model(content, str(path))
    checkpoint.write(content, out)
    return note


def reduction_note(card: dict[str, Any]) -> str | None:
    """Return a note if a line recognizer was trained on scans whose height was not reduced as it is now.

    Scans are now reduced to twice the recognizer's line height, but to no less than 64 rows.

    Args:
        card: card in format 1.

    Returns:
        The note, or None if transcriptions stay the same.
    """
    preprocess, reader = card["model"]["preprocess"], card["training"]["data"].get("reader", {})
    if preprocess["_target_"].endswith("FixedSize"):
        return None  # images of single characters are not reduced
    rows = max(64, 2 * preprocess["height"])
    if reader.get("source", "forms") == "forms" and reader.get("max_height") == rows:
        return None
    return f"line images taller than {rows} pixels are now reduced to this height, so transcriptions may change"


def upgrade(content: dict[str, Any], path: str) -> dict[str, Any]:
    """Convert the content of a format 1 checkpoint to format 2, leaving everything else unchanged.

    Args:
        content: content of the checkpoint; see `checkpoint.read`.
        path: path to the checkpoint, used in messages.

    Raises:
        InputError: if the checkpoint is of a kind that is no longer supported.
    """
    card = content["htr"]
    if not card["alphabet"]:
        raise InputError(
            f"{path}: pre-training on images without texts is no longer supported; train a recognizer without it"
        )
    training = dict(card["training"])
    training["data"] = renamed(training["data"], path)
    for part in ("optimizer", "scheduler"):
        training[part] = renamed(training.get(part), path)
    new = {**card, "format": FORMAT, "model": renamed(card["model"], path), "training": training}
    return {**content, "htr": new}


def renamed(node: Any, path: str) -> Any:
    """Replace the classes, keys and values of format 1 in plain config data with those of format 2.

    Raises:
        InputError: if a class is no longer supported.
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
