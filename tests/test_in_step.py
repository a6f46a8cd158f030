"What is generated is in step with its source, and `in_step` sees where it is not."

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import in_step  # noqa: E402


def test_only_what_was_changed_by_hand_is_out_of_step(tmp_path):
    for name in ("settings.ini", "pyproject.toml", "README.md"):
        shutil.copy(in_step.ROOT / name, tmp_path)
    for name in ("nbs", "deepfake_nb"):
        shutil.copytree(
            in_step.ROOT / name,
            tmp_path / name,
            ignore=shutil.ignore_patterns("__pycache__", "_data"),
        )
    for name in ("README.md", "deepfake_nb/data/samples.py"):
        with open(tmp_path / name, "a", encoding="utf-8") as file:
            file.write("# changed by hand\n")
    assert in_step.changes(tmp_path) == ["README.md", "deepfake_nb/data/samples.py"]
