"""Measure every combination of training sets, models, decoders and test sets in a plan, going on where it stopped.

The figures of each row of the table are stored in a file of their own as soon as they are known, with the commands that
give them; a row is measured again only if its commands change.
"""

import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from htr_lightning import checkpoint as checkpoints
from htr_lightning.build import data_for
from htr_lightning.child_process import run_command
from htr_lightning.config import compose_train, plain
from htr_lightning.data.files import file_hash
from htr_lightning.errors import InputError
from htr_lightning.evidence import evaluate as evaluation
from htr_lightning.evidence.benchmark_plan import GREEDY, SAVED, TUNE, Plan, Row, slug
from htr_lightning.evidence.compare import System, compare, find_systems
from htr_lightning.evidence.runs import load_card
from htr_lightning.output import JOURNAL, make_folder, replacing
from htr_lightning.pretrained import locate
from htr_lightning.reading.journal import Journal
from htr_lightning.reading.open import load_all
from htr_lightning.yaml_file import load_yaml

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class Step(NamedTuple):
    """The checkpoint of a row, and whether it is to be read greedily."""

    path: Path
    greedy: bool = False


class Benchmark:
    """The measurement of a plan.

    Args:
        plan: what to measure.
        runs: folder for training runs, copies of checkpoints and predictions.
        device: device to evaluate on.
        run: function that runs a command of `htr`, given as words; it raises an InputError if the command fails.
        progress: called with a title and a number of lines; a context with a function that is told of lines done.
    """

    def __init__(
        self,
        plan: Plan,
        runs: Path,
        device: str = "auto",
        run: Callable[[Sequence[str]], None] = run_command,
        progress: Progress = lambda title, lines: nullcontext(lambda count: None),
    ) -> None:
        self.plan, self.runs, self.device, self.run, self.progress = plan, runs, device, run, progress
        self._failed: dict[Path, InputError] = {}  # runs; each is tried once

    def measure(self) -> Iterator[tuple[Row, dict[str, Any] | InputError, bool]]:
        """Measure the rows that are not stored, and yield each row, its result or its error, and whether it is new."""
        for row in self.plan.rows:
            try:
                if (stored := self.current(row)) is not None:
                    yield row, stored, False
                    continue
                found = self._result(row)
                with replacing(self.plan.file_of(row)) as path:
                    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
                yield row, found, True
            except InputError as error:
                yield row, error, True

    def current(self, row: Row) -> dict[str, Any] | None:
        """Return the stored result of a row, or None if its commands or the given checkpoint have changed since.

        Raises:
            InputError: if its file is damaged.
        """
        stored = self.plan.stored(row)
        if stored is None or stored["commands"] != self._all_commands(row):
            return None
        if row.train:
            return stored
        path = locate(os.path.expandvars(self.plan.models[row.model][0]))  # stored results need no variables
        known = stored.get("source_sha256", stored["checkpoint_sha256"][0])  # older results have only the second
        return stored if known == file_hash(path) or not path.is_file() else None

    def _all_commands(self, row: Row) -> list[str]:
        return [one for seed in self.plan.seeds_of(row) for one in self._commands(row, seed)]

    def _commands(self, row: Row, seed: int | None) -> list[str]:
        """Return the commands that give the result of a row with a seed, as a user would type them.

        Environment variables and run folders keep their names, so that results do not depend on places.
        """
        model, decoder = self.plan.models[row.model], self.plan.decoders[row.decoder]
        commands, path = [], model[0]
        if seed is not None:
            commands.append(shlex.join(["htr", "train", *self._training(row, seed)]))
            path = "RUN/checkpoints/best.ckpt"
        if decoder[0] == TUNE:
            commands.append(shlex.join(["htr", "tune-decoder", path, *self._tuning(row, seed), *decoder[1:]]))
            path = "RUN/checkpoints/best-lm.ckpt"
        evaluate = ["htr", "evaluate", path, *self.plan.test[row.test], *["--greedy"] * (decoder[0] == GREEDY)]
        own = [] if decoder[0] in (SAVED, GREEDY, TUNE) else [f"({' '.join(decoder)})"]
        return [*commands, " ".join([shlex.join(evaluate), *own])]

    def _training(self, row: Row, seed: int) -> list[str]:
        return [*self.plan.models[row.model], *self.plan.train[row.train], *self.plan.overrides, f"seed={seed}"]

    def _tuning(self, row: Row, seed: int | None) -> list[str]:
        """Return the overrides of the data that a checkpoint was trained on, whose texts make a language model."""
        return [] if seed is None else [one for one in self._training(row, seed) if one.startswith(("data=", "data."))]

    def _result(self, row: Row) -> dict[str, Any]:
        """Train, evaluate and describe a row."""
        folders, steps = [], []
        for seed in self.plan.seeds_of(row):
            steps.append(self._decoding(row, seed, self._trained(row, seed)))
            folders.append(self._evaluated(row, steps[-1], self._commands(row, seed)))
        systems, _ = find_systems([str(folder) for folder in folders])
        members = [member for system in systems for member in system.members]
        found = compare([System(row.model, members)])
        (score,) = found.scores
        cards = [load_card(folder) for folder in folders]
        seconds = [card["clock"]["cpu_seconds"] for card in cards]
        return {
            **row._asdict(),
            "seeds": [seed for seed in self.plan.seeds_of(row) if seed is not None],
            "cer": score.cer,
            "cer_sd": score.cer_sd,
            "wer": score.wer,
            "wer_sd": score.wer_sd,
            **score.intervals.to_plain(),
            "edits": [sum(one.edits for one in member.counts) for member in members],
            "characters": found.characters,
            "lines": found.lines,
            "groups": found.groups,
            "lines_per_cpu_second": None
            if None in seconds
            else round(fmean(found.lines / max(s, 0.01) for s in seconds), 1),
            "bytes": locate(steps[0].path).stat().st_size,
            "commands": self._all_commands(row),
            "checkpoint_sha256": [card["checkpoint_sha256"] for card in cards],
            "source_sha256": None if row.train else file_hash(locate(self._trained(row, None))),
            "conditions": {key: cards[0][key] for key in ("data", "decoder", "normalizer", "commit", "hardware")},
        }

    def _trained(self, row: Row, seed: int | None) -> Path:
        """Return the checkpoint of a model, which is trained, or trained further, if it is not finished."""
        model = self.plan.models[row.model]
        if seed is None:
            path = Path(self.plan.expanded(model)[0])  # a name stays one: the exported file of a recognizer is read
            if not locate(path).is_file():
                raise InputError(f"{self.plan.path}: {path}: no such checkpoint; correct models.{row.model}")
            return path
        folder = self.runs / f"{slug(row.train)}-{slug(row.model)}-seed{seed}"
        if folder in self._failed:
            raise self._failed[folder]
        overrides = self.plan.expanded(self._training(row, seed))
        config = folder / ".hydra" / "overrides.yaml"
        known = [str(one) for one in load_yaml(config)] if config.is_file() else []
        known = [one for one in known if not one.startswith("resume=")]
        if known and known != overrides:
            raise InputError(
                f"{folder}: contains another run ({' '.join(known)}); remove it, or rename the model or set"
            )
        if not (folder / "summary.json").is_file():
            last = folder / "checkpoints" / "last.ckpt"
            resume = [f'resume="{last}"'] if last.is_file() else []
            try:
                self.run(["train", *overrides, f'hydra.run.dir="{folder}"', *resume])
            except InputError as error:
                self._failed[folder] = error
                raise
        return folder / "checkpoints" / "best.ckpt"

    def _decoding(self, row: Row, seed: int | None, path: Path) -> Step:
        """Return the checkpoint with the decoder of a row."""
        first, *options = decoder = self.plan.decoders[row.decoder]
        if first in (SAVED, GREEDY):
            return Step(path, first == GREEDY)
        folder = path.parent if row.train else self.runs / slug(row.model)
        copy = folder / f"best-{slug(row.decoder)}.ckpt"
        data = self.plan.expanded(self._tuning(row, seed)) if first == TUNE else []
        made = json.dumps({"decoder": decoder, "data": data, "source_sha256": file_hash(locate(path))}) + "\n"
        note = copy.with_suffix(".json")  # what the copy was made of, since the plan or the checkpoint may change
        if copy.is_file() and note.is_file() and note.read_text(encoding="utf-8") == made:
            return Step(copy)
        note.unlink(missing_ok=True)  # so that no note stands beside another copy if this is interrupted
        if first == TUNE:
            self.run(["tune-decoder", str(path), *data, *options, "--out", str(copy)])
        else:
            content = checkpoints.read(path)
            content["htr"]["model"]["decoder"] = plain(compose_train(decoder).decoder)
            content["htr"].pop("calibration", None)  # fitted to the confidences of the other decoder
            checkpoints.write(content, copy)
        with replacing(note) as new:
            new.write_text(made, encoding="utf-8")
        return Step(copy)

    def _evaluated(self, row: Row, step: Step, commands: list[str]) -> Path:
        """Return the folder with the predictions of a row, which are made unless they are there."""
        where = step.path.parent if row.train else self.runs / slug(row.model)
        folder = where / f"evaluate-{slug(row.decoder)}-{slug(row.test)}"
        known = load_card(folder) if (folder / "metrics.json").is_file() else {}
        if (known.get("commands"), known.get("checkpoint_sha256")) == (commands, file_hash(locate(step.path))):
            return folder
        recognizer = load_all([str(step.path)], self.device, step.greedy)
        data = data_for(recognizer, self.plan.expanded(self.plan.test[row.test]))
        about = evaluation.conditions(recognizer, [str(step.path)], data, "test", step.greedy) | {"commands": commands}
        make_folder(folder)
        journal = Journal(folder / JOURNAL, about)
        with self.progress(" · ".join(filter(None, row)), about["data"]["lines"]) as advance:
            evaluation.evaluate_into(folder, recognizer, data, "test", about, advance, journal)
        journal.remove()
        return folder
