"""Options that several commands share, and a progress bar."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import Progress

from htr_lightning.errors import InputError

typer_app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Checkpoint = Annotated[str, typer.Argument(help="Checkpoint of a run: runs/DAY/TIME-NAME/checkpoints/best.ckpt")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Hydra overrides: data=copiste data.root=...")]
Splits = Annotated[list[str] | None, typer.Option("--split", help="Only this split (repeatable)")]
Format = Annotated[Literal["kraken", "pylaia", "parquet", "page"], typer.Option("--to", help="Format to write")]
Greedy = Annotated[bool, typer.Option("--greedy", help="Decode without beam search, language model or lexicon")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
Views = Annotated[int, typer.Option("--tta", min=1, help="Test-time augmentation: number of views of each line")]
Calibration = Annotated[
    str | None, typer.Option(help="SLOPE,BIAS of the confidences, as printed by htr calibrate: 1.2,0.9")
]
Weights = Annotated[str | None, typer.Option(help="Weights of the checkpoints, as printed by htr calibrate: 0.5,1")]


def split_checkpoints(first: str, arguments: list[str]) -> tuple[list[str], list[str]]:
    """The checkpoints at the beginning of the arguments, and the other arguments."""
    others = takewhile(lambda name: name.endswith(".ckpt") and "=" not in name.split("/")[0], arguments)
    checkpoints = [first, *others]
    return checkpoints, arguments[len(checkpoints) - 1 :]


def numbers(option: str, text: str | None) -> list[float] | None:
    """The comma-separated numbers of an option."""
    try:
        return None if text is None else [float(number) for number in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: give numbers separated by commas, as printed by htr calibrate") from None


@contextmanager
def progress_bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr if that is a terminal; yields a function that advances it by a number of lines."""
    with _progress(title, total) as progress:
        yield lambda count: progress.advance(progress.task_ids[0], count)


@contextmanager
def progress_text(title: str) -> Iterator[Callable[[str], None]]:
    """Like `progress_bar`, for work of unknown length; yields a function that changes the text."""
    with _progress(title, None) as progress:
        yield lambda text: progress.update(progress.task_ids[0], description=text)


def _progress(title: str, total: int | None) -> Progress:
    progress = Progress(
        disable=not sys.stderr.isatty(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # or output to a file would go to stderr as well
        redirect_stderr=False,
    )
    progress.add_task(title, total=total)
    return progress
