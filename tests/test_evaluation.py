"""Metrics against scikit-learn, the coverage of intervals, and a health check that finds what was planted."""

import os
import subprocess
import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import metrics as sk

from deepfake_nb.evaluation.intervals import _resamples
from deepfake_nb.studies.audit import _close_pairs, _summary
from deepfake_nb.evaluation.calibration import (
    choose_threshold,
    expected_calibration_error,
    reliability_table,
)
from deepfake_nb.evaluation.intervals import (
    METRICS,
    bootstrap_interval,
    equivalence,
    mean_interval,
    metrics_table,
    paired_difference,
    precision_recall_f1,
    ratio_interval,
)
from deepfake_nb.evaluation.localization import (
    dice_causes,
    frame_rule,
    frame_scores,
    mask_counts,
    mask_metrics,
    tune_frame_rule,
    video_rule,
)
from deepfake_nb.evaluation.metrics import accuracy, auc, roc_table
from deepfake_nb.studies.audit import (
    class_counts,
    difference_hashes,
    duplicate_pairs,
    file_features,
    health_check,
    label_permutation,
    leak_test,
    near_duplicates,
    split_overlap,
    take_balanced,
    thumbnails,
)
from deepfake_nb.evaluation.localization import component_sizes, mask_iou
from deepfake_nb.forensics.masks import keep_components
from deepfake_nb.data.samples import make_samples, split_samples


# ---- metrics


@pytest.mark.parametrize("seed", range(5))
def test_metrics_agree_with_scikit_learn(seed):
    "Weighted metrics on tied scores, row by row, against sample_weight and against drawn copies."
    rng = np.random.default_rng(seed)
    y, score = rng.integers(0, 2, 80), rng.random(80).round(1 + seed % 2)
    weight = rng.integers(0, 4, (6, 80)).astype(float)
    curve = lambda w: sk.roc_curve(y, score, sample_weight=w, drop_intermediate=False)
    expected = {
        "AUC": lambda w: sk.roc_auc_score(y, score, sample_weight=w),
        "average precision": lambda w: sk.average_precision_score(y, score, sample_weight=w),
        "log loss": lambda w: sk.log_loss(y, score, sample_weight=w),
        "accuracy": lambda w: sk.accuracy_score(y, score > 0.5, sample_weight=w),
        "accuracy on real": lambda w: sk.recall_score(1 - y, score <= 0.5, sample_weight=w),
        "accuracy on fake": lambda w: sk.recall_score(y, score > 0.5, sample_weight=w),
        "EER": lambda w: np.interp(0, curve(w)[0] + curve(w)[1] - 1, curve(w)[0]),
        "TPR at 1 % FPR": lambda w: curve(w)[1][curve(w)[0] <= 0.01].max(),
        "balanced accuracy": lambda w: sk.balanced_accuracy_score(y, score > 0.5, sample_weight=w),
        "precision": lambda w: sk.precision_score(y, score > 0.5, sample_weight=w),
        "recall": lambda w: sk.recall_score(y, score > 0.5, sample_weight=w),
        "F1": lambda w: sk.f1_score(y, score > 0.5, sample_weight=w),
        "Brier score": lambda w: sk.brier_score_loss(y, score, sample_weight=w),
    }
    assert set(expected) == set(METRICS)
    for name, reference in expected.items():
        np.testing.assert_allclose(
            METRICS[name](y, score, weight), [reference(w) for w in weight], rtol=1e-9, err_msg=name
        )
    copies = np.repeat(np.arange(80), weight[0].astype(int))
    assert METRICS["AUC"](y, score, weight)[0] == pytest.approx(auc(y[copies], score[copies]))


def test_known_values():
    y = np.array([0, 0, 0, 1, 1])
    assert (
        auc(y, [0.1, 0.2, 0.3, 0.8, 0.9]) == 1
        and auc(y, [0.9, 0.8, 0.7, 0.2, 0.1]) == 0
        and auc(y, np.full(5, 0.3)) == 0.5
    )
    assert accuracy(y, [0.1, 0.2, 0.6, 0.8, 0.4]) == pytest.approx(0.6)
    assert accuracy(y, [0.5] * 5) == pytest.approx(0.6)  # exactly the threshold is not called fake
    assert accuracy(y, [0.1, 0.2, 0.6, 0.8, 0.4], threshold=0.3) == pytest.approx(0.8)
    assert auc(y, [-3, -2, -5, 9, 4]) == 1  # AUC takes logits, accuracy refuses them
    with pytest.raises(ValueError, match="logits"):
        accuracy(y, [-3, -2, -5, 9, 4])


def test_roc_table():
    rng = np.random.default_rng(0)
    y, score = rng.integers(0, 2, 200), rng.random(200).round(2)
    table = roc_table(y, score)
    assert list(table.columns) == ["false_positive_rate", "true_positive_rate", "threshold"]
    assert (
        table.iloc[0, :2].tolist() == [0, 0]
        and table.iloc[-1, :2].tolist() == [1, 1]
        and table.iloc[:, :2].diff().min().min() >= 0
    )
    assert np.trapezoid(table.true_positive_rate, table.false_positive_rate) == pytest.approx(
        auc(y, score)
    )


BAD = [
    ([0, 1, 1], [0.1, 0.2], "shape"),
    ([[0], [1]], [[0.1], [0.2]], "shape"),
    ([0, 1], [0.1, np.nan], "score 1 is nan"),
    ([0, 1], [np.inf, 0.2], "score 0 is inf"),
    ([0, 0], [0.1, 0.2], "all real"),
    ([1, 1], [0.1, 0.2], "all fake"),
    ([0, 3], [0.1, 0.2], "label 3"),
    ([], [], "both classes"),
]


@pytest.mark.parametrize("y, score, message", BAD)
def test_bad_input_is_refused(y, score, message):
    y, score = np.array(y), np.array(score)
    for call in (
        auc,
        accuracy,
        roc_table,
        metrics_table,
        lambda a, b: bootstrap_interval("AUC", a, b),
        lambda a, b: paired_difference(a, b, b),
    ):
        with pytest.raises(ValueError, match=message):
            call(y, score)


# ---- intervals


def people_scores(rng, people=24, frames=15, signal=1.0):
    who = np.repeat(np.arange(people), frames)
    y = who % 2
    return (
        y,
        1
        / (
            1 + np.exp(-(signal * y + rng.normal(0, 1, people)[who] + rng.normal(0, 0.4, len(who))))
        ),
        who,
    )


def test_grouped_intervals_cover_and_naive_ones_do_not():
    "Of many experiments with people drawn at random, the interval by person holds the truth in most, the one by frame in few."
    from scipy.stats import norm

    truth = norm.cdf(1.0 / np.sqrt(2 * (1 + 0.16)))
    rng, by_person, by_frame = np.random.default_rng(1), 0, 0
    for _ in range(80):
        y, score, who = people_scores(rng)
        by_person += bootstrap_interval("AUC", y, score, who, n_resamples=200).contains(truth)
        by_frame += bootstrap_interval("AUC", y, score, n_resamples=200).contains(truth)
    assert by_person >= 66 and by_frame <= 40, (by_person, by_frame)


def test_groups_are_drawn_whole_and_classes_stay():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 9, 60)
    y = np.where(groups < 3, 0, np.where(groups < 6, 1, rng.integers(0, 2, 60)))
    for weight in _resamples(y, groups, 300, seed=1):
        for g in range(9):
            assert (weight[:, groups == g] == weight[:, groups == g][:, :1]).all()
        assert (weight @ y > 0).all() and (weight @ (1 - y) > 0).all()
    total = np.concatenate(list(_resamples(y, groups, 4000, seed=1))).mean(0)
    np.testing.assert_allclose(total, 1, atol=0.1)  # each group is drawn once on average


def test_seed_level_and_resamples():
    y, score, who = people_scores(np.random.default_rng(0))
    a, b, c = (bootstrap_interval("AUC", y, score, who, seed=s) for s in (0, 0, 1))
    assert a == b and a != c and (a.n, a.groups) == (360, 24) and a.low < a.value < a.high
    narrow = bootstrap_interval("AUC", y, score, who, confidence_level=0.5)
    assert a.low < narrow.low < narrow.high < a.high and narrow.level == 0.5
    assert np.isnan(bootstrap_interval("AUC", y, score, who, n_resamples=0).low)


def test_blocks_do_not_change_the_draws():
    "Many samples are resampled in blocks; the metric sees as many resamples."
    y = np.tile([0, 1], 40_000)
    blocks = [len(w) for w in _resamples(y, np.arange(80_000) // 100, 60, seed=0)]
    assert sum(blocks) == 60 and len(blocks) > 1


def test_any_function_is_a_metric_and_gives_the_same_interval():
    y, score, who = people_scores(np.random.default_rng(0), frames=4)
    for name, function in (("AUC", sk.roc_auc_score), ("log loss", sk.log_loss)):
        quick, slow = (
            bootstrap_interval(m, y, score, who, n_resamples=50) for m in (name, function)
        )
        np.testing.assert_allclose(
            [quick.value, quick.low, quick.high], [slow.value, slow.low, slow.high], rtol=1e-9
        )
    with pytest.raises(ValueError, match="known are"):
        bootstrap_interval("F2", y, score)


def test_no_interval_from_a_handful_of_people():
    y, score, who = people_scores(np.random.default_rng(0), people=8)
    few = bootstrap_interval("AUC", y, score, who)
    assert (
        np.isfinite(few.value)
        and np.isnan(few.low)
        and not few.contains(few.value)
        and "no interval: 8 groups" in str(few)
    )
    assert np.isfinite(
        bootstrap_interval("AUC", *people_scores(np.random.default_rng(0), people=10)).low
    )


def test_groups_must_match():
    y, score, who = people_scores(np.random.default_rng(0))
    with pytest.raises(ValueError, match="359 groups for 360"):
        bootstrap_interval("AUC", y, score, who[1:])
    gap = np.where(np.arange(360) == 2, None, who.astype(object))
    with pytest.raises(ValueError, match="group of sample 2 is missing"):
        bootstrap_interval("AUC", y, score, gap)


def test_metrics_table():
    y, score, who = people_scores(np.random.default_rng(0))
    y, score, who = (
        y[:-15],
        score[:-15],
        who[:-15],
    )  # one person of the fakes fewer: unequal classes
    table = metrics_table(y, score, who, names=list(METRICS)).set_index("metric")
    assert (
        table.index.tolist() == list(METRICS)
        and (table.low <= table.value).all()
        and (table.value <= table.high).all()
    )
    assert table.value["accuracy"] == pytest.approx(accuracy(y, score)) and table.value[
        "log loss"
    ] == pytest.approx(sk.log_loss(y, score))
    constant = metrics_table(
        y, np.full(len(y), y.mean()), who, n_resamples=0, names=list(METRICS)
    ).set_index("metric")
    all_fake = ["precision", "recall", "F1"]
    np.testing.assert_allclose(
        constant.drop(all_fake).value, constant.drop(all_fake).without_looking
    )  # what the column promises
    called = precision_recall_f1(y, np.ones(len(y)), who, n_resamples=0)
    assert called.metric.tolist() == all_fake
    np.testing.assert_allclose(called.value, called.without_looking)


def test_nothing_called_fake_has_no_precision():
    y, none = np.arange(40) % 2, np.zeros(40)
    with np.errstate(all="raise"):
        table = precision_recall_f1(y, none, np.arange(40), n_resamples=50)
    assert (table[["value", "low", "high"]] == 0).all(axis=None)
    with pytest.raises(ValueError, match="decision 0.7: expected True or False"):
        precision_recall_f1(y, none + 0.7)


def test_ratio_intervals():
    rng = np.random.default_rng(0)
    who, upper, lower = np.arange(120) // 6, rng.random(120), rng.integers(0, 5, 120).astype(float)
    whole = ratio_interval(upper, lower, who, n_resamples=4000)
    assert (
        whole.value == pytest.approx(upper.sum() / lower.sum())
        and whole.low < whole.value < whole.high
        and whole.groups == 20
    )
    sums = np.stack([np.bincount(who, v) for v in (upper, lower)])  # the same, drawn by hand
    drawn = sums[:, rng.integers(0, 20, (4000, 20))].sum(-1)
    np.testing.assert_allclose(
        [whole.low, whole.high], np.quantile(drawn[0] / drawn[1], [0.025, 0.975]), atol=0.01
    )
    assert mean_interval(upper, who) == ratio_interval(upper, np.ones(120), who)
    rare = np.where(who == 3, 1.0, 0.0)  # most resamples have nothing below the line
    assert np.isfinite(ratio_interval(rare, rare, who, n_resamples=200).high)
    for arguments, message in (
        ((upper, -lower), "least addend -4"),
        ((upper, 0 * lower), "lower sum is 0"),
        ((upper, lower[1:]), "as many of each"),
        ((upper * np.nan, lower), "all finite"),
    ):
        with pytest.raises(ValueError, match=message):
            ratio_interval(*arguments)


def test_calibration():
    rng = np.random.default_rng(0)
    score = rng.random(3000)
    y = (rng.random(3000) < score).astype(int)
    for equal in (False, True):
        table = reliability_table(y, score, 7, equal)
        assert (
            table.n.sum() == 3000
            and (table.low <= table.score).all()
            and (table.score <= table.high).all()
        )
        by_hand = (
            sum(
                abs(score[i].mean() - y[i].mean()) * i.sum()
                for i in (
                    ((score >= r.low) & (score < r.high + 1e-9 * (r.high == table.high.max())))
                    for r in table.itertuples()
                )
            )
            / 3000
        )
        assert (
            expected_calibration_error(y, score, 7, equal) == pytest.approx(by_hand)
            and by_hand < 0.03
        )
    assert expected_calibration_error(y, 1 - score) > 0.4
    assert reliability_table([0, 1], [0.0, 1.0]).n.tolist() == [1, 1]  # the ends belong to bins
    assert expected_calibration_error([0, 1], [0.0, 1.0]) == 0
    with pytest.raises(ValueError, match="not logits"):
        reliability_table(y, score * 9)


# ---- maps


def smooth_maps(
    n: int, side: tuple = (48, 56), seed: int = 0, dtype: str = "float32"
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    maps = np.stack([cv2.GaussianBlur(rng.random(side), (0, 0), 0.5 + i % 5) for i in range(n)])
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return ((maps - low) / (high - low)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("min_points", [0, 24, 25, 600, 60_000])
def test_a_frames_score_exceeds_a_threshold_exactly_where_the_rule_says_fake(dtype, min_points):
    maps = smooth_maps(10, dtype=dtype)
    limit = min_points * 48 * 56 / 256**2
    scores = frame_scores(maps, min_points)
    for threshold in (0, 0.1, 0.5, 0.95, 1, *scores[:4], *np.nextafter(scores[:4], 0)):
        fake = [
            max([0, *component_sizes(m > threshold)]) > limit for m in maps.astype(float)
        ]  # the rule, word for word
        table = frame_rule(maps, threshold, min_points)
        assert table.fake.tolist() == fake == (scores > threshold).tolist()
        assert table.score.tolist() == scores.tolist()
    assert (
        np.diff([frame_scores(maps, p) for p in (0, 30, 300, 3000)], axis=0) <= 0
    ).all()  # more points, lower scores


def test_points_are_counted_at_256():
    square = np.zeros((1, 256, 256))
    square[0, :10, :10] = 0.9
    assert not frame_rule(square, 0.5).fake[0]  # 100 points are not more than 100
    square[0, 10, 10] = 0.9  # one more, at a corner
    assert frame_rule(square, 0.5).fake[0] and frame_rule(square, 0.5).points[0] == 101
    square[0, :16, :16] = 0.9
    for side in (64, 128, 512):
        resized = cv2.resize(square[0], (side, side), interpolation=cv2.INTER_AREA)[None]
        assert frame_rule(resized, 0.5).points[0] == pytest.approx(256, rel=0.03)
        assert frame_rule(resized, 0.5, 250).fake[0] and not frame_rule(resized, 0.5, 264).fake[0]
    two = np.zeros((1, 256, 256))
    two[0, :10, :9] = two[0, 50:60, :9] = 1  # two of 90 are not one of 180
    assert not frame_rule(two, 0.5).fake[0] and frame_rule(two, 0.5, 89).fake[0]
    assert frame_rule(two[..., None] > 0, 0.5, 89).fake[0]  # a trailing channel and booleans do


@pytest.mark.parametrize(
    "maps, word",
    [
        (np.zeros((4, 4)), "expected"),
        (np.zeros((0, 4, 4)), "expected"),
        (np.zeros((2, 4, 4, 3)), "expected"),
        (np.zeros((2, 4, 4), int), "int"),
        (np.full((1, 4, 4), -3.0), "map 0"),
        (np.array([np.zeros((4, 4)), np.full((4, 4), np.nan)]), "map 1 reaches from nan"),
    ],
)
def test_maps_that_are_none_are_refused(maps, word):
    for function in (
        frame_scores,
        lambda m: frame_rule(m, 0.5),
        lambda m: mask_counts(m, np.zeros(np.shape(m))),
    ):
        with pytest.raises(ValueError, match=word):
            function(maps)


def test_grid_search_finds_what_trying_all_finds():
    maps, y = smooth_maps(30, seed=3), np.random.default_rng(0).integers(0, 2, 30)
    thresholds, points = (0.2, 0.5, 0.7, 0.9), (0, 100, 1000)
    for metric, reference in (
        ("F1", sk.f1_score),
        ("balanced accuracy", sk.balanced_accuracy_score),
    ):
        found = tune_frame_rule(maps, y, thresholds, points, metric)
        expected = np.array(
            [[reference(y, frame_rule(maps, t, p).fake) for t in thresholds] for p in points]
        )
        np.testing.assert_allclose(found.table.to_numpy(), expected)
        assert found.value == expected.max() == found.table.loc[found.min_points, found.threshold]
    easy = np.stack(
        [np.full((32, 32), 0.8 if label else 0.1) for label in y]
    )  # all rules between 0.1 and 0.8 are perfect
    best = tune_frame_rule(easy, y, np.arange(1, 20) / 20)
    assert (best.min_points, best.value) == (
        100,
        1,
    ) and 0.4 <= best.threshold <= 0.5  # the report's points, the middle threshold
    with pytest.raises(ValueError, match="test frames"):
        tune_frame_rule(easy, y, split=np.where(np.arange(30) < 29, "validation", "test"))
    with pytest.raises(ValueError, match="both classes"):
        tune_frame_rule(easy, np.ones(30))


def test_more_than_half_of_the_frames():
    rows = [
        dict(path=f"{v}{f}", kind="image", label=v % 2, dataset="d", video=str(v), frame=f)
        for v in range(4)
        for f in range(2 + v)
    ]
    samples = make_samples(rows)
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(samples))
        called = np.random.default_rng(seed).random(len(samples)) < 0.5
        table = video_rule(samples.iloc[order], called[order]).set_index("video")
        for video, of in samples.reset_index(drop=True).groupby("video").groups.items():
            assert table.fake[video] == (2 * called[of].sum() > len(of)) and table.frames[
                video
            ] == len(of)
    for wrong, word in (
        (called.astype(float) / 2, "True or False"),
        (called[1:], "about 14 frames"),
        (np.full(14, np.nan), "True or False"),
    ):
        with pytest.raises(ValueError, match=word):
            video_rule(samples, wrong)
    with pytest.raises(ValueError, match="share=1"):
        video_rule(samples, called, share=1)


# ---- masks


def test_mask_metrics_against_pixels():
    rng = np.random.default_rng(0)
    masks, maps = (
        np.stack([keep_components(m > 0.55, 40) for m in smooth_maps(24, (40, 40))]),
        smooth_maps(24, (40, 40), seed=9),
    )
    masks[::3] = False  # reals
    maps[::6] = 0  # of which every second is left alone
    who = np.arange(24) // 2
    counts = mask_counts(maps, masks, 0.6)
    table = mask_metrics(counts, who).set_index("metric")
    called = maps > 0.6
    assert table.value["IoU, mean of all"] == pytest.approx(mask_iou(called, masks).mean())
    assert table.value["IoU, mean of fakes"] == pytest.approx(
        mask_iou(called, masks)[masks.any((1, 2))].mean()
    )
    assert table.value["Dice, mean of reals"] == pytest.approx((~called[::3].any((1, 2))).mean())
    assert table.value["Dice, mean of fakes"] == pytest.approx(
        np.mean(
            [
                sk.f1_score(m.ravel(), c.ravel(), zero_division=0)
                for m, c in zip(masks, called)
                if m.any()
            ]
        )
    )
    for name, reference in (
        ("Dice, pooled", sk.f1_score),
        ("IoU, pooled", sk.jaccard_score),
        ("pixel precision", sk.precision_score),
        ("pixel recall", sk.recall_score),
    ):
        assert table.value[name] == pytest.approx(reference(masks.ravel(), called.ravel()))
    assert (table.low <= table.value).all() and (table.value <= table.high).all()
    assert mask_metrics(counts, who, empty=0).set_index("metric").value["Dice, mean of reals"] == 0
    order = rng.permutation(24)
    np.testing.assert_allclose(
        mask_metrics(counts.iloc[order], who[order], n_resamples=0).value, table.value
    )


def test_causes_of_a_low_dice_add_up():
    masks = np.zeros((12, 16, 16), bool)
    masks[::2, 2:12, 2:12] = True
    half, loud = masks.astype(float), masks.astype(float)
    half[::2, 2:7] = 0  # half of the area missed
    loud[1::2, :5, :5] = 1  # reals with false positives
    part = lambda maps: (
        dice_causes(mask_counts(maps, masks), np.arange(12), n_resamples=100)
        .set_index("part")
        .value
    )
    assert part(masks.astype(float)).tolist() == [1, 0, 0, 0]
    assert part(half)["lost: missed area"] == pytest.approx(1 / 3) and part(half)[
        ["lost: false positives on reals", "lost: false positives on fakes"]
    ].tolist() == [0, 0]
    assert (
        part(loud)["lost: false positives on reals"] == pytest.approx(25 / 225)
        and part(loud)["lost: missed area"] == 0
    )
    for seed in range(3):
        noisy = np.random.default_rng(seed).random(masks.shape)
        assert part(noisy).sum() == pytest.approx(1) and part(noisy)["Dice"] == pytest.approx(
            sk.f1_score(masks.ravel(), noisy.ravel() > 0.5)
        )


def test_equivalence_needs_data_and_a_margin():
    y, score, who = people_scores(np.random.default_rng(0), people=60)
    close = score + np.random.default_rng(1).normal(0, 0.01, len(y))
    assert equivalence(y, close, score, 0.05, who).verdict == "equivalent"
    assert equivalence(y, 1 - score, score, 0.05, who).verdict == "different"
    few = np.isin(who, range(12))  # the same models on few people: nothing can be said
    one, other = (score + np.random.default_rng(s).normal(0, 0.4, len(y)) for s in (2, 3))
    assert equivalence(y[few], one[few], other[few], 0.01, who[few]).verdict == "undecided"
    assert (
        equivalence(y[few][:60], close[few][:60], score[few][:60], 0.05, who[few][:60]).verdict
        == "undecided"
    )  # four people: no interval


@pytest.mark.slow
def test_thresholds_are_best_where_they_were_chosen():
    rng = np.random.default_rng(5)
    for _ in range(20):
        y, score = rng.permutation(np.arange(60) % 2), rng.normal(size=60).round(1)
        balanced = lambda cut: sk.balanced_accuracy_score(y, score > cut)
        assert balanced(choose_threshold(y, score)) == pytest.approx(
            max(map(balanced, np.r_[score - 0.01, score + 0.01]))
        )
        gap = lambda cut: abs((score[y == 0] > cut).mean() - (score[y == 1] <= cut).mean())
        assert gap(choose_threshold(y, score, "EER")) == pytest.approx(
            min(map(gap, np.r_[score - 0.01, score + 0.01]))
        )


def test_paired_difference_is_sharper_than_two_intervals():
    y, score, who = people_scores(np.random.default_rng(0))
    better = 1 / (1 + np.exp(-(np.log(score / (1 - score)) + 0.3 * (2 * y - 1))))
    first, second = (bootstrap_interval("AUC", y, p, who) for p in (better, score))
    d = paired_difference(y, better, score, who)
    assert first.low < second.high  # the intervals overlap
    assert d.low > 0 and d.value == pytest.approx(auc(y, better) - auc(y, score))
    back = paired_difference(y, score, better, who)
    np.testing.assert_allclose(
        [back.value, back.low, back.high], [-d.value, -d.high, -d.low], atol=1e-12
    )


# ---- data


def picture(rng, person, size=96):
    small = np.clip(person + rng.normal(0, 22, person.shape), 0, 255).astype(np.float32)
    return np.clip(
        cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)
        + rng.normal(0, 4, (size, size, 3)),
        0,
        255,
    ).astype(np.uint8)


def fabricate(
    folder: Path,
    people=24,
    frames=5,
    fake=lambda p: p,
    quality=(90, 90),
    suffix=("jpg", "jpg"),
    seed=0,
) -> pd.DataFrame:
    "A sound dataset of smooth pictures, a palette a person, unless one of the arguments spoils it."
    rng, rows = np.random.default_rng(seed), []
    folder.mkdir(parents=True)
    for person in range(people):
        palette = rng.uniform(60, 200, (4, 4, 3))
        for frame in range(frames):
            for label in (0, 1):
                image = picture(rng, palette)
                path = folder / f"p{person}_{label}_{frame}.{suffix[label]}"
                cv2.imwrite(
                    str(path),
                    fake(image) if label else image,
                    [cv2.IMWRITE_JPEG_QUALITY, quality[label]],
                )
                rows.append(
                    dict(
                        path=str(path),
                        kind="image",
                        label=label,
                        dataset="made",
                        video=f"p{person}_{label}",
                        original=f"p{person}_0",
                        frame=frame,
                        identity=f"p{person}",
                    )
                )
    return split_samples(make_samples(rows))[0]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("sound") / "x")


@pytest.fixture(scope="module")
def careless(sound):
    return sound.assign(
        split=pd.array(np.random.default_rng(0).choice(["train", "test"], len(sound)), "string")
    )


def verdicts(samples):
    return leak_test(samples).set_index("feature").verdict.to_dict()


def test_sound_data_has_no_leak(sound):
    table = leak_test(sound)
    assert set(table.verdict) == {"no leak"} and {
        "file_size",
        "width",
        "height",
        "aspect",
        "quantisation_table",
        "mean_red",
        "brightness",
    } <= set(table.feature)
    assert table.direction_free.is_monotonic_decreasing and (table.direction_free >= 0.5).all()


PLANTED = {
    "one class resized": (
        dict(fake=lambda p: cv2.resize(p, (64, 64))),
        {"width", "height", "file_size"},
    ),
    "another JPEG quality": (
        dict(quality=(90, 70)),
        {"quantisation_table", "quantisation_mean", "file_size"},
    ),
    "another format": (dict(suffix=("jpg", "png")), {"format", "quantisation_table"}),
    "brighter": (
        dict(fake=lambda p: cv2.add(p, np.full_like(p, 60))),
        {"brightness", "mean_red", "mean_green", "mean_blue"},
    ),
    "cropped": (dict(fake=lambda p: p[:80]), {"height", "aspect"}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_leaks_are_found(name, tmp_path):
    spoil, features = PLANTED[name]
    found = {
        feature
        for feature, verdict in verdicts(fabricate(tmp_path / "x", frames=3, **spoil)).items()
        if verdict == "leak"
    }
    assert features <= found
    if name == "brighter":
        assert not {"width", "height", "aspect", "format", "quantisation_table"} & found


def test_part_of_the_fakes_with_another_table(tmp_path):
    "As in a published set: a quarter of the fakes carry a JPEG table that no real has, AUC .625 for a table's rank."
    samples = fabricate(tmp_path / "x", people=40, frames=4)
    for path in samples.path[samples.label == 1].iloc[::4]:
        cv2.imwrite(path, cv2.imread(path), [cv2.IMWRITE_JPEG_QUALITY, 60])
    row = leak_test(samples).set_index("feature").loc["quantisation_table"]
    assert row.verdict == "leak" and row.auc == pytest.approx(0.625, abs=0.02) and row.distinct == 2


def test_too_few_people_leave_it_undecided(sound):
    few = sound[sound.identity.isin(sorted(sound.identity.unique())[:3])]
    table = leak_test(few).set_index("feature")
    assert (
        table.verdict["file_size"] == "undecided"
        and np.isnan(table.low["file_size"])
        and table.verdict["width"] == "no leak"
    )


def test_leak_features_are_the_files_own(tmp_path):
    image = np.zeros((30, 40, 3), np.uint8)
    image[..., 2] = 200
    image[..., 1] = 50  # BGR
    cv2.imwrite(str(tmp_path / "a.png"), image)
    Image.fromarray(image[..., ::-1]).save(tmp_path / "b.jpg", quality=85)
    table = file_features(
        make_samples(
            [
                dict(path=str(tmp_path / n), kind="image", label=i, dataset="x")
                for i, n in enumerate(("a.png", "b.jpg"))
            ]
        )
    )
    assert (
        table.width.tolist() == [40, 40]
        and table.height.tolist() == [30, 30]
        and table.format.tolist() == ["PNG", "JPEG"]
    )
    assert table.file_size.tolist() == [(tmp_path / n).stat().st_size for n in ("a.png", "b.jpg")]
    np.testing.assert_allclose(
        table[["mean_red", "mean_green", "mean_blue"]], [[200, 50, 0]] * 2, atol=3
    )
    assert np.isnan(table.quantisation_mean[0]) and table.quantisation_mean[1] > 0


@pytest.mark.slow
def test_quantisation_names_are_the_same_in_every_process(sound):
    "Python salts its hashes of strings by process; the table's name must not depend on that."
    code = (
        "from deepfake_nb.evaluation import _image_header; from pathlib import Path; "
        f"print(_image_header(Path({sound.path[0]!r}))['quantisation_table'])"
    )
    names = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": s},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for s in ("1", "2")
    }
    assert len(names) == 1


def video(path: Path, rng, seconds=1.0, crf=23, size=64, rate=10):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(rate), options=dict(crf=str(crf), preset="ultrafast")
        )
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        still = cv2.resize(rng.uniform(0, 255, (6, 6, 3)).astype(np.float32), (size, size))
        for _ in range(int(seconds * rate)):
            frame = np.clip(still + rng.normal(0, 6, still.shape), 0, 255).astype(np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder, rng, rows = tmp_path_factory.mktemp("videos"), np.random.default_rng(0), []
    for i in range(24):
        label, path = i % 2, folder / f"v{i}.mp4"
        video(path, rng, seconds=1.5 if label else 1.0, crf=35 if label else 20)
        rows.append(
            dict(
                path=str(path),
                kind="video",
                label=label,
                dataset="x",
                video=f"v{i}",
                original=f"v{i}",
            )
        )
    return make_samples(rows)


def test_videos_leak_by_length_and_rate(videos):
    found = verdicts(videos)
    assert (
        found["duration"] == found["bit_rate"] == "leak"
        and found["width"] == found["codec"] == found["frame_rate"] == "no leak"
    )
    table = file_features(videos.head(2))
    assert (
        table.width.tolist() == [64, 64]
        and table.duration.round(1).tolist() == [1.0, 1.5]
        and set(table.codec) == {"h264"}
        and set(table.sound) == {0}
    )
    assert thumbnails(videos.head(3), 8).shape == (3, 192) and difference_hashes(
        videos.head(3)
    ).shape == (3,)


def test_members_of_archives_are_looked_at_like_files(sound, videos, tmp_path):
    for name, table in (
        ("videos", videos),
        ("pictures", sound.groupby(["split", "label"]).head(15).reset_index(drop=True)),
    ):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in table["path"]:
                archive.write(path, f"part/{Path(path).name}")
        packed = table.assign(
            path=[f"{tmp_path}/{name}.zip!/part/{Path(p).name}" for p in table["path"]]
        )
        pd.testing.assert_frame_equal(file_features(packed), file_features(table))
        pd.testing.assert_frame_equal(leak_test(packed), leak_test(table))
        np.testing.assert_array_equal(thumbnails(packed), thumbnails(table))
        np.testing.assert_array_equal(difference_hashes(packed), difference_hashes(table))
    pd.testing.assert_frame_equal(health_check(packed).summary, health_check(table).summary)
    gone = packed.head(1).assign(path=f"{tmp_path}/pictures.zip!/part/gone.jpg")
    for call in (file_features, difference_hashes, thumbnails):
        with pytest.raises(ValueError, match="cannot read image .*pictures.zip!/part/gone.jpg"):
            call(gone)


def test_kind_of_file_as_a_leak(sound, videos):
    mixed = pd.concat(
        [sound[sound.label == 0].head(12), videos[videos.label == 1]], ignore_index=True
    )
    with pytest.raises(ValueError, match="one class only"):
        leak_test(mixed)


def test_unreadable_file_is_named(tmp_path, sound):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    bad = pd.concat([sound.head(1), sound.head(1).assign(path=str(broken))], ignore_index=True)
    for call in (file_features, difference_hashes, thumbnails):
        with pytest.raises(ValueError, match="cannot read image .*broken.jpg"):
            call(bad)


# ---- split, duplicates, permutation


def test_counts_and_overlap(sound, careless):
    counts = class_counts(sound)
    assert (
        counts.loc["all", "real"] == counts.loc["all", "fake"] == 120
        and counts.drop("all").fake.sum() == 120
    )
    assert class_counts(
        sound.assign(split=pd.array([pd.NA] * len(sound), "string"))
    ).index.tolist() == ["not split", "all"]
    assert split_overlap(sound).in_two_parts.tolist() == [0, 0, 0]
    assert (split_overlap(careless).in_two_parts > [20, 20, 35]).all()


def test_overlap_counts_the_source_of_a_swap(sound):
    train, test = (sound[sound.split == part].identity.iloc[0] for part in ("train", "test"))
    row = sound.index[(sound.split == "test") & (sound.label == 1)][0]
    swapped = sound.copy()
    swapped.loc[row, "source"] = train
    assert (
        split_overlap(swapped).in_two_parts["people"] == 1
        and split_overlap(swapped).in_two_parts["videos"] == 0
        and test != train
    )


def test_hash_bits_are_the_difference_hash(tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (8, 9), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), grey)
    got = difference_hashes(
        make_samples([dict(path=str(tmp_path / "a.png"), kind="image", label=0, dataset="x")])
    )[0]
    assert bin(int(got)).count("1") == (grey[:, 1:] > grey[:, :-1]).sum()


def test_copies_are_found_and_others_are_not(sound, tmp_path):
    train = sound[(sound.split == "train")].head(4)
    changes = [
        lambda p: cv2.resize(p, (150, 150)),
        lambda p: cv2.convertScaleAbs(p, alpha=0.9, beta=15),
        lambda p: cv2.GaussianBlur(p, (3, 3), 0),
        lambda p: p,
    ]
    copies = []
    for (_, row), change in zip(train.iterrows(), changes):
        path = tmp_path / f"copy{len(copies)}.jpg"
        cv2.imwrite(str(path), change(cv2.imread(row.path)), [cv2.IMWRITE_JPEG_QUALITY, 70])
        copies.append(row.to_dict() | dict(path=str(path), split="test"))
    doubled = pd.concat([sound, make_samples(copies)], ignore_index=True)
    pairs = duplicate_pairs(doubled)
    assert {(a, b) for a, b in zip(pairs.path_a, pairs.path_b)} | {
        (b, a) for a, b in zip(pairs.path_a, pairs.path_b)
    } >= set(zip(train.path, (c["path"] for c in copies)))
    table = near_duplicates(doubled).set_index(["part_a", "part_b"])
    assert table.affected["train", "test"] == 4 and near_duplicates(sound).pairs.sum() == 0
    assert table.affected_share["train", "test"] == pytest.approx(
        4 / table.images_b["train", "test"]
    )


def test_close_pairs_against_brute_force():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 2**63, k, dtype=np.uint64) for k in (70, 50))
    b[:5] = a[10:15] ^ np.array([0, 1, 3, 7, 15], dtype=np.uint64)
    expected = {
        (i, j, bin(int(x ^ y)).count("1"))
        for i, x in enumerate(a)
        for j, y in enumerate(b)
        if bin(int(x ^ y)).count("1") <= 3
    }
    assert set(map(tuple, _close_pairs(a, b, 3, block=16))) == expected and len(expected) == 4


def test_permuted_labels(sound, careless):
    fair, unfair = label_permutation(sound), label_permutation(careless)
    assert (
        fair.verdict == "at chance"
        and unfair.verdict == "above chance"
        and unfair.permuted.low > 0.8
    )
    assert fair.unit == "identity" and len(fair.aucs) == fair.permuted.n == 200
    assert np.array_equal(label_permutation(sound).aucs, fair.aucs) and not np.array_equal(
        label_permutation(sound, seed=1).aucs, fair.aucs
    )


def test_permuted_labels_are_at_chance_on_average_for_any_seed(sound):
    means = [
        label_permutation(
            sound,
            features=np.random.default_rng(s).normal(size=(len(sound), 5)),
            seed=s,
            permutations=100,
        ).permuted.value
        for s in range(12)
    ]
    assert abs(np.mean(means) - 0.5) < 0.01


def test_permutation_without_a_split_keeps_people_apart(sound):
    unsplit = sound.assign(split=pd.array([pd.NA] * len(sound), "string"))
    result = label_permutation(unsplit)
    assert result.verdict == "at chance" and "half" in result.parts


def test_a_straddling_person_shows_in_a_large_table(sound):
    "Groups are drawn whole: a part of the table is enough to see people on both sides."
    big = pd.concat(
        [
            sound.assign(
                identity=sound.identity + f"-{k}",
                original=sound.original + f"-{k}",
                frame=sound.frame + 1000 * k,
                split=pd.array(
                    np.random.default_rng(k).choice(["train", "test"], len(sound)), "string"
                ),
            )
            for k in range(8)
        ],
        ignore_index=True,
    )
    assert label_permutation(big, n=200).verdict == "above chance"


def test_features_of_true_labels(sound):
    x = sound.label.to_numpy()[:, None] + np.random.default_rng(0).normal(0, 0.5, (len(sound), 3))
    shuffled = sound.sample(frac=1, random_state=0)  # an index that is not in order
    result = label_permutation(shuffled, features=x[shuffled.index])
    assert result.true.value > 0.9 and result.verdict == "at chance"
    with pytest.raises(ValueError, match="too few"):
        label_permutation(sound[sound.identity == sound.identity[0]].assign(split=pd.NA))


def test_take_balanced(sound):
    few = pd.concat([sound[sound.label == 0].head(5), sound[sound.label == 1]])
    assert take_balanced(few, 40).label.value_counts().to_dict() == {0: 5, 1: 20}
    assert (
        take_balanced(few, 40).index.equals(take_balanced(few, 40).index)
        and take_balanced(few, 40).index.isin(few.index).all()
    )


@pytest.mark.slow
def test_health_check(sound, careless, tmp_path):
    good, frames = health_check(sound), health_check(careless)
    resized = health_check(
        fabricate(tmp_path / "x", frames=3, fake=lambda p: cv2.resize(p, (64, 64)))
    )
    checks = good.summary.check.tolist()
    assert good.passed and set(good.summary.verdict) == {"pass"} and len(checks) == 5
    assert (
        not resized.passed
        and resized.summary.verdict.tolist() == ["pass", "pass", "fail", "pass", "pass"]
        and "width 1.00" in resized.summary.result[2]
    )
    assert not frames.passed and frames.summary.verdict[1] == frames.summary.verdict[4] == "fail"
    assert "<table" in good._repr_html_() and health_check(sound).summary.equals(good.summary)
    unsplit = health_check(sound.assign(split=pd.array([pd.NA] * len(sound), "string")))
    assert unsplit.passed and unsplit.summary.verdict.tolist() == [
        "pass",
        "undecided",
        "pass",
        "undecided",
        "pass",
    ]
    lopsided = sound[~((sound.split == "test") & (sound.label == 1))]
    assert (
        health_check(lopsided[lopsided.split != "test"]).passed
        and "fail"
        in _summary(
            class_counts(lopsided), good.overlap, good.leaks, good.duplicates, good.permutation
        ).verdict.tolist()
    )


@pytest.mark.slow
def test_real_pieces():
    "On real crops the checks run in seconds and find people-free splits sound."
    root = os.environ.get("DEEPFAKE_NB_DATA")
    if not root or not (Path(root) / "dfdc_faces").is_dir():
        pytest.skip("DEEPFAKE_NB_DATA has no dfdc_faces")
    from deepfake_nb.data.datasets import load_samples

    samples, _ = split_samples(load_samples("dfdc-faces", root))
    report = health_check(samples, n=200)
    leaks = report.leaks.set_index("feature")
    assert (
        report.permutation.verdict == "at chance"
        and leaks.verdict["width"] == leaks.verdict["quantisation_table"] == "no leak"
    )
    assert (
        report.duplicates.affected_share.max() < 0.02 and report.counts.loc["all", "real"] == 4995
    )
