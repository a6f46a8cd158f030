"Every library notebook and tutorial, from top to bottom, each in a process of its own."

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(
    [
        *ROOT.glob("nbs/[0-9]*/*.ipynb"),
        *ROOT.glob("nbs/[0-9]*.ipynb"),
        *ROOT.glob("nbs/tutorials/*.ipynb"),
    ]
)
pytestmark = pytest.mark.slow


def run_notebook(path: Path) -> None:
    "Run a notebook's cells as nbdev does; exit status 1 if one fails."
    from nbdev.test import test_nb

    passed, _ = test_nb(path, skip_flags=["notest"], basepath=ROOT)
    sys.exit(0 if passed else 1)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_notebook(path, forks, tmp_path):
    log = tmp_path / "log"
    assert forks.call(log, run_notebook, path) == 0, log.read_text(encoding="utf-8")[-8000:]


def test_a_failing_cell_fails_its_notebook(forks, tmp_path):
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(notebook, tmp_path / "bad.ipynb")
    assert forks.call(tmp_path / "log", run_notebook, tmp_path / "bad.ipynb") == 1
    assert "ZeroDivisionError" in (tmp_path / "log").read_text(encoding="utf-8")
