"Pages made from lists: the proposals, the datasets, the figures, the bibliography."

import csv
import re
import tomllib
from html import escape
from pathlib import Path

from pages import Context, Page, PageError, plain, slug
from tables import Table

ALSO_TITLED = {"The DeepFake Detection Challenge Dataset": "dolhansky2020dfdc"}


def bibtex(path: Path) -> dict[str, dict[str, str]]:
    "Entries of a BibTeX file: key → fields, braces taken off."
    from pybtex.database import parse_file

    return {
        key: {k: re.sub(r"[{}]|\\(?=[&_%#])", "", v) for k, v in e.fields.items()}
        for key, e in parse_file(str(path)).entries.items()
    }


def know(context: Context, entries: dict[str, dict[str, str]]) -> None:
    """Enter the ways in which notebooks name works.

    These are the title (complete, or up to its colon), the arXiv number, and the phrase in the
    field `mention`.
    """
    for key, fields in entries.items():
        title = fields.get("title", "")
        for form in (title.split(":")[0], title):
            context.titles.setdefault(plain(form), key)
        if "eprint" in fields:
            context.arxiv[fields["eprint"]] = key
        if "mention" in fields:
            context.mentions[fields["mention"]] = key
    context.titles |= {plain(title): key for title, key in ALSO_TITLED.items() if key in entries}


def proposals(context: Context) -> str:
    "What each report proposes, with the numbers of the notebook that tries it."
    papers = context.root / "nbs/papers"
    listed = tomllib.loads((papers / "proposals.toml").read_text(encoding="utf-8"))["proposal"]
    with open(papers / "proposals.csv", encoding="utf-8", newline="") as file:
        measured = list(csv.DictReader(file))
    body = []
    for p in listed:
        if p["tried"] and p["tried"] not in context.pages:
            raise PageError(f"proposal {p['key']!r}: there is no notebook nbs/{p['tried']}")
        numbers = [
            f"{escape(m['measure'])}, {escape(m['data'])}: {float(m['value']):.2f} "
            f"[{float(m['low']):.2f}, {float(m['high']):.2f}]"
            for m in measured
            if m["proposal"] == p["key"]
        ]
        name = p["tried"].removesuffix(".ipynb")
        tried = "Not tried."
        if name:
            tried = f'{with_claims(p["outcome"])} <small><a href="{name}.html">{name}</a></small>'
        if numbers:
            tried += f"<details><summary>numbers</summary>{'<br>'.join(numbers)}</details>"
        named = f'<span id="proposal-{p["key"]}">{escape(p["text"])}</span>'
        body.append([p["report"].capitalize(), named, tried])
    return Table.of(["report", "proposes", "found"], body).html()


def table(name: str, kind: str, caption: str, html: str) -> str:
    "The directive of a table."
    return f"````{{html-table}}\n:name: {name}\n:class: {kind}\n\n{caption}\n%%%\n{html}\n````"


def with_claims(text: str) -> str:
    "A text as HTML, in which “claim N” leads to the claim's row."
    return re.sub(r"\b([Cc]laim (\d+))\b", r'<a href="#claim-\2">\1</a>', escape(text))


def manifests(context: Context) -> list[dict]:
    "The datasets, those of others first."
    found = [
        tomllib.loads(p.read_text(encoding="utf-8"))
        for p in sorted((context.root / "data_manifests").glob("*.toml"))
    ]
    return sorted(found, key=lambda m: (bool(m.get("embedded")), m["name"]))


def dataset_bibtex(context: Context) -> str:
    "The datasets' BibTeX, each entry once."
    entries = dict.fromkeys(m["citation"].strip() for m in manifests(context) if m.get("citation"))
    return "\n\n".join(entries) + "\n"


def datasets_page(context: Context) -> str:
    "The datasets: where they come from, under which terms, what belongs to them, what to mind."
    page = [
        "# Datasets",
        "",
        "> Where each comes from, under which terms, what belongs to it, and what to mind.",
        "",
        "The library knows these by name. `deepfake-nb data describe NAME` prints the same, "
        "`deepfake-nb data verify NAME` checks a copy. None of the datasets of others is shipped; "
        "the embedded ones are rendered where they are needed.",
        "",
    ]
    said = ""
    for m in manifests(context):
        kind = "## Embedded" if m.get("embedded") else "## Of others"
        if kind != said:
            page += [kind, ""]
        said = kind
        key = re.match(r"\s*@\w+\{([^,]+),", m.get("citation", ""))
        used = [
            f"{{doc}}`{r.capitalize()} <papers/{r}>`"
            if f"papers/{r}.ipynb" in context.pages
            else r.capitalize()
            for r in m["reports"]
        ]
        obtain = m.get("obtain", {})
        counts = "; ".join(
            f"{e['count']:,} {e['what']}"
            for e in m.get("expected", [])
            if isinstance(e.get("count"), int) and e.get("role") == "sample"
        )
        facts = {
            "Name": f"`{m['name']}`",
            "In the reports": ", ".join(used) + ". " + m.get("use", ""),
            "Holds": counts.replace("{each}", "each compression"),
            "Terms": m["terms"]["licence"],
            "To agree to": m["terms"].get("agreement", ""),
            "To obtain": obtain.get("how", ""),
            "Size": obtain.get("size", ""),
            "Stand-in": f"`{m['stand_in']}`" if m.get("stand_in") else "",
        }
        page += [
            f"(dataset-{m['name']})=",
            f"### {m['title']}",
            "",
            (f"{{cite:p}}`{key[1]}` · " if key else "") + f"[homepage]({m['homepage']})"
            if m.get("homepage")
            else "",
            "",
        ]
        page += [
            "| | |",
            "| --- | --- |",
            *(
                f"| **{name}** | {value.replace('|', chr(92) + '|')} |"
                for name, value in facts.items()
                if value.strip(" .")
            ),
            "",
        ]
        page += [*(f"- {c}" for c in m.get("caveats", [])), ""]
    return "\n".join(page)


def figures_page(pages: list[Page]) -> str:
    "All figures and tables of the reports."
    lines = ["# Figures and tables", "", "> What the reports' notebooks show, by report.", ""]
    for page in pages:
        if not page.taken:
            continue
        lines += [
            f"## {page.stem.capitalize()}",
            "",
            f"{{doc}}`{page.name.removesuffix('.ipynb')}`",
            "",
        ]
        for kind in ("Figure", "Table"):
            for k, number, name, caption in page.taken:
                if k == kind:
                    lines.append(
                        f"- [{kind} {number}](#{page.stem}-{kind.lower()}-{slug(name)}). "
                        f"{first_sentence(caption)}"
                    )
            lines.append("")
    return "\n".join(lines)


def first_sentence(text: str) -> str:
    "Up to the first full stop that ends a sentence."
    return re.split(r"(?<=[.!?])\s+(?=[A-Z*`])", text.strip(), maxsplit=1)[0]


def bibliography_page() -> str:
    "What is cited, and what is reproduced."
    page = ["# Bibliography", "", "> The reports, the datasets, the methods.", ""]
    for title, file in (("Reports", "reports"), ("Datasets", "datasets"), ("Methods", "methods")):
        page += [
            f"## {title}",
            "",
            f"```{{bibliography}} {file}.bib",
            ":all:",
            f":labelprefix: {title[0]}",
            "```",
            "",
        ]
    return "\n".join(page)
