"""Options shared by several commands, and progress bars."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from htr_lightning.errors import InputError, printable
from htr_lightning.output import check_checkpoint
from htr_lightning.pretrained import NAMES, is_checkpoint

typer_app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _existing(path: str) -> str:
    check_checkpoint(path)  # before torch is imported
    return path


Checkpoint = Annotated[
    str,
    typer.Argument(
        callback=_existing,
        help="Path to a checkpoint, e.g. runs/DAY/TIME-NAME/checkpoints/best.ckpt, or a recognizer that ships with "
        f"the package ({', '.join(NAMES)})",
    ),
]
Overrides = Annotated[list[str] | None, typer.Argument(help="Hydra overrides, e.g. data=copiste data.root=FOLDER")]
Splits = Annotated[list[str] | None, typer.Option("--split", help="Use only this split (repeatable)")]
Format = Annotated[Literal["kraken", "pylaia", "parquet", "page"], typer.Option("--to", help="Output format")]
Greedy = Annotated[bool, typer.Option("--greedy", help="Decode without beam search, language model or lexicon")]
Device = Annotated[str, typer.Option(help="Device to run on: auto, cpu, cuda or cuda:N")]
Views = Annotated[int, typer.Option("--tta", min=1, help="Number of views of each line for test-time augmentation")]
Calibration = Annotated[
    str | None,
    typer.Option(
        help="Calibration as printed by htr calibrate: SLOPE,BIAS of lines, or of lines, words and characters"
    ),
]
Weights = Annotated[
    str | None, typer.Option(help="Weights of the checkpoints, as printed by htr calibrate, e.g. 0.5,1")
]


def split_checkpoints(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Separate the checkpoints at the beginning of the arguments from the remaining arguments."""
    checkpoints = list(takewhile(lambda name: is_checkpoint(name) and "=" not in name.split("/")[0], arguments))
    for path in checkpoints:
        check_checkpoint(path)
    return checkpoints, arguments[len(checkpoints) :]


def numbers(option: str, text: str | None) -> list[float] | None:
    """Parse the comma-separated numbers given for an option."""
    try:
        return None if text is None else [float(number) for number in text.split(",")]
    except ValueError:
        raise InputError(
            f"{option} {text}: expected numbers separated by commas, as printed by htr calibrate"
        ) from None


@contextmanager
def progress_bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar if stderr is a terminal; yield a function that advances it by a given number of lines."""
    with _progress(title, total) as progress:
        yield lambda count: progress.advance(progress.task_ids[0], count)


@contextmanager
def progress_text(title: str) -> Iterator[Callable[[str], None]]:
    """Show progress on work of unknown length if stderr is a terminal; yield a function that sets the message."""
    with _progress(title, None) as progress:
        yield lambda text: progress.update(progress.task_ids[0], description=escape(text))


def _progress(title: str, total: int | None) -> Progress:
    progress = Progress(
        disable=not sys.stderr.isatty(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # otherwise output redirected to a file would also go to stderr
        redirect_stderr=False,
    )
    progress.add_task(escape(printable(title)), total=total)  # a path may look like markup
    return progress
