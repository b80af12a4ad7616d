"""Checkpoints of format 1 converted to format 2: classes and settings under their new names, the same texts read."""

from typing import Any

from htr_lightning.card import FORMAT
from htr_lightning.errors import InputError

OLD = "htr_lightning"
CLASSES = {  # old and new name below the package
    "data.preprocess.FitCore": "data.preprocess.NormalizeHandwriting",
    "data.preprocess.FixedSize": "data.character.FixedSize",
    "data.squash.Squash": "data.preprocess.FitFrame",
    "optim.OneCycle": "schedule.OneCycle",
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
    "data.reader.htr_united.HtrUnited": {"max_height": None, "turn": "rotate"},
    "data.reader.iam.Iam": {"max_height": None},
    "data.reader.casia.CasiaCharacters": {"val_share": "val_fraction", "test_share": "test_fraction"},
    "data.reader.casia.CasiaLines": {"val_share": "val_fraction", "test_share": "test_fraction"},
    "data.reader.synthetic.Synthetic": {
        "hands": "writers",
        "font_share": "font_fraction",
        "rare_share": "rare_fraction",
    },
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
}
VALUES: dict[str, dict[str, dict[Any, Any]]] = {  # by the old class and the new key: old and new value
    "data.reader.page_xml.PageXml": {"rotate": {"level": "deskew", "read": "reading"}},
    "data.reader.htr_united.HtrUnited": {"rotate": {"level": "deskew", "read": "reading"}},
}
ADDED: dict[str, dict[str, Any]] = {"data.squash.Squash": {"keep_aspect": False}}  # by the old class
GONE = {  # by the old class: what to do instead
    "model.masked.MaskedColumns": "pre-training on masked columns no longer exists; train a recognizer without it",
}


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
