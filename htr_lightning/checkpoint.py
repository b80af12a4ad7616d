"""Building a recognizer from its config, and the one file from which it is built again."""

import os
import pickle
import platform
import subprocess
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from hydra.utils import instantiate
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from omegaconf import DictConfig, OmegaConf

from htr_lightning import __version__
from htr_lightning.data.datamodule import SPLITS, LineDataModule
from htr_lightning.decoder.language import Language
from htr_lightning.errors import InputError
from htr_lightning.metrics.calibration import check_platt_scaling
from htr_lightning.metrics.edits import DEFINITION
from htr_lightning.model.base import Recognizer
from htr_lightning.model.learner import Learner
from htr_lightning.text.codec import name

FORMAT = 1  # raised when a reader of the old format could misread the new one
PACKAGE = "htr_lightning"
TRAINING = ("optimizer", "scheduler", "layer_decay", "source")  # keys of a model's config that reading does not need


def fast_precision(accelerator: str) -> str:
    """Lightning's name of the precision that trains fastest: "bf16-mixed" where the device computes in bfloat16 itself,
    else "32-true". A processor that has to imitate bfloat16 takes nearly twice as long with it.

    Args:
        accelerator: of the trainer.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"


def scan_height(height: int) -> int:
    """Rows at which a reader keeps lines for a model of this height: twice as many, for augmentation to blur.

    Args:
        height: rows that the model sees.
    """
    return max(64, 2 * height)


OmegaConf.register_new_resolver("fast_precision", fast_precision, replace=True)  # ${fast_precision:ACCELERATOR}
OmegaConf.register_new_resolver("scan_height", scan_height, replace=True)  # ${scan_height:ROWS}


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed config as plain data, every interpolation resolved."""
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def build(config: DictConfig, known: Sequence[str] = ()) -> tuple[LineDataModule, Learner]:
    """The data and the recognizer of a composed config, or what is trained before one; training texts are checked
    against the alphabet.

    Args:
        config: of train.py.
        known: characters to read besides those of the data.

    Raises:
        InputError: the data cannot be read, or a training text not be learned.
    """
    settings = plain(config)
    data: LineDataModule = instantiate(settings["data"], _convert_="all")
    alphabet = list(dict.fromkeys([*known, *data.alphabet]))
    before = settings.get("resume") or settings.get("start")
    parts = read(before).get("parts", {}) if before and "source" in settings["model"] else {}
    try:
        made = instantiate(settings["model"], _convert_="all")
        # one that reads waits for its alphabet
        recognizer: Learner = made if isinstance(made, Learner) else made(alphabet=alphabet, **parts)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise InputError(f"model: {error}; `python train.py --cfg job` prints all keys") from None
    unknown: Counter[str] = Counter()
    for lines in data.sources:
        unknown += recognizer.check_targets(lines.reader.ids, lines.texts)
    recognizer.card = {
        "format": FORMAT,
        "alphabet": recognizer.alphabet,
        "model": {key: value for key, value in settings["model"].items() if key not in TRAINING},
        "training": {key: value for key, value in settings.items() if key != "model"}
        | {key: settings["model"][key] for key in TRAINING if key in settings["model"]},
        "data": {split: describe(data, split) for split in SPLITS}
        | ({} if data.replay is None else {"replay": describe(data.replay, "train")}),
        "metric": DEFINITION,
        "commit": git_commit(),
        "versions": versions(),
    }
    recognizer.card["data"]["train"]["skipped"] |= {f"character {name(c)}": count for c, count in unknown.items()}
    return data, recognizer


def describe(data: LineDataModule, split: str) -> dict[str, Any]:
    """What a split holds, and a hash of its sample ids and references: equal hashes mean the same lines."""
    lines = data.lines(split)
    digest = sha256("\n".join(f"{i}\t{t}" for i, t in sorted(zip(lines.reader.ids, lines.texts, strict=True))).encode())
    return {
        "lines": len(lines),
        "characters": sum(map(len, lines.texts)),
        "groups": len(set(lines.reader.groups)),
        "skipped": dict(Counter(skipped.kind for skipped in lines.reader.skipped)),
        "sha256": digest.hexdigest(),
        **getattr(lines.reader, "about", {}),  # what a reader did to the texts: figures with another are not comparable
    }


def read(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint: plain data and tensors, nothing is executed.

    Raises:
        InputError: the file is missing, no checkpoint, holds pickled objects, or is of a newer format.
    """
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):  # torch does not look at the checksums that it wrote
            with zipfile.ZipFile(path) as archive:
                if (part := archive.testzip()) is not None:
                    raise ValueError(f"the checksum of {part} does not fit")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: what cannot be read is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint; a run keeps its own in checkpoints/best.ckpt") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name the file in it, such as {path}/checkpoints/best.ckpt") from None
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: holds pickled objects or is no checkpoint; it is not opened, since unpickling runs code. "
            "Use a file that htr_lightning wrote"
        ) from None
    except Exception as error:  # of damaged bytes the unpickler raises anything: IndexError, struct.error, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a checkpoint, or damaged ({reason}); copy it again") from None
    card = content.get("htr") if isinstance(content, dict) else None
    if not isinstance(card, dict) or not isinstance(card.get("format"), int):
        raise InputError(f"{path}: not written by htr_lightning (no format number); train one with train.py")
    if card["format"] > FORMAT:
        raise InputError(
            f"{path}: format {card['format']}, but this htr_lightning {__version__} reads up to {FORMAT}; upgrade it"
        )
    if not isinstance(alphabet := card.get("alphabet"), list) or not all(isinstance(c, str) for c in alphabet):
        raise InputError(f"{path}: its alphabet is no list of characters; it is not loaded")
    return content


def load(path: str | Path, allow: Sequence[str] = ()) -> Recognizer:
    """The recognizer of a checkpoint, ready to read.

    Args:
        path: a checkpoint of a run.
        allow: packages besides htr_lightning whose classes the checkpoint may name.

    Raises:
        InputError: see `read`; or the checkpoint names a class outside the allow-list; or its weights do not fit.
    """
    content = read(path)
    card = content["htr"]
    for target in targets(card.get("model")):
        check_target(target, allow, str(path))
    try:
        model = {key: value for key, value in card["model"].items() if key not in TRAINING}
        made = instantiate(model, _convert_="all")
        if isinstance(made, Learner):  # it never waited for an alphabet
            raise InputError(f"{path}: was trained without texts and reads none; train a recognizer by start={path}")
        recognizer: Recognizer = made(alphabet=card["alphabet"], **content.get("parts", {}))
        recognizer.load_state_dict(content["state_dict"])
        if "language" in content:  # `htr tune-decoder` put it there
            recognizer.set_language(Language.from_plain(content["language"]))
        recognizer.calibration = check_platt_scaling(
            card.get("calibration", (1.0, 0.0))
        )  # `htr calibrate` put it there
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError, HydraException) as error:
        raise InputError(
            f"{path}: its parts do not fit together ({str(error).splitlines()[0]}); train it again"
        ) from None
    recognizer.card = card
    return recognizer.eval()


def targets(config: Any) -> Iterable[str]:
    """Every `_target_` in a nested config, and every string that OmegaConf would resolve, since that may make one."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield config["_target_"]
        for value in config.values():
            yield from targets(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from targets(value)
    elif isinstance(config, str) and "${" in config:
        yield config


def check_target(target: Any, allow: Sequence[str], where: str) -> None:
    """Refuse a `_target_` that is not a class defined in this package or an allowed one.

    The prefix alone would not do: `htr_lightning.checkpoint.os.system` begins with it too. So the name must lead to
    a class that says of itself that it was defined there; functions do things when they are called. Only modules of
    allowed packages are imported.

    Raises:
        InputError: it is refused.
    """
    refusal = InputError(f"{where}: names '{target}', which is no class of {PACKAGE}; it is not loaded: it could be "
                         "any code. If it is your own, pass allow=[...]")  # fmt: skip
    packages = (PACKAGE, *allow)
    module_name, _, class_name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    if module_name.split(".")[0] not in packages:
        raise refusal
    try:
        found = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError):
        raise refusal from None
    if not isinstance(found, type) or found.__module__.split(".")[0] not in packages:
        raise refusal


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old file and renames, so that the previous checkpoint survives a full disk or a kill."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Raises InputError where the folder cannot be written or the disk is full."""
        path = Path(path)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(beside, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
            if beside.exists():
                beside.unlink()
            reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
            kept = "; the previous one is kept" if path.exists() else ""
            raise InputError(
                f"{path}: checkpoint not written ({reason}){kept}. Free space or choose another run folder"
            ) from None


def git_commit() -> str | None:
    """The commit of the source tree, "-dirty" where it has changes; None for an installed package."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        run = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
        return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # no git on this machine, or no commit yet


def versions() -> dict[str, str]:
    """Versions of Python and the packages a result depends on."""
    packages = ("torch", "lightning", "torchmetrics", "hydra-core", "editdistance", "numpy", "opencv-python-headless",
                "transformers")  # fmt: skip
    found = {p: metadata.version(p) for p in packages if any(metadata.distributions(name=p))}
    return {"htr_lightning": __version__, "python": platform.python_version()} | found
