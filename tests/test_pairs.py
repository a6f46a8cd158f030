"""Pairs: batches and their images, movements of mask and image, seeds, faults, self-blends."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deepfake_nb.core.errors import ImageError, MaskError, SampleError
from deepfake_nb.core.images import read_image
from deepfake_nb.data.samples import make_samples
from deepfake_nb.forensics.mask_datasets import load_masks
from deepfake_nb.training.augmentation import Augmentation, augment_pair, degrade, draw_motion
from deepfake_nb.training.blending import face_region, self_blend, soft_mask
from deepfake_nb.training.loaders import in_table_order
from deepfake_nb.training.pairs import PairedBatches
from deepfake_nb.training.scaling import scale_images

MOVING = Augmentation(
    colour=0, blur=0, shrink=0, noise=0, jpeg=0, rotate=15, zoom=(0.8, 1.3), shift=0.1
)


def rng(seed):
    return np.random.default_rng(seed)


def smooth(seed, side=(48, 64)):
    noise = rng(seed).uniform(0, 255, (6, 8, 3)).astype("float32")
    return cv2.resize(noise, side[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 255).astype("uint8")


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> pd.DataFrame:
    """Ten originals, two without a fake, eight with one to three; one fake lacks its original."""
    root = tmp_path_factory.mktemp("pairs")
    rows = []

    def add(name, label, image, **columns):
        path = root / f"{name}.png"
        Image.fromarray(image).save(path)
        row = {"path": str(path), "kind": "image", "label": label, "dataset": "d", "video": name}
        split = "train" if len(rows) < 16 else "validation"
        rows.append(row | {"frame": 0, "split": split} | columns)

    for i in range(10):
        add(f"real{i}", 0, smooth(i), original=f"real{i}")
        for k in range(0 if i in (3, 7) else 1 + i % 3):
            mask = np.zeros((48, 64), "uint8")
            mask[10 + 4 * k : 40, 12 : 44 + 4 * k] = 255
            path = root / f"mask{i}{k}.png"
            Image.fromarray(mask).save(path)
            fake = np.where(mask[..., None] > 0, smooth(i)[::-1, ::-1], smooth(i))
            columns = dict(original=f"real{i}", mask_path=str(path), manipulation="rotated")
            add(f"fake{i}{k}", 1, fake, **columns)
    columns = dict(original="elsewhere", mask_path=str(root / "mask00.png"), manipulation="rotated")
    add("lost", 1, smooth(99), **columns)
    return make_samples(rows)


def batches(samples, **options):
    usual = dict(size=(48, 64), pairs=3, cache=None, progress=False)
    return PairedBatches(samples, **usual | options)


def epoch(batches):
    """All x and all y of an epoch."""
    parts = []
    for part in zip(*(batches[i] for i in range(len(batches)))):
        if isinstance(part[0], dict):
            parts.append({name: np.concatenate([p[name] for p in part]) for name in part[0]})
        else:
            parts.append(np.concatenate(part))
    return parts


def read_all(table):
    return np.stack([read_image(path) for path in table["path"]])


# ---- batches


def test_pairs_stand_side_by_side_and_each_comes_once(samples):
    train = batches(samples, seed=4)
    fakes = samples[(samples["label"] == 1) & (samples["original"] != "elsewhere")]
    assert train.n == len(fakes)
    assert train.unpaired["reason"].tolist() == ["its original is not in the table"]
    assert train.unpaired["fake"].tolist() == [samples.index[samples["video"] == "lost"][0]]
    orders = []
    for _ in range(3):
        for i in range(len(train)):
            x, y = train[i]
            rows = train.index_array[i * 3 : (i + 1) * 3]
            table = train.samples.iloc[np.stack([2 * rows, 2 * rows + 1], 1).ravel()]
            assert x.dtype == y.dtype == np.float32
            assert y.shape == (*x.shape[:3], 1)
            assert len(x) == 2 * len(rows)
            np.testing.assert_array_equal(x, scale_images(read_all(table)))
            masks = load_masks(table.reset_index(drop=True), (48, 64))
            np.testing.assert_array_equal(y[..., 0] > 0, masks)
            assert table["label"].tolist() == [0, 1] * len(rows)
            originals = table["original"]
            assert originals.iloc[::2].tolist() == originals.iloc[1::2].tolist()
            real, fake, mask = x[0::2], x[1::2], y[1::2]
            assert (real != fake).any((1, 2, 3)).all()
            assert np.array_equal(np.where(mask > 0, 0, fake), np.where(mask > 0, 0, real))
        orders.append(train.index_array.tolist())
        train.on_epoch_end()
    assert all(sorted(order) == list(range(train.n)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("scaling", ["unit", "tf", "caffe"])
def test_targets_and_scalings(samples, scaling):
    plain = in_table_order(batches(samples, scaling=scaling, targets="label"))
    x, y = epoch(plain)
    assert y.dtype == np.float32
    assert y.tolist() == plain.samples["label"].tolist()
    np.testing.assert_array_equal(x, scale_images(read_all(plain.samples), scaling))


def test_both_targets_are_those_of_each(samples):
    both, mask, label = (
        epoch(in_table_order(batches(samples, targets=targets)))
        for targets in ("both", "mask", "label")
    )
    np.testing.assert_array_equal(both[1]["changed"], mask[1])
    np.testing.assert_array_equal(both[1]["fake"], label[1])
    np.testing.assert_array_equal(both[0], mask[0])


def test_a_subset_pairs_within_itself(samples):
    train, validation = (batches(samples, subset=subset) for subset in ("train", "validation"))
    assert set(train.samples["split"]) == {"train"}
    assert set(validation.samples["split"]) == {"validation"}
    n_unpaired = len(train.unpaired) + len(validation.unpaired)
    assert train.n + validation.n + n_unpaired == (samples["label"] == 1).sum()


def test_augmented_batches_follow_from_seed_epoch_and_pair(samples):
    def make(seed=0, **options):
        return batches(samples, augment=Augmentation(), self_blend=0.5, seed=seed, **options)

    def by_pair(b):
        x = epoch(b)[0].reshape(b.n, -1)
        return {int(pair): row for pair, row in zip(b.index_array, x)}

    one, threads, other = make(), make(threads=1), make(5)
    first = epoch(one)
    for a, b in zip(first, epoch(threads)):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], epoch(other)[0])

    before = by_pair(one)
    one.on_epoch_end()
    after = by_pair(one)  # another epoch, other changes
    assert all(not np.array_equal(before[pair], after[pair]) for pair in before)
    larger = by_pair(make(pairs=7))  # the size of a batch changes nothing for a pair
    assert all(np.array_equal(before[pair], larger[pair]) for pair in before)
    resumed = make()
    resumed.epoch, resumed.index_array = one.epoch, one.index_array  # what a checkpoint restores
    for a, b in zip(epoch(one), epoch(resumed)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_another_process_and_backend_give_the_same_batches(samples, tmp_path):
    """Without TensorFlow, which neither batches nor augmentation need."""
    samples.to_pickle(tmp_path / "samples.pkl")
    code = (
        "import sys, pandas as pd\n"
        "from deepfake_nb.training.augmentation import Augmentation\n"
        "from deepfake_nb.training.pairs import PairedBatches\n"
        "samples = pd.read_pickle(sys.argv[1])\n"
        "options = dict(size=(48, 64), pairs=3, cache=None, progress=False, threads=3)\n"
        "b = PairedBatches(samples, augment=Augmentation(), self_blend=0.5, **options)\n"
        "x, y = b[1]\n"
        "print(b.fingerprint, x.sum(dtype='float64'), y.sum(), 'tensorflow' in sys.modules)\n"
    )
    here = batches(samples, augment=Augmentation(), self_blend=0.5)
    command = [sys.executable, "-c", code, str(tmp_path / "samples.pkl")]
    env = os.environ | {"KERAS_BACKEND": "jax"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    x, y = here[1]
    expected = [here.fingerprint, str(x.sum(dtype="float64")), str(y.sum()), "False"]
    assert done.stdout.split() == expected


def test_cached_batches_are_the_same(samples, tmp_path):
    decoded = epoch(batches(samples, augment=Augmentation()))
    cached = epoch(batches(samples, augment=Augmentation(), cache=tmp_path))
    for a, b in zip(decoded, cached):
        np.testing.assert_array_equal(a, b)


def test_blends_replace_their_share_of_fakes(samples):
    never, half, always = (
        batches(samples, self_blend=share, shuffle=False) for share in (0, 0.5, 1)
    )
    unblended = epoch(never)[0]

    def share_of_unblended(b):
        fakes = zip(epoch(b)[0][1::2], unblended[1::2])
        return np.mean([np.array_equal(x, expected) for x, expected in fakes])

    assert share_of_unblended(always) == 0
    shares = []
    for _ in range(20):
        shares.append(share_of_unblended(half))
        half.on_epoch_end()
    assert np.mean(shares) == pytest.approx(0.5, abs=0.12)
    assert len(set(shares)) > 1
    assert share_of_unblended(in_table_order(always)) == 1
    x, y = epoch(always)
    np.testing.assert_array_equal(x[0::2], unblended[0::2])  # originals stay
    assert y[1::2].any((1, 2, 3)).all()
    assert not y[0::2].any()


def test_reals_without_a_fake(samples):
    assert batches(samples, lone_reals=True).n == batches(samples).n + 2
    reals = samples[samples["label"] == 0]
    alone = batches(reals, lone_reals=True)
    x, y = epoch(alone)
    assert alone.n == len(reals)
    assert y[1::2].any((1, 2, 3)).all()
    assert (x[0::2] != x[1::2]).any((1, 2, 3)).all()
    assert set(alone.samples["manipulation"].iloc[1::2]) == {"self-blended"}
    assert alone.samples["mask_path"].isna().all()
    plain = in_table_order(alone)
    alone.on_epoch_end()
    for a, b in zip(epoch(plain), epoch(in_table_order(alone))):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(SampleError, match="none of 0 fakes"):
        batches(reals)
    with pytest.raises(SampleError, match="none of"):
        batches(samples[samples["label"] == 1])


def test_faults_are_named(samples, tmp_path):
    fake = samples.index[samples["label"] == 1][2]
    unmasked = samples.assign(mask_path=samples["mask_path"].where(samples.index != fake))
    with pytest.raises(MaskError, match=f"row {fake}: .*without a mask"):
        batches(unmasked)
    broken = samples.copy()
    (tmp_path / "broken.png").write_bytes(b"no image")
    broken.loc[fake, "path"] = str(tmp_path / "broken.png")
    with pytest.raises(ImageError, match=rf"row {fake}: .*broken\.png"):
        epoch(batches(broken))
    with pytest.raises(ImageError, match=r"nowhere\.png"):
        batches(samples.assign(path="nowhere.png"))
    with pytest.raises(SampleError, match="occurs twice"):
        batches(pd.concat([samples, samples]))
    with pytest.raises(SampleError, match="video"):
        batches(samples.assign(kind="video"))


@pytest.mark.parametrize(
    "wrong",
    [
        dict(targets="y"),
        dict(self_blend=-1),
        dict(scaling="x"),
        dict(interpolation="x"),
        dict(pairs=0),
        dict(subset="x"),
    ],
    ids=str,
)
def test_wrong_options_are_errors(samples, wrong):
    (value,) = wrong.values()
    with pytest.raises(ValueError, match=str(value)):
        batches(samples, **wrong)


# ---- augmentation


@pytest.mark.parametrize("seed", range(8))
def test_mask_goes_where_the_image_goes(seed):
    """A mask painted into the image comes out where the moved mask is."""
    mask = np.zeros((96, 128), bool)
    mask[20:60, 30:90] = True
    painted = np.where(mask[..., None], np.uint8(255), np.uint8(0)).repeat(3, 2)
    _, fake, moved = augment_pair(smooth(seed, (96, 128)), painted, mask, MOVING, rng(seed))
    assert np.array_equal(fake[..., 0] > 127, moved)
    assert moved.dtype == bool
    assert 0 < moved.mean() < 1
    real, _, _ = augment_pair(painted, painted, mask, MOVING, rng(seed))
    np.testing.assert_array_equal(real, fake)  # both images move alike

    matrix = draw_motion(MOVING, rng(seed), mask.shape)
    y, x = np.mgrid[:96, :128]
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    back_x, back_y = cv2.invertAffineTransform(matrix) @ points
    deep = (back_x > 32) & (back_x < 87) & (back_y > 22) & (back_y < 57)  # far from the border
    assert moved[deep.reshape(96, 128)].all()


def test_what_is_off_does_not_happen():
    image = smooth(0)
    pair = (image, image[::-1], smooth(1)[..., 0] > 128)
    still = dict(flip=0, rotate=0, zoom=(1, 1), shift=0)
    off = Augmentation(colour=0, blur=0, shrink=0, noise=0, jpeg=0, **still)
    for seed in range(5):
        for a, b in zip(augment_pair(*pair, off, rng(seed)), pair):
            np.testing.assert_array_equal(a, b)


def test_flips_come_with_their_probability():
    flipping = Augmentation(flip=0.3)
    matrices = [draw_motion(flipping, rng(seed), (9, 9)) for seed in range(600)]
    flipped = [np.linalg.det(matrix[:, :2]) < 0 for matrix in matrices]
    assert np.mean(flipped) == pytest.approx(0.3, abs=0.06)


def test_pairs_are_degraded_alike_or_not():
    image, mask = smooth(0), np.zeros((48, 64), bool)
    apart = Augmentation(colour=1, alike=False)
    for seed in range(10):
        a, b, _ = augment_pair(image, image.copy(), mask, Augmentation(noise=1), rng(seed))
        np.testing.assert_array_equal(a, b)
        a, b, _ = augment_pair(image, image.copy(), mask, apart, rng(seed))
        assert not np.array_equal(a, b)
    kept = image.copy()
    degrade(image, Augmentation(colour=1, blur=1, shrink=1, noise=1, jpeg=1), rng(0))
    np.testing.assert_array_equal(image, kept)


# ---- self-blended fakes


@pytest.mark.parametrize("shape", [(48, 64), (65, 31), (256, 256)])
def test_self_blends(shape):
    image = smooth(3, shape)
    for seed in range(25):
        fake, mask = self_blend(image, rng(seed))
        again, _ = self_blend(image, rng(seed))
        np.testing.assert_array_equal(fake, again)
        assert fake.shape == image.shape
        assert fake.dtype == np.uint8
        assert mask.shape == shape
        assert mask.any()
        assert not mask.all()
    region = np.zeros(shape, bool)
    region[shape[0] // 3 : 2 * shape[0] // 3, shape[1] // 3 : 2 * shape[1] // 3] = True
    masks = [self_blend(image, rng(seed), region)[1] for seed in range(25)]
    assert np.median([(mask & region).sum() / region.sum() for mask in masks]) > 0.5
    np.testing.assert_array_equal(image, smooth(3, shape))


def test_blending_happens_within_the_soft_mask():
    """Far from the region, a blend is the image or its altered copy, and nothing of the other."""
    far = np.zeros((128, 128), bool)
    far[90:110, 90:110] = True
    image = smooth(5, (128, 128))
    corners = [self_blend(image, rng(seed), far)[0][:40, :40] for seed in range(40)]
    untouched = [np.array_equal(corner, image[:40, :40]) for corner in corners]
    assert 0.2 < np.mean(untouched) < 0.8  # the altered copy is the source about every second time
    flat = np.full((128, 128, 3), 128, np.uint8)
    for seed in range(10):
        fake, mask = self_blend(flat, rng(seed), far)
        assert np.ptp(fake[:40, :40].reshape(-1, 3), axis=0).max() == 0
        assert not mask[:40, :40].any()


def test_regions_and_soft_masks():
    sizes = np.array([face_region((64, 64), rng(seed)).mean() for seed in range(200)])
    assert sizes.min() > 0.02
    assert sizes.max() < 0.7
    for seed in range(30):
        soft = soft_mask(face_region((64, 80), rng(seed)), rng(seed))
        assert soft.max() == 1
        assert soft.min() >= 0
        assert ((soft > 0.02) & (soft < 0.98)).any()  # an edge that is soft
    for wrong in (np.zeros((64, 64), bool), np.ones((3, 3), bool)):
        with pytest.raises(ValueError, match="the region"):
            self_blend(smooth(0, (64, 64)), rng(0), wrong)
