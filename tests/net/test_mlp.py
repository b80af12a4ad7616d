"""The multilayer perceptron."""

import jaxtyping
import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional

from htr_lightning.net.mlp import MLP


@pytest.mark.parametrize(
    ("hidden", "count"),
    [([128], 784 * 128 + 128 + 128 * 10 + 10), ([128, 64], 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10)],
)
def test_the_parameters_are_those_of_its_layers(hidden: list[int], count: int) -> None:
    assert sum(p.numel() for p in MLP(10, inputs=784, hidden=hidden).parameters()) == count


def test_784_128_10_has_101_770_parameters() -> None:
    assert sum(p.numel() for p in MLP(10, inputs=784, hidden=[128]).parameters()) == 101_770


def test_scores_are_matrix_products_of_the_standardised_ink() -> None:
    torch.manual_seed(0)
    net = MLP(10, inputs=12, hidden=[5], mean=0.1, std=0.3).eval()
    images = torch.rand(4, 1, 3, 4)
    w1, b1, w2, b2 = net.parameters()
    expected = torch.relu((images.reshape(4, 12) - 0.1) / 0.3 @ w1.T + b1) @ w2.T + b2
    torch.testing.assert_close(net(images, torch.full((4,), 4)), expected)


def test_batch_norm_is_independent_of_the_batch_in_evaluation_and_overfits_eight_images() -> None:
    torch.manual_seed(0)
    net, images, classes = MLP(10, 784, [32, 32], batch_norm=True), torch.rand(8, 1, 28, 28), torch.arange(8)
    widths = torch.full((8,), 28)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        functional.cross_entropy(net(images, widths), classes).backward()
        optimizer.step()
    net.eval()
    scores = net(images, widths)
    assert scores.argmax(1).tolist() == classes.tolist()
    for row in range(8):
        torch.testing.assert_close(net(images[row : row + 1], widths[:1]), scores[row : row + 1])


def test_batch_norm_exports_with_any_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # symbolic sizes are not of type int
    torch.manual_seed(0)
    net = MLP(10, 784, [32], batch_norm=True).eval()
    free = {0: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(
        net, (torch.rand(2, 1, 28, 28), torch.full((2,), 28)), dynamo=True, verbose=False,
        dynamic_shapes={"images": free, "widths": free},
    )  # fmt: skip
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), None, ["CPUExecutionProvider"])
    for count in (1, 2, 5):
        inputs = {"images": torch.rand(count, 1, 28, 28), "widths": torch.full((count,), 28)}
        given = {each.name: inputs[each.name].numpy() for each in session.get_inputs()}
        np.testing.assert_allclose(session.run(None, given)[0], net(**inputs).detach().numpy(), atol=1e-4)
