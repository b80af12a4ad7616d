"""Compile a network with `torch.compile` (Ansel et al., 2024, "PyTorch 2") for training."""

from collections.abc import Iterator

import torch
from torch import nn

from htr_lightning.errors import InputError

DEFAULT = "inductor"


def backend(setting: bool | str) -> str | None:
    """Return the name of the backend that the setting `compile` chooses, or None if nothing is compiled.

    Raises:
        InputError: if there is no such backend.
    """
    if isinstance(setting, bool):
        return DEFAULT if setting else None
    if setting not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())  # without those that help to find faults
        raise InputError(f"compile={setting}: expected true, false or a backend: {known}")
    return setting


def obstacle(name: str, device: torch.device) -> str | None:
    """Return why a backend cannot be used on a device, and what to do about it; None if it can be.

    Args:
        name: name of the backend.
        device: device of the run.
    """
    if name != DEFAULT:
        return None
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "Triton cannot be used with this GPU; install triton"
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except RuntimeError:
        return "there is no C++ compiler; install g++"
    return None


def compile_parts(net: nn.Module, name: str) -> int:
    """Compile the parts of a network in place, so that the names of its weights stay the same; return their number.

    Blocks of the same kind share a program, which is compiled again for the first batch of another size, and then for
    batches of all sizes.

    Args:
        net: network.
        name: name of the backend.
    """
    found = list(_parts(net)) or [net]
    for part in found:
        part.compile(backend=name)
    return len(found)


def _parts(net: nn.Module) -> Iterator[nn.Module]:
    """Yield the backbones and transformer blocks of a network; a recurrence over frames gains nothing."""
    for name, child in net.named_children():
        if name == "backbone":
            yield child
        elif name == "blocks":
            yield from child.children()
        else:
            yield from _parts(child)
