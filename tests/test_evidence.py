"""The committed evidence: every number and verdict follows from the scores beside it."""

import gzip
from pathlib import Path

import pytest

from deepfake_nb.cli import main
from deepfake_nb.reporting.evidence import SCORES, pack_folders, verify_pack
from deepfake_nb.reporting.verdicts import read_pack_scores

ROOT = Path(__file__).resolve().parent.parent
PACKS = pack_folders(ROOT / "nbs/papers/evidence")


@pytest.mark.parametrize("place", PACKS, ids=lambda place: place.name)
def test_everything_follows_from_the_scores(place):
    assert verify_pack(place) == []


@pytest.mark.parametrize("place", PACKS, ids=lambda place: place.name)
def test_a_pack_is_small_and_holds_scores_alone(place):
    assert {file.name for file in place.iterdir()} == {"pack.json", SCORES}
    assert sum(file.stat().st_size for file in place.iterdir()) < 1_000_000
    scores = gzip.decompress((place / SCORES).read_bytes()).decode()
    text = (place / "pack.json").read_text() + scores
    assert not any(word in text for word in ("/home", "/root", "/work", "/tmp"))
    read_pack_scores(place / SCORES)


def test_there_is_evidence_and_it_is_small():
    assert PACKS
    files = [file for place in PACKS for file in place.iterdir()]
    assert sum(file.stat().st_size for file in files) < 4_000_000


def test_the_command_makes_one_part_again_and_names_those_there_are(capsys):
    assert main(["ledger", "--check", "denholtz-dfdc-faces", "held out"]) == 0
    printed = capsys.readouterr().out
    assert "full image: AUC" in printed and "part “held out”: as kept" in printed
    for words, known in (
        (["denholtz-dfdc-faces", "evaluation"], "unknown part 'evaluation'; expected one of "),
        (["denholtz", "held out"], "unknown pack 'denholtz'; expected one of denholtz-dfdc"),
    ):
        assert main(["ledger", "--check", *words]) == 2
        assert known in capsys.readouterr().err
