"""`python -m htr_lightning` is `htr`."""

from htr_lightning.cli import app

if __name__ == "__main__":
    app()
