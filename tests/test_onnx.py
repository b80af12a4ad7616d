"""Every network can be exported to ONNX with the same outputs at any batch size and width."""

from collections.abc import Sequence

import jaxtyping
import numpy as np
import onnxruntime
import pytest
import torch
from conftest import MODELS, Network, network
from torch.utils._pytree import tree_leaves

FAST = ("mlp",)  # tracing an LSTM takes ten seconds
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),  # in torch's own tracing
    pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights"),  # nn.LSTM's, set back after the trace
    pytest.mark.filterwarnings("ignore:_check_is_size will be removed:FutureWarning"),
]


@pytest.fixture(autouse=True)
def _symbolic_sizes_are_no_int(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def session(of: Network, columns: int) -> onnxruntime.InferenceSession:
    example = of.ink([columns, columns - 7], columns)
    free = torch.export.Dim.DYNAMIC
    shapes = {"images": {0: free, 3: free} if of.lines else {0: free}, "widths": {0: free}}
    program = torch.onnx.export(of.net, example, dynamic_shapes=shapes, dynamo=True, verbose=False)
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1  # its notes about the graph are no faults
    return onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options, ["CPUExecutionProvider"])


def compare(of: Network, exported: onnxruntime.InferenceSession, widths: Sequence[int], columns: int) -> None:
    images, counts = of.ink(widths, columns)
    with torch.inference_mode():
        expected = of.net(images, counts)
    given = {"images": images.numpy(), "widths": counts.numpy()}
    taken = {each.name for each in exported.get_inputs()}  # an MLP looks at no width
    found = exported.run(None, {name: array for name, array in given.items() if name in taken})
    for ours, theirs in zip(tree_leaves(expected), found, strict=True):
        np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-4, rtol=0)
        assert ours.dtype == torch.int64 or ours.std() > 1e-3  # the comparison is of something


@pytest.mark.parametrize("model", [m if m in FAST else pytest.param(m, marks=pytest.mark.slow) for m in MODELS])
def test_the_exported_network_gives_the_same_at_other_batch_sizes_and_widths(model: str) -> None:
    of = network(model)
    widths = {of.preprocess.width((64, 64 * aspect)) for aspect in (2, 5, 9)}
    exported = session(of, max(widths) - len(widths) + 1)  # where widths vary, at none of them
    for columns in sorted(widths):
        for batch in ([columns], [columns] * 2, [columns, columns // 2, 3, columns - 1, 1]):
            compare(of, exported, batch, columns)
