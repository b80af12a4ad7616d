"""Check the folder that `data.root` names."""

from pathlib import Path

from htr_lightning.errors import InputError


def data_folder(root: str | Path | None, contents: str, otherwise: str = "") -> Path:
    """Return `data.root` as the path to an existing folder.

    Args:
        root: value of `data.root`; None if it is not set.
        contents: what the folder should contain, for the error message.
        otherwise: another way to obtain the data, for the error message.

    Raises:
        InputError: if `root` is not set, or is not a folder.
    """
    alternative = f", or {otherwise}" if otherwise else ""
    if root is None:
        raise InputError(
            f"data.root is not set; set it to the folder containing {contents} (data.root=FOLDER){alternative}"
        )
    path = Path(root)
    if not path.is_dir():
        problem = "not a folder" if path.exists() else "no such folder"
        raise InputError(f"{root}: {problem}; set data.root to the folder containing {contents}{alternative}")
    return path
