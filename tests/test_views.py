"""Error levels, crops, statistics; cached views, killed, corrupted, changed and repeated."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from deepfake_nb.core.errors import SampleError, ViewError
from deepfake_nb.core.images import read_image
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.data.samples import make_samples
from deepfake_nb.faces.cropping import crop_face
from deepfake_nb.forensics.statistics import CHANNELS, patch_distances, pixel_statistics
from deepfake_nb.forensics.transforms import crop_non_facial, error_level_analysis
from deepfake_nb.forensics.view_datasets import view_samples
from deepfake_nb.forensics.views import ErrorLevel, FacialCrop, FullImage, parse_view
from deepfake_nb.training.loaders import ImageBatches, keras_generator


@pytest.fixture(scope="module")
def faces() -> pd.DataFrame:
    return load_samples("synthetic-faces-crude", identities=8, frames=2)


@pytest.fixture
def portraits(tmp_path) -> pd.DataFrame:
    """Six images, real and fake: four faces, two without any."""
    source = load_samples("synthetic-faces-crude", identities=8, frames=2)
    rows = []
    for k in range(6):
        path = tmp_path / f"{k}.png"
        image = np.full((128, 128, 3), 40 * k, np.uint8)
        if k < 4:
            image = read_image(source["path"][9 * k])
        Image.fromarray(image).save(path)
        rows.append(
            dict(
                path=str(path),
                kind="image",
                label=k % 2,
                dataset="test",
                video=f"v{k}",
                split="train",
            )
        )
    return make_samples(rows)


def noise(seed: int, h: int, w: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99),
    h=st.integers(1, 40),
    w=st.integers(1, 40),
    quality=st.integers(1, 100),
    scale=st.one_of(st.none(), st.floats(0.1, 50)),
)
def test_error_levels_are_the_amplified_difference(seed, h, w, quality, scale):
    image = noise(seed, h, w)
    chroma = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, *chroma]
    content = cv2.imencode(".jpg", image[..., ::-1], options)[1]
    again = cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1]
    difference = np.abs(image.astype(float) - again)
    factor = 255 / max(difference.max(), 1) if scale is None else scale
    found = error_level_analysis(image, quality, scale)
    assert found.dtype == np.uint8 and found.shape == image.shape
    assert np.abs(found - np.minimum(difference * factor, 255)).max() <= 0.51


def test_error_levels_tell_red_from_blue():
    """A wrong channel order would show: JPEG treats red and blue differently."""
    image = noise(0, 64, 64)
    swapped = error_level_analysis(np.ascontiguousarray(image[..., ::-1]))[..., ::-1]
    assert (error_level_analysis(image) != swapped).any()
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90, subsampling="4:2:0")
    again = np.asarray(Image.open(buffer)).astype(int)
    expected = np.minimum(10 * np.abs(image - again), 255)
    assert np.abs(error_level_analysis(image, 90, 10) - expected).mean() < 2


def test_batches_lists_and_threads_give_the_same():
    images = np.stack([noise(k, 33, 47) for k in range(9)])
    one_by_one = np.stack([error_level_analysis(image) for image in images])
    for threads in (None, 1, 5):
        np.testing.assert_array_equal(error_level_analysis(images, threads=threads), one_by_one)
    np.testing.assert_array_equal(error_level_analysis(list(images)), one_by_one)
    strided = images[:, ::2, ::-1]
    copied = np.ascontiguousarray(strided)
    np.testing.assert_array_equal(error_level_analysis(strided), error_level_analysis(copied))
    mixed = error_level_analysis([images[0], images[1][:20]])
    assert isinstance(mixed, list) and [m.shape for m in mixed] == [(33, 47, 3), (20, 47, 3)]


@pytest.mark.parametrize(
    "call",
    [
        error_level_analysis,
        pixel_statistics,
        lambda i: crop_non_facial(i, [[0, 0, 5, 5]]),
        lambda i: patch_distances(i, [[0, 0, 5, 5]]),
        FullImage(),
        ErrorLevel(),
        FacialCrop(),
    ],
)
@pytest.mark.parametrize(
    "images, word",
    [
        (np.zeros((0, 8, 8, 3), np.uint8), "empty"),
        ([], "empty"),
        (np.zeros((8, 8), np.uint8), r"\(8, 8\)"),
        (np.zeros((1, 8, 8, 1), np.uint8), r"\(8, 8, 1\)"),
        (np.zeros((1, 8, 8, 4), np.uint8), r"\(8, 8, 4\)"),
        (np.zeros((2, 1, 8, 8, 3), np.uint8), r"\(2, 1, 8, 8, 3\)"),
        (np.zeros((1, 8, 8, 3), np.float32), "float32"),
        (np.full((1, 8, 8, 3), np.nan), "NaN"),
        (np.zeros((1, 8, 8, 3), np.int64), "int64"),
        (np.zeros((1, 0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
    ],
)
def test_other_input_is_refused(call, images, word):
    with pytest.raises(ViewError, match=word):
        call(images)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    h=st.integers(8, 60),
    w=st.integers(8, 60),
    margin=st.floats(-0.5, 3),
    fill=st.integers(0, 255),
)
def test_crops_keep_what_they_say(data, h, w, margin, fill):
    left, top = data.draw(st.integers(0, w - 2)), data.draw(st.integers(0, h - 2))
    box = [left, top, data.draw(st.integers(left + 1, w)), data.draw(st.integers(top + 1, h))]
    image = noise(h * 60 + w, h, w)
    face = crop_non_facial(image, box, margin, "pad", fill=fill)
    rest = crop_non_facial(image, box, margin, keep="rest", fill=fill)
    inside, outside = (face == image).all(-1), (rest == image).all(-1)
    assert (inside | outside).all(), "every pixel is in one or the other"
    assert ((face == fill).all(-1) | inside).all() and ((rest == fill).all(-1) | outside).all()
    if margin >= 0:
        assert inside[top : box[3], left : box[2]].all(), "the face itself is kept"
    side = max(box[2] - box[0], box[3] - box[1]) * (1 + margin)
    if side > 1:  # `crop_face` refuses smaller squares
        square = crop_non_facial(image, box, margin, size=24)
        np.testing.assert_array_equal(square, crop_face(image, box, margin, 24))
    assert crop_non_facial(image, box, margin).shape == image.shape


def test_a_crop_is_not_stretched():
    """A round face stays round in a wide image."""
    image = np.zeros((120, 320, 3), np.uint8)
    cv2.circle(image, (200, 60), 20, (255, 255, 255), -1)
    crop = crop_non_facial(image, [180, 40, 220, 80])[..., 0] > 127
    assert crop.any(0).sum() == pytest.approx(crop.any(1).sum(), abs=3)


@pytest.mark.parametrize(
    "box",
    [[-1, 0, 5, 5], [0, 0, 9, 5], [0, 0, 5, 9], [3, 3, 3, 5], [5, 5, 3, 3], [0, 0, np.inf, 5]],
)
@pytest.mark.parametrize("call", [crop_non_facial, patch_distances])
def test_boxes_outside_their_image_are_refused(call, box):
    with pytest.raises(ViewError, match="box 1"):
        call(np.zeros((2, 8, 8, 3), np.uint8), [[0, 0, 4, 4], box])


def test_statistics_are_those_of_the_pixels():
    image = noise(1, 31, 45) // 3 + 20
    row = pixel_statistics(image).iloc[0]
    for c, channel in enumerate(CHANNELS):
        values = image[..., c].ravel()
        theirs = [
            values.mean(),
            values.std(),
            stats.skew(values),
            stats.kurtosis(values),
            stats.entropy(np.bincount(values), base=2),
            *np.percentile(values, (1, 5, 25, 50, 75, 95, 99), method="inverted_cdf"),
        ]
        ours = row.filter(like=f"pixel {channel}")
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    assert len(row) == 2 * 3 * 12 and np.isfinite(row).all()


def test_patches_come_from_both_sides_and_see_a_difference():
    image = np.full((80, 80, 3), 100, np.uint8)
    image[20:60, 20:60] = 130
    row = patch_distances(image, [20, 20, 60, 60], side=8, n_patches=40).iloc[0]
    for channel in CHANNELS:
        assert row[f"difference {channel}"] == row[f"Wasserstein {channel}"] == pytest.approx(30)
        for name in ("Kolmogorov–Smirnov", "chi-square", "Jensen–Shannon"):
            assert row[f"{name} {channel}"] == pytest.approx(1)
        assert row[f"noise {channel}"] == pytest.approx(0)
    one, two = (
        patch_distances(noise(0, 80, 80), [20, 20, 60, 60], n_patches=40, seed=seed)
        for seed in (1, 2)
    )
    assert not one.equals(two)


def test_images_without_room_are_counted():
    boxes = [[0, 0, 40, 40], [np.nan] * 4, [10, 10, 20, 20], [0, 0, 20, 40]]
    table = patch_distances(np.stack([noise(k, 40, 40) for k in range(4)]), boxes)
    assert table["pairs"].tolist() == [0, 0, 0, 16]
    assert table.drop(columns="pairs").isna().all(axis=1).tolist() == [True, True, True, False]


@pytest.mark.slow
def test_views_feed_both_loaders(faces, tmp_path):
    samples = faces.assign(split="train")
    for view in (ErrorLevel(75), FacialCrop(margin=0.2), FacialCrop(fit="pad")):
        table = view_samples(samples, view, cache=tmp_path, progress=False).samples
        options = dict(size=(128, 128), batch_size=16, validation_split=None, shuffle=False)
        theirs = keras_generator(table, "train", **options)
        ours = ImageBatches(table, "train", cache=None, **options)
        np.testing.assert_array_equal(theirs[0][0], ours[0][0])
        views, _ = view(np.stack([read_image(p) for p in samples["path"][:16]]))
        np.testing.assert_array_equal(ours[0][0], views.astype("float32") * (1.0 / 255))


def test_columns_are_those_of_todays_table(portraits, tmp_path):
    view = ErrorLevel()
    view_samples(portraits, view, cache=tmp_path / "c", progress=False)
    today = portraits.assign(split="test", label=1 - portraits["label"], mine=range(6))[::-1]
    result = view_samples(today, view, cache=tmp_path / "c", progress=False)
    assert result.fresh == 0
    pd.testing.assert_frame_equal(result.samples.drop(columns="path"), today.drop(columns="path"))
    for row in today.index:
        made = read_image(result.samples["path"][row])
        levels = error_level_analysis(read_image(today["path"][row]))
        np.testing.assert_array_equal(made, levels)


def test_rows_may_share_a_file(portraits, tmp_path):
    twice = pd.concat([portraits, portraits.assign(frame=1)], ignore_index=True)
    result = view_samples(twice, ErrorLevel(), cache=tmp_path / "c", progress=False)
    paths = result.samples["path"].tolist()
    assert result.fresh == len(portraits) and paths[:6] == paths[6:]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_images_without_a_face_follow_the_policy_and_are_counted(portraits, tmp_path, workers):
    options = dict(cache=tmp_path / "c", workers=workers, progress=False)
    whole = view_samples(portraits, FacialCrop(), size=64, **options)
    assert whole.samples["face_found"].tolist() == [True] * 4 + [False] * 2
    assert whole.counts["no face found"].to_dict() == {"real": 1, "fake": 1}
    assert whole.counts["pictures"].to_dict() == {"real": 3, "fake": 3}
    assert whole.missing.index.tolist() == [4, 5] and "1 real, 1 fake" in str(whole)
    for row in (4, 5):
        assert (read_image(whole.samples["path"][row]) == 40 * row).all()
    assert {read_image(p).shape for p in whole.samples["path"]} == {(64, 64, 3)}
    drop = view_samples(portraits, FacialCrop(missing="drop"), size=64, **options)
    assert drop.fresh == 0
    assert drop.samples.index.tolist() == [0, 1, 2, 3]
    assert drop.counts["rows"].to_dict() == {"real": 2, "fake": 2}
    for margin in (0, 0.5):  # from the cache, and fresh
        view = FacialCrop(missing="error", margin=margin)
        with pytest.raises(ViewError, match=r"row 4: .*4\.png: no face found"):
            view_samples(portraits, view, size=64, **options)
    with pytest.raises(ViewError, match="in any of 2 images"):
        view_samples(portraits.loc[4:], FacialCrop(missing="drop"), **options)


@pytest.mark.slow
def test_masks_follow_the_pixels(faces, tmp_path):
    result = view_samples(faces, FacialCrop(margin=0.1), cache=tmp_path, progress=False)
    fakes = result.samples[(result.samples["label"] == 1) & result.samples["face_found"]]
    for row in fakes.index[::5]:
        with Image.open(fakes["path"][row]) as image:
            box = json.loads(image.text["view"])["box"]
        mask = np.asarray(Image.open(faces["mask_path"][row]).convert("RGB"))
        expected = crop_face(mask, box, 0.1, None)
        found = np.asarray(Image.open(fakes["mask_path"][row]).convert("RGB"))
        assert found.shape == read_image(fakes["path"][row]).shape
        expected = cv2.resize(expected, (128, 128), interpolation=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(found, expected)
    assert result.samples["mask_path"].isna().equals(faces["mask_path"].isna())
    kept = view_samples(faces, FacialCrop(fit="pad"), cache=tmp_path, progress=False)
    pd.testing.assert_series_equal(kept.samples["mask_path"], faces["mask_path"])
    videos = faces.assign(mask_path="masks/video.mp4")
    moved = view_samples(videos, FacialCrop(margin=0.1), cache=tmp_path, progress=False)
    assert moved.samples["mask_path"].isna().equals(moved.samples["face_found"])


def test_a_changed_image_or_setting_is_made_again(portraits, tmp_path):
    before = view_samples(portraits, ErrorLevel(), cache=tmp_path / "c", progress=False)
    Image.fromarray(noise(3, 128, 128)).save(portraits["path"][2])
    after = view_samples(portraits, ErrorLevel(), cache=tmp_path / "c", progress=False)
    assert after.fresh == 1 and after.samples["path"][2] != before.samples["path"][2]
    for view, size in (
        (ErrorLevel(80), None),
        (ErrorLevel(scale=None), None),
        (ErrorLevel(), 64),
        (ErrorLevel(), (64, 32)),
    ):
        assert view_samples(portraits, view, size, cache=tmp_path / "c", progress=False).fresh == 6


@pytest.mark.slow
@pytest.mark.parametrize("content, workers", [(b"", 0), (b"not an image", 0), (None, 0), (None, 1)])
def test_a_corrupt_image_is_named_and_the_rest_is_kept(portraits, tmp_path, content, workers):
    path = Path(portraits["path"][3])
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    options = dict(view=ErrorLevel(), cache=tmp_path / "c", progress=False)
    with pytest.raises(ViewError, match=r"row 3: .*3\.png: cannot be decoded"):
        view_samples(portraits, workers=workers, **options)
    rest = view_samples(portraits.drop(index=3), **options).samples
    assert rest.index.tolist() == [0, 1, 2, 4, 5]
    absent = portraits.assign(path=str(tmp_path / "absent.png"))
    with pytest.raises(ViewError, match=r"row 0: .*absent\.png: No such file"):
        view_samples(absent, **options)


def test_tables_without_images_are_refused(portraits):
    with pytest.raises(SampleError, match="no rows"):
        view_samples(portraits.head(0), ErrorLevel())
    with pytest.raises(SampleError, match="row 0, column 'kind'"):
        view_samples(portraits.assign(kind="video"), ErrorLevel())
    with pytest.raises(ViewError, match="unknown view 'wavelet'; there are full, ela, crop"):
        parse_view("wavelet")


def test_images_in_an_archive(portraits, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in portraits["path"]:
            archive.write(path, Path(path).name)
    members = [f"{tmp_path}/all.zip!/{Path(path).name}" for path in portraits["path"]]
    packed = portraits.assign(path=members)
    views = [
        view_samples(table, ErrorLevel(), cache=tmp_path / "c", progress=False).samples["path"]
        for table in (packed, portraits)
    ]
    for a, b in zip(*views):
        np.testing.assert_array_equal(read_image(a), read_image(b))


SCRIPT = """
import sys
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.forensics.view_datasets import view_samples
from deepfake_nb.forensics.views import FacialCrop

if __name__ == "__main__":
    samples = load_samples("synthetic-faces-crude", identities=8, frames=2)
    print("ready", flush=True)
    options = dict(size=96, cache=sys.argv[1], workers=int(sys.argv[2]), progress=False)
    print(view_samples(samples, FacialCrop(margin=0.25), **options).fresh, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_again_and_again_it_ends_like_one_never_killed(faces, tmp_path, workers):
    rng, out, view = random.Random(workers), tmp_path / "out", FacialCrop(margin=0.25)
    (tmp_path / "make.py").write_text(SCRIPT)
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, tmp_path / "make.py", out, str(workers)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout.readline().strip() == "ready"
        time.sleep(rng.uniform(0.02, 1.2) + workers)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for path in out.glob("*/[!.]*.png"):
            read_image(path)  # what has a name is whole
    before = {p.name: p.stat().st_mtime_ns for p in out.glob("*/[!.]*.png")}
    for rest in out.glob("*/.*.partial*"):
        os.utime(rest, (0, 0))
    result = view_samples(faces, view, 96, cache=out, workers=workers, progress=False)
    assert result.fresh == len(faces) - sum(".mask." not in name for name in before), (
        "nothing is done twice"
    )
    assert all(
        (Path(result.samples["path"].iloc[0]).parent / name).stat().st_mtime_ns == t
        for name, t in before.items()
    )
    assert not list(out.glob("*/.*")), "nothing is left over"
    whole = view_samples(faces, view, 96, cache=tmp_path / "whole", progress=False)
    for a, b in zip(result.samples["path"], whole.samples["path"]):
        assert Path(a).name == Path(b).name and Path(a).read_bytes() == Path(b).read_bytes()
    shutil.rmtree(out)


LOOK = """
import sys
import keras
from deepfake_nb.core.errors import ViewError
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.forensics.view_datasets import view_samples
from deepfake_nb.forensics.views import FacialCrop

if __name__ == "__main__":
    few = load_samples("synthetic-faces-crude", identities=8, frames=2).iloc[:6]
    options = dict(cache=sys.argv[1], progress=False)
    try:
        view_samples(few, FacialCrop("mtcnn"), **options)
    except ViewError as error:
        print("workers=1" in str(error))
    result = view_samples(few, FacialCrop("mtcnn"), workers=1, **options)
    print(result.counts["face found"].sum())
"""


@pytest.mark.slow
def test_mtcnn_under_another_backend_gets_a_process_of_its_own(faces, tmp_path):
    (tmp_path / "look.py").write_text(LOOK)
    done = subprocess.run(
        [sys.executable, tmp_path / "look.py", tmp_path / "c"],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["True", "6"], done.stderr
    few = faces.iloc[:6]
    assert view_samples(few, FacialCrop("mtcnn"), cache=tmp_path / "c", progress=False).fresh == 0


def test_stored_settings_keep_their_names(portraits, tmp_path):
    """Cards and view.json say detector and which; both spellings give the same view and files."""
    view = parse_view("crop", detector="haar", which="central", margin=0.2)
    assert view == FacialCrop("haar", margin=0.2, face_selection="central")
    result = view_samples(portraits, view, cache=tmp_path, progress=False)
    stored = json.loads((Path(result.samples["path"][0]).parent / "view.json").read_text())
    assert (stored["detector"], stored["which"]) == ("haar", "central")
    for name in ("view", "version", "libraries", "size"):
        del stored[name]
    assert parse_view("crop", **stored) == view
    with pytest.raises(ViewError, match="no option 'detector'"):
        parse_view("crop", detector="haar", face_detector="ssd")
