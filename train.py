"""Train a recognizer: `python train.py model=crnn data=synthetic optimizer.lr=1e-3`; `--help` lists what there is."""

from htr_lightning import command
from htr_lightning.training.launch import train

if __name__ == "__main__":
    command.run(train)
