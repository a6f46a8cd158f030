"""Fabricated datasets for tests: files of the right names."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def plant(root: Path, *names: str, files: dict[str, str] | None = None) -> Path:
    """Write small files: `names` with an "x", `files` with their content."""
    for name, content in (dict.fromkeys(names, "x") | (files or {})).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def write_image(path: Path, seed: int = 0) -> Path:
    """Write a small image of noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype="uint8")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory, monkeypatch, request):
    """Hide data and cache of this machine; `real_data` keeps the data."""
    if "real_data" not in request.fixturenames:
        monkeypatch.setenv("DEEPFAKE_NB_DATA", str(tmp_path_factory.mktemp("none")))
    monkeypatch.setenv("DEEPFAKE_NB_CACHE", str(tmp_path_factory.mktemp("cache")))
