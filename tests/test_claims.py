"The ledger: every claim of every report, entered as the report has it, and counted wherever it is counted."
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
from deepfake_nb.claims import VERDICTS, ClaimError, ledger_markdown, load_claims, load_ledgers, read_ledger, summarise_ledgers  # noqa: E402

PAPERS = ROOT / "nbs" / "papers"
NUMBERS = {"denholtz": range(1, 11), "forbush": range(11, 27), "kaminskyi": range(27, 43), "torlapati": range(43, 61), "kun": range(61, 80)}
IN_TEXT_ONLY = {1, 2, 3, 4, 11, 12, 17, 18, 19, 20, 22, 23, 25, 26, 29, 30, 31, 32, 33, 37, 38, 42, 43, 44, 52, 59, 60, 69, 70, 71, 78, 79}
CONTRADICTED = {5, 6, 10, 14, 24, 41, 49, 55, 58, 73, 74}
LOST = {7, 8, 35, 36, 37, 38, 39}  # of which the values are lost; of others only something beside it is
VALUES = {1: 75000, 2: [50, 470], 11: 400, 12: .8, 13: .8075, 14: 5, 15: .865, 16: .94, 34: [.95, .5], 43: 202599, 44: 10000, 45: 3117858, 46: 99142978, 47: 7305281, 48: 7040064, 49: 20879913,
          50: 24121729, 51: [529409, 23592320], 56: 600, 58: 9, 62: .78, 63: .71, 64: .73, 65: .42, 66: .78, 67: [2, 3], 68: .43, 69: .57, 73: 10, 75: [960, 1081, 6], 76: .62}


def executed() -> list[str]:
    return [p.stem for p in sorted(PAPERS.glob("*.ipynb")) if len(read_ledger(p))]


def test_the_claims_of_a_report_are_all_entered_and_nothing_else():
    claims = load_claims()
    for report, own in claims.groupby("report"): assert own.index.tolist() == list(NUMBERS[report]), report
    assert {p.stem for p in PAPERS.glob("*.ipynb")} <= set(claims["report"])


def test_claims_stand_as_the_reports_have_them():
    claims = load_claims()
    entered = set(claims.index)
    assert set(claims.index[claims["in_text_only"]]) == IN_TEXT_ONLY & entered
    assert set(claims.index[claims["contradiction"].notna()]) == CONTRADICTED & entered
    assert LOST & entered <= set(claims.index[claims["lost"].notna()])
    assert {n: claims.loc[n, "value"] for n in VALUES if n in entered} == {n: value for n, value in VALUES.items() if n in entered}
    assert set(claims["kind"]) <= {"exact", "numeric", "ordinal", "equivalence", "context", "arithmetic", "opinion"}
    assert claims["text"].is_unique and claims[["place", "text"]].notna().all(axis=None)


@pytest.mark.parametrize("report", executed())
def test_every_claim_has_one_verdict_with_its_reason(report):
    claims, ledger = load_claims(report), read_ledger(PAPERS / f"{report}.ipynb")
    assert ledger.index.tolist() == claims.index.tolist() and ledger["claim"].tolist() == claims["text"].tolist()
    assert set(ledger.index[ledger["verdict"] == "contradicted by the report itself"]) == set(claims.index[claims["contradiction"].notna()])
    assert set(ledger.index[ledger["verdict"] == "value lost"]) <= set(claims.index[claims["lost"].notna()])
    assert not ledger["reason"].isin(["", "–"]).any()


@pytest.mark.parametrize("report", executed())
def test_numbers_get_a_verdict_on_the_report_s_own_data_only(report):
    claims, ledger = load_claims(report), read_ledger(PAPERS / f"{report}.ipynb")
    assert "synthetic" in ledger.attrs["stamp"], "the committed papers are made on embedded data"
    numeric = claims.index[claims["kind"].isin(["numeric", "ordinal", "equivalence"])]
    assert not ledger.loc[numeric, "verdict"].isin(["reproduced", "not reproduced"]).any()


def test_the_summary_in_the_readme_is_that_of_the_committed_ledgers():
    assert ledger_markdown(summarise_ledgers(load_ledgers(PAPERS))) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_stale_summary_is_noticed(tmp_path, monkeypatch):
    index = json.loads((ROOT / "nbs" / "index.ipynb").read_text())
    counts = summarise_ledgers(load_ledgers(PAPERS))
    counts.loc["all", "reproduced"] += 1
    assert in_step.with_ledger(copy.deepcopy(index), ledger_markdown(summarise_ledgers(load_ledgers(PAPERS)))) == index
    assert in_step.with_ledger(copy.deepcopy(index), ledger_markdown(counts)) != index
    with pytest.raises(SystemExit, match="0 places for the ledger"): in_step.with_ledger({"cells": []}, "")


def test_a_verdict_that_changes_in_a_notebook_changes_the_counts(tmp_path):
    report = executed()[0]
    ledger = read_ledger(PAPERS / f"{report}.ipynb")
    claim = ledger.index[ledger["verdict"] == "not comparable"][0]
    text = (PAPERS / f"{report}.ipynb").read_text(encoding="utf-8")
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            html = "".join(output.get("data", {}).get("text/html", ""))
            changed = re.sub(rf'(<th[^>]*>{claim}</th>.*?<td[^>]*>)not comparable(</td>)', r"\1reproduced\2", html, count=1, flags=re.S)
            if changed != html: output["data"]["text/html"] = changed.splitlines(keepends=True)
    (tmp_path / f"{report}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (tmp_path / "claims.toml").write_bytes((PAPERS / "claims.toml").read_bytes())
    before, after = summarise_ledgers(load_ledgers(PAPERS)).loc[report], summarise_ledgers(load_ledgers(tmp_path)).loc[report]
    assert after["reproduced"] == before["reproduced"] + 1 and after["not comparable"] == before["not comparable"] - 1
    assert ledger_markdown(summarise_ledgers(load_ledgers(tmp_path))) not in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_notebook_of_other_claims_is_an_error(tmp_path):
    report = executed()[0]
    (tmp_path / f"{report}.ipynb").write_bytes((PAPERS / f"{report}.ipynb").read_bytes())
    first = NUMBERS[report][0]
    text = (PAPERS / "claims.toml").read_text(encoding="utf-8")
    (tmp_path / "claims.toml").write_text(re.sub(rf"\[\[claim\]\]\nid = {first}\n.*?(?=\[\[claim\]\])", "", text, count=1, flags=re.S), encoding="utf-8")
    with pytest.raises(ClaimError, match=rf"claims \[{first}\] are in its ledger or in claims.toml, but not in both"): load_ledgers(tmp_path)


def test_the_readme_s_picture_is_small_has_words_and_is_of_these_ledgers():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"!\[[^\]]{80,}\]\(nbs/overview\.png\)", readme) and overview.TARGET.stat().st_size < 150_000
    assert overview.counts_in(overview.TARGET) == overview.ledger_counts(), "the picture counts other verdicts: make overview"
    assert list(overview.VERDICT_COLOURS) == list(VERDICTS)


def test_the_picture_carries_what_it_was_drawn_from(tmp_path):
    import numpy as np
    rng = np.random.default_rng(0)
    shown = {"real": rng.random((32, 32, 3)), "fake": rng.random((32, 32, 3)), "mask": np.eye(32, dtype=bool), "map": rng.normal(size=(16, 16)),
             "spectra": {"real": rng.random((3, 20)), "fake": rng.random((3, 20))}}
    counts = {verdict: i + 1 for i, verdict in enumerate(VERDICTS)}
    (tmp_path / "a.png").write_bytes(overview.draw(shown, counts))
    assert overview.counts_in(tmp_path / "a.png") == counts != overview.ledger_counts()


def test_the_command_prints_the_same_counts():
    done = subprocess.run([sys.executable, "-c", "from deepfake_nb.cli import main; raise SystemExit(main(['ledger']))"], capture_output=True, text=True, timeout=300, check=True)
    rows = {line.split("  ")[0].strip(): line.split() for line in done.stdout.splitlines() if line.strip()}
    counts = summarise_ledgers(load_ledgers())
    for name in ("claims", "reproduced", "value lost"): assert rows[name][-1] == str(counts.loc["all", name] or "–")
