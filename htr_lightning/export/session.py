"""Run ONNX models with ONNX Runtime or OpenVINO. Does not import torch."""

from collections.abc import Callable, Mapping, Sequence, Set
from functools import cache
from typing import Any, NamedTuple

from jaxtyping import Float, Int64
from numpy import ndarray

from htr_lightning.cores import cores
from htr_lightning.errors import InputError, first_line

Run = Callable[[Float[ndarray, "B 1 H W"], Int64[ndarray, " B"]], list[Any]]

MAX_MEMORY = 4 << 30  # bytes of arrays on the CPU at a time; the widest lines need a tenth of it
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


class Session(NamedTuple):
    """A model that is ready to run."""

    run: Run  # uses one thread; several threads can call it at the same time
    on_cpu: bool
    inputs: Set[str]  # names; without "widths", lines must not be padded


class Graph(NamedTuple):
    """A model with any inputs and outputs."""

    run: Callable[[Mapping[str, ndarray]], list[Any]]  # maps arrays by name, of which some may be unused
    inputs: Sequence[str]
    outputs: Sequence[str]


def open_session(model: bytes, runtime: str, device: str, options: Mapping[str, str]) -> Session:
    """Open a model.

    Args:
        model: ONNX model that maps images and widths to the arguments of a decoder.
        runtime: "onnxruntime", or "openvino", or "tensorrt" for ONNX Runtime's provider of this name.
        device: "cpu", "cuda", "cuda:N", or "auto" for a GPU if the installed runtime supports one.
        options: options of the runtime.

    Raises:
        InputError: if the runtime is not installed or does not support the device.
        ValueError: if the model is invalid.
    """
    if runtime == "openvino":
        return _openvino(model, device)
    provider = provider_of(runtime, device)
    graph = _onnxruntime(model, provider, device, options)
    if not {*graph.inputs} <= {"images", "widths"}:
        raise ValueError(f"unknown inputs {', '.join(sorted(graph.inputs))}")

    def run(images: Float[ndarray, "B 1 H W"], widths: Int64[ndarray, " B"]) -> list[Any]:
        return graph.run({"images": images, "widths": widths})  # a network of fixed width needs no widths

    return Session(run, provider == PROVIDERS["cpu"], {*graph.inputs})


def open_graph(model: bytes) -> Graph:
    """Open a model with any inputs and outputs, which runs on the CPU.

    Raises:
        ValueError: if the model is invalid.
    """
    return _onnxruntime(model, PROVIDERS["cpu"], "cpu", {})


def available() -> list[str]:
    """Return the execution providers of ONNX Runtime on this machine."""
    import onnxruntime

    providers: list[str] = onnxruntime.get_available_providers()
    return providers


def provider_of(runtime: str, device: str) -> str:
    """Return the execution provider of ONNX Runtime for a device; it never falls back to another one by itself."""
    kind = "tensorrt" if runtime == "tensorrt" else device.partition(":")[0]
    if kind == "auto":
        kind = "cuda" if PROVIDERS["cuda"] in available() else "cpu"
    if kind not in PROVIDERS:
        raise InputError(f"device={device}: not available; use auto, cpu, or cuda:N for an NVIDIA GPU")
    if PROVIDERS[kind] not in available():
        raise InputError(
            f"{PROVIDERS[kind]} is not available in ONNX Runtime on this machine; install "
            f"onnxruntime-gpu{' and TensorRT' * (kind == 'tensorrt')}, or export the checkpoint again with --to onnx"
        )
    return PROVIDERS[kind]


def _onnxruntime(model: bytes, provider: str, device: str, options: Mapping[str, str]) -> Graph:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1  # layers are too small to be split between cores
    settings.log_severity_level = 4  # errors are raised as well, and its notes about the graph are not errors
    _limit_memory()
    settings.add_session_config_entry("session.use_env_allocators", "1")
    given = dict(options) if provider == PROVIDERS["tensorrt"] else {}
    if provider != PROVIDERS["cpu"] and (number := device.partition(":")[2]):
        given["device_id"] = number
    try:
        session = onnxruntime.InferenceSession(model, settings, [(provider, given)])
    except Exception as error:  # ONNX Runtime raises exceptions of its own, with the reason on the first line
        raise ValueError(first_line(error)) from None
    if session.get_providers()[0] != provider:
        raise InputError(f"{provider} cannot run this model (found {session.get_providers()[0]}); check its "
                         "installation, or export the checkpoint again with --to onnx")  # fmt: skip
    names = [one.name for one in session.get_inputs()]

    def run(given: Mapping[str, ndarray]) -> list[Any]:
        try:
            return session.run(None, {name: given[name] for name in names})
        except Exception as error:
            raise InputError(f"ONNX Runtime: {first_line(error)}; export the checkpoint again") from None

    return Graph(run, names, [one.name for one in session.get_outputs()])


@cache
def _limit_memory() -> None:
    """Limit the memory that models can use on the CPU, since a small file can describe large arrays."""
    import onnxruntime

    arena = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    cpu = onnxruntime.OrtMemoryInfo("Cpu", arena, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(cpu, onnxruntime.OrtArenaCfg({"max_mem": MAX_MEMORY}))


def _openvino(model: bytes, device: str) -> Session:
    try:
        import openvino
    except ImportError:
        raise InputError(
            "exported recognizers of this kind need openvino; install it with pip install openvino"
        ) from None
    if device not in ("auto", "cpu"):
        raise InputError(f"device={device}: OpenVINO runs on the CPU here; use cpu, or export with --to onnx")
    try:
        settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": cores()}
        compiled = openvino.Core().compile_model(openvino.Core().read_model(model), "CPU", settings)
    except Exception as error:
        raise ValueError(first_line(error)) from None
    names = {one.any_name for one in compiled.inputs}

    def run(images: Float[ndarray, "B 1 H W"], widths: Int64[ndarray, " B"]) -> list[Any]:
        given = {"images": images, "widths": widths}
        found = compiled.create_infer_request().infer({name: given[name] for name in names})
        return [found[output].copy() for output in compiled.outputs]

    return Session(run, True, names)
