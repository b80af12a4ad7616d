"""What makes tests fast without changing what they prove; `check` must be called before the package is imported."""

import gc
import inspect
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial, wraps
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import jaxtyping
import yaml
from beartype import beartype
from hydra._internal.hydra import Hydra

jaxtyped = jaxtyping.jaxtyped


def check() -> None:
    """Check types and shapes in every module of the package that is imported from now on.

    The wrapper of jaxtyping's import hook binds the arguments of every call to their names and checks them twice, which
    takes more time than many functions; that of `checked` does not.
    """
    jaxtyping.jaxtyped = partial(partial, checked)  # the hook decorates with `jaxtyped(typechecker=...)`
    jaxtyping.install_import_hook("htr_lightning", "beartype.beartype")


def checked(fn: Any, *, typechecker: Any) -> Any:
    """Return a function whose arguments and result are checked; shapes are compared within each call.

    Args:
        fn: function, or a class, of which only dataclasses are checked.
        typechecker: that of jaxtyping's import hook, used where annotations are not evaluated.
    """
    hints = getattr(fn, "__annotations__", {}).values()
    if not inspect.isfunction(fn) or any(isinstance(hint, str) for hint in hints):
        return jaxtyped(fn, typechecker=typechecker)
    typed: Callable[..., Any] = beartype(fn)
    if typed is fn:
        return fn  # without annotations
    if any(map(_has_shape, hints)):
        context = jaxtyped("context")  # has no state of its own

        @wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            if jaxtyping.config.jaxtyping_disable:
                return fn(*args, **kwargs)
            with context:
                return typed(*args, **kwargs)
    else:

        @wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            return (fn if jaxtyping.config.jaxtyping_disable else typed)(*args, **kwargs)

    return call


def _has_shape(hint: Any) -> bool:
    """Return whether a type hint contains an array with a shape."""
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(_has_shape, get_args(hint)))


def compose_quickly() -> None:
    """Compose configs in a third of the time: once for each run, with YAML parsed in C, and recipes read once."""
    from htr_lightning import config, hydra_version
    from htr_lightning.training import launch

    if not hydra_version.IS_NEW:  # the internals of Hydra 1.4 differ
        from omegaconf import _utils

        with mock.patch.object(yaml, "SafeLoader", yaml.CSafeLoader):
            loader = _utils.get_yaml_loader()
        _utils.get_yaml_loader = lambda: loader
        Hydra.get_mode = lambda *_, **__: None  # as without `hydra.mode`, for which it composes the config once more
    offer, offered = config.offer_experiments, dict[str, tuple[Path, int]]()

    def offer_changed() -> None:
        found = {name: (file, file.lstat().st_mtime_ns) for name, file in config.recipe_files().items()}
        if found != offered:
            offered.clear()
            offer()
            offered.update(found)

    config.offer_experiments = launch.offer_experiments = offer_changed


def freeze() -> None:
    """Leave everything imported so far out of garbage collections, which take half a second with it."""
    gc.collect()
    gc.freeze()


@contextmanager
def exports(folder: Path) -> Iterator[None]:
    """Trace each network once, start a process once for each file whose speed is measured, and measure one round.

    Args:
        folder: folder of traced networks, which processes share.
    """
    import onnx

    from htr_lightning.evidence import parity
    from htr_lightning.export import build

    trace, trace_steps, start = build.trace, build.trace_steps, parity._process

    def once(key: str, net: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        digest = sha256(key.encode())
        for name, weight in net.state_dict().items():
            digest.update(name.encode() + weight.numpy().tobytes())
        stored = folder / f"traced-{digest.hexdigest()}"
        if not stored.exists():
            written = stored.with_suffix(f".{os.getpid()}")
            written.write_bytes(pickle.dumps({name: model.SerializeToString() for name, model in make().items()}))
            written.replace(stored)
        return {name: onnx.ModelProto.FromString(one) for name, one in pickle.loads(stored.read_bytes()).items()}

    def described(recognizer: Any, net: Any) -> str:
        """Return what a trace depends on besides weights: layers, the config of the model, and preprocessing."""
        config = {key: value for key, value in recognizer.card["model"].items() if key != "decoder"}
        its = recognizer.preprocess
        return f"{net} {config} {its.height} {its.margin} {its.framed}"

    def traced(recognizer: Any, exportable: Any, padded: bool = True) -> Any:
        key = f"{padded} {exportable.outputs} {described(recognizer, exportable.net)}"
        return once(key, recognizer.net, lambda: {"": trace(recognizer, exportable, padded)})[""]

    def traced_steps(recognizer: Any, exportable: Any) -> dict[str, Any]:
        if exportable.steps is None:
            return {}
        key = f"steps {described(recognizer, exportable.steps)}"
        return once(key, exportable.steps.step, lambda: trace_steps(recognizer, exportable))

    @cache
    def started(path: str, _changed: int) -> tuple[float, float]:
        return start(path)

    with (
        mock.patch.multiple(build, trace=traced, trace_steps=traced_steps),
        mock.patch.multiple(parity, ROUNDS=1, _process=lambda path: started(path, Path(path).stat().st_mtime_ns)),
    ):
        yield
