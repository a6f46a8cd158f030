"The page of the ledger: every claim, what each source of evidence says, and how to check it."

import csv
import re
from html import escape

import levels
from briefs import briefs
from claim_rows import (
    PACKS,
    WORDS,
    Sheet,
    claim_row,
    failing_files,
    found_parts,
    head,
    mark,
    missing,
    read_pack,
    rule_and_pack,
    weak_models,
    word_id,
)
from lists import proposals, table
from pages import Context, Page, slug
from tables import Table

READING = """\
<p>A row holds one claim; † marks one that stands in the text but in no table of results. Its four
cells are the four sources:</p>
<ul>
<li><b>own data</b>: the report's own dataset or a named part of it. It is the same dataset, not
always the same frames: frames, crops and splits are ours. The source is that of the data that
the models were trained on; where they were judged on other data, the row names these.</li>
<li><b>published record</b>: what others have published, or arithmetic on the report's own
numbers.</li>
<li><b>other real data</b>: videos or images of real people from another dataset.</li>
<li><b>rendered</b>: faces that this repository's code draws. No real person is in them, and what
makes a fake a fake was chosen by us. <i>Agrees</i> shows that an effect can occur. <i>Disagrees</i>
shows that it is absent in drawn faces, and says nothing of real ones.</li>
</ul>
<p>A cell says <b>no data</b> in place of its source where a network was built and counted, or a
printed formula or listing was run.</p>
<details><summary>How to read the numbers</summary><ul>
<li>Square brackets hold intervals: the bias-corrected percentiles of 1,000 bootstrap resamples, in
which groups of people, and trainings, are drawn whole. They are at 95 %, at 90 % where a claim says
that two are equal or that there is no gain, and jointly at 95 % for an order. With few groups such
an interval tends to be too narrow. They cover which people are tested and, where trainings are
named, chance in training; not other people to train on, other crops, splits or code.</li>
<li>Numbers have three digits, or as many more as it takes to see on which side of the limit an end
lies. <b>Close call</b>: the end that decides lies nearer to the limit than a tenth of the
interval's width; another draw of the resamples moves an end by several hundredths.</li>
<li>For a printed number, <i>reproduced</i> means that our interval does not exclude it: few groups
make that easy, many make it hard. Where a row says “our test”, the report did not state what was
tested, and the verdict is on our test.</li>
<li>The name before a number says what it measures. A number with a sign is a difference, and “A”
minus “B” below it says of what. A and B are names of models, or of values, in the pack.
<i>Holds above 0.8</i> names the limit: the claim holds if the whole interval lies there.</li>
<li>Two numbers can be compared only if name, models, data and part are the same. The same name on
other data measures something else; so does the same name on rendered and on real people. The part
of the scores, such as “evaluation”, stands with the groups; the pack has it by that name.</li>
<li>Below a number stand the data and the independent groups that it rests on: people, or
originals, that no other group is joined to. Of dfdc-faces and real-and-fake-face no identities are
known: a person may be in several groups, which makes intervals too narrow.</li>
<li>Where no number of trainings is named, training is not random, as that of a support vector
machine, or nothing was trained.</li>
<li>The commit of a rule is the first whose list of claims holds it as it is now. Scores of a commit
“with changes” were made while some changes were not committed. Both times are those of this
repository's own history, in UTC; nobody else has witnessed them.</li>
<li>The word of a verdict, and the name of a rule, lead to their explanation. Open a row for
reasons, for what would turn each verdict, for the rule, and for the entry in the pack.</li>
</ul></details>"""

COMBINING = """\
<p><b>Several numbers in one rule.</b> The claim holds if all of them do, and fails if one fails.
<b>Several rules of one claim.</b> Each has its own verdict. The first that the data can test is
the claim's; the others are listed as <i>further</i> and change nothing.
<b>Several datasets of one source.</b> A decided verdict stands; two that contradict each other
leave the claim undecided. <b>Four sources.</b> They are never combined.</p>
<p><b>Fixed beforehand</b> means: before the run that judges. Some rules are younger than numbers
that bear on them, and say so. Rules were written while rendered people of development were looked
at; the rendered people that judge are others, where a paper was run on them.</p>
<p><b>What would turn it</b> is an approximation. The half-width of an interval shrinks with the
square root of the number of groups; the value and the scatter between groups are taken to stay as
they are, and the part of the width that trainings cause is treated as if groups caused it.</p>"""

CHECK = """\
from deepfake_nb.reporting.evidence import verify_pack
from deepfake_nb.reporting.verdicts import measure, read_pack_scores

pack = "nbs/papers/evidence/kun-uadfv"
scores = read_pack_scores(f"{pack}/scores.csv.gz")
# The number of claim 65:
print(measure(scores, "svm sigmoid", "development"))
# Why it is void: on its own training data, the interval holds 0.5, which is chance:
print(measure(scores, "svm sigmoid", "training"))
# What does not follow from the scores, in the whole pack (an empty list):
print(verify_pack(pack))"""


def expected(context: Context) -> str:
    "What the check prints, from the numbers of the pack."
    from deepfake_nb.evaluation.intervals import Interval

    pack, told = read_pack(context.root / PACKS / "kun-uadfv")[0], []
    for part in ("development", "training"):
        told += [
            str(Interval(n["value"], n["low"], n["high"], n["n"], n["groups"]))
            for n in pack["numbers"]
            if (n["model"], n["part"], n["metric"]) == ("svm sigmoid", part, "AUC")
        ]
    return "\n".join([*told, "[]"])


#: Reports some of whose numbers were known when the gate of all verdicts was written: see `looked`
#: in profiles.toml.
GATE_IS_YOUNGER = ("kun",)


def ledger_page(context: Context, pages: list[Page]) -> str:
    "Every claim of every report, with what each source of evidence says."
    from deepfake_nb.reporting.claims import load_claims
    from deepfake_nb.reporting.sources import (
        confirmation_table,
        count_reports,
        count_sources,
        load_sources,
        real_verdicts,
    )
    from deepfake_nb.reporting.verdicts import RULE_TEXTS

    papers = context.root / "nbs/papers"
    claims, ledger = load_claims(path=papers / "claims.toml"), load_sources(papers)
    taken = {(page.stem, kind.lower(), name) for page in pages for kind, _, name, _ in page.taken}
    sheet = Sheet.of(context, taken)
    counts = count_sources(ledger)
    counted = Table.of(
        ["verdict", *counts.columns],
        [[mark(name), *(str(n or "–") for n in row)] for name, row in counts.T.items()],
    )
    by_report = count_reports(ledger, claims)
    by_report.index = [name.capitalize() for name in by_report.index]
    n = 2 + len(counts.columns)
    rows = "".join(
        claim_row(int(n), claim, ledger[ledger["claim"] == n], sheet)
        for n, claim in claims.iterrows()
    )
    sources, real = list(counts.columns), real_verdicts(ledger)
    compared = confirmation_table(papers)
    page = "\n".join(
        [
            "# The ledger of claims",
            "",
            f"> {len(claims)} claims of {claims['report'].nunique()} reports, "
            "and what each of four sources of evidence says about them.",
            "",
            html(lead(claims, ledger, real, sheet, compared)),
            html(f"<details><summary>What each of the {len(real)} found, on which data</summary>"),
            table("ledger-real", "value words", "", real_table(claims, real, sheet)),
            "",
            html("</details>"),
            "## By report",
            "",
            table("ledger-briefs", "value words", "", briefs(context.root, ledger)),
            "",
            table(
                "ledger-reports",
                "numbers",
                "Claims that each source decided, by report: it reproduced them or not, it agrees "
                "or disagrees. *No data* are claims that need none: a network is built and its "
                "parameters counted, or printed numbers are reckoned with; they stand in no other "
                "column. This is not a ranking of reports: what is decided depends on which data "
                "are at hand.",
                report_table(by_report.iloc[:, :n]).html(),
            ),
            "",
            html("<details><summary>More counts: verdicts by report and by source</summary>"),
            table(
                "ledger-report-verdicts",
                "numbers",
                "Verdicts by report; a claim has one from each of four sources. *Other* are those "
                "that decide nothing; what was not tested is left out. *Reproduced* holds the "
                "networks that were counted, too.",
                report_table(by_report.iloc[:, n:]).html(),
            ),
            "",
            table(
                "ledger-counts",
                "numbers",
                "Verdicts by source, claims that need no data included.",
                counted.html(),
            ),
            "",
            html("</details>"),
            "## Check one yourself",
            "",
            "Without installing anything: open a claim's row and follow *entry in the pack*, which "
            "holds the number, its interval and what it rests on. With the repository and the "
            "library ([how to install it](index.ipynb#Program)), a few seconds make all of a pack "
            "again from its scores; for claim 65:",
            "",
            f"```python\n{CHECK}\n```",
            "",
            "It prints:",
            "",
            f"```text\n{expected(context)}\n```",
            "",
            "From a shell, `deepfake-nb ledger --check kun-uadfv development` prints the numbers "
            "and verdicts of one part of a pack, made again; pack and part stand in each row. "
            "`deepfake-nb ledger --verify` does so for all packs, without the data and without "
            "training. This checks that numbers and verdicts follow from scores, not how the "
            "scores came about: that takes the data, and a run of the paper.",
            "",
            "## Claims",
            "",
            html(READING),
            html(controls(list(dict.fromkeys(claims["report"])), sources, list(counts.index))),
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
                        [f'<span id="{word_id(w)}">{mark(w, link=False)}</span>', coded(s)]
                        for w, s in words().items()
                    ],
                ).html(),
            ),
            "",
            html(COMBINING),
            table(
                "ledger-rules",
                "value words",
                "When a claim holds, by the name of its rule; `least`, `most` and `margin` "
                "stand in the row. It fails where the opposite is shown, and stays open between.",
                Table.of(
                    ["rule", "the claim holds if"],
                    [
                        [f'<span id="rule-{slug(name)}">{name}</span>', coded(text)]
                        for name, text in RULE_TEXTS.items()
                    ],
                ).html(),
            ),
            "",
            "## What had been looked at before",
            "",
            html(looked(sheet, list(dict.fromkeys(claims["report"])))),
            "## Confirmed with other rendered people?",
            "",
            *confirmation(compared, claims, ledger),
            "## Proposed",
            "",
            *proposing(context),
            table("ledger-proposed", "value words", "Proposals.", proposals(context)),
            "",
            "## What the data at hand can show",
            "",
            "Claims with a rule, by the data that can test them. The groups were counted before "
            "any score was read, for the runs that were planned then; the runs that judge had "
            "others, which each row names. The last column is the "
            "smallest difference in AUC that so many independent groups in each "
            "class would show four times in five, from their number alone, at an AUC of 0.75. "
            "It is a guide for two unrelated detectors: paired differences and single numbers can "
            "be decided with fewer.",
            "",
            table("ledger-power", "numbers", "Testable claims and power.", power(claims)),
            "",
        ]
    )
    return re.sub(r"(?<=[\s\[(>“])-(?=\d)", "−", page)


def html(text: str) -> str:
    "The directive of HTML that is not parsed."
    return f"```{{raw}} html\n{text}\n```\n"


def words() -> dict[str, str]:
    "What the verdicts say, with the limits of the gate."
    from deepfake_nb.reporting.rules import MINIMUM_GROUPS, MINIMUM_SEEDS, NOTABLE

    limits = {"notable": NOTABLE, "groups": MINIMUM_GROUPS, "seeds": MINIMUM_SEEDS}
    return {word: text.format(**limits) for word, text in WORDS.items()}


def coded(text: str) -> str:
    "A text as HTML, names of parameters as code."
    return re.sub(r"`(\w+)`", r"<code>\1</code>", escape(text))


def links(numbers) -> str:
    "Numbers of claims that lead to their rows."
    return ", ".join(f'<a href="#claim-{n}">{n}</a>' for n in numbers)


LIMITS = {"least", "most", "margin"}  # of a rule: how much counts


def lead(claims, ledger, real, sheet: Sheet, compared) -> str:
    "What real data decided, and how far that can be trusted."
    from deepfake_nb.reporting.sources import STATES, needs_no_data

    about, n = claims.loc[real.index], len(real)

    def told(word: str, says: str) -> str:
        numbers = real.index[real["verdict"] == word]
        return f"{len(numbers)} {says}" + (f" ({links(numbers)})" if len(numbers) else "")

    tested = ledger[ledger["source"].isin(["own data", "other real data"])]
    tested = tested[(tested["dataset"] != "") & ~tested["claim"].isin(real.index)]
    tested = tested[tested["verdict"].isin(["undecided", "underpowered", "void"])]
    still = tested.groupby("claim")["verdict"].agg(lambda verdicts: min(verdicts, key=STATES.index))
    kinds = ", ".join(f"{count} {mark(word)}" for word, count in still.value_counts().items())
    void = tested[tested["verdict"] == "void"].drop_duplicates("claim")["reason"]
    causes = [(start, says, void.str.startswith(start).sum()) for start, says in CAUSES.items()]
    causes = ", ".join(f"{count} since {says}" for _, says, count in causes if count)
    exact = ledger["claim"].map(claims.apply(needs_no_data, axis=1))
    built = ledger.loc[exact & (ledger["verdict"] == "reproduced"), "claim"]
    late, turned = real.index[real["late"]], real.index[about["turned"].notna()]
    gate = real[about["report"].isin(GATE_IS_YOUNGER)]
    right = (gate["verdict"] == "reproduced").sum()
    names = ", ".join(name.capitalize() for name in GATE_IS_YOUNGER)
    both = links(real.index[real["twice"]])
    both = f" Decided by both, and counted once here: {both}." if both else ""
    missed = claims.loc[~claims.index.isin([*real.index, *tested["claim"]])]
    without = missed.apply(needs_no_data, axis=1).sum()
    young = set(late) | set(gate.index)
    older = [number for number in real.index if number not in young]
    free = [number for number in older if number not in turned]
    rerun = [number for number in older if number in turned]
    rerun = f"; of the others, {links(rerun)} was turned by a rerun" if rerun else ""
    entries = [(number, e, claims.loc[number]) for number, e in real.iterrows()]
    weak = [number for number, e, claim in entries if weak_models(e, claim, sheet)]
    seen = [i for i in free if not missing(about["looked"][i])]
    seen = "; ".join(f"for {links([i])}, {escape(about['looked'][i])}" for i in seen)
    seen = f" But something had been looked at: {seen}." if seen else ""
    at_chance = [number for number in free if number in weak]
    at_chance = f" {links(at_chance)} rests on models at chance." if at_chance else ""
    packs = [(number, e, *rule_and_pack(e, claim, sheet)) for number, e, claim in entries]
    open_code = [i for i, _, _, pack in packs if pack and "+" in pack["provenance"]["commit"]]
    wider = [i for i, e in real.iterrows() if levels.level(e["rule"]) == 0.9]
    near = {i: call for i, e in real.iterrows() if (call := levels.close_call(e))}
    wide = f", and at 90 % for {links(wider)}" if wider else ""
    few = {i: min(e["tested_on"].values()) for i, e in real.iterrows() if e["tested_on"]}
    few = {i: groups for i, groups in few.items() if groups < FEW}
    ours = real.index[about["text"].str.contains("our test")]
    limits = [i for i, _, rule, _ in packs if rule and LIMITS & {k for k, at in rule.items() if at}]
    printed = {
        i: number["high"] - number["low"]
        for i, e in real.iterrows()
        if e["verdict"] == "reproduced"
        for number in e["numbers"]
        if number["from"] == number["to"]
    }
    wide_from, wide_to = (f"{end(printed.values()):.2f}" for end in (min, max))
    same, people = repeats(compared, claims)
    warned = [
        f"<li><strong>Code that was not committed:</strong> the scores behind {len(open_code)} of "
        f"the {n} ({links(open_code)}) were made by code with changes that were not committed "
        "then.</li>"
    ] * bool(open_code)
    warned += [
        f"<li><strong>Models at chance:</strong> {len(weak)} of the {n} ({links(weak)}) rest on "
        "models of which none is shown to be better than chance on the data that judge.</li>"
    ] * bool(weak)
    return f"""\
<p><strong>Real data decided {n} of {len(claims)} claims.</strong> On the report's own dataset,
{told("reproduced", "were reproduced")} and {told("not reproduced", "were not reproduced")}.
On another real dataset, {told("agrees", "agreed")} and {told("disagrees", "disagreed")}.{both}
Of the other {len(claims) - n}, {len(still)} were tested on real data without a decision, and
{len(missed)} were not tested on real data: {without} need no data, and what the others would take
is not at hand.
Intervals are at 95 %, or jointly so{wide}.</p>
<p><strong>Taken together,</strong> {len(young)} of the {n} have a rule or a gate younger than some
numbers{rerun}. So {links(free) or "none"} alone {"is" if len(free) == 1 else "are"} free of
all three.{seen}{at_chance}</p>
<ul>
{"".join(warned)}
<li><strong>Reproduced</strong>, of a printed number, means that our interval does not exclude it:
few groups make that easy, many make it hard. One that covers more than half of what is possible (of
an AUC, 0.25) is void; those of {links(printed)} are {wide_from} to {wide_to} wide. Where the report
gives no number, what counts as
holding is ours: the limits of {links(limits)}. For {links(ours)} the whole test is, since the
report did not state what it tested.</li>
<li><strong>Rendered</strong> means drawn by this repository's code: no real person.
<i>Agrees</i> shows that an effect can occur, not how large it is in real videos. <i>Disagrees</i>
shows that it is absent in drawn faces, which says nothing of real ones. On other rendered people,
{same} of {people} verdicts <a href="#ledger-confirmation">came out the same</a>.</li>
<li><strong>Close calls:</strong> {len(near)} of the {n} ({links(near)}). The end of the interval
that decides lies nearer to the limit than a tenth of the interval's width.</li>
<li><strong>Many tests:</strong> on real data, {counted(ledger, ("own data", "other real data"))}
The p-values were read off the intervals, as if these were normal; with few groups they are too
small. Earlier runs are not counted.</li>
</ul>
<details><summary>More that limits these verdicts, and what was not decided</summary><ul>
<li>Of the {len(still)} that were tested on real data without a decision, the verdicts are {kinds}.
Of the void ones, {causes}.</li>
<li>{len(built)} further reproductions ({links(built)}) rest on no data: networks were built, and
their parameters and layers counted.</li>
<li><strong>Rules younger than numbers.</strong> {len(late)} of the {n} ({links(late)}) have a rule
that was written after the first numbers were known. The <a href="#ledger-words">gate</a> that
every verdict passes is younger than {names}'s first numbers: that concerns {len(gate)} of the {n},
{right} of the {(real["verdict"] == "reproduced").sum()} reproduced ones among them. Each row names
the commits of its rule and of its scores, with their times.</li>
<li><strong>Turned by a rerun:</strong> {len(turned)} of the {n} ({links(turned)}). An earlier run
with the same rule had said the opposite.</li>
<li><strong>Many tests</strong> on rendered people: {counted(ledger, ("rendered",))}</li>
<li><strong>Few groups:</strong> {len(few)} of the {n} ({links(few)}) rest on
{min(few.values(), default=0)} to {max(few.values(), default=0)} groups. Bootstrap intervals of so
few groups tend to be too narrow.</li>
</ul></details>"""


#: Why a verdict is void, by how its reason begins.
CAUSES = {
    "A health check failed: file_size": "the size of the files tells the classes apart, and no "
    "better model is shown",
    "All samples got the same score": "all samples got the same score",
    "The model is at chance": "the model is at chance on its own training data",
    "The rule could not have failed": "the rule could not have failed",
    "Chosen on the data that judge": "something was chosen on the data that judge",
}
FEW = 20  # groups; below, the page warns that an interval may be too narrow


def counted(ledger, sources: tuple[str, ...]) -> str:
    "How many tests there were at which level, how many errors to expect, and what remains."
    tests = levels.tests_of(ledger[ledger["source"].isin(sources)].to_dict("records"))
    wide = sum(levels.level(test["rule"]) == 0.9 for test in tests)
    decided = [test for test in tests if test["verdict"] not in levels.OPEN]
    found = {}  # of a claim: the largest p-value of what it excludes
    for test in filter(levels.excludes, decided):
        found[test["claim"]] = max(levels.p_value(test), found.get(test["claim"], 0))
    kept = levels.remaining(found, len(tests))
    by_holm, by_rate = (links(sorted(set(found) - left)) or "none" for left in kept)
    both = links(sorted(set.intersection(*kept)))
    others = links(sorted({test["claim"] for test in decided} - set(found)))
    return (
        f"{len(tests)} tests passed the gate, {len(tests) - wide} at 95 % and {wide} at 90 %, and "
        f"{len(decided)} decided. If every truth lay at the limit of its rule, "
        f"{sum(map(levels.chance_of_error, tests)):.1f} wrong decisions would be expected, and "
        f"fewer otherwise. No verdict is corrected for the number of tests. At 5 % over all "
        f"{len(tests)}, Holm's method would leave undecided {by_holm}; that of Benjamini and "
        f"Hochberg, {by_rate}. Both keep {both or 'none'}."
        + f" Neither bears on {others}, which only fail to exclude a printed number."
        * bool(others)
    )


def repeats(compared, claims) -> tuple[int, int]:
    "How many verdicts that people could change came out the same on others, and of how many."
    from deepfake_nb.reporting.sources import needs_no_data

    by_people = compared[~compared["claim"].map(claims.apply(needs_no_data, axis=1)).astype(bool)]
    return int((by_people["development"] == by_people["confirmation"]).sum()), len(by_people)


def real_table(claims, real, sheet: Sheet) -> str:
    "The claims that real data decided: verdict, number, data, and what to mind."
    body = []
    for number, entry in real.iterrows():
        claim = claims.loc[number]
        mind = ["rule younger than numbers"] * entry["late"]
        mind += ["gate younger than numbers"] * (claim["report"] in GATE_IS_YOUNGER)
        rule, pack = rule_and_pack(entry, claim, sheet)
        mind += ["turned by a rerun"] * (not missing(claim["turned"]))
        mind += ["90 % interval"] * (levels.level(entry["rule"]) == 0.9)
        mind += ["close call"] * bool(levels.close_call(entry))
        mind += ["looked at before"] * (not missing(claim["looked"]))
        mind += ["models at chance"] * weak_models(entry, claim, sheet)
        groups = ", ".join(f"{n} groups of {name}" for name, n in entry["tested_on"].items())
        if not missing(entry["seeds"]):
            groups += f", {entry['seeds']:g} trainings"
        of = "; ".join(number["of"] for number in entry["numbers"])
        body.append(
            [
                f'<a href="#claim-{number}">{number}</a> {escape(claims.loc[number, "text"])}',
                mark(entry["verdict"]) + "".join(f"<br><small>{m}</small>" for m in mind),
                f"{escape(entry['quantity'])} {', '.join(found_parts(entry))} "
                f"<small>{escape(entry['source'])}, {escape(groups)}; {escape(of)}</small>",
            ]
        )
    return Table.of(["claim", "verdict", "found"], body).html()


def looked(sheet: Sheet, reports: list[str]) -> str:
    "What had been looked at before the runs that judge, by report, as its packs say."
    told = []
    for report in reports:
        packs = sorted((sheet.context.root / PACKS).glob(f"{report}-*/pack.json"))
        texts = {read_pack(file.parent)[0]["provenance"]["looked"]: None for file in packs}
        for text in texts:
            told.append(
                f'<details id="looked-{report}"><summary>{report.capitalize()}</summary>'
                f"<p>{escape(text)}</p></details>"
            )
    return "".join(told)


def confirmation(compared, claims, ledger) -> list[str]:
    "Verdicts on people of development beside those on other people, where they differ."
    if compared.empty:
        return ["No paper has been run on other people yet.", ""]
    reports = ", ".join(name.capitalize() for name in dict.fromkeys(compared["report"]))
    differ = compared[compared["development"] != compared["confirmation"]]
    rendered = ledger[ledger["source"] == "rendered"].set_index("claim")
    measured = rendered["quantity"]
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
    same, people = repeats(compared, claims)
    signs = compared[
        (compared["development, value"] * compared["confirmation, value"] < 0).fillna(False)
        & compared["claim"].map(measured).str.startswith(("difference", "fall"))
    ]["claim"]
    pairs = {("agrees", "disagrees"), ("disagrees", "agrees")}
    swapped = [
        row["claim"]
        for row in differ.to_dict("records")
        if (row["development"], row["confirmation"]) in pairs
    ]
    left = [
        f"{links([number])} ({escape(row['reason'].rstrip('.'))})"
        for number, row in rendered.iterrows()
        if row["verdict"] != "not tested" and number not in set(compared["claim"])
    ]
    of_word = []
    for word in ("agrees", "disagrees"):
        of = compared[compared["development"] == word]
        kept = (of["confirmation"] == word).sum()
        of_word.append(f"{kept} of {len(of)} that said <i>{word}</i>")
    text = (
        "<p>This was done on rendered people only; no verdict on real data has been confirmed with "
        "other real people. Rendered people cost nothing. When all settings and rules were fixed, "
        f"each paper ({reports}) was run once more with other people and other seeds; that run "
        f"gives the rendered verdicts above. Of {len(compared)} verdicts "
        f"{len(compared) - len(differ)} are the same as with the people of development. "
        f"{len(compared) - people} of them are arithmetic, which no people can change; without "
        f"these, {same} of {people} repeat. Of all, {' and '.join(of_word)} did so again. "
        f"From <i>agrees</i> to <i>disagrees</i>, or back, went {links(swapped) or 'none'}. "
        f"The first difference changed its sign in {links(signs) or 'none'}."
        + (f" Left out, since no such run holds a verdict: {', '.join(left)}." if left else "")
        + " Verdicts that differ:</p>"
    )
    return [
        html(text),
        table(
            "ledger-confirmation",
            "value words",
            "Verdicts that differ.",
            Table.of(["claim", "measured", "development", "confirmation"], body).html(),
        ),
        "",
    ]


def proposing(context: Context) -> list[str]:
    "What to mind about the numbers of the proposals."
    with open(context.root / "nbs/papers/proposals.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    tried = (context.root / "nbs").glob("proposals*.ipynb")
    named = r'"(?:trainings|\w+_seeds) = (\d+)'
    times = {n for file in tried for n in re.findall(named, file.read_text(encoding="utf-8"))}
    effects = [row for row in rows if " less " in row["measure"]]
    zero = sum(float(row["low"]) > 0 or float(row["high"]) < 0 for row in effects)
    text = (
        "What the reports would try next, and what came out where it was tried. These are "
        "measurements, not verdicts: no report says what to expect, and none of them passes the "
        "gate. Whether a rule was fixed beforehand, and how many groups stand behind a number, "
        f"its notebook says. Networks are trained {' or '.join(sorted(times))} times each. "
        "An effect is called detectable if its interval "
        f"excludes zero. The rows hold {len(rows)} intervals at 95 %, of which {len(effects)} are "
        f"of differences and {zero} of these exclude zero. Nothing is corrected for their number: "
        "were there no effects at all, about one in twenty would."
    )
    alone = [
        f"{name} (AUC {max(row['auc'], 1 - row['auc']):.2f})"
        for name, dataset in PROPOSED_ON.items()
        for row in failing_files(dataset, context.root)
    ]
    text += (
        f" The size of the files tells the classes apart in {', '.join(alone)}. There the gate "
        "would void a claim about detection whose model is not shown to be better."
    )
    return [text, ""]


#: Datasets of the proposals, by the names that their numbers give them.
PROPOSED_ON = {"FaceForensics++": "faceforensics", "DFDC": "dfdc-faces", "UADFV": "uadfv"}


def report_table(counts) -> Table:
    "Counts, a row a report; the columns that are verdicts lead to their explanation."
    body = [[name, *(str(n or "–") for n in row)] for name, row in counts.T.items()]
    made = Table.of(["report", *counts.columns], body)
    for cell in made.head[0]:
        cell.html = mark(cell.text) if cell.text in WORDS else cell.html
    return made


def power(claims) -> str:
    "The testable claims by dataset, with what would show."
    from deepfake_nb.reporting.testable import testable_claims

    body = []
    for (dataset, groups, of, shows), some in testable_claims(claims).groupby(
        ["dataset", "groups", "of", "shows"], sort=False
    ):
        link = f'<a href="datasets.html#dataset-{dataset}">{dataset}</a>'
        body.append([link, f"{groups}", escape(of), links(some.index), f"{shows:.2f}"])
    names = ["data", "groups", "which", "claims", "difference that shows"]
    return Table.of(names, body).html()


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
