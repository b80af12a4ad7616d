"""Tables of a report, as text for a page, as Markdown, as LaTeX and as tab-separated values."""

from collections.abc import Sequence
from typing import NamedTuple

from htr_lightning.html import visible

Cell = str | int | float | None
LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
})  # fmt: skip
MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>#|~$&!"})


class Column(NamedTuple):
    """A column of a table: its heading, its kind (text, count, percent or number) and an explanation of it."""

    title: str
    kind: str = "text"
    about: str = ""


class Table(NamedTuple):
    """A table with a name for its files; a cell of None is empty."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    @property
    def texts(self) -> list[list[str]]:
        return [[shown(cell, column) for cell, column in zip(row, self.columns, strict=True)] for row in self.rows]


def shown(value: Cell, column: Column) -> str:
    """Return a cell as text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if column.kind == "percent":
        return f"{100 * value:.2f} %"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"


def markdown(table: Table) -> str:
    """Format a table as Markdown (GitHub's tables)."""
    head = [column.title for column in table.columns]
    align = [":--" if column.kind == "text" else "--:" for column in table.columns]
    rows = [[visible(cell).translate(MARKDOWN) for cell in row] for row in (head, *table.texts)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], align, *rows[1:])) + "\n"


def latex(table: Table) -> str:
    """Format a table as LaTeX, for the packages booktabs and, where texts need it, fontspec."""
    head = [column.title for column in table.columns]
    align = "".join("l" if column.kind == "text" else "r" for column in table.columns)
    rows = [" & ".join(visible(cell).translate(LATEX) for cell in row) + r" \\" for row in (head, *table.texts)]
    body = "\n".join([rows[0], r"\midrule", *rows[1:]])
    return f"\\begin{{tabular}}{{{align}}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"


def tsv(table: Table) -> str:
    """Format a table as tab-separated values, with rates as fractions."""
    rows = [[column.title for column in table.columns], *table.rows]
    return "".join("\t".join("" if cell is None else visible(str(cell)) for cell in row) + "\n" for row in rows)


FORMATS = {"md": markdown, "tex": latex, "tsv": tsv}  # by the suffix of their files
