"""Run a program, and print a one-line message for each error that the user can fix."""

import errno
import os
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from io import TextIOWrapper
from traceback import walk_tb
from typing import Any, NoReturn

from htr_lightning.errors import InputError, chain, printable

NO_MEMORY = ("can't allocate memory", "Insufficient memory", "out of memory")  # as reported by PyTorch and OpenCV
TRAIN = (
    "datasets",
    "hydra",
    "HersheyFonts",
    "jinja2",
    "lightning",
    "lmdb",
    "matplotlib",
    "omegaconf",
    "onnx",
    "onnxscript",
    "pooch",
    "torch",
    "torchmetrics",
    "torchvision",
    "wandb",
)  # modules that come with htr-lightning[train]
SERVE = ("fastapi", "h11", "pydantic", "python_multipart", "starlette", "uvicorn")  # with htr-lightning[serve]


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
    except KeyboardInterrupt:  # where nothing has begun that must be finished
        sys.exit(130)


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
        "Checkpoint directory .* exists and is not empty.*",  # that of the resumed run
        "You're resuming from a checkpoint that ended before the epoch ended.*",  # our loader goes on where it stopped
        "The dirpath has changed.*",  # `RestoreBest` copies the checkpoint that Lightning does not
        ".*is smaller than the logging interval.*",
        ".*does not have many workers.*",  # measured: one worker is enough for two cores
        ".*Trying to infer the `batch_size`.*",
        r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema",  # from Hydra 1.3
    ):
        warnings.filterwarnings("ignore", message=message)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # images are either read or rejected with a message of our own


def fail(message: str) -> NoReturn:
    """Print an error message to stderr and exit with code 1."""
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(1)


def one_line(error: BaseException) -> str | None:
    """Return the message of an error that the user can fix, or None for any other error."""
    for link in chain(error):
        if isinstance(link, InputError):
            return str(link)
        in_wandb = isinstance(link, ValueError) and any(module.startswith("wandb.") for module in _modules(link))
        if in_wandb or type(link).__module__.startswith(("wandb.", "pydantic")):  # htr serve answers its errors itself
            return _wandb_error(link)
    if any(base.__module__.startswith(("hydra.", "omegaconf.")) for base in type(error).__mro__):
        from htr_lightning.config_error import config_error  # Hydra is not needed for reading

        return config_error(error)
    if isinstance(error, ValueError | KeyError | TypeError) and _origin(error).startswith(("hydra.", "omegaconf.")):
        reason = "not found: " * isinstance(error, KeyError) + " ".join(str(error).split())
        return f"{reason}; check the arguments"
    if isinstance(error, ModuleNotFoundError) and error.name in TRAIN:
        return f"needs {error.name}, which is not installed; install htr-lightning[train]"
    if isinstance(error, ModuleNotFoundError) and error.name in SERVE:
        return f"needs {error.name}, which is not installed; install htr-lightning[serve]"
    if isinstance(error, MemoryError) or any(reason in str(error) for reason in NO_MEMORY):
        return "out of memory; reduce data.max_columns, data.max_lines or the sizes in model"
    if isinstance(error, FileNotFoundError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}; check the path"
    if isinstance(error, PermissionError | FileExistsError | NotADirectoryError) or (
        isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO)
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
