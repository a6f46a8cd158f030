"Build the book from the committed notebooks, without running them, and check the result."

import argparse
import json
import os
import re
import shutil
import sys
import time
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT)]  # the library that is read is that of this checkout

import browser  # noqa: E402
import check  # noqa: E402
import claims_page  # noqa: E402
import lists  # noqa: E402
import reference  # noqa: E402
from pages import Context, Page, PageError, cite_in_rst, stage_notebook, write  # noqa: E402

URL = "https://github.com/deepfake-nb/deepfake_nb/blob/main/"


def sources(root: Path) -> dict[str, list[str]]:
    "The notebooks by part of the book, relative to nbs/."
    nbs = root / "nbs"

    def named(pattern: str) -> list[str]:
        return [
            p.relative_to(nbs).as_posix()
            for p in sorted(nbs.glob(pattern))
            if not p.name.startswith(".")
        ]

    return {
        "papers": named("papers/*.ipynb"),
        "library": [*named("[0-9]*/*.ipynb"), *named("[0-9]*.ipynb")],
        "guides": [
            *named("tutorials/*.ipynb"),
            *(p for p in named("[a-z]*.ipynb") if p != "index.ipynb"),
        ],
    }


def stage(
    out: Path,  # folder of the sources
    root: Path = ROOT,  # of the repository
) -> list[Page]:
    "Write all sources of the book."
    parts, modules = sources(root), reference.read_library(root / "deepfake_nb")
    context = Context(
        root,
        out,
        URL,
        names=reference.names(modules),
        moved={
            "nbs/papers/claims.toml": "ledger.md",
            "CONTRIBUTING.md": "CONTRIBUTING.md",
            "CHANGELOG.md": "CHANGELOG.md",
            "README.md": "index.ipynb",
        },
    )
    rooms = sorted({name.partition("/")[0] for name in parts["library"]})
    context.pages = {
        "index.ipynb",
        *(f"{room}/index.md" for room in rooms),
        *(p for part in parts.values() for p in part),
        "ledger.md",
        "datasets.md",
        "figures.md",
        "bibliography.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    }
    write(
        out / "conf.py",
        "import runpy\n\nglobals().update({k: v for k, v in "
        f"runpy.run_path({str(HERE / 'conf.py')!r}).items() if not k.startswith('__')}})\n",
    )
    write(out / "datasets.bib", lists.dataset_bibtex(context))
    for name in ("reports", "methods"):
        write(out / f"{name}.bib", (HERE / f"{name}.bib").read_text(encoding="utf-8"))
    for name in ("reports", "datasets", "methods"):
        lists.know(context, lists.bibtex(out / f"{name}.bib"))
    stage_notebook("index.ipynb", context, partial(front, parts=parts, rooms=rooms))
    held = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", (root / "README.md").read_text(), re.M))
    for room in rooms:
        write(out / room / "index.md", room_index(root / "nbs" / room, held))
    pages = [
        stage_notebook(name, context, paper_end if name in parts["papers"] else None)
        for part in parts.values()
        for name in part
    ]
    if faults := [f for p in pages for f in p.faults]:
        raise PageError("\n".join(faults))
    for m in modules:
        write(
            out / "reference" / f"{m.name}.rst",
            reference.write_module(m, context.names, partial(cite_in_rst, context=context)),
        )
    write(out / "reference/index.md", reference_index(modules))
    write(out / "ledger.md", claims_page.ledger_page(context, [p for p in pages if p.paper]))
    write(out / "datasets.md", lists.datasets_page(context))
    write(out / "figures.md", lists.figures_page([p for p in pages if p.paper]))
    write(out / "bibliography.md", lists.bibliography_page())
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        write(out / name, (root / name).read_text(encoding="utf-8"))
    remove_stale(
        out, context.pages | {f"reference/{m.name}.rst" for m in modules} | {"reference/index.md"}
    )
    return pages


def remove_stale(out: Path, kept: set[str]) -> None:
    "Remove pages of an earlier build that have no source now."
    for p in [
        *out.glob("*.ipynb"),
        *out.glob("*/*.ipynb"),
        *out.glob("*.md"),
        *out.glob("*/*.md"),
        *out.glob("reference/*"),
    ]:
        if p.relative_to(out).as_posix() not in kept:
            p.unlink()


def room_index(folder: Path, held: dict[str, str]) -> str:
    "The notebooks of a package, with their first lines; `held` says what each package holds."
    package = folder.name.partition("_")[2]
    files = sorted(p for p in folder.glob("*.ipynb") if not p.name.startswith("."))
    rows, names = [], [p.stem for p in files]
    for path in files:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = next("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        title, purpose = re.match(r"# (.+)\n\n> (.+)", text).groups()
        rows.append(f"| [{title}]({path.name}) | {purpose} |")
    return (
        f"# {package}\n\n> {held[package][0].upper()}{held[package][1:]}.\n\n"
        "| notebook | |\n| --- | --- |\n" + "\n".join(rows) + "\n\n"
        "```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```\n"
    )


def front(
    cells: list[dict], page: Page, parts: dict[str, list[str]], rooms: list[str]
) -> list[dict]:
    "The front page ends with the book's contents, which the theme shows at the side."
    listed = {
        "The reports": [*parts["papers"], "ledger.md", "figures.md"],
        "The library": [f"{room}/index.md" for room in rooms],
        "More": [
            *parts["guides"],
            "datasets.md",
            "reference/index.md",
            "bibliography.md",
            "CONTRIBUTING.md",
            "CHANGELOG.md",
        ],
    }
    trees = [
        f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n"
        + "\n".join(p.rsplit(".", 1)[0] for p in files)
        + "\n```"
        for title, files in listed.items()
    ]
    return [*cells, page.markdown("\n\n".join(trees))]


def paper_end(cells: list[dict], page: Page) -> list[dict]:
    "A report's page says after its opening which report it is, and where the notebook lies."
    line = (
        f"The report: {{cite:t}}`{page.stem}`. "
        f"Its claims and their verdicts: [the ledger](#ledger-claims). "
        f"This page is the notebook [nbs/{page.name}]({URL}nbs/{page.name})."
    )
    known = page.stem in page.context.titles.values()
    return [*cells[:1], *([page.markdown(line)] if known else []), *cells[1:]]


def reference_index(modules: list[reference.Module]) -> str:
    "The modules, with their first lines."
    rows = "\n".join(
        f"| {{py:mod}}`deepfake_nb.{m.name}` | {' '.join(m.doc.split())} |" for m in modules
    )
    tree = "\n".join(m.name for m in modules)
    return (
        "# Reference\n\n"
        "> Every public name of the library, its parameters, what it gives back.\n\n"
        f"| module | |\n| --- | --- |\n{rows}\n\n"
        f"```{{toctree}}\n:hidden:\n\n{tree}\n```\n\n"
        "All names stand in the {ref}`index <genindex>`.\n"
    )


def main() -> int:
    "Exit status 0 if the book is whole."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "_book",
        help="folder for the sources and the pages (default: _book)",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="build all pages, not only those that have changed"
    )
    parser.add_argument(
        "--browser", action="store_true", help="also open every page in a headless Chromium"
    )
    args = parser.parse_args()
    started, out = time.perf_counter(), args.out.resolve()
    if args.fresh and out.exists():
        shutil.rmtree(out)
    try:
        stage(out / "source")
    except PageError as error:
        sys.exit(str(error))
    from sphinx.cmd.build import main as sphinx

    status = sphinx(
        [
            "-q",
            "-W",
            "--keep-going",
            "-j",
            str(min(4, os.cpu_count() or 1)),
            "-b",
            "html",
            "-d",
            str(out / "doctrees"),
            str(out / "source"),
            str(out / "html"),
        ]
    )
    faults = check.check_folder(out / "html")
    if args.browser:
        faults += browser.check_in_browser(out / "html")
    for fault in faults:
        print(fault, file=sys.stderr)
    pages, seconds = len(list((out / "html").rglob("*.html"))), time.perf_counter() - started
    print(
        f"{out / 'html' / 'index.html'}: {pages} pages in {seconds:.0f} s; "
        + (f"{len(faults)} faults" if faults else "links, images and resources are whole")
        + (", Sphinx warned" if status else "")
    )
    return 1 if faults or status else 0


if __name__ == "__main__":
    sys.exit(main())
