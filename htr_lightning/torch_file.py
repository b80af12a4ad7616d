"""Load files written by `torch.save` that contain only tensors and plain data, without executing any code.

`torch.load(weights_only=True)` runs no foreign code either, but a small file can make it allocate any amount of memory:
records can be compressed, `bytearray(10**10)` is a permitted call, and a list can contain the same list many times.
Therefore the file is checked first, so that it never takes much more memory than its size.
"""

import pickle
import re
import struct
import warnings
from pathlib import Path
from pickletools import genops, markobject, pytuple
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor

END = struct.Struct("<4s4H2LH")  # the last record of a zip archive, without a comment
MAX_DIRECTORY = 16 << 20  # bytes; a checkpoint with 1,000 weights needs 300,000
MAX_OPCODES = 5_000_000  # in the pickle; a lexicon of a million words needs 2 million
MAX_TUPLE = 1000  # objects in a tuple and the tuples inside it; the shape of a tensor has at most 5
MAX_DEPTH = 64  # levels of nesting; a config has about 10
CALLS = re.compile(r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch [A-Z]\w*Storage")
METADATA = "_metadata"  # the only attribute of a dict, by which a state dict gives the versions of modules
LEAVES = (str, int, float, bool, bytes, type(None))


def load(path: Path) -> Any:
    """Load the content of a file written by `torch.save`.

    Args:
        path: path to the file.

    Raises:
        pickle.UnpicklingError: if the file contains objects other than tensors and plain data.
        Exception: any exception that the unpickler raises if the file is corrupted or larger than its size suggests.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        opcodes = _check_pickle(_read_pickle(file, size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols
        content = torch.load(path, map_location="cpu", weights_only=True)
    _check_content(content, opcodes, size)
    return content


def _read_pickle(file: BinaryIO, size: int) -> bytes:
    """Return the pickle in an archive. Raises ValueError if `torch.save` would not write this archive."""
    file.seek(max(0, size - END.size))
    tail = file.read()
    if len(tail) < END.size or not tail.startswith(b"PK\5\6"):
        raise ValueError("not a zip archive, or truncated")
    if END.unpack(tail)[5] > MAX_DIRECTORY:
        raise ValueError("too many records")
    with ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != ZIP_STORED for member in members):
            raise ValueError("compressed records")
        if sum(member.file_size for member in members) > size:
            raise ValueError("the records are larger than the file")
        names = [member.filename.lower() for member in members]  # torch ignores case
        pickles = [member for member in members if member.filename.lower().endswith("data.pkl")]
        if len(set(names)) < len(names) or len(pickles) != 1:
            raise ValueError("duplicate or missing records")
        if (part := archive.testzip()) is not None:  # torch does not verify the checksums that it writes
            raise ValueError(f"the checksum of {part} does not match")
        return archive.read(pickles[0])


def _check_pickle(content: bytes) -> int:
    """Return the number of opcodes in a pickle, after checking that it calls nothing but what rebuilds tensors.

    The stack of the unpickler is simulated in order to find large tuples: hashing one that contains the same tuple many
    times, as a key of a dict, may never end.
    """
    count = 0
    stack, marks, memo = list[int](), list[int](), dict[Any, int]()  # sizes of objects, which are 1 except for tuples
    for count, (opcode, argument, _) in enumerate(genops(content), start=1):
        if opcode.name == "GLOBAL" and not CALLS.fullmatch(str(argument)):
            raise pickle.UnpicklingError(argument)
        if count > MAX_OPCODES:
            raise ValueError(f"more than {MAX_OPCODES:,} objects")
        before, after = opcode.stack_before, opcode.stack_after
        if opcode.name == "MARK":
            marks.append(len(stack))
        elif opcode.name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        else:
            start = marks.pop() - before.index(markobject) if markobject in before else len(stack) - len(before)
            size = 1 + sum(stack[start:]) if after == [pytuple] else 1
            if size > MAX_TUPLE:
                raise ValueError(f"a tuple of more than {MAX_TUPLE:,} objects")
            del stack[start:]
            stack += [size] * len(after)
    return count


def _check_content(content: Any, most: int, size: int) -> None:
    """Check the types, nesting and sizes of loaded data.

    Args:
        content: loaded data.
        most: maximum number of objects, counting an object again wherever it is contained.
        size: size of the file in bytes.
    """
    level, claimed = [content], 0
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for node in level:
            if type(node) is Tensor or type(node) is torch.nn.Parameter:
                claimed += node.numel() * node.element_size()
                continue
            if isinstance(node, dict):
                if not all(isinstance(key, LEAVES) for key in node) or getattr(node, "__dict__", {}).keys() - {
                    METADATA
                }:
                    raise pickle.UnpicklingError("key")
                children: Any = node.values()
            elif isinstance(node, list | tuple | set):
                children = node
            elif isinstance(node, LEAVES):
                continue
            else:
                raise pickle.UnpicklingError(type(node).__name__)
            most -= len(children)
            if most < 0:
                raise ValueError("objects that contain each other")
            below += [child for child in children if type(child) not in LEAVES]
        level = below
        if not level:
            break
    else:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    if claimed > 2 * size:  # tied weights are stored once and counted twice
        raise ValueError("tensors that are larger than the file")
