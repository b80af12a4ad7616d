"""What a vote of recognizers must keep, whichever way it is taken."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from htr_lightning.data.preprocess import FitHeight, FixedSize
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.decoder.autoregressive import Beam
from htr_lightning.decoder.ctc import Greedy
from htr_lightning.decoder.language import Language
from htr_lightning.decoder.ngram import NGram
from htr_lightning.decoder.prefix_beam import PrefixBeam
from htr_lightning.errors import InputError
from htr_lightning.metrics.calibration import PlattScaling
from htr_lightning.model.classifier import Classifier
from htr_lightning.model.ctc import CTCRecognizer
from htr_lightning.net.mlp import MLP
from htr_lightning.net.view import View
from htr_lightning.reading.voting import Rover, average, difference, shares, vote
from htr_lightning.text.normalize import Normalizer
from htr_lightning.transcription import Alternative, Transcription, from_alternatives

LINES = [Synthetic("test", {"test": 5}, {"test": 3})[number].image for number in range(5)]
WAYS = pytest.mark.parametrize("way", ["frames", "rover"])


@pytest.fixture
def members(make_recognizer: Callable[..., CTCRecognizer]) -> list[CTCRecognizer]:
    """Three that read differently, the last with other characters."""
    some = [make_recognizer(), make_recognizer(gain=7), make_recognizer("dcbaxyz ")]
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for member in some[1:]:
            member.net.head.bias.add_(torch.randn_like(member.net.head.bias))
    return some


class Exact(FitHeight):
    """In double precision."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return super().__call__(image).astype(np.float64)


def names(some: list) -> list[str]:
    return [f"{number}.ckpt" for number in range(len(some))]


@pytest.mark.parametrize("count", [2, 3])
def test_equal_members_read_as_one_of_them(make_recognizer, count: int) -> None:
    one = make_recognizer()
    one.calibration = PlattScaling(1.5, -0.5)
    alone, voted = one.read(LINES), vote([one] * count, names([one] * count), "frames").read(LINES)
    assert [read.text for read in voted] == [read.text for read in alone]
    assert [read.confidence for read in voted] == pytest.approx([read.confidence for read in alone], abs=1e-4)


def test_a_rover_of_members_twice_is_that_of_each_once(members) -> None:
    once, twice = (Rover(some).read(LINES) for some in (members, members * 2))
    assert [read.text for read in once] == [read.text for read in twice]
    assert [read.confidence for read in once] == pytest.approx([read.confidence for read in twice])
    assert not any(member.alternatives for member in members)  # they are left as they were


def test_a_scale_fitted_on_greedy_confidences_is_not_taken_for_those_of_a_beam(members) -> None:
    plain = Rover(members).read(LINES)
    for member in members:
        member.calibration = PlattScaling(3.0, 2.0)
    assert Rover(members).read(LINES) == plain
    assert Rover(members, several=False).read(LINES) != plain
    assert {type(member.decoder) for member in Rover(members, several=False).members} == {Greedy}
    members[0].decoder = PrefixBeam(8, 8, 1e-3, 10.0)  # what it was fitted on stays
    assert Rover(members).members[0].calibration == PlattScaling(3.0, 2.0)


def test_scores_that_are_divided_by_the_length_are_no_posteriors(members) -> None:
    members[0].decoder, members[1].decoder = Beam(4, 9, length_norm=1.0), Beam(4, 9)
    assert [member.alternatives > 0 for member in Rover(members).members] == [False, True, True]


@pytest.mark.parametrize("sure", [0.3, 0.7])
def test_a_member_divides_its_vote_by_posteriors(members, sure: float) -> None:
    """Two of three are as sure of an a as of a b; the third decides, by how sure it is."""
    posteriors = [{"a": 0.5, "b": 0.5}, {"b": 0.5, "a": 0.5}, {"a": sure, "b": 1 - sure}]
    for member, given in zip(members, posteriors, strict=True):
        several = [Alternative(text, 0.8, math.log(share) - 7) for text, share in given.items()]
        several.sort(key=lambda one: -one.score)
        member.postprocess = lambda read, several=several: [from_alternatives(several)]
        member.transcribe = lambda batch, widths: []
    (voted,) = Rover(members).read(LINES[:1])
    assert voted.text == ("a" if sure > 0.5 else "b")
    assert voted.confidence == pytest.approx(0.8 * (1 + max(sure, 1 - sure)) / 3)


def test_a_reading_alone_has_as_much_of_a_vote_as_it_is_sure() -> None:
    assert shares(Transcription("a", 0.3)) == [("a", 0.3)]
    several = [Alternative("a", 0.6, -1.0), Alternative("b", 0.5, -1.0 - math.log(3))]
    assert shares(from_alternatives(several)) == [("a", pytest.approx(0.45)), ("b", pytest.approx(0.15))]
    assert shares(from_alternatives([Alternative("", 0.0, -math.inf)])) == [("", 0.0)]


@WAYS
@pytest.mark.parametrize("views", [1, 3])
def test_a_line_reads_the_same_alone_and_in_a_batch_in_its_place(members, way: str, views: int) -> None:
    for member in members:  # untrained weights are chaotic: float32's rounding alone moves their logits
        member.double().preprocess = Exact(32, margin=4)
    voter = vote(members, names(members), way, views)
    together = voter.read(LINES)
    assert len({read.text for read in together}) > 1
    for image, read in zip(LINES, together, strict=True):
        (alone,) = voter.read([image])
        assert alone.text == read.text
        assert alone.confidence == pytest.approx(read.confidence, abs=1e-6)
    assert voter.read([]) == []


@WAYS
def test_the_order_of_the_members_does_not_matter(members, way: str) -> None:
    ahead, back = (vote(some, names(some), way).read(LINES) for some in (members, members[::-1]))
    assert [read.text for read in ahead] == [read.text for read in back]
    assert [read.confidence for read in ahead] == pytest.approx([read.confidence for read in back], abs=1e-4)


def test_the_mean_posterior_is_that_of_each_character_by_name(members) -> None:
    voted = average(members)
    batch, widths = voted.prepare_batch(LINES)
    with torch.inference_mode():
        logits, lengths = voted.net(batch, widths)
        own = [member.net(batch, widths)[0].softmax(2) for member in members]
    mean = logits.softmax(2)
    for character in voted.codec.alphabet:
        of = [o[:, :, m.codec.encode(character)[0]] if character in m.codec.alphabet else torch.zeros(o.shape[:2])
              for m, o in zip(members, own, strict=True)]  # fmt: skip
        torch.testing.assert_close(mean[:, :, voted.codec.encode(character)[0]], sum(of) / 3)
    torch.testing.assert_close(mean[:, :, 0], sum(o[:, :, 0] for o in own) / 3)
    assert set(voted.codec.alphabet) == set(" abcdeunxyz")
    assert lengths.tolist() == members[0].net(batch, widths)[1].tolist()


def test_the_scale_of_a_mean_is_the_mean_of_the_scales(members) -> None:
    members[1].calibration, members[2].calibration = PlattScaling(2.0, -1.0), PlattScaling(3.0, 0.5)
    assert average(members).calibration == pytest.approx((2.0, -0.5 / 3))


def test_a_mean_reads_with_the_language_of_its_first_member_and_gives_its_alternatives(make_recognizer) -> None:
    one = make_recognizer()
    one.decoder = PrefixBeam(8, 8, 0.0, 30.0, alpha=1.0)
    one.set_language(Language(NGram.estimate(["a bed", "dea ca"], 3), None))
    one.alternatives = 3
    voted = average([one, one])
    assert voted.language is one.language
    for read, alone in zip(voted.read(LINES), one.read(LINES), strict=True):
        assert [other.text for other in read.alternatives] == [other.text for other in alone.alternatives]
        assert [other.score for other in read.alternatives] == pytest.approx(
            [other.score for other in alone.alternatives], abs=1e-3
        )


def test_classifiers_vote_by_their_mean_and_not_with_readers_of_lines(make_recognizer) -> None:
    some = [Classifier("ab", lambda classes: MLP(classes, 784, [4]), normalizer=Normalizer(),
                       preprocess=FixedSize(28, 28, 20)).eval() for _ in range(2)]  # fmt: skip
    voted = vote(some, names(some))
    assert isinstance(voted, Classifier)
    batch, widths = voted.prepare_batch(LINES)
    with torch.inference_mode():
        mean = torch.stack([member.net(batch, widths).softmax(-1) for member in some]).mean(0)
        assert torch.allclose(voted.net(batch, widths).softmax(-1), mean, atol=1e-6)
    with pytest.raises(InputError, match=r"1\.ckpt: reads single characters; it has no vote on lines"):
        vote([make_recognizer(), some[0]], names(some))


def test_ballots_have_one_form_of_each_character(members) -> None:
    """An accent of its own beside letters that have theirs would be lined up with a letter."""
    texts = ["\u00e9", "e\u0301", "e"]
    for member, text in zip(members, texts, strict=True):
        member.postprocess = lambda read, text=text: [Transcription(text, 0.5)]
        member.transcribe = lambda batch, widths: []
    assert Rover(members).read(LINES[:1])[0].text == "\u00e9"


def test_what_cannot_be_averaged_is_named_and_voted_by_rover(members) -> None:
    members[1].preprocess = FitHeight(48, margin=4)
    with pytest.raises(InputError, match=r"1.ckpt: model.preprocess.height is 48, that of 0.ckpt is 32; use --vote ro"):
        vote(members, names(members), "frames")
    assert isinstance(vote(members, names(members)), Rover)
    members[1].preprocess = members[0].preprocess
    assert difference(members, names(members)) is None
    assert isinstance(vote(members, names(members), "frames"), CTCRecognizer)
    assert isinstance(vote(members, names(members)), Rover)
    assert isinstance(vote(members[:1], ["0.ckpt"], views=3), CTCRecognizer)  # of one: its views
    members[0].alternatives = 2  # which rover has not
    assert isinstance(vote(members, names(members)), CTCRecognizer)
    members[2].net.backbone = torch.nn.Identity()
    members[2].net.forward = lambda images, widths: (torch.zeros(len(widths), 3, 9), widths * 0 + 3)
    assert difference(members, names(members)) == "2.ckpt: model.net gives 3 frames where that of 0.ckpt gives 53"
    with pytest.raises(InputError, match="--vote best"):
        vote(members, names(members), "best")


def test_an_image_that_is_no_line_is_refused_as_by_one_recognizer(members) -> None:
    for way in ("frames", "rover"):
        with pytest.raises(ValueError, match="too few"):
            vote(members, names(members), way).read([*LINES, np.zeros((1, 1), np.uint8)])


def test_views_are_the_line_itself_and_small_changes_that_move_no_column() -> None:
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
