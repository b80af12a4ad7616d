"""SAM steps and averaged weights follow their definitions, and a resumed run continues with both."""

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import SMALL, run_train
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import SGD, AdamW
from torch.utils.data import DataLoader

from htr_lightning import checkpoint
from htr_lightning.build import data_for
from htr_lightning.data.batch import Batch
from htr_lightning.errors import InputError
from htr_lightning.evidence.evaluate import evaluate
from htr_lightning.optim import SAM
from htr_lightning.schedule import OneCycle, clock
from htr_lightning.training.averaging import EMA
from htr_lightning.training.module import TrainingModule


class Regression(LightningModule):
    """A network with batch norm statistics."""

    def __init__(self, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.optimizer = optimizer

    def loss(self, batch: Tensor) -> Tensor:
        return (self.net(batch)[:, 0] - batch.prod(1)).square().mean()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.loss(batch)

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        schedule = OneCycle(optimizer, lambda: self.trainer.global_step / 20)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(module: LightningModule, steps: int, *callbacks: Callback, path: Path | None = None, **options: Any) -> Trainer:
    torch.manual_seed(1)
    lines = DataLoader(torch.randn(24, 3), batch_size=4)
    trainer = Trainer(
        max_steps=steps, max_epochs=-1, callbacks=list(callbacks), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", num_sanity_val_steps=0, **options,
    )  # fmt: skip
    trainer.fit(module, lines, lines, ckpt_path=path, weights_only=True)
    return trainer


def test_sam_uses_the_gradient_at_the_worst_nearby_point() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(5, 5), torch.randn(3, 3)
    a, b = a @ a.T, b @ b.T  # f = x'Ax / 2 + y'By / 2, whose gradient is (Ax, By)
    x, y, unused = nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(3)), nn.Parameter(torch.ones(2))
    optimizer = SAM([x, y, unused], partial(SGD, lr=0.01), rho=0.3)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = (x @ a @ x + y @ b @ y) / 2
        value.backward()
        return value

    for _ in range(5):
        gx, gy = a @ x.detach(), b @ y.detach()
        norm = (gx.square().sum() + gy.square().sum()).sqrt()  # over all parameters together
        expected_x = x.detach() - 0.01 * a @ (x.detach() + 0.3 * gx / norm)
        expected_y = y.detach() - 0.01 * b @ (y.detach() + 0.3 * gy / norm)
        optimizer.step(closure)
        torch.testing.assert_close(x.detach(), expected_x)
        torch.testing.assert_close(y.detach(), expected_y)
    assert unused.tolist() == [1, 1]


def test_sam_with_radius_zero_equals_its_base() -> None:
    ours, theirs = Regression(partial(SAM, base=partial(AdamW, lr=0.1), rho=0.0)), Regression(partial(AdamW, lr=0.1))
    fit(ours, 10)
    fit(theirs, 10)
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other)


def test_a_schedule_changes_the_learning_rate_of_the_base_of_sam() -> None:
    module = Regression(partial(SAM, base=partial(SGD, lr=0.1)))
    trainer = fit(module, 11)
    base = trainer.optimizers[0].base
    expected = OneCycle(SGD(module.parameters(), lr=0.1), lambda: 0).factor(11 / 20) * 0.1
    assert base.param_groups[0]["lr"] == pytest.approx(expected)
    assert trainer.global_step == 11


class Clipped(Regression):
    """A network that clips gradients as recognizers do, and records their norm."""

    configure_gradient_clipping = TrainingModule.configure_gradient_clipping
    _combine_batches = TrainingModule._combine_batches
    check_gradient = TrainingModule.check_gradient

    def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        self.norm = nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None])


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_a_fused_step_clips_and_learns_like_a_plain_one(algorithm: str) -> None:
    """Lightning does not clip gradients for a fused step in mixed precision."""
    fused, plain, free = (Clipped(partial(AdamW, lr=0.1, fused=kind)) for kind in (True, False, True))
    for module, bound in ((fused, 0.02), (plain, 0.02), (free, 0.0)):
        fit(module, 5, gradient_clip_val=bound, gradient_clip_algorithm=algorithm, precision="bf16-mixed")
    for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    assert fused.norm < free.norm / 3
    if algorithm == "norm":
        assert fused.norm == pytest.approx(0.02, rel=1e-4)


def test_the_clipping_limit_is_scaled_like_the_gradients() -> None:
    module = Clipped(partial(AdamW, lr=0.1, fused=True))
    optimizer = AdamW(module.net[2].parameters(), lr=0.1, fused=True)
    for weight in module.net[2].parameters():
        weight.grad = torch.full_like(weight, 30.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.zeros(1))
    module._trainer = SimpleNamespace(
        precision_plugin=MixedPrecision("16-mixed", "cpu", scaler), accumulate_grad_batches=1, world_size=1
    )
    module.configure_gradient_clipping(optimizer, 0.5, "norm")
    gradients = torch.cat([weight.grad.flatten() for weight in module.net[2].parameters()])
    assert float(gradients.norm()) == pytest.approx(0.5 * 8, rel=1e-4)
    with pytest.raises(InputError, match=r"optimizer\.fused=false"):
        module.configure_gradient_clipping(optimizer, 0.5, "value")


def test_a_run_that_started_with_a_plain_step_continues_with_it() -> None:
    """A gradient scaler would otherwise pass its scale to a step that does not accept it."""
    module = Clipped(partial(AdamW, lr=0.1, fused=True))
    optimizer = AdamW(module.parameters(), lr=0.1, fused=True)
    optimizer.load_state_dict(AdamW(module.parameters(), lr=0.1).state_dict())
    module.optimizers = lambda use_pl_optimizer: optimizer
    TrainingModule.on_train_start(module)
    assert not optimizer._step_supports_amp_scaling


def test_sam_clips_the_gradient_of_its_step() -> None:
    module = Regression(partial(SAM, base=partial(SGD, lr=1.0), rho=0.1))
    reference = Regression(partial(SGD, lr=1.0)).train()
    fit(module, 1, gradient_clip_val=0.02)
    torch.manual_seed(1)
    batch = next(iter(DataLoader(torch.randn(24, 3), batch_size=4)))
    before = [p.detach().clone() for p in reference.parameters()]
    grads = torch.autograd.grad(reference.loss(batch), list(reference.parameters()))
    norm = torch.nn.utils.get_total_norm(grads)
    with torch.no_grad():
        for p, g in zip(reference.parameters(), grads, strict=True):
            p.add_(g * 0.1 / norm)
    grads = torch.autograd.grad(reference.loss(batch), list(reference.parameters()))
    norm = torch.nn.utils.get_total_norm(grads)
    assert norm > 0.1  # otherwise nothing would be clipped
    for p, own, g in zip(module.parameters(), before, grads, strict=True):
        torch.testing.assert_close(p.detach(), own - 0.05 * g * 0.02 / norm)  # the first rate is a 20th of the peak


def test_sam_restores_the_weights_if_interrupted_halfway() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = SAM([weight], partial(SGD, lr=0.1), rho=1.0)
    seen: list[list[float]] = []

    def closure() -> Tensor:
        seen.append(weight.tolist())
        if len(seen) == 2:
            raise KeyboardInterrupt
        optimizer.zero_grad()
        (value := weight.square().sum()).backward()
        return value

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert seen[1] != [1, 1, 1]
    assert weight.tolist() == [1, 1, 1]


def test_sam_rejects_unsupported_settings() -> None:
    with pytest.raises(InputError, match="bf16-mixed"):
        SAM([nn.Parameter(torch.ones(2))], partial(SGD, lr=0.1)).step()
    with pytest.raises(InputError, match="accumulate_grad_batches=1"):
        fit(Regression(partial(SAM, base=partial(SGD, lr=0.1))), 2, accumulate_grad_batches=2)


class Weights(Callback):
    """A callback that records the weights after every step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.seen.append({name: value.clone() for name, value in pl_module.state_dict().items()})


def test_the_average_follows_its_definition_including_statistics() -> None:
    module, weights = Regression(partial(AdamW, lr=0.1)), Weights()
    fit(module, 30, weights, EMA(decay=0.6))
    average = {name: value.double() for name, value in weights.seen[0].items()}
    for n, step in enumerate(weights.seen[1:], start=1):
        decay = min(0.6, (1 + n) / (10 + n))
        average = {name: decay * value + (1 - decay) * step[name].double() for name, value in average.items()}
    for name, value in module.state_dict().items():  # after the fit, the model has the averaged weights
        if name.endswith("num_batches_tracked"):
            assert value == 30
        else:
            torch.testing.assert_close(value.double(), average[name], atol=1e-6, rtol=1e-5)
            assert not torch.equal(value, weights.seen[-1][name])


def test_a_resumed_run_continues_with_weights_average_and_optimizer(tmp_path: Path) -> None:
    def parts() -> tuple[Regression, EMA]:
        return Regression(partial(SAM, base=partial(AdamW, lr=0.1), rho=0.1)), EMA(decay=0.8)

    whole, ema = parts()
    fit(whole, 12, ema)
    first, ema = parts()

    class Save(Callback):
        def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)

    fit(first, 6, ema, Save())  # an epoch
    second, ema = parts()
    fit(second, 12, ema, path=tmp_path / "last.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(content["optimizer_states"][0]["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}  # AdamW's own
    assert content["optimizer_states"][0]["state"][0]["step"] == 6


def test_a_run_stopped_during_validation_saves_the_average_separately(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_validation_batch_end(self, *_: Any) -> None:
            raise KeyboardInterrupt

        def on_exception(self, trainer: Trainer, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)

    weights = Weights()
    with pytest.raises(SystemExit):
        fit(Regression(partial(SGD, lr=0.1)), 12, weights, Stop(), EMA(decay=0.8))
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for name, value in weights.seen[-1].items():
        assert torch.equal(content["current_model_state"][name], value)
    assert not torch.equal(content["state_dict"]["net.0.weight"], weights.seen[-1]["net.0.weight"])


LEARNED = ["callbacks=ema", "optimizer=sam", "trainer.precision=bf16-mixed"]


def test_the_validated_weights_are_saved_tested_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: dict[str, list[dict[str, Tensor]]] = {"val": [], "test": []}

    def spy(split: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def spied(module: TrainingModule, batch: Batch, index: int) -> Any:
            read[split].append({name: value.clone() for name, value in module.state_dict().items()})
            return step(module, batch, index)

        return spied

    for split, step in (("val", "validation_step"), ("test", "test_step")):
        monkeypatch.setattr(TrainingModule, step, spy(split, getattr(TrainingModule, step)))
    small = ["data.reader.lines={train: 24, val: 2, test: 3}", "trainer.max_epochs=2", "logger=csv"]
    run = run_train(tmp_path / "run", *SMALL, *LEARNED, *small)
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    loaded = checkpoint.load(run / "checkpoints" / "best.ckpt").state_dict()
    assert any(all(torch.equal(loaded[name], weights[name]) for name in loaded) for weights in read["val"])
    assert read["test"]
    assert all(torch.equal(loaded[name], weights[name]) for weights in read["test"] for name in loaded)
    assert any(not torch.equal(value, best["current_model_state"][name]) for name, value in loaded.items())


@pytest.mark.slow
def test_a_run_with_sam_and_averaging_is_resumed(tmp_path: Path) -> None:
    run = run_train(tmp_path / "run", *SMALL, *LEARNED, "trainer.max_epochs=1")
    last = f"resume={run}/checkpoints/last.ckpt"
    on = run_train(tmp_path / "on", *SMALL, *LEARNED, "trainer.max_epochs=2", last)
    old, new = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (run, on))
    assert new["global_step"] == 2 * old["global_step"]
    assert new["averaging_state"]["n_averaged"] == new["global_step"]


@pytest.mark.slow
def test_two_ranks_with_sam_and_averaging_validate_like_the_checkpoint(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    lines = ["data.reader.lines={train: 96, val: 17, test: 23}", "data.max_lines=3"]
    options = ["trainer.max_steps=60", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp"]
    learned = ["optimizer=sam", "optimizer.base.lr=1e-2", "callbacks=ema", "callbacks.ema.decay=0.9"]
    call = [sys.executable, str(root / "train.py"), *SMALL, *lines, *options, *learned, f"hydra.run.dir={tmp_path}/two"]
    done = subprocess.run(call, cwd=root, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    best = tmp_path / "two" / "checkpoints" / "best.ckpt"
    recognizer = checkpoint.load(best)
    _, one = evaluate(recognizer, data_for(recognizer, ["data.max_lines=5"]), "val")
    counted = torch.load(best, weights_only=True)["htr"]["metrics"]["val"]
    assert {key: counted[key] for key in one._fields} == one._asdict()
    assert one.lines == 17


# ---- the length of a run


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None), ("2h", "00:02:00:00"), ("90m", "00:01:30:00"), ("1h30m", "00:01:30:00"), ("20min", "00:00:20:00"),
        ("45s", "00:00:00:45"), ("3600s", "00:01:00:00"), ("1d", "01:00:00:00"), ("36h", "01:12:00:00"),
        ("1 h 5 m", "00:01:05:00"), ("00:02:00:00", "00:02:00:00"), ("1:26:61:01", "02:03:01:01"),
    ],
)  # fmt: skip
def test_a_duration_is_given_in_any_unit(given: str | None, expected: str | None) -> None:
    assert clock(given) == expected
    if expected is not None:
        days, hours, minutes, seconds = map(int, expected.split(":"))
        whole = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        assert Timer(duration=expected)._duration == whole.total_seconds()


@pytest.mark.parametrize(
    "given", ["", 90, "90", "2 hours", "h", "30m1h", "1:30", "-1h", "1.5h", "0s", "0h0m", "00:00:00:00"]
)
def test_what_is_no_duration_is_refused(given: object) -> None:
    with pytest.raises(InputError, match=r"invalid duration; expected e\.g\. 90s, 20m, 2h"):
        clock(given)
