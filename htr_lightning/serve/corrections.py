"""Store lines that were corrected in the web page, and say what waits for training."""

from collections.abc import Sequence

from htr_lightning.data.corrected import Correction
from htr_lightning.data.corrections import Added, CorrectionStore, Event
from htr_lightning.errors import InputError
from htr_lightning.reading.transcribe import open_to_read
from htr_lightning.serve import uploads
from htr_lightning.serve.answers import Collected, CorrectedText, Gain, Training
from htr_lightning.serve.limits import Limits
from htr_lightning.serve.uploads import WHOLE, Served, Upload


def keep(
    store: CorrectionStore,
    served: Served,
    files: Sequence[Upload],
    lines: Sequence[CorrectedText],
    who: str,
    group: str,
    limits: Limits,
) -> Added:
    """Store corrected lines of an image or page, cropped as they were for reading; they are on the disk afterwards.

    Raises:
        InputError: if the files are not one image or page, or have no line of a given id; nothing is stored then.
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
        opened = open_to_read(served.recognizer, sources[0])
        images = {line.line.id if line.line else WHOLE: (image, line.error) for line, image in opened}
    source = sources[0].path.name
    found = []
    for line in lines:
        image, error = images.get(line.id, (None, f"line {line.id!r}: not in {source}; use the ids that it has"))
        if image is None:
            raise InputError(uploads.without(folder, error or source))
        id = "" if line.id == WHOLE and not sources[0].is_page else line.id
        found.append(Correction(image, line.text, line.before, line.confidence, source, id, group))
    return store.add(found, who, served.name, served.sha256)


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
