"""The loss of an autoregressive recognizer matches its definition, and decoding always ends."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose
from omegaconf import OmegaConf

from htr_lightning.data.batch import Batch, collate
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.decoder.autoregressive import Beam, Greedy
from htr_lightning.decoder.rescoring import Rescoring
from htr_lightning.errors import InputError
from htr_lightning.hydra_version import initialize_config_dir, instantiate
from htr_lightning.model.line import ctc_loss
from htr_lightning.model.seq2seq import END, START, Seq2SeqRecognizer
from htr_lightning.net.backbone import ResidualBackbone
from htr_lightning.net.crnn import CRNN
from htr_lightning.net.encoder_decoder import EncoderDecoder
from htr_lightning.net.recurrent_decoder import RecurrentDecoder
from htr_lightning.net.transformer_decoder import TransformerDecoder
from htr_lightning.net.vit import ViT
from htr_lightning.text.normalize import Normalizer

TRANSFORMER = partial(TransformerDecoder, width=24, depth=2, heads=3, dropout=0.0)
RECURRENT = partial(RecurrentDecoder, width=24, attention=10, dropout=0.0)


def recognizer(decoder=None, network=TRANSFORMER, ctc: bool = False, **others) -> Seq2SeqRecognizer:
    torch.manual_seed(0)

    def net(classes: int) -> EncoderDecoder:
        return EncoderDecoder(
            classes,
            lambda count: CRNN(count, ResidualBackbone([8, 12], [1, 1], [[2, 2], [2, 1]], 8), hidden=9, layers=1),
            lambda count, channels: network(count, channels),
            ctc,
        )

    parts = {
        "normalizer": Normalizer(collapse_spaces=False),
        "preprocess": FitHeight(16),
        "shortcut_weight": 0.3,
    } | others
    return Seq2SeqRecognizer("ab ", net, decoder or Greedy(50), **parts).eval()


def batch(*texts: str) -> Batch:
    torch.manual_seed(1)
    ink = [torch.rand(16, 60 + 7 * row).numpy() for row in range(len(texts))]
    return collate([f"page/{row}" for row in range(len(texts))], ink, list(texts), [""] * len(texts))


def loss(model: Seq2SeqRecognizer, given: Batch) -> float:
    return float(model.loss(given).detach())


@torch.no_grad()
def log_probs(model: Seq2SeqRecognizer, given: Batch) -> list[torch.Tensor]:
    """Return, for every line, the log-probabilities of all labels after the start token and after each character."""
    seen = model.net(given.images, given.widths)
    rows = []
    for row, text in enumerate(given.texts):
        tokens = torch.tensor([[START, *model.target(text, "x")]])
        logits = model.net.decoder(seen.memory[row : row + 1], seen.lengths[row : row + 1], tokens)
        rows.append(logits[0].log_softmax(1))
    return rows


@pytest.mark.parametrize("network", [TRANSFORMER, RECURRENT])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_smoothed_cross_entropy_of_labels_and_end(network, smoothing: float) -> None:
    model, given = recognizer(network=network, label_smoothing=smoothing), batch("ab", "", "b a b")
    total, count = 0.0, 0
    for text, rows in zip(given.texts, log_probs(model, given), strict=True):
        for row, label in zip(rows, [*model.target(text, "x"), END], strict=True):
            total -= (1 - smoothing) * float(row[label]) + smoothing * float(row.mean())
            count += 1
    assert loss(model, given) == pytest.approx(total / count, abs=1e-5)


def test_the_validation_loss_has_no_smoothing_and_leaves_unknown_characters_out() -> None:
    model, given = recognizer(label_smoothing=0.2), batch("ab", "bxa")
    with torch.no_grad():
        found, count = model.summed_loss(model._output(given), given)
    expected = [-float(row[label]) for text, rows in zip(("ab", "ba"), log_probs(model, batch("ab", "ba")), strict=True)
                for row, label in zip(rows, [*model.target(text, "x"), END], strict=True)]  # fmt: skip
    assert count == 6
    assert float(found) == pytest.approx(math.fsum(expected), abs=1e-4)


def test_the_joint_loss_weighs_both() -> None:
    model, given = recognizer(ctc=True, ctc_weight=0.25, label_smoothing=0.0), batch("ab", "b a")
    seen = model.net(given.images, given.widths)
    targets = [model.target(text, "x") for text in given.texts]
    ctc = [float(ctc_loss(head.detach(), seen.frames, targets)) / 5 for head in seen.heads]
    written = -sum(
        float(row[label])
        for text, rows in zip(given.texts, log_probs(model, given), strict=True)
        for row, label in zip(rows, [*model.target(text, "x"), END], strict=True)
    )
    expected = 0.75 * written / 7 + 0.25 * (ctc[0] + 0.3 * ctc[1])
    assert loss(model, given) == pytest.approx(expected, abs=1e-5)


def test_blank_paper_has_no_text() -> None:
    model = recognizer(blank_fraction=1.0, label_smoothing=0.0)
    one, other = batch("ab", "b"), batch("", "a b a")
    assert loss(model, one) == pytest.approx(loss(model, other), abs=1e-6)
    blank = one._replace(images=torch.zeros_like(one.images), texts=["", ""])
    expected = -sum(float(rows[0, END]) for rows in log_probs(model, blank)) / 2
    assert loss(model, one) == pytest.approx(expected, abs=1e-5)


def test_noise_changes_what_the_decoder_is_told_but_not_what_it_is_to_say() -> None:
    clear, noisy = recognizer(label_smoothing=0.0), recognizer(label_smoothing=0.0, token_noise=1.0)
    assert loss(noisy, batch("", "")) == pytest.approx(loss(clear, batch("", "")), abs=1e-6)
    assert loss(noisy, batch("abab", "ba")) != pytest.approx(loss(clear, batch("abab", "ba")), abs=1e-4)


def test_a_line_with_more_characters_than_frames_is_recorded() -> None:
    model, given = recognizer(), batch("ab" * 8, "ab")  # with 15 and 17 frames
    loss(model, given)
    assert model.short == {"page/0": (16, 15)}
    assert not model.infeasible  # it is included in the loss
    joint = recognizer(ctc=True, ctc_weight=0.3)
    loss(joint, given)
    assert joint.infeasible == {"page/0": (16, 15)}
    assert not joint.short  # a single record with CTC as well, which requires at least as many frames


@pytest.mark.parametrize("network", [TRANSFORMER, RECURRENT])
@pytest.mark.parametrize("width", [8, 60, 750])
def test_decoding_ends_on_any_paper(network, width: int) -> None:
    """Even if the network never predicts an end token, there are at most as many labels as frames."""
    model = recognizer(Greedy(10_000), network)
    with torch.no_grad():
        model.net.decoder.head.bias[END] = -1e4
        (blank,) = model.decoder(*model.scores(model.net(torch.zeros(1, 1, 16, width), torch.tensor([width]))))
    assert len(blank.ids) == -(-width // 4)
    with torch.no_grad():
        model.net.decoder.head.bias[END] = 1e4
        (nothing,) = model.transcribe(torch.ones(1, 1, 16, width), torch.tensor([width]))
    assert nothing.text == ""


def test_a_token_of_two_columns_may_be_two_characters() -> None:
    """A vision transformer has one token per pair of columns, which may contain two narrow characters."""
    model = recognizer(Greedy(10_000))
    vit = partial(ViT, width=24, depth=1, heads=3, patch=2)
    model.net.encoder = vit(len(model.codec), ResidualBackbone([8, 12], [1, 1], [[2, 2], [2, 1]], 8))
    model.net.decoder = TRANSFORMER(len(model.codec), 24)
    model.eval()
    with torch.no_grad():
        model.net.decoder.head.bias[END] = -1e4
        (read,) = model.transcribe(torch.ones(1, 1, 16, 100), torch.tensor([100]))
        seen = model.net(torch.ones(1, 1, 16, 100), torch.tensor([100]))
    assert (len(read.text), seen.frames.tolist(), seen.lengths.tolist()) == (25, [25], [13])


@pytest.mark.parametrize("network", [TRANSFORMER, RECURRENT])
@pytest.mark.parametrize("decoder", [Greedy(30), Beam(1, 30), Beam(4, 30)], ids=["greedy", "beam1", "beam4"])
def test_a_line_reads_the_same_alone_and_in_a_batch(network, decoder: Greedy | Beam) -> None:
    model, given = recognizer(decoder, network).double(), batch(*[""] * 9)
    given = given._replace(images=given.images.double())
    with torch.no_grad():
        for weight in model.net.parameters():
            weight.mul_(3)  # confident like a trained model, so that transcriptions of different lines differ
        model.net.decoder.head.bias[END] -= 5
        together = model.transcribe(given.images, given.widths)
        for row, width in enumerate(given.widths.tolist()):
            (alone,) = model.transcribe(given.images[row : row + 1, ..., :width], given.widths[row : row + 1])
            assert alone.text == together[row].text
            assert alone.confidence == pytest.approx(together[row].confidence, abs=1e-5)
    assert len({one.text for one in together}) > 1


def test_a_beam_of_one_is_greedy_and_a_wide_one_gives_alternatives() -> None:
    given, model = batch(*[""] * 5), recognizer(Beam(1, 30))
    with torch.no_grad():
        narrow = model.transcribe(given.images, given.widths)
        greedy = model.greedy()
        assert [one.text for one in greedy.transcribe(given.images, given.widths)] == [one.text for one in narrow]
        wide = model.with_decoder(Beam(4, 30))
        for one in wide.transcribe(given.images, given.widths, 3):
            assert 1 <= len(one.alternatives) <= 3
            assert one.text == one.alternatives[0].text
            scores = [alternative.score for alternative in one.alternatives]
            assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("network", [TRANSFORMER, RECURRENT])
def test_a_text_is_rescored_as_it_is_decoded(network) -> None:
    """A greedily decoded hypothesis has the same probability when all its labels are scored at once."""
    model, given = recognizer(Greedy(50), network, ctc=True, ctc_weight=0.3), batch(*[""] * 4)
    with torch.inference_mode():
        model.net.decoder.head.bias[END] += 0.7  # otherwise no line ends before its last frame
        output = model.net(given.images, given.widths)
        (steps,) = model.scores(output)
        found = model.decoder(steps)
        kept = [one for one, frames in zip(found, output.frames.tolist(), strict=True) if len(one.ids) < frames]
        first = END + 1
        rescored = steps.frames.rescore([[one.ids, [first]] for one in found])
    assert kept  # the others ended at their last frame, where only the end token is allowed
    for one, (log_prob, _) in zip(found, rescored, strict=True):
        if one in kept:
            assert log_prob == pytest.approx(one.log_prob, abs=1e-4)
    alone = torch.stack([rows[0].log_softmax(0)[first] for rows in log_probs(model, given)])
    assert steps.frames.rescore([[[first]]] * 4)[0][0] < float(alone[0])  # including the end token


def test_the_own_hypothesis_of_two_passes_is_as_long_as_the_decoder_allows() -> None:
    model, given = recognizer(Greedy(50), ctc=True, ctc_weight=0.3), batch(*[""] * 4)
    with torch.inference_mode():
        model.net.decoder.head.bias[END] -= 1e4
        decoder = Rescoring(8, 5, 0.0, 50.0, candidates=4, ctc_weight=0.5, max_length=3)
        prepared = decoder.prepare(*model.scores(model.net(given.images, given.widths)))
        assert set(map(len, prepared.own)) == {3}


def test_two_passes_read_a_line_the_same_alone_and_in_a_batch() -> None:
    decoder = Rescoring(8, 5, 0.0, 50.0, candidates=4, ctc_weight=0.5, max_length=50)
    model, given = recognizer(decoder, ctc=True, ctc_weight=0.3).double(), batch(*[""] * 5)
    with torch.inference_mode():
        together = model.transcribe(given.images.double(), given.widths)
        for row, read in enumerate(together):
            width = given.widths[row : row + 1]
            (alone,) = model.transcribe(given.images[row : row + 1, :, :, : int(width)].double(), width)
            assert (alone.text, alone.confidence) == (read.text, pytest.approx(read.confidence, abs=1e-6))
    assert len({read.text for read in together}) > 1
    with torch.inference_mode():
        several = model.transcribe(given.images.double(), given.widths, 3)
    assert [read.text for read in several] == [model.normalizer(read.text) for read in together]
    assert max(len(read.alternatives) for read in several) > 1


def test_two_passes_of_a_network_that_gives_no_numbers_read_nothing() -> None:
    decoder = Rescoring(8, 5, 0.0, 50.0, candidates=4, ctc_weight=0.5, max_length=50)
    model, given = recognizer(decoder, ctc=True, ctc_weight=0.3), batch("ab", "b")
    with torch.no_grad():
        for weight in model.net.parameters():
            weight.fill_(math.nan)
        read = model.transcribe(given.images, given.widths)
    assert [(one.text, one.confidence) for one in read] == [("", 0.0)] * 2


@pytest.mark.parametrize(("ctc", "weight"), [(False, 0.3), (True, 0.0), (True, 1.0)])
def test_the_weight_and_the_heads_of_ctc_belong_together(ctc: bool, weight: float) -> None:
    with pytest.raises(InputError, match=r"model\.ctc_weight"):
        recognizer(ctc=ctc, ctc_weight=weight)


def test_reading_is_in_float32_under_autocast() -> None:
    """Validation in a half-precision run and the resulting checkpoint return the same transcriptions."""
    model, given = recognizer(), batch("ab", "b")
    kinds: set[torch.dtype] = set()
    step = model.net.decoder.step

    def watched(tokens, state):
        logits, state = step(tokens, state)
        kinds.add(logits.dtype)
        return logits, state

    model.net.decoder.step = watched
    with torch.autocast("cpu", torch.bfloat16):
        predictions = model.predict(given)
    assert kinds == {torch.float32}
    assert [one.hypothesis for one in predictions] == [
        model.normalizer(one.text) for one in model.transcribe(given.images, given.widths)
    ]


def test_a_long_text_makes_room_for_its_places_and_changes_nothing_before() -> None:
    model = recognizer()
    seen = model.net(*batch("ab")[1:3])
    tokens = torch.randint(3, 6, (1, 700))
    with torch.inference_mode():
        short = model.net.decoder(seen.memory, seen.lengths, tokens[:, :200])
        long = model.net.decoder(seen.memory, seen.lengths, tokens)
    torch.testing.assert_close(long[:, :200], short, atol=1e-5, rtol=0)
    model.net.decoder(
        seen.memory, seen.lengths, tokens
    ).sum().backward()  # position encodings extended in inference mode can still be used in training
    assert not [name for name, _ in model.named_buffers() if "places" in name]


@pytest.mark.parametrize(
    "model",
    ["trocr decoder=beam", "crnn decoder=autoregressive_greedy", "crnn decoder=rescoring", "trocr decoder=rescoring"],
)
def test_a_decoder_of_the_other_family_is_refused(model: str) -> None:
    name, decoder = model.split()
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf")):
        config = compose("train", overrides=["run_dir=x", "name=x", f"model={name}", decoder])
    with pytest.raises(InputError, match=r"decoder(: \w+ decodes|=rescoring: this model has no CTC heads)"):
        instantiate(OmegaConf.to_container(config, resolve=True)["model"], _convert_="all")(alphabet=["a"])


def test_a_text_longer_than_the_decoder_writes_is_refused_before_training() -> None:
    with pytest.raises(InputError, match=r"page/1: .* 51 characters, .*decoder\.max_length=50"):
        recognizer(Greedy(50)).check_targets(["page/0", "page/1"], ["ab", "a" * 51])
