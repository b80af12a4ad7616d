"""Write the report on one or several runs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.errors import InputError, printable
from htr_lightning.evidence.page import Row, page, rows, selections
from htr_lightning.evidence.report import score, total
from htr_lightning.evidence.results import MEASURED, Appearance, appearances, open_results, picture
from htr_lightning.evidence.sections import Reading
from htr_lightning.output import replacing

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Published(NamedTuple):
    """A line of figures for each run, and what is missing from the report."""

    figures: list[str]
    notes: list[str]


def publish(
    folders: Sequence[str | Path],
    out: Path,
    assets: Path | None = None,
    split: str = "test",
    overrides: Sequence[str] = (),
    device: str = "auto",
    show: Callable[[str], None] = lambda text: None,
) -> Published:
    """Write the report on runs as a page, evaluating those that have not been evaluated.

    Args:
        folders: run folders, or folders written by `htr evaluate`.
        out: HTML file to write.
        assets: folder for charts and tables as files; None for none.
        split: train, val or test.
        overrides: data overrides as for `htr evaluate`.
        device: device to evaluate on.
        show: called with a text that says what is being done.

    Raises:
        InputError: if a run cannot be read or evaluated, or a file cannot be written.
    """
    distinct = list({Path(folder).resolve(): Path(folder) for folder in folders}.values())
    if len(distinct) > len(LETTERS):
        raise InputError(f"{len(distinct)} runs: a report shows at most {len(LETTERS)}; leave some out")
    readings = read(distinct, split, overrides, device, show)
    show("drawing lines")
    lines = rows(readings)
    content = page(readings, _images(readings, lines), lines)
    with replacing(out) as beside:
        beside.write_text(content, encoding="utf-8")
    if assets is not None:
        from htr_lightning.evidence.assets import write_assets  # matplotlib takes a while to import

        show("writing charts and tables")
        write_assets(assets, readings)
    figures, notes = [], []
    for reading in readings:
        totals = total(reading.lines)
        figures.append(
            f"{reading.letter}  CER {totals.cer:.2%}  WER {totals.wer:.2%}  {totals.edits} edits / {totals.characters} "
            f"characters in {totals.lines} lines  {printable(reading.name)}"
        )
        if reading.results.note:
            notes.append(f"{reading.results.folder}: no pictures of lines, since {reading.results.note}")
    return Published(figures, notes)


def read(
    folders: Sequence[Path],
    split: str = "test",
    overrides: Sequence[str] = (),
    device: str = "auto",
    show: Callable[[str], None] = lambda text: None,
) -> list[Reading]:
    """Collect the results of runs and measure their lines, once for runs that read the same lines."""
    readings: list[Reading] = []
    measured: dict[str, dict[str, Appearance]] = {}
    for letter, name, folder in zip(LETTERS, names(folders), folders, strict=False):
        show(f"reading {name}")
        results = open_results(folder, split, overrides, device, counter(show, f"evaluating {name}"))
        digest = str(results.about.get("data", {}).get("sha256"))
        if results.reader is not None and digest not in measured:
            advance = counter(show, f"measuring lines of {name}")(min(MEASURED, len(results.reader)))
            measured[digest] = appearances(results.reader, advance)
        looks = measured[digest] if results.reader is not None else {}
        readings.append(Reading(letter, name, results, score(results.predictions), looks))
    return readings


def names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts), default=1) + 1):
        found = ["/".join(one[-length:]) for one in parts]
        if len(set(found)) == len(found):
            break
    return found


def counter(show: Callable[[str], None], text: str) -> Callable[[int], Callable[[int], None]]:
    """Return a function that shows a text with the number of lines done, given the number of all lines."""

    def start(lines: int) -> Callable[[int], None]:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            show(f"{text}: {done:,} of {lines:,} lines")

        return advance

    return start


def _images(readings: Sequence[Reading], lines: Sequence[Row]) -> dict[int, UInt8[ndarray, "_ _"]]:
    """Return the images of the lines to look at, by position, without those that cannot be read."""
    wanted = {position for chosen in selections(lines, len(readings)).values() for position in chosen}
    positions = [{id: number for number, id in enumerate(r.results.reader.ids)} if r.results.reader is not None else {}
                 for r in readings]  # fmt: skip
    found = {}
    for position in sorted(wanted):
        row = lines[position]
        for reading, where, scored in zip(readings, positions, row.scored, strict=True):
            if scored is not None and row.id in where:
                image = picture(reading.results, where[row.id])
                if image is not None:
                    found[position] = image
                    break
    return found
