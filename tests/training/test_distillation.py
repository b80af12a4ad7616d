"""A student learns to give the posteriors of its teacher, and only a teacher with the same frames is accepted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, run_train

from htr_lightning import checkpoint
from htr_lightning.errors import InputError
from htr_lightning.model.ctc import CTCRecognizer
from htr_lightning.training.distillation import distil
from training.test_transfer import build

IMAGES = torch.rand(3, 1, 32, 96, generator=torch.Generator().manual_seed(0))
WIDTHS = torch.tensor([96, 80, 41])


def student(best: Path, *overrides: str) -> CTCRecognizer:
    recognizer = build("model.net.hidden=24", *overrides)
    assert isinstance(recognizer, CTCRecognizer)
    return recognizer


def test_the_loss_is_the_divergence_over_the_frames_of_each_line_matched_by_character(best: Path) -> None:
    teacher = checkpoint.load(best)
    alphabet = [c for c in reversed(teacher.alphabet) if c not in "xq"]
    pupil = student(best, f"data.alphabet={alphabet!r}", "model.unknown=skip")
    distil(pupil, best, 0.5)
    assert pupil.teacher is not None
    logits, lengths = pupil.net(IMAGES, WIDTHS)
    with torch.no_grad():
        found, same = teacher.net(IMAGES, WIDTHS)
    assert torch.equal(lengths, same)
    assert lengths.tolist() != [found.shape[1]] * 3  # some frames are padding
    expected = 0.0
    places = [0] + [teacher.codec.encode(c)[0] for c in pupil.codec.alphabet]
    for line, length in enumerate(lengths.tolist()):
        for frame in range(length):
            p = np.exp(found[line, frame].double().numpy()[places])
            q = np.exp(logits[line, frame].detach().double().numpy())
            p, q = p / p.sum(), q / q.sum()
            expected += float((p * np.log(p / q)).sum())
    loss = pupil.teacher(IMAGES, WIDTHS, logits, lengths)
    assert loss.item() == pytest.approx(0.5 * expected, rel=1e-4)
    loss.backward()
    assert all(weight.grad is None for weight in pupil.teacher.recognizer.parameters())  # type: ignore[attr-defined]
    assert any(weight.grad is not None for weight in pupil.parameters())


def test_a_copy_of_the_teacher_has_nothing_to_learn_and_steps_bring_a_student_closer(best: Path) -> None:
    copied = checkpoint.load(best)
    distil(copied, best, 1.0)
    assert isinstance(copied, CTCRecognizer)
    assert copied.teacher is not None
    assert copied.teacher(IMAGES, WIDTHS, *copied.net(IMAGES, WIDTHS)).item() == pytest.approx(0, abs=1e-3)
    pupil = student(best)
    distil(pupil, best, 1.0)
    assert pupil.teacher is not None
    optimizer = torch.optim.Adam(pupil.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        loss = pupil.teacher(IMAGES, WIDTHS, *pupil.net(IMAGES, WIDTHS))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_a_run_with_a_teacher_saves_only_the_student(best: Path, tmp_path: Path, capsys) -> None:
    folder = run_train(tmp_path, *SMALL, "model.net.hidden=24", "trainer.max_epochs=1", f"teacher={best}")
    assert f"imitates {best}" in capsys.readouterr().out
    content = checkpoint.read(folder / "checkpoints" / "best.ckpt")
    assert content["state_dict"].keys() == checkpoint.read(best)["state_dict"].keys()
    assert content["htr"]["training"]["teacher"] == str(best)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.preprocess.margin=4"], r"trained with model\.preprocess\.margin=8, not 4"),
        (["model.net.backbone.strides=[[1,1],[2,1],[2,1]]"], r"it has 1024 frames in 4096 columns, and the model 2048"),
        (
            ["data.alphabet=['a', 'b', 'ß', 'é']", "model.unknown=skip"],
            r"does not know all characters of the data \(2: \S+ \S+\)",
        ),
    ],
)
def test_a_teacher_that_cannot_be_imitated_is_refused(best: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        distil(build(*overrides), best, 1.0)


def test_a_teacher_of_characters_is_refused() -> None:
    with pytest.raises(InputError, match=r"teacher=digits: it was trained with model\.preprocess\._target_="):
        distil(build(), "digits", 1.0)


def test_a_model_without_frames_cannot_imitate(best: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pupil = build()
    monkeypatch.setattr(pupil, "frames_for", lambda width: 0)  # like an autoregressive model
    with pytest.raises(InputError, match="must both be CTC models"):
        distil(pupil, best, 1.0)
