"""Write the checkpoints of a run so that an interrupted write loses nothing."""

from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from htr_lightning.checkpoint import write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint plugin, with files written by `checkpoint.write`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write(checkpoint, path)
