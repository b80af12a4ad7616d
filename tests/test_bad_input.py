"""What cannot be used is refused in one line that names the file or sample, the value and the remedy."""

import os
import pickle
import shlex
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import MEASURED, SMALL, Outcome
from omegaconf import OmegaConf
from PIL import Image

import train
from htr_lightning import command
from htr_lightning.config import compose_train, new_folder

SIZE = (300, 60)  # width, height of the pages below
BOX = "10,10 290,10 290,50 10,50"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Outcome]:
    """`python train.py` in this process."""

    def call(*overrides: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["train.py", f"hydra.run.dir={tmp_path}/run", *overrides])
        capsys.readouterr()
        try:
            command.run(train.train)
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        return Outcome(code, *capsys.readouterr())

    return call


def test_ctrl_c_ends_a_command_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        command.run(interrupted)
    assert (ended.value.code, capsys.readouterr()) == (130, ("", ""))


def refused(outcome: Outcome, *words: str) -> None:
    """One error line with these words, no traceback, exit code not 0."""
    assert outcome.code != 0
    errors = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, outcome.stderr
    assert "Traceback" not in outcome.stderr + outcome.stdout
    assert "Error executing job" not in outcome.stderr
    for word in words:
        assert word in errors[0]


def page(
    folder: Path, points: str = BOX, text: str = "abc", image: str = "p.png", size: tuple[int, int] = SIZE
) -> Path:
    """A PAGE file of one line with its image p.png."""
    path = folder / "p.xml"
    path.write_text(
        '<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15">'
        f'<Page imageFilename="{image}" imageWidth="{size[0]}" imageHeight="{size[1]}"><TextRegion id="r">'
        f'<TextLine id="line_7"><Coords points="{points}"/><TextEquiv><Unicode>{text}</Unicode></TextEquiv>'
        "</TextLine></TextRegion></Page></PcGts>"
    )
    pixels = np.full(SIZE[::-1], 240, np.uint8)
    pixels[20:40, 20:280:9] = 30
    Image.fromarray(pixels).save(folder / "p.png")
    return path


def splits(folder: Path, *rows: str) -> str:
    (folder / "splits.tsv").write_text("page\tsplit\n" + "\n".join(rows or ("p\ttrain", "p2\tval")))
    return f"data.root={folder}"


PAGES = ["data=page_xml", "data.workers=0", "trainer.max_steps=1"]


def test_missing_data_root(run, tmp_path: Path) -> None:
    refused(run("data=copiste", f"data.root={tmp_path}/none"), f"{tmp_path}/none", "no such folder", "data.root")
    refused(run("model=mlp", "data=mnist"), "data.root is not set")
    refused(
        run("model=mlp", "data=mnist", f"data.root={tmp_path}/none"), f"{tmp_path}/none", "data.reader.download=true"
    )


def test_missing_image(run, htr, best: Path, tmp_path: Path) -> None:
    page(tmp_path)
    (tmp_path / "p.png").unlink()
    refused(run(*PAGES, splits(tmp_path)), "p.xml", "p.png", "put the image there")
    refused(htr("transcribe", best, tmp_path / "p.xml"), "p.xml", "p.png")
    refused(htr("transcribe", best, tmp_path / "none.png"), "none.png", "check the path")


def test_page_that_names_another_image_reads_the_one_of_its_own_name_and_refuses_when_there_is_none(
    run, htr, best: Path, tmp_path: Path
) -> None:
    path = page(tmp_path, image="scan_0001.tif")
    assert htr("transcribe", best, path).code == 0
    (tmp_path / "p.png").rename(tmp_path / "q.png")
    refused(htr("transcribe", best, path), "scan_0001.tif", "p.*")


def test_truncated_jpeg(run, htr, best: Path, tmp_path: Path) -> None:
    page(tmp_path)
    Image.open(tmp_path / "p.png").save(tmp_path / "p.jpg")
    (tmp_path / "p.png").unlink()
    whole = (tmp_path / "p.jpg").read_bytes()
    (tmp_path / "p.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    refused(run(*PAGES, splits(tmp_path, "p\ttrain")), "p.jpg", "download it again")
    refused(htr("transcribe", best, tmp_path / "p.jpg"), "p.jpg", "download it again")


def test_xml_that_is_neither_page_nor_alto(run, htr, best: Path, tmp_path: Path) -> None:
    path = page(tmp_path)
    path.write_text("<html><body/></html>")
    refused(run(*PAGES, splits(tmp_path)), "p.xml", "<html>", "PAGE")
    refused(htr("transcribe", best, path), "p.xml", "<html>")
    path.write_text("<PcGts><Page")
    refused(htr("transcribe", best, path), "p.xml", "not well-formed")


def test_xml_whose_size_disagrees_with_the_image(run, htr, best: Path, tmp_path: Path) -> None:
    path = page(tmp_path, size=(600, 120))
    refused(run(*PAGES, splits(tmp_path)), "p.xml", "600 x 120", "300 x 60")
    refused(htr("transcribe", best, path), "600 x 120", "300 x 60")


def test_polygon_of_two_points(run, htr, best: Path, tmp_path: Path) -> None:
    path = page(tmp_path, points="10,10 290,50")
    refused(run(*PAGES, splits(tmp_path)), "p/line_7", "2 points", "data.reader.faulty=skip")
    refused(htr("transcribe", best, path), "p.xml#line_7", "2 points")


def test_character_outside_the_alphabet(run, tmp_path: Path) -> None:
    page(tmp_path, text="abé")
    refused(run(*PAGES, splits(tmp_path, "p\ttrain"), "data.alphabet=abc"), "p/line_7", "U+00E9", "model.unknown=skip")


def test_empty_transcription(run, tmp_path: Path) -> None:
    page(tmp_path, text=" ")
    refused(run(*PAGES, splits(tmp_path)), "p/line_7", "without text", "data.reader.empty=skip")


def test_empty_split(run, tmp_path: Path) -> None:
    page(tmp_path)
    refused(run(*PAGES, splits(tmp_path, "p\ttrain")), "val", "train", "splits.tsv")
    refused(run(*SMALL, "data.reader.lines={train: 8, val: 0, test: 8}"), "data.reader.lines.val=0")


def test_checkpoint_that_is_none(htr, best: Path, line_image: Path, tmp_path: Path) -> None:
    random = tmp_path / "random.ckpt"
    random.write_bytes(os.urandom(5000))
    refused(htr("transcribe", random, line_image), "random.ckpt")
    pickled = tmp_path / "pickle.ckpt"
    pickled.write_bytes(pickle.dumps({"state_dict": {}}))
    refused(htr("transcribe", pickled, line_image), "pickle.ckpt")
    torch.save({"htr": {"format": 1}, "object": Path("x")}, tmp_path / "object.ckpt")
    refused(htr("transcribe", tmp_path / "object.ckpt", line_image), "object.ckpt", "pickled objects")
    content = torch.load(best, weights_only=True)
    content["htr"]["format"] = 999
    torch.save(content, tmp_path / "newer.ckpt")
    refused(htr("transcribe", tmp_path / "newer.ckpt", line_image), "newer.ckpt", "999", "upgrade")
    refused(htr("transcribe", tmp_path / "none.ckpt", line_image), "none.ckpt", "checkpoint not found")


def test_checkpoint_that_names_other_code_is_refused_before_anything_is_built(
    htr, best: Path, line_image: Path, tmp_path: Path
) -> None:
    for target in ("os.system", "htr_lightning.checkpoint.os.system", "builtins.exec"):
        content = torch.load(best, weights_only=True)
        content["htr"]["model"]["decoder"] = {"_target_": target, "command": f"touch {tmp_path}/harmed"}
        torch.save(content, tmp_path / "evil.ckpt")
        refused(htr("transcribe", tmp_path / "evil.ckpt", line_image), "evil.ckpt", target)
        assert not (tmp_path / "harmed").exists()


def test_unknown_key_and_unknown_name(run, htr, best: Path) -> None:
    refused(run("model.net.hiden=3"), "model.net.hiden", "--cfg job")
    refused(run("+model.net.hiden=3", *SMALL), "hiden")
    refused(run("model=crnm"), "crnm", "crnn", "mlp")
    refused(run("optimizer.lr"), "optimizer.lr")
    refused(run("scheduler=null", *SMALL), "scheduler=null: expected one of constant, one_cycle")
    refused(run("trainer.limit_val_batches=0", *SMALL), "trainer.limit_val_batches=0", "remove this override")
    refused(run("experiments=seed_mlp"), "experiments=seed_mlp", "use experiment=seed_mlp")
    refused(run("replay=folder", "replay.root=x"), "replay=folder", "use data@replay=folder")
    refused(run("callbacks.checkpoint.monitor=val/cre", *SMALL), "ModelCheckpoint monitors val/cre", "val/cer")
    refused(run("model=mlp", "data=mnist", "decoder=beam"), "decoder=beam", "model=mlp has no decoder", "remove")
    refused(run("optimizer.lr=abc", *SMALL), "optimizer", "optimizer.lr")
    refused(run("optimizer.lr=-1", *SMALL), "Invalid learning rate", "-1")
    refused(run(*SMALL, "data.max_lines=0"), "data.max_lines=0: expected an integer from 1")
    refused(htr("evaluate", best, "data=nothing"), "nothing", "synthetic")
    for verb in ("evaluate", "tune-decoder"):
        refused(htr(verb, best, "trainer.max_epochs=3"), "trainer.max_epochs=3", "data=copiste")
        refused(htr(verb, best, "data=synthetic", "decoder=greedy"), "decoder=greedy", "only the data")
    refused(htr("evaluate", best, "data.no_such=1"), "data.no_such")


def test_image_of_one_pixel_and_image_of_thirty_thousand_columns(
    htr, best: Path, line_image: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(tmp_path / "dot.png")
    Image.fromarray(np.zeros((60, 30_000), np.uint8)).save(tmp_path / "wide.png")
    refused(htr("transcribe", best, tmp_path / "dot.png"), "dot.png", "1 x 1")
    refused(htr("transcribe", best, tmp_path / "wide.png"), "wide.png", "30000 x 60", "max_width")
    both = htr("transcribe", best, tmp_path / "wide.png", line_image)
    refused(both, "wide.png")
    assert both.stdout == htr("transcribe", best, line_image).stdout  # the good one is read all the same


@pytest.mark.parametrize("part", ["data.pkl", "data/0", "data/7"])
def test_a_checkpoint_with_a_bit_changed_is_not_read(
    htr, best: Path, line_image: Path, tmp_path: Path, part: str
) -> None:
    content = bytearray(best.read_bytes())
    with zipfile.ZipFile(best) as archive:
        bytes_of = archive.read(next(name for name in archive.namelist() if name.endswith(f"/{part}")))
    content[content.index(bytes_of) + len(bytes_of) // 2] ^= 1
    (tmp_path / "bent.ckpt").write_bytes(content)
    refused(htr("transcribe", tmp_path / "bent.ckpt", line_image), "bent.ckpt", "corrupted", "train.py")


def test_a_checkpoint_behind_an_image(htr, best: Path, line_image: Path) -> None:
    refused(htr("transcribe", best, line_image, best), str(best), "checkpoints first")


def test_output_that_cannot_be_written(run, htr, best: Path, line_image: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    paged = htr("transcribe", best, line_image, "--format", "page", "--out", tmp_path / "file" / "out")
    refused(paged, f"{tmp_path}/file", "choose another")
    refused(run(*SMALL, f"hydra.run.dir={tmp_path}/file/run"), f"{tmp_path}/file")
    refused(htr("evaluate", best, "--out", tmp_path / "file" / "out"), f"{tmp_path}/file", "--out")


def test_a_classifier_refuses_lines(run) -> None:
    refused(run("model=mlp", *SMALL[:5]), "synthetic/train/", "model=crnn")


def test_resuming_from_what_is_no_checkpoint(run, tmp_path: Path) -> None:
    refused(run(*SMALL, f"resume={tmp_path}/none.ckpt"), "none.ckpt")


def test_a_fused_step_is_wanted_or_not(run) -> None:
    overrides = ["data=synthetic", "data.workers=0", "optimizer.fused=maybe", "trainer.max_steps=1"]
    refused(run(*overrides), "optimizer.fused=maybe", "true or false")


def test_replayed_lines_that_are_missing_are_told_by_their_own_key(htr, best: Path, tmp_path: Path) -> None:
    given = ["fine-tune", best, "data=synthetic", *SMALL[:3], "data@replay=folder", f"hydra.run.dir={tmp_path}/run"]
    refused(htr(*given), "replay.root is not set", "replay.root=FOLDER")
    refused(htr(*given, "replay.root=nowhere"), "nowhere: no such folder", "set replay.root")


def test_a_part_of_the_training_lines_is_no_part_of_others(htr, best: Path) -> None:
    for command_ in ("evaluate", "calibrate"):
        refused(htr(command_, best, "data.subset=[0,2]"), "data.subset=[0,2]", "remove this override")


def test_scans_of_another_kind_in_a_folder_are_named(htr, best: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 300), 240, np.uint8)).save(tmp_path / "a.png")
    for name in ("b.pdf", "c.HEIC"):
        (tmp_path / name).write_bytes(b"%PDF-1.4\n")
    outcome = htr("transcribe", best, tmp_path)
    refused(outcome, "b.pdf: a format that cannot be read, the first of 2 such files; convert to PNG")
    refused(htr("transcribe", best, tmp_path / "a.png", tmp_path / "c.HEIC"), "c.HEIC: a format that cannot be read; ")
    assert outcome.stdout.count("\n") == 1  # the other is read all the same


# ---- settings of a run

REFUSED = {
    "trainer=mps": "trainer.accelerator=mps: PyTorch finds no Apple GPU",
    "trainer.fast_dev_run=true": "trainer=debug",
    "trainer.max_epochs=0": "trainer.max_epochs=0: nothing would be trained",
    "trainer.max_steps=0": "trainer.max_steps=0: nothing would be trained",
    "trainer.limit_train_batches=0": "trainer.limit_train_batches=0: nothing would be trained",
    "trainer.limit_val_batches=0": "trainer.limit_val_batches=0",
    "trainer.overfit_batches=1": "data.subset=[0,N]",
    "trainer.val_check_interval=1000": "trainer: `val_check_interval` (1000) must be less than or equal to",
    "trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches=0: expected an integer of at least 1",
    "trainer.max_time=10": "trainer.max_time=10: invalid duration; expected e.g. 90s",
    "trainer.strategy=word": "Trainer: You selected an invalid strategy name",
    "~callbacks.checkpoint": "callbacks.checkpoint is missing",
    "+callbacks.checkpoint.save_top_k=0": "callbacks.checkpoint is missing",
    "callbacks.checkpoint=null": "callbacks.checkpoint=null: expected a config for Callback",
    "callbacks.checkpoint.monitor=null": "callbacks.checkpoint.monitor=null: the best checkpoint needs a metric; use",
    "~logger.csv": "that has no logger; check the overrides of trainer, callbacks and logger",
    "trainer.devices=0": "value is not a valid input using cpu accelerator; check its settings",
    "model.normalizer.form=word": "model.normalizer.form=word: use NFC",
    "callbacks.checkpoint.monitor=cer": "monitors cer, which does not exist; use one of val/cer",
    "callbacks.checkpoint.mode=word": "ModelCheckpoint: `mode` can be min, max but got word; check its settings",
    "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/los}": "use one of val/cer",
    "callbacks.transcriptions.lines=0": "callbacks.transcriptions.lines=0: expected an integer from 1 to 1000",
    "logger={csv: null}": "logger={csv: null}: expected one of csv, mlflow, tensorboard, trackio, wandb",
    "scheduler=0": "scheduler=0: expected one of constant, one_cycle",
    "~scheduler": "model.scheduler: Interpolation key 'scheduler' not found; remove the override",
    "model.net.hidden=1000000000000": "model.net.hidden=1000000000000: expected an integer from 1 to 16384",
    "model.net={width: 16384, hidden: 16384, layers: 200}": "million weights require",
    "model.net.backbone.strides=[[1, 1]]": "model.net.backbone: expected lists of the same length, but channels has 3",
    "~model.net.hidden": "model.net.hidden: missing; GatedCRNN expects an integer",
    "data.preprocess=word": "data.preprocess=word: expected a config for Preprocess",
    "data.workers=-1": "data.workers=-1: expected an integer from 0",
    "data.alphabet=123456789": "a string or a list of strings or null; quote digits: 'data.alphabet=\"123456789\"'",
    "seed=null": "seed=null: expected an integer from 0",
    "threads=0": "threads=0: expected an integer from 1",
    "start=0": "start=0: expected a path or null",
    "start=3": "start=3: expected a path or null",
    "run_dir=0": "run_dir=0: expected a string; quote digits: 'run_dir=\"0\"'",
    "run_dir=null": "run_dir=null: expected a string",
    "model=model/crnn": "model=model/crnn: no such option. Options: ",
    "model=": "model=: no such option. Options: ",
    "data@replay=null": "data@replay=null: expected one of casia_characters",
    "experiment=null": "for no recipe, remove this override",
    "=1": "=1: invalid key; write KEY=VALUE, e.g. data.root=FOLDER",
    "seed = 1": "seed = 1: invalid key; write KEY=VALUE, e.g. data.root=FOLDER",
    "data..root=a": "data..root=a: invalid key; write KEY=VALUE",
    "augment.transforms.word.p=1": "Index 'word' (str) is not an int",
    "hydra/launcher=foo": "hydra/launcher=foo: no such option. Options: basic",
    "~name": "name=null: expected a string",
    "hydra.job.env_copy=[NOT_SET]": "not found: 'NOT_SET'; check the arguments",
    "hydra.run.dir=null": "hydra.run.dir=null: field 'hydra.run.dir' is not Optional; change or remove this override",
    "optimizer.lr=null": "optimizer.lr=null: expected a number",
    "optimizer.weight_decay=-1": "optimizer: Invalid weight_decay value: -1; check the overrides of optimizer",
    "data.nothing=1": "Could not override 'data.nothing': no such key. Print all keys",
    "": "'' is not an override; write KEY=VALUE",
    "word": "'word' is not an override; write KEY=VALUE",
}


@pytest.mark.parametrize("override", REFUSED)
def test_a_setting_with_which_nothing_could_be_trained_is_refused(run: Callable[..., Outcome], override: str) -> None:
    refused(run(*SMALL, "trainer.max_epochs=1", "logger=csv", override), REFUSED[override])


def test_a_network_that_does_not_accept_the_preprocessed_images_is_refused(run: Callable[..., Outcome]) -> None:
    outcome = run("model=crnn_classic", *MEASURED[:-4], "model.net.backbone.height=16")
    refused(outcome, "model: input.size(-1) must be equal to input_size", "check the overrides of model")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("WANDB_MODE", "off", "WANDB_MODE=off: use one of online, offline"),
        ("WANDB_BASE_URL", "word", "base_url='word': Input should be a valid URL"),
        ("WANDB_RESUME", "word", "resume='word': Input should be 'allow', 'must'"),
        ("WANDB_HTTP_TIMEOUT", "word", "x_graphql_timeout_seconds='word': Input should be a valid number"),
        ("WANDB_RUN_ID", "a/b", "Run ID cannot contain the characters"),
    ],
)
def test_a_wrong_variable_of_wandb_is_refused(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    remedy = "" if variable == "WANDB_MODE" else "; change the override of logger.wandb or the variable WANDB_..."
    refused(run(*SMALL, "trainer.max_steps=1", "logger=wandb"), message, remedy)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("logger.wandb.project=a/b", "Invalid project name 'a/b'"),
        ("+logger.wandb.mode=word", "mode='word': Input should be"),
        ("+logger.wandb.nothing=1", "logger.wandb.nothing: WandbLogger has no such parameter; remove it"),
        ("+logger.wandb.experiment=word", "logger.wandb.experiment: WandbLogger has no such parameter; remove it"),
        ("+logger.wandb.job_type=0", "run_job_type=0: Input should be a valid string"),
    ],
)
def test_a_wrong_argument_of_wandb_is_refused(run: Callable[..., Outcome], override: str, message: str) -> None:
    refused(run(*SMALL, "trainer.max_steps=1", "logger=wandb", override), message)


def test_a_sweep_may_be_requested_between_overrides(run: Callable[..., Outcome]) -> None:
    refused(run("seed=1", "-m", "optimizer.lr=1,2", "hydra/sweeper=word"), "hydra/sweeper=word: no such option")


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("data.root=/a=b", "quote it: 'data.root=\"/a=b\"'"),
        ("data.root=/a(b", "quote it: 'data.root=\"/a(b\"'"),
        ("data.root=/a[1]", "quote it: 'data.root=\"/a[1]\"'"),
        ("data.root={a", "quote it: 'data.root=\"{a\"'"),
        ("data.root=/a,b", "several values need -m; if this is a single value, quote it: 'data.root=\"/a,b\"'"),
        ("data.root=~/a", "write data.root=$HOME/a"),
        ("data.reader.group=(.*)/", "quote it: 'data.reader.group=\"(.*)/\"'"),
    ],
)
def test_a_value_that_hydra_cannot_parse_is_told_with_its_quotes(
    run: Callable[..., Outcome], override: str, remedy: str
) -> None:
    refused(run("data=folder", override), override, remedy)
    quoted = remedy.partition("quote it: ")[2]
    if quoted:  # as a shell passes it on
        key, _, value = override.partition("=")
        settings = compose_train(["data=folder", *shlex.split(quoted)])
        assert OmegaConf.select(settings, key) == value


def test_a_refused_run_leaves_no_folder(run: Callable[..., Outcome], tmp_path: Path) -> None:
    refused(run(*SMALL, "seed=-1"), "seed=-1")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").touch()
    refused(run(*SMALL, "seed=-1"), "seed=-1")
    assert (tmp_path / "run" / "mine.txt").exists()


def test_runs_that_start_at_the_same_time_have_folders_of_their_own(tmp_path: Path) -> None:
    new_folder.cache_clear()
    (tmp_path / "day" / "run").mkdir(parents=True)
    (tmp_path / "day" / "run-2").mkdir()
    assert new_folder(str(tmp_path / "day" / "run")) == str(tmp_path / "day" / "run-3")
    assert new_folder(str(tmp_path / "day" / "run")) == str(tmp_path / "day" / "run-3")  # once for each process
    assert (tmp_path / "day" / "run-3").is_dir()


def test_a_loss_that_is_not_a_number_stops_the_run_with_its_lines(run: Callable[..., Outcome]) -> None:
    outcome = run(*SMALL, "trainer.max_epochs=3", "logger=csv", "optimizer.lr=1e30", "trainer.gradient_clip_val=null")
    refused(outcome, "the loss is nan (lines: synthetic/train/", "reduce optimizer.lr")


def test_a_run_ends_early_with_its_reason(run: Callable[..., Outcome]) -> None:
    outcome = run(*SMALL, "trainer.max_epochs=4", "logger=csv", "callbacks=early_stopping",
                  "callbacks.early_stopping.patience=1", "+callbacks.early_stopping.min_delta=1e9")  # fmt: skip
    assert outcome.code == 0
    assert "stopped early: Monitored metric val/loss did not improve" in outcome.stdout


def test_characters_that_training_lacks_are_noted(run: Callable[..., Outcome], tmp_path: Path) -> None:
    for name, text in (("train", "aba"), ("val", "abc d"), ("test", "ab")):
        (tmp_path / name).mkdir()
        for number in range(3):
            drawn = np.full((40, 120), 255, np.uint8)
            cv2.putText(drawn, text, (5, 30), cv2.FONT_HERSHEY_SIMPLEX, 1, 0, 2)
            assert cv2.imwrite(str(tmp_path / name / f"{number}.png"), drawn)
            (tmp_path / name / f"{number}.gt.txt").write_text(text)
    outcome = run("data=folder", f"data.root={tmp_path}", *SMALL[3:], "trainer.max_steps=1", "logger=csv")
    assert outcome.code == 0, outcome.stderr
    assert "note: characters in val that do not occur in the training texts and cannot" in outcome.stdout
    assert "transcribed (3): ' ' (U+0020) c d" in outcome.stdout
    assert "characters in test" not in outcome.stdout


def test_lines_without_room_are_counted_in_one_line(run: Callable[..., Outcome], tmp_path: Path) -> None:
    for name, texts in (("train", ["abc"] * 8 + ["a" * 90] * 5), ("val", ["abc"] * 8), ("test", ["abc"] * 8)):
        (tmp_path / name).mkdir()
        for number, text in enumerate(texts):
            assert cv2.imwrite(str(tmp_path / name / f"{number}.png"), np.full((40, 90), 200, np.uint8))
            (tmp_path / name / f"{number}.gt.txt").write_text(text)
    outcome = run("data=folder", f"data.root={tmp_path}", *SMALL[3:], "trainer.max_epochs=3", "logger=csv")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stderr.count("too few frames") == 1
    assert "lines with too few frames for their text are left out of the loss (5; first: " in outcome.stderr


def test_lines_without_room_stop_a_run_that_has_no_others(run: Callable[..., Outcome], tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        (tmp_path / name).mkdir()
        for number in range(100 if name == "train" else 4):
            assert cv2.imwrite(str(tmp_path / name / f"{number}.png"), np.full((40, 30), 200, np.uint8))
            (tmp_path / name / f"{number}.gt.txt").write_text("abcdefghijklmnopqrstuvwxyz" * 3)
    outcome = run("data=folder", f"data.root={tmp_path}", *SMALL[3:], "trainer.max_epochs=3")
    refused(outcome, "none of the first 200 training lines has enough frames for its text (first: ")
