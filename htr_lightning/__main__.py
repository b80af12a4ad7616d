"""Run `htr` with `python -m htr_lightning`."""

from htr_lightning.cli import app

if __name__ == "__main__":
    app()
