"Pages made from lists: the ledger of claims, the datasets, the figures, the bibliography."

import csv
import json
import re
import tomllib
from html import escape
from pathlib import Path
from textwrap import shorten

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


WORDS = {
    "reproduced": "the claim holds on the report's own data, or, where it needs none, on the "
    "network as it is built",
    "not reproduced": "it does not hold there",
    "agrees": "another source says the same",
    "disagrees": "another source says the opposite",
    "undecided": "the interval allows both, or sources of one kind differ",
    "underpowered": "fewer than five groups of people or three trainings, or an interval too wide "
    "to lie on one side of the least that the claim asks for",
    "void": "the test means nothing: the rule could not fail, the model learnt nothing, a health "
    "check failed, or the rule was chosen on these data",
    "contradicted by the report itself": "its own text or arithmetic says otherwise",
    "value lost": "the value was in a figure that the text does not carry",
    "source damaged": "the printed source cannot be right as we have it",
    "not tested": "no evidence from this source",
}


def ledger_page(context: Context, pages: list[Page]) -> str:
    "Every claim of every report, with what each source of evidence says."
    from deepfake_nb.reporting.claims import load_claims
    from deepfake_nb.reporting.sources import (
        confirmation_table,
        count_reports,
        count_sources,
        load_sources,
        real_share,
    )

    papers = context.root / "nbs/papers"
    claims, ledger = load_claims(path=papers / "claims.toml"), load_sources(papers)
    real = real_share(ledger)
    taken = {(page.stem, kind.lower(), name) for page in pages for kind, _, name, _ in page.taken}
    counts = count_sources(ledger)
    counted = Table.of(
        ["verdict", *counts.columns],
        [[mark(name), *(str(n or "–") for n in row)] for name, row in counts.T.items()],
    )
    by_report = count_reports(ledger, claims)
    by_report.index = [name.capitalize() for name in by_report.index]
    n = 1 + len(counts.columns)
    rows = "".join(
        claim_row(int(n), claim, ledger[ledger["claim"] == n], taken, context)
        for n, claim in claims.iterrows()
    )
    sources = list(counts.columns)
    return "\n".join(
        [
            "# The ledger of claims",
            "",
            f"> {len(claims)} claims of {claims['report'].nunique()} reports, "
            "and what each of four sources of evidence says about them.",
            "",
            f"{real['tested']} claims ({real['tested'] / real['claims']:.0%}) were tested on real "
            f"data, which decided {real['decided']}. All of it is counted from the reports' "
            "notebooks and from packs of scores; none of it is typed. "
            "`deepfake-nb ledger --verify` makes every number of the packs again from the stored "
            "scores, without the data and without training.",
            "",
            table(
                "ledger-reports",
                "numbers",
                "Claims that each source decided, by report: it reproduced them or not, it agrees "
                "or disagrees.",
                report_table(by_report.iloc[:, :n]).html(),
            ),
            "",
            table(
                "ledger-report-verdicts",
                "numbers",
                "Verdicts by report; a claim has one from each of four sources. *Other* are those "
                "that decide nothing; what was not tested is left out.",
                report_table(by_report.iloc[:, n:]).html(),
            ),
            "",
            table("ledger-counts", "numbers", "Verdicts by source.", counted.html()),
            "",
            "## Claims",
            "",
            "One row a claim. The four cells are the report's *own data*, the *published record*, "
            "*other real data* and *rendered* people; † marks a claim that stands in the text but "
            "in no table of results. Square brackets hold intervals over groups of people and "
            "over trainings: at 95 %, at 90 % where a claim says that two are equal, and jointly "
            "at 95 % for an order. The name before a number says what it measures: numbers of "
            "different names cannot be compared. A sign marks a difference, no sign a level; "
            "commas and semicolons part what a claim says in several parts. Below a number stand "
            "the data and the independent groups that it rests on. The word of a verdict leads to "
            "its explanation. Open a row for the reasons, for how many trainings there were, and "
            "for what had been looked at before.",
            "",
            "```{raw} html",
            controls(list(dict.fromkeys(claims["report"])), sources, list(counts.index)),
            "```",
            "",
            table("ledger-claims", "ledger", "", head() + f"<tbody>{rows}</tbody>"),
            "",
            "## The words",
            "",
            table(
                "ledger-words",
                "value words",
                "A verdict is earned: it goes through one gate, whatever its source.",
                Table.of(
                    ["verdict", "says"],
                    [
                        [f'<span id="{word_id(w)}">{mark(w, link=False)}</span>', escape(s)]
                        for w, s in WORDS.items()
                    ],
                ).html(),
            ),
            "",
            "## Confirmed with other people?",
            "",
            *confirmation(confirmation_table(papers), ledger),
            "## Proposed",
            "",
            "What the reports would try next, and what came out where it was tried. These are "
            "measurements, not verdicts: no report says what to expect.",
            "",
            table("ledger-proposed", "value words", "Proposals.", proposals(context)),
            "",
            "## What the data at hand can show",
            "",
            "Claims with a rule, by the data that can test them. The last column is the "
            "smallest difference in AUC that so many independent groups in each "
            "class would show four times in five, from their number alone, at an AUC of 0.75. "
            "It is a guide for two unrelated detectors: paired differences and single numbers can "
            "be decided with fewer, and each row says with how many it was.",
            "",
            table("ledger-power", "numbers", "Testable claims and power.", power(claims)),
            "",
        ]
    )


def confirmation(compared, ledger) -> list[str]:
    "Verdicts on people of development beside those on other people, where they differ."
    if compared.empty:
        return ["No paper has been run on other people yet.", ""]
    reports = ", ".join(name.capitalize() for name in dict.fromkeys(compared["report"]))
    differ = compared[compared["development"] != compared["confirmation"]]
    measured = ledger[ledger["source"] == "rendered"].set_index("claim")["quantity"]
    body = [
        [
            f'<a href="#claim-{row["claim"]}">{row["claim"]}</a>',
            escape(measured[row["claim"]]),
            *(
                f"{mark(row[people])} <small>{escape(row[f'{people}, found'])}</small>"
                for people in ("development", "confirmation")
            ),
        ]
        for row in differ.to_dict("records")
    ]
    return [
        "Rendered people cost nothing. When all settings and rules were fixed, each paper "
        f"({reports}) was run once more with other people and other seeds; that run gives the "
        f"rendered verdicts above. Of {len(compared)} verdicts {len(compared) - len(differ)} are "
        "the same as with the people of development; arithmetic, which no people can change, is "
        "among them. The others:",
        "",
        table(
            "ledger-confirmation",
            "value words",
            "Verdicts that differ.",
            Table.of(["claim", "measured", "development", "confirmation"], body).html(),
        ),
        "",
    ]


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
        body.append([p["report"].capitalize(), escape(p["text"]), tried])
    return Table.of(["report", "proposes", "found"], body).html()


def table(name: str, kind: str, caption: str, html: str) -> str:
    "The directive of a table."
    return f"````{{html-table}}\n:name: {name}\n:class: {kind}\n\n{caption}\n%%%\n{html}\n````"


def word_id(verdict: str) -> str:
    "The anchor of a verdict's explanation."
    return f"verdict-{slug(verdict)}"


def mark(verdict: str, link: bool = True) -> str:
    "A verdict as a coloured word that leads to its explanation."
    said = f'class="verdict {slug(verdict)}"'
    if not link or verdict not in WORDS:
        return f"<span {said}>{escape(verdict)}</span>"
    return f'<a {said} href="#{word_id(verdict)}">{escape(verdict)}</a>'


def report_table(counts) -> Table:
    "Counts, a row a report; the columns that are verdicts lead to their explanation."
    body = [[name, *(str(n or "–") for n in row)] for name, row in counts.T.items()]
    made = Table.of(["report", *counts.columns], body)
    for cell in made.head[0]:
        cell.html = mark(cell.text) if cell.text in WORDS else cell.html
    return made


def with_claims(text: str) -> str:
    "A text as HTML, in which “claim N” leads to the claim's row."
    return re.sub(r"\b([Cc]laim (\d+))\b", r'<a href="#claim-\2">\1</a>', escape(text))


def power(claims) -> str:
    "The testable claims by dataset, with what would show."
    from deepfake_nb.reporting.testable import testable_claims

    body = []
    for (dataset, groups, of, shows), some in testable_claims(claims).groupby(
        ["dataset", "groups", "of", "shows"], sort=False
    ):
        numbers = ", ".join(f'<a href="#claim-{n}">{n}</a>' for n in some.index)
        link = f'<a href="datasets.html#dataset-{dataset}">{dataset}</a>'
        body.append([link, f"{groups}", escape(of), numbers, f"{shows:.2f}"])
    return Table.of(["data", "groups", "which", "claims", "difference that shows"], body).html()


def controls(reports: list[str], sources: list[str], verdicts: list[str]) -> str:
    "The filters; without JavaScript they stay hidden."
    one = "".join(
        f'<label>{name} <select data-filter="{name}"><option value="">all</option>'
        + "".join(f"<option>{escape(v)}</option>" for v in values)
        + "</select></label>"
        for name, values in (
            ("report", reports),
            ("source", sources),
            ("verdict", [*verdicts, "no evidence from any source"]),
        )
    )
    return f'<form class="ledger-filter" hidden>{one}<output></output></form>'


def head() -> str:
    "The head of the table of claims."
    names = ("no.", "the report says", "verdicts", "found")
    return f"<thead><tr>{''.join(f'<th scope=col>{n}</th>' for n in names)}</tr></thead>"


def claim_row(number: int, claim, entries, taken: set, context: Context) -> str:
    "The row of a claim."
    from deepfake_nb.reporting.rules import known_text

    place = (
        f"{claim['report'].capitalize()}, {claim['place']}{' †' if claim['in_text_only'] else ''}"
    )
    value = shown({k: claim[k] for k in ("value", "lost") if not missing(claim[k])})
    said = f"{escape(claim['text'])} <small>{escape(place)}; value: {value}</small>"
    strip, numbers, reasons, late = [], [], [], {}
    for entry in entries.to_dict("records"):
        verdict, source = entry["verdict"], entry["source"]
        strip.append(
            f'<a class="cell {slug(verdict)}" href="#{word_id(verdict)}"><small>{source}</small>'
            f"{escape(verdict)}</a>"
        )
        told = []
        for one in (entry, *entry["also"]):
            which = f"{one['verdict']} on {one['dataset']}" if entry["also"] else ""
            if one["verdict"] not in ("not tested", "value lost") and one["found"]:
                numbers.append(found_line(one, which, context))
            late.setdefault(one["known"], {})[source] = True
            reason = with_claims(one["reason"])
            if len(one["found"]) > 150:
                reason = f"{escape(one['found'])}. {reason}"
            if one["further"]:
                reason += f" Further: {escape(one['further'])}."
            which = f"{escape(which).capitalize()}. " if which else ""
            told.append(f"<dd>{which}{reason}{origin(one, claim, context)}</dd>")
        reasons.append(f"<dt>{source}: {mark(verdict)}</dt>{''.join(told)}")
    numbers += [
        f"<div><em>{escape(known_text(known))}.</em> <small>{', '.join(sources)}</small></div>"
        for known, sources in late.items()
        if known
    ]
    at = f"papers/{claim['report']}.html#{claim['report']}"
    links = [f'<a href="{at}-table-verdicts">cell of the verdict</a>']
    if not missing(claim["shown"]):
        kind, name = claim["shown"].split()
        if (claim["report"], kind, name) in taken:
            links.insert(0, f'<a href="{at}-{kind}-{slug(name)}">{kind}</a>')
    note = "" if missing(claim["note"]) else f" {with_claims(claim['note'])}"
    about = f"<p>Measured on: {escape(claim['condition'])}. {decided(claim)}{note}</p>"
    by_source = "|".join(f"{e['source']}={e['verdict']}" for e in entries.to_dict("records"))
    cells = [
        ("td", "the report says", said),
        ("td", "verdicts", f'<div class="strip">{"".join(strip)}</div>'),
        (
            "td",
            "found",
            f"<div>{''.join(numbers) or '–'}<details><summary>reasons, sources</summary>"
            f"<dl>{''.join(reasons)}</dl>{about}"
            f"<p>In the paper: {', '.join(links)}</p></details></div>",
        ),
    ]
    body = "".join(f'<{tag} data-label="{label}">{html}</{tag}>' for tag, label, html in cells)
    return (
        f'<tr id="claim-{number}" data-report="{claim["report"]}" data-verdicts="{by_source}">'
        f'<th scope="row" data-label="no."><div>{number}</div></th>{body}</tr>'
    )


def missing(value) -> bool:
    "Whether a claim lacks something."
    return value is None or (isinstance(value, float) and value != value)


def found_line(entry: dict, which: str, context: Context) -> str:
    "A number under its name, with the source and data that it comes from."
    name = f"<b>{escape(entry['quantity'])}</b> " if entry["quantity"] else ""
    brief = escape(shorten(entry["found"], 150, placeholder=" …"))
    said = ", ".join([entry["source"], *([which] if which else []), *groups_of(entry, context)])
    return f"<div>{name}{brief} <small>{said}</small></div>"


def dataset_link(name: str, context: Context) -> str:
    "The name of a dataset, which leads to its entry."
    known = (context.root / f"data_manifests/{name}.toml").is_file()
    return f'<a href="datasets.html#dataset-{name}">{name}</a>' if known else escape(name)


def groups_of(entry: dict, context: Context) -> list[str]:
    "The data that a number rests on, with their independent groups."
    return [f"{n} groups of {dataset_link(d, context)}" for d, n in entry["tested_on"].items()]


def origin(entry: dict, claim, context: Context) -> str:
    "Links to the pack and the dataset, or the publication."
    if entry["source"] == "published record":
        return f" <small>{escape(entry['origin'])}</small>" if entry["origin"] else ""
    links, looked = groups_of(entry, context), ""
    file = context.root / "nbs/papers/evidence" / str(entry["origin"]) / "pack.json"
    if not missing(entry["seeds"]):
        links.append(f"{entry['seeds']:g} trainings")
    if file.is_file():
        links.append(f'<a href="{context.url}nbs/papers/evidence/{entry["origin"]}">pack</a>')
        if entry["source"] != "rendered":
            pack = json.loads(file.read_text(encoding="utf-8"))
            looked = f" <small>Looked at before: {escape(pack['provenance']['looked'])}</small>"
    named = [entry["dataset"]] if entry["dataset"] else []
    if not named and entry["source"] == "own data":
        data = claim["data"]
        named = data if isinstance(data, list) else [] if missing(data) else data.split("+")
    links += [dataset_link(name, context) for name in named if name not in entry["tested_on"]]
    return (f" <small>{', '.join(links)}</small>" if links else "") + looked


def decided(claim) -> str:
    "The rule of a claim, with its margin."
    from deepfake_nb.reporting.claims import rules_of
    from deepfake_nb.reporting.verdicts import quantity_of

    rules = rules_of(claim) or ([] if missing(claim["decided_by"]) else [claim["decided_by"]])
    told = []
    for rule in rules:
        limits = [f"{k} {rule[k]:g}" for k in ("margin", "least", "most") if k in rule]
        named = (
            f"“{rule['name']}” of {quantity_of(rule)}" if "name" in rule else f"“{rule['rule']}”"
        )
        told.append(", ".join([named, *limits]))
    return f"Rule: {escape('; '.join(told))}." if told else "No rule: nothing to measure."


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
