"""A health check that finds what was planted in a dataset, and nothing in a sound one."""

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

from deepfake_nb.data.samples import make_samples
from deepfake_nb.data.splits import split_samples
from deepfake_nb.studies.audit import health_check, summarise_health
from deepfake_nb.studies.duplicates import (
    close_pairs,
    difference_hashes,
    duplicate_pairs,
    near_duplicates,
    thumbnails,
)
from deepfake_nb.studies.leaks import (
    class_counts,
    file_features,
    leak_test,
    split_overlap,
    take_balanced,
)
from deepfake_nb.studies.permutation import label_permutation


def smooth_image(rng, palette, size=96):
    small = np.clip(palette + rng.normal(0, 22, palette.shape), 0, 255).astype(np.float32)
    image = cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + rng.normal(0, 4, (size, size, 3)), 0, 255).astype(np.uint8)


def make_dataset(
    folder: Path,
    people=24,
    frames=5,
    fake=lambda image: image,
    quality=(90, 90),
    suffix=("jpg", "jpg"),
) -> pd.DataFrame:
    "A sound dataset of smooth images, a palette a person, unless an argument spoils it."
    rng, rows = np.random.default_rng(0), []
    folder.mkdir(parents=True)
    for person in range(people):
        palette = rng.uniform(60, 200, (4, 4, 3))
        for frame in range(frames):
            for label in (0, 1):
                image = smooth_image(rng, palette)
                image = fake(image) if label else image
                path = str(folder / f"p{person}_{label}_{frame}.{suffix[label]}")
                cv2.imwrite(path, image, [cv2.IMWRITE_JPEG_QUALITY, quality[label]])
                row = {"path": path, "kind": "image", "label": label, "dataset": "made"}
                row |= {"video": f"p{person}_{label}", "original": f"p{person}_0"}
                rows.append(row | {"frame": frame, "identity": f"p{person}"})
    return split_samples(make_samples(rows))[0]


def unsplit(samples):
    return samples.assign(split=pd.array([pd.NA] * len(samples), "string"))


def split_by_frame(samples, seed=0):
    splits = np.random.default_rng(seed).choice(["train", "test"], len(samples))
    return samples.assign(split=pd.array(splits, "string"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("sound") / "x")


@pytest.fixture(scope="module")
def careless(sound):
    return split_by_frame(sound)


# ---- leaks


def verdicts(samples):
    return leak_test(samples).set_index("feature").verdict.to_dict()


def test_sound_data_has_no_leak(sound):
    table = leak_test(sound)
    assert set(table.verdict) == {"no leak"}
    assert set(table.feature) >= {
        "file_size",
        "width",
        "height",
        "aspect",
        "quantisation_table",
        "mean_red",
        "brightness",
    }
    assert table.direction_free.is_monotonic_decreasing and (table.direction_free >= 0.5).all()


PLANTED = {
    "one class resized": (
        {"fake": lambda image: cv2.resize(image, (64, 64))},
        {"width", "height", "file_size"},
    ),
    "another JPEG quality": (
        {"quality": (90, 70)},
        {"quantisation_table", "quantisation_mean", "file_size"},
    ),
    "another format": ({"suffix": ("jpg", "png")}, {"format", "quantisation_table"}),
    "brighter": (
        {"fake": lambda image: cv2.add(image, np.full_like(image, 60))},
        {"brightness", "mean_red", "mean_green", "mean_blue"},
    ),
    "cropped": ({"fake": lambda image: image[:80]}, {"height", "aspect"}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_leaks_are_found(name, tmp_path):
    spoil, features = PLANTED[name]
    samples = make_dataset(tmp_path / "x", frames=3, **spoil)
    found = {feature for feature, verdict in verdicts(samples).items() if verdict == "leak"}
    assert features <= found
    if name == "brighter":
        assert not {"width", "height", "aspect", "format", "quantisation_table"} & found


def test_some_fakes_with_another_table(tmp_path):
    "As in a published set: a quarter of the fakes has a JPEG table that no real has, AUC .625."
    samples = make_dataset(tmp_path / "x", people=40, frames=4)
    for path in samples.path[samples.label == 1].iloc[::4]:
        cv2.imwrite(path, cv2.imread(path), [cv2.IMWRITE_JPEG_QUALITY, 60])
    row = leak_test(samples).set_index("feature").loc["quantisation_table"]
    assert row.verdict == "leak" and row.auc == pytest.approx(0.625, abs=0.02) and row.distinct == 2


def test_too_few_people_leave_it_undecided(sound):
    few = sound[sound.identity.isin(sorted(sound.identity.unique())[:3])]
    table = leak_test(few).set_index("feature")
    assert table.verdict["file_size"] == "undecided" and np.isnan(table.low["file_size"])
    assert table.verdict["width"] == "no leak"


def test_leak_features_are_the_files_own(tmp_path):
    image = np.zeros((30, 40, 3), np.uint8)
    image[..., 2] = 200
    image[..., 1] = 50  # BGR
    paths = [tmp_path / "a.png", tmp_path / "b.jpg"]
    cv2.imwrite(str(paths[0]), image)
    Image.fromarray(image[..., ::-1]).save(paths[1], quality=85)
    rows = []
    for label, path in enumerate(paths):
        rows.append({"path": str(path), "kind": "image", "label": label, "dataset": "x"})
    table = file_features(make_samples(rows))
    assert table.width.tolist() == [40, 40] and table.height.tolist() == [30, 30]
    assert table.format.tolist() == ["PNG", "JPEG"]
    assert table.file_size.tolist() == [path.stat().st_size for path in paths]
    colours = table[["mean_red", "mean_green", "mean_blue"]]
    np.testing.assert_allclose(colours, [[200, 50, 0]] * 2, atol=3)
    assert np.isnan(table.quantisation_mean[0]) and table.quantisation_mean[1] > 0


@pytest.mark.slow
def test_quantisation_names_are_the_same_in_every_process(sound):
    "Python salts its hashes of strings by process; the table's name must not depend on that."
    code = (
        "from deepfake_nb.studies.leaks import image_features; "
        f"print(image_features({sound.path[0]!r})['quantisation_table'])"
    )
    names = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        names.add(done.stdout)
    assert len(names) == 1


def make_video(path: Path, rng, seconds, crf, size=64, rate=10):
    with av.open(str(path), "w") as container:
        options = {"crf": str(crf), "preset": "ultrafast"}
        stream = container.add_stream("libx264", rate=Fraction(rate), options=options)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        still = cv2.resize(rng.uniform(0, 255, (6, 6, 3)).astype(np.float32), (size, size))
        for _ in range(int(seconds * rate)):
            frame = np.clip(still + rng.normal(0, 6, still.shape), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder, rng, rows = tmp_path_factory.mktemp("videos"), np.random.default_rng(0), []
    for i in range(24):
        label, path = i % 2, folder / f"v{i}.mp4"
        make_video(path, rng, seconds=1.5 if label else 1.0, crf=35 if label else 20)
        row = {"path": str(path), "kind": "video", "label": label, "dataset": "x"}
        rows.append(row | {"video": f"v{i}", "original": f"v{i}"})
    return make_samples(rows)


def test_videos_leak_by_length_and_rate(videos):
    found = verdicts(videos)
    assert found["duration"] == found["bit_rate"] == "leak"
    assert found["width"] == found["codec"] == found["frame_rate"] == "no leak"
    table = file_features(videos.head(2))
    assert table.width.tolist() == [64, 64] and table.duration.round(1).tolist() == [1.0, 1.5]
    assert set(table.codec) == {"h264"} and set(table.sound) == {0}
    assert thumbnails(videos.head(3), 8).shape == (3, 192)
    assert difference_hashes(videos.head(3)).shape == (3,)


@pytest.mark.slow
def test_members_of_archives_are_looked_at_like_files(sound, videos, tmp_path):
    images = sound.groupby(["split", "label"]).head(15).reset_index(drop=True)
    for name, table in (("videos", videos), ("images", images)):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in table["path"]:
                archive.write(path, f"part/{Path(path).name}")
        members = [f"{tmp_path}/{name}.zip!/part/{Path(path).name}" for path in table["path"]]
        packed = table.assign(path=members)
        pd.testing.assert_frame_equal(file_features(packed), file_features(table))
        pd.testing.assert_frame_equal(leak_test(packed), leak_test(table))
        np.testing.assert_array_equal(thumbnails(packed), thumbnails(table))
        np.testing.assert_array_equal(difference_hashes(packed), difference_hashes(table))
    pd.testing.assert_frame_equal(health_check(packed).summary, health_check(table).summary)
    gone = packed.head(1).assign(path=f"{tmp_path}/images.zip!/part/gone.jpg")
    for call in (file_features, difference_hashes, thumbnails):
        with pytest.raises(ValueError, match="cannot read image .*images.zip!/part/gone.jpg"):
            call(gone)


def test_kind_of_file_as_a_leak(sound, videos):
    reals, fakes = sound[sound.label == 0].head(12), videos[videos.label == 1]
    with pytest.raises(ValueError, match="one class only"):
        leak_test(pd.concat([reals, fakes], ignore_index=True))


def test_unreadable_file_is_named(tmp_path, sound):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    bad = pd.concat([sound.head(1), sound.head(1).assign(path=str(broken))], ignore_index=True)
    for call in (file_features, difference_hashes, thumbnails):
        with pytest.raises(ValueError, match="cannot read image .*broken.jpg"):
            call(bad)


def test_take_balanced(sound):
    few = pd.concat([sound[sound.label == 0].head(5), sound[sound.label == 1]])
    taken = take_balanced(few, 40)
    assert taken.label.value_counts().to_dict() == {0: 5, 1: 20}
    assert taken.index.equals(take_balanced(few, 40).index)
    assert taken.index.isin(few.index).all()


# ---- split


def test_counts_and_overlap(sound, careless):
    counts = class_counts(sound)
    assert counts.loc["all", "real"] == counts.loc["all", "fake"] == 120
    assert counts.drop("all").fake.sum() == 120
    assert class_counts(unsplit(sound)).index.tolist() == ["not split", "all"]
    assert split_overlap(sound).in_two_parts.tolist() == [0, 0, 0]
    assert (split_overlap(careless).in_two_parts > [20, 20, 35]).all()


def test_overlap_counts_the_source_of_a_swap(sound):
    train, test = (sound[sound.split == split].identity.iloc[0] for split in ("train", "test"))
    assert test != train
    row = sound.index[(sound.split == "test") & (sound.label == 1)][0]
    swapped = sound.copy()
    swapped.loc[row, "source"] = train
    overlap = split_overlap(swapped).in_two_parts
    assert overlap["people"] == 1 and overlap["videos"] == 0


# ---- duplicates


def test_hash_bits_are_the_difference_hash(tmp_path):
    grey = np.random.default_rng(0).integers(0, 255, (8, 9), dtype=np.uint8)
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, grey)
    samples = make_samples([{"path": path, "kind": "image", "label": 0, "dataset": "x"}])
    expected = (grey[:, 1:] > grey[:, :-1]).sum()
    assert bin(int(difference_hashes(samples)[0])).count("1") == expected


def test_copies_are_found_and_others_are_not(sound, tmp_path):
    train = sound[sound.split == "train"].head(4)
    changes = [
        lambda image: cv2.resize(image, (150, 150)),
        lambda image: cv2.convertScaleAbs(image, alpha=0.9, beta=15),
        lambda image: cv2.GaussianBlur(image, (3, 3), 0),
        lambda image: image,
    ]
    copies = []
    for i, change in enumerate(changes):
        row, path = train.iloc[i], str(tmp_path / f"copy{i}.jpg")
        cv2.imwrite(path, change(cv2.imread(row.path)), [cv2.IMWRITE_JPEG_QUALITY, 70])
        copies.append(row.to_dict() | {"path": path, "split": "test"})
    doubled = pd.concat([sound, make_samples(copies)], ignore_index=True)
    pairs = duplicate_pairs(doubled)
    found = {frozenset(pair) for pair in zip(pairs.path_a, pairs.path_b)}
    planted = zip(train.path, (copy["path"] for copy in copies))
    assert found >= {frozenset(pair) for pair in planted}
    table = near_duplicates(doubled).set_index(["part_a", "part_b"]).loc[("train", "test")]
    assert table.affected == 4
    assert table.affected_share == pytest.approx(4 / table.images_b)
    assert near_duplicates(sound).pairs.sum() == 0


def test_close_pairs_against_brute_force():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 2**63, k, dtype=np.uint64) for k in (70, 50))
    b[:5] = a[10:15] ^ np.array([0, 1, 3, 7, 15], dtype=np.uint64)
    expected = set()
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            distance = bin(int(x ^ y)).count("1")
            if distance <= 3:
                expected.add((i, j, distance))
    assert set(map(tuple, close_pairs(a, b, 3, block=16))) == expected and len(expected) == 4


# ---- permuted labels


def test_permuted_labels(sound, careless):
    fair, unfair = label_permutation(sound), label_permutation(careless)
    assert fair.verdict == "at chance" and unfair.verdict == "above chance"
    assert unfair.permuted.low > 0.8
    assert fair.unit == "identity" and len(fair.aucs) == fair.permuted.n == 200
    assert np.array_equal(label_permutation(sound).aucs, fair.aucs)
    assert not np.array_equal(label_permutation(sound, seed=1).aucs, fair.aucs)


def test_permuted_labels_are_at_chance_on_average_for_any_seed(sound):
    means = []
    for seed in range(12):
        features = np.random.default_rng(seed).normal(size=(len(sound), 5))
        result = label_permutation(sound, features=features, seed=seed, permutations=100)
        means.append(result.permuted.value)
    assert abs(np.mean(means) - 0.5) < 0.01


def test_permutation_without_a_split_keeps_people_apart(sound):
    result = label_permutation(unsplit(sound))
    assert result.verdict == "at chance" and "half" in result.parts


def test_a_straddling_person_shows_in_a_large_table(sound):
    "Groups are drawn whole: a sample of the table is enough to see people in two splits."
    tables = []
    for k in range(8):
        table = split_by_frame(sound, seed=k).assign(
            identity=sound.identity + f"-{k}",
            original=sound.original + f"-{k}",
            frame=sound.frame + 1000 * k,
        )
        tables.append(table)
    big = pd.concat(tables, ignore_index=True)
    assert label_permutation(big, n=200).verdict == "above chance"


def test_features_of_true_labels(sound):
    x = sound.label.to_numpy()[:, None] + np.random.default_rng(0).normal(0, 0.5, (len(sound), 3))
    shuffled = sound.sample(frac=1, random_state=0)  # an index that is not in order
    result = label_permutation(shuffled, features=x[shuffled.index])
    assert result.true.value > 0.9 and result.verdict == "at chance"
    with pytest.raises(ValueError, match="too few"):
        label_permutation(sound[sound.identity == sound.identity[0]].assign(split=pd.NA))


# ---- the health check


@pytest.mark.slow
def test_health_check(sound, careless, tmp_path):
    good = health_check(sound)
    assert good.passed and good.summary.verdict.tolist() == ["pass"] * 5
    assert "<table" in good._repr_html_()
    assert health_check(sound).summary.equals(good.summary)

    spoilt = make_dataset(tmp_path / "x", frames=3, fake=lambda image: cv2.resize(image, (64, 64)))
    resized = health_check(spoilt)
    assert not resized.passed and "width 1.00" in resized.summary.result[2]
    assert resized.summary.verdict.tolist() == ["pass", "pass", "fail", "pass", "pass"]

    by_frame = health_check(careless)
    assert not by_frame.passed
    assert by_frame.summary.verdict[1] == by_frame.summary.verdict[4] == "fail"

    whole = health_check(unsplit(sound))
    assert whole.passed
    assert whole.summary.verdict.tolist() == ["pass", "undecided", "pass", "undecided", "pass"]


@pytest.mark.slow
def test_health_check_of_a_split_with_one_class(sound):
    lopsided = sound[~((sound.split == "test") & (sound.label == 1))]
    assert health_check(lopsided[lopsided.split != "test"]).passed
    good = health_check(sound)
    behind = (good.overlap, good.leaks, good.duplicates, good.permutation)
    assert "fail" in summarise_health(class_counts(lopsided), *behind).verdict.tolist()


@pytest.mark.slow
def test_health_check_of_real_crops():
    "On real crops the checks run in seconds and find a split by people sound."
    root = os.environ.get("DEEPFAKE_NB_DATA")
    if not root or not (Path(root) / "dfdc_faces").is_dir():
        pytest.skip("DEEPFAKE_NB_DATA has no dfdc_faces")
    from deepfake_nb.data.datasets import load_samples

    samples, _ = split_samples(load_samples("dfdc-faces", root))
    result = health_check(samples, n=200)
    leaks = result.leaks.set_index("feature")
    assert result.permutation.verdict == "at chance"
    assert leaks.verdict["width"] == leaks.verdict["quantisation_table"] == "no leak"
    assert result.duplicates.affected_share.max() < 0.02
    assert result.counts.loc["all", "real"] == 4995
