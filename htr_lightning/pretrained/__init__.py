"""Recognizers that ship with the package.

For each, there is a compressed checkpoint, the same recognizer exported with `htr export --to int8-exact`, and a model
card.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.ckpt")))
LANGUAGES = {"latin-modern": ("fr", "en")}  # that their model cards give figures for
DEFAULT = "latin-modern"  # what `htr transcribe` reads with unless it is given a checkpoint


def locate(recognizer: str | Path, suffix: str = ".ckpt") -> Path:
    """Return the path of a file, which may be given by the name of a recognizer that ships with the package.

    Args:
        recognizer: path or name.
        suffix: which of the files of a recognizer is meant; ".ckpt", or ".onnx" for the exported one.
    """
    path = Path(recognizer)
    return FOLDER / f"{path}{suffix}" if str(path) in NAMES and not path.exists() else path


def is_checkpoint(argument: str) -> bool:
    """Return whether a command-line argument names a recognizer rather than a file to transcribe."""
    return argument in NAMES or argument.endswith(".ckpt") or is_exported(argument)


def is_exported(argument: str) -> bool:
    """Return whether an argument names a file written by `htr export`."""
    return argument.endswith(".onnx")
