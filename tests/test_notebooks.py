"""The notebooks run from top to bottom in a new kernel and show their pictures; both editions have the same code."""

import ast
import re
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = {
    "01_first_run": 7, "01_first_run.zh-CN": 7, "02_lines": 8, "02_lines.zh-CN": 8, "03_analyse_runs": 10,
    "04_compare": 4, "05_pages": 5,
}  # fmt: skip


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository without runs and data, whose code the kernel imports."""
    for name in ("htr_lightning", "conf", "experiments", "hydra_plugins", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("HTR_DATA", str(tmp_path / "data"))  # nothing is downloaded
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return tmp_path


def execute(clone: Path, name: str, timeout: int) -> str:
    """Run a notebook, check its cells and pictures, and return everything it printed."""
    book = nbformat.read(clone / "notebooks" / f"{name}.ipynb", as_version=4)
    place = {"metadata": {"path": str(clone / "notebooks")}}
    NotebookClient(book, timeout=timeout, kernel_name="python3", resources=place).execute()  # raises on a cell's error
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[name]
    assert all(cell.execution_count for cell in book.cells if cell.cell_type == "code")
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", PICTURES)
def test_each_notebook_runs_in_a_fresh_clone(clone: Path, name: str) -> None:
    printed = execute(clone, name, 1500)
    assert "test CER" in printed or "test accuracy" in printed or "CER / WER" in printed
    assert not (clone / "notebooks" / "runs").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_first_notebook_runs_on_mnist(htr_data: Path, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTR_DATA", str(htr_data))
    printed = execute(clone, "01_first_run", 1500)
    assert "55000 digits" in printed
    assert "my_digit.png\t2\t" in printed


def test_notebooks_are_committed_without_outputs() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(PICTURES)
    for path in NOTEBOOKS:
        book = nbformat.read(path, as_version=4)
        nbformat.validate(book)
        for cell in book.cells:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None


def code(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", [name for name in PICTURES if name.endswith(".zh-CN")])
def test_both_editions_have_the_same_code(name: str) -> None:
    first, second = (ROOT / "notebooks" / f"{one}.ipynb" for one in (name, name.removesuffix(".zh-CN")))
    assert code(first) == code(second)


def imports(tree: ast.AST) -> Iterator[tuple[str, str, str]]:
    """Yield the module, name and alias of each `from` import of the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("htr_lightning"):
            yield from ((str(node.module), one.name, one.asname or one.name) for one in node.names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_thin_and_calls_what_exists(path: Path) -> None:
    cells = code(path)
    tree = ast.parse("\n".join(cells))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)]
    assert max(len(cell.splitlines()) for cell in cells) <= 12
    called = {}
    for module, name, alias in imports(tree):
        try:
            called[alias] = import_module(f"{module}.{name}")
        except ModuleNotFoundError:
            assert hasattr(import_module(module), name), f"{module}.{name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in called:
            assert hasattr(called[node.value.id], node.attr), f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_in_a_notebook_lead_somewhere(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", cell.source if cell.cell_type == "markdown" else ""):
            assert (path.parent / target).exists(), target
