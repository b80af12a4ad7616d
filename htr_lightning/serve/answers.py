"""What the API receives and returns, as described in /openapi.json."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from htr_lightning.data.image import MAX_SIDE

MAX_TEXT = 10_000  # characters of a line
MAX_POINTS = 1000  # of an outline
CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")  # not allowed in XML, or in a line


def _one_line(text: str) -> str:
    if found := CONTROLS.search(text):
        raise ValueError(f"contains the control character U+{ord(found[0]):04X}, remove it")
    return text


Side = Annotated[float, Field(ge=-MAX_SIDE, le=MAX_SIDE, allow_inf_nan=False)]  # in pixels
Outline = Annotated[list[tuple[Side, Side]], Field(max_length=MAX_POINTS)]


class Fault(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="one line that names what is wrong, its value and the remedy")


class AlternativeText(BaseModel):
    """One of several hypotheses for a line."""

    text: str
    confidence: float


class Word(BaseModel):
    """A transcribed word, as divided by spaces."""

    text: str
    confidence: float = Field(description="probability that it is correct")


class LineText(BaseModel):
    """A transcribed line."""

    id: str = Field(description="id of the line in the PAGE or ALTO file")
    text: str
    confidence: float | None = Field(description="probability per character; null if the line could not be read")
    alternatives: list[AlternativeText] = Field(description="best first; empty unless n_best was given")
    words: list[Word]
    box: tuple[int, int, int, int] | None = Field(description="left, top, right and bottom in pixels of the image")
    polygon: list[tuple[float, float]] = Field(description="outline, in pixels of the image")
    baseline: list[tuple[float, float]] = Field(description="empty if the line has none, as for an image of one line")
    region: str = Field(description="id of the region in the file, or of those found; empty for an image of one line")
    error: str | None = Field(description="why the line could not be read")
    note: str | None = Field(description="why its text is empty")


class FileText(BaseModel):
    """The lines of an image or page, in reading order."""

    name: str = Field(description="name of the image")
    xml: str | None = Field(description="name of the PAGE or ALTO file")
    width: int = Field(description="pixels of the image, rotated as its EXIF data says")
    height: int
    lines: list[LineText]
    unknown_script: bool = Field(description="whether its low confidence may be due to a script that is not read")


class Transcribed(BaseModel):
    """The answer to /api/transcribe."""

    model: str
    files: list[FileText]
    notes: list[str] = Field(description="XML files that were left out, and why")


class BatchLine(BaseModel):
    """A transcribed image of one line."""

    name: str
    text: str
    confidence: float | None
    alternatives: list[AlternativeText]
    words: list[Word]
    error: str | None
    note: str | None


class BatchTranscribed(BaseModel):
    """The answer to /api/batch, in the order of the images."""

    model: str
    lines: list[BatchLine]


class CorrectedLine(BaseModel):
    """A line to be written into a PAGE file."""

    id: str
    text: Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_one_line)]
    confidence: float = Field(1.0, ge=0, le=1, description="1 for lines that a person has confirmed")
    polygon: Outline = Field([], description="for a line that was found on the image of a page without XML")
    baseline: Outline = Field([], description="the same")
    region: str = Field("region_1", pattern=r"^\w{1,50}$", description="the same")


Name = Annotated[str, Field(max_length=200), AfterValidator(_one_line)]


class CorrectedText(BaseModel):
    """A line to be stored for training."""

    id: str = Field(description="id of the line, as it was answered")
    text: Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_one_line)] | None = Field(
        description="text that a person has corrected or confirmed; null to withdraw what that person said"
    )
    before: Annotated[str, Field(max_length=MAX_TEXT)] | None = Field(None, description="text that was recognized")
    confidence: float | None = Field(None, ge=0, le=1, description="of the text that was recognized")


class Stored(BaseModel):
    """That lines have been stored; they are on the disk."""

    accepted: int
    duplicates: int = Field(description="lines whose image already had the same text")
    contradictions: list[str] = Field(description="lines for which people disagree, which are not used")


class Gain(BaseModel):
    """Edits of the recognizer before and after a training, in lines that it was not trained on."""

    before: int
    after: int
    characters: int
    lines: int


class Training(BaseModel):
    """A training on corrections."""

    time: str
    promoted: bool
    version: int | None
    reason: str
    new: Gain = Field(description="on corrections that are held out")
    old: Gain | None = Field(description="on old data; null if none were given")


class Collected(BaseModel):
    """The corrections that this server has collected."""

    lines: int
    waiting: int = Field(description="lines that came after the last training that was promoted")
    duplicates: int
    contradictions: list[str]
    version: int | None = Field(description="current version of the recognizer that was trained on them")
    last: Training | None


class Model(BaseModel):
    """A recognizer that this server offers."""

    name: str
    single_characters: bool
    alternatives: bool = Field(description="whether n_best may be larger than 1")
    characters: int = Field(description="size of the alphabet")
    scripts: list[str] = Field(description="codes of ISO 15924, such as Latn")
    languages: list[str] = Field(description="that figures are known for, such as fr")


class Offer(BaseModel):
    """What this server offers."""

    models: list[Model] = Field(description="the first one is used unless a model is named")
    version: str
    max_bytes: int
    max_lines: int
    corrections: bool = Field(description="whether confirmed lines can be stored")


class Health(BaseModel):
    """That the server is running."""

    status: str
    version: str
