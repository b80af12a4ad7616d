# ruff: noqa: I001 - the imports determine the order of commands in the help
"""The `htr` command."""

from typing import Annotated

import typer

from htr_lightning import command
from htr_lightning.version import __version__, versions
from htr_lightning.cli import reading, evaluating, serving, learning, feedback, exporting, data  # noqa: F401 - each module adds its commands
from htr_lightning.cli.arguments import typer_app


@typer_app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="With --version, also print the dependencies and the platform")
    ] = False,
) -> None:
    """Train and use models for handwritten text recognition."""
    if version and verbose:
        import platform

        for name, number in versions().items():
            print(f"{name} {number}")
        print(platform.platform())
    elif version:
        print(__version__)


def app() -> None:
    """Run the `htr` command."""
    command.run(typer_app)
