"""A decoder in an exported file from a stranger is checked as strictly as the rest of the file."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Outcome
from onnx import helper, numpy_helper

from htr_lightning.errors import InputError
from htr_lightning.export import runtime

from .autoregressive import BEGIN, STEP, inside, with_metadata
from .test_file import (
    HOSTILE,
    Change,
    custom_operator,
    endless,
    external,
    external_attribute,
    huge_weight,
    large_result,
    nested,
    own_operator,
)


def nothing_but_nan(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    (bias,) = (one for one in model.graph.initializer if one.name.endswith("head.bias"))
    bias.CopyFrom(numpy_helper.from_array(np.full(tuple(bias.dims), np.nan, np.float32), bias.name))


def other_names(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    model.graph.output[0].name = model.graph.node[-1].output[0] = "probabilities"


def fewer_labels(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    zero, two = (numpy_helper.from_array(np.array([number]), f"number {number}") for number in (0, 2))
    axis = numpy_helper.from_array(np.array([1]), "axis")
    model.graph.initializer.extend([zero, two, axis])
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            if name == "log_probs":
                node.output[place] = "all"
    model.graph.node.append(helper.make_node("Slice", ["all", "number 0", "number 2", "axis"], ["log_probs"]))
    del model.graph.output[0].type.tensor_type.shape.dim[:]


INSIDE: list[tuple[str, Change, str]] = [
    *((name, change, HOSTILE[change]) for name in (BEGIN, STEP) for change in (external, custom_operator, huge_weight)),
    *((STEP, change, HOSTILE[change]) for change in (external_attribute, own_operator, endless, nested)),
    (BEGIN, large_result, "ONNX Runtime"),
    (STEP, large_result, "not one that htr export writes"),
    (STEP, nothing_but_nan, "returns no log-probabilities"),
    (STEP, fewer_labels, "returns no log-probabilities"),
    (BEGIN, other_names, "cannot be loaded"),
]


@pytest.mark.parametrize(("name", "change", "message"), INSIDE, ids=lambda given: getattr(given, "__name__", None))
def test_a_hostile_decoder_is_one_line(
    name: str, change: Change, message: str, pair: tuple[Path, Path], line_image: Path, tmp_path: Path,
    htr: Callable[..., Outcome],
) -> None:  # fmt: skip
    path = with_metadata(pair[1], lambda metadata: inside(metadata, name, change), tmp_path / "hostile.onnx")
    found = htr("transcribe", path, line_image)
    assert (found.code, found.stdout) == (1, "")
    assert found.stderr.startswith("error: ")
    assert message in found.stderr
    assert "hostile.onnx" in found.stderr
    assert len(found.stderr.splitlines()) == 1


def removed(metadata: dict[str, str]) -> None:
    del metadata[STEP]


def not_base64(metadata: dict[str, str]) -> None:
    metadata[STEP] = "~" + metadata[STEP]


def no_model(metadata: dict[str, str]) -> None:
    metadata[BEGIN] = base64.b64encode(b"something else").decode()


def swapped(metadata: dict[str, str]) -> None:
    metadata[BEGIN], metadata[STEP] = metadata[STEP], metadata[BEGIN]


def other_decoder(metadata: dict[str, str]) -> None:
    card = json.loads(metadata["htr"])
    card["export"]["decoder"] = {"_target_": "htr_lightning.decoder.ctc.Greedy"}
    metadata["htr"] = json.dumps(card)


def no_start(metadata: dict[str, str]) -> None:
    metadata["htr"] = metadata["htr"].replace("<start>", "<begin>")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (removed, "contains no decoder, which its card says it has"),
        (not_base64, "is not an ONNX model or is damaged"),
        (no_model, "is not an ONNX model or is damaged"),
        (swapped, "not one that htr export writes"),
        (other_decoder, "its decoder decodes frames, not steps"),
        (no_start, "'<start>' is not in list"),
    ],
)
def test_a_file_without_its_decoder_is_told_by_name(
    change: Callable[[dict[str, str]], None], message: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    path = with_metadata(pair[1], change, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=f"other.onnx: .*{message}"):
        runtime.load(path)
