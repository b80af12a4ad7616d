"""Train a recognizer, e.g. `python train.py model=crnn data=synthetic optimizer.lr=1e-3`; see `--help`."""

from htr_lightning import command
from htr_lightning.training.launch import train

if __name__ == "__main__":
    command.run(train)
