"""A checkpoint is plain data: no code in it is run, and other files are rejected."""

import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MODELS
from hydra import compose

from htr_lightning import torch_file
from htr_lightning.build import build, data_for
from htr_lightning.checkpoint import load, read
from htr_lightning.config import fast_precision, make, options, plain
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.decoder.ctc import Greedy
from htr_lightning.decoder.language import Language
from htr_lightning.decoder.ngram import NGram
from htr_lightning.errors import InputError
from htr_lightning.hydra_version import initialize_config_dir
from htr_lightning.model.base import Recognizer
from htr_lightning.net.gated import GatedCRNN
from htr_lightning.slots import FORMAT, check_config, check_target
from htr_lightning.training.module import TrainingModule

CONF = Path(__file__).parent.parent / "conf"
GOOD = {"htr": {"format": FORMAT, "alphabet": ["a"]}, "state_dict": {"w": torch.zeros(3)}}
SMALL_NET = ["model.net={width: 16, hidden: 8, layers: 1}", "model.net.backbone.channels=[4, 4, 4]"]


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("slot", "target"),
    [
        ("model", "htr_lightning.model.ctc.CTCRecognizer"),
        ("net", "htr_lightning.net.crnn.CRNN"),
        ("decoder", "htr_lightning.decoder.prefix_beam.PrefixBeam"),
        ("preprocess", "htr_lightning.data.preprocess.FitHeight"),
        ("preprocess", "htr_lightning.data.character.FixedSize"),
        ("reader", "htr_lightning.data.reader.folder.Folder"),
        ("listing", "htr_lightning.data.reader.listing.Pairs"),
        ("optimizer", "torch.optim.AdamW"),
        ("scheduler", "htr_lightning.schedule.OneCycle"),
    ],
)
def test_classes_are_allowed_in_their_slot_only(slot: str, target: str) -> None:
    check_target(target, slot, "x.ckpt")
    other = "net" if slot == "decoder" else "decoder"
    with pytest.raises(InputError, match=r"x\.ckpt: uses"):
        check_target(target, other, "x.ckpt")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "posix.system",
        "builtins.eval",
        "htr_lightning.errors.InputError",
        "htr_lightning.data.pack.PackWriter",
        "htr_lightning.data.reader.mnist.Mnist",
        "htr_lightning.model.trocr_pretrained.PretrainedTrOCRRecognizer",
        "htr_lightning.training.module.TrainingModule",
        "htr_lightning.net.vit.torch.load",
        "htr_lightning.net.vit.nn.Module",
        "htr_lightning.net.crnn.CTCNet.forward",
        "htr_lightning.__main__.app",
        "subprocess.Popen",
        "htr_lightning.checkpoint.os.system",
        "htr_lightning.checkpoint.os",
        "htr_lightning.checkpoint.subprocess.run",
        "htr_lightning.checkpoint.import_module",
        "htr_lightning.checkpoint.instantiate",
        "htr_lightning.checkpoint.torch.load",
        "htr_lightning.checkpoint.Path",
        "htr_lightning.checkpoint.PACKAGE",
        "htr_lightning.checkpoint.nothing",
        "htr_lightning.nothing.at_all",
        "htr_lightning.checkpoint",
        "htr_lightning",
        "htr_lightning_evil.code",
        "htr_lightning..os",
        ".os.system",
        "system",
        "",
        None,
        1,
        ["os.system"],
        {"_target_": "os.system"},
    ],
)
def test_other_targets_are_rejected_with_the_file_name(target: Any) -> None:
    with pytest.raises(InputError, match=r"x\.ckpt: uses"):
        check_target(target, "net", "x.ckpt")


def test_a_package_is_allowed_by_its_exact_name_and_base_class() -> None:
    check_target("torch.nn.Linear", "net", "x.ckpt", ["torch"])
    for target, allow in (("torch.nn.Linear", "tor"), ("torch.Generator", "torch"), ("os.system", "torch")):
        with pytest.raises(InputError, match="uses"):
            check_target(target, "net", "x.ckpt", [allow])


@pytest.mark.parametrize(
    "part",
    [
        lambda path: {"_target_": "os.mkdir", "path": path},
        lambda path: [{"_target_": "os.mkdir", "path": path}],
        lambda path: ({"_target_": "os.mkdir", "path": path},),
        lambda path: f'${{oc.create:{{_target_:os.mkdir,path:"{path}"}}}}',
        lambda path: {"_target_": "${evil}", "path": path},
        lambda path: {"_target_": "htr_lightning.checkpoint.os.mkdir", "path": path},
    ],
    ids=["dict", "list", "tuple", "resolver", "interpolated name", "through the package"],
)
def test_a_checkpoint_with_foreign_code_is_rejected_without_running_it(tmp_path: Path, part: Any) -> None:
    made = tmp_path / "made"
    model = {
        "_target_": "htr_lightning.model.ctc.CTCRecognizer",
        "_partial_": True,
        "normalizer": part(str(made)),
        "evil": "os.mkdir",
    }
    path = saved(tmp_path / "evil.ckpt", GOOD | {"htr": GOOD["htr"] | {"model": model}})
    with pytest.raises(InputError, match=r"evil\.ckpt"):
        load(path)
    assert not made.exists()


class Runs:
    """An object that runs code when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("writer", ["pickle", "torch", "legacy torch"])
def test_pickled_objects_are_rejected_without_running_them(tmp_path: Path, writer: str) -> None:
    content = GOOD | {"evil": Runs(str(tmp_path / "made"))}
    path = tmp_path / "evil.ckpt"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(InputError, match=r"evil\.ckpt"):
        read(path)
    assert not (tmp_path / "made").exists()


def test_a_written_checkpoint_is_read_back(tmp_path: Path) -> None:
    content = read(saved(tmp_path / "good.ckpt", GOOD))
    assert content["htr"] == GOOD["htr"]
    assert torch.equal(content["state_dict"]["w"], torch.zeros(3))


def test_a_newer_format_is_rejected_with_both_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path / "new.ckpt", GOOD | {"htr": {"format": FORMAT + 1}})
    with pytest.raises(InputError, match=f"format {FORMAT + 1} .* up to {FORMAT}\\); upgrade"):
        read(path)


@pytest.mark.parametrize(
    "content", [{}, [], 3, None, {"htr": None}, {"htr": {}}, {"htr": {"format": "1"}}, {"state_dict": {}}]
)
def test_a_checkpoint_from_another_program_is_rejected(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InputError, match="not written by htr_lightning"):
        read(saved(tmp_path / "other.ckpt", content))


def test_a_missing_file_and_a_folder_are_rejected_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.ckpt: checkpoint not found"):
        read(tmp_path / "nothing.ckpt")
    with pytest.raises(InputError, match=r"is a folder; choose a checkpoint file"):
        read(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"text\n", b"\x80\x02", b"\x80\x02.", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", b"K\x01.", b"0"]
)
def test_other_files_are_rejected_with_the_file_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.ckpt"):
        read(tmp_path / "bad.ckpt")


def test_random_bytes_are_rejected(tmp_path: Path) -> None:
    dice, path = random.Random(0), tmp_path / "bad.ckpt"
    for size in [1, 2, 3, 5, 10, 100, 1000] * 40:
        path.write_bytes(dice.choice([b"", b"\x80\x02", b"}", b"("]) + dice.randbytes(size))
        with pytest.raises(InputError, match=r"bad\.ckpt"):
            read(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_corrupted_checkpoint_is_either_read_or_rejected(tmp_path: Path, zipped: bool) -> None:
    good, path, dice = tmp_path / "good.ckpt", tmp_path / "bad.ckpt", random.Random(0)
    torch.save(GOOD, good, _use_new_zipfile_serialization=zipped)
    content = good.read_bytes()
    refused: list[str] = []
    for attempt in range(150):
        damaged = bytearray(content[: dice.randrange(len(content))] if attempt < 50 else content)
        for _ in range(0 if attempt < 50 else 3):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            assert read(path)["htr"]["format"] <= FORMAT
        except InputError as error:
            refused.append(str(error))
    assert refused
    assert all("bad.ckpt" in message for message in refused)


def test_direction_and_mirrored_characters_survive(tmp_path: Path, write_page: Callable[..., Path]) -> None:
    write_page(tmp_path / "pages", ["(אב", "גב"])
    overrides = ["data=page_xml", f"data.root={tmp_path / 'pages'}", "data.reader.splits=null", "model.direction=rtl"]
    with initialize_config_dir(str(CONF)):
        config = compose("train", overrides=["run_dir=runs/test", "name=test", *overrides])
    _, recognizer = build(config)
    assert recognizer.codec.alphabet == ["(", "א", "ב", "ג", ")"]
    loaded = load(saved(tmp_path / "x.ckpt", {"htr": recognizer.card, "state_dict": recognizer.state_dict()}))
    assert loaded.codec.alphabet == recognizer.codec.alphabet
    assert loaded.direction == "rtl"
    checkpoint: dict[str, Any] = {"state_dict": recognizer.state_dict()}
    module = TrainingModule(recognizer)
    module.on_save_checkpoint(checkpoint)
    module.on_load_checkpoint(checkpoint)  # resuming takes it


@pytest.mark.parametrize(("bf16", "amx"), [(False, False), (True, False), (False, True)])
def test_bfloat16_is_used_if_the_processor_supports_it(monkeypatch: pytest.MonkeyPatch, bf16: bool, amx: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a GPU is no reason where training is on the CPU
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert fast_precision("cpu") == ("bf16-mixed" if bf16 or amx else "32-true")
    assert fast_precision("gpu") == "bf16-mixed"


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF)):
        config = compose("train", overrides=["run_dir=runs/test", "name=test", *overrides])
    return plain(config)


def content_of(*overrides: str, alphabet: str = "ab") -> dict[str, Any]:
    """Return the content of a checkpoint of an untrained model."""
    settings = composed(*overrides)
    recognizer: Recognizer = make(settings["model"], "model")(alphabet=alphabet)
    model = {key: value for key, value in settings["model"].items() if key not in ("optimizer", "scheduler")}
    card = {"format": FORMAT, "alphabet": list(alphabet), "model": model, "training": {"data": settings["data"]}}
    return {"htr": card, "state_dict": recognizer.state_dict()}


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_rebuilt_with_its_weights(tmp_path: Path, model: str) -> None:
    content = content_of(f"model={model}")
    loaded = load(saved(tmp_path / "x.ckpt", content)).state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in content["state_dict"].items())
    assert loaded.keys() == content["state_dict"].keys()


@pytest.mark.parametrize("decoder", options("decoder"))
def test_every_decoder_is_allowed(decoder: str) -> None:
    check_config(composed(f"decoder={decoder}")["decoder"], "decoder", "x.ckpt")


@pytest.mark.parametrize("data", options("data"))
def test_every_data_config_is_allowed(data: str) -> None:
    config = composed(f"data={data}")["data"]
    config["reader"].pop("fetch", None)  # as `data_for` does
    unused = ("preprocess", "normalizer", "augment", "replay")
    check_config({key: value for key, value in config.items() if key not in unused}, "data", "x.ckpt")


def test_a_language_model_is_loaded(tmp_path: Path) -> None:
    content = content_of("decoder=beam", *SMALL_NET)
    ngram = NGram.estimate(["abba", "baab"], 3)
    language = {key: torch.from_numpy(v) if hasattr(v, "dtype") else v for key, v in ngram.to_plain().items()}
    recognizer = load(saved(tmp_path / "x.ckpt", content | {"language": {"ngram": language, "lexicon": ["ab"]}}))
    assert not isinstance(recognizer.decoder, Greedy)
    again = Language.from_plain({"ngram": language, "lexicon": None}).ngram
    assert again is not None
    assert again.log_prob("abba") == ngram.log_prob("abba")


def nested(levels: int) -> list[Any]:
    result: list[Any] = []
    for _ in range(levels):
        result = [result]
    return result


def doubled(levels: int) -> list[Any]:
    result: list[Any] = ["lol"] * 10
    for _ in range(levels):
        result = [result] * 10
    return result


def at(content: dict[str, Any], path: str, value: Any) -> None:
    """Set a value in nested dicts."""
    *folders, name = path.split("/")
    for folder in folders:
        content = content.setdefault(folder, {})
    content[name] = value


NGRAM = {"order": 2, "symbols": ["a"], "log_probs": torch.zeros(5), "backoffs": torch.zeros(2)}
LOOP = NGRAM | {"last": torch.tensor([0, 1, 0, 1]), "children": torch.tensor([2, 2])}  # no unigram of <unk>
HUGE = NGRAM | {"last": torch.arange(4), "children": torch.tensor([4, 10**12])}
HOSTILE: dict[str, tuple[str, Any, str]] = {
    "writer": ("htr/model/net", {"_target_": "htr_lightning.data.pack.PackWriter"}, "as net, which is not allowed"),
    "reader": (
        "htr/model/decoder",
        {"_target_": "htr_lightning.data.reader.mnist.Mnist"},
        "as decoder, which is not allowed",
    ),
    "object in data": ("htr/model/normalizer/replace", {"a": {"_target_": "os.system"}}, "uses 'os.system'"),
    "no object": ("htr/model", {"net": 1}, "contains no model config"),
    "interpolation": ("htr/model/normalizer/form", "${oc.env:HOME}", "could run"),
    "interpolated key": ("htr/model/normalizer/replace", {"${oc.env:HOME}": "a"}, "invalid key"),
    "positional arguments": ("htr/model/net/_args_", [1], "invalid key"),
    "source": ("parts", {"source": "somebody/else"}, "invalid parts"),
    "setting as part": ("parts", {"normalizer": 1}, "invalid parts"),
    "source of a network": (
        "htr/model/net",
        {"_target_": "htr_lightning.model.trocr_pretrained.PretrainedTrOCRRecognizer", "source": "somebody/else"},
        "as net, which is not allowed",
    ),
    "layers": ("htr/model/net/layers", 10**7, "layers is out of range"),
    "no rows": ("htr/model/preprocess/height", 0, "model.preprocess.height=0: expected an integer from 1"),
    "negative width": ("htr/model/preprocess/max_width", -1, "model.preprocess.max_width=-1: expected an integer"),
    "direction": ("htr/model/direction", "sideways", "model.direction=sideways: expected one of"),
    "replaced nothing": ("htr/model/normalizer/replace", {"": "x"}, "cannot replace the empty string"),
    "unknown setting": ("htr/model/zzz", 1, "model.zzz: CTCRecognizer has no such parameter"),
    "more layers than weights": ("htr/model/net/layers", 256, "more layers than its weights"),
    "width": ("htr/model/net/hidden", 10**4, "do not match"),
    "line size": ("htr/model/preprocess/max_width", 10**6 * 5, "out of range|too large"),
    "beam": ("htr/model/decoder/width", 10**6, "decoder.width is out of range"),
    "not plain": ("htr/model/net/dropout", torch.zeros(1), "not plain data"),
    "nesting": ("extra", nested(200), "nested more than"),
    "repetition": ("extra", doubled(20), "contain each other"),
    "bytes from nowhere": ("extra", bytearray(10), "pickled objects"),
    "expanded tensor": ("state_dict/net.head.bias", torch.zeros(1).expand(10**12), "larger than the file"),
    "weight that is a number": ("state_dict/net.head.bias", 1, "no weights"),
    "alphabet": ("htr/alphabet", ["${oc.env:HOME}"], "invalid alphabet"),
    "no characters": ("htr/alphabet", [], "invalid alphabet"),
    "repeated character": ("htr/alphabet", ["a", "a"], "invalid alphabet"),
    "lone surrogate": ("htr/alphabet", ["a", "\udc00"], "invalid alphabet"),
    "n-grams": ("language", {"ngram": HUGE, "lexicon": None}, "do not match"),
    "endless n-grams": ("language", {"ngram": LOOP, "lexicon": None}, "do not match"),
}


@pytest.mark.parametrize("target", ["good.ckpt", "/dev/zero", None])
def test_only_regular_files_and_links_to_them_are_read(tmp_path: Path, target: str | None) -> None:
    saved(tmp_path / "good.ckpt", GOOD)
    path = tmp_path / "x.ckpt"
    if target is None:
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    if target == "good.ckpt":
        assert read(path)["htr"] == GOOD["htr"]
    else:
        with pytest.raises(InputError, match=r"x\.ckpt: is not a regular file"):
            read(path)


WEIGHTS = {
    "nan": (torch.tensor([1.0, float("nan")]), "w contains values that are not finite"),
    "infinity": (torch.tensor([1.0, float("-inf")]), "w contains values that are not finite"),
    "complex": (torch.ones(2, dtype=torch.complex64), r"w has the type torch\.complex64"),
    "int8": (torch.ones(2, dtype=torch.int8), r"w has the type torch\.int8"),
    "bool": (torch.ones(2, dtype=torch.bool), r"w has the type torch\.bool"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_cannot_be_used_are_named(tmp_path: Path, name: str) -> None:
    weight, message = WEIGHTS[name]
    with pytest.raises(InputError, match=rf"x\.ckpt: .*{message}"):
        read(saved(tmp_path / "x.ckpt", GOOD | {"state_dict": {"w": weight}}))


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_weights_of_other_types_are_read(tmp_path: Path, kind: torch.dtype) -> None:
    content = read(saved(tmp_path / "x.ckpt", GOOD | {"state_dict": {"w": torch.ones(2, dtype=kind)}}))
    assert content["state_dict"]["w"].dtype == kind


@pytest.mark.parametrize("number", [True, 0, -1, 1.0, "1", None])
def test_a_format_that_is_no_positive_integer_is_rejected(tmp_path: Path, number: Any) -> None:
    with pytest.raises(InputError, match="not written by htr_lightning"):
        read(saved(tmp_path / "x.ckpt", GOOD | {"htr": GOOD["htr"] | {"format": number}}))


def replaced_pickle(path: Path, content: bytes) -> Path:
    """A checkpoint with another pickle, which no pickler would write."""
    good = saved(path.parent / "good.ckpt", GOOD)
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith("data.pkl") else old.read(name))
    return path


# A tuple that contains the previous one twice, 60 times
BOMB = b")q\0" + b"h\0\x86q\0" * 60
ORDERED = b"ccollections\nOrderedDict\n"
PICKLES = {
    "key that takes years to hash": b"\x80\x02}(" + BOMB + b"K\1u.",
    "storage named by it": b"\x80\x02" + BOMB + b"Q.",
    "dict that hides its content": b"\x80\x02" + ORDERED + b")R}(X\6\0\0\0values" + ORDERED + b"ub.",
    "nothing": b"\x80\x02.",
    "mark without an end": b"\x80\x02(.",
    "end without a mark": b"\x80\x02t.",
    "unknown memo": b"\x80\x02h\5.",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_that_no_pickler_writes_is_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"x\.ckpt: is not a checkpoint"):
        read(replaced_pickle(tmp_path / "x.ckpt", PICKLES[name]))


def test_tuples_shared_by_parameter_groups_are_read(tmp_path: Path) -> None:
    betas = (0.9, 0.999)
    groups = [{"betas": betas, "params": [index]} for index in range(2000)]
    assert read(saved(tmp_path / "x.ckpt", GOOD | {"optimizer_states": groups}))["optimizer_states"] == groups


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_checkpoint_is_rejected_in_one_line(tmp_path: Path, name: str) -> None:
    where, value, message = HOSTILE[name]
    content = content_of("decoder=beam", *SMALL_NET)
    at(content, where, value)
    path = saved(tmp_path / "evil.ckpt", content)
    with pytest.raises(InputError, match=message) as refused:
        load(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", ["compressed", "twice", "many records", "comment"])
def test_an_archive_that_torch_would_not_write_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    good, path = saved(tmp_path / "good.ckpt", GOOD), tmp_path / "evil.ckpt"
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name), zipfile.ZIP_DEFLATED if change == "compressed" else None)
        if change == "twice":
            new.writestr("good/DATA.pkl", old.read("good/data.pkl"))
        new.comment = b"hello" if change == "comment" else b""
    if change == "many records":
        monkeypatch.setattr(torch_file, "MAX_DIRECTORY", 100)
    with pytest.raises(InputError, match=r"evil\.ckpt: is not a checkpoint"):
        read(path)


def test_a_pickle_of_too_many_objects_is_rejected_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "x.ckpt", GOOD | {"extra": [[] for _ in range(1000)]})
    read(path)
    monkeypatch.setattr(torch_file, "MAX_OPCODES", 1000)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(InputError, match="more than 1,000 objects"):
        read(path)


def test_a_network_is_compared_with_the_weights_before_it_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(*SMALL_NET)
    content["htr"]["model"]["net"]["hidden"] = 9
    devices: list[str] = []
    build_net = GatedCRNN.__init__

    def watch(self: GatedCRNN, *values: Any, **named: Any) -> None:
        devices.append(str(torch.get_default_device()))
        build_net(self, *values, **named)

    monkeypatch.setattr(GatedCRNN, "__init__", watch)
    with pytest.raises(InputError, match=r"expected \(54, 16\), got \(48, 16\)"):
        load(saved(tmp_path / "x.ckpt", content))
    assert devices == ["meta"]


def test_data_named_in_a_checkpoint_are_neither_fetched_nor_resolved(
    tmp_path: Path, make_recognizer: Callable[..., Recognizer], capsys: pytest.CaptureFixture[str]
) -> None:
    def data(reader: dict[str, Any], **settings: Any) -> LineDataModule:
        recognizer = make_recognizer()
        own = composed("data=folder")["data"] | settings | {"reader": {"_partial_": True, **reader}}
        recognizer.card = {"alphabet": recognizer.alphabet, "training": {"data": own}}
        return data_for(recognizer)

    package = "htr_lightning.data.reader"
    mnist = {"_target_": f"{package}.mnist.Mnist", "download": True}
    with pytest.raises(InputError, match="no such folder"):
        data(mnist, root=str(tmp_path / "new")).lines("test")
    assert not (tmp_path / "new").exists()
    hub = {"_target_": f"{package}.huggingface.HuggingFace", "repo": "a/b", "splits": {"test": "test"}}
    with pytest.raises(InputError, match=r"data\.repo is not set"):
        data(hub).lines("test")
    for reader in ({"_target_": "htr_lightning.data.htr_united.fetch"}, {"_target_": "htr_lightning.data.pack.Pack"}):
        with pytest.raises(InputError, match="as reader, which is not allowed"):
            data(reader)
    with pytest.raises(InputError, match="could run"):
        data(mnist, root="${oc.env:HOME}")
    with pytest.raises(InputError, match="out of range"):
        data({"_target_": f"{package}.synthetic.Synthetic", "lines": {"test": 10**12}})
    with pytest.raises(InputError, match="neither a file nor a folder"):
        data({"_target_": f"{package}.synthetic.Synthetic", "words": "/dev/zero"})
    capsys.readouterr()
    data(mnist, root=str(tmp_path))
    assert f"reading data.root={tmp_path}, which the checkpoint's config names" in capsys.readouterr().err
    recognizer = make_recognizer()
    recognizer.card = {"alphabet": ["a"], "training": 3}
    with pytest.raises(InputError, match="contains no data"):
        data_for(recognizer)
