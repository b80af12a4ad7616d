"""The kinds of fault that an audit reports, and what it keeps of each line."""

from typing import NamedTuple

from htr_lightning.audit.measure import Measures

# Critical faults stop training or invalidate its results.
UNREADABLE, SIZE, FRAMES = "unreadable line", "unusable size", "too few frames for the text"
OUTSIDE, DUPLICATE_ID = "character outside the alphabet", "id in two splits"
LEAK, WRITER = "same image in two splits", "writer in two splits"
CRITICAL = (UNREADABLE, SIZE, FRAMES, OUTSIDE, DUPLICATE_ID, LEAK, WRITER)
# Other faults are worth a look.
EMPTY, UNSEEN = "line without text", "character not in the training texts"
CONTROL, HIDDEN = "control or unassigned character", "invisible character"
BLANK, SMALL, POLARITY = "blank image", "tiny image", "light ink on dark paper"
UPRIGHT, UPSIDE_DOWN, CUT = "line is vertical", "line is upside down", "letters cut off"
MISMATCH, SWAPPED = "text does not fit its image", "text belongs to another line"

ENOUGH = 100  # minimum number of lines for detecting outliers
FEW = 0.05  # fraction of lines; a property shared by more lines than this is normal for the data set
A_WORD = 4  # characters; lines up to this length are not checked for vertical orientation or similar images
A_PHRASE = 16  # characters; shorter lines are not checked for being upside down


class Fault(NamedTuple):
    """A fault found in a line, a writer or a split."""

    id: str
    kind: str
    detail: str
    split: str
    compare: tuple[str, int] | None = None  # split and position of the line to show next to this one


class Line(NamedTuple):
    """The text and measurements of a line, without its pixels."""

    split: str
    position: int  # index in the reader
    id: str
    text: str  # normalised
    group: str
    measures: Measures
    # number of frames that the network outputs; None if it has none or the size of the image is unusable
    frames: int | None = None
