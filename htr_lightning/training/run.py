"""Train and test the recognizer that a config describes."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import cv2
import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from htr_lightning import checkpoint
from htr_lightning.build import build
from htr_lightning.config import plain
from htr_lightning.errors import InputError, counted, printable
from htr_lightning.hydra_version import instantiate
from htr_lightning.parameters import check_value
from htr_lightning.schedule import clock
from htr_lightning.text.codec import alphabet_of, name
from htr_lightning.training import finders
from htr_lightning.training.callbacks import find
from htr_lightning.training.checks import SETTINGS, check_settings, check_trainer
from htr_lightning.training.compilation import backend, compile_parts, obstacle
from htr_lightning.training.distillation import distil
from htr_lightning.training.last import LastCheckpoint
from htr_lightning.training.logger.guard import guard
from htr_lightning.training.lost import naming_lost
from htr_lightning.training.module import TrainingModule
from htr_lightning.training.ranks import prepare
from htr_lightning.training.resume import changes, check_state, restoring, resumed_precision
from htr_lightning.training.run_folder import AUTO, checkpoint_to_resume, locked
from htr_lightning.training.run_log import log, run_log
from htr_lightning.training.transfer import transfer


def train(config: DictConfig) -> float:
    """Train a recognizer, test its best checkpoint, and return the best validation score, normally the CER.

    With `find`, only suggest a setting, and return it.

    Args:
        config: composed config of train.py or of `htr fine-tune`.
    """
    folder = Path(config.run_dir)
    is_first = not getattr(rank_zero_only, "rank", 0)
    with locked(folder) if is_first else nullcontext(), run_log(folder):
        return _train(config)


def _train(config: DictConfig) -> float:
    limit = clock(config.trainer.max_time)  # reject an invalid limit before the data is read
    folder = Path(config.run_dir)
    for key in ("resume", "start"):
        check_value(config[key], SETTINGS[key], key)
    asked, resume = config.resume, checkpoint_to_resume(config.resume, folder)
    config = cast(DictConfig, OmegaConf.merge(config, {"resume": None if resume is None else str(resume)}))
    cards = {path: checkpoint.read(path)["htr"] for path in (config.resume, config.start) if path is not None}
    if config.resume is not None:
        precision = resumed_precision(cards[config.resume], config.trainer)
        config = cast(DictConfig, OmegaConf.merge(config, {"trainer": {"precision": precision}}))
    settings = plain(config)
    check_settings(settings)
    _save_resolved(settings)
    os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))  # inherited by other ranks and respected by Lightning
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")  # one kernel per image width; the default is 1024
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)  # lines are small, and its threads do not survive in loading processes
    seed_everything(config.seed, workers=True, verbose=False)
    steps = 0
    if config.resume is not None:
        steps = check_state(config.resume)
    elif asked == AUTO:
        _say("resume=auto: found no run to resume, so a new one begins")
    trainer: Trainer = instantiate(config.trainer, max_time=limit)
    best = check_trainer(trainer, config.trainer)
    prepare(trainer)
    guard(trainer, steps)
    known = cards[config.start]["alphabet"] if config.start is not None and config.keep_alphabet else ()
    _say("reading the data")
    data, recognizer = build(config, known)
    if config.start is not None and config.resume is None:
        _say(f"started from {config.start}: {transfer(recognizer, config.start)}")
    if (teacher := settings.get("teacher")) is not None:
        distil(recognizer, teacher, config.teacher_weight)
        _say(f"imitates {teacher}")
    for lines in data.sources:
        if note := getattr(lines.reader, "note", None):
            _say(note)
    learned = {*known, *data.alphabet}
    for split in ("val", "test"):
        if unseen := [c for c in alphabet_of(data.lines(split).texts) if c not in learned]:
            shown = printable(" ".join(c if c.strip() else name(c) for c in unseen[:20]))
            _say(f"note: characters in {split} that do not occur in the training texts and cannot be transcribed "
                 f"({len(unseen)}): {shown}{' ...' * (len(unseen) > 20)}")  # fmt: skip
    if data.replayed:
        new = len(data.lines("train"))
        _say(f"each epoch has {new} new lines and {data.replayed} replayed lines, sampled from "
             f"{len(data.sources[1])} lines" + (f"; the replayed fraction falls by {1 - data.replay_decay:.0%} per "
                                                "epoch" if data.replay_decay < 1 else ""))  # fmt: skip
    if config.resume is not None and (changed := changes(cards[config.resume], recognizer.card)):
        _warn("resume: not the settings and data of the resumed run, so this run will not continue exactly as it would "
              f"have ({len(changed)} changed: {'; '.join(changed[:20])})")  # fmt: skip
    if kind := config.get("find"):
        return finders.find(kind, recognizer, data, plain(config)["trainer"], folder)
    module = TrainingModule(recognizer, config.seed)
    if chosen := backend(config.get("compile", False)):
        if reason := obstacle(chosen, trainer.strategy.root_device):
            _warn(f"compile: off, since {reason}")
        else:
            module.compiled = compile_parts(recognizer.net, chosen)
            parts = counted(module.compiled, "part")
            _say(f"compiled: {parts} of the network, with {chosen}; the first steps take longer")
    last = find(trainer, LastCheckpoint)
    try:
        with naming_lost(trainer, folder), last.handling(trainer) if last else nullcontext():
            with restoring(config.resume):
                trainer.fit(module, data, ckpt_path=config.resume, weights_only=True)
            if best.best_model_score is None:
                raise InputError("the run ended before its first validation, so there is no best checkpoint; train "
                                 "longer, or lower trainer.val_check_interval")  # fmt: skip
            trainer.test(module, data, ckpt_path=best.best_model_path, weights_only=True, verbose=False)
    except (MisconfigurationException, ValueError) as error:
        if isinstance(error, ValueError) and "val_check_interval" not in str(error):
            raise  # Lightning checks this setting only now
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"trainer: {reason}; check the overrides of trainer, callbacks and logger") from None
    return float(best.best_model_score)


@rank_zero_only
def _save_resolved(settings: dict[str, Any]) -> None:
    """Replace the config that Hydra saved, whose interpolations only this process can resolve, with their values."""
    if HydraConfig.initialized() and (folder := HydraConfig.get().output_subdir):
        OmegaConf.save(OmegaConf.create(settings), Path(HydraConfig.get().runtime.output_dir) / folder / "config.yaml")


@rank_zero_only
def _say(text: str) -> None:
    log.info(text)


@rank_zero_only
def _warn(text: str) -> None:
    log.warning(text)
