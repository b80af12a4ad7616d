"""Ensembles and calibration from the command line, with checkpoints that took seconds to train."""

import json
from pathlib import Path

import pytest
import torch

from htr_lightning import checkpoint
from htr_lightning.adapt import calibrate
from htr_lightning.data.image import read_image
from htr_lightning.decoder.rover import WeightedHypothesis
from htr_lightning.evidence.evaluate import Line
from htr_lightning.metrics.confidence import calibration_error, line_trials
from htr_lightning.reading.voting import Ensemble
from htr_lightning.transcription import Transcription

DATA = ["data=synthetic", "data.reader.lines={train: 1, val: 9, test: 7}",
        "data.reader.writers={train: 1, val: 1, test: 2}"]  # fmt: skip


@pytest.fixture
def others(best: Path, tmp_path: Path) -> list[Path]:
    """Return two more checkpoints, the second of which scales lines to more rows."""
    paths = []
    for number in range(2):
        content = torch.load(best, weights_only=True)
        for name, weight in content["state_dict"].items():
            if name.startswith("net.") and name.endswith("weight"):
                weight.add_(0.02 * torch.randn_like(weight))
        content["htr"]["model"]["preprocess"]["height"] += 16 * number
        paths.append(tmp_path / f"{number}.ckpt")
        torch.save(content, paths[-1])
    return paths


def test_several_checkpoints_transcribe_evaluate_and_calibrate(best: Path, others, htr, line_image, tmp_path) -> None:
    members = [checkpoint.load(path) for path in (best, *others)]
    twice = json.loads(htr("transcribe", best, best, line_image, "--format", "jsonl").stdout)
    (once,) = Ensemble(members[:1], ["a"]).read([read_image(line_image)])
    assert (twice["text"], twice["confidence"]) == (once.text, pytest.approx(once.confidence, abs=1e-4))
    for options, views in (([], 1), (["--tta", "2"], 2)):
        outcome = htr("transcribe", best, *others, line_image, line_image, *options, "--format", "jsonl")
        assert outcome.code == 0, outcome.stderr
        (expected,) = Ensemble(members, ["a", "b", "c"], views).read([read_image(line_image)])
        for row in map(json.loads, outcome.stdout.splitlines()):
            assert row["text"] == expected.text
            assert row["confidence"] == pytest.approx(expected.confidence, abs=1e-4)
    outcome = htr("evaluate", best, *others, *DATA, "--out", tmp_path / "all")
    assert outcome.code == 0, outcome.stderr
    metrics = json.loads((tmp_path / "all" / "metrics.json").read_text())
    assert metrics["ensemble"] == {"weights": [1, 1, 1], "views": 1}
    assert metrics["lines"] == 7
    rows = [json.loads(row) for row in (tmp_path / "all" / "predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"synthetic/test/{n}" for n in range(7)]
    trials = [line_trials(row["reference"], row["hypothesis"], row["confidence"]) for row in rows]
    assert metrics["confidence"]["line"]["ece"] == pytest.approx(calibration_error(trials))
    for row in rows:
        assert (len(row["words"]), len(row["characters"])) == (len(row["hypothesis"].split()), len(row["hypothesis"]))


def test_an_ensemble_with_the_printed_options_reads_as_calibrate_found(best: Path, others, htr, tmp_path) -> None:
    for given in ([], ["--weights", "1,0.5,0"]):
        outcome = htr("calibrate", best, *others, *DATA, *given)
        assert outcome.code == 0, outcome.stderr
        first, *_, last = outcome.stdout.splitlines()
        options = last.split()
        assert options[::2] == ["--weights", "--calibration"]
        assert options[:2] == given or not given
        outcome = htr("evaluate", best, *others, *DATA, *options, "--split", "val", "--out", tmp_path / "val")
        assert outcome.code == 0, outcome.stderr
        metrics = json.loads((tmp_path / "val" / "metrics.json").read_text())
        assert ",".join(f"{weight:g}" for weight in metrics["ensemble"]["weights"]) == options[1]
        if not given:
            assert first.endswith(f"{metrics['cer']:.2%}")
    outcome = htr("calibrate", best, *DATA, "--tta", 2)
    assert outcome.stdout.splitlines()[-1].startswith("--calibration ")  # there are no weights for a single checkpoint


def test_members_are_weighted(best: Path, line_image: Path) -> None:
    members = [checkpoint.load(best) for _ in range(2)]
    for weights, text in (([1.0, 0.5], "a"), ([0.5, 1.0], "b")):
        ensemble = Ensemble(members, ["a", "b"], 2, weights=weights)
        for member, own in zip(ensemble.members, ("a", "b"), strict=True):
            member.transcribe = lambda batch, widths, n_best, own=own: [Transcription(own, 0.8)]
        (read,) = ensemble.read([read_image(line_image)])
        assert (read.text, read.confidence) == (text, pytest.approx(0.8 / 1.5))


def test_the_best_member_gets_the_largest_weight(best: Path) -> None:
    """A member that is always right outweighs two that are always wrong and agree; equal members keep equal weights."""
    ensemble = Ensemble([checkpoint.load(best)] * 3, ["a", "b", "c"])
    texts = ["abc", "bca", "cab"]
    read = [
        (
            Line(text, text, ""),
            [
                WeightedHypothesis(text, 0.6, 0),
                WeightedHypothesis("x" + text, 0.8, 1),
                WeightedHypothesis("x" + text, 0.8, 2),
            ],
        )
        for text in texts
    ]
    found = calibrate.fit_weights(ensemble, read)
    assert (found.before.edits, found.after.totals.edits) == (3, 0)
    assert max(found.weights) == found.weights[0] == 1
    assert [one.hypothesis for one in found.after.predictions] == texts
    read = [(line, [some[0]._replace(member=member) for member in range(3)]) for line, some in read]
    assert calibrate.fit_weights(ensemble, read).weights == [1, 1, 1]


def test_calibrate_writes_a_copy_that_reads_the_same_text(best: Path, htr, line_image: Path, tmp_path: Path) -> None:
    outcome = htr("calibrate", best, *DATA, "--out", tmp_path / "new.ckpt")
    assert outcome.code == 0, outcome.stderr
    before, after = (htr("transcribe", path, line_image, "--format", "tsv").stdout.rstrip().split("\t")
                     for path in (best, tmp_path / "new.ckpt"))  # fmt: skip
    assert before[1] == after[1]
    new = checkpoint.load(tmp_path / "new.ckpt")
    assert float(after[2]) == pytest.approx(new.calibration.line(float(before[2])), abs=2e-3)
    plain = htr("transcribe", tmp_path / "new.ckpt", line_image, "--format", "tsv", "--calibration", "1,0").stdout
    assert plain.rstrip().split("\t")[1:] == before[1:]
    assert new.card["calibrated"]["data"]["lines"] == 9


def test_what_is_no_ensemble_is_refused_in_one_line(best: Path, others, htr, line_image: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        outcome = htr(*arguments)
        assert outcome.code == 1
        assert outcome.stderr.count("\n") == 1
        return outcome.stderr

    (tmp_path / "text.ckpt").write_text("no checkpoint")
    assert "text.ckpt" in refused("evaluate", best, tmp_path / "text.ckpt")
    assert "no files to transcribe" in refused("transcribe", best, *others)
    assert "SLOPE,BIAS" in refused("transcribe", best, line_image, "--calibration", "0,1")
    assert "--out" in refused("calibrate", best, others[0], "--out", tmp_path / "x.ckpt")
    for weights in ("1,1,1", "1", "1,-1", "0,0", "1,a", "1,nan"):
        assert "weights" in refused("evaluate", best, others[0], "--weights", weights)
    assert "only one checkpoint" in refused("evaluate", best, "--weights", "1")
    several = (line_image, "--format", "jsonl", "--n-best", 4)
    assert "n_best=4: an ensemble" in refused("transcribe", best, others[0], *several)
    tuned = tmp_path / "lm.ckpt"
    assert htr("tune-decoder", best, *DATA, "--out", tuned).code == 0
    assert "remove --greedy" in refused("transcribe", tuned, *several, "--greedy")
    content = torch.load(best, weights_only=True)
    content["htr"]["calibration"] = [0.0, 0.0]
    torch.save(content, tmp_path / "zero.ckpt")
    assert "slope" in refused("transcribe", tmp_path / "zero.ckpt", line_image)
