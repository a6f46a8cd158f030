"""Metrics against scikit-learn, the coverage of intervals, and rules for frames and masks."""

import cv2
import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as sk

from deepfake_nb.data.samples import make_samples
from deepfake_nb.evaluation.calibration import (
    choose_threshold,
    expected_calibration_error,
    reliability_table,
)
from deepfake_nb.evaluation.comparison import (
    equivalence,
    metrics_table,
    paired_difference,
)
from deepfake_nb.evaluation.frames import frame_rule, frame_scores, tune_frame_rule, video_rule
from deepfake_nb.evaluation.intervals import (
    bootstrap_interval,
    mean_interval,
    ratio_interval,
    resample_weights,
)
from deepfake_nb.evaluation.localization import (
    component_sizes,
    connected_components,
    mask_counts,
    mask_iou,
    mask_metrics,
)
from deepfake_nb.evaluation.metrics import METRICS, accuracy, auc, roc_table
from deepfake_nb.forensics.masks import keep_components

# ---- metrics


@pytest.mark.parametrize("seed", range(5))
def test_metrics_agree_with_scikit_learn(seed):
    "Weighted metrics on tied scores, row by row, against sample_weight and against drawn copies."
    rng = np.random.default_rng(seed)
    y, score = rng.integers(0, 2, 80), rng.random(80).round(1 + seed % 2)
    weights = rng.integers(0, 4, (6, 80)).astype(float)

    def curve(weight):
        false, true, _ = sk.roc_curve(y, score, sample_weight=weight, drop_intermediate=False)
        return false, true

    def equal_error_rate(weight):
        false, true = curve(weight)
        return np.interp(0, false + true - 1, false)

    def true_positive_rate(weight, limit=0.01):
        false, true = curve(weight)
        return true[false <= limit + 1e-12].max()

    called = score > 0.5
    expected = {
        "AUC": lambda w: sk.roc_auc_score(y, score, sample_weight=w),
        "average precision": lambda w: sk.average_precision_score(y, score, sample_weight=w),
        "log loss": lambda w: sk.log_loss(y, score, sample_weight=w),
        "accuracy": lambda w: sk.accuracy_score(y, called, sample_weight=w),
        "accuracy on real": lambda w: sk.recall_score(1 - y, ~called, sample_weight=w),
        "accuracy on fake": lambda w: sk.recall_score(y, called, sample_weight=w),
        "EER": equal_error_rate,
        "TPR at 1 % FPR": true_positive_rate,
        "TPR at 5 % FPR": lambda w: true_positive_rate(w, 0.05),
        "balanced accuracy": lambda w: sk.balanced_accuracy_score(y, called, sample_weight=w),
        "precision": lambda w: sk.precision_score(y, called, sample_weight=w),
        "recall": lambda w: sk.recall_score(y, called, sample_weight=w),
        "F1": lambda w: sk.f1_score(y, called, sample_weight=w),
        "Brier score": lambda w: sk.brier_score_loss(y, score, sample_weight=w),
    }
    assert set(expected) == set(METRICS)
    for name, reference in expected.items():
        found = METRICS[name](y, score, weights)
        wanted = [reference(weight) for weight in weights]
        np.testing.assert_allclose(found, wanted, rtol=1e-9, err_msg=name)
    copies = np.repeat(np.arange(80), weights[0].astype(int))
    drawn = auc(y[copies], score[copies])
    assert METRICS["AUC"](y, score, weights)[0] == pytest.approx(drawn)


def test_known_values():
    y = np.array([0, 0, 0, 1, 1])
    assert auc(y, [0.1, 0.2, 0.3, 0.8, 0.9]) == 1
    assert auc(y, [0.9, 0.8, 0.7, 0.2, 0.1]) == 0
    assert auc(y, np.full(5, 0.3)) == 0.5
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
    assert table.iloc[0, :2].tolist() == [0, 0]
    assert table.iloc[-1, :2].tolist() == [1, 1]
    assert table.iloc[:, :2].diff().min().min() >= 0
    area = np.trapezoid(table.true_positive_rate, table.false_positive_rate)
    assert area == pytest.approx(auc(y, score))


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
    "Labels, scores and people: the score depends on the person far more than on the frame."
    who = np.repeat(np.arange(people), frames)
    y = who % 2
    of_person, of_frame = rng.normal(0, 1, people)[who], rng.normal(0, 0.4, len(who))
    return y, 1 / (1 + np.exp(-(signal * y + of_person + of_frame))), who


def test_grouped_intervals_cover_and_naive_ones_do_not():
    "With people drawn at random, most intervals by person contain the truth; few by frame do."
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
    for weights in resample_weights(y, groups, 300, seed=1):
        for group in range(9):
            drawn = weights[:, groups == group]
            assert (drawn == drawn[:, :1]).all()
        assert (weights @ y > 0).all() and (weights @ (1 - y) > 0).all()
    mean = np.concatenate(list(resample_weights(y, groups, 4000, seed=1))).mean(0)
    np.testing.assert_allclose(mean, 1, atol=0.1)  # each group is drawn once on average


def test_seed_confidence_level_and_resamples():
    y, score, who = people_scores(np.random.default_rng(0))
    a, b, c = (bootstrap_interval("AUC", y, score, who, seed=seed) for seed in (0, 0, 1))
    assert a == b and a != c and (a.n, a.groups) == (360, 24) and a.low < a.value < a.high
    narrow = bootstrap_interval("AUC", y, score, who, confidence_level=0.5)
    assert a.low < narrow.low < narrow.high < a.high and narrow.confidence_level == 0.5
    assert np.isnan(bootstrap_interval("AUC", y, score, who, n_resamples=0).low)


def test_blocks_do_not_change_the_number_of_draws():
    "Many samples are resampled in blocks; the metric sees as many resamples."
    y = np.tile([0, 1], 40_000)
    drawn = resample_weights(y, np.arange(80_000) // 100, 60, seed=0)
    blocks = [len(weights) for weights in drawn]
    assert sum(blocks) == 60 and len(blocks) > 1


def test_any_function_is_a_metric_and_gives_the_same_interval():
    y, score, who = people_scores(np.random.default_rng(0), frames=4)
    for name, function in (("AUC", sk.roc_auc_score), ("log loss", sk.log_loss)):
        quick = bootstrap_interval(name, y, score, who, n_resamples=50)
        slow = bootstrap_interval(function, y, score, who, n_resamples=50)
        for bound in ("value", "low", "high"):
            assert getattr(quick, bound) == pytest.approx(getattr(slow, bound), rel=1e-9)
    with pytest.raises(ValueError, match="known are"):
        bootstrap_interval("F2", y, score)


def test_no_interval_from_a_handful_of_people():
    y, score, who = people_scores(np.random.default_rng(0), people=8)
    few = bootstrap_interval("AUC", y, score, who)
    assert np.isfinite(few.value) and np.isnan(few.low)
    assert not few.contains(few.value) and "no interval: 8 groups" in str(few)
    enough = bootstrap_interval("AUC", *people_scores(np.random.default_rng(0), people=10))
    assert np.isfinite(enough.low)


def test_groups_must_match():
    y, score, who = people_scores(np.random.default_rng(0))
    with pytest.raises(ValueError, match="359 groups for 360"):
        bootstrap_interval("AUC", y, score, who[1:])
    gap = np.where(np.arange(360) == 2, None, who.astype(object))
    with pytest.raises(ValueError, match="group of sample 2 is missing"):
        bootstrap_interval("AUC", y, score, gap)


def test_metrics_table():
    y, score, who = people_scores(np.random.default_rng(0))
    y, score, who = y[:-15], score[:-15], who[:-15]  # one person less among the fakes
    table = metrics_table(y, score, who, names=list(METRICS)).set_index("metric")
    assert table.index.tolist() == list(METRICS)
    assert (table.low <= table.value).all() and (table.value <= table.high).all()
    assert table.value["accuracy"] == pytest.approx(accuracy(y, score))
    assert table.value["log loss"] == pytest.approx(sk.log_loss(y, score))


def test_the_baseline_is_what_a_constant_score_reaches():
    y, score, who = people_scores(np.random.default_rng(0))
    y, who = y[:-15], who[:-15]
    constant = metrics_table(y, np.full(len(y), y.mean()), who, 0, names=list(METRICS))
    constant = constant.set_index("metric").drop(["precision", "recall", "F1"])
    np.testing.assert_allclose(constant.value, constant.without_looking)
    called = metrics_table(y, np.ones(len(y)), who, 0, names=["precision", "recall", "F1"])
    np.testing.assert_allclose(called.value, called.without_looking)


def test_nothing_called_fake_has_no_precision():
    y, names = np.arange(40) % 2, ["precision", "recall", "F1"]
    with np.errstate(all="raise"):
        table = metrics_table(y, np.zeros(40), np.arange(40), 50, names=names)
    assert (table[["value", "low", "high"]] == 0).all(axis=None)


def test_ratio_intervals():
    rng = np.random.default_rng(0)
    who, numerator = np.arange(120) // 6, rng.random(120)
    denominator = rng.integers(0, 5, 120).astype(float)
    found = ratio_interval(numerator, denominator, who, n_resamples=4000)
    assert found.value == pytest.approx(numerator.sum() / denominator.sum())
    assert found.low < found.value < found.high and found.groups == 20
    sums = np.stack([np.bincount(who, values) for values in (numerator, denominator)])
    drawn = sums[:, rng.integers(0, 20, (4000, 20))].sum(-1)  # the same, drawn by hand
    bounds = np.quantile(drawn[0] / drawn[1], [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], bounds, atol=0.01)
    assert mean_interval(numerator, who) == ratio_interval(numerator, np.ones(120), who)
    rare = np.where(who == 3, 1.0, 0.0)  # the denominator of most resamples is 0
    assert np.isfinite(ratio_interval(rare, rare, who, n_resamples=200).high)
    for arguments, message in (
        ((numerator, -denominator), "smallest value is -4"),
        ((numerator, 0 * denominator), "sums to 0"),
        ((numerator, denominator[1:]), "as many of each"),
        ((numerator * np.nan, denominator), "all finite"),
    ):
        with pytest.raises(ValueError, match=message):
            ratio_interval(*arguments)


def test_equivalence_needs_data_and_a_margin():
    y, score, who = people_scores(np.random.default_rng(0), people=60)
    close = score + np.random.default_rng(1).normal(0, 0.01, len(y))
    assert equivalence(y, close, score, 0.05, who).verdict == "equivalent"
    assert equivalence(y, 1 - score, score, 0.05, who).verdict == "different"
    few = np.isin(who, range(12))  # the same models on few people: nothing can be said
    one, other = (score + np.random.default_rng(s).normal(0, 0.4, len(y)) for s in (2, 3))
    assert equivalence(y[few], one[few], other[few], 0.01, who[few]).verdict == "undecided"
    four = who < 4  # people, too few for an interval
    assert equivalence(y[four], close[four], score[four], 0.05, who[four]).verdict == "undecided"


def test_paired_difference_is_sharper_than_two_intervals():
    y, score, who = people_scores(np.random.default_rng(0))
    better = 1 / (1 + np.exp(-(np.log(score / (1 - score)) + 0.3 * (2 * y - 1))))
    first, second = (bootstrap_interval("AUC", y, scores, who) for scores in (better, score))
    assert first.low < second.high  # the intervals overlap
    found = paired_difference(y, better, score, who)
    assert found.low > 0 and found.value == pytest.approx(auc(y, better) - auc(y, score))
    back = paired_difference(y, score, better, who)
    bounds = [-found.value, -found.high, -found.low]
    np.testing.assert_allclose([back.value, back.low, back.high], bounds, atol=1e-12)


# ---- calibration


@pytest.mark.parametrize("equal_counts", [False, True])
def test_calibration_error_by_hand(equal_counts):
    rng = np.random.default_rng(0)
    score = rng.random(3000)
    y = (rng.random(3000) < score).astype(int)
    table = reliability_table(y, score, 7, equal_counts)
    assert table.n.sum() == 3000
    assert (table.low <= table.score).all() and (table.score <= table.high).all()
    by_hand = 0
    for row in table.itertuples():
        last = row.high == table.high.max()
        inside = (score >= row.low) & (score < row.high + 1e-9 * last)
        by_hand += abs(score[inside].mean() - y[inside].mean()) * inside.sum() / 3000
    assert expected_calibration_error(y, score, 7, equal_counts) == pytest.approx(by_hand)
    assert by_hand < 0.03


def test_calibration_at_the_ends():
    rng = np.random.default_rng(0)
    score = rng.random(3000)
    y = (rng.random(3000) < score).astype(int)
    assert expected_calibration_error(y, 1 - score) > 0.4
    assert reliability_table([0, 1], [0.0, 1.0]).n.tolist() == [1, 1]  # the ends belong to bins
    assert expected_calibration_error([0, 1], [0.0, 1.0]) == 0
    with pytest.raises(ValueError, match="not logits"):
        reliability_table(y, score * 9)


@pytest.mark.slow
def test_thresholds_are_best_where_they_were_chosen():
    rng = np.random.default_rng(5)
    for _ in range(20):
        y, score = rng.permutation(np.arange(60) % 2), rng.normal(size=60).round(1)
        cuts = np.r_[score - 0.01, score + 0.01]

        def balanced(cut, y=y, score=score):
            return sk.balanced_accuracy_score(y, score > cut)

        def gap(cut, y=y, score=score):
            return abs((score[y == 0] > cut).mean() - (score[y == 1] <= cut).mean())

        best = choose_threshold(y, score)
        assert balanced(best) == pytest.approx(max(balanced(cut) for cut in cuts))
        equal = choose_threshold(y, score, "EER")
        assert gap(equal) == pytest.approx(min(gap(cut) for cut in cuts))


# ---- maps


def smooth_maps(n, side=(48, 56), seed=0, dtype="float32"):
    "Smooth random maps, each from 0 to 1."
    rng = np.random.default_rng(seed)
    maps = np.stack([cv2.GaussianBlur(rng.random(side), (0, 0), 0.5 + i % 5) for i in range(n)])
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return ((maps - low) / (high - low)).astype(dtype)


@pytest.mark.parametrize("seed", range(8))
def test_components_are_those_of_opencv(seed):
    "Same components, numbers and sizes, so that a choice among equals is the same."
    rng = np.random.default_rng(seed)
    for _ in range(40):
        height, width = rng.integers(1, 40, 2)
        mask = rng.random((height, width)) < rng.uniform(0, 0.7)
        if seed % 2:
            mask = smooth_maps(1, (height + 1, width + 1), rng.integers(1 << 30))[0] > 0.55
        _, expected, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        labels, sizes = connected_components(mask)
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_array_equal(sizes, stats[:, cv2.CC_STAT_AREA])
        np.testing.assert_array_equal(component_sizes(mask), np.sort(sizes[1:])[::-1])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("min_points", [0, 24, 25, 600, 60_000])
def test_a_frames_score_exceeds_a_threshold_exactly_where_the_rule_says_fake(dtype, min_points):
    maps = smooth_maps(10, dtype=dtype)
    limit = min_points * 48 * 56 / 256**2
    scores = frame_scores(maps, min_points)
    for threshold in (0, 0.1, 0.5, 0.95, 1, *scores[:4], *np.nextafter(scores[:4], 0)):
        fake = []  # the rule, word for word
        for values in maps.astype(float):
            fake.append(max([0, *component_sizes(values > threshold)]) > limit)
        table = frame_rule(maps, threshold, min_points)
        assert table.fake.tolist() == fake == (scores > threshold).tolist()
        assert table.score.tolist() == scores.tolist()


def test_more_points_give_lower_scores():
    maps = smooth_maps(10)
    scores = [frame_scores(maps, min_points) for min_points in (0, 30, 300, 3000)]
    assert (np.diff(scores, axis=0) <= 0).all()


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
    assert frame_rule(two[..., None] > 0, 0.5, 89).fake[0]  # a trailing channel, and booleans


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
        lambda maps: frame_rule(maps, 0.5),
        lambda maps: mask_counts(maps, np.zeros(np.shape(maps))),
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
        for number in points:
            for threshold in thresholds:
                expected = reference(y, frame_rule(maps, threshold, number).fake)
                assert found.table.loc[number, threshold] == pytest.approx(expected)
        assert found.value == found.table.max(axis=None)
        assert found.value == found.table.loc[found.min_points, found.threshold]


def test_grid_search_prefers_the_reports_points_and_the_middle_threshold():
    y = np.random.default_rng(0).integers(0, 2, 30)
    easy = np.stack([np.full((32, 32), 0.8 if label else 0.1) for label in y])
    best = tune_frame_rule(easy, y, np.arange(1, 20) / 20)  # all from 0.1 to 0.8 are perfect
    assert (best.min_points, best.value) == (100, 1) and 0.4 <= best.threshold <= 0.5
    with pytest.raises(ValueError, match="test frames"):
        tune_frame_rule(easy, y, split=np.where(np.arange(30) < 29, "validation", "test"))
    with pytest.raises(ValueError, match="both classes"):
        tune_frame_rule(easy, np.ones(30))


def test_more_than_half_of_the_frames():
    rows = []
    for video in range(4):
        for frame in range(2 + video):
            row = {"path": f"{video}{frame}", "kind": "image", "label": video % 2, "dataset": "d"}
            rows.append(row | {"video": str(video), "frame": frame})
    samples = make_samples(rows)
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(samples))
        called = np.random.default_rng(seed).random(len(samples)) < 0.5
        table = video_rule(samples.iloc[order], called[order]).set_index("video")
        for video, frames in samples.groupby("video").groups.items():
            assert table.fake[video] == (2 * called[frames].sum() > len(frames))
            assert table.frames[video] == len(frames)
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
    masks = np.stack([keep_components(m > 0.55, 40) for m in smooth_maps(24, (40, 40))])
    maps = smooth_maps(24, (40, 40), seed=9)
    masks[::3] = False  # reals
    maps[::6] = 0  # nothing is called in every second real
    who = np.arange(24) // 2
    counts = mask_counts(maps, masks, 0.6)
    table = mask_metrics(counts, who).set_index("metric")
    value, called, fakes = table.value, maps > 0.6, masks.any((1, 2))
    iou = mask_iou(called, masks)
    dice = []
    for mask, call in zip(masks[fakes], called[fakes]):
        dice.append(sk.f1_score(mask.ravel(), call.ravel(), zero_division=0))
    assert value["IoU, mean of all"] == pytest.approx(iou.mean())
    assert value["IoU, mean of fakes"] == pytest.approx(iou[fakes].mean())
    assert value["Dice, mean of reals"] == pytest.approx((~called[::3].any((1, 2))).mean())
    assert value["Dice, mean of fakes"] == pytest.approx(np.mean(dice))
    for name, reference in (
        ("Dice, pooled", sk.f1_score),
        ("IoU, pooled", sk.jaccard_score),
        ("pixel precision", sk.precision_score),
        ("pixel recall", sk.recall_score),
    ):
        assert value[name] == pytest.approx(reference(masks.ravel(), called.ravel()))
    assert (table.low <= value).all() and (value <= table.high).all()
    strict = mask_metrics(counts, who, empty=0).set_index("metric").value
    assert strict["Dice, mean of reals"] == 0
    order = np.random.default_rng(0).permutation(24)
    shuffled = mask_metrics(counts.iloc[order], who[order], n_resamples=0)
    np.testing.assert_allclose(shuffled.value, value)
