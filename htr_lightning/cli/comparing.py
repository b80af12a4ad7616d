"""The `compare` command."""

import json
import sys
from string import ascii_uppercase
from typing import TYPE_CHECKING, Annotated

import typer

from htr_lightning.cli.arguments import typer_app
from htr_lightning.errors import InputError, printable

if TYPE_CHECKING:
    from htr_lightning.evidence.compare import Comparison, Pair
    from htr_lightning.metrics.significance import Difference

MOST = 3  # groups that are named on either side


@typer_app.command()
def compare(
    systems: Annotated[
        list[str],
        typer.Argument(help="Run folders, folders or predictions.jsonl files of htr evaluate, or folders of runs"),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, with all groups")] = False,
) -> None:
    """Compare two or more systems on the same lines: error rates, differences from the first, and where each wins.

    Runs that differ only in their seeds are one system.
    """
    from htr_lightning.evidence.compare import compare as verb
    from htr_lightning.evidence.compare import find_systems

    found, notes = find_systems(systems)
    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    if len(found) > len(ascii_uppercase):
        raise InputError(f"{systems[0]} ...: {len(found)} systems; compare at most {len(ascii_uppercase)}")
    comparison = verb(found)
    if as_json:
        print(json.dumps(comparison.to_plain(), indent=1))
        return
    for line in _lines(comparison):
        print(printable(line))


def _lines(found: "Comparison") -> list[str]:
    """Format a comparison, one line of text per element."""
    several = max(score.runs for score in found.scores) > 1
    rows = [["", "CER", "95% interval", *(["sd"] if several else []), "WER", "95% interval",
             *(["sd", "runs"] if several else []), "system"]]  # fmt: skip
    for letter, score in zip(ascii_uppercase, found.scores, strict=False):
        cer, wer = (str(interval) if interval else "-" for interval in score.intervals)
        sds = ["-" if sd is None else f"{sd:.2%}" for sd in (score.cer_sd, score.wer_sd)]
        rows.append([letter, f"{score.cer:.2%}", cer, *([sds[0]] if several else []), f"{score.wer:.2%}", wer,
                     *([sds[1], str(score.runs)] if several else []), score.name])  # fmt: skip
    over = found.scores[0].intervals.over
    lines = [
        *_table(rows),
        f"{found.lines} lines, {found.characters} characters; intervals {over or 'need more lines'}",
    ]
    for letter, pair in zip(ascii_uppercase[1:], found.pairs, strict=False):
        lines += ["", *_pair(letter, pair, len(found.pairs) > 1, found.lines)]
    return lines


def _pair(letter: str, pair: "Pair", corrected: bool, count: int) -> list[str]:
    """Format the difference of the system with a letter from the first."""
    better, worse = ([part for part in pair.groups if sign * (part.second - part.first) > 0] for sign in (-1, 1))
    name = "p (Holm)" if corrected else "p"
    lines = [
        f"{letter} - A   {rate} {_points(one)} points, {name} {p:.4f}"
        for rate, one, p in (("CER", pair.cer, pair.cer_p), ("WER", pair.wer, pair.wer_p))
    ]
    if pair.changes is not None:
        texts, gained, lost = pair.changes
        lines.append(f"  lines with another text: {texts} of {count}; fewer edits in {letter}: {gained}, in A: {lost}")
    equal = len(pair.groups) - len(better) - len(worse)
    lines.append(f"  groups with fewer errors in {letter}: {len(better)}, in A: {len(worse)}, equal: {equal}")
    for side, parts in ((letter, better), ("A", worse[::-1])):
        if parts and len(pair.groups) > 1:
            named = ", ".join(f"{one.name} ({one.first:.1%} -> {one.second:.1%})" for one in parts[:MOST])
            lines.append(f"    most in {side}: {named}")
    rows = [["  lines", "", "A", letter, f"{letter} - A, points", "p"]]
    for part in pair.kinds:
        assert part.difference is not None
        rows.append([f"  {part.name}", str(part.lines), f"{part.first:.2%}", f"{part.second:.2%}",
                     _points(part.difference), f"{part.difference.p:.4f}"])  # fmt: skip
    return [*lines, *_table(rows)]


def _points(one: "Difference") -> str:
    value = f"{100 * one.value:+.2f}"
    return value if one.low is None or one.high is None else f"{value} [{100 * one.low:+.2f}, {100 * one.high:+.2f}]"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
