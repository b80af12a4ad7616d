"""Files of exported recognizers: ONNX models whose metadata contain a card, a language model and further models.

An ONNX model is a protocol buffer (https://protobuf.dev/programming-guides/encoding, onnx/onnx.proto). The few fields
needed here are parsed without the `onnx` package, which is required only for exporting. This module does not import
torch.
"""

import base64
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from htr_lightning.errors import InputError
from htr_lightning.output import check_checkpoint
from htr_lightning.pretrained import locate
from htr_lightning.slots import check_card, check_config
from htr_lightning.version import __version__

FORMAT = 1  # of the "export" section of a card; increased when code for the old format could misread the new format
INPUTS = (
    "frames",
    "classes",
    "steps",
)  # of decoders of exported recognizers; see `decoder.hypothesis.Decoder`
DOMAINS = ("", "ai.onnx", "com.microsoft")  # operators of ONNX and of ONNX Runtime itself
DTYPES = ("uint8", "int16", "int32", "int64", "float16", "float32", "float64")
ENDLESS = ("Loop",)  # operators that may never end, and that no export contains
MAX_BYTES = 1 << 30  # of an array in a language model
MAX_DEPTH = 8  # of graphs inside graphs
STEPS = ("begin", "step")  # models of an autoregressive decoder; see `steps.StepGraphs`

# field numbers in onnx.proto
GRAPH, METADATA, FUNCTIONS = 7, 14, 25
NODES, INITIALIZERS, SPARSE = 1, 5, 15
OPERATOR, ATTRIBUTES, DOMAIN = 4, 5, 7
TENSOR, SUBGRAPH, TENSORS, SUBGRAPHS = 5, 6, 10, 11
DIMENSIONS, EXTERNAL, LOCATION = 1, 13, 14


class Exported(NamedTuple):
    """The content of an exported file."""

    model: bytes  # ONNX model
    card: dict[str, Any]  # card of the checkpoint, with a section "export"
    language: dict[str, Any] | None  # language model and lexicon; see `Language.from_plain`
    steps: dict[str, bytes]  # ONNX models of an autoregressive decoder by name; see `steps`


def read(path: str | Path) -> Exported:
    """Read an exported file, and check it without running it.

    Raises:
        InputError: if the file is missing, damaged, not written by `htr export`, or unsafe to load.
    """
    path = locate(path, ".onnx")
    check_checkpoint(path)
    model = path.read_bytes()
    try:
        metadata = _check_model(memoryview(model))
        card = json.loads(metadata["htr"]) if "htr" in metadata else None
        language = _from_json(json.loads(metadata["language"])) if "language" in metadata else None
        steps = {name: base64.b64decode(metadata[name], validate=True) for name in STEPS if name in metadata}
        for inner in steps.values():
            _check_model(memoryview(inner))
    except _Unsafe as error:
        raise InputError(f"{path}: {error}; use a file written by htr export") from None
    except (ValueError, KeyError, TypeError, RecursionError, zlib.error, MemoryError):
        raise InputError(f"{path}: is not an ONNX model or is damaged; download or export it again") from None
    if card is None:
        raise InputError(f"{path}: was not written by htr export (no card); export a checkpoint with htr export")
    check_card(card, str(path))
    _check_export(card, str(path))
    if card["export"]["inputs"] == "steps" and len(steps) < len(STEPS):
        raise InputError(f"{path}: contains no decoder, which its card says it has; export the checkpoint again")
    return Exported(model, card, language, steps)


def metadata(
    card: dict[str, Any], language: dict[str, Any] | None, steps: Mapping[str, bytes] = MappingProxyType({})
) -> dict[str, str]:
    """Return the metadata of an ONNX model that contain a card, a language model, and the models of a decoder."""
    found = {"htr": json.dumps(card, ensure_ascii=False)}
    found |= {name: base64.b64encode(model).decode() for name, model in steps.items()}
    if language is not None:
        found["language"] = json.dumps(_to_json(language), ensure_ascii=False)
    return found


def _check_export(card: dict[str, Any], path: str) -> None:
    """Raise InputError if what a card says about the export or the preprocessing is invalid."""
    export = card.get("export")
    if not isinstance(export, dict) or type(export.get("format")) is not int:
        raise InputError(f"{path}: invalid card (no section 'export'); export the checkpoint again")
    if export["format"] > FORMAT:
        raise InputError(
            f"{path}: unsupported export format {export['format']} (htr_lightning {__version__} supports up to "
            f"{FORMAT}); upgrade htr_lightning"
        )
    if export.get("inputs") not in INPUTS:
        raise InputError(f"{path}: invalid card (inputs: {export.get('inputs')!r}); export the checkpoint again")
    model = card.get("model")
    for part in ("preprocess", "normalizer"):
        check_config(model.get(part) if isinstance(model, dict) else None, part, path)
    if export["inputs"] != "classes":
        check_config(export.get("decoder"), "decoder", path)


class _Unsafe(ValueError):
    """A model that could read other files, run other code, or use far more memory than its size suggests."""


def _check_model(model: memoryview) -> dict[str, str]:
    """Check an ONNX model and return its metadata.

    Raises:
        _Unsafe: if the model is unsafe.
        ValueError: if it is not an ONNX model.
    """
    found, graphs = {}, 0
    for number, value in _fields(model):
        if number == GRAPH:
            _check_graph(_bytes(value), len(model))
            graphs += 1
        elif number == FUNCTIONS:
            raise _Unsafe("defines its own operators")
        elif number == METADATA:
            entry = {key: str(_bytes(text), "utf-8") for key, text in _fields(_bytes(value))}
            found[entry[1]] = entry.get(2, "")
    if graphs != 1:
        raise ValueError("no graph")
    return found


def _check_graph(graph: memoryview, size: int, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise _Unsafe("contains too many nested graphs")
    for number, value in _fields(graph):
        if number == INITIALIZERS:
            _check_tensor(_bytes(value), size)
        elif number == SPARSE:
            raise _Unsafe("contains sparse tensors")
        elif number == NODES:
            for part, content in _fields(_bytes(value)):
                if part == DOMAIN and str(_bytes(content), "utf-8") not in DOMAINS:
                    raise _Unsafe(f"uses operators of '{str(_bytes(content), 'utf-8')}', which would run other code")
                if part == OPERATOR and str(_bytes(content), "utf-8") in ENDLESS:
                    raise _Unsafe("contains a loop that may never end")
                if part == ATTRIBUTES:
                    for kind, inner in _fields(_bytes(content)):
                        if kind in (SUBGRAPH, SUBGRAPHS):
                            _check_graph(_bytes(inner), size, depth + 1)
                        elif kind in (TENSOR, TENSORS):
                            _check_tensor(_bytes(inner), size)


def _check_tensor(tensor: memoryview, size: int) -> None:
    """Raise _Unsafe if a tensor is stored in another file, or has more elements than fit into a file of this size."""
    elements = 1
    for number, value in _fields(tensor):
        if number == EXTERNAL or (number == LOCATION and value):
            raise _Unsafe("refers to another file")
        if number == DIMENSIONS:
            elements *= value if isinstance(value, int) else math.prod(_varints(value))
    if elements > 2 * size:  # a byte holds up to two elements
        raise _Unsafe("contains a tensor that is larger than the file")


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of each field in a protocol buffer message.

    Raises:
        ValueError: if the message is invalid.
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        value: int | memoryview
        if key & 7 == 0:
            value, position = _varint(message, position)
        else:
            if key & 7 == 2:
                length, position = _varint(message, position)
            else:
                length = {1: 8, 5: 4}.get(key & 7, -1)
            if not 0 <= length <= len(message) - position:
                raise ValueError("invalid field")
            value, position = message[position : position + length], position + length
        yield key >> 3, value


def _varints(values: memoryview) -> Iterator[int]:
    position = 0
    while position < len(values):
        value, position = _varint(values, position)
        yield value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the integer at a position, and the position after it."""
    value = 0
    for shift in range(0, 64, 7):
        if position == len(message):
            break
        byte = message[position]
        value, position = value | (byte & 127) << shift, position + 1
        if byte < 128:
            return value, position
    raise ValueError("invalid integer")


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("expected bytes")
    return value


def _to_json(plain: Any) -> Any:
    """Replace the arrays in nested plain data by their type and their compressed content."""
    if isinstance(plain, dict):
        return {key: _to_json(value) for key, value in plain.items()}
    if isinstance(plain, ndarray):
        content = base64.b64encode(zlib.compress(np.ascontiguousarray(plain).tobytes(), 9)).decode()
        return {"array": plain.dtype.name, "size": plain.size, "content": content}
    return plain


def _from_json(plain: Any) -> Any:
    """Undo `_to_json`."""
    if not isinstance(plain, dict):
        return plain
    if "array" not in plain:
        return {key: _from_json(value) for key, value in plain.items()}
    if plain["array"] not in DTYPES:
        raise ValueError("invalid type")
    size = plain["size"] * np.dtype(plain["array"]).itemsize
    if not 0 <= size <= MAX_BYTES:
        raise _Unsafe("contains a language model that is too large")
    inflate = zlib.decompressobj()
    content = inflate.decompress(base64.b64decode(plain["content"]), size) if size else b""
    if len(content) != size:
        raise ValueError("invalid size")
    return np.frombuffer(content, plain["array"])
