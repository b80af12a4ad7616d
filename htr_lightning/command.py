"""Run a program, and print a one-line message for each error that the user can fix."""

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from difflib import get_close_matches
from io import TextIOWrapper
from traceback import walk_tb
from typing import Any, NoReturn

from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from htr_lightning.config import groups
from htr_lightning.errors import InputError, printable

NO_MEMORY = ("can't allocate memory", "Insufficient memory", "out of memory")  # as reported by PyTorch and OpenCV


def run(main: Callable[[], Any]) -> None:
    """Call `main`, printing a one-line message for errors that the user can fix; other errors keep their traceback."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # otherwise, Hydra prints errors itself and exits
    quiet()
    _accept_any_text()
    try:
        with redirect_stderr(_WithoutHydra(sys.stderr)):
            main()
    except Exception as error:
        message = one_line(error)
        if message is None:
            raise
        fail(message)


def _accept_any_text() -> None:
    """Let stdout and stderr accept any character: files and pipes receive UTF-8, whatever the locale is.

    On Windows and in some locales, they could otherwise receive the characters of one script only. A terminal receives
    escapes for the characters that it cannot show.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            chosen = stream.isatty() or "PYTHONIOENCODING" in os.environ
            stream.reconfigure(encoding=stream.encoding if chosen else "utf-8", errors="backslashreplace")


class _WithoutHydra:
    """A stream that drops the line Hydra prints for each failed job."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if text.startswith("Error executing job with overrides: ") else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def quiet() -> None:
    """Silence library messages that the user can do nothing about."""
    for message in (
        ".*isinstance.treespec, LeafSpec.*",  # from Lightning with a newer torch
        ".*Experiment logs directory .* exists and is not empty.*",  # the run folder contains more than the CSV log
        "The dirpath has changed.*",  # `RestoreBest` copies the checkpoint that Lightning does not
        ".*is smaller than the logging interval.*",
        ".*does not have many workers.*",  # measured: one worker is enough for two cores
        ".*Trying to infer the `batch_size`.*",
    ):
        warnings.filterwarnings("ignore", message=message)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # images are either read or rejected with a message of our own


def fail(message: str) -> NoReturn:
    """Print an error message to stderr and exit with code 1."""
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(1)


def one_line(error: BaseException) -> str | None:
    """Return the message of an error that the user can fix, or None for any other error."""
    for link in _chain(error):
        if isinstance(link, InputError):
            return str(link)
        in_wandb = isinstance(link, ValueError) and any(module.startswith("wandb.") for module in _modules(link))
        if in_wandb or type(link).__module__.startswith(("wandb.", "pydantic")):  # pydantic is used only by wandb
            return _wandb_error(link)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _config_error(error)
    if isinstance(error, ValueError | KeyError | TypeError) and _origin(error).startswith(("hydra.", "omegaconf.")):
        reason = "not found: " * isinstance(error, KeyError) + " ".join(str(error).split())
        return f"{reason}; check the arguments"
    if isinstance(error, MemoryError) or any(reason in str(error) for reason in NO_MEMORY):
        return "out of memory; reduce data.max_columns, data.max_lines or the sizes in model"
    if isinstance(error, FileNotFoundError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}; check the path"
    if isinstance(error, PermissionError | FileExistsError | NotADirectoryError) or (
        isinstance(error, OSError) and error.strerror == os.strerror(28)
    ):
        return f"{error.filename or 'output'}: {error.strerror}; free up space or choose another folder"
    return None


def _wandb_error(error: BaseException) -> str:
    """Return a one-line message for an error of Weights & Biases, or for an error of pydantic in its settings."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if found := re.search(r"for Settings (\w+) (.+?) \[type=\w+, input_value=(.*?), input_type=", text):
        text = f"{found[1]}={found[3]}: {found[2]}"
    is_setting = isinstance(error, ValueError) or (type(error).__name__ == "UsageError" and "API key" not in text)
    remedy = "change the override of logger.wandb or the variable WANDB_..." if is_setting else (
        "log in with wandb login, or set WANDB_MODE=offline")  # fmt: skip
    return f"Weights & Biases: {text}; {remedy}"


def _origin(error: BaseException) -> str:
    """Return the name of the module that raised an error, itself or by calling the standard library."""
    names = reversed(_modules(error))
    return next((name for name in names if name.partition(".")[0] not in sys.stdlib_module_names), "")


def _modules(error: BaseException) -> list[str]:
    """Return the modules of the functions that an error passed, with the one that raised it last."""
    return [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and the errors that led to it."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _meant(error: BaseException) -> str:
    """Return a suggestion for a mistyped key or group, with a leading space, or an empty string."""
    found: list[str] = []
    for link in _chain(error):
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


def _config_error(error: BaseException) -> str:
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
