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

from levels import close_call, outside, shown
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
    "disagrees": "another source says the opposite; of drawn faces it says that the effect is "
    "absent there, not that it is absent in real ones",
    "undecided": "the interval allows both, although these data would show, four times in five, a "
    "true value that lies {notable:g} from the limit of the rule; or datasets of one source "
    "differ; or a record, or a measurement without an interval, bounds the claim and does not "
    "decide it",
    "underpowered": "the interval allows both, and these data would show, four times in five, only "
    "a true value that lies further from the limit than {notable:g}, or than `least` where that "
    "is more; or there are fewer than {groups} groups of people or {seeds} trainings",
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
    proposed: dict = field(default_factory=dict)  # claim → keys of proposals that name it

    @classmethod
    def of(cls, context: Context, taken: set = frozenset()) -> "Sheet":
        "A sheet of a repository."
        file = context.root / "nbs/papers/proposals.toml"
        proposed = {}
        for one in tomllib.loads(file.read_text(encoding="utf-8"))["proposal"]:
            for number in re.findall(r"[Cc]laim (\d+)", one["outcome"]):
                proposed.setdefault(int(number), []).append(one["key"])
        return cls(context, set(taken), rule_commits(context.root), proposed)

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
def git(root: Path, *words: str) -> str | None:
    "What git prints; None where it fails, as without a history."
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def commit_time(root: Path, commit: str) -> str:
    "When a commit was made, by its own clock; empty if the history lacks it."
    return (git(root, "log", "-1", "--format=%cI", commit, "--") or "")[:16].replace("T", " ")


@cache
def rule_commits(root: Path) -> dict[tuple[int, int], tuple[str, str]]:
    "The commit that gave each rule its form, and its time; nothing where there is no history."
    first, order = {}, ("--reverse", "--date-order", "--format=%H %cI")
    for line in (git(root, "log", *order, "--", CLAIMS) or "").splitlines():
        commit, time = line.split()
        for (claim, _), form in rules_in(
            tomllib.loads(git(root, "show", f"{commit}:{CLAIMS}") or "claim = []")
        ).items():
            first.setdefault((claim, form), (commit, time[:16].replace("T", " ")))
    if not first:
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


def reported(claim: dict) -> str:
    "The reported value."
    if claim.get("lost"):
        return f'<a href="#{word_id("value lost")}"><em>lost</em></a>'
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


def without_data(entry: dict, claim) -> bool:
    "Whether an entry counts what is built, or reckons with what is printed."
    from deepfake_nb.reporting.sources import needs_no_data

    return (
        needs_no_data(claim)
        and entry["verdict"] in DECIDED
        and entry["source"] != "published record"
    )


def claim_row(number: int, claim, entries, sheet: Sheet) -> str:
    "The row of a claim."
    from deepfake_nb.reporting.rules import known_text

    place = (
        f"{claim['report'].capitalize()}, {claim['place']}{' †' if claim['in_text_only'] else ''}"
    )
    value = reported({k: claim[k] for k in ("value", "lost") if not missing(claim[k])})
    said = f"{escape(claim['text'])} <small>{escape(place)}; value: {value}</small>"
    strip, numbers, reasons, late, chance = [], [], [], {}, {}
    for entry in entries.to_dict("records"):
        verdict, source = entry["verdict"], entry["source"]
        source = "no data" if without_data(entry, claim) else source
        strip.append(
            f'<a class="cell {slug(verdict)}" href="#{word_id(verdict)}"><small>{source}</small>'
            f"{escape(verdict)}</a>"
        )
        told = []
        for one in (entry, *entry["also"]):
            which = f"{one['verdict']} on {one['dataset']}" if entry["also"] else ""
            if one["verdict"] not in ("not tested", "value lost") and one["found"]:
                rule, _ = rule_and_pack(one, claim, sheet)
                numbers.append(found_line(one | {"source": source}, which, rule, sheet.context))
            if one["late"]:
                late.setdefault(one["known"], {})[source] = True
            if one["source"] in ("own data", "other real data") and weak_models(one, claim, sheet):
                chance.setdefault(source, []).extend(one["tested_on"])
            which = f"{escape(which).capitalize()}. " if which else ""
            told.append(f"<dd>{which}{reason(one, claim, sheet)}</dd>")
        reasons.append(f"<dt>{source}: {mark(verdict)}</dt>{''.join(told)}")
    if not missing(claim["looked"]):
        numbers.append(f"<div><em>Looked at before: {escape(claim['looked'])}.</em></div>")
    if not missing(claim["turned"]):
        said_before = f"<em>Turned by a rerun. {escape(claim['turned'])}.</em>"
        numbers.append(f"<div>{said_before} <small>own data</small></div>")
    numbers += [
        f"<div><em>{escape(known_text(known))}.</em> <small>{', '.join(sources)}</small></div>"
        for known, sources in late.items()
    ]
    numbers += [
        "<div><em>None of these models is shown to be better than chance on "
        f"{escape(', '.join(of))}.</em> <small>{source}; their AUC stands below</small></div>"
        for source, of in chance.items()
    ]
    at = f"papers/{claim['report']}.html#{claim['report']}"
    papers = [f'<a href="{at}-table-verdicts">cell of the verdict</a>']
    if not missing(claim["shown"]):
        kind, name = claim["shown"].split()
        if (claim["report"], kind, name) in sheet.taken:
            papers.insert(0, f'<a href="{at}-{kind}-{slug(name)}">{kind}</a>')
    if not missing(claim["note"]):
        page = f'<a href="papers/{claim["report"]}.html">the paper</a>'
        note = re.sub(r"\bthe page\b", page, with_claims(claim["note"]))
        numbers.append(f'<div class="note">{note}</div>')
    asked = "".join(
        f' A proposal asks about the same: <a href="#proposal-{key}">{key}</a>.'
        for key in sheet.proposed.get(number, ())
    )
    about = f"<p>Measured on: {escape(claim['condition'])}.{asked}</p>"
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


def found_line(entry: dict, which: str, rule: dict | None, context: Context) -> str:
    "Numbers under their name, each with what it is of, and the source and data they come from."
    name = f"<b>{escape(entry['quantity'])}</b> " if entry["quantity"] else ""
    of = [number["of"] for number in entry["numbers"]]
    part = [f"part “{escape(rule['part'])}”"] if rule else []
    which = [which] if which else []
    holds = [where_holds(number) for number in entry["numbers"][:1]] * (rule is not None)
    said = ", ".join(
        [entry["source"], *which, *groups_of(entry, context), *part, *filter(None, holds)]
    )
    near = close_call(entry)
    near = f" <strong>Close call:</strong> {near}." if near else ""
    if len(of) > 1:
        alone = fails_alone(entry)
        listed = "".join(
            f"<li>{part} {escape(number['of'])}{' <em>(fails)</em>' * (number in alone)}</li>"
            for part, number in zip(found_parts(entry), entry["numbers"], strict=True)
        )
        return f"<div>{name}<small>{said}</small><ul>{listed}</ul>{near}</div>"
    found = "".join(found_parts(entry)) or entry["found"]
    found += " from one training" * entry["found"].endswith(" from one training")
    brief = escape(shorten(found, LONGEST, placeholder=" …"))
    said += "".join(f"; {escape(o)}" for o in of)
    return f"<div>{name}{brief} <small>{said}</small>{near}</div>"


def where_holds(number: dict) -> str:
    "Between which values a claim holds; a printed value stands beside the claim."
    low, high = number["from"], number["to"]
    if low == high:
        return ""
    if low is None or high is None:
        return f"holds {'above' if high is None else 'below'} {high if low is None else low:g}"
    return f"holds from {low:g} to {high:g}"


LONGEST = 260  # letters of a finding in words; the rest stands below "reasons"


def found_parts(entry: dict) -> list[str]:
    "The numbers of an entry as text, one with its interval each."
    return shown(
        entry, re.findall(r"[^\s,;]+(?: \[[^]]+\])?", entry["found"])[: len(entry["numbers"])]
    )


def fails_alone(entry: dict) -> list[dict]:
    "The numbers by which an entry fails, where others of its rule do not fail."
    if entry["verdict"] not in ("not reproduced", "disagrees"):
        return []
    failing = [n for n in entry["numbers"] if n["low"] is not None and outside(n)]
    return failing if len(failing) < len(entry["numbers"]) else []


def dataset_link(name: str, context: Context) -> str:
    "The name of a dataset, which leads to its entry."
    known = (context.root / f"data_manifests/{name}.toml").is_file()
    return f'<a href="datasets.html#dataset-{name}">{name}</a>' if known else escape(name)


def groups_of(entry: dict, context: Context) -> list[str]:
    "The data that a number rests on, with their independent groups."
    return [f"{n} groups of {dataset_link(d, context)}" for d, n in entry["tested_on"].items()]


def reason(entry: dict, claim, sheet: Sheet) -> str:
    "Why an entry has its verdict, what would turn it, and where it can be looked up."
    from deepfake_nb.reporting.rules import known_text
    from deepfake_nb.reporting.turning import what_turns

    told = with_claims(power_told(entry["reason"]))
    if len(entry["found"]) > LONGEST and not entry["numbers"]:
        told = f"{escape(entry['found'])}. {told}"
    if entry["further"]:
        told += f" Further: {escape(power_told(entry['further']))}."
    if entry["known"] and not entry["late"]:
        told += f" {escape(known_text(entry['known'], further=True))}."
    told += levels(entry, claim, sheet)
    if turns := what_turns(entry):
        told += f" <b>Would turn it:</b> {escape(turns)}{at_hand(entry, turns)}"
    return told + origin(entry, claim, sheet)


def power_told(reason: str) -> str:
    "A reason that says from which limit a difference is counted, where data are too few."
    return re.sub(
        r"only (?:a difference|differences) of ([\d.]+) would have shown",
        r"four times in five, they would show a true value only if it lay about \1 or more from "
        "the limit",
        reason,
    )


#: Independent groups of the smaller class in all of a dataset that is at hand.
AT_HAND = {"uadfv": 49, "faceforensics": 12, "real-and-fake-face": 768, "dfdc-faces": 4995}


def at_hand(entry: dict, turns: str) -> str:
    "Whether the groups that would decide an open claim exist in the data."
    wanted = re.search(r"About ([\d,]+) groups in place of \d+ would decide", turns)
    if not wanted or entry["source"] == "rendered":
        return " More can be drawn." if wanted else ""
    told = [
        f" {name} has {AT_HAND[name]:,} in all, "
        + ("those that train included." if n <= AT_HAND[name] else "too few.")
        for name in entry["tested_on"]
        if name in AT_HAND and (n := int(wanted[1].replace(",", "")))
    ]
    return "".join(told)


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
    named = [entry["dataset"]] if entry["dataset"] and not without_data(entry, claim) else []
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

    nth = entry["nth"]
    rule = claim["decided_by"] if missing(nth) else rules_of(claim)[int(nth) - 1]
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
    said = " with changes that were not committed" if changes else ""
    return f'<a href="{base}{sha}">{sha[:7]}</a>{said}'


def scored_with(entry: dict, claim, sheet: Sheet, pack: dict) -> str:
    "The commit that scores were made with, its time, and whether the rule stood in it."
    commit, root = pack["provenance"]["commit"], sheet.context.root
    sha = commit.partition("+")[0]
    if not (time := commit_time(root, sha)):
        return f"scores of commit {commit_link(commit, sheet)}, whose date is unknown here"
    told = f"scores of commit {commit_link(commit, sheet)} ({time})"
    rule = () if missing(entry["nth"]) else sheet.commits.get((claim.name, int(entry["nth"])), ())
    if not rule:
        return told
    held = git(root, "merge-base", "--is-ancestor", rule[0], sha) is not None
    return f"{told}, which {'holds the rule already' if held else 'does not hold the rule yet'}"


def pack_url(origin: str, sheet: Sheet) -> str:
    "Where a pack lies on the repository's site: as of its last commit, so that lines stay."
    at, root = f"{PACKS}/{origin}", sheet.context.root
    sha = (git(root, "log", "-1", "--format=%H", "--", at) or "").strip()
    if not sha or git(root, "diff", "--quiet", "HEAD", "--", at) is None:
        return sheet.context.url + at
    return re.sub(r"blob/[^/]+/$", f"blob/{sha}/", sheet.context.url) + at


def pack_of(entry: dict, claim, sheet: Sheet) -> str:
    "Where an entry stands in its pack, and the commit that its scores were made with."
    found = sheet.pack(entry["origin"])
    if found is None:
        at = f"papers/{claim['report']}.html"
        return f'no pack: counted or timed in <a href="{at}">the notebook</a>'
    pack, lines = found
    key = claim.name if missing(entry["nth"]) else (claim.name, int(entry["nth"]))
    at = pack_url(entry["origin"], sheet)
    people = " (other people than these)" if entry["source"] == "rendered" else ""
    return (
        f'<a href="{at}/pack.json#L{lines[key]}">entry in the pack</a> '
        f'<a href="{at}">{entry["origin"]}</a>, {scored_with(entry, claim, sheet, pack)}; '
        f'<a href="#looked-{pack["paper"]}">looked at before</a>{people}'
    )


def rule_and_pack(entry: dict, claim, sheet: Sheet) -> tuple[dict, dict] | tuple[None, None]:
    "The rule that judged an entry, and its pack; nothing where there is none."
    from deepfake_nb.reporting.claims import rules_of

    found = sheet.pack(entry["origin"])
    if found is None or missing(entry["nth"]) or entry["verdict"] == "not tested":
        return None, None
    return rules_of(claim)[int(entry["nth"]) - 1], found[0]


def detects(rule: dict) -> bool:
    "Whether a rule is about telling real from fake, so that checks of the files bear on it."
    return rule.get("metric") != "mean" and rule["name"] != "higher"


def model_areas(rule: dict, pack: dict) -> list[tuple[str, dict]]:
    "The AUC of each model of a rule on the part that judges, or of the networks it rests on."
    judged = [rule.get("models") or rule.get("model"), rule.get("against")]
    named = judged if detects(rule) else [rule.get("rests_on")]
    models, parts = flat(named), [rule["part"]] if detects(rule) else ["test"]
    rows = {(n["model"], n["part"]): n for n in pack["numbers"] if n["metric"] == "AUC"}
    return [(m, rows[m, p]) for m in dict.fromkeys(models) for p in parts if (m, p) in rows]


def flat(names) -> list[str]:
    "Names out of names, lists of names, and nothing."
    if isinstance(names, str):
        return [names]
    return [one for name in names or () for one in flat(name)]


def weak_models(entry: dict, claim, sheet: Sheet) -> bool:
    "Whether a decided entry rests on models of which none is shown to be better than chance."
    rule, pack = rule_and_pack(entry, claim, sheet)
    if rule is None or entry["verdict"] not in DECIDED:
        return False
    areas = model_areas(rule, pack)
    return bool(areas) and not any(row["low"] is not None and row["low"] > 0.5 for _, row in areas)


DECIDED = ("reproduced", "not reproduced", "agrees", "disagrees")


def levels(entry: dict, claim, sheet: Sheet) -> str:
    "How good the models are that an entry compares, and which checks of files it did not pass."
    rule, pack = rule_and_pack(entry, claim, sheet)
    if rule is None:
        return ""
    areas = model_areas(rule, pack)
    told = [f"“{escape(m)}” {interval(row)}" for m, row in areas if m and row["low"] is not None]
    on = "" if detects(rule) else ", of the networks that it rests on, on their test images"
    said = f" <b>AUC alone{on}:</b> {', '.join(told)}." if told else ""
    if "false positives" in str(rule.get("model")) and entry["source"] != "rendered":
        said += marked(rule, sheet.context.root / PACKS / entry["origin"])
    if entry["verdict"] in DECIDED and entry["source"] in ("own data", "other real data"):
        said += outside_gate(entry, rule, pack, sheet)
    return said


def interval(row) -> str:
    "A number and its interval."
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


@cache
def shares_marked(place: Path, networks: tuple[str, ...]) -> dict[str, tuple[dict, dict]]:
    "By network: the share of fakes' images that it marks, and the share that was changed."
    from deepfake_nb.reporting.verdicts import measure, part_scores, read_pack_scores

    scores, part, found = read_pack_scores(place / "scores.csv.gz"), "values of pixels", {}
    scores = scores[scores["label"] == 1]
    for name in networks:
        values = (f"{kind}, {name}" for kind in ("false positives", "missed area", "Dice"))
        (rows, wrong), (_, missed), (_, dice) = (part_scores(scores, v, part) for v in values)
        overlap = dice * (wrong + missed) / (2 * (1 - dice).clip(1e-9))  # by what Dice is
        shares = []
        for share in (overlap + wrong, overlap + missed):
            table = rows[["sample", "label", "group", "part"]]
            table = table.assign(**{f"share@{i}": one for i, one in enumerate(share)})
            shares.append(measure(table, "share", part, metric="mean").as_row())
        found[name] = tuple(shares)
    return found


def marked(rule: dict, place: Path) -> str:
    "How much of a fake the networks of a rule mark: one that marks nothing misses all."
    networks = tuple(rule["rests_on"])
    told = [
        f"“{escape(name)}” marks {interval(marks)} of a fake's image, of which "
        f"{changed['value']:.3f} was changed"
        for name, (marks, changed) in shares_marked(place, networks).items()
    ]
    return f" <b>Share marked:</b> {'; '.join(told)}. A network that marks nothing misses all."


def failing_files(dataset: str, root: Path) -> tuple[dict, ...]:
    "The failed checks of the files of a dataset, from whichever pack holds them."
    for place in sorted((root / PACKS).glob("*/pack.json")):
        pack = read_pack(place.parent)[0]
        for row in pack["health"]:
            of = row.get("dataset", pack["dataset"])
            if of == dataset and row["verdict"] == "fail" and row.get("feature") == "file_size":
                return (row,)
    return ()


def outside_gate(entry: dict, rule: dict, pack: dict, sheet: Sheet) -> str:
    "Why failed checks of the files of an entry's data do not void it."
    root = sheet.context.root
    failed = [row for name in entry["tested_on"] for row in failing_files(name, root)]
    if not failed:
        return ""
    alone = max(max(row["auc"], 1 - row["auc"]) for row in failed)
    said = f" The sizes of these files tell the classes apart (AUC {alone:.2f})."
    if detects(rule):
        return f"{said} The gate lets the verdict stand, since the model is shown to be better."
    return said + (
        " The gate lets that void claims about "
        "telling real from fake; this rule compares values, so that it does not bear."
        + (
            " Nor does the gate ask whether the networks tell test images apart: it asks whether "
            "they left chance on their training data."
            if rule.get("rests_on")
            else ""
        )
    )
