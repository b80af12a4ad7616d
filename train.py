"""Train a recognizer: `python train.py model=crnn data=synthetic optimizer.lr=1e-3`; `--cfg job` prints every key."""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from htr_lightning import command
from htr_lightning.config import check_groups, offer_experiments
from htr_lightning.errors import InputError
from htr_lightning.training.run import train


@hydra.main(version_base="1.3", config_path=str(Path(__file__).resolve().parent / "conf"), config_name="train")
def main(config: DictConfig) -> float:
    """Fit, test the best checkpoint, and return its validation CER for a sweep to compare."""
    if config.resume is not None and config.start is not None:
        raise InputError("start= and resume= together: a resumed run has its own weights; give one of them")
    chosen = HydraConfig.get().runtime.choices
    if "decoder" not in config.model and chosen.get("decoder", "greedy") != "greedy":
        raise InputError(f"decoder={chosen['decoder']}: model={chosen['model']} has no decoder; remove this override")
    return train(config)


def run() -> None:
    """The command."""
    check_groups(sys.argv[1:])
    offer_experiments()
    main()


if __name__ == "__main__":
    command.run(run)
