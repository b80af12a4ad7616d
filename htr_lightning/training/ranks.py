"""What the processes of a run exchange: numbers on the CPU, and with `trainer=fsdp` weights as well."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy, ParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch.distributed.checkpoint import state_dict as states
from torch.distributed.constants import default_pg_timeout
from torch.optim import Optimizer

from htr_lightning.errors import InputError
from htr_lightning.model.base import Recognizer
from htr_lightning.net.transformer_decoder import DecoderBlock
from htr_lightning.net.vit import Block
from htr_lightning.optim import SAM

# Processes wait for each other at every step, and after a validation for the slowest one, which takes seconds. Only by
# the time that the others wait is it noticed that one hangs on another machine.
TIMEOUT = timedelta(minutes=10)
FULL = states.StateDictOptions(full_state_dict=True)
FULL_ON_FIRST = states.StateDictOptions(full_state_dict=True, cpu_offload=True)


def prepare(trainer: Trainer) -> None:
    """Set how the processes of a run communicate, as far as its config does not.

    They wait for each other at most `TIMEOUT`, instead of half an hour. On GPUs, they exchange clocks and signals
    directly rather than through NCCL, since reading a number from a GPU would wait for it at every step.

    Raises:
        InputError: if a callback does not work with the strategy.
    """
    if not isinstance(trainer.strategy, ParallelStrategy):
        return
    strategy: Any = trainer.strategy
    if isinstance(strategy, FSDP) and any(isinstance(one, WeightAveraging) for one in trainer.callbacks):  # type: ignore[attr-defined]
        raise InputError("callbacks=ema: not supported by trainer=fsdp; use trainer=ddp or callbacks=default")
    if strategy._timeout == default_pg_timeout:
        strategy._timeout = TIMEOUT
    if strategy.root_device.type == "cuda" and strategy._process_group_backend in (None, "nccl"):
        strategy._process_group_backend = "cpu:gloo,cuda:nccl"


class FSDP(ModelParallelStrategy):
    """Fully sharded data parallelism: each process stores a part of the weights, gradients and optimizer state
    (Zhao et al., 2023, "PyTorch FSDP", arXiv:2304.11277).

    The weights of a transformer block are gathered when it is used, and those of all other layers at every step. For
    validation and testing, all of them are gathered, because the processes decode different numbers of characters.
    Checkpoints are those of any other run. It uses FSDP2, which also runs on CPUs, unlike Lightning's `FSDPStrategy`.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def recognizer(self) -> Recognizer:
        """The recognizer in training."""
        module: Any = self.lightning_module
        return module.recognizer

    @property
    def sharded(self) -> Iterator[Any]:
        """The modules whose weights are gathered separately, the recognizer first."""
        return (module for module in self.recognizer.modules() if hasattr(module, "unshard"))

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        assert self.accelerator is not None
        assert self.model is not None
        if getattr(self.recognizer.optimizer, "func", None) is SAM:
            raise InputError("optimizer=sam: not supported by trainer=fsdp; use trainer=ddp or optimizer=adamw")
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        if not any(self.sharded):  # testing comes after training
            shard(self.recognizer, self.device_mesh["data_parallel"])
        self.barrier()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def on_validation_start(self) -> None:
        """Gather all weights, and use the batch norm statistics of the first process, which checkpoints contain."""
        for buffer in self.recognizer.buffers():
            torch.distributed.broadcast(buffer, 0)
        for module in self.sharded:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()

    def on_validation_end(self) -> None:
        for number, module in enumerate(self.sharded):
            module.set_reshard_after_forward(number > 0, recurse=False)  # the backward pass begins with other layers
            module.reshard()

    on_test_start, on_test_end = on_validation_start, on_validation_end

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the weights on the first process, and nothing on the others."""
        return states.get_model_state_dict(self.recognizer, options=FULL_ON_FIRST)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state in the form of `Optimizer.state_dict` on the first process, and nothing on the others."""
        found = states.get_optimizer_state_dict(self.recognizer, _plain(optimizer), options=FULL_ON_FIRST)
        return _renamed(found, {name: number for number, name in enumerate(self._names(optimizer))})

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        states.set_model_state_dict(self.recognizer, dict(checkpoint["state_dict"]), options=FULL)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            named = _renamed(state, dict(enumerate(self._names(optimizer))))
            states.set_optimizer_state_dict(self.recognizer, _plain(optimizer), named, options=FULL)

    def _names(self, optimizer: Optimizer) -> list[str]:
        """Return the names of the weights in the order in which the optimizer numbers them."""
        names = {weight: name for name, weight in self.recognizer.named_parameters()}
        return [names[weight] for group in optimizer.param_groups for weight in group["params"]]


def shard(recognizer: Recognizer, mesh: Any) -> None:
    """Divide the weights of a recognizer among processes.

    Args:
        recognizer: recognizer to train.
        mesh: one-dimensional device mesh of the processes.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # missing on some platforms

    for module in list(recognizer.modules()):
        if isinstance(module, Block | DecoderBlock):
            fully_shard(module, mesh=mesh)
    fully_shard(recognizer, mesh=mesh)
    for method in ("loss", "validate", "predict"):
        register_fsdp_forward_method(recognizer, method)


def _plain(optimizer: Any) -> Optimizer:
    return getattr(optimizer, "optimizer", optimizer)  # Lightning wraps it


def _renamed(state: Mapping[str, Any], names: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the state of an optimizer with other names for the weights."""
    if not state:
        return {}
    groups = [{**group, "params": [names[one] for one in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[one]: its for one, its in state["state"].items()}, "param_groups": groups}
