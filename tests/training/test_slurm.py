"""Sweeps on SLURM, with programs in place of its commands, and runs of processes that torchrun starts."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SMALL

from htr_lightning.training.sweep_job import read_record

ROOT = Path(__file__).parent.parent.parent
COMMANDS = {
    "sbatch": """
cp "$1" "$SLURM_FAKE/job.sh"
SLURM_JOB_ID=100 setsid bash "$1" > /dev/null 2>&1 &
echo "Submitted batch job 100"
""",
    "srun": """
while [[ $1 == -* ]]; do
  [[ $1 == --output || $1 == --error ]] && shift
  shift
done
echo $$ > "$SLURM_FAKE/process"
echo "$@" >> "$SLURM_FAKE/started"
SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_JOB_NAME=htr exec "$@" >> "$SLURM_FAKE/out" 2>&1
""",
    "scontrol": """
[[ $1 == requeue ]] || exit 1
SLURM_JOB_ID=100 setsid bash "$SLURM_FAKE/job.sh" > /dev/null 2>&1 &
""",
    "sacct": 'echo "JobID|State|NodeList"; echo "100|RUNNING|here"',
}


def start(arguments: list[str], folder: Path, **variables: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.Popen(arguments, cwd=folder, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts")
def test_a_preempted_job_saves_its_state_and_continues(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name, script in COMMANDS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash{script if script.startswith(chr(10)) else chr(10) + script}")
        (tmp_path / "bin" / name).chmod(0o755)
    sweep = start(
        [sys.executable, str(ROOT / "train.py"), "-m", "hydra/launcher=submitit_slurm", *SMALL, "logger=csv", "seed=5",
         "trainer.accelerator=cpu", "trainer.max_epochs=4", f"hydra.sweep.dir={tmp_path}/sweep"],
        tmp_path, PATH=f"{tmp_path}/bin:{os.environ['PATH']}", SLURM_FAKE=str(tmp_path),
    )  # fmt: skip
    last = tmp_path / "sweep" / "0" / "checkpoints" / "last.ckpt"
    while not last.is_file() and sweep.poll() is None:
        time.sleep(0.05)
    os.kill(int((tmp_path / "process").read_text()), signal.SIGUSR2)
    out, _ = sweep.communicate(timeout=280)
    assert sweep.returncode == 0, out
    assert len((tmp_path / "started").read_text().splitlines()) == 2
    log = (tmp_path / "sweep" / "0" / "train.log").read_text()
    assert "stopped by SIGTERM at step" in log
    assert read_record(tmp_path / "sweep" / "0")["state"] == "done"
    assert "job 0: " in (told := (tmp_path / "out").read_text())
    assert told.count("(continued)") == 1


@pytest.mark.slow
def test_torchrun_starts_a_run_on_two_machines(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = ["data.reader.lines={train: 96, val: 17, test: 23}", "data.max_lines=3"]
    nodes = [
        start(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=1",
             "--master-addr=127.0.0.1", f"--master-port={port}", str(ROOT / "train.py"), *SMALL, *lines, "logger=csv",
             "trainer.accelerator=cpu", "trainer.strategy=ddp", "trainer.num_nodes=2", "trainer.max_steps=5",
             f"hydra.run.dir={tmp_path}/run"],
            tmp_path,
        )
        for rank in range(2)
    ]  # fmt: skip
    for node in nodes:
        out, _ = node.communicate(timeout=280)
        assert node.returncode == 0, out
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert '"test_lines": 23' in (tmp_path / "run" / "summary.json").read_text()
    assert (tmp_path / "run" / ".hydra" / "config.yaml").is_file()
