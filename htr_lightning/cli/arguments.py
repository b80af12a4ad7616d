"""What the commands have in common: their arguments, a progress bar, checks before the work begins."""

import sys
from itertools import takewhile
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from htr_lightning.errors import InputError

typer_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Checkpoint = Annotated[str, typer.Argument(help="Checkpoint of a run: runs/DAY/TIME-NAME/checkpoints/best.ckpt")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Hydra overrides: data=copiste data.root=...")]
Splits = Annotated[list[str] | None, typer.Option("--split", help="Only this split; more than once for several")]
OnlyGreedy = Annotated[bool, typer.Option("--greedy", help="Leave out beam, language model and lexicon")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
Views = Annotated[
    int,
    typer.Option("--tta", min=1, help="Test-time augmentation: combine so many slightly changed views of every line"),
]
Calibration = Annotated[str | None, typer.Option(help="SLOPE,BIAS of the confidences, as htr calibrate prints them")]
Weights = Annotated[str | None, typer.Option(help="Weights of the checkpoints, as htr calibrate prints them: 0.5,1")]


def split_checkpoints(first: str, arguments: list[str]) -> tuple[list[str], list[str]]:
    """The checkpoints at the front of the arguments, and what stands behind them."""
    others = takewhile(lambda name: name.endswith(".ckpt") and "=" not in name.split("/")[0], arguments)
    checkpoints = [first, *others]
    return checkpoints, arguments[len(checkpoints) - 1 :]


def check_whole(overrides: list[str], split: str) -> None:
    """Raises InputError where a part of the training lines is asked for and another split is read."""
    for override in overrides:
        if split != "train" and override.lstrip("+").startswith("data.subset="):
            raise InputError(f"{override}: is of the training lines, and {split} is read whole; leave it away")


def progress_bar(title: str, total: int | None) -> Progress:
    """Progress on stderr, where that is a terminal."""
    # Redirecting would send what is printed to stderr too, also when stdout is a file.
    progress = Progress(
        disable=not sys.stderr.isatty(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=False,
    )
    progress.add_task(title, total=total)
    return progress
