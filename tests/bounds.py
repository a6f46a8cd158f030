"""Test the wheel with the lowest and with the latest versions that settings.ini allows.

python tests/bounds.py FOLDER [lowest] [latest] [core]: environments are made anew in FOLDER.
`core` installs the requirements that need no TensorFlow, and prints the ledger.
"""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

from test_house import NOT_CORE, PURE, ROOT, pins, settings

SKIPPED = ("house", "in_step", "book", "notebooks", "papers", "readme")  # about the checkout


def run(*command: str | Path, **options) -> None:
    print("$", *command, flush=True)
    subprocess.run(list(map(str, command)), check=True, **options)


def make(folder: Path, name: str, wheel: Path) -> None:
    place = folder / name
    venv.create(place, clear=True, with_pip=True)
    python = place / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    work = folder / "away"  # where no checkout is imported
    work.mkdir(exist_ok=True)
    if name == "core":
        run(*pip, "--no-deps", wheel)
        run(*pip, *settings()["core_requirements"].split())
        imports = "; ".join(f"import deepfake_nb.{module}" for module in PURE.split())
        absent = f"assert not {set(NOT_CORE.split())} & set(sys.modules)"
        run(python, "-c", f"import sys; {imports}; {absent}", cwd=work)
        run(place / "bin" / "deepfake-nb", "ledger", cwd=work)
        return
    requirements = pins(settings()["requirements"])
    if name == "lowest":
        lowest = {key: re.search(r">=([0-9.]+)", value)[1] for key, value in requirements.items()}
        constraints = folder / "lowest.txt"
        wanted = [
            f"{key}~={v}.0" if v.count(".") < 2 else f"{key}=={v}" for key, v in lowest.items()
        ]
        constraints.write_text("\n".join(wanted))
        pip = (*pip, "--constraint", constraints)
    dev = [
        line
        for line in settings()["dev_requirements"].splitlines()
        if re.match(r"(pytest|hypothesis|nbdev|fastcore|execnb|ghapi|nbformat|jax)", line)
    ]
    run(*pip, wheel, *dev)
    ignored = [f"--ignore={ROOT}/tests/test_{skipped}.py" for skipped in SKIPPED]
    tests = (ROOT / "tests", "-q", "-m", "not slow", "-p", "no:cacheprovider", *ignored)
    run(python, "-m", "pytest", *tests, cwd=work, env=environment)


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    for name in sys.argv[2:] or ("core", "lowest", "latest"):
        make(folder, name, wheel)
