"""A line reads the same alone and in a batch, whatever its neighbours."""

from pathlib import Path

import numpy as np
import pytest
import torch

from htr_lightning.data.batch import collate
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.model.ctc import CTCRecognizer


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 7, 32])
def test_every_test_line_of_copiste(size: int, htr_data: Path, make_recognizer) -> None:
    """Logits within 1e-4 in float32 and the same text, in shuffled batches."""
    recognizer: CTCRecognizer = make_recognizer()
    reader = PageXml(
        htr_data / "copiste", xml="alto/*.xml", images="jpg", splits="package:copiste.tsv", split="test", max_height=64
    )
    ink = [recognizer.preprocess(reader[index].image) for index in range(len(reader))]
    assert len(ink) == 617
    order = np.random.default_rng(size).permutation(len(ink)).tolist()
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        batch = collate([""] * len(chosen), [ink[i] for i in chosen], [""] * len(chosen), [""] * len(chosen))
        with torch.inference_mode():
            logits, lengths = recognizer.net(batch.images, batch.widths)
            together = recognizer.transcribe(batch.images, batch.widths)
            for row, index in enumerate(chosen):
                width = torch.tensor([ink[index].shape[-1]])
                alone, (length,) = recognizer.net(ink[index][None], width)
                assert lengths[row] == length
                torch.testing.assert_close(logits[row, :length], alone[0], atol=1e-4, rtol=0)
                assert recognizer.transcribe(ink[index][None], width)[0].text == together[row].text
