"The ledger: every claim of every report, entered as the report has it, and counted wherever it is counted."

import ast
import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "nbs" / "book")]

import in_step  # noqa: E402
import overview  # noqa: E402
from deepfake_nb.core.errors import ClaimError
from deepfake_nb.reporting.claims import Ledger, VERDICTS, judge_ordinal, load_claims
from deepfake_nb.reporting.ledger import (
    ledger_markdown,
    load_ledgers,
    read_ledger,
    summarise_ledgers,
)  # noqa: E402

PAPERS = ROOT / "nbs" / "papers"
NUMBERS = {
    "denholtz": range(1, 11),
    "forbush": range(11, 27),
    "kaminskyi": range(27, 43),
    "torlapati": range(43, 61),
    "kun": range(61, 80),
}
IN_TEXT_ONLY = {
    1,
    2,
    3,
    4,
    11,
    12,
    17,
    18,
    19,
    20,
    22,
    23,
    25,
    26,
    29,
    30,
    31,
    32,
    33,
    37,
    38,
    42,
    43,
    44,
    52,
    59,
    60,
    69,
    70,
    71,
    78,
    79,
}
CONTRADICTED = {5, 6, 10, 14, 24, 41, 49, 55, 58, 73, 74}
EQUIVALENCE = {38, 61, 71, 72, 77}  # "no better", "almost the same level"
LOST = {
    7,
    8,
    35,
    36,
    37,
    38,
    39,
}  # of which the values are lost; of others only something beside it is
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


def executed() -> list[str]:
    return [p.stem for p in sorted(PAPERS.glob("*.ipynb")) if len(read_ledger(p))]


def test_the_claims_of_a_report_are_all_entered_and_nothing_else():
    claims = load_claims()
    for report, own in claims.groupby("report"):
        assert own.index.tolist() == list(NUMBERS[report]), report
    assert {p.stem for p in PAPERS.glob("*.ipynb")} <= set(claims["report"])


def test_claims_stand_as_the_reports_have_them():
    claims = load_claims()
    entered = set(claims.index)
    assert set(claims.index[claims["in_text_only"]]) == IN_TEXT_ONLY & entered
    assert set(claims.index[claims["contradiction"].notna()]) == CONTRADICTED & entered
    assert LOST & entered <= set(claims.index[claims["lost"].notna()])
    assert {n: claims.loc[n, "value"] for n in VALUES if n in entered} == {
        n: value for n, value in VALUES.items() if n in entered
    }
    assert set(claims["kind"]) <= {
        "exact",
        "numeric",
        "ordinal",
        "equivalence",
        "context",
        "arithmetic",
        "opinion",
    }
    assert set(claims.index[claims["kind"] == "equivalence"]) == EQUIVALENCE & entered
    assert claims["text"].is_unique and claims[["place", "text"]].notna().all(axis=None)


@pytest.mark.parametrize("report", executed())
def test_every_claim_has_one_verdict_with_its_reason(report):
    claims, ledger = load_claims(report), read_ledger(PAPERS / f"{report}.ipynb")
    assert (
        ledger.index.tolist() == claims.index.tolist()
        and ledger["claim"].tolist() == claims["text"].tolist()
    )
    assert set(ledger.index[ledger["verdict"] == "contradicted by the report itself"]) == set(
        claims.index[claims["contradiction"].notna()]
    )
    assert set(ledger.index[ledger["verdict"] == "value lost"]) <= set(
        claims.index[claims["lost"].notna()]
    )
    assert not ledger["reason"].isin(["", "–"]).any()


@pytest.mark.parametrize("report", executed())
def test_numbers_get_a_verdict_on_the_report_s_own_data_only(report):
    claims, ledger = load_claims(report), read_ledger(PAPERS / f"{report}.ipynb")
    assert "synthetic" in ledger.attrs["stamp"], "the committed papers are made on embedded data"
    numeric = claims.index[claims["kind"].isin(["numeric", "ordinal", "equivalence"])]
    assert not ledger.loc[numeric, "verdict"].isin(["reproduced", "not reproduced"]).any()


def missing(value) -> bool:
    return not isinstance(value, str)


@pytest.mark.parametrize("report", NUMBERS)
def test_on_its_own_data_every_claim_that_is_decided_gets_a_verdict(report):
    ledger = Ledger(report, "its own", own_data=True)
    for claim, about in ledger.claims.iterrows():
        contradicted, lost = not missing(about["contradiction"]), not missing(about["lost"])
        for stand_in, decided in (
            ("agrees", "reproduced"),
            ("disagrees", "not reproduced"),
            ("inconclusive", "value lost" if lost else "not comparable"),
        ):
            ledger.enter(claim, "0", "It is so.", stand_in=stand_in)
            assert ledger.entries[claim]["verdict"] == (
                "contradicted by the report itself" if contradicted else decided
            ), (claim, stand_in)
        if (
            about["kind"] != "numeric"
            or not isinstance(about["value"], (int, float))
            or contradicted
        ):
            continue
        for low, high, decided in (
            (-1, 1, "reproduced"),
            (0.5, 1, "not reproduced"),
            (float("nan"), float("nan"), "not comparable"),
        ):
            ledger.enter_number(
                claim, "0", about["value"] + low, about["value"] + high, "It is so."
            )
            assert ledger.entries[claim]["verdict"] == decided, (claim, low, high)
        with pytest.raises(ClaimError, match=f"claim {claim} is a number"):
            ledger.enter(claim, "0", "It is so.")


@pytest.mark.parametrize("report", NUMBERS)
def test_on_other_data_no_claim_is_reproduced_and_what_is_lost_is_called_so(report):
    ledger = Ledger(report, "another", own_data=False)
    for claim, about in ledger.claims.iterrows():
        expected = (
            "contradicted by the report itself"
            if not missing(about["contradiction"])
            else "value lost"
            if not missing(about["lost"])
            else "not comparable"
        )
        ledger.enter(claim, "0", "It is so.", stand_in="agrees")
        assert (
            ledger.entries[claim]["verdict"] == expected
            and ledger.entries[claim]["dataset"] == "another"
        )


def entered(report: str, claim: int) -> ast.Call:
    "The last call by which a paper notebook enters a claim."
    cells = json.loads((PAPERS / f"{report}.ipynb").read_text(encoding="utf-8"))["cells"]
    calls = [
        n
        for c in cells
        if c["cell_type"] == "code"
        for n in ast.walk(ast.parse("".join(c["source"])))
        if isinstance(n, ast.Call)
        and ast.unparse(n.func) in ("ledger.enter", "ledger.enter_number")
    ]
    return [n for n in calls if isinstance(n.args[0], ast.Constant) and n.args[0].value == claim][
        -1
    ]


def stand_in(report: str, claim: int, **values) -> str:
    "What a paper notebook makes of some values for a claim."
    return eval(
        ast.unparse(next(k.value for k in entered(report, claim).keywords if k.arg == "stand_in")),
        {"judge_ordinal": judge_ordinal, **values},
    )


@pytest.mark.parametrize(
    "claim",
    [
        13,
        15,
        16,
        17,
        18,
        19,
        20,
        21,
        22,
        23,
        25,
        26,
        27,
        28,
        29,
        30,
        31,
        32,
        33,
        35,
        36,
        37,
        38,
        39,
        40,
        53,
        54,
        57,
        59,
    ],
)
def test_a_claim_that_own_data_decide_is_never_entered_as_not_comparable(claim):
    call = entered(load_claims().loc[claim, "report"], claim)
    given = (
        [*call.args[3:4], *(k.value for k in call.keywords if k.arg == "verdict")]
        if ast.unparse(call.func) == "ledger.enter"
        else []
    )
    assert not [v for v in given if isinstance(v, ast.Constant)], ast.unparse(call)


def test_the_rules_are_those_that_the_notebooks_state():
    assert (
        stand_in("torlapati", 59, rank=0.8999999999999998) == "agrees"
        and stand_in("torlapati", 59, rank=0.7) == "inconclusive"
        and stand_in("torlapati", 59, rank=-1e-12) == "disagrees"
    )
    people = lambda low, high: {"low": low, "high": high}
    assert stand_in("forbush", 22, anybody=people(0.9, 0.95), nobody=people(0.6, 0.8)) == "agrees"
    assert (
        stand_in("forbush", 22, anybody=people(0.5, 0.7), nobody=people(0.9, 0.99))
        == "inconclusive"
    )  # no effect of memory, so nothing against it
    assert [
        stand_in(
            "kaminskyi",
            33,
            low_dice=[1, 2],
            detected=[d] * 2,
            unnoticed=[u] * 2,
            np=__import__("numpy"),
        )
        for d, u in ((True, False), (False, True), (False, False))
    ] == ["agrees", "disagrees", "inconclusive"]
    fell = lambda films, jpeg: stand_in(
        "kaminskyi", 40, fell_by={"films": [films] * 9, "JPEG": [jpeg] * 9}
    )
    assert [fell(True, True), fell(False, True), fell(False, False)] == [
        "agrees",
        "inconclusive",
        "inconclusive",
    ]


def kaminskyi_rules(**values) -> dict:
    "The functions by which that notebook judges."
    import numpy as np

    cells = json.loads((PAPERS / "kaminskyi.ipynb").read_text(encoding="utf-8"))["cells"]
    found = [
        n
        for c in cells
        if c["cell_type"] == "code"
        for n in ast.parse("".join(c["source"])).body
        if isinstance(n, ast.FunctionDef) and n.name in ("by_margin", "by_reading")
    ]
    names = {"np": np, "judge_ordinal": judge_ordinal, "least_difference": 0.05, **values}
    exec("\n".join(map(ast.unparse, found)), names)
    return names


def test_a_tie_is_no_order():
    by_margin = kaminskyi_rules()["by_margin"]
    assert (
        by_margin([0.28, 0.3, 0.11, 0]) == "inconclusive"
        and by_margin([0.28, 0.3, 0.11, 0.06]) == "agrees"
    )
    assert (
        by_margin([-0.1, -0.2]) == "disagrees"
        and by_margin([0, 0]) == by_margin([0.05, -0.05]) == by_margin([]) == "inconclusive"
    )


def test_a_network_that_has_not_learnt_silences_its_own_reading_only():
    about = {
        "KINDS": ("Unet", "Unet_v1"),
        "READINGS": {"as reported": ["A, second", "B, first"], "alike": ["B, first", "A, first"]},
    }
    held = {
        ("as reported", "F1"): [True] * 3,
        ("alike", "F1"): [False] * 3,
        ("alike", "AUC"): [False] * 3,
    }
    verdict, words = kaminskyi_rules(unlearnt=["A, second"], **about)["by_reading"](held)
    assert (
        verdict == "disagrees"
        and "as reported: not judged (own set not learnt by A, second)" in words
        and "alike: disagrees" in words
    )
    assert kaminskyi_rules(unlearnt=[], **about)["by_reading"](held)[0] == "inconclusive", (
        "the two readings differ"
    )
    assert kaminskyi_rules(unlearnt=["Unet"], **about)["by_reading"](held)[0] == "inconclusive", (
        "none can be judged"
    )
    assert (
        kaminskyi_rules(unlearnt=["A, second"], **about)["by_reading"](
            held | {("alike", "AUC"): [True] * 3}
        )[0]
        == "inconclusive"
    ), "its levels differ"


def test_the_summary_in_the_readme_is_that_of_the_committed_ledgers():
    assert ledger_markdown(summarise_ledgers(load_ledgers(PAPERS))) in (
        ROOT / "README.md"
    ).read_text(encoding="utf-8")


def test_a_stale_summary_is_noticed(tmp_path, monkeypatch):
    index = json.loads((ROOT / "nbs" / "index.ipynb").read_text())
    counts = summarise_ledgers(load_ledgers(PAPERS))
    counts.loc["all", "reproduced"] += 1
    assert (
        in_step.with_ledger(
            copy.deepcopy(index), ledger_markdown(summarise_ledgers(load_ledgers(PAPERS)))
        )
        == index
    )
    assert in_step.with_ledger(copy.deepcopy(index), ledger_markdown(counts)) != index
    with pytest.raises(SystemExit, match="0 places for the ledger"):
        in_step.with_ledger({"cells": []}, "")


def test_a_verdict_that_changes_in_a_notebook_changes_the_counts(tmp_path):
    report = executed()[0]
    ledger = read_ledger(PAPERS / f"{report}.ipynb")
    claim = ledger.index[ledger["verdict"] == "not comparable"][0]
    text = (PAPERS / f"{report}.ipynb").read_text(encoding="utf-8")
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            html = "".join(output.get("data", {}).get("text/html", ""))
            changed = re.sub(
                rf"(<th[^>]*>{claim}</th>.*?<td[^>]*>)not comparable(</td>)",
                r"\1reproduced\2",
                html,
                count=1,
                flags=re.S,
            )
            if changed != html:
                output["data"]["text/html"] = changed.splitlines(keepends=True)
    (tmp_path / f"{report}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (tmp_path / "claims.toml").write_bytes((PAPERS / "claims.toml").read_bytes())
    before, after = (
        summarise_ledgers(load_ledgers(PAPERS)).loc[report],
        summarise_ledgers(load_ledgers(tmp_path)).loc[report],
    )
    assert (
        after["reproduced"] == before["reproduced"] + 1
        and after["not comparable"] == before["not comparable"] - 1
    )
    assert ledger_markdown(summarise_ledgers(load_ledgers(tmp_path))) not in (
        ROOT / "README.md"
    ).read_text(encoding="utf-8")


def test_a_notebook_of_other_claims_is_an_error(tmp_path):
    report = executed()[0]
    (tmp_path / f"{report}.ipynb").write_bytes((PAPERS / f"{report}.ipynb").read_bytes())
    first = NUMBERS[report][0]
    text = (PAPERS / "claims.toml").read_text(encoding="utf-8")
    (tmp_path / "claims.toml").write_text(
        re.sub(
            rf"\[\[claim\]\]\nid = {first}\n.*?(?=\[\[claim\]\])", "", text, count=1, flags=re.S
        ),
        encoding="utf-8",
    )
    with pytest.raises(
        ClaimError,
        match=rf"claims \[{first}\] are in its ledger or in claims.toml, but not in both",
    ):
        load_ledgers(tmp_path)


def test_the_readme_s_picture_is_small_has_words_and_is_of_these_ledgers():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert (
        re.search(r"!\[[^\]]{80,}\]\(nbs/overview\.png\)", readme)
        and overview.TARGET.stat().st_size < 150_000
    )
    assert overview.counts_in(overview.TARGET) == overview.ledger_counts(), (
        "the picture counts other verdicts: make overview"
    )
    assert list(overview.VERDICT_COLOURS) == list(VERDICTS)


def test_the_picture_carries_what_it_was_drawn_from(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    shown = {
        "real": rng.random((32, 32, 3)),
        "fake": rng.random((32, 32, 3)),
        "mask": np.eye(32, dtype=bool),
        "map": rng.normal(size=(16, 16)),
        "spectra": {"real": rng.random((3, 20)), "fake": rng.random((3, 20))},
    }
    counts = {verdict: i + 1 for i, verdict in enumerate(VERDICTS)}
    (tmp_path / "a.png").write_bytes(overview.draw(shown, counts))
    assert overview.counts_in(tmp_path / "a.png") == counts != overview.ledger_counts()


def test_the_command_prints_the_same_counts():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from deepfake_nb.cli import main; raise SystemExit(main(['ledger']))",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    rows = {
        line.split("  ")[0].strip(): line.split()
        for line in done.stdout.splitlines()
        if line.strip()
    }
    counts = summarise_ledgers(load_ledgers())
    for name in ("claims", "reproduced", "value lost"):
        assert rows[name][-1] == str(counts.loc["all", name] or "–")
