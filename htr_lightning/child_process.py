"""Run a command of `htr` in a process of its own."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from htr_lightning.errors import InputError

STDERR = 2  # the stream of the process, whatever `sys.stderr` is


def run_command(words: Sequence[str]) -> None:
    """Run a command of `htr`, given as words, whose output goes to stderr.

    Raises:
        InputError: if it fails.
    """
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    program = [sys.executable, "-m", "htr_lightning", *words]
    child = subprocess.Popen(program, stdout=STDERR, env=environment)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        child.wait()  # it has received the signal, too, and saves its state
        raise
    if code:
        raise InputError(
            f"htr {shlex.join(words)}: ended with exit code {code}; see the messages above, and repeat the command "
            "that you typed to go on"
        )
