"""Recognizers, and views of a line, that vote."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.data.preprocess import Preprocess
from htr_lightning.decoder.ctc import Greedy
from htr_lightning.decoder.prefix_beam import PrefixBeam
from htr_lightning.decoder.rover import Ballot, Elected, rover
from htr_lightning.errors import InputError
from htr_lightning.metrics.calibration import PlattScaling
from htr_lightning.model.base import Recognizer
from htr_lightning.model.classifier import Classifier
from htr_lightning.model.ctc import CTCRecognizer
from htr_lightning.net.average import Average
from htr_lightning.net.view import View
from htr_lightning.transcription import Transcriber, Transcription, postprocess

WAYS = ("auto", "frames", "rover")
READINGS = 8  # of a line by each voter
LEAST = 0.01  # of its vote that a reading is worth lining up for
PROBE = (40, 97, 202, 403)  # columns of blank lines on which frames are counted


class Rover:
    """Recognizers of any kind that read every view of a line; their readings are voted by `decoder.rover`.

    A member has as much of a vote as it is confident, times its weight. Where its decoder gives several readings it
    divides the vote among them by their posteriors, so that the others decide where it is unsure; CTC models that read
    greedily are given a beam for it.

    Args:
        members: in evaluation mode, on one device; the first one's normaliser and card are those of the vote.
        views: of each line, see `net.view`.
        several: whether members give more than one reading of a line.
        weights: of the members; None: they weigh the same.
    """

    def __init__(
        self,
        members: Sequence[Recognizer],
        views: int = 1,
        several: bool = True,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.members = [_with_readings(member) if several else member for member in members]
        self.views = [View(number) for number in range(views)]
        self.weights = [1.0] * len(members) if weights is None else list(weights)
        self.card: dict[str, Any] = members[0].card
        self.preprocess: Preprocess = members[0].preprocess
        self.normalizer = members[0].normalizer
        self.calibration = PlattScaling()

    def read(self, images: Sequence[UInt8[ndarray, "_ _"]]) -> list[Transcription]:
        """The text of raw images; see `Recognizer.read`."""
        return [self.elected(rover(line, self.weights)) for line in self.ballots(images)]

    def ballots(self, images: Sequence[UInt8[ndarray, "_ _"]]) -> list[list[Ballot]]:
        """What every member reads in each view of each line."""
        lines: list[list[Ballot]] = [[] for _ in images]
        for number, member in enumerate(self.members if images else []):
            batch, widths = member.prepare_batch(images)
            for view in self.views:
                with member.exact():
                    read = member.postprocess(member.transcribe(view(batch, widths), widths))
                for line, one in zip(lines, read, strict=True):
                    for text, share in shares(one):  # texts of one Unicode form
                        line.append(Ballot(self.normalizer(text), share / len(self.views), number))
        return lines

    def elected(self, won: Elected) -> Transcription:
        """The reading that won, with normalised text and calibrated confidence."""
        return postprocess(Transcription(*won), self.normalizer, self.calibration)


def _with_readings(member: Recognizer) -> Recognizer:
    """The same member giving several readings, where its decoder's scores tell how likely each is."""
    member = copy.copy(member)
    if isinstance(member, CTCRecognizer) and isinstance(member.decoder, Greedy):
        member.decoder = PrefixBeam(READINGS, labels=8, threshold=1e-3, cut=10.0)
        member.calibration = PlattScaling()  # fitted on what the other decoder gave
    decoder = getattr(member, "decoder", None)
    if hasattr(decoder, "n_best") and not getattr(decoder, "length_norm", 0):
        member.alternatives = READINGS
    return member


def shares(read: Transcription) -> list[tuple[str, float]]:
    """The readings of a line and how much of a vote each has: its posterior among them, times the best's confidence."""
    best = read.alternatives[0].score if read.alternatives else -math.inf
    if best == -math.inf:
        return [(read.text, read.confidence)]
    weights = [math.exp(one.score - best) for one in read.alternatives]
    whole = math.fsum(weights)
    return [
        (one.text, read.confidence * weight / whole)
        for one, weight in zip(read.alternatives, weights, strict=True)
        if weight > LEAST * whole
    ]


def average(members: Sequence[Recognizer], views: int = 1) -> Recognizer:
    """A recognizer with the mean posterior of its members, decoded as the first one does; see `difference`.

    Its characters are those of all members. Its calibration is their mean.
    """
    first = members[0]
    alphabet = list(dict.fromkeys(character for member in members for character in member.codec.alphabet))
    shared = {"normalizer": first.normalizer, "preprocess": first.preprocess}

    def net(classes: int) -> Average:
        place = {character: number for number, character in enumerate(alphabet, start=len(first.specials))}
        specials = list(range(len(first.specials)))
        places = [specials + [place[character] for character in member.codec.alphabet] for member in members]
        return Average([member.net for member in members], places, classes, views)

    if isinstance(first, CTCRecognizer):
        voted: Recognizer = CTCRecognizer(alphabet, net, copy.copy(first.decoder), direction=first.direction, **shared)
        if first.language is not None and hasattr(first.decoder, "automaton"):
            voted.set_language(first.language)  # over the characters of all
        voted.alternatives = first.alternatives
    else:
        voted = Classifier(alphabet, net, **shared)
    voted.card = first.card
    scales = zip(*(member.calibration for member in members), strict=True)
    voted.calibration = PlattScaling(*(math.fsum(values) / len(members) for values in scales))
    return voted.to(first.device).eval()


def difference(members: Sequence[Recognizer], names: Sequence[str]) -> str | None:
    """Why the posteriors of members cannot be averaged frame by frame: the member and what it has otherwise.

    Args:
        members: see `Rover`.
        names: of the members.
    """
    first = members[0]
    frames = None
    for member, name in zip(members, names, strict=True):
        if not isinstance(member, CTCRecognizer | Classifier):
            return f"{name}: is a {type(member).__name__}, which has no frames"
        if type(member) is not type(first):
            return f"{name}: is a {type(member).__name__}, {names[0]} a {type(first).__name__}"
        own, others = _settings(member.preprocess), _settings(first.preprocess)
        if key := next((key for key in [*own, *others] if own.get(key) != others.get(key)), None):
            return f"{name}: model.preprocess.{key} is {own.get(key)}, that of {names[0]} is {others.get(key)}"
        if isinstance(member, CTCRecognizer):
            try:
                counted = _frames(member)
            except ValueError as error:  # its preprocessing takes no such line
                return f"{name}: its frames cannot be counted ({error})"
            frames = frames or counted
            if counted != frames:
                return f"{name}: model.net gives {counted[-1]} frames where that of {names[0]} gives {frames[-1]}"
    return None


def vote(
    members: Sequence[Recognizer],
    names: Sequence[str],
    way: str = "auto",
    views: int = 1,
    several: bool = True,
    weights: Sequence[float] | None = None,
) -> Transcriber:
    """Members that read as one.

    Args:
        members: see `Rover`.
        names: of the members, for errors.
        way: "frames": see `average`; "rover": see `Rover`; "auto": by frames for the views of one member, single
            characters and n-best readings, where that can be; else by rover, which read better.
        views: of each line.
        several, weights: see `Rover`.

    Raises:
        InputError: there is no such way, or no frames to average; or some read characters and others lines.
    """
    if way not in WAYS:
        raise InputError(f"--vote {way}: use {', '.join(WAYS)}")
    first = members[0]
    character = [isinstance(member, Classifier) for member in members]
    if any(character) and not all(character):
        raise InputError(f"{names[character.index(True)]}: reads single characters; it has no vote on lines")
    wants_frames = len(members) == 1 or isinstance(first, Classifier) or getattr(first, "alternatives", 0) > 0
    by_rover = way == "rover" or (way == "auto" and not wants_frames)
    differs = None if by_rover else difference(members, names)
    if way == "frames" and differs:
        raise InputError(f"{differs}; use --vote rover")
    return Rover(members, views, several, weights) if by_rover or differs else average(members, views)


def _settings(preprocess: Preprocess) -> dict[str, Any]:
    inner = [_settings(value) for value in vars(preprocess).values() if isinstance(value, Preprocess)]
    own = {key: value for key, value in vars(preprocess).items() if not isinstance(value, Preprocess)}
    return {key: value for some in inner for key, value in some.items()} | own | {"_target_": type(preprocess).__name__}


def _frames(member: CTCRecognizer) -> list[int]:
    with torch.inference_mode():
        blank = [np.full((64, columns), 255, np.uint8) for columns in PROBE]
        lengths: list[int] = member.net(*member.prepare_batch(blank))[1].tolist()
    return lengths
