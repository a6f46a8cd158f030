"""The ledger: every claim of every report, entered as the report states it, and counted once."""

import ast
import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "nbs" / "book")]

import in_step  # noqa: E402
import overview  # noqa: E402

from deepfake_nb.cli import main  # noqa: E402
from deepfake_nb.core.errors import ClaimError  # noqa: E402
from deepfake_nb.reporting.claims import (  # noqa: E402
    Ledger,
    judge_ordinal,
    load_claims,
    rules_of,
)
from deepfake_nb.reporting.ledger import (  # noqa: E402
    LEDGER_TYPE,
    load_ledgers,
    read_ledger,
)
from deepfake_nb.reporting.rules import SOURCES  # noqa: E402
from deepfake_nb.reporting.sources import (  # noqa: E402
    STATES,
    count_reports,
    count_sources,
    load_sources,
    needs_no_data,
    sources_markdown,
)
from deepfake_nb.reporting.verdicts import quantity_of  # noqa: E402

PAPERS = ROOT / "nbs" / "papers"
NUMBERS = {
    "denholtz": range(1, 11),
    "forbush": range(11, 27),
    "kaminskyi": range(27, 43),
    "torlapati": range(43, 61),
    "kun": range(61, 80),
}
# fmt: off
IN_TEXT_ONLY = {
    1, 2, 3, 4, 11, 12, 17, 18, 19, 20, 22, 23, 25, 26, 29, 30, 31, 32, 33, 37, 38, 42, 43, 44,
    52, 59, 60, 69, 70, 71, 78, 79,
}
DECIDED_BY_OWN_DATA = [
    13, 15, 16, 17, 18, 19, 20, 21, 22, 23, 25, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 37, 38,
    39, 40, 53, 54, 57, 59,
]
# fmt: on
CONTRADICTED = {5, 10, 14, 24, 41, 55}  # 6 is loose, 49 damaged; 58, 73 and 74 implausible
EQUIVALENCE = {38, 61, 71, 72, 77}  # "no better", "almost the same level"
LOST = {7, 8, 35, 36, 37, 38, 39}  # whose values are lost; of others something beside them is
VALUES = {
    1: 75000,
    2: [50, 470],
    11: 400,
    12: 0.8,
    13: 0.8075,
    14: 5,
    15: 0.865,
    16: 0.94,
    34: [0.95, 0.5],
    43: 202599,
    44: 10000,
    45: 3117858,
    46: 99142978,
    47: 7305281,
    48: 7040064,
    49: 20879913,
    50: 24121729,
    51: [529409, 23592320],
    56: 600,
    58: 9,
    62: 0.78,
    63: 0.71,
    64: 0.73,
    65: 0.42,
    66: 0.78,
    67: [2, 3],
    68: 0.43,
    69: 0.57,
    73: 10,
    75: [960, 1081, 6],
    76: 0.62,
}
KINDS = {"exact", "numeric", "ordinal", "equivalence", "context", "arithmetic", "opinion"}


def executed() -> list[str]:
    "The papers that have been run."
    return [path.stem for path in sorted(PAPERS.glob("*.ipynb")) if len(read_ledger(path))]


# ---- claims.toml


def test_the_claims_of_a_report_are_all_entered_and_nothing_else():
    claims = load_claims()
    for report, own in claims.groupby("report"):
        assert own.index.tolist() == list(NUMBERS[report]), report
    assert {path.stem for path in PAPERS.glob("*.ipynb")} <= set(claims["report"])


def test_claims_stand_as_the_reports_have_them():
    claims = load_claims()
    entered = set(claims.index)
    assert set(claims.index[claims["in_text_only"]]) == IN_TEXT_ONLY & entered
    assert set(claims.index[claims["contradiction"].notna()]) == CONTRADICTED & entered
    assert LOST & entered <= set(claims.index[claims["lost"].notna()])
    for claim in VALUES.keys() & entered:
        assert claims.loc[claim, "value"] == VALUES[claim]
    assert set(claims["kind"]) <= KINDS
    assert set(claims.index[claims["kind"] == "equivalence"]) == EQUIVALENCE & entered
    assert claims["text"].is_unique and claims[["place", "text"]].notna().all(axis=None)


def test_every_claim_states_what_it_was_measured_on_and_what_would_decide_it():
    claims = load_claims()
    assert claims["condition"].notna().all()
    experimental = claims[claims["kind"].isin(["numeric", "ordinal", "equivalence"])]
    assert experimental["data"].notna().all()
    decided = claims[["rule", "decided_by", "published"]].notna().any(axis=1)
    assert set(claims.index[~decided]) == {42}, "the state of 2020"
    datasets = {path.stem for path in (ROOT / "data_manifests").glob("*.toml")}
    for data in claims["data"].dropna():
        named = data if isinstance(data, list) else data.split("+")
        assert set(named) <= datasets, data


def test_what_a_rule_measures_has_a_name():
    rules = [(n, rule) for n, claim in load_claims().iterrows() for rule in rules_of(claim)]
    unnamed = {n for n, rule in rules if quantity_of(rule) in ("mean", "difference of means")}
    assert unnamed == set(), "state the quantity of these rules in claims.toml"
    assert quantity_of(rules_of(load_claims().loc[36])[1]) == "difference of the fall of AUC"


#: By the history of claims.toml, the packs and the closing notes: rules of real data that are
#: younger than numbers of their kind.
WRITTEN_LATE = {7, 8, 9, 17, 19, 21, 25, 33, 35, 36, 37, 38, 59, 60, 62, 68, 70, 71, *range(73, 80)}


def test_rules_that_are_younger_than_first_numbers_say_so():
    claims = load_claims()
    late = {n for n, claim in claims.iterrows() if any("known" in r for r in rules_of(claim))}
    assert late == WRITTEN_LATE
    notes = claims["note"].dropna()
    assert not notes.str.contains("rule was written when").any(), "a field says it, not prose"


# ---- the committed ledgers


@pytest.mark.parametrize("report", executed())
def test_every_claim_has_one_verdict_with_its_reason(report):
    claims, ledger = load_claims(report), read_ledger(PAPERS / f"{report}.ipynb")
    assert ledger.index.tolist() == claims.index.tolist()
    assert ledger["claim"].tolist() == claims["text"].tolist()
    lost = ledger.index[ledger["verdict"] == "value lost"]
    assert set(lost) <= set(claims.index[claims["lost"].notna()])
    assert not ledger["reason"].isin(["", "–"]).any()


@pytest.mark.parametrize("report", executed())
def test_numbers_get_a_verdict_on_the_report_s_own_data_only(report):
    claims, ledger = load_claims(report), read_ledger(PAPERS / f"{report}.ipynb")
    assert "synthetic" in ledger.attrs["stamp"], "the committed papers are made on embedded data"
    numeric = claims.index[claims["kind"].isin(["numeric", "ordinal", "equivalence"])]
    assert not ledger.loc[numeric, "verdict"].isin(["reproduced", "not reproduced"]).any()


# ---- default verdicts


@pytest.mark.parametrize("report", NUMBERS)
def test_on_its_own_data_every_claim_that_is_decided_gets_a_verdict(report):
    ledger = Ledger(report, "its own", own_data=True)
    for claim, about in ledger.claims.iterrows():
        contradicted = isinstance(about["contradiction"], str)
        undecided = "value lost" if isinstance(about["lost"], str) else "not comparable"
        for stand_in, verdict in (
            ("agrees", "reproduced"),
            ("disagrees", "not reproduced"),
            ("inconclusive", undecided),
        ):
            ledger.enter(claim, "0", "It is so.", stand_in=stand_in)
            expected = "contradicted by the report itself" if contradicted else verdict
            assert ledger.entries[claim]["verdict"] == expected, (claim, stand_in)


@pytest.mark.parametrize("report", NUMBERS)
def test_on_its_own_data_the_interval_of_a_number_decides(report):
    ledger = Ledger(report, "its own", own_data=True)
    for claim, about in ledger.claims.iterrows():
        value = about["value"]
        is_number = about["kind"] == "numeric" and isinstance(value, (int, float))
        if not is_number or np.isnan(value) or isinstance(about["contradiction"], str):
            continue
        for low, high, verdict in (
            (-1, 1, "reproduced"),
            (0.5, 1, "not reproduced"),
            (np.nan, np.nan, "not comparable"),
        ):
            ledger.enter_number(claim, "0", value + low, value + high, "It is so.")
            assert ledger.entries[claim]["verdict"] == verdict, (claim, low, high)
        with pytest.raises(ClaimError, match=f"claim {claim} is a number"):
            ledger.enter(claim, "0", "It is so.")


@pytest.mark.parametrize("report", NUMBERS)
def test_on_other_data_no_claim_is_reproduced_and_what_is_lost_is_called_so(report):
    ledger = Ledger(report, "another", own_data=False)
    for claim, about in ledger.claims.iterrows():
        expected = "value lost" if isinstance(about["lost"], str) else "not comparable"
        if isinstance(about["contradiction"], str):
            expected = "contradicted by the report itself"
        ledger.enter(claim, "0", "It is so.", stand_in="agrees")
        assert ledger.entries[claim]["verdict"] == expected
        assert ledger.entries[claim]["dataset"] == "another"


# ---- the rules in the papers


def code_of(report: str) -> list[ast.Module]:
    "The code cells of a paper."
    cells = json.loads((PAPERS / f"{report}.ipynb").read_text(encoding="utf-8"))["cells"]
    return [ast.parse("".join(c["source"])) for c in cells if c["cell_type"] == "code"]


def entered(report: str, claim: int) -> ast.Call:
    "The last call by which a paper enters a claim."
    last = None
    for cell in code_of(report):
        for node in ast.walk(cell):
            if not isinstance(node, ast.Call):
                continue
            enters = ast.unparse(node.func) in ("ledger.enter", "ledger.enter_number")
            if enters and isinstance(node.args[0], ast.Constant) and node.args[0].value == claim:
                last = node
    return last


def stand_in(report: str, claim: int, **values) -> str:
    "What a paper concludes from some values for a claim."
    keywords = {keyword.arg: keyword.value for keyword in entered(report, claim).keywords}
    names = {"judge_ordinal": judge_ordinal, "np": np, **values}
    return eval(ast.unparse(keywords["stand_in"]), names)


@pytest.mark.parametrize("claim", DECIDED_BY_OWN_DATA)
def test_a_claim_that_own_data_decide_is_never_entered_as_not_comparable(claim):
    call = entered(load_claims().loc[claim, "report"], claim)
    if ast.unparse(call.func) == "ledger.enter":
        given = [*call.args[3:4], *(k.value for k in call.keywords if k.arg == "verdict")]
        assert not [v for v in given if isinstance(v, ast.Constant)], ast.unparse(call)


@pytest.mark.parametrize(("report", "claim"), [("torlapati", 57), ("forbush", 20)])
def test_times_of_one_processor_decide_no_claim(report, claim):
    assert stand_in(report, claim) == "inconclusive"


# ---- counting


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_summary_in_the_readme_is_that_of_the_committed_notebooks_and_packs():
    assert sources_markdown(load_sources(PAPERS)) in readme()


def test_a_stale_summary_is_noticed():
    index = json.loads((ROOT / "nbs" / "index.ipynb").read_text())
    ledger = load_sources(PAPERS)
    assert in_step.with_ledger(copy.deepcopy(index), sources_markdown(ledger)) == index
    row = ledger.index[ledger["verdict"] == "not tested"][0]
    ledger.loc[row, "verdict"] = "void"
    assert in_step.with_ledger(copy.deepcopy(index), sources_markdown(ledger)) != index
    with pytest.raises(SystemExit, match="0 places for the ledger"):
        in_step.with_ledger({"cells": []}, "")


def with_stand_in(data: dict, claim: int, word: str) -> dict:
    "An output in which a paper says something else of a claim on rendered data."
    data = copy.deepcopy(data)
    for row in data.get(LEDGER_TYPE, {}).get("claims", []):
        if row["no."] == claim:
            row["stand-in"] = word
    return data


@pytest.mark.parametrize(("claim", "earned"), [(17, "underpowered"), (79, "disagrees")])
def test_what_a_paper_says_goes_through_the_gate(tmp_path, claim, earned):
    report = load_claims().loc[claim, "report"]
    for path in [*PAPERS.glob("*.ipynb"), *PAPERS.glob("*.toml")]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    notebook = json.loads((PAPERS / f"{report}.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if "data" in output:
                output["data"] = with_stand_in(output["data"], claim, "disagrees")
    (tmp_path / f"{report}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    ledger = load_sources(tmp_path).set_index(["claim", "source"])
    assert ledger.loc[(claim, "rendered"), "verdict"] == earned
    assert (ledger.loc[(slice(None), "other real data"), "verdict"] == "not tested").all()


def test_every_claim_has_a_verdict_with_a_reason_from_each_source():
    ledger = load_sources()
    assert len(ledger) == len(load_claims()) * len(SOURCES)
    assert set(ledger["verdict"]) <= set(STATES) and (ledger["reason"] != "").all()
    of_record = ledger[ledger["source"] == "published record"].set_index("claim")["verdict"]
    contradicted = of_record.index[of_record == "contradicted by the report itself"]
    assert set(contradicted) == CONTRADICTED
    rendered = ledger[ledger["source"] != "own data"]["verdict"]
    assert not rendered.isin(["reproduced", "not reproduced"]).any()


def entries_of(ledger) -> list[dict]:
    "What each pack, notebook or publication says; further packs of a claim and source included."
    rows = ledger.to_dict("records")
    return [*rows, *(entry for row in rows for entry in row["also"])]


def test_every_number_that_decides_has_a_name():
    decided = {"reproduced", "not reproduced", "agrees", "disagrees"}
    entries = entries_of(load_sources())
    numbers = [e for e in entries if e["found"] and (e["verdict"] in decided or e["rule"])]
    assert len(numbers) > 80
    told = r"\d(?!\w)"  # no number: "NameError: name 'patch' is not defined"
    nameless = [e["claim"] for e in numbers if re.search(told, e["found"]) and not e["quantity"]]
    assert nameless == []
    named = {e["quantity"] for e in entries if e["claim"] == 27 and e["rule"]}
    assert len(named) == 2, "the two numbers of claim 27 measure different things"


def test_a_verdict_of_a_late_rule_does_not_say_beforehand():
    entries = [e for e in entries_of(load_sources()) if e["source"] != "published record"]
    late = [e for e in entries if e["known"]]
    assert {e["claim"] for e in late} == WRITTEN_LATE
    assert {e["source"] for e in late} == {"own data", "other real data"}
    first = [
        e for e in late if "“" not in e["known"]
    ]  # the others have a further rule that is late
    assert not any("beforehand" in e["reason"] for e in first)
    decided = [e for e in first if e["reason"].startswith("Decided.")]
    assert {7, 9, 71, 73, 75} == {e["claim"] for e in decided}


def test_a_number_names_the_data_that_it_rests_on():
    own = load_sources().query("source == 'own data'").set_index("claim")["tested_on"]
    few = {n: own[n].get("faceforensics") for n in (32, 33, 36, 37, 38, 40)}
    assert few == {32: 3, 33: 12, 36: 12, 37: 12, 38: 12, 40: 12}
    assert all(own[n].keys() == {"faceforensics"} for n in (32, 33, 37, 40))
    assert own[36] == {"dfdc-faces": 463, "faceforensics": 12}
    other = load_sources().query("source == 'other real data'").set_index("claim")["tested_on"]
    assert other[74] == other[77] == {"faceforensics": 12}


@pytest.mark.parametrize("claim", [59, 60])
def test_two_packs_of_one_source_are_both_kept(claim):
    ledger = load_sources().set_index(["claim", "source"])
    entry = ledger.loc[(claim, "other real data")]
    assert [entry["dataset"], *(e["dataset"] for e in entry["also"])] == [
        "dfdc-faces",
        "real-and-fake-face",
    ]
    assert entry["found"] != entry["also"][0]["found"] and entry["also"][0]["tested_on"]


def test_reports_are_counted():
    claims, ledger = load_claims(), load_sources()
    counts = count_reports(ledger, claims)
    decided = ("reproduced", "not reproduced", "agrees", "disagrees")
    for report, numbers in NUMBERS.items():
        rows = [row for row in ledger.to_dict("records") if row["claim"] in numbers]
        assert counts.loc[report, "claims"] == len(numbers)
        exact = {n for n in numbers if needs_no_data(claims.loc[n])}
        in_exact = {row["claim"] for row in rows if row["verdict"] in decided} & exact
        assert counts.loc[report, "no data"] == len(in_exact)
        for source in SOURCES:
            of_source = [row for row in rows if row["source"] == source]
            found = [row for row in of_source if row["claim"] not in exact]
            assert counts.loc[report, source] == sum(row["verdict"] in decided for row in found)
        for verdict in decided:
            assert counts.loc[report, verdict] == sum(row["verdict"] == verdict for row in rows)
        idle = sum(row["verdict"] in (*decided, "not tested") for row in rows)
        assert counts.loc[report, "other"] == len(rows) - idle
    assert (counts.loc["all"] == counts.drop("all").sum()).all()
    assert counts.loc["torlapati", ["no data", "own data"]].tolist() == [8, 0]
    row = ledger.index[ledger["verdict"] == "not tested"][0]
    ledger.loc[row, "verdict"] = "agrees"
    assert count_reports(ledger, claims).loc["all", "agrees"] == counts.loc["all", "agrees"] + 1


def test_a_notebook_of_other_claims_is_an_error(tmp_path):
    report = executed()[0]
    (tmp_path / f"{report}.ipynb").write_bytes((PAPERS / f"{report}.ipynb").read_bytes())
    first = NUMBERS[report][0]
    text = (PAPERS / "claims.toml").read_text(encoding="utf-8")
    entry = rf"\[\[claim\]\]\nid = {first}\n.*?(?=\[\[claim\]\])"
    text = re.sub(entry, "", text, count=1, flags=re.S)
    (tmp_path / "claims.toml").write_text(text, encoding="utf-8")
    message = rf"claims \[{first}\] are in its ledger or in claims.toml, but not in both"
    with pytest.raises(ClaimError, match=message):
        load_ledgers(tmp_path)


def test_the_command_prints_the_same_counts_and_names():
    code = "from deepfake_nb.cli import main; raise SystemExit(main(['ledger']))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    printed, ledger = done.stdout, load_sources()
    lines = [line for line in printed.splitlines() if line.strip()]
    rows = {line.split("  ")[0].strip(): line.split() for line in lines}
    counts = count_sources(ledger)
    for name in ("value lost", "not tested"):
        assert rows[name][-4:] == [str(n or "–") for n in counts.loc[name]]
    by_report = count_reports(ledger, load_claims())
    for report in NUMBERS:
        assert rows[report][1:] == [str(n or "–") for n in by_report.loc[report].iloc[6:]]
    for row in ledger[ledger["verdict"].isin(["reproduced", "disagrees"])].to_dict("records"):
        told = ": ".join(filter(None, [row["quantity"], row["found"]]))
        assert re.search(rf"^ *{row['claim']}  .*{re.escape(told)}", printed, re.M), row["claim"]
    assert "12 groups of faceforensics" in printed


def test_the_command_s_json_has_the_names_too(capsys):
    assert main(["ledger", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    record = {claim["claim"]: claim["sources"] for claim in printed}
    for row in load_sources().to_dict("records"):
        entry = record[row["claim"]][row["source"]]
        assert (entry["quantity"], entry["known"]) == (row["quantity"], row["known"])
        assert [e["quantity"] for e in entry["also"]] == [e["quantity"] for e in row["also"]]
    assert record[32]["own data"]["tested_on"] == {"faceforensics": 3}


# ---- the overview figure


def test_the_readme_s_figure_is_small_has_words_and_is_of_these_ledgers():
    assert re.search(r"!\[[^\]]{80,}\]\(nbs/overview\.png\)", readme())
    assert overview.TARGET.stat().st_size < 150_000
    counted = overview.counts_in(overview.TARGET)
    assert counted == overview.ledger_counts(), "it counts other verdicts: make overview"
    assert set(overview.VERDICT_COLOURS) == set(STATES)


def test_the_figure_carries_what_it_was_drawn_from(tmp_path):
    rng = np.random.default_rng(0)
    shown = {
        "real": rng.random((32, 32, 3)),
        "fake": rng.random((32, 32, 3)),
        "mask": np.eye(32, dtype=bool),
        "map": rng.normal(size=(16, 16)),
        "spectra": {"real": rng.random((3, 20)), "fake": rng.random((3, 20))},
    }
    counts = {source: {"reproduced": i + 2, "void": 3} for i, source in enumerate(SOURCES)}
    (tmp_path / "a.png").write_bytes(overview.draw(shown, counts))
    assert overview.counts_in(tmp_path / "a.png") == counts != overview.ledger_counts()
