"""Check the card of a checkpoint or an exported recognizer, and build the objects that its config describes.

`SLOTS` lists the classes and numbers that a config may contain, by their place in the config. Does not import torch.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

from htr_lightning.errors import InputError
from htr_lightning.version import __version__

FORMAT = 2  # of checkpoints; increased when code for the old format could misread the new format
PACKAGE = "htr_lightning"
RESERVED = ("_args_", "_convert_", "_recursive_")  # keys that change how Hydra builds an object
UNBOUNDED = ("seed",)  # settings that determine no size
MAX_NUMBER = 1 << 20  # in a setting; larger numbers could make a constructor allocate any amount of memory
MAX_AREA = 1 << 26  # pixels of a preprocessed line; a line of 128 x 8192 pixels has 2 ** 20


class Slot(NamedTuple):
    """A place in a config that describes an object.

    Attributes:
        base: name of the base class of the object, or of a protocol that its class implements.
        modules: modules and packages whose classes are allowed, in addition to the packages that the user allows.
        inner: slots of the objects inside this one, by key; "*" stands for all other keys.
        largest: maximum number in a setting.
    """

    base: str
    modules: tuple[str, ...]
    inner: Mapping[str, str] = MappingProxyType({})
    largest: int = MAX_NUMBER


SLOTS = {
    "model": Slot(
        f"{PACKAGE}.model.base.Recognizer",
        (f"{PACKAGE}.model",),
        {"decoder": "decoder", "normalizer": "normalizer", "preprocess": "preprocess", "*": "net"},
    ),
    "net": Slot("torch.nn.Module", (f"{PACKAGE}.net",), {"*": "net"}),
    "decoder": Slot(f"{PACKAGE}.decoder.hypothesis.Decoder", (f"{PACKAGE}.decoder",), largest=1 << 12),
    "normalizer": Slot(f"{PACKAGE}.text.normalize.Normalizer", (f"{PACKAGE}.text.normalize",)),
    "preprocess": Slot(
        f"{PACKAGE}.data.preprocess.Preprocess", (f"{PACKAGE}.data.preprocess", f"{PACKAGE}.data.character")
    ),
    "data": Slot(f"{PACKAGE}.data.datamodule.LineDataModule", (f"{PACKAGE}.data.datamodule",), {"reader": "reader"}),
    "reader": Slot(
        "collections.abc.Sequence", (f"{PACKAGE}.data.reader",), {"listing": "listing", "readers": "reader"}, 1 << 22
    ),
    "listing": Slot("builtins.object", (f"{PACKAGE}.data.reader.listing",)),
    "optimizer": Slot("torch.optim.Optimizer", ("torch.optim", f"{PACKAGE}.optim"), {"base": "optimizer"}),
    "scheduler": Slot("torch.optim.lr_scheduler.LRScheduler", (f"{PACKAGE}.schedule",)),
}


def check_card(card: Any, path: str, expected: int = FORMAT) -> None:
    """Check the format and the alphabet of a card.

    Args:
        card: card of a checkpoint or an exported recognizer.
        path: path to its file, used in messages.
        expected: format that the card must have.

    Raises:
        InputError: if the card is invalid or has another format.
    """
    if not isinstance(card, dict) or type(card.get("format")) is not int or card["format"] < 1:
        raise InputError(
            f"{path}: not written by htr_lightning (no format number); use a checkpoint trained with train.py"
        )
    if card["format"] > FORMAT:
        raise InputError(
            f"{path}: unsupported format {card['format']} (htr_lightning {__version__} supports up to {FORMAT}); "
            "upgrade htr_lightning"
        )
    if card["format"] != expected:
        upgrade = f"convert it with htr upgrade {path} --out NEW.ckpt"
        remedy = upgrade if card["format"] < expected else "this checkpoint needs no conversion"
        raise InputError(f"{path}: expected format {expected}, got {card['format']}; {remedy}")
    alphabet = card.get("alphabet")
    if not isinstance(alphabet, list) or not alphabet or not all(map(_is_character, alphabet)):
        raise InputError(f"{path}: invalid alphabet (expected a list of characters); download the checkpoint again")
    if len(set(alphabet)) < len(alphabet):
        raise InputError(f"{path}: invalid alphabet (a character occurs twice); download the checkpoint again")


def _is_character(entry: Any) -> bool:
    """Return whether a value is a single code point that can be written to a file."""
    return isinstance(entry, str) and len(entry) == 1 and not "\ud800" <= entry <= "\udfff"


def check_config(config: Any, slot: str, where: str, allow: Sequence[str] = ()) -> None:
    """Check the config of an object and of all objects inside it.

    Args:
        config: plain data, in which a dict with a `_target_` describes an object.
        slot: slot of the object, see `SLOTS`.
        where: path to the checkpoint, used in messages.
        allow: packages besides htr_lightning whose classes are allowed.

    Raises:
        InputError: if the config describes no object, contains an interpolation, uses a class that does not belong in
            its slot, or contains a number that is out of range.
    """
    if not isinstance(config, dict) or "_target_" not in config:
        raise InputError(f"{where}: contains no {slot} config; use a checkpoint written by train.py")
    _check_node(config, slot, slot, SLOTS[slot].largest, where, allow)


def _check_node(node: Any, slot: str, key: str, largest: int, where: str, allow: Sequence[str]) -> None:
    """Check a value in a config; `slot` is empty if the value must not describe an object."""
    if isinstance(node, dict):
        inner: Mapping[str, str] = {"*": slot}  # a mapping of names to objects
        if "_target_" in node:
            check_target(node["_target_"], slot, where, allow)
            inner, largest = SLOTS[slot].inner, SLOTS[slot].largest
            if slot == "preprocess":
                _check_area(node, where)
        for name, value in node.items():
            if name in RESERVED or not isinstance(name, str) or "${" in name:
                raise InputError(f"{where}: invalid key {name!r} in {key}; use a checkpoint written by train.py")
            if name != "_target_":
                _check_node(value, inner.get(name, inner.get("*", "")), f"{key}.{name}", largest, where, allow)
    elif isinstance(node, list | tuple):
        for value in node:
            _check_node(value, "", key, largest, where, allow)
    elif isinstance(node, str) and "${" in node:
        raise InputError(
            f"{where}: uses '{node}' as {key}, which could run arbitrary code; use a checkpoint written by train.py"
        )
    elif isinstance(node, int | float) and key.rpartition(".")[2] not in UNBOUNDED and not -largest <= node <= largest:
        raise InputError(f"{where}: {key} is out of range (maximum {largest:,}); use a checkpoint written by train.py")
    elif not isinstance(node, str | int | float | None):
        raise InputError(f"{where}: {key} is not plain data; use a checkpoint written by train.py")


def check_target(target: Any, slot: str, where: str, allow: Sequence[str] = ()) -> None:
    """Reject a `_target_` unless it is a class that belongs in a slot and is defined in an allowed module.

    Checking the name is not enough, because `htr_lightning.net.vit.torch.load` starts with an allowed module too. The
    name must lead to a class that is defined in an allowed module and has the base class of the slot; functions are
    rejected because calling one can have side effects. Only allowed modules are imported.

    Raises:
        InputError: if the target is rejected.
    """
    refusal = InputError(
        f"{where}: uses '{target}'{f' as {slot}' if slot else ''}, which is not allowed because it could run arbitrary "
        "code; if you trust its package, pass allow=[PACKAGE]"
    )
    if slot not in SLOTS or not isinstance(target, str):
        raise refusal
    base, modules = SLOTS[slot].base, (*SLOTS[slot].modules, *allow)
    module, _, name = target.rpartition(".")
    if not _is_in(module, modules):
        raise refusal
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise refusal from None
    if not isinstance(found, type) or not _is_in(found.__module__, modules) or not _implements(found, base):
        raise refusal


def _is_in(module: str, packages: Sequence[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _implements(found: type, base: str) -> bool:
    """Return whether a class inherits from a base class, or has all members of a protocol."""
    module, _, name = base.rpartition(".")
    wanted: Any = getattr(import_module(module), name)
    if not getattr(wanted, "_is_protocol", False):
        return issubclass(found, wanted)
    members = {*vars(wanted), *wanted.__annotations__}
    members = {member for member in members if member == "__call__" or not member.startswith("_")}
    return wanted in found.__mro__ or all(hasattr(found, member) for member in members)


def _check_area(preprocess: dict[str, Any], where: str) -> None:
    """Raise InputError if preprocessed lines could be larger than `MAX_AREA`."""
    sides = (preprocess.get(key, 1) for key in ("height", "columns", "max_width", "margin"))
    height, *widths = (1 if side is None else side for side in sides)  # a default, which is small
    if not all(isinstance(side, int) for side in (height, *widths)) or height * max(widths) > MAX_AREA:
        raise InputError(
            f"{where}: preprocessed lines are too large (maximum {MAX_AREA:,} pixels); use a checkpoint written by "
            "train.py"
        )


def construct(config: Any) -> Any:
    """Build the object described by plain data, inner objects first; the data must have passed `check_config`.

    A dict with a `_target_` becomes a call to that class with the other keys as arguments, or a partial call if
    `_partial_` is true, as in `hydra.utils.instantiate` with `_convert_="all"`.
    """
    if isinstance(config, list | tuple):
        return [construct(value) for value in config]
    if not isinstance(config, dict):
        return config
    values = {key: construct(value) for key, value in config.items() if key not in ("_target_", "_partial_")}
    if "_target_" not in config:
        return values
    made = _find(config["_target_"])
    return partial(made, **values) if config.get("_partial_") else made(**values)


def _find(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)
