"""The notebooks run from top to bottom in a new kernel, draw their figures, and are committed without outputs."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = {"01_first_run": 5, "02_analyse_runs": 5}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository without runs and data, whose code the kernel imports."""
    for name in ("htr_lightning", "conf", "experiments", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("HTR_DATA", str(tmp_path / "data"))  # nothing is downloaded
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return tmp_path


def execute(clone: Path, name: str, timeout: int) -> list[str]:
    """Run a notebook, check its cells and figures, and return everything it printed."""
    book = nbformat.read(clone / "notebooks" / f"{name}.ipynb", as_version=4)
    place = {"metadata": {"path": str(clone / "notebooks")}}
    NotebookClient(book, timeout=timeout, kernel_name="python3", resources=place).execute()  # raises on a cell's error
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[name]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert all(cell.execution_count for cell in book.cells if cell.cell_type == "code")
    return [output.text for output in outputs if output.output_type == "stream"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PICTURES)
def test_each_notebook_runs_in_a_fresh_clone(clone: Path, name: str) -> None:
    printed = "".join(execute(clone, name, 800))
    assert ("synthetic digits are used instead" if name.startswith("01") else "RUNS is empty") in printed


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_first_notebook_runs_on_mnist(htr_data: Path, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTR_DATA", str(htr_data))
    printed = "".join(execute(clone, "01_first_run", 180))
    assert "55000 digits" in printed
    assert "my_digit.png\t2\t" in printed


def test_notebooks_are_committed_without_outputs() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(PICTURES)
    for path in NOTEBOOKS:
        book = nbformat.read(path, as_version=4)
        nbformat.validate(book)
        for cell in book.cells:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None
