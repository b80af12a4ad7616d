"""Each tracker is sent what a run logs, tested by its own reader; its failures do not end the run."""

import csv
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from conftest import SMALL, run_train
from lightning import Trainer
from lightning.pytorch.loggers import Logger

from htr_lightning.config import compose_train, plain
from htr_lightning.errors import InputError
from htr_lightning.metrics.confusions import confusions
from htr_lightning.picture import confusion_sheet
from htr_lightning.text.align import edits
from htr_lightning.training import checks, parallel
from htr_lightning.training.logger import guard
from htr_lightning.training.logger.guard import Guarded, send
from htr_lightning.training.logger.mlflow import MLflowLog

ROOT = Path(__file__).parent.parent.parent
PICTURES = ["val/transcriptions", "test/transcriptions", "test/confusions"]


class Tracker(Logger):
    """A logger that notes what it is sent, and fails while `broken`."""

    name, version, title = "tracker", 0, "Tracker"

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Any] = []
        self.broken = False

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self.broken:
            raise ConnectionError("the server has gone")
        self.sent.append((step, metrics))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.sent.append(params)

    def log_card(self, card: Any) -> None:
        self.sent.append(card)


def test_a_logger_is_sent_what_it_has_a_method_for() -> None:
    tracker = Tracker()
    trainer = Trainer(logger=[tracker], accelerator="cpu")
    guard.guard(trainer, 0)
    send(trainer, "log_card", {"a": 1})
    send(trainer, "log_table", "key", [], [], 0)  # it has no tables
    trainer.loggers[0].log_hyperparams({"b": 2})
    assert tracker.sent == [{"a": 1}, {"b": 2}]


def test_a_failing_logger_is_told_once_left_alone_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    tracker = Tracker()
    guarded = Guarded(tracker)
    tracker.broken = True
    with caplog.at_level(logging.WARNING):
        for clock[0] in (0.0, 1.0, guard.PAUSE - 1, guard.PAUSE + 1):
            guarded.log_metrics({"loss": 1.0}, 1)
        tracker.broken = False
        clock[0] += guard.PAUSE - 1
        guarded.log_metrics({"loss": 1.0}, 2)  # not tried
        clock[0] += 2
        guarded.log_metrics({"loss": 1.0}, 3)
        guarded.finalize("success")
    assert tracker.sent == [(3, {"loss": 1.0})]
    assert caplog.messages == [
        "Tracker: the server has gone; the run goes on, and logs there again when it can",
        "Tracker: not logged 5 times; metrics.csv has all metrics",
    ]


def test_a_logger_that_waits_before_it_fails_takes_a_tenth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    waits = [0]

    class Slow(Tracker):
        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            waits[0] += 1
            clock[0] += 120.0
            raise TimeoutError

    guarded = Guarded(Slow())
    while clock[0] < 12_000:
        clock[0] += 20
        guarded.log_metrics({})
    assert waits[0] * 120 <= 0.12 * clock[0]


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "trackio"])
def test_a_missing_package_is_told_with_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda package: None)
    settings = plain(compose_train(["run_dir=x", "name=y", "trainer=cpu", f"logger={name}"]))
    with pytest.raises(InputError, match=f"logger={name}: {name} is not installed; install htr-lightning.{name}."):
        checks.check_settings(settings)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("csv", {"csv"}), ("[wandb,tensorboard]", {"csv", "wandb", "tensorboard"}), ("mlflow", {"csv", "mlflow"})],
)
def test_loggers_are_chosen_by_name_beside_metrics_csv(choice: str, expected: set[str]) -> None:
    assert set(compose_train(["run_dir=x", "name=y", f"logger={choice}"]).logger) == expected


def test_an_mlflow_server_that_does_not_answer_is_refused_at_once(tmp_path: Path) -> None:
    address = "http://127.0.0.1:9"
    with pytest.raises(InputError, match=f"logger.mlflow.tracking_uri={address}: cannot connect; start the server"):
        MLflowLog(str(tmp_path), "e", "r", address)


def test_a_confusion_is_dark_where_it_is_frequent() -> None:
    found = confusions(edits_of(("abc", "abd"), ("cc", "dd"), ("ab", "a")))
    sheet = confusion_sheet(found, cell=30).astype(int)
    assert found.references == ["b", "c", "d", ""]
    left = top = 78
    colours = {(r, c): sheet[top + 2 + 30 * r, left + 2 + 30 * c] for r in range(4) for c in range(4)}
    blue = {cell: colour[2] for cell, colour in colours.items()}
    assert min(blue, key=blue.__getitem__) == (1, 2)  # c read as d, three times
    assert blue[1, 2] < blue[0, 3] < blue[0, 1]  # b left out once; b never read as c
    assert len({tuple(colours[i, i]) for i in range(4)}) == 1  # correct ones


def edits_of(*pairs: tuple[str, str]) -> Any:
    return Counter(edit for pair in pairs for edit in edits(*pair))


def test_parallel_coordinates_place_the_values_of_each_job() -> None:
    rates = {"1e-4": 0.3, "1e-3": 0.1, "1e-2": 0.2}
    jobs = [(f"job {n}", {"lr": lr, "model": "<b>"}, score) for n, (lr, score) in enumerate(rates.items())]
    page = parallel.page(jobs, "a sweep")
    assert "<b>" not in page
    lines = re.findall(r'class="job( best)?" points="([^"]*)".*?<title>(.*?)</title>', page)
    heights = {told[:5]: [float(point.split(",")[1]) for point in points.split()] for _, points, told in lines}
    first, second, third = (heights[f"job {n}"] for n in range(3))
    assert second[0] == pytest.approx((first[0] + third[0]) / 2)  # logarithmic
    assert first[0] > third[0]  # larger values are higher up
    assert second[2] > third[2] > first[2]
    assert [told[:5] for best, _, told in lines if best] == ["job 1"]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run that logged to W&B and TensorBoard, and was resumed."""
    pytest.importorskip("tensorboard")
    folder = tmp_path_factory.mktemp("logged") / "run"
    small = [*SMALL, "data.reader.lines={train: 24, val: 4, test: 6}", "optimizer.lr=2e-3"]
    argv = list(sys.argv)
    try:
        for epochs, more in ((1, []), (2, [f"resume={folder}"])):
            run_train(folder, *small, f"trainer.max_epochs={epochs}", "logger=[wandb,tensorboard]",
                      "logger.wandb.log_model=true", *more)  # fmt: skip
    finally:
        sys.argv = argv
    return folder


def curve(folder: Path, key: str) -> dict[int, float]:
    with open(folder / "metrics.csv") as file:
        return {int(row["step"]): float(row[key]) for row in csv.DictReader(file) if row[key]}


def read_tensorboard(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()


def read_wandb(path: Path) -> dict[str, Any]:
    """Return what W&B's own reader tells of an offline run."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(path)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_tensorboard_reads_back_a_resumed_run(logged: Path) -> None:
    found = read_tensorboard(logged)
    summary = json.loads((logged / "summary.json").read_text())
    for key in ("train/loss", "val/cer", "val/wer"):
        read = {event.step: event.value for event in found.Scalars(key)}
        assert read == pytest.approx(curve(logged, key), rel=1e-5)
        assert len(found.Scalars(key)) == len(read)  # no step twice
    assert found.Scalars("test_cer_interval/high")[-1].value == pytest.approx(summary["test_cer_interval"]["high"])
    assert set(found.Tags()["images"]) == set(PICTURES)
    picture = found.Images("test/transcriptions")[-1].encoded_image_string
    stored = cv2.imread(str(logged / "transcriptions" / "test.png"))
    assert (cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR) == stored).all()
    config, card = (found.Tensors(f"{key}/text_summary")[-1].tensor_proto.string_val[0].decode()
                    for key in ("config", "card"))  # fmt: skip
    assert json.loads(config)["optimizer"]["lr"] == 0.002
    assert json.loads(card)["data"]["test"]["lines"] == 6
    assert "_hparams_/session_start_info" in found.summary_metadata


def test_wandb_reads_back_a_resumed_run(logged: Path) -> None:
    first, second = sorted((logged / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
    assert first.name == second.name  # the same run
    found = read_wandb(second)
    assert found["config"]["overrides"]["optimizer.lr"] == 0.002
    assert found["config"]["card"]["data"]["test"]["lines"] == 6
    summary = json.loads((logged / "summary.json").read_text())
    assert found["summary"]["test_cer_interval"] == summary["test_cer_interval"]
    assert found["summary"]["card"]["checkpoint_sha256"] == summary["card"]["checkpoint_sha256"]
    files = second.parent / "files"
    for key in PICTURES:
        assert (files / found["summary"][key]["filenames"][0]).is_file()
    table = json.loads((files / found["summary"]["test/lines"]["path"]).read_text())
    assert len(table["data"]) == 6
    assert "CER" in table["columns"]


def test_wandb_keeps_tables_and_checkpoints_in_the_run_folder(logged: Path) -> None:
    staged = [path.read_bytes() for path in (logged / "wandb" / "artifacts" / "staging").iterdir()]
    assert (logged / "checkpoints" / "best.ckpt").read_bytes() in staged
    assert sum(content.startswith(b"\x89PNG") for content in staged) >= 6


def test_a_run_goes_on_when_a_tracker_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter

    def fail(*arguments: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    for method in ("add_scalar", "add_image", "flush"):
        monkeypatch.setattr(writer, method, fail)
    few = "data.reader.lines={train: 8, val: 2, test: 3}"
    run = run_train(tmp_path / "run", *SMALL, few, "trainer.max_epochs=1", "logger=tensorboard")
    said = capfd.readouterr().err
    assert said.count("TensorBoard: [Errno 28] No space left on device; the run goes on") == 1
    assert re.search(r"TensorBoard: not logged \d+ times; metrics.csv has all metrics", said)
    assert (run / "summary.json").is_file()
    assert curve(run, "val/cer")


SWEEP = ["seed=0,1,2", "optimizer.lr=1e-3,3e-3"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep of six runs that are logged to every tracker that is installed."""
    folder = tmp_path_factory.mktemp("swept")
    small = [one.replace(" ", "") for one in SMALL] + ["data.reader.lines={train:24,val:4,test:6}"]
    trackers = [name for name in ("tensorboard", "mlflow", "trackio") if find_spec(name)]
    subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "-m", *small, *SWEEP, "trainer.max_epochs=1",
         f"logger=[{','.join(['wandb', *trackers])}]", f"hydra.sweep.dir={folder}/day/sweep"],
        cwd=folder, check=True, env=os.environ | {"TRACKIO_DIR": str(folder / "trackio"), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return folder


def results(folder: Path) -> dict[tuple[int, float], dict[str, Any]]:
    """Return the content of summary.json for each seed and learning rate."""
    found = {}
    for path in (folder / "day" / "sweep").glob("*/summary.json"):
        values = dict(one.split("=", 1) for one in yaml.safe_load((path.parent / ".hydra/overrides.yaml").read_text()))
        found[int(values["seed"]), float(values["optimizer.lr"])] = json.loads(path.read_text())
    return found


def same(read: Any, summary: dict[str, Any]) -> bool:
    """Return whether a tracker's results, by name, are those of a run."""
    keys = ("val_cer", "test_cer", "test_wer", "test_edits")
    interval = read.get("test_cer_interval/low"), (summary["test_cer_interval"] or {}).get("low")
    return interval[0] == pytest.approx(interval[1]) and all(read[key] == pytest.approx(summary[key]) for key in keys)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.filterwarnings("ignore:The ``noload`` loader")  # MLflow with a newer SQLAlchemy
@pytest.mark.parametrize("tracker", ["csv", "wandb", "tensorboard", "mlflow", "trackio"])
def test_a_sweep_of_six_runs_is_read_back(swept: Path, tracker: str) -> None:
    if tracker != "csv":
        pytest.importorskip(tracker)
    expected = results(swept)
    assert len(expected) == 6
    found = READERS[tracker](swept)
    assert found.keys() == expected.keys()
    for key, read in found.items():
        assert same(guard.flat(read), expected[key])


def of_folders(swept: Path) -> dict[tuple[int, float], Any]:
    return {
        key: summary | {"val_cer": curve(swept / "day/sweep" / number, "val/cer").popitem()[1]}
        for number, (key, summary) in zip("012345", sorted(results(swept).items()), strict=True)
    }


def of_wandb(swept: Path) -> dict[tuple[int, float], Any]:
    found = {}
    for number in range(6):
        (path,) = (swept / "day/sweep" / str(number) / "wandb").glob("offline-run-*/*.wandb")
        run = read_wandb(path)
        found[run["config"]["seed"], run["config"]["overrides"]["optimizer.lr"]] = run["summary"]
    (path,) = (swept / "day/sweep/wandb").glob("offline-run-*/*.wandb")
    run = read_wandb(path)  # of the sweep
    assert run["summary"]["jobs"]["nrows"] == 6
    page = path.parent / "files" / run["summary"]["parallel coordinates"]["path"]
    assert page.read_text() == (swept / "day/sweep/sweep.html").read_text()
    return found


def of_tensorboard(swept: Path) -> dict[tuple[int, float], Any]:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = {}
    for number in range(6):
        events = read_tensorboard(swept / "day/sweep" / str(number))
        metadata = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        values = HParamsPluginData.FromString(metadata).session_start_info.hparams
        scalars = {key: events.Scalars(key)[-1].value for key in events.Tags()["scalars"]}
        assert set(values) == {"seed", "optimizer.lr"}  # what the axes of its parallel coordinates are
        found[int(values["seed"].number_value), values["optimizer.lr"].number_value] = scalars
    return found


def of_mlflow(swept: Path) -> dict[tuple[int, float], Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{swept}/runs/mlflow.db")
    (experiment,) = (one for one in client.search_experiments() if one.name == "htr-lightning")
    found = {}
    for run in client.search_runs([experiment.experiment_id]):
        assert run.info.status == "FINISHED"
        assert run.data.tags["group"] == "day/sweep"
        assert {one.path for one in client.list_artifacts(run.info.run_id)} >= {"card.json", "summary.json", "images"}
        folder = client.download_artifacts(run.info.run_id, "test/lines.json")
        assert len(json.loads(Path(folder).read_text())["data"]) == 6
        found[int(run.data.params["seed"]), float(run.data.params["optimizer/lr"])] = run.data.metrics
    return found


def of_trackio(swept: Path) -> dict[tuple[int, float], Any]:
    script = """
import json, trackio
from trackio.sqlite_storage import SQLiteStorage
for run in trackio.Api().runs("htr-lightning"):
    rows = [{k: v for k, v in row.items() if not isinstance(v, dict | list)} for row in
            SQLiteStorage.get_logs("htr-lightning", run.name)]
    overrides = run.config["overrides"]
    print(json.dumps([run.config["seed"], overrides["optimizer.lr"], {k: v for r in rows for k, v in r.items()}]))
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                          env=os.environ | {"TRACKIO_DIR": str(swept / "trackio")}).stdout  # fmt: skip
    return {(seed, lr): read for seed, lr, read in map(json.loads, said.splitlines())}


READERS = {
    "csv": of_folders, "wandb": of_wandb, "tensorboard": of_tensorboard, "mlflow": of_mlflow, "trackio": of_trackio,
}  # fmt: skip
