"""Check a config against the parameters of the classes and functions that it describes. Does not import torch."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from operator import ge, gt, le, lt
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Interval, Len, Predicate

from htr_lightning.errors import InputError


def is_odd(value: int) -> bool:
    """Return whether a number is odd."""
    return value % 2 == 1


Fraction = Annotated[float, Interval(ge=0, le=1)]
BelowOne = Annotated[float, Interval(ge=0, lt=1)]
Positive = Annotated[float, Interval(gt=0, le=10**6)]
Weight = Annotated[float, Interval(ge=0, le=10**6)]
Score = Annotated[float, Interval(ge=-(10**6), le=10**6)]
Angle = Annotated[float, Interval(ge=0, le=180)]  # degrees
Scaling = Annotated[float, Interval(ge=0.1, le=10)]
Size = Annotated[int, Interval(ge=1, le=1 << 14)]  # channels or units of a layer
Sizes = Annotated[Sequence[Size], Len(1)]
Side = Annotated[int, Interval(ge=1, le=1 << 12)]  # pixels of a preprocessed line
Pair = Annotated[Sequence[Annotated[int, Interval(ge=1, le=64)]], Len(2, 2)]  # rows and columns
Kernel = Annotated[int, Interval(ge=1, le=99), Predicate(is_odd)]
Depth = Annotated[int, Interval(ge=1, le=256)]  # layers or blocks
Width = Annotated[int, Interval(ge=1, le=1 << 12)]  # hypotheses of a decoder, or labels of a hypothesis
Count = Annotated[int, Interval(ge=1, le=10**9)]
Seed = Annotated[int, Interval(ge=0, le=2**32 - 1)]

# Parameters that are completed when a partial object is called.
LATER = {"alphabet", "classes", "memory", "normalizer", "optimizer", "params", "preprocess", "progress", "split"}

WORDS: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    NoneType: "null",
    Path: "a path",
}

# Ranges that other packages check late or not at all.
STEPS = Interval(ge=-1)
OTHERS: dict[str, dict[str, Interval]] = {
    "lightning.pytorch.trainer.trainer.Trainer": {
        "num_nodes": Interval(ge=1, le=10**4),
        "devices": Interval(ge=-1, le=10**4),
        "max_epochs": STEPS,
        "max_steps": STEPS,
        "min_epochs": Interval(ge=0),
        "min_steps": Interval(ge=0),
        "limit_train_batches": Interval(ge=0),
        "limit_val_batches": Interval(ge=0),
        "limit_test_batches": Interval(ge=0),
        "limit_predict_batches": Interval(ge=0),
        "overfit_batches": Interval(ge=0),
        "val_check_interval": Interval(ge=0),
        "check_val_every_n_epoch": Interval(ge=1),
        "num_sanity_val_steps": Interval(ge=-1),
        "log_every_n_steps": Interval(ge=0),
        "accumulate_grad_batches": Interval(ge=1),
        "gradient_clip_val": Interval(ge=0),
        "reload_dataloaders_every_n_epochs": Interval(ge=0),
    },
}


def check_parameters(config: Any, path: str) -> None:
    """Check a nested config against the signatures of the classes and functions that it describes.

    A number must be in the range given by the annotation of its parameter, e.g. `Annotated[int, Interval(ge=1)]`.

    Args:
        config: section of a config, as plain data; a dict with a `_target_` describes an object.
        path: key of the section, used in messages.

    Raises:
        InputError: if a class or parameter does not exist, a parameter is missing, or a value has the wrong type or is
            out of range.
    """
    if isinstance(config, list):
        for index, value in enumerate(config):
            check_parameters(value, f"{path}.{index}")
    elif isinstance(config, dict):
        if "_target_" in config:
            _check_call(config, path)
        for key, value in config.items():
            check_parameters(value, f"{path}.{key}")


def check_value(value: Any, hint: Any, path: str) -> None:
    """Raise InputError if a value does not fit the annotation of its parameter."""
    if isinstance(value, dict) and "_target_" not in value and get_origin(hint) is Mapping:
        for key, one in value.items():
            check_value(one, get_args(hint)[1], f"{path}.{key}")
    elif not _fits(value, hint):
        for index, one in enumerate(value if isinstance(value, list) else ()):
            check_value(one, _element(hint), f"{path}.{index}")
        is_number = type(value) in (int, float) and _fits(str(value), hint)
        remedy = f"; quote digits: '{path}=\"{value}\"'" if is_number else ""
        raise InputError(f"{path}={_shown(value)}: expected {_name(hint)}{remedy}")


def check_order(path: str, **bounds: int | float) -> None:
    """Raise InputError unless two bounds are in ascending order."""
    (low, smallest), (high, largest) = bounds.items()
    if smallest > largest:
        raise InputError(f"{path}.{low}={smallest} is larger than {path}.{high}={largest}; change one of them")


def check_lengths(path: str, **lists: Sequence[Any]) -> None:
    """Raise InputError unless all lists have the same length."""
    if len(set(map(len, lists.values()))) > 1:
        lengths = ", ".join(f"{key} has {len(values)}" for key, values in lists.items())
        raise InputError(f"{path}: expected lists of the same length, but {lengths}; change one of them")


def _check_call(config: dict[str, Any], path: str) -> None:
    """Check the target and the arguments of one object, but not the objects inside it."""
    made = _find(config["_target_"], path)
    check_value(config.get("_partial_", False), bool, f"{path}._partial_")
    check_value(config.get("_recursive_", True), bool, f"{path}._recursive_")
    check_value(config.get("_convert_", "all"), Literal["none", "partial", "object", "all"], f"{path}._convert_")
    parameters, is_closed = _signature(made)
    own = {key: value for key, value in config.items() if not (str(key).startswith("_") and str(key).endswith("_"))}
    for key, value in own.items():
        if key in parameters:
            check_value(value, parameters[key].annotation, f"{path}.{key}")
        elif is_closed:
            close = get_close_matches(str(key), parameters, 1)
            meant = f"; did you mean {path}.{close[0]}?" if close else "; remove it"
            raise InputError(f"{path}.{key}: {made.__name__} has no such parameter{meant}")
    given = LATER if config.get("_partial_") else set()
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in own and key not in given:
            raise InputError(f"{path}.{key}: missing; {made.__name__} expects {_name(parameter.annotation)}")


def _find(target: Any, path: str) -> Any:
    """Return the class or function with the given dotted name."""
    made = find_target(target)
    if not callable(made):
        raise InputError(f"{path}._target_={_shown(target)}: no such class or function; remove this override")
    return made


def find_target(target: Any) -> Any:
    """Return the object with the given dotted name, or None if there is no such object."""
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError):
        return None


@cache
def _signature(made: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return the parameters of a class or function with their annotations evaluated, and whether these are all.

    Parameters that a constructor passes on through `**kwargs` are included.
    """
    functions: list[Any] = [made]
    if isinstance(made, type):
        functions = [vars(owner)["__init__"] for owner in made.__mro__[:-1] if "__init__" in vars(owner)] or [made]
    found: dict[str, inspect.Parameter] = {}
    for function in functions:
        try:
            hints = get_type_hints(function, include_extras=True)
            parameters = inspect.signature(function).parameters
        except (NameError, TypeError, AttributeError, ValueError):
            return found, False  # an annotation that cannot be evaluated, or a class written in C
        for name, one in parameters.items():
            if name != "self" and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
                default = one.default if function is functions[0] else None  # a subclass may set what it inherits
                found.setdefault(name, one.replace(annotation=hints.get(name, Any), default=default))
        if all(one.kind is not one.VAR_KEYWORD for one in parameters.values()):
            break
    else:
        return found, False
    for name, interval in OTHERS.get(f"{made.__module__}.{made.__name__}", {}).items():
        found[name] = found[name].replace(annotation=Annotated[found[name].annotation, interval])
    return found, True


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value fits an annotation; annotations that are not understood accept any value."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(value, arguments[0]) and all(_within(value, limit) for limit in arguments[1:])
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in arguments)
    kind = origin or hint
    if kind in (Any, object) or not (isinstance(kind, type) or kind is Callable):
        return True
    if isinstance(value, dict):
        if "_target_" in value:
            return _makes(value, kind)
        if kind not in (dict, Mapping):
            return False
        keys, values = arguments or (Any, Any)
        return all(_fits(key, keys) and _fits(one, values) for key, one in value.items())
    if isinstance(value, list):
        if kind not in (list, tuple, Sequence, Iterable):
            return False
        elements = arguments if kind is tuple and ... not in arguments else (arguments or (Any,))[:1] * len(value)
        return len(elements) == len(value) and all(map(_fits, value, elements))
    if isinstance(value, str):
        return kind in (str, Path, timedelta) or (kind in (Iterable, Sequence) and arguments == (str,))
    if isinstance(value, float):
        return kind is float and math.isfinite(value)
    return kind in ({int, float} if type(value) is int else {type(value)})


def _element(hint: Any) -> Any:
    """Return the annotation of the elements of a list, or Any if they may have several types or are strings."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _element(arguments[0])
    if origin in (Union, UnionType):
        found = [element for element in map(_element, arguments) if element is not Any]
        return found[0] if len(found) == 1 else Any
    return arguments[0] if origin in (list, Sequence, Iterable) and arguments != (str,) else Any


def _within(value: Any, limit: Any) -> bool:
    """Return whether a number is in an interval, or a list has the required length."""
    if isinstance(limit, Len) and isinstance(value, list):
        return limit.min_length <= len(value) <= (len(value) if limit.max_length is None else limit.max_length)
    if isinstance(limit, Predicate) and isinstance(value, int):
        return limit.func(value)
    if not isinstance(limit, Interval) or isinstance(value, bool) or not isinstance(value, int | float):
        return True
    return all(
        bound is None or holds(value, bound)
        for bound, holds in ((limit.ge, ge), (limit.gt, gt), (limit.le, le), (limit.lt, lt))
    )


def _makes(config: dict[str, Any], kind: Any) -> bool:
    """Return whether the object that a config describes can be passed for an annotation."""
    if config.get("_partial_"):
        return kind is Callable
    made = find_target(config["_target_"])
    if not isinstance(made, type):
        return True  # the type that a function returns is not checked, and a missing class is reported by its own key
    if kind is Callable:
        return any("__call__" in vars(owner) for owner in made.__mro__)
    if not getattr(kind, "_is_protocol", False):
        return issubclass(made, kind)
    methods = [name for name, member in vars(kind).items() if inspect.isfunction(member)]
    return all(hasattr(made, name) for name in methods)  # the attributes of a protocol may be set by the constructor


def _name(hint: Any) -> str:
    """Describe an annotation in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _name(arguments[0]) + "".join(map(_limit, arguments[1:]))
    if origin in (Union, UnionType):
        names = dict.fromkeys(_name(one).partition(" in which ")[0] for one in arguments)
        if WORDS[float] in names:
            names.pop(WORDS[int], None)
            names.pop("a config for Tensor", None)  # a learning rate of torch.optim
        return " or ".join(names)
    if origin is Literal:
        return " or ".join(dict.fromkeys(map(str, arguments)))
    kind = origin or hint
    if kind in WORDS:
        return WORDS[kind]
    if kind is Callable:
        return "a config with _partial_: true"
    if not isinstance(kind, type):
        return "a config"
    if issubclass(kind, Mapping):
        return "values by key, e.g. {a: 1}"
    if kind in (Iterable, Sequence) and arguments == (str,):
        return "a string or a list of strings"
    if kind in (list, tuple, Sequence, Iterable) and arguments:
        return f"a list in which each value is {_name(arguments[0])}"
    return f"a config for {kind.__name__}"


def _limit(limit: Any) -> str:
    """Describe a limit in words that follow the description of a type."""
    if isinstance(limit, Len):
        return f" (length {limit.min_length})" if limit.min_length == limit.max_length else " (not empty)"
    if isinstance(limit, Predicate):
        return ", " + limit.func.__name__.removeprefix("is_")
    if not isinstance(limit, Interval):
        return ""
    if limit.ge is not None and limit.le is not None:
        return f" from {limit.ge} to {limit.le}"
    bounds = [(limit.ge, "of at least"), (limit.gt, "above"), (limit.le, "at most"), (limit.lt, "below")]
    return " " + " and ".join(f"{word} {bound}" for bound, word in bounds if bound is not None)


def _shown(value: Any) -> str:
    """Return a value as it is written in YAML, shortened."""
    text = {None: "null", True: "true", False: "false"}[value] if isinstance(value, bool | None) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
