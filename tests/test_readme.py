"The README's quick start, as it is pasted: line by line, short, quick, and true."

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from deepfake_nb.core.output import TENSORFLOW_CHATTER

ROOT = Path(__file__).resolve().parent.parent
MUTES = "TF_CPP_MIN_LOG_LEVEL"


def quick_start() -> str:
    "The first block of Python below the heading `### Program`."
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n### Program\n") == 1
    return re.search(r"\n### Program\n.*?\n```python\n(.*?)\n```", text, re.S)[1]


def test_every_block_of_code_names_its_language():
    "Or it is shown without colours."
    fences = re.findall(r"^```(.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert set(fences[1::2]) == {""} and set(fences[::2]) <= {"sh", "python"} and "python" in fences


def test_quick_start_is_short_and_pasted_line_by_line():
    import code

    lines = quick_start().splitlines()
    assert len([line for line in lines if line]) <= 12
    for line in lines:
        assert code.compile_command(line, "<pasted>", "single") is not None or not line.strip(), (
            f"not complete in itself: {line}"
        )


@pytest.mark.slow
def test_quick_start_runs_in_a_minute_of_two_cores(tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-i", "-q"],
        input=quick_start() + "\n",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        env={k: v for k, v in os.environ.items() if k not in ("KERAS_BACKEND", MUTES)},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    assert not TENSORFLOW_CHATTER.search(done.stderr)
    assert re.search(
        r"AUC \d\.\d+ \(\d\.\d+–\d\.\d+\) (ImageNet weights|no pretrained weights)", done.stdout
    ), done.stdout
    assert after.ru_utime - before.ru_utime < 120  # seconds of computing: a minute on two cores


def test_the_output_shown_is_of_a_network_that_has_learnt():
    value, low, label = re.search(
        r"^    AUC (\d\.\d+) \((\d\.\d+)–\d\.\d+\) (.+)$",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        re.M,
    ).groups()
    assert label == "ImageNet weights" and float(low) > 0.5, (
        f"index.ipynb was run without pretrained weights (AUC {value}, {label}): "
        "run it again where they are available"
    )


def test_commands_of_the_readme_are_there():
    from deepfake_nb.cli import build_parser

    found = re.findall(
        r"^deepfake-nb ([^#\n]+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.M
    )
    assert {words.split()[0] for words in found} >= {
        "run",
        "report",
        "extract",
        "data",
        "train",
        "predict",
    }
    for words in found:
        build_parser().parse_args(words.split())
