"""Kun's study of spectra: its rule for claim 70, its slider in the book, its confirmation run."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepfake_nb.reporting.claims import load_claims, load_profiles
from deepfake_nb.reporting.verdicts import judge_claims
from deepfake_nb.studies.spectra import FaceSet
from deepfake_nb.studies.spectrum_figures import cycles_per_pixel, jpeg_curves, jpeg_explorer
from deepfake_nb.studies.spectrum_tests import exchange_scores, score_table

ROOT = Path(__file__).resolve().parent.parent


def made_up_faces(n: int = 120, seed: int = 0) -> FaceSet:
    "Noise as faces, two a group, fakes smoother than reals."
    rng, label = np.random.default_rng(seed), np.arange(n) % 2
    grey = [rng.normal(128, 30 - 9 * k, (40, 40)).clip(0, 255).astype(np.uint8) for k in label]
    names = [f"v{i // 2}" for i in range(n)]
    table = pd.DataFrame({"video": names, "frame": range(n), "source_path": "f.jpg"})
    return FaceSet(table, label, np.array([str(i // 2) for i in range(n)]), "videos", grey)


@pytest.mark.parametrize(
    ("moved", "verdict"), [(1, "agrees"), (0, "disagrees")], ids=["the fakes", "the reals"]
)
def test_claim_70_is_decided_by_the_class_whose_exchange_costs_more(moved, verdict):
    "On another database one class gets the scores of the other."
    own, other = made_up_faces(), made_up_faces(seed=1)
    rng = np.random.default_rng(2)
    score = {name: of.label + rng.normal(0, 0.7, 120) for name, of in (("own", own), ("o", other))}
    score["o"][other.label == moved] += 1 - 2 * moved
    pooled = exchange_scores((own, score["own"]), (other, score["o"]), "svm poly")
    training = score_table(own, "training", {"svm poly": own.label + 0.1 * score["own"]})
    table = pd.concat([training, pooled], ignore_index=True)
    judged = judge_claims(table, load_claims("kun").loc[[70]], "synthetic-faces-hard")
    assert [row["verdict"] for row in judged] == [verdict]


def test_the_slider_of_the_book_reads_what_the_paper_writes():
    class Model:
        def decision_function(self, x):
            return -x[:, 50]

    curves = jpeg_curves(made_up_faces(), Model(), [0, 50], points=20)
    text = jpeg_explorer(curves, np.full((40, 40), 90, np.uint8))
    data = json.loads(html.unescape(re.search('data-curves="([^"]*)"', text)[1]))
    script = (ROOT / "nbs/book/static/jpeg.js").read_text()
    assert '"jpeg.js"' in (ROOT / "nbs/book/conf.py").read_text()
    kind = re.search('class="([^"]*)"', text)[1]
    assert f'querySelectorAll(".{kind}")' in script and "dataset.curves" in script
    read = set(re.findall(r"\bsteps?(?:\[0\])?\.(\w+)", script)) - {"flatMap", "length"}
    assert read == set(data["steps"][0]) and set(data) == {"frequency", "steps"}
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|fetch\(|import ", script)
    value, low, high = data["steps"][1]["auc"]
    assert len(data["steps"][1]["curve"]) == 20 and 0 <= low <= value <= high <= 1


def test_the_finest_stripes_lie_at_half_a_cycle_a_pixel():
    frequency = cycles_per_pixel(300, 107)
    assert frequency[0] < 0.02 and 0.66 < frequency[-1] < np.sqrt(0.5)
    assert (np.diff(frequency) > 0).all()


def test_confirmation_differs_from_quick_by_its_people_and_seeds_alone():
    profiles = load_profiles()["kun"]

    def without_seeds(values: dict) -> dict:
        kept = {k: v for k, v in values.items() if k not in ("seed", "seconds")}
        return {k: without_seeds(v) if isinstance(v, dict) else v for k, v in kept.items()}

    quick, confirmation = profiles["quick"], profiles["confirmation"]
    assert without_seeds(quick) == without_seeds(confirmation)
    people = [confirmation["embedded"]["dataset_options"]["seed"]]
    people += [confirmation[f"{name}_options"]["seed"] for name in ("other", "third")]
    assert people == [100, 101, 102] and confirmation["seed"] == 100
