"""Every key in conf/ refuses values of the wrong type or out of range, in one line with the key and a remedy."""

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from conftest import CONF
from omegaconf import OmegaConf

from htr_lightning.config import compose_train, plain
from htr_lightning.errors import InputError
from htr_lightning.parameters import check_parameters
from htr_lightning.training.checks import check_settings

VALUES: list[Any] = [0, -1, None, "word", 10**12, "", float("nan"), float("inf"), 1e-400, [], {}, True, 0.5, [0], [{}]]
COMPOSED = (
    ["model=crnn_classic"],
    ["model=cnn"],
    ["model=crnn_attention", "optimizer=sam"],
    ["model=trocr_pretrained", "optimizer=adam"],
    ["logger=[tensorboard,mlflow,trackio]"],
)


def objects(config: Any) -> Iterator[dict[str, Any]]:
    """Return the configs of all objects in a nested config, outer objects first."""
    if isinstance(config, dict | list):
        if isinstance(config, dict) and "_target_" in config:
            yield config
        for value in config.values() if isinstance(config, dict) else config:
            yield from objects(value)


@cache
def every_key() -> list[tuple[dict[str, Any], tuple[str, ...]]]:
    """Return each key of each class in conf/ once, with the config of its object; a key may lead into a plain dict."""
    found: dict[Any, tuple[dict[str, Any], tuple[str, ...]]] = {}
    incomplete = set()
    files = [plain(compose_train(["run_dir=runs/x", "name=x", *choices])) for choices in COMPOSED]
    own = sorted(path for path in CONF.rglob("*.yaml") if CONF / "hydra" not in path.parents)  # Hydra checks the others
    files += [OmegaConf.to_container(OmegaConf.load(path)) for path in own]
    for config in objects(files):
        config = {key: value for key, value in config.items() if "${" not in str(value) or isinstance(value, dict)}
        config["_partial_"] = True
        if refusal(config, ("_partial_",), True):
            incomplete.add(config["_target_"])  # the rest is in another file
            continue
        for key, value in config.items():
            inner = value if isinstance(value, dict) and "_target_" not in value else {}
            for keys in [(key,), *((key, name) for name in inner)]:
                if key != "_partial_":
                    found.setdefault((config["_target_"], keys), (config, keys))
    assert incomplete <= {target for target, _ in found}
    return list(found.values())


def refusal(config: dict[str, Any], keys: tuple[str, ...], value: Any) -> str:
    """Return the message with which a value is refused, or an empty string if it is accepted."""
    changed = copy.deepcopy(config)
    inner = changed
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    try:
        check_parameters(changed, "it")
    except InputError as error:
        return str(error)
    return ""


def test_a_wrong_value_of_any_key_is_refused_by_key_and_value() -> None:
    assert len(every_key()) > 250
    for config, keys in every_key():
        for value in VALUES:
            message = refusal(config, keys, value)  # any other exception fails the test
            if message:
                assert message.startswith(f"it.{keys[0]}"), message
                assert ": expected " in message or "no such class" in message, message
                assert "\n" not in message


def accepted(config: dict[str, Any], keys: tuple[str, ...]) -> list[Any]:
    """Return the values of the wrong type, and those far out of range, that a number or a switch accepts."""
    value: Any = config
    for key in keys:
        value = value[key]
    wrong: list[Any] = ["word", float("nan"), float("inf"), [], {}]
    if type(value) is bool:
        wrong += [0, -1, 10**12, 0.5]
    elif type(value) in (int, float):
        wrong += [True, 10**12, -(10**12)]
    else:
        return []
    return [one for one in wrong if not refusal(config, keys, one)]


def test_every_number_has_a_range_and_every_switch_is_true_or_false() -> None:
    for config, keys in every_key():
        if config["_target_"].startswith("htr_lightning."):
            assert accepted(config, keys) == [], f"{config['_target_']}: {keys}"


class Planted:
    def __init__(self, size: int, shut: Any) -> None: ...


def test_a_number_without_a_range_would_be_found() -> None:
    config = {"_target_": f"{__name__}.Planted", "_partial_": True, "size": 3, "shut": False}
    assert accepted(config, ("size",)) == [10**12, -(10**12)]
    assert len(accepted(config, ("shut",))) == 9


SAM: dict[str, Any] = {"_target_": "htr_lightning.optim.SAM", "_partial_": True}
SQUARE: dict[str, Any] = {"_target_": "htr_lightning.data.character.FixedSize", "height": 8, "columns": 8}

COMPOSE: dict[str, Any] = {"_target_": "htr_lightning.augment.Compose"}
FADE: dict[str, Any] = {"_target_": "htr_lightning.augment.Fade", "p": 0.5, "min_contrast": 0.5}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_target_": "htr_lightning.net.Missing"}, "it._target_=htr_lightning.net.Missing: no such class or function"),
        ({"_target_": None}, "it._target_=null: no such class or function"),
        ({"_target_": ".a.b"}, "it._target_=.a.b: no such class or function"),
        (
            {"_target_": "htr_lightning.net.cnn.CNN", "_partial_": True, "backbone": {"_target_": "no.Net"}},
            "it.backbone._target_=no.Net: no such class or function",
        ),
        (SAM | {"roh": 1}, "it.roh: SAM has no such parameter; did you mean it.rho?"),
        (SAM, "it.base: missing; SAM expects a config with _partial_: true"),
        (SAM | {"_partial_": 1}, "it._partial_=1: expected true or false"),
        (SQUARE | {"box": {"_target_": "torch.nn.ReLU"}}, "it.box={'_target_': 'torch.nn.ReLU'}: expected an integer"),
        ({"a": [SQUARE | {"box": 0}]}, "it.a.0.box=0: expected an integer from 1 to 4096"),
        (COMPOSE | {"transforms": [FADE, 0]}, "it.transforms.1=0: expected a config with _partial_: true"),
        (
            COMPOSE | {"transforms": [FADE, {"_target_": "no"}]},
            "it.transforms.1._target_=no: no such class or function",
        ),
        (SAM | {"base": {"_target_": "no", "_partial_": True}}, "it.base._target_=no: no such class or function"),
    ],
)
def test_a_config_that_describes_no_object_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        check_parameters(config, "it")
    assert message in str(error.value)


def test_a_section_of_a_run_is_checked() -> None:
    settings = plain(compose_train(["run_dir=runs/x", "name=x", "trainer=cpu"]))
    check_settings(settings)
    wrong: dict[str, list[tuple[Any, str]]] = {
        "seed": [(-1, "seed=-1: expected an integer from 0 to 4294967295"), (None, "seed=null: expected an integer")],
        "threads": [(0, "threads=0: expected an integer from 1 to 1024"), (10**12, "threads=1000000000000: expected")],
        "keep_alphabet": [("no", "keep_alphabet=no: expected true or false")],
        "compile": [
            ("maybe", "compile=maybe: expected true, false or a backend: "),
            (1, "compile=1: expected true or"),
        ],
        "start": [(0, "start=0: expected a path or null")],
        "model": [({}, "model={}: expected a config with _partial_: true")],
        "data": [(None, "data=null: expected a config for LineDataModule")],
        "trainer": [("gpu", "trainer=gpu: expected a config for Trainer")],
        "callbacks": [({"last": 0}, "callbacks.last=0: expected a config for Callback")],
        "logger": [([], "logger=[]: expected values by key")],
    }
    for key, cases in wrong.items():
        for value, expected in cases:
            with pytest.raises(InputError) as error:
                check_settings(settings | {key: value})
            assert expected in str(error.value)
