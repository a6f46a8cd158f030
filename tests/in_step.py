"Hold what is generated to its source: clean notebooks, the exported library, the ledger in the index, README.md. With --write, bring them in step instead."
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(sys.executable).parent
sys.path.insert(0, str(ROOT))  # the library of this checkout


def generated() -> dict[Path, bytes]:
    "The bytes of every file that the tools may write."
    files = [*ROOT.glob("nbs/**/*.ipynb"), *ROOT.glob("deepfake_nb/*.py"), ROOT / "README.md"]
    return {f: f.read_bytes() for f in files if f.exists() and ".ipynb_checkpoints" not in f.parts and not f.name.startswith(".")}


def with_ledger(notebook: dict, table: str) -> dict:
    "The index with this table between its marks; raises `SystemExit` if it has not exactly one pair of them."
    pattern, found = re.compile(r"(<!-- ledger:[^>]*-->\n).*?(\n<!-- end of the ledger -->)", re.S), 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "markdown": continue
        source, n = pattern.subn(lambda m: m[1] + table + m[2], "".join(cell["source"]))
        if n: cell["source"], found = source.splitlines(keepends=True), found + n
    if found != 1: sys.exit(f"nbs/index.ipynb has {found} places for the ledger, marked <!-- ledger: … --> and <!-- end of the ledger -->; expected 1")
    return notebook


def count_verdicts() -> None:
    "Write the ledgers' summary, as the committed papers have it, into the index."
    from deepfake_nb.claims import ledger_markdown, load_ledgers, summarise_ledgers
    index = ROOT / "nbs" / "index.ipynb"
    notebook = json.loads(index.read_text(encoding="utf-8"))
    made = with_ledger(notebook, ledger_markdown(summarise_ledgers(load_ledgers(ROOT / "nbs" / "papers"))))
    index.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def readme() -> str:
    "README.md from nbs/index.ipynb: markdown and the code cells that are not hidden, with their text outputs."
    import nbformat
    from nbconvert import MarkdownExporter
    notebook = nbformat.read(ROOT / "nbs" / "index.ipynb", 4)
    notebook.cells = [c for c in notebook.cells if "#| hide" not in c.source]
    notebook.metadata["language_info"] = {"name": "python"}  # which `nbdev_clean` takes out, and fences are named by
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    text = re.sub(r"(!\[[^\]]*\]\()(?![a-z]+:)", r"\1nbs/", text)  # pictures lie beside the index
    head = "<!-- Made from nbs/index.ipynb by `make export`: change that. -->\n\n"
    return head + "\n".join(line.rstrip() for line in text.strip().splitlines()).replace("\n\n\n", "\n\n") + "\n"


def write_all() -> None:
    "Count the verdicts, clean the notebooks, export the library, make the README."
    count_verdicts()
    for tool in ("nbdev_clean", "nbdev_export"):
        subprocess.run([TOOLS / tool], cwd=ROOT, check=True, capture_output=True)
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")


def main() -> int:
    "Exit status 1, naming the files, if something was not in step; the files are then left as they were."
    before = generated()
    write_all()
    after = generated()
    changed = sorted(f for f in before.keys() | after.keys() if before.get(f) != after.get(f))
    if not changed or "--write" in sys.argv:
        print("in step" if not changed else "\n".join(f"wrote {f.relative_to(ROOT)}" for f in changed))
        return 0
    for file in changed:
        if file in before: file.write_bytes(before[file])
        else: file.unlink()
    print("Not in step with the notebooks (run `make export`):", *(f"  {f.relative_to(ROOT)}" for f in changed), sep="\n")
    return 1


if __name__ == "__main__": sys.exit(main())
