"Scores of any detector: reading, missing samples, tests, power, the command and its page."

import json
import pickle
import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from deepfake_nb.cli import main
from deepfake_nb.core.errors import SampleError
from deepfake_nb.evaluation.intervals import bootstrap_interval
from deepfake_nb.evaluation.metrics import auc
from deepfake_nb.evaluation.power import auc_standard_error, detectable_difference
from deepfake_nb.evaluation.significance import (
    compare_models,
    delong_covariance,
    delong_test,
    holm,
)
from deepfake_nb.reporting.judge import judge_scores, judgement_text
from deepfake_nb.reporting.judge_page import write_judgement
from deepfake_nb.reporting.scores import align_scores, read_samples, read_scores

# ---- DeLong's test


def slow_covariance(y: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "AUC and covariance by the definition of DeLong et al. (1988): all pairs of fake and real."
    aucs, of_fakes, of_reals = [], [], []
    for score in scores:
        fake, real = score[y == 1][:, None], score[y == 0][None]
        ordered = (fake > real) + 0.5 * (fake == real)
        aucs.append(ordered.mean())
        of_fakes.append(ordered.mean(1))
        of_reals.append(ordered.mean(0))
    k = len(scores)
    covariance = np.empty((k, k))
    for i in range(k):
        for j in range(k):
            s10 = np.sum((of_fakes[i] - aucs[i]) * (of_fakes[j] - aucs[j])) / ((y == 1).sum() - 1)
            s01 = np.sum((of_reals[i] - aucs[i]) * (of_reals[j] - aucs[j])) / ((y == 0).sum() - 1)
            covariance[i, j] = s10 / (y == 1).sum() + s01 / (y == 0).sum()
    return np.array(aucs), covariance


@pytest.mark.parametrize("seed", range(6))
def test_delong_by_ranks_is_delong_by_pairs(seed):
    rng = np.random.default_rng(seed)
    y = np.r_[0, 0, 1, 1, rng.integers(0, 2, 40 + 20 * seed)]
    scores = rng.normal(0, 1, (3, len(y))) + y * rng.random((3, 1))
    scores = scores.round(1) if seed % 2 else scores  # with many ties
    (aucs, covariance), (slow_aucs, slow) = delong_covariance(y, scores), slow_covariance(y, scores)
    np.testing.assert_allclose(aucs, slow_aucs, rtol=1e-12)
    np.testing.assert_allclose(aucs, [auc(y, s) for s in scores], rtol=1e-12)
    np.testing.assert_allclose(covariance, slow, rtol=1e-9, atol=1e-15)
    test = delong_test(y, scores[0], scores[2])
    variance = slow[0, 0] + slow[2, 2] - 2 * slow[0, 2]
    assert test.p_value == pytest.approx(
        2 * norm.sf(abs(slow_aucs[0] - slow_aucs[2]) / variance**0.5)
    )


def two_models(rng: np.random.Generator, y: np.ndarray, aucs: tuple[float, float]) -> np.ndarray:
    "Scores of two models whose errors correlate by one half, with these true AUC."
    shifts = np.sqrt(2) * norm.ppf(aucs)
    noise = np.sqrt(0.5) * (rng.normal(size=len(y)) + rng.normal(size=(2, len(y))))
    return shifts[:, None] * y + noise


@pytest.mark.slow
def test_delong_finds_a_difference_that_is_not_there_in_5_percent():
    rng, y = np.random.default_rng(0), np.arange(120) % 2
    p = [delong_test(y, *two_models(rng, y, (0.75, 0.75))).p_value for _ in range(3000)]
    for level in (0.05, 0.2):  # within three standard errors of a share, and a little for n = 60
        assert np.mean(np.array(p) < level) == pytest.approx(
            level, abs=0.012 + 0.01 * (level > 0.1)
        )


def test_a_perfect_model_is_as_many_standard_errors_better_as_the_note_says():
    rng, y = np.random.default_rng(11), np.arange(100) % 2
    score = 2.2 * y + rng.normal(size=100)
    error = auc_standard_error(y, score)
    assert delong_test(y, y, score).z == pytest.approx((1 - auc(y, score)) / error)


# ---- groups


def grouped(rng: np.random.Generator, groups: int, frames: int, signals: tuple[float, float]):
    "Labels, scores of two models and groups: people with `frames` frames each."
    people = np.repeat(np.arange(groups), frames)
    y = people % 2
    common = rng.normal(0, 0.5, groups)[people]
    own = rng.normal(0, 0.8, (2, groups))[:, people]
    scores = np.array(signals)[:, None] * y + common + own + rng.normal(0, 0.5, (2, len(y)))
    return y, dict(zip("AB", scores)), people


@pytest.mark.slow
def test_where_groups_have_several_samples_the_bootstrap_holds_its_level_and_delong_does_not():
    rng, by_bootstrap, by_delong = np.random.default_rng(1), [], []
    for _ in range(400):
        y, scores, people = grouped(rng, 60, 4, (1.5, 1.5))
        row = compare_models(y, scores, people, n_resamples=300).iloc[0]
        assert row["decided_by"] == "bootstrap" and row["p_holm"] == row["p_bootstrap"]
        by_bootstrap.append(row["p_bootstrap"])
        by_delong.append(row["p_delong"])
    assert 0.02 < np.mean(np.array(by_bootstrap) < 0.05) < 0.085
    assert np.mean(np.array(by_delong) < 0.05) > 0.2


def test_where_samples_are_independent_both_methods_agree():
    rng, y = np.random.default_rng(2), np.arange(400) % 2
    first, second = two_models(rng, y, (0.8, 0.75))
    row = compare_models(y, {"first": first, "second": second}).iloc[0]
    assert row["decided_by"] == "DeLong"
    assert row["p_bootstrap"] == pytest.approx(row["p_delong"], abs=0.02)
    half = (row["high"] - row["low"]) / 2
    assert half == pytest.approx(1.96 * row["standard_error"], rel=0.08)


def test_p_value_of_the_bootstrap_belongs_to_its_interval():
    rng = np.random.default_rng(3)
    for signal in (1.5, 1.7, 1.9):
        y, scores, people = grouped(rng, 40, 5, (signal, 1.5))
        p = compare_models(y, scores, people, n_resamples=500)["p_bootstrap"].iloc[0]
        assert p > 0.01  # no p-value is below 2 / n_resamples
        for level, excludes in ((p * 1.05, True), (p * 0.95, False)):
            row = compare_models(y, scores, people, 500, confidence_level=1 - level).iloc[0]
            assert (row["low"] > 0 or row["high"] < 0) == excludes


# ---- many pairs


def test_holm_is_its_definition():
    rng = np.random.default_rng(4)
    for _ in range(20):
        p = rng.random(7) ** 3
        expected, highest = np.empty(7), 0.0
        for rank, i in enumerate(sorted(range(7), key=lambda i: p[i])):
            highest = max(highest, min(1.0, (7 - rank) * p[i]))
            expected[i] = highest
        np.testing.assert_allclose(holm(p), expected)


def test_six_equal_models_rarely_give_one_finding():
    rng, y, found = np.random.default_rng(5), np.arange(160) % 2, []
    for _ in range(300):
        noise = np.sqrt(0.5) * (rng.normal(size=160) + rng.normal(size=(6, 160)))
        aucs, covariance = delong_covariance(y, y + noise)
        i, j = np.triu_indices(6, 1)
        variance = covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]
        p = 2 * norm.sf(np.abs(aucs[i] - aucs[j]) / np.sqrt(variance))
        found.append(((p < 0.05).any(), (holm(p) < 0.05).any()))
    naive, adjusted = np.mean(found, axis=0)
    assert naive > 0.2 and adjusted < 0.08


# ---- power


def test_detectable_difference_is_found_in_80_percent_of_new_data():
    rng, y = np.random.default_rng(6), np.arange(300) % 2
    errors = [delong_test(y, *two_models(rng, y, (0.8, 0.8))).standard_error for _ in range(20)]
    promised = detectable_difference(np.mean(errors))
    for share, low, high in ((1.0, 0.76, 0.84), (0.5, 0.2, 0.4)):  # half of it: far less often
        aucs = (0.8 + share * promised / 2, 0.8 - share * promised / 2)
        p = [delong_test(y, *two_models(rng, y, aucs)).p_value for _ in range(1000)]
        assert low < np.mean(np.array(p) < 0.05) < high


def test_one_models_detectable_difference_holds_for_a_model_that_correlates_by_half():
    "As the notes say: then the difference has the standard error of one AUC."
    rng, y = np.random.default_rng(7), np.arange(400) % 2
    alone, both = [], []
    for _ in range(40):
        scores = two_models(rng, y, (0.8, 0.8))
        covariance = delong_covariance(y, scores)[1]
        alone.append(auc_standard_error(y, scores[0]))
        both.append(delong_test(y, *scores).standard_error)
        correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
        assert 0.3 < correlation < 0.65
    assert np.mean(both) == pytest.approx(np.mean(alone), rel=0.1)


@pytest.mark.slow
def test_detectable_difference_holds_for_groups():
    rng = np.random.default_rng(8)
    errors = []
    for _ in range(20):
        y, scores, people = grouped(rng, 160, 3, (0.8, 0.8))
        table = compare_models(y, scores, people, n_resamples=300)
        errors.append(table["standard_error"].iloc[0])
    promised = detectable_difference(np.mean(errors))
    spread = np.sqrt(2 * (0.5**2 + 0.8**2 + 0.5**2))  # of a fake minus a real
    halves = np.array([promised, -promised]) / 2
    signals = spread * norm.ppf(norm.cdf(0.8 / spread) + halves)
    found = []
    for _ in range(300):
        y, scores, people = grouped(rng, 160, 3, signals)
        table = compare_models(y, scores, people, n_resamples=300)
        found.append(table["p_bootstrap"].iloc[0] < 0.05)
    assert 0.72 < np.mean(found) < 0.88


# ---- reading


def simulated(people: int = 12, frames: int = 3, models: tuple[str, ...] = ("A", "B")):
    rng, rows = np.random.default_rng(9), []
    for person in range(people):
        for label in (0, 1):
            for frame in range(frames):
                for i, model in enumerate(models):
                    logit = (2 - i) * (label - 0.5) + rng.normal()
                    row = {"model": model, "sample": f"{person}-{label}-{frame}", "label": label}
                    row |= {"score": 1 / (1 + np.exp(-logit)), "group": f"p{person}"}
                    row |= {"video": f"{person}-{label}"}
                    row |= {"manipulation": ("swap", "blend")[person % 2] if label else ""}
                    rows.append(row)
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("sample,label,score\na,0,0.1\nb,maybe,0.2\n", r"s\.csv, line 3: label is 'maybe'"),
        ("sample,label,score\na,0,0.1\nb,,0.2\n", r"s\.csv, line 3: label is empty"),
        ('sample,label,score\n"a\nb",0,0.1\nc,1,x\n', r"s\.csv, line 4: score is 'x'"),
        ("sample,label,score\na,0,inf\n", r"s\.csv, line 2: score is 'inf'"),
        ("sample,label,score\na,0,\n", r"s\.csv, line 2: score is empty"),
        ("sample,label,score\na,0,1\nb,1,1\na,0,1\n", r"line 4: model 's' has scored sample 'a'"),
        ("sample,label,score\na,0,1\nb,0,1\nc,0,1\n", r"3 real and 0 fake samples"),
        ("sample,label,score\na,0,1\nb,0,1\nc,1,1\n", r"2 real and 1 fake samples"),
        ("sample,label,score\n", r"s\.csv: no rows below the header"),
        ("", r"s\.csv, line 1: the columns are none"),
        ("sample,label\na,0\n", r"s\.csv, line 1: the columns are sample, label; expected"),
        ("sample,score,score\na,0,0\n", r"each once"),
        ("sample,label,score\na,0,1,9\n", r"s\.csv, line 2: 4 values; the header has 3"),
        ("sample,score\na,1\nb,2\n", r"sample 'a' has no label; add a column label"),
        ("sample,label,score,group\na,0,1,g\nb,1,1,\n", r"sample 'b' has no group"),
        ("model,sample,label,score\n,a,0,1\n", r"s\.csv, line 2: model is empty"),
        (
            "sample,label,score,video\na,0,1,v\nb,1,2,v\nc,0,1,w\nd,1,2,x\n",
            r"video 'v' has the labels 0 and 1",
        ),
        (
            "sample,label,score,video,manipulation\na,1,1,v,swap\nb,1,2,v,blend\nc,0,1,w,\nd,0,2,w,\n",
            r"video 'v' has the manipulations swap and blend; is this one name of several videos",
        ),
    ],
)
def test_bad_input_ends_the_command_with_file_line_and_value(tmp_path, capsys, content, expected):
    path = tmp_path / "s.csv"
    path.write_text(content)
    assert main(["judge", str(path)]) == 2
    message = capsys.readouterr().err
    assert re.search(expected, message), message
    assert "Traceback" not in message and "bug" not in message


def test_contradicting_models_are_named_with_their_lines(tmp_path):
    for name, label in (("one", 0), ("two", 1)):
        (tmp_path / f"{name}.csv").write_text(f"sample,label,score\nx,1,0.5\na,{label},0.5\n")
    scores = read_scores([tmp_path / "one.csv", tmp_path / "two.csv"])
    with pytest.raises(SampleError, match=r"two\.csv, line 3: sample 'a' has label 1, but 0 in"):
        align_scores(scores)


def test_long_table_and_one_file_a_model_are_the_same(tmp_path):
    table = simulated()
    table.to_csv(tmp_path / "all.csv", index=False)
    for model, own in table.groupby("model"):
        mixed = own.sample(frac=1, random_state=0)  # in another order
        mixed.drop(columns="model").to_csv(tmp_path / f"{model}.csv", index=False)
    long = judge_scores(read_scores(tmp_path / "all.csv"), n_resamples=100).as_dict()
    several = read_scores([tmp_path / "A.csv", tmp_path / "B.csv"])
    assert set(several["model"]) == {"A", "B"}
    short = judge_scores(several, n_resamples=100).as_dict()
    for name in ("samples", "videos"):
        a, b = long["levels"][name]["metrics"], short["levels"][name]["metrics"]
        np.testing.assert_allclose(a["value"], b["value"])


def test_files_of_one_name_become_models_by_their_folder(tmp_path):
    for folder in ("xception", "meso4"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "scores.csv").write_text("sample,label,score\na,0,0.5\nb,1,0.5\n")
    scores = read_scores([tmp_path / "xception/scores.csv", tmp_path / "meso4/scores.csv"])
    assert [m.split("/")[-2] for m in scores["model"].unique()] == ["xception", "meso4"]


class Trap:
    "An object whose pickle writes a file when it is opened."

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["m.pickle", "m.pkl", "m.pth", "m.csv", "m.npz", "m.json"])
@pytest.mark.parametrize("protocol", [0, 4])
def test_no_pickle_is_opened(tmp_path, name, protocol):
    trap, path = tmp_path / "sprung", tmp_path / name
    path.write_bytes(pickle.dumps(Trap(trap), protocol))
    with pytest.raises(SampleError) as caught:
        read_scores(path)
    assert not trap.exists()
    if name.endswith(("pickle", "pkl", "pth")):
        assert "json.dump" in str(caught.value)
    objects = tmp_path / "objects.npz"
    np.savez(objects, pred=np.array([Trap(trap)], dtype=object), label=[0], image=["a"])
    with pytest.raises(SampleError, match="without opening pickles"):
        read_scores(objects)
    assert not trap.exists()


def deepfakebench() -> dict[str, list]:
    "Predictions as DeepfakeBench keeps them: two manipulations that share names of videos."
    rng, arrays = np.random.default_rng(10), {"pred": [], "label": [], "image": []}
    for a, b in [(f"{2 * i:03}", f"{2 * i + 1:03}") for i in range(8)]:
        videos = [f"original_sequences/youtube/c23/frames/{name}" for name in (a, b)]
        for kind in ("Deepfakes", "FaceSwap"):
            videos += [
                f"manipulated_sequences/{kind}/c23/frames/{name}"
                for name in (f"{a}_{b}", f"{b}_{a}")
            ]
        for video in videos:
            for frame in range(4):
                label = int(video.startswith("manipulated"))
                arrays["pred"].append(float(1 / (1 + np.exp(-rng.normal(2 * label - 1)))))
                arrays["label"].append(label)
                arrays["image"].append(f"FaceForensics++/{video}/{frame:03}.png")
    return arrays


def test_deepfakebench_gives_videos_manipulations_and_people(tmp_path):
    arrays = deepfakebench()
    (tmp_path / "xception.json").write_text(json.dumps(arrays))
    np.savez(tmp_path / "as_npz.npz", **{key: np.array(value) for key, value in arrays.items()})
    scores = read_scores(tmp_path / "xception.json")
    assert scores["video"].nunique() == 8 * 6  # 8 · 4 by the last folder alone
    assert scores["group"].nunique() == 8  # pairs of people that swap faces
    assert scores.groupby("group").size().nunique() == 1
    assert set(scores.loc[scores["label"] == 1, "manipulation"]) == {"Deepfakes", "FaceSwap"}
    kept = ["label", "score", "video", "manipulation"]
    pd.testing.assert_frame_equal(scores[kept], read_scores(tmp_path / "as_npz.npz")[kept])
    judgement = judge_scores(scores, n_resamples=100)
    assert judgement.levels[1].counts == {"n": 48, "real": 16, "fake": 32, "groups": 8}
    nested = {"pred": [[p] for p in arrays["pred"]], "image": [[i, i] for i in arrays["image"]]}
    clips = arrays | nested  # of models of videos
    (tmp_path / "clips.json").write_text(json.dumps(clips))
    np.testing.assert_array_equal(read_scores(tmp_path / "clips.json")["score"], scores["score"])


# ---- missing samples


@pytest.mark.parametrize("scale", [1, 20])  # probabilities, and other scores
def test_missing_samples_are_excluded_or_wrong(scale):
    table = simulated()
    table["score"] *= scale
    lost = (table["model"] == "A") & table["sample"].str.endswith("-0")
    kept = table[~lost]
    excluded, wrong = (align_scores(kept, missing=policy) for policy in ("exclude", "wrong"))
    assert excluded.missing == wrong.missing == {"A": 24, "B": 0}
    assert len(excluded.samples) == 48 and len(wrong.samples) == wrong.expected == 72
    y, score = wrong.samples["label"].to_numpy(), wrong.scores["A"]
    missing = wrong.samples["sample"].str.endswith("-0").to_numpy()
    assert score[missing & (y == 1)].max() < score[~missing].min()
    assert score[missing & (y == 0)].min() > score[~missing].max()
    worst = auc(y[missing], score[missing])
    assert worst == 0
    judged = judge_scores(kept, missing="wrong", n_resamples=100)
    of_model = judged.levels[0].metrics.query("metric == 'AUC'").set_index("model")["value"]
    assert of_model["A"] == pytest.approx(auc(y, score))
    assert any("A lacks 24" in note and "--missing wrong" in note for note in judged.notes)
    brier = judged.levels[0].metrics.query("metric == 'Brier score' and model == 'A'")["value"]
    if scale == 1:
        assert brier.iloc[0] == pytest.approx(np.mean((np.clip(score, 0, 1) - y) ** 2))
    else:
        assert not len(brier)


def test_a_video_without_a_score_is_wrong_as_a_video():
    table = simulated()
    lost = (table["model"] == "A") & table["video"].isin(["0-1", "1-0"])
    videos = judge_scores(table[~lost], missing="wrong", n_resamples=100).levels[1]
    curve = videos.curves["A"]
    assert videos.counts["n"] == 24
    assert curve["true_positive_rate"].iloc[-2] < 1  # the lost fake ranks below all others
    assert curve["false_positive_rate"].iloc[1] > 0  # the lost real above


def test_against_a_list(tmp_path):
    table = simulated()
    names = table.drop_duplicates("sample")[["sample", "label", "group"]]
    extra = pd.DataFrame({"sample": ["new"], "label": [1], "group": ["p99"]})
    pd.concat([names.iloc[6:], extra]).to_csv(tmp_path / "list.csv", index=False)
    listed = read_samples(tmp_path / "list.csv")
    unlabelled = table[["sample", "score", "model"]]
    aligned = align_scores(unlabelled, listed, "wrong")
    assert (aligned.expected, aligned.missing, aligned.unlisted) == (67, {"A": 1, "B": 1}, 12)
    assert aligned.samples["group"].notna().all()
    notes = judge_scores(unlabelled, listed, n_resamples=100).notes
    assert any("12 scores of samples that are not in the list" in note for note in notes)
    half = table.assign(label=table["label"].where(table["model"] == "A"))  # B has no labels
    assert align_scores(half).samples["label"].tolist() == names["label"].tolist()
    with pytest.raises(SampleError, match="no scored sample is in the list: 'x' is scored"):
        align_scores(pd.DataFrame({"sample": ["x"], "score": [1]}), listed)


# ---- results


def test_numbers_are_those_of_the_library():
    table = simulated()
    own = table[table["model"] == "A"]
    frames, videos = judge_scores(table, n_resamples=300, seed=1).levels
    expected = bootstrap_interval("AUC", own["label"], own["score"], own["group"], 300, 1)
    row = frames.metrics.iloc[0]
    assert (row["value"], row["low"], row["high"]) == (expected.value, expected.low, expected.high)
    of_videos = own.groupby("video", sort=False).agg(
        {"label": "first", "score": "mean", "group": "first"}
    )
    expected = bootstrap_interval(
        "EER", *(of_videos[c] for c in ("label", "score", "group")), 300, 1
    )
    row = videos.metrics.iloc[1]
    assert (row["value"], row["low"]) == pytest.approx((expected.value, expected.low))
    swap = own[(own["label"] == 0) | (own["manipulation"] == "swap")]
    found = frames.manipulations.query("model == 'A' and manipulation == 'swap'").iloc[0]
    assert found["value"] == auc(swap["label"], swap["score"]) and found["fake"] == 18


def test_result_says_what_independence_rests_on():
    table = simulated()
    plain = judge_scores(table.drop(columns=["group", "video"]), n_resamples=100)
    assert "samples are taken as independent" in plain.notes[0]
    assert set(plain.levels[0].pairs["decided_by"]) == {"DeLong"}
    by_group = judge_scores(table, n_resamples=100)
    assert set(by_group.levels[0].pairs["decided_by"]) == {"bootstrap"}
    assert any("takes them as independent" in note for note in by_group.levels[0].notes)
    by_video = judge_scores(table.drop(columns="group"), n_resamples=100)
    decided = [set(level.pairs["decided_by"]) for level in by_video.levels]
    assert decided == [{"bootstrap"}, {"DeLong"}]
    with pytest.raises(SampleError, match="100 resamples for 3 pairs"):
        judge_scores(simulated(models=("A", "B", "C")), n_resamples=100)
    few = judge_scores(simulated(people=4), n_resamples=100)
    assert few.levels[0].pairs["p_holm"].isna().all()
    assert "too few groups" in judgement_text(few)


def test_the_command_prints_text_json_and_a_page(tmp_path, capsys):
    table, path = simulated(models=("A", "B", "C", "<D>")), tmp_path / "scores.csv"
    table.to_csv(path, index=False)
    page = tmp_path / "out" / "page.html"
    words = ["judge", str(path), "--resamples", "300", "--page", str(page)]
    assert main(words) == 0
    text = capsys.readouterr().out
    for part in ("72 samples: 36 real, 36 fake, in 12 groups", "A − B", "swap", "Power", str(page)):
        assert part in text
    assert max(map(len, text.split("\n- ")[0].splitlines())) < 130
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    judgement = judge_scores(read_scores(path), n_resamples=300)
    metrics = pd.DataFrame(found["levels"]["samples"]["metrics"])
    assert metrics["value"].tolist() == judgement.levels[0].metrics["value"].tolist()  # exact
    assert found["levels"]["samples"]["metrics"][5]["low"] is None  # calibration error
    assert len(found["levels"]["videos"]["pairs"]) == 6 and found["page"] == str(page)
    html = page.read_text(encoding="utf-8")
    assert "&lt;D&gt;" in html and "<D>" not in html
    assert html.count("<polyline") == 2 * 4 and 'name="viewport"' in html
    assert not re.findall(r'(?:src|href)="[^"]*"', html)
    assert write_judgement(page, judgement) == page
