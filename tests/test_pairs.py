"Pairs: batches against the pictures they come from, movements that mask and picture share, seeds, faults, and self-blended fakes."

import os
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deepfake_nb.core.errors import ImageError
from deepfake_nb.core.images import read_image
from deepfake_nb.training.loaders import in_table_order
from deepfake_nb.training.scaling import scale_images
from deepfake_nb.core.errors import MaskError
from deepfake_nb.forensics.mask_datasets import load_masks
from deepfake_nb.training.augmentation import (
    Augmentation,
    augment_pair,
    degrade,
    draw_motion,
    face_region,
    self_blend,
    soft_mask,
)
from deepfake_nb.training.pairs import PairedBatches
from deepfake_nb.core.errors import SampleError
from deepfake_nb.data.samples import make_samples

MOVING = Augmentation(
    colour=0, blur=0, shrink=0, noise=0, jpeg=0, rotate=15, zoom=(0.8, 1.3), shift=0.1
)


def smooth(seed, side=(48, 64)):
    noise = np.random.default_rng(seed).uniform(0, 255, (6, 8, 3)).astype("float32")
    return cv2.resize(noise, side[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 255).astype("uint8")


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> pd.DataFrame:
    "Ten originals, of which two have no fake and the others one to three; one fake has no original here."
    root, rows = tmp_path_factory.mktemp("pairs"), []

    def row(name, label, picture, **columns):
        Image.fromarray(picture).save(root / f"{name}.png")
        rows.append(
            dict(
                path=str(root / f"{name}.png"),
                kind="image",
                label=label,
                dataset="d",
                video=name,
                frame=0,
                split="train" if len(rows) < 16 else "validation",
            )
            | columns
        )

    for i in range(10):
        row(f"real{i}", 0, smooth(i), original=f"real{i}")
        for k in range(0 if i in (3, 7) else 1 + i % 3):
            mask = np.zeros((48, 64), "uint8")
            mask[10 + 4 * k : 40, 12 : 44 + 4 * k] = 255
            Image.fromarray(mask).save(root / f"mask{i}{k}.png")
            row(
                f"fake{i}{k}",
                1,
                np.where(mask[..., None] > 0, smooth(i)[::-1, ::-1], smooth(i)),
                original=f"real{i}",
                mask_path=str(root / f"mask{i}{k}.png"),
                manipulation="turned",
            )
    row(
        "lost",
        1,
        smooth(99),
        original="elsewhere",
        mask_path=str(root / "mask00.png"),
        manipulation="turned",
    )
    return make_samples(rows)


def batches(samples, **options):
    return PairedBatches(
        samples, **dict(size=(48, 64), pairs=3, cache=None, progress=False) | options
    )


def epoch(batches):
    parts = [batches[i] for i in range(len(batches))]
    return [
        {k: np.concatenate([d[k] for d in p]) for k in p[0]}
        if isinstance(p[0], dict)
        else np.concatenate(p)
        for p in zip(*parts)
    ]


def test_pairs_stand_side_by_side_and_each_comes_once(samples):
    train = batches(samples, seed=4)
    fakes = samples[(samples["label"] == 1) & (samples["original"] != "elsewhere")]
    assert train.n == len(fakes) and train.unpaired["reason"].tolist() == [
        "its original is not in the table"
    ]
    assert train.unpaired["fake"].tolist() == [samples.index[samples["video"] == "lost"][0]]
    orders = []
    for _ in range(3):
        for batch in range(len(train)):
            x, y = train[batch]
            rows = train.index_array[batch * 3 : (batch + 1) * 3]
            table = train.samples.iloc[np.stack([2 * rows, 2 * rows + 1], 1).ravel()]
            assert (
                x.dtype == y.dtype == np.float32
                and y.shape == (*x.shape[:3], 1)
                and len(x) == 2 * len(rows)
            )
            np.testing.assert_array_equal(
                x, scale_images(np.stack([read_image(p) for p in table["path"]]))
            )
            np.testing.assert_array_equal(
                y[..., 0] > 0, load_masks(table.reset_index(drop=True), (48, 64))
            )
            assert (
                table["label"].tolist() == [0, 1] * len(rows)
                and table["original"].iloc[::2].tolist() == table["original"].iloc[1::2].tolist()
            )
            assert (x[0::2] != x[1::2]).any((1, 2, 3)).all() and np.array_equal(
                np.where(y[1::2] > 0, 0, x[1::2]), np.where(y[1::2] > 0, 0, x[0::2])
            )
        orders.append(train.index_array.tolist())
        train.on_epoch_end()
    assert (
        all(sorted(o) == list(range(train.n)) for o in orders)
        and len({tuple(o) for o in orders}) == 3
    )


@pytest.mark.parametrize("scaling", ["unit", "tf", "caffe"])
def test_targets_and_scalings(samples, scaling):
    plain = in_table_order(batches(samples, scaling=scaling, targets="label"))
    x, y = epoch(plain)
    assert y.dtype == np.float32 and y.tolist() == plain.samples["label"].tolist()
    np.testing.assert_array_equal(
        x, scale_images(np.stack([read_image(p) for p in plain.samples["path"]]), scaling)
    )


def test_both_targets_are_those_of_each(samples):
    both, mask, label = (
        epoch(in_table_order(batches(samples, targets=targets)))
        for targets in ("both", "mask", "label")
    )
    np.testing.assert_array_equal(both[1]["changed"], mask[1])
    np.testing.assert_array_equal(both[1]["fake"], label[1])
    np.testing.assert_array_equal(both[0], mask[0])


def test_a_part_of_the_split_pairs_within_itself(samples):
    train, validation = (batches(samples, subset=part) for part in ("train", "validation"))
    assert set(train.samples["split"]) == {"train"} and set(validation.samples["split"]) == {
        "validation"
    }
    assert (
        train.n + validation.n + len(train.unpaired) + len(validation.unpaired)
        == (samples["label"] == 1).sum()
    )


def test_augmented_batches_follow_from_seed_epoch_and_pair(samples):
    make = lambda seed=0, **options: batches(
        samples, augment=Augmentation(), self_blend=0.5, seed=seed, **options
    )
    one, threads, other = make(), make(threads=1), make(5)
    first = epoch(one)
    for a, b in zip(first, epoch(threads)):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], epoch(other)[0])

    def by_pair(b):
        x = epoch(b)[0].reshape(b.n, -1)
        return {int(p): row for p, row in zip(b.index_array, x)}

    before = by_pair(one)
    one.on_epoch_end()
    after = by_pair(one)
    assert all(
        not np.array_equal(before[p], after[p]) for p in before
    )  # another epoch, other changes
    larger = make(pairs=7)  # the size of a batch changes nothing for a pair
    changed = by_pair(larger)
    assert all(np.array_equal(before[p], changed[p]) for p in before)
    jumped = make()
    jumped.epoch, jumped.index_array = one.epoch, one.index_array  # what a checkpoint restores
    for a, b in zip(epoch(one), epoch(jumped)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_another_process_and_backend_give_the_same_batches(samples, tmp_path):
    "Without TensorFlow, which neither batches nor augmentation need."
    samples.to_pickle(tmp_path / "samples.pkl")
    code = (
        f"import pandas as pd; from deepfake_nb.pairs import *; b = PairedBatches(pd.read_pickle({str(tmp_path / 'samples.pkl')!r}), size=(48, 64), pairs=3, cache=None, "
        "progress=False, augment=Augmentation(), self_blend=.5, threads=3); print(b.fingerprint, b[1][0].sum(dtype='float64'), b[1][1].sum(), 'tensorflow' in __import__('sys').modules)"
    )
    here = batches(samples, augment=Augmentation(), self_blend=0.5)
    env = os.environ | {"KERAS_BACKEND": "jax"}
    theirs = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    ).stdout.split()
    x, y = here[1]
    assert theirs == [here.fingerprint, str(x.sum(dtype="float64")), str(y.sum()), "False"]


def test_blends_replace_their_share_of_fakes(samples):
    never, half, always = (
        batches(samples, self_blend=share, shuffle=False) for share in (0, 0.5, 1)
    )
    table = np.concatenate([epoch(never)[0][1::2]])
    same = lambda b: np.mean([np.array_equal(x, y) for x, y in zip(epoch(b)[0][1::2], table)])
    assert same(always) == 0
    shares = []
    for _ in range(20):
        shares.append(same(half))
        half.on_epoch_end()
    assert np.mean(shares) == pytest.approx(0.5, abs=0.12) and len(set(shares)) > 1
    assert same(in_table_order(always)) == 1
    np.testing.assert_array_equal(epoch(always)[0][0::2], epoch(never)[0][0::2])  # originals stay
    assert epoch(always)[1][1::2].any((1, 2, 3)).all() and not epoch(always)[1][0::2].any()


def test_reals_without_a_fake(samples):
    assert batches(samples, lone_reals=True).n == batches(samples).n + 2
    reals = samples[samples["label"] == 0]
    alone = batches(reals, lone_reals=True)
    x, y = epoch(alone)
    assert (
        alone.n == len(reals)
        and y[1::2].any((1, 2, 3)).all()
        and (x[0::2] != x[1::2]).any((1, 2, 3)).all()
    )
    assert (
        set(alone.samples["manipulation"].iloc[1::2]) == {"self-blended"}
        and alone.samples["mask_path"].isna().all()
    )
    plain = in_table_order(alone)
    alone.on_epoch_end()
    for a, b in zip(epoch(plain), epoch(in_table_order(alone))):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(SampleError, match="none of 0 fakes"):
        batches(reals)
    with pytest.raises(SampleError, match="none of"):
        batches(samples[samples["label"] == 1])


def test_cached_batches_are_the_same(samples, tmp_path):
    for a, b in zip(
        epoch(batches(samples, augment=Augmentation())),
        epoch(batches(samples, augment=Augmentation(), cache=tmp_path)),
    ):
        np.testing.assert_array_equal(a, b)


def test_faults_are_named(samples, tmp_path):
    fake = samples.index[samples["label"] == 1][2]
    with pytest.raises(MaskError, match=f"row {fake}: .*without a mask"):
        batches(samples.assign(mask_path=samples["mask_path"].where(samples.index != fake)))
    broken = samples.copy()
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken.loc[fake, "path"] = str(tmp_path / "broken.png")
    with pytest.raises(ImageError, match=f"row {fake}: .*broken.png"):
        epoch(batches(broken))
    with pytest.raises(ImageError, match="nowhere.png"):
        batches(samples.assign(path="nowhere.png"))
    with pytest.raises(SampleError, match="occurs twice"):
        batches(pd.concat([samples, samples]))
    with pytest.raises(SampleError, match="video"):
        batches(samples.assign(kind="video"))
    for wrong in (
        dict(targets="y"),
        dict(self_blend=-1),
        dict(scaling="x"),
        dict(interpolation="x"),
        dict(pairs=0),
        dict(subset="x"),
    ):
        with pytest.raises(ValueError):
            batches(samples, **wrong)


# ---- augmentation


@pytest.mark.parametrize("seed", range(8))
def test_mask_goes_where_the_picture_goes(seed):
    "A mask painted into the picture comes out where the moved mask is; real and fake of a pair move alike."
    mask = np.zeros((96, 128), bool)
    mask[20:60, 30:90] = True
    painted = np.where(mask[..., None], np.uint8(255), np.uint8(0)).repeat(3, 2)
    real, fake, moved = augment_pair(
        smooth(seed, (96, 128)), painted, mask, MOVING, np.random.default_rng(seed)
    )
    assert (
        np.array_equal(fake[..., 0] > 127, moved) and moved.dtype == bool and 0 < moved.mean() < 1
    )
    again, _, _ = augment_pair(painted, painted, mask, MOVING, np.random.default_rng(seed))
    np.testing.assert_array_equal(again, fake)
    matrix = draw_motion(
        MOVING, np.random.default_rng(seed), mask.shape
    )  # far from its border, the mask is where the matrix says
    y, x = np.mgrid[:96, :128]
    back = cv2.invertAffineTransform(matrix) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    deep = ((back[0] > 32) & (back[0] < 87) & (back[1] > 22) & (back[1] < 57)).reshape(96, 128)
    assert moved[deep].all()


def test_what_is_off_does_not_happen():
    picture, mask = smooth(0), smooth(1)[..., 0] > 128
    off = Augmentation(
        flip=0, rotate=0, zoom=(1, 1), shift=0, colour=0, blur=0, shrink=0, noise=0, jpeg=0
    )
    for seed in range(5):
        for a, b in zip(
            augment_pair(picture, picture[::-1], mask, off, np.random.default_rng(seed)),
            (picture, picture[::-1], mask),
        ):
            np.testing.assert_array_equal(a, b)
    flips = [
        np.linalg.det(draw_motion(Augmentation(flip=0.3), np.random.default_rng(i), (9, 9))[:, :2])
        < 0
        for i in range(600)
    ]
    assert np.mean(flips) == pytest.approx(0.3, abs=0.06)


def test_pairs_are_degraded_alike_or_not():
    picture, mask = smooth(0), np.zeros((48, 64), bool)
    for seed in range(10):
        a, b, _ = augment_pair(
            picture, picture.copy(), mask, Augmentation(noise=1), np.random.default_rng(seed)
        )
        np.testing.assert_array_equal(a, b)
    apart = [
        augment_pair(
            picture,
            picture.copy(),
            mask,
            Augmentation(colour=1, alike=False),
            np.random.default_rng(s),
        )[:2]
        for s in range(10)
    ]
    assert all(not np.array_equal(a, b) for a, b in apart)
    kept = picture.copy()
    degrade(
        picture, Augmentation(colour=1, blur=1, shrink=1, noise=1, jpeg=1), np.random.default_rng(0)
    )
    np.testing.assert_array_equal(picture, kept)


@pytest.mark.parametrize("shape", [(48, 64), (65, 31), (256, 256)])
def test_self_blends(shape):
    picture = smooth(3, shape)
    for seed in range(25):
        fake, mask = self_blend(picture, np.random.default_rng(seed))
        again, _ = self_blend(picture, np.random.default_rng(seed))
        np.testing.assert_array_equal(fake, again)
        assert (
            fake.shape == picture.shape
            and fake.dtype == np.uint8
            and mask.shape == shape
            and mask.any()
            and not mask.all()
        )
    ring = np.zeros(shape, bool)
    ring[shape[0] // 3 : 2 * shape[0] // 3, shape[1] // 3 : 2 * shape[1] // 3] = True
    overlap = [
        (self_blend(picture, np.random.default_rng(s), ring)[1] & ring).sum() / ring.sum()
        for s in range(25)
    ]
    assert np.median(overlap) > 0.5
    np.testing.assert_array_equal(picture, smooth(3, shape))


def test_blending_happens_within_the_soft_mask():
    "Far from the region, a blend is either the picture or its changed copy: the same change everywhere there, none of the other copy."
    picture, far = smooth(5, (128, 128)), np.zeros((128, 128), bool)
    far[90:110, 90:110] = True
    untouched = [
        np.array_equal(
            self_blend(picture, np.random.default_rng(s), far)[0][:40, :40], picture[:40, :40]
        )
        for s in range(40)
    ]
    assert 0.2 < np.mean(untouched) < 0.8  # the changed copy is the source about every second time
    flat = np.full((128, 128, 3), 128, np.uint8)
    for seed in range(10):
        fake, mask = self_blend(flat, np.random.default_rng(seed), far)
        assert np.ptp(fake[:40, :40].reshape(-1, 3), axis=0).max() == 0 and not mask[:40, :40].any()


def test_regions_and_soft_masks():
    sizes = np.array([face_region((64, 64), np.random.default_rng(s)).mean() for s in range(200)])
    assert sizes.min() > 0.02 and sizes.max() < 0.7
    for seed in range(30):
        region = face_region((64, 80), np.random.default_rng(seed))
        soft = soft_mask(region, np.random.default_rng(seed))
        assert (
            soft.max() == 1 and 0 <= soft.min() and ((soft > 0.02) & (soft < 0.98)).any()
        )  # an edge that is soft
    for wrong in (np.zeros((64, 64), bool), np.ones((3, 3), bool)):
        with pytest.raises(ValueError, match="the region"):
            self_blend(smooth(0, (64, 64)), np.random.default_rng(0), wrong)
