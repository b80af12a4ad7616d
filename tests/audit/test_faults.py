"""Every fault that is planted among good lines is named with its kind, and good lines are left in peace."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from htr_lightning.audit import fault as kinds
from htr_lightning.audit.compare import fit, mismatches, upside_down
from htr_lightning.audit.fault import Line
from htr_lightning.audit.faults import Audit, audit, image_faults
from htr_lightning.audit.measure import measure
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.data.sample import Reader, Sample, Skipped
from htr_lightning.errors import InputError
from htr_lightning.text.direction import logical, visual
from htr_lightning.text.normalize import Normalizer

LINES = {"train": 400, "val": 16, "test": 16}
HANDS = {"train": 40, "val": 2, "test": 2}
DRAWN = {split: list(Synthetic(split, LINES, HANDS, length=(3, 5), neighbor_fraction=0.0)) for split in LINES}
FEW = {split: samples[:40] for split, samples in DRAWN.items()}  # too few to detect outliers, which takes a second


class Samples(Sequence[Sample]):
    """A reader of given samples; one in place of an image stands for a file that cannot be read."""

    def __init__(self, samples: Sequence[Sample], skipped: Sequence[Skipped] = ()) -> None:
        self.samples, self.skipped = list(samples), list(skipped)
        self.ids = [sample.id for sample in samples]
        self.texts = [sample.text for sample in samples]
        self.groups = [sample.group for sample in samples]
        self.sizes = [sample.image.shape for sample in samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if self.samples[index].image.size == 1:
            raise InputError(f"{self.ids[index]}: the image is corrupted")
        return self.samples[index]


def audited(corrupted: dict[str, dict[int, dict]] | None = None, drawn=DRAWN, **options) -> Audit:
    """The drawn lines with some fields of some lines changed."""
    readers: dict[str, Reader] = {}
    for split, samples in drawn.items():
        changes = (corrupted or {}).get(split, {})
        readers[split] = Samples([s._replace(**changes.get(place, {})) for place, s in enumerate(samples)])
    return audit(readers, Normalizer(), FitHeight(32, 8), **options)


def named(found: Audit, id: str) -> set[str]:
    return {fault.kind for fault in found.faults if fault.id == id}


CLEAN = audited()


def test_a_clean_set_has_hardly_a_fault_and_its_counts_are_right() -> None:
    assert isinstance(Samples(DRAWN["val"]), Reader)
    assert len({fault.id for fault in CLEAN.faults if fault.kind != kinds.UNSEEN}) <= 0.01 * sum(LINES.values())
    assert not {fault.kind for fault in CLEAN.faults} & set(kinds.CRITICAL)
    for split, samples in DRAWN.items():
        its = CLEAN.splits[split]
        assert its["lines"] == len(samples)
        assert its["characters"] == sum(len(sample.text) for sample in samples)
        assert its["groups"] == len({sample.group for sample in samples})
    assert CLEAN.alphabet == sorted(set("".join(sample.text for sample in DRAWN["train"])))


def blank(image: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).normal(220, 2, image.shape).clip(0, 255).astype(np.uint8)


IMAGES = {
    kinds.BLANK: blank,
    kinds.POLARITY: lambda image: 255 - image,
    kinds.UPRIGHT: lambda image: np.ascontiguousarray(np.rot90(image)),
    kinds.CUT: lambda image: np.ascontiguousarray(image[int(image.shape[0] * 0.55) :]),
    kinds.SMALL: lambda image: cv2.resize(image, (image.shape[1] // 6, image.shape[0] // 6)),
    kinds.SIZE: lambda image: image[:2],
    kinds.UNREADABLE: lambda image: image[:1, :1],
}


TEXTS = {
    kinds.MISMATCH: lambda text: text * 3,
    kinds.EMPTY: lambda text: " ",
    kinds.CONTROL: lambda text: text + "\ufffd",
    kinds.OUTSIDE: lambda text: text + "ǂ",
}


PLACES = {kind: 9 * place + 4 for place, kind in enumerate([*IMAGES, *TEXTS])}  # in training


@pytest.fixture(scope="module")
def corrupted() -> Audit:
    """A fault of every kind, each in a line of its own."""
    images = {PLACES[kind]: {"image": IMAGES[kind](DRAWN["train"][PLACES[kind]].image)} for kind in IMAGES}
    texts = {PLACES[kind]: {"text": TEXTS[kind](DRAWN["train"][PLACES[kind]].text)} for kind in TEXTS}
    return audited({"train": images | texts}, alphabet=CLEAN.alphabet)


@pytest.mark.parametrize("kind", [*IMAGES, *TEXTS])
def test_a_bad_image_or_text_is_named(kind: str, corrupted: Audit) -> None:
    assert kind in named(corrupted, DRAWN["train"][PLACES[kind]].id)


def test_lines_beside_bad_ones_are_left_in_peace(corrupted: Audit) -> None:
    bad = {DRAWN["train"][place].id for place in PLACES.values()} | {fault.id for fault in CLEAN.faults}
    assert len({fault.id for fault in corrupted.faults} - bad) <= 0.01 * sum(LINES.values())


def both_ways(reader: Sequence[Sample]) -> list[tuple[Line, Line]]:
    """Every line long enough to be checked, as it is and rotated by 180 degrees."""
    lines = []
    for place, (id, image, text, group) in enumerate(reader):
        if len(text) >= kinds.A_PHRASE:
            ways = (image, np.ascontiguousarray(image[::-1, ::-1]))
            upright, rotated = (Line("train", place, id, text, group, measure(way)) for way in ways)
            lines.append((upright, rotated))
    return lines


def reported(lines: Sequence[tuple[Line, Line]], turned: set[int]) -> set[int]:
    """The lines that are reported when some of them are turned."""
    ids = [upright.id for upright, _ in lines]
    mixed = [rotated if place in turned else upright for place, (upright, rotated) in enumerate(lines)]
    return {ids.index(fault.id) for fault in upside_down(mixed)}


@pytest.fixture(scope="module")
def french() -> list[tuple[Line, Line]]:
    return both_ways(Synthetic("train", {"train": 620}, {"train": 40}, text="package:french_prose.txt", length=(4, 8)))


@pytest.mark.parametrize("count", [120, 300, 600])  # of 768 features: a regression must not mistake noise for shape
@pytest.mark.parametrize("every", [None, 40, 10])
def test_upside_down_lines_are_found_and_upright_ones_never_reported(
    french: list[tuple[Line, Line]], count: int, every: int | None
) -> None:
    turned = set() if every is None else set(range(7, count, every))
    found = reported(french[:count], turned)
    assert found <= turned
    assert len(found) >= 0.3 * len(turned)


@pytest.mark.slow
def test_upside_down_lines_of_real_pages_are_found_and_upright_ones_never_reported(htr_data: Path) -> None:
    lines = both_ways(PageXml(htr_data / "copiste", xml="alto/*.xml", images="jpg", empty="skip"))
    assert not reported(lines, set())
    for every in (60, 10):
        turned = set(range(20 % every, len(lines), every))
        found = reported(lines, turned)
        assert found <= turned
        assert len(found) >= 0.7 * len(turned)


def test_characters_that_are_not_learned_are_told_by_split() -> None:
    sample = DRAWN["train"][3]
    found = audited(drawn=FEW, alphabet=sorted(set(CLEAN.alphabet) - {"e"}))
    assert ("e" in sample.text) == (kinds.OUTSIDE in named(found, sample.id))
    other = next(sample for sample in DRAWN["test"] if "e" in sample.text)
    assert kinds.UNSEEN in named(found, other.id)
    assert set(found.unseen) == {"e"} | set(CLEAN.unseen)
    assert found.unseen["e"]["test"] == sum("e" in sample.text for sample in DRAWN["test"])


LETTERS = sorted({c for samples in DRAWN.values() for s in samples for c in s.text if c.isalpha()})
ARABIC = [chr(code) for code in range(0x0620, 0x0900) if unicodedata.category(chr(code)) == "Lo"]


def right_to_left(text: str) -> str:
    """Return a text whose image is that of the given text with each letter replaced by an Arabic one."""
    letters = "".join(ARABIC[LETTERS.index(c)] if c in LETTERS else c for c in text)
    stored = logical(letters)
    assert visual(stored) == letters
    return stored


def test_the_direction_of_a_script_changes_no_comparison_with_the_image() -> None:
    """Arabic letters with the shapes of Latin ones are compared as these are, beside digits and punctuation."""
    phrases = [place for place in range(200) if len(CLEAN.lines[place].text) >= 20]
    texts = [line.text for line in CLEAN.lines]
    for one, other in zip(phrases[:40:4], phrases[1:40:4], strict=True):
        texts[one], texts[other] = texts[other], texts[one]
    texts[phrases[50]] *= 2

    def told(spell: Callable[[str], str]) -> tuple[set[tuple[str, str]], bool]:
        lines = [line._replace(text=spell(text)) for line, text in zip(CLEAN.lines, texts, strict=True)]
        fitted, stored_so = fit(lines)
        return {(fault.id, fault.kind) for fault in mismatches(lines, fitted)}, stored_so

    expected, _ = told(str)
    assert sum(kind == kinds.SWAPPED for _, kind in expected) >= 10
    assert told(right_to_left) == (expected, False)
    assert told(lambda text: visual(right_to_left(text))) == (expected, True)


def test_texts_stored_in_visual_order_are_told_once() -> None:
    for spell, count in ((right_to_left, 0), (lambda text: visual(right_to_left(text)), 1)):
        found = audit({"train": Samples([s._replace(text=spell(s.text)) for s in DRAWN["train"][:130]])},
                      Normalizer(), FitHeight(32, 8))  # fmt: skip
        assert sum("stored in visual order" in note for note in found.notes) == count


@pytest.mark.parametrize("remove", [True, False])
def test_invisible_characters_are_named_with_the_option_that_removes_them(remove: bool) -> None:
    """They are faults where they would be labels; removed ones are counted, and joiners that shape letters are text."""
    texts = [
        "zero\u200bwidth",
        "soft\u00adhyphen",
        "mark\u200e",
        "joined\u200dletters",
        "می\u200cخواهم",
        "क्\u200dष",
        "plain",
    ]
    samples = [DRAWN["train"][place]._replace(text=text) for place, text in enumerate(texts)]
    found = audit({"train": Samples(samples)}, Normalizer(remove_invisible=remove), FitHeight(32, 8))
    faults = [fault for fault in found.faults if fault.kind == kinds.HIDDEN]
    notes = [note for note in found.notes if "remove_invisible" in note]
    told = notes if remove else [fault.detail for fault in faults]
    assert [fault.id for fault in faults] == ([] if remove else [sample.id for sample in samples[:4]])
    assert len(notes) == int(remove)
    assert re.findall(r"U\+\w{4}", " ".join(sorted(told))) == ["U+00AD", "U+200B", "U+200D", "U+200E"]
    assert all("model.normalizer.remove_invisible" in one for one in told)
    assert set(found.alphabet) & {"\u200b", "\u00ad", "\u200e"} == (set() if remove else {"\u200b", "\u00ad", "\u200e"})


def test_a_space_that_looks_like_another_is_named_if_it_is_kept() -> None:
    samples = [DRAWN["train"][0]._replace(text="a\u00a0b\u2009c"), DRAWN["train"][1]._replace(text="日\u3000本")]
    for collapse in (True, False):
        found = audit({"train": Samples(samples)}, Normalizer(collapse_spaces=collapse), FitHeight(32, 8))
        faults = [(fault.id, fault.detail) for fault in found.faults if fault.kind == kinds.HIDDEN]
        assert [id for id, _ in faults] == ([] if collapse else [samples[0].id])
        assert all("U+00A0, U+2009" in detail and "collapse_spaces=true" in detail for _, detail in faults)


def test_swapped_texts_of_unlike_length_are_named() -> None:
    lines = sorted(range(LINES["train"]), key=lambda place: len(DRAWN["train"][place].text))
    short, long = lines[5], lines[-5]
    texts = DRAWN["train"][short].text, DRAWN["train"][long].text
    found = audited({"train": {short: {"text": texts[1]}, long: {"text": texts[0]}}})
    for place in (short, long):
        assert named(found, DRAWN["train"][place].id) & {kinds.MISMATCH, kinds.SWAPPED}


def test_a_training_line_in_test_is_a_leak_to_the_pixel_and_compressed_anew() -> None:
    first, second = DRAWN["train"][10], DRAWN["train"][20]
    _, data = cv2.imencode(".jpg", second.image, [cv2.IMWRITE_JPEG_QUALITY, 30])
    again = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)[1:, 2:]
    copies = {4: {"image": first.image, "text": first.text}, 5: {"image": again, "text": second.text}}
    found = audited({"test": copies}, FEW)
    for place, original in ((4, first), (5, second)):
        (fault,) = [f for f in found.faults if f.kind == kinds.LEAK and f.id == DRAWN["test"][place].id]
        assert original.id in fault.detail
        assert fault.compare == ("train", DRAWN["train"].index(original))


@pytest.mark.parametrize("copied", [1, 2])
def test_one_heading_alike_on_two_pages_is_no_leak_but_two_lines_are(copied: int) -> None:
    changes = {split: {place: {"group": f"page of {split}"} for place in range(12)} for split in ("train", "test")}
    for place in range(copied):
        sample = DRAWN["train"][place]
        _, data = cv2.imencode(".jpg", sample.image, [cv2.IMWRITE_JPEG_QUALITY, 30])
        changes["test"][place] |= {"image": cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)[1:, 2:], "text": sample.text}
    found = audited(changes, FEW)
    assert [fault.id for fault in found.faults if fault.kind == kinds.LEAK] == (
        [] if copied == 1 else [sample.id for sample in DRAWN["test"][:copied]]
    )


def test_the_same_text_by_another_hand_is_counted_and_no_leak() -> None:
    sample = DRAWN["train"][10]
    clean, found = audited(drawn=FEW), audited({"test": {4: {"text": sample.text}}}, FEW)
    assert kinds.LEAK not in named(found, DRAWN["test"][4].id)
    also = [one.splits["test"]["texts_also_in_train"]["lines"] for one in (clean, found)]
    assert also[1] == also[0] + 1


def test_writers_and_ids_in_two_splits_are_named() -> None:
    sample = DRAWN["train"][0]
    found = audited({"test": {3: {"group": sample.group}}, "val": {1: {"id": sample.id}}}, FEW)
    assert kinds.WRITER in named(found, sample.group)
    assert kinds.DUPLICATE_ID in named(found, sample.id)


def test_a_set_of_one_writer_is_told_so_and_not_refused() -> None:
    found = audited({split: {place: {"group": "anna"} for place in range(40)} for split in FEW}, FEW)
    assert not [fault for fault in found.faults if fault.kind == kinds.WRITER]
    assert any("one writer" in note for note in found.notes)


def test_frames_are_asked_at_the_width_that_the_network_sees() -> None:
    asked = []

    def frames(image: np.ndarray) -> int:
        if len(asked) == 3:
            asked.append(0)
            raise ValueError("an unusable size, which is a fault of its own")
        asked.append(FitHeight(32, 8).width(image.shape))
        return asked[-1] // 24

    found = audited(drawn=FEW, needed=len, frames=frames)
    widths = {s.id: FitHeight(32, 8).width(s.image.shape) for samples in FEW.values() for s in samples}
    unusable = list(widths)[3]
    assert asked == [0 if id == unusable else width for id, width in widths.items()]
    short = {s.id for samples in FEW.values() for s in samples if len(s.text) > widths[s.id] // 24} - {unusable}
    assert short
    assert {fault.id for fault in found.faults if fault.kind == kinds.FRAMES} == short


def test_what_the_reader_skipped_is_named() -> None:
    left = Skipped("x/1", "polygon with 2 points", "1,1 2,2")
    found = audit({"train": Samples(FEW["train"], [left])}, Normalizer(), FitHeight(32, 8))
    assert found.skipped == [left]
    assert named(found, "x/1") == {"polygon with 2 points"}


def test_critical_faults_come_first() -> None:
    sample = DRAWN["train"][0]
    found = audited({"test": {3: {"group": sample.group, "text": "ǂ"}}}, FEW)
    critical = [fault.kind in kinds.CRITICAL for fault in found.faults]
    assert critical == sorted(critical, reverse=True)


def test_a_few_lines_are_audited_without_what_needs_many() -> None:
    found = audit({"train": Samples(DRAWN["train"][:3])}, Normalizer(), FitHeight(32, 8))
    assert not found.faults
    assert any("too few" in note for note in found.notes)


def test_digits_of_which_many_look_alike_are_no_leak() -> None:
    rng = np.random.default_rng(0)

    def digit(number: int) -> Sample:
        image = np.full((28, 28), 255, np.uint8)
        cv2.line(image, (14, 4), (14 + int(rng.integers(3)), 24), 0, 2)
        return Sample(str(number), image, "1", str(number))

    samples = [digit(number) for number in range(300)]
    images = {s.image.tobytes() for s in samples[:200]}
    found = audit({"train": Samples(samples[:200]), "test": Samples(samples[200:])}, Normalizer(), FitHeight(28))
    leaks = {fault.id for fault in found.faults if fault.kind == kinds.LEAK}
    assert leaks == {s.id for s in samples[200:] if s.image.tobytes() in images}


MARKS: dict[str, list[list[tuple[float, float]]]] = {  # strokes as (x, y) in line heights
    "″": [[(0.0, 0.3), (-0.05, 0.47)], [(0.11, 0.3), (0.06, 0.47)]],
    "„": [[(0.0, 0.62), (-0.05, 0.78)], [(0.11, 0.62), (0.06, 0.78)]],
    "—": [[(0.0, 0.53), (0.5, 0.52)]],
    ".": [[(0.0, 0.7), (0.02, 0.72)]],
    ",": [[(0.0, 0.66), (-0.05, 0.78)]],
    "1": [[(0.0, 0.2), (0.0, 0.75)]],
}


def marked(strokes: Sequence[Sequence[tuple[float, float]]], height: int, aspect: int) -> np.ndarray:
    """Noisy paper of a given height and aspect ratio with a few strokes."""
    image = np.random.default_rng(0).normal(225, 6, (height, height * aspect)).clip(0, 255).astype(np.uint8)
    for stroke in strokes:
        start, end = ((round((0.4 * aspect + x) * height), round(y * height)) for x, y in stroke)
        cv2.line(image, start, end, 60, max(3, height // 20), cv2.LINE_AA)
    return image


@pytest.mark.parametrize("aspect", [1, 4, 12, 30])
def test_an_image_is_blank_if_it_has_no_ink_or_a_mark_in_place_of_a_phrase(aspect: int) -> None:
    def blank(image: np.ndarray, text: str) -> bool:
        lines = [Line("train", 0, "x", text, "x", measure(image))]
        return kinds.BLANK in {fault.kind for fault in image_faults(lines, FitHeight(32, 8))}

    for height in (40, 70, 150):
        for text, strokes in MARKS.items():
            assert not blank(marked(strokes, height, aspect), text), (text, height)
            assert blank(marked([], height, aspect), text)
        if aspect >= 12:
            assert blank(marked(MARKS["."], height, aspect), "letters of a phrase")
            assert not blank(marked(MARKS["."], height, aspect), ". . . . . . . . . .")


def test_a_set_of_mostly_blank_lines_is_audited() -> None:
    samples = [s._replace(image=np.full((40, 200), 230, np.uint8)) for s in DRAWN["train"]]
    found = audit({"train": Samples(samples)}, Normalizer(), FitHeight(32, 8))
    assert sum(fault.kind == kinds.BLANK for fault in found.faults) == len(samples)
