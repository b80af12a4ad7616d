"""Exported files from strangers cannot run code or use much memory, and damaged ones are told by name."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Outcome
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from htr_lightning.errors import InputError
from htr_lightning.export import file, runtime
from htr_lightning.export.file import _from_json, _to_json, _varint

Change = Callable[[onnx.ModelProto, dict[str, Any]], None]


def external(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    weight = model.graph.initializer[0]
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")


def external_attribute(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    inner = TensorProto(name="inner", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    inner.external_data.add(key="location", value="../secret")
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=inner))


def custom_operator(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    model.graph.node.append(helper.make_node("Shell", ["images"], ["unused"], domain="evil"))


def custom_operator_in_a_body(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    (body,) = next(node for node in model.graph.node if node.op_type == "Scan").attribute[-1:]
    body.g.node.append(helper.make_node("Shell", ["state"], ["unused"], domain="evil"))


def own_operator(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    model.functions.append(onnx.FunctionProto(name="Own", domain="own"))


def endless(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["unused"]))


def huge_weight(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    model.graph.initializer.append(TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=[1 << 20, 1 << 20]))


def nested(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    inner = helper.make_graph([], "inner", [], [])
    for _ in range(20):
        inner = helper.make_graph([helper.make_node("If", ["c"], ["o"], then_branch=inner)], "outer", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["o"], then_branch=inner))


def large_result(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    size = numpy_helper.from_array(np.array([1 << 35]), "size")
    value = numpy_helper.from_array(np.array([1], np.float32))
    model.graph.initializer.append(size)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["size"], ["large"], value=value))
    model.graph.output.append(helper.make_tensor_value_info("large", TensorProto.FLOAT, None))


def wide(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    card["model"]["preprocess"]["max_width"] = 10**9


def other_class(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    card["model"]["normalizer"] = {"_target_": "os.system", "command": "true"}


def other_decoder(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    card["export"]["decoder"] = {"_target_": "[bold]subprocess.run[/bold]"}


def markup(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    card["alphabet"] = ["<script>alert(1)</script>"]


def other_inputs(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    card["export"]["inputs"] = "\x1b[31mwhispers"


def later(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    card["export"]["format"] = 99


def other_format(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    card["format"] = 99


def no_section(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    del card["export"]


def other_alphabet(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    card["alphabet"] = card["alphabet"][:3]


HOSTILE: dict[Change, str] = {
    external: "refers to another file",
    external_attribute: "refers to another file",
    custom_operator: "uses operators of 'evil', which would run other code",
    custom_operator_in_a_body: "uses operators of 'evil', which would run other code",
    own_operator: "defines its own operators",
    endless: "a loop that may never end",
    huge_weight: "a tensor that is larger than the file",
    nested: "too many nested graphs",
    large_result: "ONNX Runtime",
    wide: "preprocessed lines are too large",
    other_class: "uses 'os.system' as normalizer, which is not allowed",
    other_decoder: "uses '[bold]subprocess.run[/bold]' as decoder, which is not allowed",
    markup: "invalid alphabet",
    other_inputs: "invalid card (inputs: '\\x1b[31mwhispers')",
    later: "unsupported export format 99",
    other_format: "unsupported format 99",
    no_section: "no section 'export'",
    other_alphabet: "does not fit",
}


def changed(path: Path, change: Change, out: Path) -> Path:
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    card = json.loads(metadata["htr"])
    change(model, card)
    helper.set_model_props(model, metadata | {"htr": json.dumps(card)})
    out.write_bytes(model.SerializeToString())
    return out


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_a_hostile_file_is_one_line(
    change: Change, exported: Path, line_image: Path, tmp_path: Path, htr: Callable[..., Outcome]
) -> None:
    path = changed(exported, change, tmp_path / "hostile.onnx")
    found = htr("transcribe", path, line_image)
    assert (found.code, found.stdout) == (1, "")
    assert found.stderr.startswith("error: ")
    assert HOSTILE[change] in found.stderr
    assert "hostile.onnx" in found.stderr
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_one_line(share: float, exported: Path, tmp_path: Path) -> None:
    content, path = exported.read_bytes(), tmp_path / "short.onnx"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"short\.onnx: .*(is not an ONNX model|was not written by htr export)"):
        runtime.load(path)


def test_damaged_bytes_raise_nothing_but_input_errors(exported: Path, tmp_path: Path) -> None:
    content, path = exported.read_bytes(), tmp_path / "damaged.onnx"
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 20):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        with suppress(InputError):  # damaged weights cannot be noticed
            file.read(path)


def test_other_onnx_models_are_refused_by_name(tmp_path: Path) -> None:
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["out"])], "graph", [], [])
    path = tmp_path / "other.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(InputError, match=r"other\.onnx: was not written by htr export"):
        runtime.load(path)


def test_a_compressed_language_model_cannot_grow() -> None:
    bomb = _to_json(np.zeros(1 << 20, np.uint8))
    with pytest.raises(ValueError, match="invalid size"):
        _from_json(bomb | {"size": 1 << 21})
    with pytest.raises(ValueError, match="too large"):
        _from_json(bomb | {"size": 1 << 40})
    assert len(_from_json(bomb | {"size": 16})) == 16  # nothing beyond the stated size is decompressed
    with pytest.raises(ValueError, match="invalid type"):
        _from_json(bomb | {"array": "object"})


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.lists(st.text()),
        lambda inner: st.dictionaries(st.text().filter(lambda key: key != "array"), inner, max_size=3),
    )
)
def test_plain_data_survive(plain: Any) -> None:
    assert json.loads(json.dumps(_from_json(_to_json(plain)))) == json.loads(json.dumps(plain))


@pytest.mark.parametrize("dtype", file.DTYPES)
def test_arrays_survive(dtype: str) -> None:
    array = np.arange(7).astype(dtype)
    found = _from_json(json.loads(json.dumps(_to_json({"a": {"b": array}}))))["a"]["b"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@given(st.integers(0, (1 << 64) - 1))
def test_integers_are_read_as_protocol_buffers_write_them(value: int) -> None:
    message = TensorProto(dims=[value if value < 1 << 63 else value - (1 << 64)]).SerializeToString()
    assert message[0] in (0x08, 0x0A)  # field 1: plain or packed
    start = 1 if message[0] == 0x08 else 2
    assert _varint(memoryview(message), start) == (value, len(message))
