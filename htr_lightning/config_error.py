"""One-line messages for errors of Hydra and OmegaConf in a config."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from hydra.errors import InstantiationException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from htr_lightning.config import groups
from htr_lightning.errors import chain


def config_error(error: BaseException) -> str:
    """Return the message of an error that Hydra or OmegaConf raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[0]
    key = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), "")
    cause = " ".join(str(error.__cause__ or "").split())
    if isinstance(error, OverrideParseException):
        return f"'{error.override}' is not an override; write KEY=VALUE, e.g. data.root=FOLDER"
    if isinstance(error, InstantiationException):
        target = re.search(r"'(?:\w+\.)*(\w+)'", message)
        return f"{target[1] if target else key}: {(cause or message).rstrip('.')}; check its settings"
    if "Error merging override" in message:
        reason = str(error.__cause__ or "").partition("\n")[0]
        return f"{message.removeprefix('Error merging override ')}: {reason}; change or remove this override"
    if "Available options" in str(error):
        start = next(i for i, line in enumerate(lines) if line.startswith("Available options"))
        ends = (i for i, line in enumerate(lines) if line.startswith(("Config search path", "Search path")))
        options = lines[start + 1 : next(ends, len(lines))]
        group = re.search(r"Available options in '([^']+)'", lines[start])
        typed = re.search(rf"Could not find '{re.escape(group[1])}/([^']*)'", str(error)) if group else None
        close = get_close_matches(typed[1], options, 1, 0.6) if typed else []
        if group and typed and close:
            return f"{group[1]}={typed[1]}: no such option. Did you mean {group[1]}={close[0]}? Other options: " + (
                ", ".join(one for one in options if one != close[0])
            )
        if group and typed:
            return f"{group[1]}={typed[1]}: no such option. Options: {', '.join(options)}"
        return f"{message}; {lines[start]} {', '.join(options)}"
    if key not in message:
        message = f"{key}: {message}"
    if isinstance(error, InterpolationResolutionError):
        return f"{message}; remove the override that deletes or changes it"
    if "Could not override" in message or "not in struct" in str(error):
        hint = "Print all keys with `python train.py --cfg job`, or add a key with +KEY=VALUE"
        return f"{message.rstrip('.')}: no such key.{_meant(error)} {hint}"
    if "Could not delete" in message:
        return f"{message.rstrip('.')}, or is null; remove this override"
    if "Missing mandatory value" in str(error):
        return f"{message}; set it, e.g. data.root=FOLDER"
    return message


def _meant(error: BaseException) -> str:
    """Return a suggestion for a mistyped key or group, with a leading space, or an empty string."""
    found: list[str] = []
    for link in chain(error):
        node, key = getattr(link, "parent_node", None), str(getattr(link, "key", ""))
        if node is not None and isinstance(node, DictConfig):
            path = node._get_full_key("")
            beside = get_close_matches(key, map(str, node), 1, 0.7)
            found = [f"{path}.{name}" if path else name for name in beside]
            root = OmegaConf.to_container(node._get_root(), resolve=False)
            found += [path for path in _paths(root) if path.rpartition(".")[2] == key]
    if not found and (typed := re.search(r"Could not override '([^']+)'", str(error))):
        known, name = ["experiment", "hydra", *groups()], re.split("[@.]", typed[1])[0]
        found = [] if name in known else get_close_matches(name, known, 1, 0.6)
    return f" Did you mean {' or '.join(dict.fromkeys(found[:3]))}?" if found else ""


def _paths(config: Any, prefix: str = "") -> Iterator[str]:
    for key, value in config.items() if isinstance(config, dict) else ():
        yield f"{prefix}{key}"
        yield from _paths(value, f"{prefix}{key}.")
