"""Loaders: the batches of Keras, corrupt images, the life of the cache, no TensorFlow on JAX."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from keras.applications.imagenet_utils import preprocess_input
from PIL import Image, ImageOps

from deepfake_nb.core import images as core_images
from deepfake_nb.core.errors import ImageError
from deepfake_nb.core.images import read_image
from deepfake_nb.data.samples import make_samples
from deepfake_nb.training.batches import ShuffledBatches
from deepfake_nb.training.image_cache import ImageCache, MappedRows
from deepfake_nb.training.loaders import (
    ImageBatches,
    in_table_order,
    keras_generator,
    load_images,
)
from deepfake_nb.training.scaling import scale_images

CHROMA = ("444", "440", "422", "420", "411")


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """37 images of mixed sizes, formats and colour modes, in the order of their classes."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(37):
        size = (64 + 5 * (i % 3), 64 + 7 * (i % 2))
        mode = ("RGB", "L", "RGBA", "P")[i % 4]
        path = root / f"{i:02d}.{'png' if i % 4 > 1 else 'jpg'}"
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)
        row = {"path": str(path), "kind": "image", "label": int(i > 20), "dataset": "noise"}
        rows.append(row | {"split": "validation" if i % 5 == 0 else "train"})
    return make_samples(rows)


# ---- the same batches as Keras


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "box", "lanczos"])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("class_mode", ["categorical", "binary", None])
@pytest.mark.parametrize("cached", [True, False])
def test_batches_equal_image_data_generator(
    samples, tmp_path, interpolation, shuffle, class_mode, cached
):
    options = dict(
        validation_split=0.2,
        size=(48, 56),
        batch_size=8,
        class_mode=class_mode,
        interpolation=interpolation,
        shuffle=shuffle,
        seed=11,
    )
    theirs = keras_generator(samples, "train", **options)
    ours = ImageBatches(samples, "train", cache=tmp_path if cached else None, **options)
    assert len(ours) == len(theirs) == 4
    orders = []
    for _ in range(3):
        for i in range(len(theirs)):
            mine, expected = ours[i], theirs[i]
            for a, b in zip(mine, expected) if class_mode else [(mine, expected)]:
                assert a.dtype == b.dtype
                assert np.array_equal(a, b)
        orders.append(ours.index_array.tolist())
        ours.on_epoch_end()
        theirs.on_epoch_end()
    assert (orders[0] != orders[1] != orders[2]) == shuffle


@pytest.mark.parametrize("mode", ["tf", "caffe", "torch"])
def test_scalings_equal_keras(mode):
    images = noise(0, 3, 33, 31)
    expected = preprocess_input(images.astype("float32"), mode=mode)
    assert np.array_equal(scale_images(images, mode), expected)


def test_unit_scaling_is_bitwise_the_generators():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, 2)
    expected = levels.astype("float32")
    expected *= 1.0 / 255
    assert np.array_equal(scale_images(levels), expected)


# ---- decoding


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_grey_of_16_bits_is_scaled_and_not_clipped(tmp_path, name):
    """By the loaders, the views, the extraction of faces and the file features."""
    from deepfake_nb.faces.extraction import Extraction, wanted_frames
    from deepfake_nb.forensics.images import read_row
    from deepfake_nb.studies.duplicates import small_image
    from deepfake_nb.studies.leaks import image_features

    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    file = tmp_path / name
    if name.endswith("pgm"):
        file.write_bytes(b"P5 256 256 65535\n" + ramp.astype(">u2").tobytes())
    else:
        Image.fromarray(ramp).save(file)
    expected = np.repeat((ramp / 257).round().astype(np.uint8)[..., None], 3, 2)
    assert np.array_equal(read_image(file), expected)
    assert np.array_equal(read_row(str(file), 0), expected)
    assert image_features(file)["brightness"] == pytest.approx(expected.mean())
    grey = small_image(file, "image", grey=True, size=(256, 256))
    assert np.abs(grey.astype(int) - expected[..., 0]).max() <= 1
    if name.endswith("png"):
        assert np.array_equal(next(wanted_frames(file, Extraction())).image, expected)


@pytest.mark.parametrize("form", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_rotated_as_it_is_shown(tmp_path, orientation, form):
    """Stored on its side, it comes upright from the loaders and the views, as in `predict`."""
    from deepfake_nb.forensics.images import read_row

    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"phone.{form}"
    Image.fromarray(noise(0, 40, 80)).save(file, exif=exif)
    with Image.open(file) as image:
        plain = image if form == "tif" else image.convert("RGB")
        expected = np.asarray(ImageOps.exif_transpose(plain))
    assert expected.shape == ((40, 80, 3) if orientation < 5 else (80, 40, 3))
    assert np.array_equal(read_image(file), expected)
    assert np.array_equal(read_row(str(file), 0), expected)


def jpeg(seed: int) -> bytes:
    """A small JPEG file of noise or gradients, some progressive, some with restarts."""
    rng = np.random.default_rng(seed)
    h, w = rng.integers(1, 60, 2)
    image = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
    if seed % 2:
        image = cv2.resize(image[:4, :5], (int(w), int(h)), interpolation=cv2.INTER_CUBIC)
    factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{CHROMA[seed % 5]}")
    options = {
        cv2.IMWRITE_JPEG_QUALITY: int(rng.integers(1, 101)),
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR: factor,
        cv2.IMWRITE_JPEG_PROGRESSIVE: int(seed % 7 == 0),
        cv2.IMWRITE_JPEG_RST_INTERVAL: 3 * int(seed % 11 == 0),
    }
    flags = [number for option in options.items() for number in option]
    return cv2.imencode(".jpg", image, flags)[1].tobytes()


def damaged(seed: int) -> bytes:
    """A JPEG file cut, cut and ended, with bytes changed, dropped or zeroed, or another's end."""
    content = bytearray(jpeg(seed))
    rng = np.random.default_rng([seed, 1])
    at, length = int(rng.integers(1, len(content))), int(rng.integers(1, 200))
    fault = seed % 6
    if fault == 0:
        return bytes(content[:at])
    if fault == 1:
        return bytes(content[:at]) + b"\xff\xd9"
    if fault == 2:
        for position in rng.integers(0, len(content), 4):
            content[position] = rng.integers(0, 256)
    if fault == 3:
        del content[at : at + length]
    if fault == 4:
        content[at : at + length] = bytes(len(content[at : at + length]))
    if fault == 5:
        content[at:] = jpeg(seed + 1)
    return bytes(content)


def pixels_or_none(path, size=None):
    try:
        return read_image(path, size)
    except ImageError:
        return None


@pytest.mark.parametrize("make", [jpeg, damaged])
def test_jpeg_files_give_what_pillow_gives(tmp_path, monkeypatch, make):
    """OpenCV decodes the plain ones: to the same pixels, and nothing that Pillow refuses."""
    by_opencv = []
    real = cv2.imdecode

    def counted(*given):
        by_opencv.append(1)
        return real(*given)

    monkeypatch.setattr(cv2, "imdecode", counted)
    paths = [tmp_path / f"{seed}.jpg" for seed in range(300)]
    found = []
    for seed, path in enumerate(paths):
        path.write_bytes(make(seed))
        found.append(pixels_or_none(path))
    assert len(by_opencv) > 60
    monkeypatch.setattr(core_images, "_decode_jpeg", lambda *_: None)
    expected = [pixels_or_none(path) for path in paths]
    assert [seed for seed in range(300) if not np.array_equal(found[seed], expected[seed])] == []
    decoded = sum(pixels is not None for pixels in expected)
    assert decoded > (60 if make is damaged else 299)


def test_only_jpeg_files_of_the_wanted_size_that_decode_alike_go_to_opencv(tmp_path, monkeypatch):
    image = Image.fromarray(noise(0, 40, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "plain.jpg")
    image.save(tmp_path / "rotated.jpg", exif=exif)
    image.save(tmp_path / "progressive.jpg", progressive=True)
    image.save(tmp_path / "plain.png")
    image.convert("L").save(tmp_path / "grey.jpg")
    image.convert("CMYK").save(tmp_path / "print.jpg")
    core_images._decoders_agree()  # decodes noise, once
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((40, 48, 3), np.uint8))

    def black(name, size=None):
        return not read_image(tmp_path / name, size).any()

    assert black("plain.jpg")
    assert black("plain.jpg", (40, 48))
    assert not black("plain.jpg", (20, 24))
    assert not any(black(path.name) for path in tmp_path.iterdir() if path.name != "plain.jpg")
    monkeypatch.setattr(core_images, "_decoders_agree", lambda: False)
    assert not black("plain.jpg")


def test_decoders_that_differ_are_noticed(monkeypatch):
    real = cv2.imdecode
    agree = core_images._decoders_agree.__wrapped__
    assert agree()
    last_column = (np.arange(45) == 44)[:, None]
    monkeypatch.setattr(cv2, "imdecode", lambda *given: real(*given) ^ last_column)
    assert not agree()


# ---- the cache


def test_second_run_reads_what_the_first_kept(samples, tmp_path, monkeypatch):
    options = dict(cache=tmp_path, size=(32, 32), shuffle=False)
    first = ImageBatches(samples, **options)
    expected = first[0][0].copy()
    assert first.cache.store.wait().exists()
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]
    monkeypatch.setattr(
        "deepfake_nb.training.image_cache.read_image", lambda *_: pytest.fail("decoded again")
    )
    assert np.array_equal(ImageBatches(samples, **options)[0][0], expected)


def test_changed_image_is_read_anew(samples, tmp_path):
    path = tmp_path / "changing.png"
    table = samples.head(1).copy()
    table.loc[0, "path"] = str(path)
    for level in (10, 200):
        Image.new("RGB", (9, 9), (level, level, level)).save(path)
        os.utime(path, (level, level))
        assert load_images(table, (9, 9), cache=tmp_path)[0, 0, 0, 0] == level


@pytest.mark.slow
def test_killed_first_epoch_leaves_no_complete_cache(samples, tmp_path):
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from deepfake_nb.training.image_cache import ImageCache\n"
        "cache = ImageCache(sys.argv[2:], (16, 16), folder=Path(sys.argv[1]))\n"
        "for i in range(20):\n"
        "    cache[i]\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    env = {**os.environ, "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-c", code, str(tmp_path), *samples["path"]]
    done = subprocess.run(command, env=env, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-500:]
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    cache = ImageCache(samples["path"], (16, 16), folder=tmp_path)
    assert not cache.store.filled.any()
    for i in range(len(cache)):
        cache[i]
    assert cache.store.wait().exists()
    del cache
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


def test_full_disk_is_an_error_before_the_first_image(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="bytes free, .* are needed; give another cache folder"):
        MappedRows(tmp_path, "key", (10, 10))
    assert list(tmp_path.iterdir()) == []


# ---- corrupt images


@pytest.mark.parametrize("content", [b"", b"no image", "truncated"])
def test_corrupt_image_is_named_or_skipped_never_black(samples, tmp_path, content):
    broken = tmp_path / "broken.jpg"
    if content == "truncated":
        with open(samples["path"][0], "rb") as file:
            content = file.read(900)
    broken.write_bytes(content)
    table = samples.copy()
    table.loc[20, "path"] = str(broken)
    for cache in (None, tmp_path / "cache"):
        options = dict(size=(32, 32), batch_size=8, cache=cache)
        with pytest.raises(ImageError, match=r"row 20: .*broken\.jpg"):
            list(ImageBatches(table, **options))
        for _ in range(2):
            batches = ImageBatches(
                table, on_corrupt="skip", shuffle=False, progress=False, **options
            )
            assert batches.skipped["row"].tolist() == [20]
            assert "broken.jpg" in batches.skipped["reason"][0]
            assert batches.samples.index.tolist() == [i for i in range(37) if i != 20]
            parts = [(x.copy(), y) for x, y in batches]
            x, y = (np.concatenate(part) for part in zip(*parts))
            images = load_images(batches.samples, (32, 32), cache=None)
            assert np.array_equal(x, scale_images(images))
            assert np.array_equal(y.argmax(1), batches.samples["label"])
            if batches.cache.store is not None:
                batches.cache.store.wait()
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        load_images(table, (32, 32), cache=tmp_path / "cache")


def test_skipping_survives_an_index_that_is_not_unique(samples, tmp_path):
    table = samples.copy()
    (tmp_path / "broken.png").write_bytes(b"x")
    table.loc[3, "path"] = str(tmp_path / "broken.png")
    table.index = [0] * len(table)
    batches = ImageBatches(table, size=(16, 16), cache=None, on_corrupt="skip", progress=False)
    assert batches.n == 36
    assert batches.skipped["position"].tolist() == [3]


# ---- buffers and orders


def test_batches_stay_unchanged_while_they_are_held(samples):
    batches = ImageBatches(samples, size=(32, 32), batch_size=4, cache=None, shuffle=False)
    held = [batches[i][0] for i in range(len(batches))]
    expected = scale_images(load_images(samples, (32, 32), cache=None))
    assert np.array_equal(np.concatenate(held), expected)
    address = held[0].ctypes.data
    del held
    assert batches[0][0].ctypes.data == address


def test_threads_give_the_same_epochs(samples):
    def epochs(workers):
        batches = ImageBatches(
            samples, size=(16, 16), batch_size=5, cache=None, seed=3, workers=workers
        )
        seen = []
        with ThreadPoolExecutor(workers) as pool:
            for _ in range(3):
                for _, y in pool.map(batches.__getitem__, range(len(batches))):
                    seen.append(y.argmax(1).tolist())
                batches.on_epoch_end()
        return seen

    assert epochs(1) == epochs(3)


def test_order_in_table(samples):
    batches = ImageBatches(samples, size=(16, 16), batch_size=10, cache=None, seed=1)
    before = (batches.total_batches_seen, batches.index_array)
    labels = np.concatenate([y.argmax(1) for _, y in in_table_order(batches)])
    assert labels.tolist() == samples["label"].tolist()
    assert (batches.total_batches_seen, batches.index_array) == before


def test_an_epoch_has_every_row_once():
    batches = ShuffledBatches(23, 5, seed=2)
    for _ in range(4):
        rows = np.concatenate([batches[i][0] for i in range(len(batches))])
        assert sorted(rows) == list(range(23))
        batches.on_epoch_end()
