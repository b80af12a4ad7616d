"""Find the folder of a run that is to be resumed, and let only one process at a time use a run folder.

Does not import torch, since Hydra chooses the folder before a job starts.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TextIO
from zipfile import BadZipFile, ZipFile

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, read_write

from htr_lightning.config import external_rank, new_folder
from htr_lightning.errors import InputError
from htr_lightning.hydra_version import register_resolver
from htr_lightning.yaml_file import load_yaml

try:
    import fcntl
except ImportError:  # Windows: run folders are not locked
    fcntl = None  # type: ignore[assignment]

AUTO = "auto"
LOCK = ".lock"
RUNS = Path("runs")
LAST = Path("checkpoints") / "last.ckpt"


@cache
def run_folder(resume: Any, name: Any, path: str) -> str:
    """Return the folder of a run: that of the run that it resumes, or else a new one.

    Args:
        resume: see `checkpoint_to_resume`; "auto" for the most recent run of this name in `runs/`.
        name: name of the run.
        path: path of the new folder.
    """
    if resume == AUTO:
        found = newest(name)
        return new_folder(path) if found is None else str(found)
    given = None if resume is None else Path(str(resume))
    if given is not None and given.is_dir():
        return str(given)
    if given is not None and given.is_file() and given.parent.name == LAST.parent.name:
        return str(given.parent.parent)
    return new_folder(path)


register_resolver("run_folder", run_folder, replace=True)


def newest(name: Any) -> Path | None:
    """Return the folder of the most recently saved run with a given name that has a complete `last.ckpt`, or None."""
    found = [path for path in RUNS.glob(f"*/*/{LAST}") if _name(path.parent.parent) == name]
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        if is_complete(path):
            return path.parent.parent
    return None


def _name(folder: Path) -> str | None:
    try:
        return load_yaml(folder / ".hydra" / "config.yaml").get("name")
    except (OSError, InputError, AttributeError):
        return None  # not the folder of a run


def is_complete(path: Path) -> bool:
    """Return whether all parts of a checkpoint, which is a zip archive, can be read and have the right checksums."""
    try:
        with ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, BadZipFile):
        return False


def checkpoint_to_resume(resume: str | None, folder: Path) -> Path | None:
    """Return the checkpoint of the run to resume, or None for a new run.

    Args:
        resume: path to a checkpoint or to a run folder; "auto" for the last checkpoint in `folder`, if there is one.
        folder: run folder.

    Raises:
        InputError: if the given run folder has no checkpoint.
    """
    if resume is None or resume == AUTO:
        path = folder / LAST
        return path if resume and path.is_file() else None
    if not Path(resume).is_dir():
        return Path(resume)
    if not (Path(resume) / LAST).is_file():
        raise InputError(f"resume={resume}: this folder has no {LAST}, so its run cannot be resumed; choose another "
                         "folder, or begin a new run")  # fmt: skip
    return Path(resume) / LAST


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run folder within the context; the lock also ends with the process, even if that is killed.

    Raises:
        InputError: if another process has locked the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    file = _lock(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is still locked
        file.close()


class UsedFolder(Callback):
    """A Hydra callback that lets Hydra write nothing to the folder of another run, which is then refused or shared.

    It is refused if another process uses the folder, or if `find` and `resume` are combined.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if external_rank():
            return  # writes nothing, and a lock held for a moment would stop the first process
        HydraConfig.instance().set_config(config)  # as Hydra does next: the folder contains ${hydra:…}
        folder = Path(config.hydra.run.dir)
        shared = config.get("find") is not None and config.get("resume") is not None
        if shared or _is_locked(folder):
            with read_write(config.hydra):
                config.hydra.output_subdir = None


def _is_locked(folder: Path) -> bool:
    """Return whether another process uses a folder, and remove the lock that a killed process has left."""
    if not (folder / LOCK).exists():
        return False
    try:
        with locked(folder):
            return False
    except InputError:
        return True


def _lock(path: Path) -> TextIO:
    """Create a file if it does not exist, and lock it; on a file system without locks, only create it."""
    while True:
        file = path.open("a")
        if fcntl is None:
            return file
        try:
            # loading processes, which may outlive a killed run by seconds, do not inherit this kind of lock
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return file
            file.close()
            raise InputError(f"{path.parent}: another process is using this run folder; wait until it ends, or choose "
                             "another folder with hydra.run.dir=FOLDER") from None  # fmt: skip
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        file.close()  # the process that had locked this file has just deleted it
