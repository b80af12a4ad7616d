"""A benchmark measures each row once, goes on where it stopped, and its tables are those of the stored results."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import SMALL, Outcome

from htr_lightning import checkpoint
from htr_lightning.data.files import file_hash
from htr_lightning.errors import InputError
from htr_lightning.evidence.benchmark import Benchmark
from htr_lightning.evidence.benchmark_plan import filled, load_plan, table_of
from htr_lightning.evidence.compare import System, compare, find_systems
from htr_lightning.evidence.runs import predictions
from htr_lightning.evidence.table import FORMATS
from htr_lightning.metrics.edits import count_edits

ROOT = Path(__file__).parent.parent.parent
STORED = ROOT / "experiments" / "benchmarks"
TEST = ["data=synthetic", *SMALL[:3]]
PLAN = {
    "overrides": [*SMALL, "trainer.max_epochs=2"],
    "seeds": [0, 1],
    "train": {"drawn": "data=synthetic"},
    "models": {"crnn": "model=crnn"},
    "decoders": {"greedy": "greedy", "6-gram": "tune --order 3", "beam 4": "decoder=beam decoder.width=4"},
    "test": {"few": TEST},
}


def write_plan(folder: Path, **changes: object) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(PLAN | changes, sort_keys=False))
    return path


class Trained:
    """What stands in for `htr train` and `htr tune-decoder`: copies what they made, and notes what it is asked for."""

    def __init__(self, run_folder: Path) -> None:
        self.run_folder, self.asked = run_folder, list[list[str]]()

    def __call__(self, words: list[str]) -> None:
        self.asked.append(list(words))
        if words[0] == "train":
            (place,) = (word.partition("=")[2].strip('"') for word in words if word.startswith("hydra.run.dir="))
            shutil.copytree(self.run_folder, place, dirs_exist_ok=True)
            own = [word for word in words[1:] if not word.startswith("hydra.")]
            (Path(place) / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(own))
        else:
            Path(words[-1]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(words[1], words[-1])


def test_rows_are_measured_once(run_folder: Path, tmp_path: Path) -> None:
    path, train = write_plan(tmp_path), Trained(run_folder)
    runs = tmp_path / "runs"

    def measure() -> list[bool]:
        found = list(Benchmark(load_plan(path), runs, "cpu", train).measure())
        assert not [result for _, result, _ in found if isinstance(result, InputError)]
        return [is_new for _, _, is_new in found]

    assert measure() == [True, True, True]
    assert sorted(words[0] for words in train.asked) == ["train", "train", "tune-decoder", "tune-decoder"]
    best = runs / "drawn-crnn-seed0" / "checkpoints" / "best.ckpt"
    (tuned,) = [words for words in train.asked if words[:2] == ["tune-decoder", str(best)]]
    data = ["data=synthetic", *(one for one in SMALL if one.startswith("data."))]
    assert sorted(tuned[2:]) == sorted([*data, "--order", "3", "--out", str(best.with_name("best-6-gram.ckpt"))])
    assert measure() == [False, False, False]
    assert len(train.asked) == 4
    plan = load_plan(path)
    (plan.results / "drawn_crnn_greedy_few.json").unlink()
    assert measure() == [True, False, False]
    assert len(train.asked) == 4
    folders = [runs / f"drawn-crnn-seed{seed}" / "checkpoints" / "evaluate-greedy-few" for seed in (0, 1)]
    stored = plan.stored(plan.rows[0])
    totals = [count_edits(*zip(*((p.reference, p.hypothesis) for p in predictions(folder / "predictions.jsonl")),
                               strict=True)) for folder in folders]  # fmt: skip
    assert stored["edits"] == [one.edits for one in totals]
    assert stored["cer"] == pytest.approx(sum(one.cer for one in totals) / 2)
    (first,), _ = find_systems([str(folders[0])])
    (score,) = compare([System("", first.members)]).scores
    assert stored["cer_interval"] == score.intervals.cer._asdict()  # the same checkpoint twice
    assert stored["cer_sd"] == 0
    assert stored["commands"][-1] == f"htr evaluate RUN/checkpoints/best.ckpt {' '.join(map(quoted, TEST))} --greedy"
    beam = json.loads((plan.results / "drawn_crnn_beam-4_few.json").read_text())
    assert beam["conditions"]["decoder"]["width"] == 4
    for form in FORMATS.values():
        assert all(name in form(table_of(plan)) for name in ("greedy", "6-gram", "beam 4"))
    last, done = runs / "drawn-crnn-seed1" / "checkpoints" / "last.ckpt", runs / "drawn-crnn-seed1" / "summary.json"
    done.unlink()  # as if it had been killed
    shutil.rmtree(plan.results)
    assert measure() == [True, True, True]
    assert train.asked[-1][-1] == f'resume="{last}"'
    write_plan(tmp_path, overrides=[*PLAN["overrides"], "optimizer.lr=1e-3"])
    found = [result for _, result, _ in Benchmark(load_plan(path), runs, "cpu", train).measure()]
    assert all("drawn-crnn-seed0: contains another run" in str(result) for result in found)


@pytest.mark.slow
def test_a_copy_is_made_again_for_another_decoder_or_checkpoint(
    best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACE", str(tmp_path))
    for name in ("a.ckpt", "b.ckpt"):
        content = checkpoint.read(best)
        content["htr"]["note"] = name  # another file
        checkpoint.write(content, tmp_path / name)
    tuned = Trained(tmp_path)

    def measure(width: int, order: int, model: str = "a.ckpt") -> list[bool]:
        decoders = {"beam": f"decoder=beam decoder.width={width}", "lm": f"tune --order {order}"}
        path = write_plan(tmp_path, train={}, models={"mine": f"$PLACE/{model}"}, decoders=decoders)
        found = list(Benchmark(load_plan(path), tmp_path / "runs", "cpu", tuned).measure())
        assert not [result for _, result, _ in found if isinstance(result, InputError)]
        assert found[0][1]["conditions"]["decoder"]["width"] == width
        assert {result["source_sha256"] for _, result, _ in found} == {file_hash(tmp_path / model)}
        return [is_new for _, _, is_new in found]

    assert measure(4, 4) == [True, True]
    assert measure(4, 4) == [False, False]
    assert measure(5, 4) == [True, False]
    assert measure(5, 5) == [False, True]
    assert [words[3] for words in tuned.asked] == ["4", "5"]
    assert measure(5, 5, "b.ckpt") == [True, True]
    shutil.copy(tmp_path / "a.ckpt", tmp_path / "b.ckpt")
    assert measure(5, 5, "b.ckpt") == [True, True]
    assert [words[3] for words in tuned.asked] == ["4", "5", "5", "5"]


def test_the_column_of_the_decoders_is_left_out_if_all_are_as_saved(tmp_path: Path) -> None:
    for decoders, shown in ({"as saved": "as saved"}, False), ({"as saved": "as saved", "greedy": "greedy"}, True):
        plan = load_plan(write_plan(tmp_path, train={}, models={"mine": "a.ckpt"}, decoders=decoders))
        plan.results.mkdir(exist_ok=True)
        (stored,) = STORED.glob("shipped/*greedy*.json")
        for row in plan.rows:
            plan.file_of(row).write_text(json.dumps(json.loads(stored.read_text()) | row._asdict()))
        assert ("decoder" in [column.title for column in table_of(plan).columns]) == shown


def quoted(word: str) -> str:
    return f"'{word}'" if re.search(r"[{\[]", word) else word


def test_a_row_that_fails_is_named_and_the_others_are_measured(
    best: Path, htr: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models = {"here": str(best), "gone": "gone.ckpt"}
    write_plan(tmp_path, train={}, models=models, decoders={"greedy": "greedy"})
    found = htr("benchmark", "plan.yaml", "--device", "cpu")
    assert found.code == 1
    assert "1/2 here · greedy · few: CER" in found.stderr
    assert "error: gone · greedy · few: plan.yaml: gone.ckpt: no such checkpoint; correct models.gone" in found.stderr
    assert "here" in found.stdout
    assert "here" in (tmp_path / "runs" / "benchmark" / "plan" / "table.tsv").read_text()
    write_plan(tmp_path, train={}, models={"here": str(best)}, decoders={"greedy": "greedy"})
    readme = tmp_path / "README.md"
    readme.write_text("Before\n<!-- benchmark plan -->\n<!-- end of benchmark -->\nAfter\n")
    assert htr("benchmark", "plan.yaml", "--into", "README.md").code == 0
    assert "| here |" in readme.read_text()
    assert filled(readme) == readme.read_text()
    (result,) = (tmp_path / "plan").glob("*.json")
    result.write_text(result.read_text().replace('"cer": ', '"cer": 1'))
    assert filled(readme) != readme.read_text()
    assert "(stored)" in htr("benchmark", "plan.yaml").stderr
    result.write_text(re.sub(r'("source_sha256": )"\w+"', r'\1"other"', result.read_text()))
    assert "(stored)" not in htr("benchmark", "plan.yaml").stderr  # measured again with the checkpoint that is there
    result.write_text("{}")
    assert "not a stored result" in htr("benchmark", "plan.yaml").stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {}}, "unknown key model; use train, models"),
        ({"models": "model=crnn"}, "models=model=crnn: expected names with overrides"),
        ({"models": {}}, "expected names with overrides"),
        ({"models": {"crnn": 3}}, "models.crnn=3: expected overrides as one text"),
        ({"models": {"crnn": "'model=crnn"}}, "close the quotes"),
        ({"seeds": 3}, "seeds=3: expected a list of integers"),
        ({"train": {}}, "nothing to measure"),
        ({"test": {"a b": "data=synthetic", "a?b": "data=synthetic"}}, "two names differ only in characters"),
    ],
)
def test_a_faulty_plan_is_refused_by_key(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"plan\.yaml: ") as error:
        load_plan(write_plan(tmp_path, **changes))
    assert message in str(error.value)


def test_a_variable_that_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = load_plan(write_plan(tmp_path))
    monkeypatch.setenv("PLACE", "/data")
    assert plan.expanded(["data.root=$PLACE/x"]) == ["data.root=/data/x"]
    with pytest.raises(InputError, match=r"plan\.yaml: \$NOWHERE is not set"):
        plan.expanded(["data.root=$NOWHERE/x"])


def test_the_plan_in_the_documentation_is_valid(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "paper.md").read_text(), re.M | re.DOTALL)
    (tmp_path / "plan.yaml").write_text(text)
    assert len(load_plan(tmp_path / "plan.yaml").rows) == 3 * 2 + 2 * 3 * 2


def test_tables_in_the_results_are_those_of_stored_results() -> None:
    readme = ROOT / "experiments" / "README.md"
    text = readme.read_text(encoding="utf-8")
    assert filled(readme) == text, "stale: repeat htr benchmark FILE.yaml --into experiments/README.md"
    shown = re.findall(r"<!-- benchmark (\S+) -->", text)
    assert shown == [f"benchmarks/{path.stem}" for path in sorted(STORED.glob("*.yaml"))]
    for path in STORED.glob("*.yaml"):
        plan = load_plan(path)
        names = {plan.file_of(row).name for row in plan.rows}
        assert {file.name for file in plan.results.iterdir()} == names  # none of another plan
        assert all(map(Benchmark(plan, Path("runs")).current, plan.rows)), f"stale: repeat htr benchmark {path}"


@pytest.mark.slow
def test_a_killed_benchmark_goes_on(tmp_path: Path) -> None:
    lines = [one for one in SMALL if not one.startswith("data.reader.lines")]
    lines += ["data.reader.lines={train: 960, val: 16, test: 24}", "trainer.max_epochs=3", "logger=csv"]
    path = write_plan(tmp_path, overrides=lines, seeds=[0], decoders={"greedy": "greedy"})
    command = [sys.executable, "-m", "htr_lightning", "benchmark", str(path), "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
    run = tmp_path / "runs" / "benchmark" / "plan" / "drawn-crnn-seed0"
    while not (run / "checkpoints" / "last.ckpt").is_file():
        assert first.poll() is None
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (run / "summary.json").exists()
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "1/1 drawn · crnn · greedy · few: CER" in again.stderr
    assert "resume=" in (run / ".hydra" / "overrides.yaml").read_text()
