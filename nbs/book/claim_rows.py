"The rows of the ledger: what each source says of a claim, by which rule, and where to look it up."

import json
import re
import subprocess
import tomllib
from dataclasses import dataclass, field
from functools import cache
from html import escape
from pathlib import Path
from textwrap import shorten

from lists import with_claims
from pages import Context, slug

CLAIMS = "nbs/papers/claims.toml"
PACKS = "nbs/papers/evidence"

WORDS = {
    "reproduced": "the claim holds on the report's own data: the same dataset, or a named part of "
    "it, though not always the same frames, crops and splits; or, where it needs no data, on the "
    "network as it is built",
    "not reproduced": "it does not hold there",
    "agrees": "another source says the same",
    "disagrees": "another source says the opposite",
    "undecided": "the interval allows both, although these data would have shown a difference of "
    "{notable:g} four times in five; or datasets of one source differ; or a record, or a "
    "measurement without an interval, bounds the claim and does not decide it",
    "underpowered": "the interval allows both, and these data would have shown only a larger "
    "difference than {notable:g}, or than the least that the claim asks for; or there are fewer "
    "than {groups} groups of people or {seeds} trainings",
    "void": "the test means nothing: the rule could not fail, the model learnt nothing, a health "
    "check failed (for example, the size of the files tells the classes apart, and the "
    "model is not shown to be better; or people of the training data are in the test), or the rule "
    "was chosen on these data",
    "contradicted by the report itself": "its own text or arithmetic says otherwise",
    "value lost": "the value was in a figure that the text does not carry",
    "source damaged": "the printed source cannot be right as we have it",
    "not tested": "no evidence from this source",
}


@dataclass
class Sheet:
    "What rows are made of: where links lead, the commits of rules, the lines of packs."

    context: Context
    taken: set = field(default_factory=set)  # (report, kind, name) of figures and tables
    commits: dict = field(default_factory=dict)  # (claim, which rule) → commit and date

    @classmethod
    def of(cls, context: Context, taken: set = frozenset()) -> "Sheet":
        "A sheet of a repository."
        return cls(context, set(taken), rule_commits(context.root))

    def pack(self, origin: object) -> tuple[dict, dict] | None:
        "A pack and the lines of its entries; None if an entry comes from elsewhere."
        place = self.context.root / PACKS / str(origin)
        return read_pack(place) if (place / "pack.json").is_file() else None


@cache
def read_pack(place: Path) -> tuple[dict, dict]:
    "A pack, and the line of each verdict by claim and rule; of what a notebook entered, by claim."
    text = (place / "pack.json").read_text(encoding="utf-8")
    pack = json.loads(text)
    at = {"claim": [], "no.": []}
    for number, line in enumerate(text.splitlines(), 1):
        if m := re.match(r'   "(claim|no\.)": \d+,?$', line):
            at[m[1]].append(number)
    lines = {(v["claim"], v["nth"]): line for v, line in zip(pack["verdicts"], at["claim"])}
    return pack, lines | {row["no."]: n for row, n in zip(pack.get("entered", ()), at["no."])}


def rules_in(claims: dict) -> dict[tuple[int, int], str]:
    "Each rule of a claims file as text, without what only tells of it."
    found = {}
    for claim in claims["claim"]:
        rules = claim.get("rule", [])
        for nth, rule in enumerate(rules if isinstance(rules, list) else [rules], 1):
            form = {k: v for k, v in rule.items() if k not in ("known", "quantity")}
            found[claim["id"], nth] = json.dumps(form, sort_keys=True)
    return found


@cache
def rule_commits(root: Path) -> dict[tuple[int, int], tuple[str, str]]:
    "The commit that gave each rule its form, and its time; nothing where there is no history."

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
        return done.stdout

    first = {}
    try:
        log = git("log", "--reverse", "--date-order", "--format=%H %cI", "--", CLAIMS)
        for commit, time in map(str.split, log.splitlines()):
            for (claim, _), form in rules_in(
                tomllib.loads(git("show", f"{commit}:{CLAIMS}"))
            ).items():
                first.setdefault((claim, form), (commit, time[:16].replace("T", " ")))
    except (OSError, subprocess.CalledProcessError):
        return {}
    now = rules_in(tomllib.loads((root / CLAIMS).read_text(encoding="utf-8")))
    return {key: first[key[0], form] for key, form in now.items() if (key[0], form) in first}


def word_id(verdict: str) -> str:
    "The anchor of a verdict's explanation."
    return f"verdict-{slug(verdict)}"


def mark(verdict: str, link: bool = True) -> str:
    "A verdict as a coloured word that leads to its explanation."
    said = f'class="verdict {slug(verdict)}"'
    if not link or verdict not in WORDS:
        return f"<span {said}>{escape(verdict)}</span>"
    return f'<a {said} href="#{word_id(verdict)}">{escape(verdict)}</a>'


def head() -> str:
    "The head of the table of claims."
    names = ("no.", "the report says", "verdicts", "found")
    return f"<thead><tr>{''.join(f'<th scope=col>{n}</th>' for n in names)}</tr></thead>"


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


def claim_row(number: int, claim, entries, sheet: Sheet) -> str:
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
                numbers.append(found_line(one, which, sheet.context))
            late.setdefault(one["known"], {})[source] = True
            which = f"{escape(which).capitalize()}. " if which else ""
            told.append(f"<dd>{which}{reason(one, claim, sheet)}</dd>")
        reasons.append(f"<dt>{source}: {mark(verdict)}</dt>{''.join(told)}")
    if not missing(claim["turned"]):
        said_before = f"<em>Turned by a rerun. {escape(claim['turned'])}.</em>"
        numbers.append(f"<div>{said_before} <small>own data</small></div>")
    numbers += [
        f"<div><em>{escape(known_text(known))}.</em> <small>{', '.join(sources)}</small></div>"
        for known, sources in late.items()
        if known
    ]
    at = f"papers/{claim['report']}.html#{claim['report']}"
    papers = [f'<a href="{at}-table-verdicts">cell of the verdict</a>']
    if not missing(claim["shown"]):
        kind, name = claim["shown"].split()
        if (claim["report"], kind, name) in sheet.taken:
            papers.insert(0, f'<a href="{at}-{kind}-{slug(name)}">{kind}</a>')
    note = "" if missing(claim["note"]) else f" {with_claims(claim['note'])}"
    about = f"<p>Measured on: {escape(claim['condition'])}.{note}</p>"
    by_source = "|".join(f"{e['source']}={e['verdict']}" for e in entries.to_dict("records"))
    cells = [
        ("td", "the report says", said),
        ("td", "verdicts", f'<div class="strip">{"".join(strip)}</div>'),
        (
            "td",
            "found",
            f"<div>{''.join(numbers) or '–'}<details><summary>reasons, rules, packs"
            f"</summary><dl>{''.join(reasons)}</dl>{about}"
            f"<p>In the paper: {', '.join(papers)}</p></details></div>",
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
    "Numbers under their name, each with what it is of, and the source and data they come from."
    name = f"<b>{escape(entry['quantity'])}</b> " if entry["quantity"] else ""
    of = [number["of"] for number in entry["numbers"]]
    said = ", ".join([entry["source"], *([which] if which else []), *groups_of(entry, context)])
    parts = re.findall(r"[^\s,;]+(?: \[[^]]+\])?", entry["found"])
    if len(of) > 1:
        listed = "".join(f"<li>{p} {escape(o)}</li>" for p, o in zip(parts, of, strict=True))
        return f"<div>{name}<small>{said}</small><ul>{listed}</ul></div>"
    brief = escape(shorten(entry["found"], 150, placeholder=" …"))
    said += "".join(f"; {escape(o)}" for o in of)
    return f"<div>{name}{brief} <small>{said}</small></div>"


def dataset_link(name: str, context: Context) -> str:
    "The name of a dataset, which leads to its entry."
    known = (context.root / f"data_manifests/{name}.toml").is_file()
    return f'<a href="datasets.html#dataset-{name}">{name}</a>' if known else escape(name)


def groups_of(entry: dict, context: Context) -> list[str]:
    "The data that a number rests on, with their independent groups."
    return [f"{n} groups of {dataset_link(d, context)}" for d, n in entry["tested_on"].items()]


def reason(entry: dict, claim, sheet: Sheet) -> str:
    "Why an entry has its verdict, what would turn it, and where it can be looked up."
    from deepfake_nb.reporting.turning import what_turns

    told = with_claims(entry["reason"])
    if len(entry["found"]) > 150 and not entry["numbers"]:
        told = f"{escape(entry['found'])}. {told}"
    if entry["further"]:
        told += f" Further: {escape(entry['further'])}."
    if turns := what_turns(entry):
        told += f" <b>Would turn it:</b> {escape(turns)}"
    return told + origin(entry, claim, sheet)


def origin(entry: dict, claim, sheet: Sheet) -> str:
    "The rule and its commit, the data, and the entry in the pack; or the publication."
    if entry["source"] == "published record":
        said = [escape(entry["origin"])] if entry["origin"] else []
        if entry["verdict"] != "not tested":
            said.append("no pack: a record, or arithmetic")
        return small(said)
    tested, said = entry["verdict"] != "not tested", groups_of(entry, sheet.context)
    if tested and not missing(entry["seeds"]):
        said.append(f"{entry['seeds']:g} training{'s' * (entry['seeds'] != 1)}")
    named = [entry["dataset"]] if entry["dataset"] else []
    if not named and entry["source"] == "own data":
        data = claim["data"]
        named = data if isinstance(data, list) else [] if missing(data) else data.split("+")
    said += [dataset_link(n, sheet.context) for n in named if n not in entry["tested_on"]]
    if tested or entry["numbers"]:
        said += [rule_of(entry, claim, sheet), pack_of(entry, claim, sheet)]
    return small(filter(None, said))


def small(said) -> str:
    "Facts in small print."
    text = "; ".join(said)
    return f" <small>{text}</small>" if text else ""


def rule_of(entry: dict, claim, sheet: Sheet) -> str:
    "The rule of an entry with its margin, and the commit that gave it its form."
    from deepfake_nb.reporting.claims import rules_of
    from deepfake_nb.reporting.verdicts import quantity_of

    rules, nth = rules_of(claim), entry["nth"]
    rule = claim["decided_by"] if missing(nth) else rules[int(nth) - 1]
    if missing(rule):
        return ""
    name = rule.get("name", rule.get("rule"))
    limits = [f"{k} {rule[k]:g}" for k in ("margin", "least", "most") if k in rule]
    of = f" of {quantity_of(rule)}" if "name" in rule else ""
    told = ", ".join([f'rule <a href="#rule-{slug(name)}">“{escape(name)}”{of}</a>', *limits])
    if missing(nth) or (claim.name, int(nth)) not in sheet.commits:
        return told
    commit, time = sheet.commits[claim.name, int(nth)]
    return f"{told}, in this form since {commit_link(commit, sheet)} ({time})"


def commit_link(commit: str, sheet: Sheet) -> str:
    "A commit, which leads to its page; a tree with changes is called so."
    sha, _, changes = commit.partition("+")
    base = re.sub(r"blob/[^/]+/$", "commit/", sheet.context.url)
    return f'<a href="{base}{sha}">{sha[:7]}</a>{" with changes" if changes else ""}'


def pack_of(entry: dict, claim, sheet: Sheet) -> str:
    "Where an entry stands in its pack, and the commit that its scores were made with."
    found = sheet.pack(entry["origin"])
    if found is None:
        at = f"papers/{claim['report']}.html"
        return f'no pack: counted or timed in <a href="{at}">the notebook</a>'
    pack, lines = found
    key = claim.name if missing(entry["nth"]) else (claim.name, int(entry["nth"]))
    at = f"{PACKS}/{entry['origin']}"
    commit = commit_link(pack["provenance"]["commit"], sheet)
    people = " (other people than these)" if entry["source"] == "rendered" else ""
    return (
        f'<a href="{sheet.context.url}{at}/pack.json#L{lines[key]}">entry in the pack</a> '
        f'<a href="{sheet.context.url}{at}">{entry["origin"]}</a>, scores of commit {commit}; '
        f'<a href="#looked-{pack["paper"]}">looked at before</a>{people}'
    )
