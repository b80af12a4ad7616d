"""`python -m htr_lightning` is `htr`."""

from htr_lightning.cli import app

app()
