"""Write checkpoints atomically during training."""

from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from htr_lightning.checkpoint import write


class AtomicCheckpointIO(TorchCheckpointIO):
    """A Lightning checkpoint plugin that writes files with `checkpoint.write`, which is atomic."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write(checkpoint, path)
