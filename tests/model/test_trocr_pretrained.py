"""A pretrained TrOCR model is trained, saved and used like any other; tested offline with a tiny random model."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_train

from htr_lightning import checkpoint
from htr_lightning.build import data_for
from htr_lightning.data.batch import Batch, collate
from htr_lightning.data.preprocess import FitFrame
from htr_lightning.decoder.autoregressive import Beam, Greedy
from htr_lightning.errors import InputError
from htr_lightning.evidence import evaluate
from htr_lightning.model import trocr_pretrained, trocr_source
from htr_lightning.model.autoregressive import IGNORED, teacher_forcing
from htr_lightning.model.base import Recognizer
from htr_lightning.model.trocr_pretrained import PretrainedTrOCRRecognizer
from htr_lightning.net.pretrained import PretrainedTrOCR
from htr_lightning.text.normalize import Normalizer
from htr_lightning.training import fine_tune

transformers = pytest.importorskip("transformers")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

SIZE = (32, 128)
TEXTS = ["the cat", "a dog", "to read", "one line", "the end", "no cat", "a line", "read on"]
MARKS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def bytes_tokenizer() -> Any:
    """Return a byte-pair tokenizer like that of RoBERTa and trocr-base."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def pieces_tokenizer() -> Any:
    """Return a sentencepiece tokenizer like that of XLM-R and trocr-small."""
    pieces = ["▁", *"abcdefghijklmnopqrstuvwxyz", "▁the", "ne"]
    scores = [(mark, 0.0) for mark in MARKS[:4]] + [(piece, -float(len(piece) == 1)) for piece in pieces]
    return transformers.XLMRobertaTokenizer(vocab=[*scores, ("<mask>", 0.0)])


def save(folder: Path, kind: str = "vit", tokenizer: Any = None, **decoder: Any) -> Path:
    """Return a folder in which `save_pretrained` wrote a tiny TrOCR model with random weights."""
    torch.manual_seed(0)
    tokenizer = tokenizer or bytes_tokenizer()
    settings = {"vit": transformers.ViTConfig, "deit": transformers.DeiTConfig}[kind]
    encoder = settings(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=list(SIZE),
        patch_size=[16, 8], qkv_bias=False,
    )  # fmt: skip
    words = transformers.TrOCRConfig(
        vocab_size=len(tokenizer) + 3, d_model=48, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=64,
        max_position_embeddings=40, cross_attention_hidden_size=32, init_std=0.2, **decoder,
    )  # fmt: skip
    model = transformers.VisionEncoderDecoderModel(
        encoder={"vit": transformers.ViTModel, "deit": transformers.DeiTModel}[kind](encoder),
        decoder=transformers.TrOCRForCausalLM(words),
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("source"))


def recognizer_of(source: Path | str | None, alphabet: str | None = None, **others: Any) -> PretrainedTrOCRRecognizer:
    settings: dict[str, Any] = {
        "decoder": Greedy(20), "normalizer": Normalizer(), "preprocess": FitFrame(*SIZE, keep_aspect=False),
        "dropout": 0.0, "source": None if source is None else str(source),
    }  # fmt: skip
    return PretrainedTrOCRRecognizer(alphabet or sorted(set("".join(TEXTS))), **(settings | others)).eval()


def batch_of(texts: list[str], seed: int = 0) -> Batch:
    torch.manual_seed(seed)
    names = [f"line {number}" for number in range(len(texts))]
    return collate(names, [torch.rand(*SIZE).numpy() for _ in texts], texts, names)


def read(recognizer: Recognizer, batch: Batch) -> list[str]:
    return [one.hypothesis for one in recognizer.predict(batch)]


def overrides(source: Path, *further: str) -> list[str]:
    return [
        "model=trocr_pretrained", f"model.source={source}", "data=synthetic", "data.reader.length=[1, 2]",
        "data.reader.lines={train: 16, val: 4, test: 4}", "data.reader.writers={train: 4, val: 1, test: 1}",
        f"model.preprocess.height={SIZE[0]}", f"model.preprocess.columns={SIZE[1]}", "decoder.max_length=20",
        "data.workers=0", "trainer.max_time=null", "trainer.val_check_interval=1.0", "optimizer.lr=3e-3",
        "trainer.check_val_every_n_epoch=1", "trainer.log_every_n_steps=1", *further,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run whose source has been deleted."""
    argv = list(sys.argv)
    folder = tmp_path_factory.mktemp("runs")
    try:
        source = save(folder / "source")
        run_train(folder / "run", *overrides(source, "trainer.max_epochs=2"))
        shutil.rmtree(source)
    finally:
        sys.argv = argv
    return folder


@pytest.mark.parametrize(
    ("kind", "tokenizer", "decoder"),
    [
        ("vit", bytes_tokenizer, {}),
        ("deit", pieces_tokenizer, {"scale_embedding": True, "activation_function": "relu"}),
        ("vit", bytes_tokenizer,
         {"use_learned_position_embeddings": False, "layernorm_embedding": False, "tie_word_embeddings": False}),
    ],
    ids=["base", "small", "stage1"],
)  # fmt: skip
def test_it_reads_as_transformers_generates(
    tmp_path: Path, kind: str, tokenizer: Callable[[], Any], decoder: dict[str, Any]
) -> None:
    save(tmp_path, kind, tokenizer(), **decoder)
    recognizer = recognizer_of(tmp_path)
    mapped = transformers.AutoTokenizer.from_pretrained(tmp_path)
    model = transformers.VisionEncoderDecoderModel.from_pretrained(tmp_path).eval()
    places = model.decoder.model.decoder.embed_positions
    if hasattr(places, "weights"):  # transformers 5.23 leaves them on the meta device
        places.weights = places.get_embedding(42, 48, 1)
    images = batch_of(TEXTS).images
    pixels = ((1 - images) - 0.5).expand(-1, 3, -1, -1) / 0.5
    marks = {"decoder_start_token_id": 2, "eos_token_id": 2, "pad_token_id": 1, "bos_token_id": None}
    settings = transformers.GenerationConfig(**marks, max_new_tokens=20, do_sample=False)
    with torch.inference_mode():
        ids = model.generate(pixels, generation_config=settings)
    theirs = [recognizer.normalizer(text) for text in mapped.batch_decode(
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)]  # fmt: skip
    assert read(recognizer, batch_of(TEXTS)) == theirs
    assert any(theirs)


def test_pixels_are_those_of_its_own_processor() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 700), dtype=np.uint8)
    processor = transformers.ViTImageProcessorPil(size={"height": 384, "width": 384}, resample=2)
    theirs = processor(np.stack([image] * 3, 2), return_tensors="pt").pixel_values[0]
    ours = 1 - 2 * torch.from_numpy(FitFrame(384, 384, keep_aspect=False, polarity="dark")(image)).expand(3, -1, -1)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_the_loss_is_that_of_transformers(source: Path) -> None:
    recognizer, batch = recognizer_of(source), batch_of(TEXTS[:3])
    model = transformers.VisionEncoderDecoderModel.from_pretrained(source).eval()
    model.config.decoder_start_token_id, model.config.pad_token_id = recognizer.start, recognizer.pad
    targets = [recognizer.target(text, "line") for text in batch.texts]
    inputs, labels = teacher_forcing(targets, recognizer.start, recognizer.end, recognizer.pad, torch.device("cpu"))
    assert inputs[:, 0].tolist() == [2, 2, 2]  # as in pretraining, not <s>
    assert (labels == IGNORED).sum() == sum(len(labels[0]) - 1 - len(target) for target in targets)
    with torch.no_grad():
        theirs = model(pixel_values=(1 - 2 * batch.images).expand(-1, 3, -1, -1), labels=labels).loss
        torch.testing.assert_close(recognizer.loss(batch), theirs)
        total, count = recognizer.summed_loss(recognizer.net(batch.images, batch.widths), batch)
        torch.testing.assert_close(total / count, theirs)
        assert recognizer.units(batch) == count == (labels != IGNORED).sum()
        log_probs = recognizer.net.logits(recognizer.net(batch.images, batch.widths), inputs).log_softmax(2)
        spread = -log_probs[labels != IGNORED].mean()  # averaged over all tokens of all lines
        torch.testing.assert_close(recognizer_of(source, label_smoothing=0.1).loss(batch), 0.9 * theirs + 0.1 * spread)


def test_the_loss_falls(source: Path) -> None:
    recognizer, batch = recognizer_of(source, gradient_checkpointing=True).train(), batch_of(TEXTS)
    optimizer = torch.optim.AdamW(recognizer.parameters(), 3e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = recognizer.loss(batch)
        loss.backward()
        assert all(
            p.grad is not None for p in recognizer.parameters()
        )  # with several ranks, all of them wait for each weight
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_a_line_reads_the_same_alone_and_in_a_batch_and_every_line_ends(source: Path) -> None:
    recognizer, batch = recognizer_of(source), batch_of(TEXTS)
    together = recognizer.predict(batch)
    for row, one in enumerate(together):
        alone = Batch(*(part[row : row + 1] for part in batch))
        assert recognizer.predict(alone)[0].hypothesis == one.hypothesis
    assert len({one.hypothesis for one in together}) > 1
    short = recognizer_of(source, decoder=Greedy(3))
    with torch.inference_mode():
        found = short.decoder(*short.scores(short.net(batch.images, batch.widths)))
    assert max(len(one.ids) for one in found) == 3
    assert all(0 < one.confidence <= 1 for one in together if one.hypothesis)


def test_a_beam_of_one_is_greedy_and_a_wide_one_finds_more_likely_texts(source: Path) -> None:
    batch = batch_of(TEXTS)
    assert read(recognizer_of(source, decoder=Beam(1, 20)), batch) == read(recognizer_of(source), batch)
    recognizer = recognizer_of(source, decoder=Beam(4, 20))
    for one in recognizer.transcribe(batch.images, batch.widths, 4):
        scores = [alternative.score for alternative in one.alternatives]
        assert scores == sorted(scores, reverse=True)
        assert len({alternative.text for alternative in one.alternatives}) == len(one.alternatives) > 1
    with torch.inference_mode():
        (steps,) = recognizer.scores(recognizer.net(batch.images, batch.widths))
        found = [search(steps) for search in (Greedy(20), Beam(8, 20))]
    assert sum(one.log_prob for one in found[1]) > sum(one.log_prob for one in found[0])


def test_characters_that_the_tokenizer_cannot_encode_are_refused_or_skipped(tmp_path: Path) -> None:
    save(tmp_path, tokenizer=pieces_tokenizer())
    alphabet = "acdot ½é"
    recognizer = recognizer_of(tmp_path, alphabet)
    assert recognizer.codec.alphabet == list("acdot ")
    with pytest.raises(InputError, match=r"^line 7: the model's tokenizer cannot encode '½' \(U\+00BD\).*unknown=skip"):
        recognizer.check_targets(["line 7"], ["a ½ cat"])
    with pytest.raises(InputError, match=r"^line 8: 'h' \(U\+0068\) is not in the alphabet"):
        recognizer.check_targets(["line 8"], ["the cat"])
    skipping = recognizer_of(tmp_path, alphabet, unknown="skip")
    assert skipping.check_targets(["a", "b"], ["a ½ cat", "½é"]) == {"½": 2, "é": 1}
    assert skipping.target("a½ cat", "a") == skipping.target("a cat", "a")
    everything = recognizer_of(save(tmp_path / "bytes"), "日é½� a")
    everything.check_targets(["a"], ["日é½ a"])


def test_a_text_longer_than_max_length_is_refused(source: Path) -> None:
    recognizer = recognizer_of(source, decoder=Greedy(4))
    with pytest.raises(InputError, match=r"^line 1: the text has \d+ tokens, more than decoder.max_length=4"):
        recognizer.check_targets(["line 0", "line 1"], ["a cat", "one dog to read"])


def test_what_does_not_fit_the_source_is_refused(source: Path) -> None:
    with pytest.raises(
        InputError, match=r"32 x 32 pixels, but the source expects 128 x 32; set model.preprocess.height=32"
    ):
        recognizer_of(source, preprocess=FitFrame(32, 32, keep_aspect=False))
    with pytest.raises(InputError, match=r"decoder.max_length=40: must be less than 40"):
        recognizer_of(source, decoder=Greedy(40))


def test_a_missing_or_wrong_source_is_refused_in_one_line(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"^model.source=microsoft/trocr-small-handwritten: no such folder"
                       r", and https://huggingface.co/microsoft/trocr-small-handwritten cannot be downloaded "
                       r"\(.*offline.*\); .*hf download") as told:  # fmt: skip
        recognizer_of("microsoft/trocr-small-handwritten")
    assert "\n" not in str(told.value)
    with pytest.raises(InputError, match=r"missing: no such folder; check the path"):
        recognizer_of(tmp_path / "missing")
    with pytest.raises(InputError, match=r"no config\.json"):
        recognizer_of(tmp_path)
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="expected a vit or deit encoder with a trocr decoder, got vit"):
        recognizer_of(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        recognizer_of(tmp_path)
    for left_out, told_of in {"model.safetensors": "no weights", "tokenizer.json": "cannot load the model"}.items():
        broken = tmp_path / f"without {left_out}"
        shutil.copytree(source, broken)
        (broken / left_out).unlink()
        with pytest.raises(InputError, match=told_of) as told:
            recognizer_of(broken)
        assert "\n" not in str(told.value)
    (broken / "sentencepiece.bpe.model").touch()
    monkeypatch.setattr(trocr_source, "find_spec", lambda package: None)
    with pytest.raises(InputError, match="pip install sentencepiece"):
        recognizer_of(broken)
    shutil.copyfile(source / "tokenizer.json", broken / "tokenizer.json")
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot load the model"):
        recognizer_of(broken)


def test_a_repository_is_downloaded_once_with_one_set_of_weights(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub as hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[Any] = []

    def snapshot(name: str, local_files_only: bool = False, **how: Any) -> str:
        if local_files_only and not asked:
            raise LocalEntryNotFoundError("not here")
        asked.append(how.get("allow_patterns"))
        return str(source)

    class Api:
        def model_info(self, name: str, timeout: float) -> Any:
            names = ["README.md", "pytorch_model.bin", "model.safetensors", "config.json"]
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setattr(hub, "HfApi", Api)
    recognizer_of("somebody/trocr")
    assert asked == [["*.json", "*.txt", "*.model", "model.safetensors"]]
    recognizer_of("somebody/trocr")
    assert asked[1] is None  # from the cache


def test_that_it_cannot_be_exported_is_said(source: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be exported, since its tokenizer .* use a checkpoint of model=trocr"):
        recognizer_of(source).exportable()


def test_without_the_package_its_extra_is_named(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"transformers is not installed; run pip install 'htr-lightning\[trocr\]'"):
        recognizer_of(source)


@pytest.mark.slow  # a new process imports everything again
def test_a_checkpoint_reads_the_same_in_a_fresh_process_without_its_source(
    run: Path, tmp_path: Path, line_image: Path
) -> None:
    best = run / "run" / "checkpoints" / "best.ckpt"
    recognizer = checkpoint.load(best)
    assert "source" not in recognizer.card["model"]
    assert "source" in recognizer.card["training"]
    here = evaluate.evaluate(recognizer, data_for(recognizer), "test")[0]
    command = [sys.executable, "-m", "htr_lightning", "evaluate", best, "--out", tmp_path, "--device", "cpu"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(map(str, command), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    there = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert [eval(line)["hypothesis"] for line in there] == [one.hypothesis for one in here]


def test_resume_and_start_need_no_source(run: Path, tmp_path: Path) -> None:
    last = run / "run" / "checkpoints" / "last.ckpt"
    old = checkpoint.read(last)
    run_train(tmp_path / "on", *overrides(run / "source", "trainer.max_epochs=3", f"resume={last}"))
    new = checkpoint.read(tmp_path / "on" / "checkpoints" / "last.ckpt")
    assert new["global_step"] > old["global_step"]
    assert new["parts"] == old["parts"]
    run_train(tmp_path / "from", *overrides(run / "source", "trainer.max_epochs=1", f"start={last}"))


def test_all_alternatives_of_a_beam_are_printed(
    run: Path, line_image: Path, htr: Callable[..., Any], tmp_path: Path
) -> None:
    content = checkpoint.read(run / "run" / "checkpoints" / "best.ckpt")
    content["htr"]["model"]["decoder"] = {
        "_target_": "htr_lightning.decoder.autoregressive.Beam", "width": 3, "max_length": 20,
    }  # fmt: skip
    torch.save(content, path := tmp_path / "beam.ckpt")
    told = htr("transcribe", path, line_image, "--format", "jsonl", "--n-best", 2, "--device", "cpu")
    assert told.code == 0, told.stderr
    assert '"alternatives": [{' in told.stdout
    greedy = htr("transcribe", path, line_image, "--greedy", "--device", "cpu")
    assert greedy.code == 0, greedy.stderr


def test_a_checkpoint_opens_no_source_and_builds_nothing_else(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trocr_pretrained, "open_source", None)

    def changed(change: Callable[[dict[str, Any]], Any]) -> Path:
        content = checkpoint.read(run / "run" / "checkpoints" / "best.ckpt")
        change(content)
        torch.save(content, path := tmp_path / "changed.ckpt")
        return path

    def foreign(content: dict[str, Any]) -> None:
        del content["parts"]
        content["htr"]["model"]["source"] = "somebody/else"

    with pytest.raises(InputError, match="set it to the folder"):
        checkpoint.load(changed(foreign))
    for change in (
        lambda content: content["parts"].update(tokenizer="{"),
        lambda content: content["parts"]["architecture"].pop("start"),
        lambda content: content["parts"]["architecture"]["encoder"].update(hidden_size="wide"),
        lambda content: content["parts"].update(nothing=1),
        lambda content: content["parts"]["architecture"]["encoder"].update(num_hidden_layers=10**8),
        lambda content: content["parts"]["architecture"]["decoder"].update(decoder_ffn_dim=10**9),
        lambda content: content["parts"]["architecture"]["decoder"].update(max_position_embeddings=10**9),
    ):
        with pytest.raises(InputError, match="config and weights do not match"):
            checkpoint.load(changed(change))
    for parts in ([1], {"source": "somebody/else"}, {"normalizer": 1}):
        with pytest.raises(InputError, match="invalid parts"):
            checkpoint.load(changed(lambda content, parts=parts: content.update(parts=parts)))
    for parts in ({}, {"architecture": None, "tokenizer": None}):
        with pytest.raises(InputError, match="set it to the folder"):
            fine_tune.offer(str(changed(lambda content, parts=parts: content.update(parts=parts))))
    with pytest.raises(InputError, match="expects images of 100000 x 100000 pixels"):
        checkpoint.load(changed(lambda content: content["parts"]["architecture"]["encoder"].update(image_size=10**5)))
    with pytest.raises(InputError, match="unsupported encoder 'bert'"):
        checkpoint.load(changed(lambda content: content["parts"]["architecture"]["encoder"].update(model_type="bert")))
    hidden = {"auto_map": {"AutoModel": "somebody/else--code.Model"}, "_attn_implementation": "somebody/kernel"}
    checkpoint.load(changed(lambda content: content["parts"]["architecture"]["decoder"].update(hidden)))


@pytest.mark.slow
def test_it_overfits_eight_lines(source: Path, tmp_path: Path) -> None:
    run_train(
        tmp_path, *overrides(source, "trainer.max_steps=400", "trainer.max_epochs=-1", "model.dropout=0.0"),
        "data.reader.lines={train: 8, val: 1, test: 1}", "trainer.check_val_every_n_epoch=100",
    )  # fmt: skip
    recognizer = checkpoint.load(tmp_path / "checkpoints" / "last.ckpt")
    _, totals = evaluate.evaluate(recognizer, data_for(recognizer), "train")
    assert (totals.lines, totals.edits) == (8, 0)


def test_base_has_the_size_that_was_published() -> None:
    encoder = {"model_type": "vit", "image_size": 384, "qkv_bias": False}
    decoder = {"cross_attention_hidden_size": 768, "tie_word_embeddings": True, "use_learned_position_embeddings": True}
    with torch.device("meta"):
        net = PretrainedTrOCR(encoder, decoder)
    assert sum(p.numel() for p in net.parameters()) == 333_921_792 - 768 * 769  # without the unused pooler
