"""Hold generated files to their source: notebooks, the library, the ledger, README.md.

Compares the files with what the tools make of a copy. With --write, updates the files instead.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(sys.executable).parent
sys.path.insert(0, str(ROOT))  # the library of this checkout


def generated(root: Path) -> dict[str, bytes]:
    "The bytes of every file that the tools may write, by its path in the repository."
    files = [*root.glob("nbs/**/*.ipynb"), *root.glob("deepfake_nb/**/*.py"), root / "README.md"]
    skipped = {".ipynb_checkpoints"}
    return {
        str(file.relative_to(root)): file.read_bytes()
        for file in files
        if file.exists() and not skipped & set(file.parts) and not file.name.startswith(".")
    }


def with_ledger(notebook: dict, table: str) -> dict:
    "The index with this table between its marks; raises `SystemExit` unless there is one pair."
    pattern, found = (
        re.compile(r"(<!-- ledger:[^>]*-->\n).*?(\n<!-- end of the ledger -->)", re.S),
        0,
    )
    for cell in notebook["cells"]:
        if cell["cell_type"] != "markdown":
            continue
        source, n = pattern.subn(lambda m: m[1] + table + m[2], "".join(cell["source"]))
        if n:
            cell["source"], found = source.splitlines(keepends=True), found + n
    if found != 1:
        sys.exit(
            f"nbs/index.ipynb has {found} places for the ledger, "
            "marked <!-- ledger: … --> and <!-- end of the ledger -->; expected 1"
        )
    return notebook


def count_verdicts(root: Path) -> None:
    "Write the ledger's summary, from the committed papers and packs, into the index."
    from deepfake_nb.reporting.sources import load_sources, sources_markdown

    index = root / "nbs" / "index.ipynb"
    notebook = json.loads(index.read_text(encoding="utf-8"))
    made = with_ledger(notebook, sources_markdown(load_sources(root / "nbs" / "papers")))
    index.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def readme(root: Path) -> str:
    "README.md from nbs/index.ipynb: Markdown and the visible code cells, with their text outputs."
    import nbformat
    from nbconvert import MarkdownExporter

    notebook = nbformat.read(root / "nbs" / "index.ipynb", 4)
    notebook.cells = [c for c in notebook.cells if "#| hide" not in c.source]
    notebook.metadata["language_info"] = {
        "name": "python"
    }  # which `nbdev_clean` takes out, and fences are named by
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    text = re.sub(r"(!\[[^\]]*\]\()(?![a-z]+:)", r"\1nbs/", text)  # pictures lie beside the index
    head = "<!-- Made from nbs/index.ipynb by `make export`: change that. -->\n\n"
    return (
        head
        + "\n".join(line.rstrip() for line in text.strip().splitlines()).replace("\n\n\n", "\n\n")
        + "\n"
    )


def write_all(root: Path) -> None:
    "Count the verdicts, clean the notebooks, export the library, make the README."
    count_verdicts(root)
    for words in (["nbdev_clean"], ["nbdev_export"], ["ruff", "format", "--quiet", "deepfake_nb"]):
        subprocess.run([TOOLS / words[0], *words[1:]], cwd=root, check=True, capture_output=True)
    (root / "README.md").write_text(readme(root), encoding="utf-8")


def changes(root: Path = ROOT) -> list[str]:
    "The files that the tools would change; nothing is written."
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        copy.mkdir()
        for name in ("settings.ini", "pyproject.toml", "README.md"):
            shutil.copy(root / name, copy)
        for name in ("nbs", "deepfake_nb"):
            shutil.copytree(
                root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "_data")
            )
        before = generated(copy)
        write_all(copy)
        after = generated(copy)
    return sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )


def main() -> int:
    "Exit status 1, naming the files, if something is not in step."
    if "--write" in sys.argv:
        before = generated(ROOT)
        write_all(ROOT)
        after = generated(ROOT)
        wrote = sorted(
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        )
        print(*(f"wrote {name}" for name in wrote), sep="\n") if wrote else print("in step")
        return 0
    changed = changes()
    print(
        "Not in step with the notebooks (run `make export`):\n  " + "\n  ".join(changed)
        if changed
        else "in step"
    )
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
