"Run the tests marked `backend` on JAX, in a process that has JAX from the start."

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow", reason="this is the JAX pass"
)
def test_jax_passes_what_depends_on_the_backend(tmp_path):
    files = [
        str(file)
        for file in sorted(ROOT.glob("tests/test_*.py"))
        if "pytest.mark.backend" in file.read_text(encoding="utf-8")
    ]
    words = [*files, "-m", "backend", "-q", "-p", "no:cacheprovider", "--durations=5"]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    # Most of the time goes into compiling, often the same network several times.
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
    environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path)
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
    environment["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout.splitlines()[-1]
