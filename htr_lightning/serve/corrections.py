"""Store lines that were corrected in the web page, and say what waits for training."""

import math
from collections.abc import Iterable, Sequence

from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.data.corrected import Correction
from htr_lightning.data.corrections import Added, CorrectionStore, Event
from htr_lightning.data.image import LINE_PIXELS
from htr_lightning.errors import InputError
from htr_lightning.reading.transcribe import TranscribedLine, open_to_read
from htr_lightning.serve import uploads
from htr_lightning.serve.answers import Collected, CorrectedText, Gain, Training
from htr_lightning.serve.limits import Limits
from htr_lightning.serve.uploads import WHOLE, Served, Upload

MAX_PIXELS = 2 * LINE_PIXELS  # in the lines of one request, which may overlap


def keep(
    store: CorrectionStore,
    served: Served,
    files: Sequence[Upload],
    lines: Sequence[CorrectedText],
    who: str,
    group: str,
    limits: Limits,
    deadline: float = math.inf,
) -> Added:
    """Store corrected lines of an image or page, cropped as they were for reading; they are on the disk afterwards.

    Raises:
        InputError: if the files are not one image or page, or have no line of a given id; nothing is stored then.
        TimeoutError: if the deadline, a time of the monotonic clock, has passed; nothing is stored then, either.
    """
    if served.recognizer.single_characters:
        raise InputError(f"{served.name}: reads single characters, but corrections are lines; use another recognizer")
    if len(lines) > limits.lines:
        raise InputError(f"{len(lines)} lines in one request (maximum {limits.lines}); send fewer lines at a time")
    with uploads.private_folder() as folder:
        uploads.save(files, folder)
        sources, _ = uploads.sources_of(folder, [file.name for file in files], limits)
        if len(sources) > 1:
            raise InputError(f"{len(sources)} images in one request; send the lines of one image or page at a time")
        opened = open_to_read(served.recognizer, sources[0], read=served.batcher.read_here)
        source = sources[0].path.name
        images = _images({line.id for line in lines}, uploads.until(deadline, opened), source)
    found = []
    for line in lines:
        if line.id not in images:
            raise InputError(f"line {line.id[: uploads.MAX_NAME]!r}: not in {source}; use the ids that it has")
        image, id = images[line.id]
        found.append(Correction(image, line.text, line.before, line.confidence, source, id, group))
    return store.add(found, who, served.name, served.sha256)


def _images(
    ids: set[str], opened: Iterable[tuple[TranscribedLine, UInt8[ndarray, "_ _"] | None]], source: str
) -> dict[str, tuple[UInt8[ndarray, "_ _"], str]]:
    """Return the images of the lines with the given ids, and the ids to be stored: "" for an image of one line.

    Raises:
        InputError: if an id occurs twice, a line cannot be cropped, or the images are too large to be kept in memory.
    """
    images: dict[str, tuple[UInt8[ndarray, "_ _"], str]] = {}
    pixels = 0
    for line, image in opened:
        id = WHOLE if line.line is None else line.line.id
        if id not in ids:
            continue
        if image is None:
            raise InputError(line.error or source)
        if id in images:
            raise InputError(f"line {id!r}: more than once in {source}; give each line an id of its own")
        if image.size > LINE_PIXELS:
            raise InputError(f"line {id!r}: {image.size:,} pixels (maximum {LINE_PIXELS:,}); crop a line")
        pixels += image.size
        if pixels > MAX_PIXELS:
            raise InputError(f"{source}: {pixels:,} pixels in the lines of one request (maximum {MAX_PIXELS:,}); send "
                             "fewer lines at a time")  # fmt: skip
        images[id] = image, "" if line.line is None else id
    return images


def collected(store: CorrectionStore) -> Collected:
    """Return what is in a store."""
    now = store.status()
    return Collected(
        lines=now.lines,
        waiting=now.waiting,
        duplicates=now.duplicates,
        contradictions=[line.told for line in now.contradictions],
        version=now.version,
        last=None if now.last is None else _training(now.last),
    )


def _training(event: Event) -> Training:
    gains = {
        name: Gain(before=found["before"], after=found["after"], characters=found["characters"], lines=found["lines"])
        for name in ("new", "old")
        if (found := event.figures.get(name))
    }
    return Training(time=event.time, promoted=event.kind == "promoted", version=event.version, reason=event.reason,
                    new=gains["new"], old=gains.get("old"))  # fmt: skip
