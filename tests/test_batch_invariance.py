"""A line reads the same alone and in any batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MODELS, network

from htr_lightning.data.batch import collate
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.model.ctc import CTCRecognizer


@pytest.mark.parametrize("model", [model for model in MODELS if network(model).lines])
@torch.inference_mode()
def test_every_line_model_reads_a_line_alone_as_in_a_batch(model: str) -> None:
    of = network(model)
    widths = [200, 199, 131, 64, 33, 18, 5, 2, 1]
    images, counts = of.ink(widths, 211)  # wider than the widest: `multiple` pads all of them
    together, lengths, *others = of.net(images, counts)
    frames = others[-1] if others else lengths  # a position in a memory may cover several frames
    assert torch.equal(getattr(of.net, "encoder", of.net).frames(counts), frames)
    for row, width in enumerate(widths):
        (alone,), (length,), *_ = of.net(images[row : row + 1, :, :, :width].contiguous(), counts[row : row + 1])
        assert lengths[row] == length
        torch.testing.assert_close(together[row, :length], alone[:length], atol=1e-4, rtol=0)
        assert alone.std() > 1e-3  # the comparison is of something


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 7, 32])
@pytest.mark.parametrize(("dtype", "gain", "bound"), [(torch.float32, 5, 1e-4), (torch.float64, 10, 1e-9)])
def test_every_test_line_of_copiste(
    dtype: torch.dtype, gain: float, bound: float, size: int, htr_data: Path, make_recognizer
) -> None:
    """Logits within 1e-4 in float32, 1e-9 in float64 and there the same text, in shuffled batches.

    Weights of gain 10 make so chaotic an LSTM that float32's rounding alone moves its logits by 4e-3; in float64 they
    are the sharper test.
    """
    recognizer: CTCRecognizer = make_recognizer(gain=gain).to(dtype)
    reader = PageXml(htr_data / "copiste", xml="alto/*.xml", images="jpg", splits="package:copiste.tsv", split="test")
    numbers = np.float32 if dtype == torch.float32 else np.float64
    ink = [recognizer.preprocess(reader[index].image).astype(numbers) for index in range(len(reader))]
    assert len(ink) == 617
    order = np.random.default_rng(size).permutation(len(ink)).tolist()
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        batch = collate([""] * len(chosen), [ink[i] for i in chosen], [""] * len(chosen), [""] * len(chosen))
        with torch.inference_mode():
            logits, lengths = recognizer.net(batch.images, batch.widths)
            together = recognizer.transcribe(batch.images, batch.widths)
            for row, index in enumerate(chosen):
                width = torch.tensor([ink[index].shape[1]])
                image = torch.from_numpy(ink[index])[None, None]
                alone, (length,) = recognizer.net(image, width)
                assert lengths[row] == length
                torch.testing.assert_close(logits[row, :length], alone[0], atol=bound, rtol=0)
                if dtype == torch.float64:  # an untrained net has near ties that float32's rounding decides
                    assert recognizer.transcribe(image, width)[0].text == together[row].text
