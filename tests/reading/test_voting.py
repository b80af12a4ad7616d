"""Properties of ensembles of recognizers."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from htr_lightning.data.character import FixedSize
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.decoder.autoregressive import Beam
from htr_lightning.decoder.ctc import Greedy
from htr_lightning.decoder.prefix_beam import PrefixBeam
from htr_lightning.errors import InputError
from htr_lightning.metrics.calibration import Calibration, PlattScaling
from htr_lightning.model.classifier import Classifier
from htr_lightning.model.ctc import CTCRecognizer
from htr_lightning.net.mlp import MLP
from htr_lightning.net.view import View
from htr_lightning.reading.voting import CANDIDATES, Ensemble, shares
from htr_lightning.text.normalize import Normalizer
from htr_lightning.transcription import Alternative, Transcription, distinct

LINES = [Synthetic("test", {"test": 5}, {"test": 3})[number].image for number in range(5)]


def nbest(several) -> Transcription:
    return Transcription(several[0].text, several[0].confidence, distinct(several))


@pytest.fixture
def members(make_recognizer: Callable[..., CTCRecognizer]) -> list[CTCRecognizer]:
    """Return three recognizers whose transcriptions differ; the last has a different alphabet."""
    some = [make_recognizer(), make_recognizer(gain=7), make_recognizer("dcbaxyz ")]
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for member in some[1:]:
            member.net.head.bias.add_(torch.randn_like(member.net.head.bias))
    return some


class Exact(FitHeight):
    """A preprocessing that returns arrays in double precision."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return super().__call__(image).astype(np.float64)


def ensemble(some: list, **others) -> Ensemble:
    return Ensemble(some, [f"{number}.ckpt" for number in range(len(some))], **others)


def test_equal_members_read_as_one_of_them(make_recognizer) -> None:
    one = make_recognizer()
    for count in (2, 3):
        alone, together = (ensemble([one] * members).read(LINES) for members in (1, count))
        assert [read.text for read in together] == [read.text for read in alone]
        assert [read.confidence for read in together] == pytest.approx([read.confidence for read in alone])


def test_members_twice_are_each_of_them_once(members) -> None:
    decoders = [member.decoder for member in members]
    once, twice = (ensemble(some).read(LINES) for some in (members, members * 2))
    assert [read.text for read in once] == [read.text for read in twice]
    assert [read.confidence for read in once] == pytest.approx([read.confidence for read in twice])
    assert [member.decoder for member in members] == decoders  # the members are not modified


def test_a_calibration_of_greedy_confidences_is_not_used_for_those_of_a_beam(members) -> None:
    plain = ensemble(members).read(LINES)
    for member in members:
        member.calibration = Calibration(PlattScaling(3.0, 2.0))
    assert ensemble(members).read(LINES) == plain
    assert ensemble(members, single=True).read(LINES) != plain
    assert {type(member.decoder) for member in ensemble(members, single=True).members} == {Greedy}
    members[0] = members[0].with_decoder(PrefixBeam(8, 8, 1e-3, 10.0))
    members[0].calibration = Calibration(PlattScaling(3.0, 2.0))
    assert ensemble(members).members[0].calibration == Calibration(PlattScaling(3.0, 2.0))  # fitted with this decoder


def test_scores_that_are_divided_by_the_length_are_no_posteriors(members) -> None:
    for decoder, count in ((Beam(4, 9, length_norm=1.0), 0), (Beam(4, 9), CANDIDATES)):
        members[0].decoder = decoder
        members[0].with_candidates = lambda: members[0]
        assert ensemble(members).counts == [count, CANDIDATES, CANDIDATES]


@pytest.mark.parametrize("sure", [0.3, 0.7])
def test_hypotheses_of_a_member_share_its_weight_by_posterior(members, sure: float) -> None:
    """Two of three members are undecided between a and b; the third decides in proportion to its confidence."""
    posteriors = [{"a": 0.5, "b": 0.5}, {"b": 0.5, "a": 0.5}, {"a": sure, "b": 1 - sure}]
    together = ensemble(members)
    for member, given in zip(together.members, posteriors, strict=True):
        several = [Alternative(text, 0.8, math.log(share) - 7) for text, share in given.items()]
        several.sort(key=lambda one: -one.score)
        member.transcribe = lambda batch, widths, n_best, several=several: [nbest(several)]
    (read,) = together.read(LINES[:1])
    assert read.text == ("a" if sure > 0.5 else "b")
    assert read.confidence == pytest.approx(0.8 * (1 + max(sure, 1 - sure)) / 3)


def test_a_single_hypothesis_has_the_weight_of_its_confidence() -> None:
    assert shares(Transcription("a", 0.3)) == [("a", 0.3)]
    several = [Alternative("a", 0.6, -1.0), Alternative("b", 0.5, -1.0 - math.log(3))]
    assert shares(nbest(several)) == [("a", pytest.approx(0.45)), ("b", pytest.approx(0.15))]
    assert shares(nbest([Alternative("", 0.0, -math.inf)])) == [("", 0.0)]


@pytest.mark.parametrize("views", [1, 3])
def test_a_line_reads_the_same_alone_and_in_a_batch_in_its_place(members, views: int) -> None:
    for member in members:  # untrained weights are chaotic: float32 rounding alone changes their logits
        member.double().preprocess = Exact(32, margin=4)
    voter = ensemble(members, views=views)
    together = voter.read(LINES)
    assert len({read.text for read in together}) > 1
    for image, read in zip(LINES, together, strict=True):
        (alone,) = voter.read([image])
        assert alone.text == read.text
        assert alone.confidence == pytest.approx(read.confidence, abs=1e-6)
    assert voter.read([]) == []


def test_the_order_of_the_members_does_not_matter(members) -> None:
    forward, backward = (ensemble(some).read(LINES) for some in (members, members[::-1]))
    assert [read.text for read in forward] == [read.text for read in backward]
    assert [read.confidence for read in forward] == pytest.approx([read.confidence for read in backward], abs=1e-4)


def test_classifiers_are_combined_with_each_other_only(make_recognizer) -> None:
    some = [Classifier("ab", lambda classes: MLP(classes, 784, [4]), normalizer=Normalizer(),
                       preprocess=FixedSize(28, 28, 20)).eval() for _ in range(2)]  # fmt: skip
    together = ensemble(some).read(LINES)
    assert {len(read.text) for read in together} == {1}
    for one, *others in zip(together, *(member.read(LINES) for member in some), strict=True):
        assert one.text in {other.text for other in others}
    with pytest.raises(InputError, match=r"1\.ckpt: reads single characters, unlike 0\.ckpt"):
        ensemble([make_recognizer(), some[0]])
    with pytest.raises(InputError, match=r"1\.ckpt: reads lines"):
        ensemble([some[0], make_recognizer()])


def test_hypotheses_have_one_form_of_each_character(members) -> None:
    """Otherwise, a combining accent would be aligned with a letter in hypotheses with precomposed characters."""
    texts = ["\u00e9", "e\u0301", "e"]
    together = ensemble(members)
    for member, text in zip(together.members, texts, strict=True):
        member.transcribe = lambda batch, widths, n_best, text=text: [Transcription(text, 0.5)]
    assert together.read(LINES[:1])[0].text == "\u00e9"


def test_an_ensemble_has_one_transcription_per_line(members) -> None:
    with pytest.raises(InputError, match=r"n_best=2: an ensemble"):
        ensemble(members).read(LINES, 2)


def test_an_image_that_is_no_line_is_refused_as_by_one_recognizer(members) -> None:
    with pytest.raises(ValueError, match="too small"):
        ensemble(members).read([*LINES, np.zeros((1, 1), np.uint8)])


def test_views_are_the_line_itself_and_small_changes_that_keep_columns() -> None:
    images, widths = torch.zeros(2, 1, 33, 90), torch.tensor([90, 50])
    images[:, 0, 8:25, 20] = 1
    assert View(0)(images, widths) is images
    seen = [View(number)(images, widths) for number in range(1, 9)]
    for number, one in enumerate(seen, start=1):
        assert 0.8 * images.sum() < one.sum() <= images.sum()
        torch.testing.assert_close((one[0, 0].sum(0) * torch.arange(90)).sum() / one[0].sum(), torch.tensor(20.0))
        torch.testing.assert_close(one[1:, :, :, :50], View(number)(images[1:, :, :, :50], widths[1:]))
        assert not torch.equal(one, images)
    assert len({float(one.var()) for one in seen}) == 8
    assert View(1, slant=0.0, shrink=0.0)(images, widths).equal(images)


def test_a_view_leaves_the_padding_empty() -> None:
    images, widths = torch.rand(2, 1, 32, 60), torch.tensor([60, 31])
    images[1, :, :, 31:] = 0
    for number in range(6):
        assert not View(number)(images, widths)[1, :, :, 31:].any()
