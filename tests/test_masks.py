"""Rules, pairs that cannot be compared, cached masks; killed, corrupted, changed, repeated."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from deepfake_nb.core.errors import MaskError, SampleError
from deepfake_nb.core.images import read_image
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.data.samples import make_samples
from deepfake_nb.evaluation.localization import component_sizes, mask_iou
from deepfake_nb.faces.cropping import crop_face
from deepfake_nb.faces.dataset import extract_faces
from deepfake_nb.faces.extraction import Extraction
from deepfake_nb.faces.video import read_frames
from deepfake_nb.forensics.mask_datasets import (
    load_masks,
    mask_samples,
    pair_fault,
    pair_samples,
    pair_shift,
)
from deepfake_nb.forensics.masks import (
    NAIVE,
    REFINED,
    REPORTED,
    difference_map,
    difference_mask,
    keep_components,
    naive_mask,
    resize_mask,
    scan_thresholds,
)

LOCAL = ("face-swap", "mouth")


@pytest.fixture(scope="module")
def faces() -> pd.DataFrame:
    return load_samples("synthetic-faces-crude", identities=8, frames=2)


def truth_of(table: pd.DataFrame, rows) -> list[np.ndarray]:
    return [np.asarray(Image.open(table["mask_path"][row]).convert("L")) > 127 for row in rows]


def read_pair(table: pd.DataFrame, real, fake) -> tuple[np.ndarray, np.ndarray]:
    return read_image(table["path"][real]), read_image(table["path"][fake])


def blobs(seed: int, h: int = 48, w: int = 40) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(h, w)).astype(np.float32)
    return cv2.GaussianBlur(values, (0, 0), 2) > 0.1


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 500),
    least=st.integers(1, 200),
    keep=st.one_of(st.none(), st.integers(1, 4)),
)
def test_components_are_those_of_scipy(seed, least, keep):
    mask = blobs(seed)
    labels, n = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.sort(ndimage.sum_labels(mask, labels, range(1, n + 1)))[::-1].astype(int)
    assert component_sizes(mask).tolist() == sizes.tolist()
    kept = keep_components(mask, least, keep)
    assert component_sizes(kept).tolist() == [s for s in sizes if s >= least][:keep]
    assert not (kept & ~mask).any()
    np.testing.assert_array_equal(keep_components(kept, least, keep), kept)
    np.testing.assert_array_equal(keep_components(mask * np.uint8(255), least, keep), kept)


@settings(max_examples=40, deadline=None)
@given(a=st.integers(0, 500), b=st.integers(0, 500))
def test_iou_is_symmetric_and_bounded(a, b):
    one, two = blobs(a), blobs(b)
    assert 0 <= mask_iou(one, two) == mask_iou(two, one) <= 1 and mask_iou(one, one) == 1
    assert mask_iou(one, two) == pytest.approx((one & two).sum() / (one | two).sum())
    np.testing.assert_array_equal(
        mask_iou(np.stack([one, two]), np.stack([two, two])), [mask_iou(one, two), 1]
    )


def test_a_changed_square_is_found_and_its_inside_filled():
    rng = np.random.default_rng(0)
    real = cv2.GaussianBlur(rng.integers(0, 256, (120, 120, 3)).astype(np.uint8), (0, 0), 3)
    fake = real.copy()
    fake[40:80, 30:90] = np.clip(fake[40:80, 30:90].astype(int) + 60, 0, 255)
    fake[50:60, 50:60] = real[50:60, 50:60]  # came out alike
    square = np.zeros((120, 120), bool)
    square[40:80, 30:90] = True
    fake[5, 5] = 255 - fake[5, 5]  # a speck
    assert naive_mask(real, fake)[5, 5] and not difference_mask(real, fake)[5, 5]
    ragged, filled = (
        mask_iou(difference_mask(real, fake, 25, hull=hull), square) for hull in (False, True)
    )
    assert ragged + 0.01 < filled and filled > 0.9
    two = real.copy()
    two[20:50, 20:50] = 255 - two[20:50, 20:50]
    two[70:110, 70:110] = np.clip(two[70:110, 70:110].astype(int) + 12, 0, 255)
    assert len(component_sizes(difference_mask(real, two))) == 2
    assert len(component_sizes(difference_mask(real, two, peak=6))) == 1
    assert len(component_sizes(difference_mask(real, two, keep=1))) == 1


def test_noise_in_the_corners_raises_the_threshold():
    rng = np.random.default_rng(1)
    real = np.full((100, 100, 3), 120, np.uint8)
    fake = np.clip(real + rng.normal(0, 25, real.shape), 0, 255).astype(np.uint8)
    fake[30:70, 30:70] = np.clip(fake[30:70, 30:70].astype(int) + 60, 0, 255)
    square = np.zeros((100, 100), bool)
    square[30:70, 30:70] = True
    assert mask_iou(REPORTED(real, fake), square) < 0.3
    assert mask_iou(REFINED(real, fake), square) > 0.75


@pytest.mark.parametrize("rule", [NAIVE, REPORTED, REFINED])
def test_equal_images_have_an_empty_mask(rule):
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    assert rule(image, image).shape == (64, 48) and not rule(image, image).any()


@pytest.mark.parametrize(
    "bad, word",
    [
        (np.zeros((8, 9, 3), np.uint8), "different sizes: real 8×8, fake 8×9"),
        (np.zeros((8, 8), np.uint8), "fake image is uint8"),
        (np.zeros((8, 8, 3)), "float64"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
        (np.full((8, 8, 3), np.nan), "float64"),
        (None, "NoneType"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"\(1, 8, 8, 3\)"),
    ],
)
@pytest.mark.parametrize("call", [difference_map, naive_mask, difference_mask, REFINED, pair_shift])
def test_what_cannot_be_compared_is_refused(call, bad, word):
    with pytest.raises(MaskError, match=word):
        call(np.zeros((8, 8, 3), np.uint8), bad)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 500), h=st.integers(1, 90), w=st.integers(1, 90))
def test_resizing_keeps_the_share(seed, h, w):
    mask = blobs(seed)
    small = resize_mask(mask, (h, w))
    assert small.shape == (h, w) and small.dtype == bool
    if min(h, w) >= 24:
        assert abs(small.mean() - mask.mean()) < 0.08
    assert resize_mask(np.ones((5, 7)), (h, w)).all()
    assert not resize_mask(np.zeros((5, 7)), (h, w)).any()
    np.testing.assert_array_equal(resize_mask(mask, mask.shape), mask)


@pytest.mark.parametrize("crop", [224, 256, 200, 99])
@pytest.mark.parametrize("x, y", [(0, 0), (3, 0), (-2, 4), (0, -7)])
def test_shifts_are_measured_at_every_size(faces, crop, x, y):
    """OpenCV pads to sizes that suit its transform, which would move results at 224."""
    pairs, _ = pair_samples(faces[faces["label"].eq(0) | faces["manipulation"].isin(LOCAL)])
    for fake, real in pairs.to_numpy()[::5]:
        size = (crop + 20, crop + 20)
        one, two = (
            cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
            for image in read_pair(faces, real, fake)
        )
        moved = two[10 - y : 10 - y + crop, 10 - x : 10 - x + crop]
        found = pair_shift(one[10:-10, 10:-10].copy(), moved.copy())
        assert np.hypot(found[0] - x, found[1] - y) < (0.75 if x or y else 0.25)
        assert (np.hypot(*found) > 0.75) == bool(x or y)


def test_faults_of_a_pair(faces):
    pairs, _ = pair_samples(faces)
    images = [read_pair(faces, real, fake) for fake, real in pairs.to_numpy()]
    assert [pair_fault(*pair) for pair in images] == [""] * len(images)
    for i, (real, fake) in enumerate(images):
        fault = pair_fault(real, np.roll(fake, 3, 0))
        assert "not aligned" in fault or "another scene" in fault
        assert pair_fault(real, images[(i + 20) % len(images)][0])
    assert pair_fault(images[0][0], images[0][1][:100]) == "sizes differ: 128×128 and 100×128"


def test_scan_gives_what_the_rule_gives(faces):
    pairs, _ = pair_samples(faces)
    few = pairs.to_numpy()[::6]
    images = [read_pair(faces, real, fake) for fake, real in few]
    truths = truth_of(faces, few[:, 0])
    for rule in (NAIVE, REPORTED, REFINED):
        table = scan_thresholds(images, truths, rule, (3, 7.5))
        for threshold in (3, 7.5):
            varied = replace(rule, threshold=threshold)
            ious = [mask_iou(varied(*pair), truth) for pair, truth in zip(images, truths)]
            assert table[threshold].tolist() == ious


def test_cleaned_masks_beat_naive_ones(faces):
    pairs, _ = pair_samples(faces[faces["label"].eq(0) | faces["manipulation"].isin(LOCAL)])
    images = [read_pair(faces, real, fake) for fake, real in pairs.to_numpy()]
    truths = truth_of(faces, pairs["fake"])
    naive, reported, refined = (
        np.median([mask_iou(rule(*pair), truth) for pair, truth in zip(images, truths)])
        for rule in (NAIVE, REPORTED, REFINED)
    )
    assert naive + 0.05 < reported
    assert min(reported, refined) >= 0.8


def row(video, original, label, frame=0, **more):
    columns = dict(
        path=f"{video}_{frame}.png",
        kind="image",
        label=label,
        dataset="test",
        video=video,
        original=original,
        frame=frame,
    )
    return columns | more


def test_pairs_match_video_frame_compression_and_dataset():
    rows = [
        row("a", "a", 0, 0),
        row("a", "a", 0, 1),
        row("b", "b", 0, compression="c23"),
        row("b", "b", 0, compression="c40", path="b40.png"),
        row("x", "a", 1, 1),
        row("y", "a", 1, 2),
        row("z", "b", 1, compression="c40"),
        row("w", None, 1),
        row("v", "c", 1),
        row("u", "a", 1, dataset="other"),
    ]
    pairs, alone = pair_samples(make_samples(rows))
    assert pairs.to_numpy().tolist() == [[4, 1], [6, 3]]
    assert dict(zip(alone["fake"], alone["reason"])) == {
        5: "its original is not in the table",
        7: "its original is not known",
        8: "its original is not in the table",
        9: "its original is not in the table",
    }
    rows = [row("a", "a", 0, None), row("b", "a", 1, None)]  # one crop a video, as in dfdc_faces
    single, _ = pair_samples(make_samples(rows))
    assert single.to_numpy().tolist() == [[1, 0]]


def test_set_aside_fakes_leave_the_table_with_a_reason(faces, tmp_path):
    table, (pairs, _) = faces.copy(), pair_samples(faces)
    fake, real = pairs["fake"], pairs["real"]
    same, moved, small = (tmp_path / name for name in ("same.png", "moved.png", "small.png"))
    Image.fromarray(read_image(table["path"][real[0]])).save(same)
    Image.fromarray(np.roll(read_image(table["path"][fake[1]]), 4, 1)).save(moved)
    Image.fromarray(read_image(table["path"][fake[2]])[:100]).save(small)
    table.loc[fake[:3], "path"] = [str(same), str(moved), str(small)]
    table.loc[fake[3], "original"] = "gone"
    result = mask_samples(table, overwrite=True, cache=tmp_path / "c", progress=False)
    assert [result.aside["reason"][f].split(":")[0] for f in fake[:4]] == [
        "hardly differ",
        "not aligned",
        "sizes differ",
        "its original is not in the table",
    ]
    paths = result.aside.loc[fake[1], ["path", "original_path"]].tolist()
    assert paths == [str(moved), table["path"][real[1]]]
    kept, aside = set(result.samples.index), set(result.aside.index)
    assert kept | aside == set(table.index) and not kept & aside
    assert result.counts.sum() == (table["label"] == 1).sum()
    assert "1 not aligned" in str(result)
    masks = load_masks(result.samples)
    assert masks.any((1, 2)).tolist() == (result.samples["label"] == 1).tolist()


def test_given_masks_stay_unless_overwritten(faces, tmp_path):
    result = mask_samples(faces, cache=tmp_path, progress=False)
    pd.testing.assert_frame_equal(result.samples, faces.astype({"mask_path": "string"}))
    assert result.fresh == 0 and len(result.aside) == 0
    one = faces.index[faces["label"] == 1][0]
    missing = faces.assign(mask_path=faces["mask_path"].where(faces.index != one))
    result = mask_samples(missing, cache=tmp_path, progress=False)
    given = result.samples["mask_path"] == faces["mask_path"]
    assert result.fresh == 1
    assert given.sum() == (faces["label"] == 1).sum() - 1


def test_only_images_are_cached(faces, tmp_path):
    options = dict(overwrite=True, cache=tmp_path, progress=False)
    first = mask_samples(faces, **options)
    again = mask_samples(faces.assign(split="test", mine=1)[::-1], **options)
    assert again.fresh == 0 and set(again.samples["split"]) == {"test"}
    paths = [result.samples["mask_path"].dropna().to_dict() for result in (first, again)]
    assert paths[0] == paths[1]
    assert again.aside["reason"].to_dict() == first.aside["reason"].to_dict()
    pairs, _ = pair_samples(faces)
    for rule, size in ((REPORTED, 256), (REFINED, 64), (REFINED, None)):
        assert mask_samples(faces, rule, size, **options).fresh == len(pairs)
    native = mask_samples(faces, REPORTED, None, **options)
    for fake, real in pairs.to_numpy()[::7]:
        if fake in native.aside.index:
            continue
        mask = np.asarray(Image.open(native.samples["mask_path"][fake]).convert("L")) > 0
        np.testing.assert_array_equal(mask, REPORTED(*read_pair(faces, real, fake)))


def test_a_corrupt_image_is_named(faces, tmp_path):
    table = faces.copy()
    fake = table.index[table["label"] == 1][5]
    (tmp_path / "broken.jpg").write_bytes(Path(table["path"][fake]).read_bytes()[:500])
    table.loc[fake, "path"] = str(tmp_path / "broken.jpg")
    with pytest.raises(MaskError, match=rf"row {fake}: .*broken\.jpg: cannot be decoded"):
        mask_samples(table, overwrite=True, cache=tmp_path / "c", progress=False)
    table.loc[fake, "path"] = str(tmp_path / "absent.jpg")
    with pytest.raises(MaskError, match=r"absent\.jpg: No such file"):
        mask_samples(table, overwrite=True, cache=tmp_path / "c", progress=False)
    with pytest.raises(SampleError, match="cannot be compared"):
        mask_samples(table.assign(kind="video"))


@pytest.mark.parametrize(
    "path, word",
    [
        (pd.NA, "a fake without a mask"),
        ("absent.png", "absent.png"),
        ("masks/x.mp4", "a video of masks"),
        ("text.png", "cannot be decoded"),
    ],
)
def test_a_missing_mask_is_an_error_and_never_zeros(faces, tmp_path, path, word, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("not an image")
    table = faces.copy()
    fake = table.index[table["label"] == 1][2]
    table.loc[fake, "mask_path"] = path
    with pytest.raises(MaskError, match=rf"row {fake}: .*{word}"):
        load_masks(table)


def test_masks_of_extracted_faces_agree_with_the_videos(tmp_path):
    videos = load_samples("synthetic-faceforensics", identities=4, frames=20)
    rule = Extraction(n=2, face_detector="haar", size=128)
    extracted = extract_faces(videos, tmp_path / "faces", rule, workers=0, progress=False)
    faces = extracted.samples
    result = mask_samples(faces, size=None, overwrite=True, cache=tmp_path / "c", progress=False)
    made = result.samples[result.samples["label"] == 1]
    assert len(made) >= 0.8 * (faces["label"] == 1).sum()
    ious = []
    for r in made.itertuples():
        whole = next(read_frames(faces["mask_path"][r.Index], [r.frame])).image
        truth = crop_face(whole, (r.left, r.top, r.right, r.bottom), 0.3, 128)[..., 0] > 127
        ious.append(mask_iou(np.asarray(Image.open(r.mask_path).convert("L")) > 127, truth))
    assert np.median(ious) > 0.7


SCRIPT = """
import sys
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.forensics.mask_datasets import mask_samples
faces = load_samples("synthetic-faces-crude", identities=8, frames=2)
print("ready", flush=True)
options = dict(overwrite=True, cache=sys.argv[1], threads=1, progress=False)
print(mask_samples(faces, **options).fresh, flush=True)
"""


@pytest.mark.slow
def test_killed_again_and_again_it_ends_like_one_never_killed(faces, tmp_path):
    rng, out = random.Random(0), tmp_path / "out"
    (tmp_path / "make.py").write_text(SCRIPT)
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, tmp_path / "make.py", out],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout.readline().strip() == "ready"
        time.sleep(rng.uniform(0.005, 0.3))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for path in out.glob("*/[!.]*.png"):
            read_image(path)
    before = {
        p.name: p.stat().st_mtime_ns for p in out.glob("*/[!.]*.*") if p.suffix in (".png", ".txt")
    }
    for rest in out.glob("*/.*.partial*"):
        os.utime(rest, (0, 0))
    result = mask_samples(faces, overwrite=True, cache=out, progress=False)
    assert result.fresh == (faces["label"] == 1).sum() - len(before), "nothing is done twice"
    whole = mask_samples(faces, overwrite=True, cache=tmp_path / "whole", progress=False)
    assert not list(out.glob("*/.*")), "nothing is left over"
    pd.testing.assert_frame_equal(result.aside, whole.aside)
    for a, b in zip(result.samples["mask_path"].dropna(), whole.samples["mask_path"].dropna()):
        assert Path(a).name == Path(b).name and Path(a).read_bytes() == Path(b).read_bytes()
