"""A language model is estimated, tuned and stored in a checkpoint, which another process can use."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import MEASURED, Outcome, run_train
from hydra.core.config_store import ConfigStore

from htr_lightning import checkpoint
from htr_lightning.decoder.ngram import NGram
from htr_lightning.decoder.prefix_beam import PrefixBeam
from htr_lightning.errors import InputError
from htr_lightning.training.fine_tune import offer

ATTENTION = ["model=crnn_attention", "decoder.max_length=40", "model.net.encoder.hidden=16",
             "model.net.decoder.width=16", "model.net.encoder.backbone={stem: 8, channels: [8, 8, 16]}"]  # fmt: skip


@pytest.fixture(scope="module")
def tuned(best: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A tuned checkpoint and the output of the command."""
    out = tmp_path_factory.mktemp("tuned") / "new" / "lm.ckpt"
    run = [sys.executable, "-m", "htr_lightning", "tune-decoder", str(best), "--order", "3", "--out", str(out)]
    done = subprocess.run([*run, "--lexicon", "train", "decoder.width=8"], capture_output=True, text=True, check=True)
    return out, done.stdout


def test_results_are_printed_and_stored_in_the_checkpoint(best: Path, tuned: tuple[Path, str]) -> None:
    out, printed = tuned
    assert "language model: order 3, from 96 lines" in printed
    assert "16 validation lines" in printed
    lines = {line.split()[0]: line for line in printed.splitlines() if "%" in line}
    assert list(lines) == ["greedy", "beam", "language"]
    card = checkpoint.read(out)["htr"]
    assert card["tuned"]["data"]["lines"] == 16
    assert list(card["tuned"]["cer"]) == ["greedy", "beam", "language model"]
    assert card["model"]["decoder"]["width"] == 8
    assert card["model"]["decoder"]["alpha"] > 0
    assert "language" not in checkpoint.read(best)


def test_another_process_transcribes_the_same_text_from_the_checkpoint_alone(
    tuned: tuple[Path, str], line_image: Path, htr: Callable[..., Outcome]
) -> None:
    here = htr("transcribe", tuned[0], line_image, "--format", "jsonl", "--n-best", 3)
    command = [sys.executable, "-m", "htr_lightning", "transcribe", str(tuned[0]), str(line_image)]
    there = subprocess.run(
        [*command, "--format", "jsonl", "--n-best", "3"], capture_output=True, text=True, check=True
    ).stdout
    assert here.stdout == there
    record = json.loads(there)
    assert record["text"] == record["alternatives"][0]["text"]
    scores = [one["score"] for one in record["alternatives"]]
    assert scores == sorted(scores, reverse=True)
    assert 1 <= len(scores) <= 3


def test_greedy_decoding_of_a_tuned_checkpoint_equals_the_original(
    best: Path, tuned: tuple[Path, str], line_image: Path, htr: Callable[..., Outcome]
) -> None:
    plain = htr("transcribe", best, line_image, "--format", "tsv").stdout
    assert htr("transcribe", tuned[0], line_image, "--format", "tsv", "--greedy").stdout == plain


def test_evaluation_reproduces_the_tuned_error_rate(
    tuned: tuple[Path, str], tmp_path: Path, htr: Callable[..., Outcome]
) -> None:
    assert htr("evaluate", tuned[0], "--split", "val", "--out", tmp_path).code == 0
    measured = json.loads((tmp_path / "metrics.json").read_text())["cer"]
    assert measured == checkpoint.read(tuned[0])["htr"]["tuned"]["cer"]["language model"]


def test_every_transcribed_word_is_in_the_lexicon(
    tuned: tuple[Path, str], tmp_path: Path, htr: Callable[..., Outcome]
) -> None:
    content = checkpoint.read(tuned[0])
    content["htr"]["model"]["decoder"]["beta"] = 10.0  # a recognizer that is hardly trained would output few letters
    others = [label for label, character in enumerate(content["htr"]["alphabet"], 1) if not character.isalpha()]
    content["state_dict"]["net.head.bias"][others] -= 10.0  # and many spaces and marks
    checkpoint.write(content, tmp_path / "eager.ckpt")
    htr("evaluate", tmp_path / "eager.ckpt", "--out", tmp_path)
    words = set(content["language"]["lexicon"])
    texts = [json.loads(line)["hypothesis"] for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    letters = "".join(c if c.isalpha() else " " for c in " ".join(texts))
    assert set(letters.split()) <= words
    assert letters.split()


GREEDY = "htr_lightning.decoder.autoregressive.Greedy"


@pytest.fixture(scope="module", params=["autoregressive.Beam", "rescoring.Rescoring"])
def autoregressive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A checkpoint of a barely trained autoregressive model, and the decoder to tune."""
    heads = ["model.net.ctc=true", "model.ctc_weight=0.3"] if request.param.startswith("rescoring") else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [])
        run = run_train(
            tmp_path_factory.mktemp("autoregressive") / "run",
            *MEASURED[:-4],
            *ATTENTION,
            *heads,
            "trainer.max_epochs=1",
        )
    return run / "checkpoints" / "best.ckpt", request.param


def test_an_autoregressive_model_can_be_tuned(autoregressive: tuple[Path, str], tmp_path: Path, htr) -> None:
    path, kind = autoregressive
    out = tmp_path / "lm.ckpt"
    given = ["--order", 3, "--lexicon", "train", "--out", out, "decoder.width=3"]
    outcome = htr("tune-decoder", path, *given)
    assert outcome.code == 0, outcome.stderr
    content = checkpoint.read(out)
    decoder, rates = content["htr"]["model"]["decoder"], content["htr"]["tuned"]["cer"]
    assert decoder["_target_"] == f"htr_lightning.decoder.{kind}"
    assert (decoder["width"], decoder["max_length"]) == (3, 40)  # that of the checkpoint
    assert htr("evaluate", out, "--split", "val", "--out", tmp_path).code == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["cer"] == rates["language model"]
    assert htr("evaluate", path, "--split", "val", "--out", tmp_path).code == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["cer"] == rates["greedy"]
    htr("evaluate", out, "--out", tmp_path)
    texts = [json.loads(line)["hypothesis"] for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert set("".join(c if c.isalpha() else " " for c in " ".join(texts)).split()) <= set(
        content["language"]["lexicon"]
    )
    offer(str(out))  # to be fine-tuned: two passes stay what they are without a language model
    offered = ConfigStore.instance().load("decoder/checkpoint.yaml").node.decoder
    plain = {"alpha": 0.0, "beta": 0.0} if kind.startswith("rescoring") else None
    assert offered == (decoder | plain if plain else {"_target_": GREEDY, "max_length": 40})
    assert "".join(texts).strip() or kind.startswith("rescoring")  # CTC learns blanks first


def test_fine_tuning_drops_the_language_model_with_a_note(
    tuned: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    offer(str(tuned[0]))
    assert "is not used; add one to the fine-tuned model" in capsys.readouterr().err
    decoder = ConfigStore.instance().load("decoder/checkpoint.yaml").node.decoder
    assert decoder["_target_"] == "htr_lightning.decoder.ctc.Greedy"


def test_tuning_a_tuned_checkpoint_gives_the_same_result(
    best: Path, tuned: tuple[Path, str], tmp_path: Path, htr
) -> None:
    out = tmp_path / "again.ckpt"
    assert htr("tune-decoder", tuned[0], "--order", 3, "--lexicon", "train", "--out", out, "decoder.width=8").code == 0
    once, twice = checkpoint.read(tuned[0]), checkpoint.read(out)
    assert once["htr"]["tuned"] == twice["htr"]["tuned"]
    assert once["htr"]["model"]["decoder"] == twice["htr"]["model"]["decoder"]


def test_language_models_from_text_and_arpa_files(best: Path, tmp_path: Path, htr) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat\n\n  sat  down \n", encoding="utf-8")
    out = tmp_path / "a.ckpt"
    outcome = htr("tune-decoder", best, "--text", text, "--order", 2, "--out", out)
    assert "order 2, from 2 lines (15 characters)" in outcome.stdout, outcome.stderr
    NGram.estimate(["the cat", "sat down"], 2).write_arpa(tmp_path / "x.arpa", "|")
    other = tmp_path / "b.ckpt"
    outcome = htr("tune-decoder", best, "--arpa", tmp_path / "x.arpa", "--space", "|", "--out", other)
    assert outcome.code == 0, outcome.stderr
    symbols = [checkpoint.read(one)["language"]["ngram"]["symbols"] for one in (out, other)]
    assert symbols[0] == symbols[1]
    a, b = (checkpoint.load(path).decoder for path in (out, other))
    assert isinstance(a, PrefixBeam)
    assert (a.alpha, a.beta) == (b.alpha, b.beta)


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 1
    errors = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, outcome.stderr
    assert all(word in errors[0] for word in words), errors


def test_invalid_arguments_are_rejected_in_one_line(best: Path, tmp_path: Path, htr, line_image: Path) -> None:
    out = ["--out", tmp_path / "x.ckpt"]
    (empty := tmp_path / "empty.txt").write_text(" \n\n")
    (foreign := tmp_path / "foreign.txt").write_text("漢字\n", encoding="utf-8")
    (binary := tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xfa")
    refused(htr("tune-decoder", best, *out, "--arpa", tmp_path / "none.arpa"), "none.arpa")
    refused(htr("tune-decoder", best, *out, "--text", tmp_path / "none.txt"), "none.txt", "No such file")
    refused(htr("tune-decoder", best, *out, "--text", empty), "empty.txt", "contains no text")
    refused(htr("tune-decoder", best, *out, "--text", binary), "binary.txt", "UTF-8")
    refused(htr("tune-decoder", best, *out, "--lexicon", foreign), "foreign.txt", "every word")
    refused(htr("tune-decoder", best, *out, "--order", 0), "--order 0")
    refused(htr("tune-decoder", best, *out, "--space", "_"), "--space _", "--arpa")
    NGram.estimate(["ab"], 2).write_arpa(tmp_path / "x.arpa")
    refused(htr("tune-decoder", best, *out, "--arpa", tmp_path / "x.arpa", "--space", "_"), "x.arpa: no symbol '_'")
    refused(htr("tune-decoder", best, *out, "--text", empty, "--arpa", "x"), "--arpa", "--text")
    refused(htr("tune-decoder", best, *out, "decoder.alpha=1"), "decoder.alpha=1")
    refused(htr("tune-decoder", best, *out, "decoder.widht=1"), "decoder.widht")
    refused(htr("tune-decoder", best, "--out", "/proc/x/y.ckpt"), "/proc/x")
    refused(htr("transcribe", best, line_image, "--format", "jsonl", "--n-best", 2), "n_best=2", "tune-decoder")
    refused(htr("transcribe", best, empty, "--n-best", 2), "--n-best 2", "jsonl")
    assert not (tmp_path / "x.ckpt").exists()


def test_a_classifier_is_rejected(tmp_path: Path, best: Path) -> None:
    from htr_lightning.adapt.tune_decoder import beam_settings
    from htr_lightning.data.character import FixedSize
    from htr_lightning.model.classifier import Classifier
    from htr_lightning.text.normalize import Normalizer

    classifier = Classifier(
        "ab", lambda n: torch.nn.Linear(1, n), normalizer=Normalizer(), preprocess=FixedSize(28, 28, 20)
    )
    with pytest.raises(InputError, match="Classifier cannot use a language model"):
        beam_settings([], classifier)


@pytest.mark.parametrize("language", [3, {}, {"ngram": 1, "lexicon": None}, {"ngram": None, "lexicon": None}])
def test_a_corrupted_language_model_is_rejected_with_the_file_name(
    tuned: tuple[Path, str], tmp_path: Path, language: object
) -> None:
    path = tmp_path / "bad.ckpt"
    torch.save(checkpoint.read(tuned[0]) | {"language": language}, path)
    with pytest.raises(InputError, match=r"bad\.ckpt"):
        checkpoint.load(path)
