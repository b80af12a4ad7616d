"""Train a recognizer: `python train.py model=crnn data=synthetic optimizer.lr=1e-3`; `--cfg job` prints every key."""

import os
from pathlib import Path

import cv2
import hydra
import torch
from hydra.utils import instantiate
from lightning import Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from htr_lightning import checkpoint, command
from htr_lightning.errors import InputError
from htr_lightning.transfer import transfer


@hydra.main(version_base="1.3", config_path=str(Path(__file__).resolve().parent / "conf"), config_name="train")
def main(config: DictConfig) -> float:
    """Fit, test the best checkpoint, and return its validation CER for a sweep to compare."""
    os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))  # for further ranks; Lightning respects it too
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")  # every width has its own kernels; 1024 is few
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(config.threads)
    seed_everything(config.seed, workers=True, verbose=False)
    if config.resume is not None and config.start is not None:
        raise InputError("start= and resume= together: a resumed run has its own weights; give one of them")
    for path in filter(None, (config.resume, config.start)):
        checkpoint.read(path)  # a clear word now rather than after the data is read
    data, recognizer = checkpoint.build(config)
    if config.start is not None:
        rank_zero_only(print)(f"started from {config.start}: {transfer(recognizer, config.start)}")
    trainer: Trainer = instantiate(config.trainer)
    trainer.fit(recognizer, data, ckpt_path=config.resume, weights_only=True)
    best, score = trainer.checkpoint_callback.best_model_path, trainer.checkpoint_callback.best_model_score
    trainer.test(recognizer, data, ckpt_path=best, weights_only=True, verbose=False)
    return float(score)


if __name__ == "__main__":
    command.run(main)
