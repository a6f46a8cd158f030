"Pages made from lists: the ledger of claims, the datasets, the figures, the bibliography."

import re
import tomllib
from collections import Counter
from html import escape
from pathlib import Path

from pages import Context, Page, plain, slug
from tables import Table

ALSO_TITLED = {"The DeepFake Detection Challenge Dataset": "dolhansky2020dfdc"}
VERDICTS = (
    "reproduced",
    "not reproduced",
    "contradicted by the report itself",
    "value lost",
    "not comparable",
)
STAND_INS = ("agrees", "disagrees", "inconclusive")


def bibtex(path: Path) -> dict[str, dict[str, str]]:
    "Entries of a BibTeX file: key → fields, braces taken off."
    from pybtex.database import parse_file

    return {
        key: {k: re.sub(r"[{}]|\\(?=[&_%#])", "", v) for k, v in e.fields.items()}
        for key, e in parse_file(str(path)).entries.items()
    }


def know(context: Context, entries: dict[str, dict[str, str]]) -> None:
    "Enter how works are named in the notebooks: by title (whole, or up to its colon), by arXiv number, by a phrase of the field `mention`."
    for key, fields in entries.items():
        title = fields.get("title", "")
        for form in (title.split(":")[0], title):
            context.titles.setdefault(plain(form), key)
        if "eprint" in fields:
            context.arxiv[fields["eprint"]] = key
        if "mention" in fields:
            context.mentions[fields["mention"]] = key
    context.titles |= {plain(title): key for title, key in ALSO_TITLED.items() if key in entries}


def verdicts(notebook: Path) -> tuple[dict[int, dict[str, str]], str]:
    "The ledger's rows in the outputs of a paper, by claim, and on which data it was made."
    from deepfake_nb.reporting.ledger import read_ledger

    ledger = read_ledger(notebook)
    return ledger.to_dict("index"), ledger.attrs.get("stamp", "")


def shown(claim: dict) -> str:
    "The reported value."
    if claim.get("lost"):
        return "<em>lost</em>"
    value = claim.get("value")
    if value is None:
        return "–"
    return (
        ", ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in value)
        if isinstance(value, list)
        else f"{value:,}"
        if isinstance(value, int)
        else escape(str(value))
    )


def ledger_page(context: Context) -> str:
    "Every claim of every report, with what came out and the verdict."
    claims = sorted(
        tomllib.loads((context.root / "nbs/papers/claims.toml").read_text(encoding="utf-8"))[
            "claim"
        ],
        key=lambda c: c["id"],
    )
    reports = list(dict.fromkeys(c["report"] for c in claims))
    found = {
        r: verdicts(path) if (path := context.root / f"nbs/papers/{r}.ipynb").exists() else ({}, "")
        for r in reports
    }
    missing = [
        c["id"] for c in claims if found[c["report"]][0] and c["id"] not in found[c["report"]][0]
    ]
    if missing:
        raise ValueError(
            f"claims {missing} are not in the outputs of their reports: run `make papers`"
        )
    page = [
        "# The ledger of claims",
        "",
        f"> {len(claims)} claims of {len(reports)} reports, each with what a run found and a verdict.",
        "",
        "A verdict about numbers needs the report's own data. On other data it is *not comparable*, and *stand-in* tells what these data show instead. "
        "Behind a claim stands its place in the report; † marks a claim that stands in the text but in no table of results. All of it comes from the outputs of the reports' notebooks, none of it is typed.",
        "",
        "## Counted",
        "",
        summary("verdict", "Verdicts by report.", VERDICTS, claims, found),
        "",
        summary(
            "stand-in",
            "What stand-in data show, by report; claims that were not judged on them are left out.",
            STAND_INS,
            claims,
            found,
        ),
        "",
    ]
    for report in reports:
        rows, stamp = found[report]
        page += [
            f"## {report.capitalize()}",
            "",
            f"The report {{cite:p}}`{report}` is regenerated in {{doc}}`papers/{report}`. Data: {stamp}."
            if rows
            else f"The report {{cite:p}}`{report}` has not been run yet.",
            "",
            "````{html-table}",
            f":name: ledger-{report}",
            ":class: ledger",
            "",
            f"The claims of the report *{report.capitalize()}*.",
            "%%%",
            claim_table([c for c in claims if c["report"] == report], rows, made_on(stamp)).html(
                labels=True
            ),
            "````",
            "",
        ]
    return "\n".join(page)


def made_on(stamp: str) -> str:
    "The datasets in a ledger's stamp, which goes on with the profile."
    return re.split(r"[,;] profile\b", stamp)[0].strip()


def claim_table(claims: list[dict], rows: dict[int, dict[str, str]], dataset: str = "") -> Table:
    "A row a claim; where nothing was regenerated, there is no dataset."
    body = []
    for c in claims:
        r = rows.get(c["id"], {})
        place = f" <small>{escape(str(c['place']))}{' †' if c.get('in_text_only') else ''}</small>"
        verdict, found = r.get("verdict", "not run yet"), r.get("regenerated", "")
        mark = f'<span class="verdict {slug(verdict)}">{escape(verdict)}</span>'
        body.append(
            [
                f"{c['id']}",
                escape(c["text"]) + place,
                shown(c),
                escape(found),
                mark,
                escape(r.get("stand-in", "")),
                escape(dataset) if found not in ("", "–") else "",
                escape(r.get("reason", "")),
            ]
        )
    return Table.of(
        ["no.", "claim", "reported", "regenerated", "verdict", "stand-in", "dataset", "reason"],
        body,
    )


def summary(column: str, caption: str, values: tuple, claims: list[dict], found: dict) -> str:
    "Counts of a column's values, by report and in all."
    reports = list(dict.fromkeys(c["report"] for c in claims))
    counts = {r: Counter(row[column] for row in found[r][0].values()) for r in reports}
    body = [
        [
            value,
            *(str(counts[r][value] or "–") for r in reports),
            str(sum(counts[r][value] for r in reports)),
        ]
        for value in values
    ]
    table = Table.of([column, *(r.capitalize() for r in reports), "all"], body)
    return f"````{{html-table}}\n:name: ledger-{column}\n:class: numbers\n\n{caption}\n%%%\n{table.html()}\n````"


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
        "The library knows these by name. `deepfake-nb data describe NAME` prints the same, `deepfake-nb data verify NAME` checks a copy. None of the datasets of others is shipped; "
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
                        f"- [{kind} {number}](#{page.stem}-{kind.lower()}-{slug(name)}). {first_sentence(caption)}"
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
