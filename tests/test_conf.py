"""Every config key is a parameter of the object it builds, and all combinations compose."""

import inspect
import os
import re
import shlex
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra_plugins.hydra_joblib_launcher.config import JobLibLauncherConf
from hydra_plugins.hydra_submitit_launcher import config as submitit
from lightning import Trainer
from omegaconf import OmegaConf

from htr_lightning.config import compose_train, cpu_threads, fast_precision
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.data.split import group_pattern
from htr_lightning.errors import InputError
from htr_lightning.hydra_version import initialize_config_dir

CONF = Path(__file__).parent.parent / "conf"
HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
# Handed over by the program once it exists: the alphabet, the count of classes, parameters, the split.
PARTIAL = {"alphabet", "classes", "params", "optimizer", "progress", "split", "channels", "memory"}


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF)):
        config = compose("train", overrides=["run_dir=runs/test", "name=test", *overrides])
    return OmegaConf.to_container(config, resolve=True)


def nodes(config: Any, path: str = "") -> list[tuple[str, dict]]:
    if isinstance(config, dict):
        own = [(path, config)] if "_target_" in config else []
        return own + [found for key, value in config.items() for found in nodes(value, f"{path}.{key}")]
    return [found for value in config for found in nodes(value, path)] if isinstance(config, list) else []


def parameters(target: str) -> tuple[set[str], set[str], bool]:
    """Return all parameters, those without a default, and whether any keyword is accepted."""
    module, _, name = target.rpartition(".")
    made = getattr(import_module(module), name)
    accepted, required, open_ended = set(), set(), False
    classes = made.__mro__ if inspect.isclass(made) else [None]
    for owner in classes:  # a class that takes **others passes them to its base
        signature = inspect.signature(made if owner is None else owner.__init__)
        some = [p for p in signature.parameters.values() if p.name != "self"]
        kinds = {p.kind for p in some}
        accepted |= {p.name for p in some if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if owner is None or owner is classes[0]:
            required = {p.name for p in some if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD}
        open_ended = inspect.Parameter.VAR_KEYWORD in kinds
        if not open_ended:
            break
    return accepted, required, open_ended


def check_keys(config: dict[str, Any]) -> None:
    found = nodes(config)
    assert len(found) > 10
    for path, node in found:
        accepted, required, open_ended = parameters(node["_target_"])
        keys = set(node) - HYDRA_KEYS
        unknown = keys - accepted
        assert open_ended or not unknown, f"{path}: {node['_target_']} has no parameter {unknown}"
        missing = required - keys - (PARTIAL if node.get("_partial_") else set())
        assert not missing, f"{path}: {node['_target_']} needs {missing}"


@pytest.mark.parametrize("data", names("data"))
@pytest.mark.parametrize(
    "model", [m if m in ("crnn", "mlp") else pytest.param(m, marks=pytest.mark.slow) for m in names("model")]
)
def test_every_model_composes_with_every_data_and_every_key_is_a_parameter(model: str, data: str) -> None:
    check_keys(composed(f"model={model}", f"data={data}"))


GROUPS = ("model", "augment", "decoder", "optimizer", "scheduler", "trainer", "logger", "callbacks")


@pytest.mark.parametrize("override", [f"{group}={name}" for group in GROUPS for name in names(group)])
def test_every_option_in_every_group_composes(override: str) -> None:
    check_keys(composed(override))


@pytest.mark.parametrize("path", sorted((CONF / "hydra").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_key_of_a_sweeper_or_launcher_is_a_parameter(path: Path) -> None:
    config = OmegaConf.to_container(OmegaConf.load(path))
    keys = set(config) - HYDRA_KEYS | {next(iter(one)) for one in config.get("defaults", [])} - {"defaults"}
    plugin = config["_target_"].rpartition(".")[2]
    if plugin in ("LocalLauncher", "SlurmLauncher"):  # their parameters are fields of another class
        kind = submitit.BaseQueueConf if plugin == "LocalLauncher" else submitit.SlurmQueueConf
        accepted = {field.name for field in fields(kind)}
    elif plugin == "JoblibLauncher":
        accepted = {field.name for field in fields(JobLibLauncherConf)}
    else:
        accepted, required, _ = parameters(config["_target_"])
        assert plugin != "OptunaSweeper" or required == keys - {"defaults"}
    assert keys - {"defaults"} <= accepted


EXPERIMENTS = sorted((CONF.parent / "experiments").glob("*.yaml"))


@pytest.mark.parametrize("path", [p for p in EXPERIMENTS if "fine_tune" not in p.stem], ids=lambda path: path.stem)
def test_every_experiment_composes(path: Path) -> None:
    config = composed(f"experiment={path.stem}")
    check_keys(config)
    assert config["trainer"]["accelerator"] == "auto"
    assert config["trainer"]["max_time"] or config["trainer"]["max_epochs"] > 0 or config["trainer"]["max_steps"] > 0


@pytest.mark.parametrize(
    ("overrides", "decoder"),
    [
        (["model=hybrid"], "rescoring.Rescoring"),
        (["model=hybrid", "decoder=autoregressive_greedy"], "autoregressive.Greedy"),
        (["model=trocr"], "autoregressive.Greedy"),
        (["experiment=copiste_crnn_attention"], "rescoring.Rescoring"),
    ],
)
def test_each_model_has_its_default_decoder(overrides: list[str], decoder: str) -> None:
    assert composed(*overrides)["model"]["decoder"]["_target_"] == f"htr_lightning.decoder.{decoder}"


def test_the_same_preprocessing_reaches_model_and_data() -> None:
    config = composed("model=crnn", "data=copiste", "model.preprocess.height=48")
    assert config["data"]["preprocess"] == config["model"]["preprocess"]
    assert config["data"]["preprocess"]["height"] == 48


def test_a_user_recipe_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text("defaults: [seed_mlp, _self_]\nseed: 7\n")
    config = compose_train(["experiment=mine", "run_dir=x", "name=x"])
    assert (config.seed, config.optimizer.lr) == (7, 1e-3)
    (tmp_path / "experiments" / "broken.yaml").write_text("seed: [")
    with pytest.raises(InputError, match=r"broken\.yaml: invalid YAML"):
        compose_train(["experiment=mine"])


def test_every_argument_of_the_trainer_can_be_overridden() -> None:
    trainer = composed()["trainer"]
    arguments = inspect.signature(Trainer).parameters
    assert set(trainer) - HYDRA_KEYS == set(arguments)
    listed = (CONF / "trainer" / "default.yaml").read_text().partition("# Lightning's own defaults")[2]
    own = [line.partition(":")[0] for line in listed.splitlines() if ":" in line and not line.startswith("#")]
    assert len(own) > 15
    assert {key: trainer[key] for key in own} == {key: arguments[key].default for key in own}


@pytest.mark.parametrize("has_gpu", [False, True])
def test_recipes_take_the_device_that_is_there(monkeypatch: pytest.MonkeyPatch, has_gpu: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    config = composed("experiment=copiste_20min")
    expected = ("bf16-mixed", 4, 16) if has_gpu else (fast_precision("cpu"), 0, 8)
    assert (config["trainer"]["precision"], config["data"]["workers"], config["data"]["max_lines"]) == expected
    on_cpu = composed("experiment=copiste_20min", "trainer.accelerator=cpu")
    assert (on_cpu["trainer"]["precision"], on_cpu["data"]["max_lines"]) == (fast_precision("cpu"), 8)


@pytest.mark.parametrize(("cores", "devices", "expected"), [(1, 1, 1), (2, 1, 2), (8, 1, 2), (8, 2, 1), (2, "auto", 2)])
def test_two_threads_are_used_by_one_process_with_two_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, devices: int | str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert cpu_threads("cpu", devices) == expected


def test_suggested_overrides_work_when_pasted_into_a_shell() -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted(CONF.rglob("*.yaml"))]
    with pytest.raises(InputError) as refused:
        group_pattern("x")
    found = re.findall(r"'data\.[^']*'", "\n".join([*texts, str(refused.value)]))
    assert len(found) >= 4
    for suggestion in found:
        (argument,) = shlex.split(suggestion)
        (override,) = OverridesParser.create().parse_overrides([argument])
        assert override.key_or_group == "data.reader.group"
        group_pattern(override.value())
        composed("data=page_xml", argument)


@pytest.mark.parametrize(("group", "expected"), [("(.+)/", ["a", "a/b"]), ("(.+?)_", ["x", "y"])])
def test_the_suggested_groups_are_folders_and_beginnings(
    tmp_path: Path, write_page, group: str, expected: list[str]
) -> None:
    write_page(tmp_path / "a", ["un"], "x_1")
    write_page(tmp_path / "a" / "b", ["deux"], "y_1")
    assert sorted(PageXml(tmp_path, group=group).groups) == expected
