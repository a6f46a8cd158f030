"Every library notebook and tutorial, from top to bottom, each in a process of its own."

import multiprocessing
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
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
PRELOAD = [
    "tensorflow",
    "keras",
    "pandas",
    "matplotlib.pyplot",
    "sklearn.linear_model",
    "cv2",
    "nbdev.test",
]

pytestmark = pytest.mark.slow


def run_notebook(path: Path, log: Path) -> None:
    "Run a notebook's cells as nbdev does; exit status 1 if one fails, its traceback in `log`."
    with open(log, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)  # what libraries print, too
        os.dup2(file.fileno(), 2)
        with redirect_stdout(file), redirect_stderr(file):
            from nbdev.test import test_nb

            passed, _ = test_nb(path, skip_flags=["notest"], basepath=ROOT)
    sys.exit(0 if passed else 1)


@pytest.fixture(scope="module")
def processes():
    "Starts processes that have the large packages imported: they are forked from one that has."
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    yield context
    multiprocessing.forkserver._forkserver._stop()  # so that its processor time is counted as ours


def passes(processes, path: Path, log: Path) -> bool:
    process = processes.Process(target=run_notebook, args=(path, log))
    process.start()
    process.join()
    return process.exitcode == 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_notebook(path, processes, tmp_path):
    log = tmp_path / "log"
    assert passes(processes, path, log), log.read_text(encoding="utf-8")[-8000:]


def test_a_failing_cell_fails_its_notebook(processes, tmp_path):
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(notebook, tmp_path / "bad.ipynb")
    assert not passes(processes, tmp_path / "bad.ipynb", tmp_path / "log")
    assert "ZeroDivisionError" in (tmp_path / "log").read_text(encoding="utf-8")
