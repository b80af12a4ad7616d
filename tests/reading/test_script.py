"""Pages in a script that a recognizer cannot read are told by low confidences, and a recognizer says what it reads."""

import json
import string
from collections.abc import Callable
from pathlib import Path

import pytest
import regex
from conftest import Outcome
from PIL import Image, ImageDraw, ImageFont

import htr_lightning
from htr_lightning.metrics.calibration import Calibration
from htr_lightning.pretrained import LANGUAGES
from htr_lightning.reading.script import MIN_CHARACTERS, MIN_CONFIDENCE, is_unknown, page_confidence, reads
from htr_lightning.text.script import CODES, scripts
from htr_lightning.transcription import Transcription


@pytest.mark.parametrize("name", CODES)
def test_scripts_are_those_of_unicode(name: str) -> None:
    letter = regex.compile(rf"(?=\p{{L}})\p{{Script={CODES[name]}}}")
    letters = [chr(n) for n in (*range(0x3200), *range(0x4E00, 0x4F00), *range(0xAC00, 0xAD00)) if letter.match(chr(n))]
    assert letters
    assert scripts(letters) == [name]


def test_scripts_of_alphabets() -> None:
    assert scripts(string.ascii_letters + "éßπ .,-0123") == ["Latin"]  # one Greek letter is no script
    assert scripts("абвгдеABC") == ["Cyrillic", "Latin"]
    assert scripts("0123456789") == scripts("") == scripts([""]) == []


def read(confidence: float, characters: int = 40) -> Transcription:
    return Transcription("x" * characters, confidence, characters=(confidence,) * characters)


def test_the_confidence_of_a_page_is_the_mean_over_characters() -> None:
    assert page_confidence([read(0.2, 30), None, read(0.8, 10)]) == pytest.approx(0.35)
    assert page_confidence([read(0.2, 30)._replace(characters=()), read(0.8, 10)]) == pytest.approx(0.35)
    assert page_confidence([read(0.1, MIN_CHARACTERS - 1), None]) is None
    assert page_confidence([]) is None


@pytest.fixture(scope="module")
def latin() -> htr_lightning.Reader:
    return htr_lightning.load("latin-modern")


def test_what_recognizers_read(latin: htr_lightning.Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads(latin.transcriber, "latin-modern") == "Latin script (French, English)"
    assert reads(latin.transcriber, "other.ckpt") == "Latin script"
    digits = htr_lightning.load("digits").transcriber
    assert reads(digits, "digits") == ""
    assert not is_unknown(digits, 0.1)  # a digit is no page
    assert is_unknown(latin.transcriber, MIN_CONFIDENCE - 0.01)
    assert not is_unknown(latin.transcriber, MIN_CONFIDENCE)
    assert not is_unknown(latin.transcriber, None)
    monkeypatch.setattr(latin.transcriber, "calibration", Calibration())
    assert not is_unknown(latin.transcriber, MIN_CONFIDENCE - 0.01)  # any checkpoint may be unsure of its own script
    for name in LANGUAGES:
        card = Path(htr_lightning.__file__).with_name("pretrained") / f"{name}.md"
        assert "French and English" in card.read_text()


WORDS = {
    "Arabic": "السلام عليكم كتاب الرجل المدينة في البيت الكبير وقال له يا أخي إن العلم نور والجهل ظلام",
    "Latin": "le jour de la semaine est venu avec la lettre que vous avez bien voulu nous envoyer hier",
}


@pytest.fixture(params=WORDS)
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A page of four lines in a script, and the images of these lines in `lines/`."""
    matplotlib = pytest.importorskip("matplotlib")
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), 48)
    words, body = WORDS[request.param].split(), ""
    picture = Image.new("L", (900, 500), 235)
    (tmp_path / "lines").mkdir()
    for number in range(4):
        top = 20 + 110 * number
        ImageDraw.Draw(picture).text((30, top + 20), " ".join(words[4 * number : 4 * number + 4]), font=font, fill=40)
        body += (
            f'<TextLine id="l{number}"><Coords points="5,{top} 895,{top} 895,{top + 105} 5,{top + 105}"/></TextLine>'
        )
        picture.crop((5, top, 895, top + 105)).save(tmp_path / "lines" / f"{number}.png")
    picture.save(tmp_path / "page.png")
    path = tmp_path / f"{request.param}.xml"
    path.write_text(
        '<PcGts><Page imageFilename="page.png" imageWidth="900" imageHeight="500"><TextRegion id="r">'
        f"{body}</TextRegion></Page></PcGts>"
    )
    return path


def test_a_page_in_another_script_is_told_in_one_line(page: Path, htr: Callable[..., Outcome]) -> None:
    foreign = page.stem == "Arabic"
    outcome = htr("transcribe", "latin-modern", page, "--format", "jsonl")
    assert outcome.code == 0
    rows = [json.loads(row) for row in outcome.stdout.splitlines()]
    assert [row.get("unknown_script", False) for row in rows] == [foreign] * 4
    assert outcome.stderr.count("\n") == foreign
    assert outcome.stderr.startswith(f"note: {page}: low confidence (" * foreign)
    assert ("that latin-modern does not read (it reads Latin), or hard to read" in outcome.stderr) == foreign
    lines = htr("transcribe", "latin-modern", page.parent / "lines").stderr
    assert ("0.png and 3 other line images: low confidence (" in lines) == foreign
    (page.parent / "lines" / "3.png").unlink()
    (page.parent / "lines" / "2.png").unlink()
    two = htr("transcribe", "latin-modern", page.parent / "lines").stderr
    assert ("0.png and 1 other line image: low confidence (" in two) == foreign
