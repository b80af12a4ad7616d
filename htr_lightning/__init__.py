"""A research framework for handwritten text recognition, built on PyTorch Lightning and Hydra.

reader = htr_lightning.load()  # or load("best.ckpt")
reader.read("line.png").text
reader.transcribe(["page.xml", "more/"])
htr_lightning.evaluate(reader, ["data=copiste"]).cer
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from htr_lightning.version import __version__

if TYPE_CHECKING:
    from htr_lightning.evidence.evaluate import evaluate_reader as evaluate
    from htr_lightning.reading.open import load
    from htr_lightning.reading.reader import Reader
    from htr_lightning.reading.stream import StreamingReader
    from htr_lightning.transcription import Transcription

__all__ = ["Reader", "StreamingReader", "Transcription", "__version__", "evaluate", "load"]

_ORIGINS = {  # imported on first use, because importing torch takes seconds
    "Reader": ("htr_lightning.reading.reader", "Reader"),
    "StreamingReader": ("htr_lightning.reading.stream", "StreamingReader"),
    "Transcription": ("htr_lightning.transcription", "Transcription"),
    "evaluate": ("htr_lightning.evidence.evaluate", "evaluate_reader"),
    "load": ("htr_lightning.reading.open", "load"),
}


def __getattr__(name: str) -> Any:
    if name not in _ORIGINS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _ORIGINS[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
