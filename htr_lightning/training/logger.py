"""The Weights & Biases logger, which works without an account."""

import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger


def wandb_logger(save_dir: str, **settings: Any) -> WandbLogger:
    """Lightning's `WandbLogger`: online if this machine is logged in, else offline, and it never prompts.

    Args:
        save_dir: the run folder; an offline run is stored in its `wandb/`, for `wandb sync`.
        settings: passed on to `WandbLogger`.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
    os.environ["WANDB_MODE"] = mode
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    logger = WandbLogger(save_dir=save_dir, offline=mode == "offline", **settings)
    logger._wandb_init.pop("anonymous", None)  # Lightning passes it, and wandb warns about it in every run
    return logger


def logged_in() -> bool:
    """Whether there is an API key in the environment or in the netrc file written by `wandb login`."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return "wandb" in netrc.read_text()
    except OSError:
        return False  # no netrc file: not logged in
