"The book builds without a network and without running anything, and its checks find faults."

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from html import escape
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "nbs" / "book"
sys.path.insert(0, str(BOOK))

import briefs  # noqa: E402
import browser  # noqa: E402
import check  # noqa: E402
import claim_rows  # noqa: E402
import claims_page  # noqa: E402
import levels  # noqa: E402
import lists  # noqa: E402
import pages  # noqa: E402
import reference  # noqa: E402
from tables import Table  # noqa: E402

from deepfake_nb.reporting.verdicts import RULE_TEXTS  # noqa: E402

NO_NETWORK = """
import socket
def refuse(self, address, *rest):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        raise OSError(f"the build asked for {address}")
    return connect(self, address, *rest)
connect, socket.socket.connect = socket.socket.connect, refuse
"""
needs_browser = pytest.mark.skipif(
    browser.find_browser() is None, reason="no Chromium on the path (apt-get install chromium)"
)
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    "The built pages."
    folder = tmp_path_factory.mktemp("book")
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(BOOK / "build.py"), "--out", str(folder / "out")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.perf_counter() - started < 180, "the book takes more than three minutes"
    return folder / "out" / "html"


def notebooks() -> list[str]:
    return [
        p.relative_to(ROOT / "nbs").with_suffix("").as_posix()
        for p in sorted(ROOT.glob("nbs/**/*.ipynb"))
        if not p.name.startswith(".") and "checkpoint" not in str(p)
    ]


@pytest.mark.slow
def test_every_notebook_has_its_page(book):
    assert [n for n in notebooks() if not (book / f"{n}.html").is_file()] == []
    contents = (book / "index.html").read_text()
    of_room = {
        room.parent.name: room.read_text() for room in book.glob("[0-9]*/index.html")
    }  # the front page leads to the packages, and these to their notebooks
    assert [room for room in of_room if f'href="{room}/index.html"' not in contents] == []
    for name in set(notebooks()) - {"index"}:
        room, _, rest = name.partition("/")
        link, page = (rest, of_room[room]) if room in of_room else (name, contents)
        assert f'href="{link}.html"' in page, name


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in notebooks() if n.startswith("papers/")])
def test_a_report_has_its_abstract_figures_tables_and_ledger(book, name):
    page, cells = (
        (book / f"{name}.html").read_text(),
        json.loads((ROOT / "nbs" / f"{name}.ipynb").read_text())["cells"],
    )
    outputs = [o.get("data", {}) for c in cells for o in c.get("outputs", [])]
    figures = re.findall(r"<strong>Figure (\d+)\.</strong>", page)
    images = [o for o in outputs if {"image/png", "image/jpeg"} & o.keys()]
    assert figures == [str(i + 1) for i in range(len(images))]
    tables = re.findall(r"<strong>Table (\d+)\.</strong>", page)
    assert tables == [
        str(i + 1)
        for i in range(sum("**Table " in "".join(o.get("text/markdown", "")) for o in outputs))
    ]
    for caption in filter(
        None, (pages.CAPTION.match("".join(o.get("text/markdown", ""))) for o in outputs)
    ):
        assert f'id="{Path(name).stem}-{caption[1].lower()}-{pages.slug(caption[3])}"' in page
    assert "<blockquote>" in page and f'id="{Path(name).stem}-table-verdicts"' in page
    assert "results.figure(" in re.sub(
        r"<[^>]+>", "", "".join(re.findall(r"<details.*?</details>", page, re.S))
    ), "the plumbing is folded away"


@pytest.mark.slow
def test_every_public_name_is_in_the_reference_with_its_parameters(book):
    for module in reference.read_library(ROOT / "deepfake_nb"):
        page = (book / "reference" / f"{module.name}.html").read_text()
        for entry in module.entries:
            assert f'id="deepfake_nb.{module.name}.{entry.name}"' in page
            block = re.search(r"^Parameters\n-+\n(.*?)(?:\n\n|\Z)", entry.doc, re.S | re.M)
            for name in re.findall(r"^(\w+) : ", block[1] if block else "", re.M):
                assert f"<strong>{name}</strong>" in page, (entry.name, name)


@pytest.mark.slow
def test_the_ledger_holds_every_claim_once(book):
    claims = tomllib.loads((ROOT / "nbs/papers/claims.toml").read_text())["claim"]
    page = (book / "ledger.html").read_text()
    assert sorted(
        map(int, re.findall(r'<th scope="row" data-label="no."><div>(\d+)</div>', page))
    ) == sorted(c["id"] for c in claims)
    assert f"{len(claims)} claims" in page
    cells = re.findall(
        r'<a class="cell ([\w-]+)" href="#verdict-([\w-]+)"><small>[\w ]+</small>([\w ]+)</a>', page
    )
    assert len(cells) == 4 * len(claims)
    assert {verdict for _, _, verdict in cells} <= set(claim_rows.WORDS)
    assert all(pages.slug(verdict) == kind == at for kind, at, verdict in cells)
    assert page.count("<dt>") == len(cells), "each cell has its reason"
    assert 'class="ledger-filter" hidden' in page and "ledger.js" in page
    assert "evidence/kun-uadfv" in page and "datasets.html#dataset-uadfv" in page
    assert not re.search(r"[\s\[(>“]-\d", text_of(page)), "a hyphen in place of a minus"


@pytest.fixture(scope="module")
def ledger_row():
    "A function that makes the row of a claim."
    from deepfake_nb.reporting.claims import load_claims
    from deepfake_nb.reporting.sources import load_sources

    ledger, claims = load_sources(), load_claims()
    context = pages.Context(ROOT, ROOT / "out", "https://example.org/", {}, {})

    def row(claim: int, taken: set = frozenset()) -> str:
        entries = ledger[ledger["claim"] == claim]
        sheet = claim_rows.Sheet.of(context, taken)
        return claim_rows.claim_row(claim, claims.loc[claim], entries, sheet)

    row.ledger, row.claims, row.sheet = ledger, claims, claim_rows.Sheet.of(context)
    return row


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html))


def test_a_row_of_the_ledger_has_strip_numbers_reasons_and_links(ledger_row):
    row = ledger_row(66, {("kun", "figure", "roc_task1")})
    assert re.findall(r"<small>(\w[\w ]+)</small>\w", row)[:4] == [
        "own data",
        "published record",
        "other real data",
        "rendered",
    ]
    assert 'href="papers/kun.html#kun-figure-roc-task1"' in row
    assert "https://example.org/nbs/papers/evidence/kun-uadfv" in row
    assert "“number”" in row and "own data=" in row and "evaluation videos of the lab" in row
    assert "kun-figure-roc-task1" not in ledger_row(66), "no link to a figure that is not there"
    assert "<b>AUC</b> 0." in row and "“number” of AUC" in row


def test_a_row_names_the_data_and_the_groups_of_each_number(ledger_row):
    assert "own data, 3 groups of faceforensics" in text_of(ledger_row(32))
    for claim in (33, 37, 40):
        assert "own data, 12 groups of faceforensics" in text_of(ledger_row(claim)), claim
    both = "own data, 463 groups of dfdc-faces, 12 groups of faceforensics"
    assert both in text_of(ledger_row(36))
    assert 'href="datasets.html#dataset-faceforensics"' in ledger_row(37)


@pytest.mark.parametrize("claim", [59, 60])
def test_a_row_shows_the_packs_of_both_datasets(ledger_row, claim):
    row, entries = ledger_row(claim), ledger_row.ledger.query(f"claim == {claim}")
    (entry,) = entries[entries["source"] == "other real data"].to_dict("records")
    for one in (entry, *entry["also"]):
        which = f"other real data, {one['verdict']} on {one['dataset']}"
        told = f"{one['quantity']} {one['found']} {which}"
        assert told in text_of(row)
        assert f'evidence/{one["origin"]}"' in row
    assert len(entry["also"]) == 1


def test_a_row_says_that_its_rule_was_written_late(ledger_row):
    for claim in (71, *range(73, 80)):
        shown = ledger_row(claim).partition("<details>")[0]
        assert "Rule written after the first numbers were known: " in shown, claim
    assert "Rule written after" not in ledger_row(61)
    of_another_rule = ledger_row(62).partition("<details>")
    assert "Rule written after" not in of_another_rule[0]
    assert "A further rule was written after" in of_another_rule[2]


def entries_of(ledger) -> list[dict]:
    "What each pack, notebook or publication says; further packs of a claim and source included."
    rows = ledger.to_dict("records")
    return [*rows, *(entry | {"claim": row["claim"]} for row in rows for entry in row["also"])]


def test_each_interval_of_a_row_says_what_it_is_of(ledger_row):
    with_numbers = [e for e in entries_of(ledger_row.ledger) if e["numbers"]]
    assert len(with_numbers) > 60
    for entry in with_numbers:
        assert entry["found"].count("[") in (0, len(entry["numbers"]))
        if entry["quantity"].startswith("difference"):
            assert all(" minus " in number["of"] for number in entry["numbers"]), entry["claim"]
        if entry["verdict"] not in ("not tested", "value lost"):
            row = text_of(ledger_row(entry["claim"]))
            assert all(escape(number["of"]) in row for number in entry["numbers"]), entry["claim"]
    three = text_of(ledger_row(29)).partition("reasons")[0]
    assert "-0.034 [-0.081, -0.004] “Dice, rate 0.00025” minus “Dice, rate 0.001”" in three


def test_a_row_says_what_would_turn_each_verdict(ledger_row):
    kinds = ("reproduced", "not reproduced", "agrees", "disagrees", "undecided", "underpowered")
    kinds += ("void",)
    for claim in ledger_row.claims.index:
        entries = entries_of(ledger_row.ledger[ledger_row.ledger["claim"] == claim])
        open_or_decided = [e for e in entries if e["verdict"] in kinds]
        assert ledger_row(claim).count("Would turn it:") == len(open_or_decided), claim
    assert "About 120 groups in place of 80 would decide for it" in ledger_row(59)
    assert "the size of the files does not tell the classes apart" in ledger_row(37)


def test_a_row_says_how_good_its_models_are(ledger_row):
    for claim, names in {31: ("Unet", "Unet_v1")}.items():
        row = text_of(ledger_row(claim))
        assert "None of these models is shown to be better than chance on faceforensics" in row
        of_real = row.partition("other real data: ")[2].partition("rendered: ")[0]
        for name in names:
            low, _ = re.search(
                rf"“{re.escape(name)}” 0\.\d+ \[([\d.]+), ([\d.]+)\]", of_real
            ).groups()
            assert float(low) <= 0.5
    assert "None of these models" not in ledger_row(66)


def test_the_share_that_networks_mark_follows_from_their_mistakes(tmp_path):
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    truth, marks = rng.random((2, 12, 400)) < np.array([0.3, 0.2])[:, None, None]
    wrong, missed = (marks & ~truth).mean(1), (truth & ~marks).mean(1)
    dice = 2 * (marks & truth).sum(1) / (marks.sum(1) + truth.sum(1))
    table = pd.DataFrame({"sample": range(12), "label": 1, "group": range(12)})
    table["part"] = "values of pixels"
    for name, values in {"false positives": wrong, "missed area": missed, "Dice": dice}.items():
        table[f"{name}, Unet@0"] = values
    table.to_csv(tmp_path / "scores.csv.gz", index=False)
    marked, changed = claim_rows.shares_marked(tmp_path, ("Unet",))["Unet"]
    assert np.isclose(marked["value"], marks.mean()) and np.isclose(changed["value"], truth.mean())


def test_no_decided_entry_escapes_a_check_of_the_data_that_judge_it(ledger_row):
    "Whichever pack holds the check: one that would void an entry has voided it."
    from deepfake_nb.evaluation.intervals import Interval
    from deepfake_nb.reporting.rules import bearing_check
    from deepfake_nb.reporting.sources import real_verdicts

    asked = 0
    for claim, entry in real_verdicts(ledger_row.ledger).iterrows():
        rule, pack = claim_rows.rule_and_pack(entry, ledger_row.claims.loc[claim], ledger_row.sheet)
        if rule is None or not claim_rows.detects(rule):
            continue
        area = None
        for one in dict(claim_rows.model_areas(rule, pack)[:1]).values():
            area = Interval(one["value"], one["low"], one["high"], one["n"], one["groups"])
        for name in entry["tested_on"]:
            failed = claim_rows.failing_files(name, ROOT)
            asked += len(failed)
            assert not bearing_check(failed, area), claim
    assert asked, "some data fail a check, and their models are better"
    assert "this rule compares values" in ledger_row(31)
    assert "(AUC 0.62). The gate lets the verdict stand" in text_of(ledger_row(66))


def test_too_few_data_are_told_by_the_distance_from_the_limit(ledger_row):
    row, entry = text_of(ledger_row(78)), ledger_row.ledger.query("claim == 78").iloc[-1]
    number = entry["numbers"][0]
    shown = float(re.search(r"difference of ([\d.]+) would have shown", entry["reason"])[1])
    assert abs(number["value"] - number["from"]) < shown < number["value"]
    assert "would show a true value only if it lay about 0.05 or more from the limit" in row
    assert "would have shown" not in row


def test_the_briefs_of_the_reports_follow_from_their_packs(ledger_row):
    told = dict(
        re.findall(r">(\w+)</a></th><td>(.*?)</td>", briefs.briefs(ROOT, ledger_row.ledger), re.S)
    )
    assert {name.lower() for name in told} == set(ledger_row.claims["report"])
    facts = briefs.Facts(ROOT, ledger_row.ledger)
    numbers = {"Denholtz": (7, "0.667 [0.642, 0.690]"), "Kun": (66, "0.762 [0.681, 0.821]")}
    numbers |= {"Forbush": (17, "+0.037 [-0.069, +0.152]")}
    for name, (claim, number) in numbers.items():
        assert number in text_of(ledger_row(claim)) and number in " ".join(told[name].split())
    entry = facts.entries.loc[(8, "own data")]
    assert entry["reason"] == "The model is at chance on its own training data."
    assert facts.entries.loc[(17, "other real data"), "verdict"] == "void"
    for network in ("Unet", "Unet_v1"):
        assert facts.overlap("kaminskyi-dfdc-faces", network) == "0.000 [0.000, 0.000]"
    for pack in briefs.FED_ON.values():
        models = briefs.FED, "validation", briefs.LIKE_DENSENET, "log loss"
        assert briefs.measure(facts.scores(pack), *models).low < 0
    kun = facts.scores("kun-uadfv")
    assert briefs.measure(kun, "svm poly", "development").low > 0.78
    assert briefs.measure(kun, "corners", "evaluation").contains(0.5)


def test_a_row_counts_trainings_only_where_something_was_trained(ledger_row):
    rows = [text_of(ledger_row(claim)) for claim in ledger_row.claims.index]
    assert not [row for row in rows if re.search(r"\b1 trainings?\b", row)]
    assert "3 trainings" in rows[28] and "trainings" not in rows[60]


def test_a_row_leads_to_its_entry_in_the_pack_or_says_that_there_is_none(ledger_row):
    seen = 0
    for claim in ledger_row.claims.index:
        row = ledger_row(claim)
        for pack, line in re.findall(r"evidence/([\w-]+)/pack.json#L(\d+)", row):
            at = (ROOT / "nbs/papers/evidence" / pack / "pack.json").read_text().splitlines()
            assert re.search(rf'"(claim|no\.)": {claim}\b', at[int(line) - 1]), (claim, pack)
            seen += 1
        scored = re.findall(r"scores of commit <a [^>]+>\w{7}</a>[\w ]*(.{6})", row)
        assert all(re.match(r" ?\(\d{4}|, who", told) for told in scored), (claim, scored)
    assert seen > 70
    for claim in (20, *range(45, 53)):
        assert "no pack" in ledger_row(claim) and "pack.json" not in ledger_row(claim)


def test_a_rule_names_the_commit_that_gave_it_its_form(tmp_path):
    file = tmp_path / claim_rows.CLAIMS
    file.parent.mkdir(parents=True)

    def commit(least: float, known: str, second: str = "") -> str:
        rule = f'rule = {{name = "better", least = {least}, known = "{known}"}}'
        file.write_text(f"[[claim]]\nid = 1\n{rule}\n{second}")
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        for words in (["add", "-A"], [*who, "commit", "-qm", "Change"]):
            subprocess.run(["git", *words], cwd=tmp_path, check=True)
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert claim_rows.rule_commits(tmp_path / "elsewhere") == {}
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    commit(0.1, "")
    second = commit(0.2, "")
    third = commit(0.2, "some", '[[claim]]\nid = 2\nrule = [{name = "order"}, {name = "same"}]\n')
    found = {key: at for key, (at, _) in claim_rows.rule_commits(tmp_path).items()}
    assert found == {(1, 1): second, (2, 1): third, (2, 2): third}


def test_the_lead_counts_what_real_data_decided(ledger_row):
    from deepfake_nb.reporting.sources import confirmation_table, real_verdicts

    real = real_verdicts(ledger_row.ledger)
    compared = confirmation_table()
    told = text_of(
        claims_page.lead(ledger_row.claims, ledger_row.ledger, real, ledger_row.sheet, compared)
    )
    decided = set()
    for entry in ledger_row.ledger.to_dict("records"):
        is_real = entry["source"] in ("own data", "other real data") and entry["dataset"]
        if is_real and entry["verdict"] in ("reproduced", "not reproduced", "agrees", "disagrees"):
            decided.add(entry["claim"])
    assert set(real.index) == decided
    rest = re.search(r"Of the other (\d+), (\d+) were .*? and (\d+) were not", told).groups()
    assert int(rest[0]) == int(rest[1]) + int(rest[2]) == len(ledger_row.claims) - len(decided)
    assert f"Real data decided {len(decided)} of {len(ledger_row.claims)} claims" in told
    kinds = real["verdict"].nunique()  # each with its list
    numbers = [re.findall(r"\d+", p) for p in re.findall(r"\(([\d, ]+)\)", told)[:kinds]]
    assert sorted(int(n) for part in numbers for n in part) == sorted(decided)
    assert "5 of the 14 (7, 9, 71, 73, 75) have a rule" in told
    assert "8 further reproductions (45, 46, 47, 48, 49, 50, 51, 52)" in told
    assert "Turned by a rerun: 2 of the 14 (9, 27)" in told and "counted once here: 73." in told
    assert "11 of the 14 have a rule or a gate younger than some numbers" in told
    assert "27 was turned by a rerun. So 28, 31 alone are free of all three. But" in told
    for claim, seen in {28: "masks of 150 fakes", 31: "the scores of an earlier run"}.items():
        assert re.search(rf"something had been looked at: [^.]*for {claim}, [^.]*{seen}", told)
        assert re.search(rf"Looked at before: [^.]*{seen}", text_of(ledger_row(claim)))
    assert "31 rests on models at chance." in told
    assert "Close calls: 2 of the 14 (27, 75)." in told
    void, causes = re.search(r"(\d+) void.*Of the void ones, ([^.]+)\.", told).groups()
    assert sum(map(int, re.findall(r"(\d+) since", causes))) == int(void)
    assert "what counts as holding is ours: the limits of 27, 28, 61, 71, 72, 73." in told
    assert "part “development”" in text_of(ledger_row(62))
    assert "part “evaluation”" in text_of(ledger_row(66))
    packs = {i: e["origin"] for i, e in real.iterrows()}
    unheld = [i for i, at in packs.items() if "+" in commit_of(at)]
    assert (f"the scores behind {len(unheld)} of the 14" in told) == bool(unheld)
    clean = claims_page.lead(
        ledger_row.claims,
        ledger_row.ledger,
        real[[i not in unheld for i in real.index]],
        ledger_row.sheet,
        compared,
    )
    assert "Code that was not committed" not in clean
    same, people = claims_page.repeats(compared, ledger_row.claims)
    assert 0 < same < people < len(compared)
    assert f"{same} of {people} verdicts came out the same" in told


def commit_of(pack: str) -> str:
    return claim_rows.read_pack(ROOT / claim_rows.PACKS / pack)[0]["provenance"]["commit"]


def test_the_check_on_the_page_does_what_it_says(ledger_row, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(claims_page.CHECK, {})
    printed = capsys.readouterr().out
    assert printed == f"{claims_page.expected(ledger_row.sheet.context)}\n"
    number, training, differing = printed.splitlines()
    own = ledger_row.ledger.query("claim == 65 and source == 'own data'").iloc[0]
    assert own["found"][:5] == number[:5] and differing == "[]"
    low, high = map(float, re.findall(r"[\d.]+", training)[1:3])
    assert low < 0.5 < high and own["reason"] == (
        "The model is at chance on its own training data."
    )


def found(verdict: str, *numbers: tuple, rule: str = "better") -> dict:
    "An entry of a claim, its numbers as (value, low, high, from, to)."
    keys = ("value", "low", "high", "from", "to")
    rows = [dict(zip(keys, number)) for number in numbers]
    return {"verdict": verdict, "numbers": rows, "rule": rule, "also": [], "claim": 1}


@pytest.mark.parametrize(
    ("verdict", "numbers", "said"),
    [
        # the end that decides: nearer than a tenth of the width, or farther
        ("agrees", [(0.5, 0.009, 0.1, 0.0, None)], "lower end, 0.009, lies above the limit 0.000"),
        ("agrees", [(0.5, 0.012, 0.1, 0.0, None)], ""),
        (
            "disagrees",
            [(0.008, 0.0062, 0.00972, 0.01, None)],
            "0.0097, lies below the limit 0.0100",
        ),
        ("reproduced", [(0.01, -0.4, 0.049, None, 0.05)], "upper end, 0.049, lies below"),
        ("not reproduced", [(0.7, 0.6, 0.8, 0.59, 0.59)], "above the printed value 0.590 by 5 %"),
        ("reproduced", [(0.7, 0.6, 0.8, 0.61, 0.61)], "lower end, 0.600, lies below the printed"),
        # one clear failure is enough, and all have to hold
        ("disagrees", [(0, -0.1, -0.001, 0.0, None), (-1, -1.1, -0.9, 0.0, None)], ""),
        ("agrees", [(0, 0.001, 0.1, 0.0, None), (1, 0.9, 1.1, 0.0, None)], "0.001"),
        # an open claim that an end would nearly have decided
        ("underpowered", [(-0.07, -0.12, 0.001, 0.0, None)], "upper end, 0.001, lies above"),
        ("undecided", [(0.0, -0.1, 0.1, 0.0, None)], ""),
        ("void", [(0.5, 0.009, 0.1, 0.0, None)], ""),
        ("agrees", [(0.5, None, None, 0.0, None)], ""),
    ],
)
def test_a_close_call_is_one_by_the_end_that_decides(verdict, numbers, said):
    call = levels.close_call(found(verdict, *numbers))
    assert bool(call) == bool(said) and said in call, call


def test_each_number_shows_on_which_side_of_its_limit_it_lies(ledger_row):
    entries = [e for e in entries_of(ledger_row.ledger) if e["verdict"] != "not tested"]
    several = 0
    for entry in entries:
        parts = claim_rows.found_parts(entry)
        for part, number in zip(parts, entry["numbers"], strict=True):
            if number["low"] is None:
                continue
            low, high = map(float, re.search(r"\[(.+), (.+)\]", part).groups())
            several += levels.digits(number) > 3
            for limit in levels.limits(number):
                printed = round(limit, levels.digits(number))
                assert (low > printed, high < printed) == (
                    number["low"] > limit,
                    number["high"] < limit,
                ), (entry["claim"], part, limit)
    assert several >= 2
    for claim, told in {27: "0.0077 [0.0062, 0.0097]", 75: "0.0067 [0.0031, 0.0114]"}.items():
        row = text_of(ledger_row(claim)).partition("reasons")[0]
        assert told in row and "Close call:" in row
    assert "Close call:" not in ledger_row(62)


@pytest.mark.slow
def test_other_seeds_keep_close_calls(ledger_row):
    "Their notes say so; and an end moves by less than a tenth of the width."
    import numpy as np

    from deepfake_nb.evaluation.repeats import repeated_mean
    from deepfake_nb.reporting.verdicts import part_scores, read_pack_scores

    own = ledger_row.ledger[ledger_row.ledger["source"] == "own data"].set_index("claim")
    for claim in (27, 75):
        rule, _ = claim_rows.rule_and_pack(
            own.loc[claim], ledger_row.claims.loc[claim], ledger_row.sheet
        )
        place = ROOT / claim_rows.PACKS / own.loc[claim, "origin"]
        scores = read_pack_scores(place / "scores.csv.gz")
        rows, values = part_scores(scores, rule["model"], rule["part"])
        (number,) = own.loc[claim, "numbers"]
        _, end, limit = levels.nearest(number)
        again = [repeated_mean(values, rows["group"].to_numpy(), seed=s) for s in range(1, 21)]
        ends = np.array([getattr(interval, end) for interval in again])
        assert ((ends > limit) == (number[end] > limit)).all()
        assert ends.std(ddof=1) < levels.CLOSE * (number["high"] - number["low"]) / 2
        assert "With 20 other seeds" in ledger_row.claims.loc[claim, "note"]


def test_what_remains_of_many_tests():
    from deepfake_nb.evaluation.significance import holm

    p_values = [0.001, 0.03, 0.013, 0.2]
    stay, by_rate = levels.remaining(dict(enumerate(p_values)), 4)
    assert stay == {i for i, p in enumerate(holm(p_values)) if p <= 0.05} == {0, 2}
    assert by_rate == {0, 1, 2}
    assert levels.remaining({0: 0.02}, 4) == (set(), set()), "tests that decided nothing count"
    edge = found("agrees", (1.0, 0.0, 2.0, 0.0, None))
    assert round(levels.p_value(edge), 6) == 0.05
    assert levels.chance_of_error(edge) == 0.025
    same = found("reproduced", (0.0, -1.0, 1.0, None, 1.0), rule="no gain")
    assert round(levels.p_value(same), 6) == 0.05 == levels.chance_of_error(same)
    two = [(1.0, 0.0, 2.0, 0.0, None), (9.0, 8.0, 10.0, 0.0, None)]
    assert round(levels.p_value(found("agrees", *two)), 6) == 0.05, "the weaker of two"
    assert not levels.excludes(found("reproduced", (0.7, 0.6, 0.8, 0.61, 0.61), rule="number"))
    assert levels.excludes(found("not reproduced", (0.7, 0.6, 0.8, 0.5, 0.5), rule="number"))


def test_the_page_counts_its_tests(ledger_row):
    sources = ("own data", "other real data")
    told = text_of(claims_page.counted(ledger_row.ledger, sources))
    real = ledger_row.ledger["source"].isin(sources)
    tests = levels.tests_of(ledger_row.ledger[real].to_dict("records"))
    wide = [t for t in tests if t["rule"] in levels.AT_90]
    printed = [t for t in tests if t["rule"] == "number"]
    errors = 0.05 * len(wide + printed) + 0.025 * (len(tests) - len(wide + printed))
    assert f"{len(tests)} tests passed the gate, {len(tests) - len(wide)} at 95 %" in told
    assert f"{errors:.1f} wrong decisions would be expected" in told
    assert "Holm's method would leave undecided 27, 62, 75" in told
    assert "Both keep 7, 9, 28, 31, 61, 71, 72, 73. Neither bears on 63, 64, 66" in told


@pytest.mark.parametrize("name", claim_rows.AT_HAND)
def test_the_groups_of_a_dataset_at_hand_are_counted(name):
    from deepfake_nb.core.errors import DeepfakeNbError
    from deepfake_nb.data.datasets import load_samples
    from deepfake_nb.data.splits import connected_groups

    try:
        samples = load_samples(name)
    except DeepfakeNbError:
        pytest.skip(f"{name} is not at hand")
    groups = connected_groups(samples)[0].groupby(samples["label"]).nunique()
    assert groups.min() == claim_rows.AT_HAND[name]


def test_a_row_says_whether_the_groups_that_would_decide_exist(ledger_row):
    assert "About 29 groups in place of 10" in ledger_row(79)
    assert "uadfv has 49 in all, those that train included." in ledger_row(79)
    assert "real-and-fake-face has 768 in all, too few." in ledger_row(60)
    assert "More can be drawn." in ledger_row(17) and "about 15 groups" in ledger_row(16)


def test_a_row_names_what_fails_and_what_needs_no_data(ledger_row):
    alone = "“svm rbf” minus “svm linear” (fails)"
    assert alone in text_of(ledger_row(62)) and text_of(ledger_row(62)).count("(fails)") == 1
    assert "(fails)" not in ledger_row(71), "both of its numbers do"
    assert "part “evaluation”, holds below 0.05" in text_of(ledger_row(72))
    assert (
        "holds above 0.8" in text_of(ledger_row(28))
        and "holds" not in text_of(ledger_row(66)).partition("reasons")[0]
    )
    for claim in (5, 6, 10, 18, 45):
        row = ledger_row(claim)
        assert "<small>no data</small>" in row and "#dataset-synthetic" not in row, claim
    assert "<small>no data</small>" not in ledger_row(20)


def test_reports_are_counted_on_the_page(ledger_row):
    from deepfake_nb.reporting.sources import count_reports

    counts = count_reports(ledger_row.ledger, ledger_row.claims)
    made = claims_page.report_table(counts.iloc[:, 6:]).html()
    rows = Table.read(f"<table>{made}</table>").records()
    assert [row["report"] for row in rows] == [*dict.fromkeys(ledger_row.claims["report"]), "all"]
    for row in rows:
        told = [row[name] for name in counts.columns[6:]]
        assert told == [str(n or "–") for n in counts.loc[row["report"]].iloc[6:]]
    assert 'href="#verdict-not-reproduced"' in made


def plain_ledger(ledger_row, folder: Path) -> Path:
    "A page of the filters, the claims and the words, without the theme."
    sources = list(dict.fromkeys(ledger_row.ledger["source"]))
    reports = list(dict.fromkeys(ledger_row.claims["report"]))
    rows = "".join(ledger_row(claim) for claim in ledger_row.claims.index)
    ids = [claim_rows.word_id(word) for word in claim_rows.WORDS]
    ids += [f"rule-{pages.slug(name)}" for name in RULE_TEXTS]
    words = "".join(f'<p id="{name}">{name}</p>' for name in ids)
    words += claims_page.looked(ledger_row.sheet, reports)
    keys = [key for keys in ledger_row.sheet.proposed.values() for key in keys]
    words += "".join(f'<p id="proposal-{key}">{key}</p>' for key in keys)
    css, script = ((BOOK / "static" / f).read_text() for f in ("book.css", "ledger.js"))
    controls = claims_page.controls(reports, sources, list(claim_rows.WORDS))
    page = folder / "ledger.html"
    page.write_text(
        '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<style>{css}</style><article>{controls}"
        f'<table class="ledger">{claim_rows.head()}<tbody>{rows}</tbody></table>{words}</article>'
        f"<script>{script}</script>"
    )
    return page


CHOOSE = """(async (report, source, verdict) => {
  const form = document.querySelector(".ledger-filter");
  const values = {report, source, verdict};
  for (const s of form.querySelectorAll("select")) {
    s.value = values[s.dataset.filter];
    if (s.value !== values[s.dataset.filter]) return "no such option";
  }
  form.dispatchEvent(new Event("change"));
  const left = [...document.querySelectorAll("tr[data-verdicts]")].filter(r => r.offsetHeight > 0);
  return [left.map(r => +r.id.slice(6)), form.querySelector("output").textContent];
})"""


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_filters_show_what_they_name(ledger_row, tmp_path, width):
    """By report, source and verdict, alone and together; with the count of rows that are left."""
    page, ledger, claims = plain_ledger(ledger_row, tmp_path), ledger_row.ledger, ledger_row.claims
    reports = ["", *dict.fromkeys(claims["report"])]
    sources = ["", *dict.fromkeys(ledger["source"])]
    verdicts = ["", *dict.fromkeys(ledger["verdict"]), "no evidence from any source"]
    told = ledger.pivot(index="claim", columns="source", values="verdict").to_dict("index")
    empty = 0
    with browser.Browser() as b:
        b.open(page.as_uri(), width)
        assert b.run('document.querySelector(".ledger-filter output").textContent') == (
            f"{len(claims)} of {len(claims)} claims"
        )
        for report, source, verdict in [
            (r, s, v) for r in reports for s in sources for v in verdicts
        ]:
            expected = []
            for claim, says in told.items():
                if report and claims.loc[claim, "report"] != report:
                    continue
                asked = [says[source]] if source else list(says.values())
                if verdict == "no evidence from any source":
                    holds = set(says.values()) == {"not tested"}
                elif verdict:
                    holds = verdict in asked
                else:
                    holds = not source or asked != ["not tested"]
                expected += [claim] * holds
            chosen = f"{CHOOSE}({json.dumps(report)}, {json.dumps(source)}, {json.dumps(verdict)})"
            left, counted = b.run(chosen)
            assert left == expected, (report, source, verdict)
            told_count = f"{len(left)} of {len(claims)} claims"
            assert counted == (told_count if left else f"Nothing matches: {told_count}")
            empty += not left
    assert empty > 20, "combinations that nothing matches were among them"


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_words_and_claims_lead_to_their_places(ledger_row, tmp_path, width):
    page = plain_ledger(ledger_row, tmp_path)
    seen = (
        "(e => { const r = e.getBoundingClientRect();"
        " return r.height > 0 && r.top >= 0 && r.top < innerHeight; })"
    )
    with browser.Browser() as b:
        b.open(page.as_uri(), width)
        hrefs = b.run("[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.hash)")
        assert {f"#{claim_rows.word_id(w)}" for w in set(ledger_row.ledger["verdict"])} <= set(
            hrefs
        )
        assert b.run(
            "[...document.querySelectorAll('a[href^=\"#\"]')]"
            ".every(a => document.getElementById(a.hash.slice(1)))"
        )
        b.run("document.querySelector('#claim-32 .strip a.void').click()")
        b.run(browser.DRAWN)
        assert b.run(f"{seen}(document.getElementById('verdict-void'))")
        b.run(f"{CHOOSE}('kun', '', '')")
        b.run("location.hash = '#claim-26'")  # which the filter has hidden
        b.run(browser.DRAWN)
        assert b.run(f"{seen}(document.getElementById('claim-26'))")
        assert b.run("document.querySelector('#claim-26 details').open")


@pytest.mark.slow
@needs_browser
def test_the_tables_of_the_ledger_fit_a_phone(book):
    with browser.Browser() as b:
        b.open((book / "ledger.html").as_uri(), 390)
        wide = (
            "[...document.querySelectorAll('.table-scroll')]"
            ".filter(e => e.querySelector('table').offsetWidth > e.clientWidth)"
            ".map(e => e.querySelector('table').id)"
        )
        assert b.run(wide) == []
        said = b.run("document.getElementById('ledger-reports').getBoundingClientRect().top")
        claims = b.run("document.getElementById('ledger-claims').getBoundingClientRect().top")
        assert 0 < said < claims, "the table by report stands above the claims"
        b.resize(1280)
        b.run(browser.DRAWN)
        strips = (
            "[...document.querySelectorAll('.strip')].filter(s => s.scrollWidth > s.clientWidth)"
        )
        assert b.run(f"{strips}.length") == 0, "a strip runs into the next column"


def test_proposals_have_the_numbers_of_the_notebook_that_tries_them():
    import csv

    papers = ROOT / "nbs/papers"
    listed = tomllib.loads((papers / "proposals.toml").read_text())["proposal"]
    measured = list(csv.DictReader(open(papers / "proposals.csv")))
    keys = [p["key"] for p in listed]
    assert len(set(keys)) == len(keys) and {m["proposal"] for m in measured} <= set(keys)
    assert all(bool(p["tried"]) == bool(p["outcome"]) for p in listed)
    here = {p["key"] for p in listed if p["tried"].startswith(("proposals", "sound"))}
    assert here == {m["proposal"] for m in measured}
    html = lists.proposals(SimpleNamespace(root=ROOT, pages={p["tried"] for p in listed}))
    first = measured[0]
    assert f"{float(first['value']):.2f} [{float(first['low']):.2f}" in html
    assert html.count("Not tried.") == sum(not p["tried"] for p in listed)
    mentioned = [n for p in listed for n in re.findall(r"[Cc]laim (\d+)", p["outcome"])]
    assert mentioned and all(f'<a href="#claim-{n}">Claim {n}</a>' in html for n in mentioned)
    with pytest.raises(pages.PageError, match="there is no notebook"):
        lists.proposals(SimpleNamespace(root=ROOT, pages=set()))


def test_the_words_of_the_ledger_are_explained():
    from deepfake_nb.reporting.sources import STATES

    assert set(claim_rows.WORDS) == set(STATES)
    assert not any("{" in text for text in claims_page.words().values())


def test_the_rules_of_the_ledger_are_explained():
    from deepfake_nb.reporting.claims import load_claims, rules_of

    claims = [claim for _, claim in load_claims().iterrows()]
    used = {rule["name"] for claim in claims for rule in rules_of(claim)}
    without = [c["decided_by"] for c in claims if isinstance(c["decided_by"], dict)]
    used |= {decided_by["rule"] for decided_by in without}
    assert used <= set(RULE_TEXTS)


@pytest.mark.slow
def test_what_is_cited_stands_in_the_bibliography(book):
    page = (book / "bibliography.html").read_text()
    assert (
        "Deep Fake Face Detection" in page
        and "Unmasking DeepFakes with simple Features" in page
        and "Celeb-DF: A Large-scale" in page
    )
    report = (book / "papers" / "kun.html").read_text()
    assert "../bibliography.html#" in report and '<span class="math' in report
    numbers = {
        m[1]
        for n in notebooks()
        for c in json.loads((ROOT / "nbs" / f"{n}.ipynb").read_text())["cells"]
        if c["cell_type"] == "markdown"
        for m in pages.ARXIV.finditer("".join(c["source"]))
    }
    datasets = "".join(p.read_text() for p in ROOT.glob("data_manifests/*.toml"))
    known = {fields.get("eprint") for fields in lists.bibtex(BOOK / "methods.bib").values()}
    known |= set(re.findall(r"eprint = \{(.+)\}", datasets))
    assert numbers - known == set(), "enter these arXiv numbers in nbs/book/methods.bib"


@pytest.mark.slow
def test_equations_come_from_the_book_itself(book):
    assert (
        'src="../_static/tex-svg.js' in (book / "papers" / "kun.html").read_text()
        and (book / "_static" / "tex-svg.js").stat().st_size > 10**6
    )


@pytest.mark.slow
@needs_browser
def test_no_page_complains_in_a_browser(book):
    assert browser.check_in_browser(book) == []


@needs_browser
def test_the_browser_sees_what_is_wrong(tmp_path):
    (tmp_path / "a.html").write_text(
        '<!doctype html><link rel="stylesheet" href="http://127.0.0.1:9/far.css"><h1>A</h1>'
        f'<img src="gone.png" alt="a thing"><img src="data:image/png;base64,{PNG}">'
        '<div style="width:3000px">wide</div><span class="math">x</span>'
        '<script>console.error("broken"); undefined_name</script>'
    )
    with browser.Browser() as b:
        b.open((tmp_path / "a.html").as_uri(), 390)
        found = "\n".join(b.faults())
    for fault in (
        "asks for http://127.0.0.1:9/far.css",
        "gone.png is broken",
        "has no alt text",
        "wider than the window",
        "equations were not set",
        "console: ['broken']",
        "undefined_name is not defined",
    ):
        assert fault in found, fault


@needs_browser
def test_a_page_is_seen_to_be_too_wide_for_a_phone_though_it_fits_a_desk(tmp_path):
    """After a change of the window, without loading it again."""
    (tmp_path / "a.html").write_text(
        '<!doctype html><meta name="viewport" content="width=device-width">'
        '<div style="width:600px">wide</div>'
    )
    with browser.Browser() as b:
        b.open((tmp_path / "a.html").as_uri(), 1280)
        assert b.faults() == []
        b.resize(390, dark=True)
        b.run(browser.DRAWN)
        (found,) = b.faults()
        assert "wider than the window" in found
        assert b.run("matchMedia('(prefers-color-scheme: dark)').matches")
        b.open((tmp_path / "a.html").as_uri(), 390, dark=True)
        assert b.faults() == [found]


@pytest.mark.parametrize(
    "body, fault",
    [
        ('<a href="gone.html">x</a>', "a.html: the link gone.html leads nowhere"),
        ('<a href="index.html#nowhere">x</a>', "leads to no place on the page"),
        ('<a href="../outside.html">x</a>', "leads nowhere"),
        ('<img src="gone.png" alt="x">', "gone.png is missing"),
        ('<img src="data:image/png;base64,xx" alt=" ">', "has no alt text"),
        ('<script src="https://cdn.example/x.js"></script>', "fetches https://cdn.example/x.js"),
        ('<link rel="stylesheet" href="//cdn.example/x.css">', "fetches //cdn.example/x.css"),
        (
            '<div style="background: url(https://cdn.example/x.png)"></div>',
            "fetches https://cdn.example/x.png",
        ),
        (
            '<style>@import "https://cdn.example/x.css";</style>',
            "fetches https://cdn.example/x.css",
        ),
        ("<h1>again</h1>", "2 headings of the first level"),
    ],
)
def test_the_check_sees_what_is_wrong(tmp_path, body, fault):
    (tmp_path / "index.html").write_text(
        '<h1 id="top">A</h1><a href="a.html#here">a</a> '
        '<a href="https://elsewhere.example">elsewhere</a> '
        '<img src="data:image/png;base64,xx" alt="x">'
    )
    (tmp_path / "a.html").write_text('<h1 id="here">B</h1><a href="index.html#top">i</a>')
    assert check.check_folder(tmp_path) == []
    (tmp_path / "a.html").write_text('<h1 id="here">B</h1>' + body)
    assert any(fault in line for line in check.check_folder(tmp_path))


def test_the_check_reads_style_sheets(tmp_path):
    (tmp_path / "index.html").write_text("<h1>A</h1>")
    (tmp_path / "x.css").write_text("@font-face { src: url('https://fonts.example/x.woff2') }")
    assert check.check_folder(tmp_path) == ["x.css: fetches https://fonts.example/x.woff2"]


def context(tmp_path: Path, **about) -> pages.Context:
    return pages.Context(
        ROOT,
        tmp_path,
        "https://example.org/blob/main/",
        pages={"index.ipynb", "07_spectrum.ipynb", "papers/kun.ipynb", "ledger.md"},
        names={"azimuthal_spectrum": "deepfake_nb.spectrum.azimuthal_spectrum"},
        moved={"nbs/papers/claims.toml": "ledger.md"},
        **about,
    )


@pytest.mark.parametrize(
    "before, after",
    [
        ("see [it](../07_spectrum.ipynb)", "see [it](../07_spectrum.ipynb)"),
        ("see [it](../07_spectrum.ipynb#Rings)", "see [it](../07_spectrum.ipynb#Rings)"),
        ("[list](claims.toml)", "[list](../ledger.md)"),
        ("[k](https://example.org/blob/main/nbs/papers/kun.ipynb)", "[k](kun.ipynb)"),
        ("[s](../../settings.ini)", "[s](https://example.org/blob/main/settings.ini)"),
        ("[below](#Chosen-by-us)", "[below](#Chosen-by-us)"),
        ("[x](https://elsewhere.example)", "[x](https://elsewhere.example)"),
        (
            "`azimuthal_spectrum` and `azimuthal_spectrum()`, not `spectrum`",
            "{py:obj}`azimuthal_spectrum <deepfake_nb.spectrum.azimuthal_spectrum>` and "
            "{py:obj}`azimuthal_spectrum() <deepfake_nb.spectrum.azimuthal_spectrum>`, "
            "not `spectrum`",
        ),
        (
            "```\n`azimuthal_spectrum`, arXiv 1911.00686\n```",
            "```\n`azimuthal_spectrum`, arXiv 1911.00686\n```",
        ),
        ("$`azimuthal_spectrum`$", "$`azimuthal_spectrum`$"),
        ("arXiv 1911.00686.", "arXiv 1911.00686 {cite:p}`durall`."),
        (
            "[arXiv 1911.00686](https://arxiv.org/abs/1911.00686)",
            "[arXiv 1911.00686](https://arxiv.org/abs/1911.00686) {cite:p}`durall`",
        ),
        (
            "*Unmasking DeepFakes\nwith simple Features*, 2019",
            "*Unmasking DeepFakes\nwith simple Features* {cite:p}`durall`, 2019",
        ),
        (
            "*Unmasking DeepFakes with simple*, *Unmasking* and **Unmasking**",
            "*Unmasking DeepFakes with simple* {cite:p}`durall`, *Unmasking* and **Unmasking**",
        ),
        ("as Efron and\nTibshirani 1993 say", "as Efron and\nTibshirani 1993 {cite:p}`efron` say"),
    ],
)
def test_prose(tmp_path, before, after):
    here = context(
        tmp_path,
        titles={"unmaskingdeepfakeswithsimplefeatures": "durall"},
        arxiv={"1911.00686": "durall"},
        mentions={"Efron and Tibshirani 1993": "efron"},
    )
    assert pages.prose(before, "papers/kun.ipynb", here) == after


def test_a_link_to_nowhere_is_an_error(tmp_path):
    with pytest.raises(
        pages.PageError, match=r"nbs/papers/kun.ipynb: the link ../nowhere.ipynb leads nowhere"
    ):
        pages.prose("[x](../nowhere.ipynb)", "papers/kun.ipynb", context(tmp_path))


def code(source: str, *outputs: dict, tags: tuple = ()) -> dict:
    return {
        "cell_type": "code",
        "id": "abc",
        "metadata": {"tags": list(tags)},
        "source": source,
        "outputs": list(outputs),
    }


def shows(**data) -> dict:
    return {
        "output_type": "display_data",
        "metadata": {},
        "data": {k.replace("_", "/"): v for k, v in data.items()},
    }


def test_an_image_without_words_is_an_error(tmp_path):
    page = pages.Page("07_spectrum.ipynb", context(tmp_path), paper=False)
    for source in ("plot()", "#| fig-cap: A curve.\nplot()", "#| fig-alt: A curve.\nplot()"):
        page.cells(code(source, shows(image_png=PNG)))
    page.cells(
        code("#| fig-cap: A.\n#| fig-alt: B.\nplot()", shows(image_png=PNG), shows(image_png=PNG))
    )
    assert [f[:55] for f in page.faults] == [
        "nbs/07_spectrum.ipynb, cell abc: image 1 has no caption"
    ] * 3 + ["nbs/07_spectrum.ipynb, cell abc: image 2 has no caption"]
    assert "#| fig-alt" in page.faults[0]


def test_a_cell_becomes_code_figure_and_table(tmp_path):
    page = pages.Page("papers/kun.ipynb", context(tmp_path), paper=True)
    table = (
        "<style>x</style><table><thead><tr><th></th><th>AUC</th></tr>"
        "<tr><th>model</th><th></th></tr></thead>"
        "<tbody><tr><th id='r'>I</th><td class='c'>.7</td></tr></tbody></table>"
    )
    made = page.cells(
        code(
            "draw()",
            shows(image_png=PNG, text_plain="x"),
            shows(text_markdown='**Figure 1** (`roc`). A *curve*: "so". *made here.*'),
            shows(text_markdown="A passage."),
            shows(text_markdown="**Table 1** (`aucs`). Numbers. *made here.*"),
            shows(text_html=table),
            tags=("hide-input",),
        )
    )
    assert [c["cell_type"] for c in made] == ["code", "markdown", "markdown", "markdown"] and made[
        0
    ]["metadata"]["tags"] == ["hide-input"]
    assert made[1]["source"] == (
        "````{figure} ../_figures/kun/roc.png\n:name: kun-figure-roc\n"
        ':alt: "A curve: \\"so\\"."\n\n'
        '**Figure 1.** A *curve*: "so". [made here. File: `roc`]{.stamp}\n````'
    )
    assert (tmp_path / "_figures/kun/roc.png").read_bytes().startswith(b"\x89PNG")
    assert (
        "**Table 1.** Numbers." in made[3]["source"]
        and '<thead><tr><th scope="col">model</th><th scope="col">AUC</th></tr></thead>'
        in made[3]["source"]
        and "class='c'" not in made[3]["source"]
    )
    assert page.taken == [
        ("Figure", 1, "roc", 'A *curve*: "so".'),
        ("Table", 1, "aucs", "Numbers."),
    ]


def test_an_images_own_alt_text_is_used(tmp_path):
    page = pages.Page("papers/kun.ipynb", context(tmp_path), paper=True)
    drawn = shows(image_png=PNG) | {"metadata": {"image/png": {"alt": "1 chart; x: epoch."}}}
    assert (
        ':alt: "1 chart; x: epoch."'
        in page.cells(code("draw()", drawn, shows(text_markdown="**Figure 1** (`roc`). A curve.")))[
            1
        ]["source"]
    )


def test_plumbing_is_left_out(tmp_path):
    page = pages.Page("07_spectrum.ipynb", context(tmp_path), paper=False)
    assert page.cells(code("#| hide\nx = 1")) == page.cells(code("#| default_exp spectrum")) == []
    assert page.cells(code("#| export\ndef f(): ..."))[0]["source"] == "def f(): ..."
    assert page.cells(code("#| export\nimport os\nfrom x import y"))[0]["metadata"]["tags"] == [
        "hide-input"
    ]
    parameters = page.cells(code("n = 1", tags=("parameters",)))[0]["metadata"]
    assert (
        parameters["tags"] == ["hide-input"]
        and "parameters" in parameters["mystnb"]["code_prompt_show"]
    )


def test_what_a_notebook_folds_away_is_folded_away(tmp_path):
    page = pages.Page("papers/kun.ipynb", context(tmp_path), paper=True)
    shown = (
        shows(text_markdown="**Table 1** (`counts`). All sets & parts. Real + fake."),
        shows(text_html="<table><tr><th>n</th></tr><tr><td>1</td></tr></table>"),
    )
    cell, opened, table, closed = page.cells(code("show()", *shown, tags=("hide-output",)))
    assert cell["metadata"]["tags"] == [] and "html-table" in table["source"]
    assert opened["source"] == ("<details><summary>Table 1. All sets &amp; parts</summary>")
    assert closed["source"] == "</details>"


def test_tables_keep_what_is_read_in_them():
    import pandas as pd

    frame = pd.DataFrame(
        {"AUC": [0.7, 0.8], "n": ["a < b", "c & d"]},
        index=pd.MultiIndex.from_tuples([("x", 1), ("x", 2)], names=["part", "k"]),
    )
    table = Table.read(frame.style.format(escape="html").to_html())
    assert (
        table.names() == ["part", "k", "AUC", "n"]
        and 'rowspan="2"' in table.html()
        and "a &lt; b" in table.html()
    )
    plain = Table.read(frame.reset_index().to_html())
    assert plain.records()[1] == {"": "1", "part": "x", "k": "2", "AUC": "0.8", "n": "c & d"}
    with pytest.raises(ValueError, match="no table"):
        Table.read("<p>nothing</p>")


MODULE = '''"""A module."""

# File to edit: ../../nbs/05_forensics/09_spectrum.ipynb.
__all__ = ["f", "C", "E", "LIMIT"]

#: Above it `f`.
LIMIT: int = 3


def f(a: int, *rest: str, b: float = 0.5) -> list:
    """Join both of `E`.

    Parameters
    ----------
    a : int
        How many.
    *rest : str
        Further 2*n values.
    b : float, default 0.5
        Share, as in arXiv 1911.00686.

    Returns
    -------
    list
        Of `C`.

    Raises
    ------
    E
        If there are none.

    Examples
    --------
    >>> f(1)
    []
    """


class C:
    """A class."""

    size: int = 2

    @property
    def area(self) -> int:
        """The area."""

    def _hidden(self):
        """Hidden."""


class E(ValueError):
    """An error."""
'''


def test_reference_reads_docstrings(tmp_path):
    (tmp_path / "m.py").write_text(MODULE)
    module = reference.read_module(tmp_path / "m.py", "forensics.m")
    assert module.notebook == "05_forensics/09_spectrum.ipynb"
    limit, f, c, e = module.entries
    assert (limit.doc, limit.value, limit.type) == ("Above it `f`.", "3", "int")
    assert f.signature == "(a: int, *rest: str, b: float=0.5) -> list"
    assert (c.signature, e.kind) == ("(size: int = 2)", "exception")
    assert [(m.name, m.kind) for m in c.members] == [("area", "property")]
    cited = []
    text = reference.write_module(module, reference.names([module]), lambda t: cited.append(t) or t)
    assert ".. py:function:: f(a: int, *rest: str, b: float=0.5) -> list" in text
    assert ":param a: How many." in text and r":param \*rest: Further 2\*n values." in text
    assert ":py:obj:`E <deepfake_nb.forensics.m.E>`" in text and ">>> f(1)" in text
    assert ":raises E: If there are none." in text and ":returns:" in text
    assert ":doc:`/05_forensics/09_spectrum`" in text
    assert any("arXiv 1911.00686" in t for t in cited)


def test_the_notebooks_draw_in_the_colours_of_the_library():
    import matplotlib

    from deepfake_nb.reporting.results import PALETTE

    colours = matplotlib.rc_params_from_file(
        ROOT / "nbs" / "matplotlibrc", use_default_template=False
    )["axes.prop_cycle"].by_key()["color"]
    assert [f"#{c.lstrip('#').upper()}" for c in colours] == PALETTE
