"Loaders: the same batches as ImageDataGenerator, corrupt images, the cache's life, no TensorFlow under JAX."

import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
from keras.applications.imagenet_utils import preprocess_input
from PIL import Image

from deepfake_nb.core.images import _decoders_agree
from deepfake_nb.core.errors import ImageError
from deepfake_nb.core.images import read_image
from deepfake_nb.training.image_cache import ImageCache, MappedRows
from deepfake_nb.training.loaders import (
    ImageBatches,
    ShuffledBatches,
    in_table_order,
    keras_generator,
    load_images,
)
from deepfake_nb.training.scaling import scale_images
from deepfake_nb.data.samples import make_samples


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    "37 images of mixed sizes, formats and colour modes, in the order of their classes."
    root, rng, rows = tmp_path_factory.mktemp("images"), np.random.default_rng(0), []
    for i in range(37):
        size, mode, suffix = (
            (64 + 5 * (i % 3), 64 + 7 * (i % 2)),
            ("RGB", "L", "RGBA", "P")[i % 4],
            ("jpg", "png")[i % 4 > 1],
        )
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode)
        image.save(root / f"{i:02d}.{suffix}")
        rows.append(
            dict(
                path=str(root / f"{i:02d}.{suffix}"),
                kind="image",
                label=int(i > 20),
                dataset="noise",
                split="validation" if i % 5 == 0 else "train",
            )
        )
    return make_samples(rows)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "box", "lanczos"])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("class_mode", ["categorical", "binary", None])
@pytest.mark.parametrize("cached", [True, False])
def test_batches_equal_image_data_generator(
    samples, tmp_path, interpolation, shuffle, class_mode, cached
):
    options = dict(
        size=(48, 56),
        batch_size=8,
        class_mode=class_mode,
        interpolation=interpolation,
        shuffle=shuffle,
        seed=11,
    )
    theirs = keras_generator(samples, "train", validation_split=0.2, **options)
    ours = ImageBatches(
        samples, "train", validation_split=0.2, cache=tmp_path if cached else None, **options
    )
    assert len(ours) == len(theirs) == 4
    orders = []
    for _ in range(3):
        for i in range(len(theirs)):
            mine, expected = ours[i], theirs[i]
            for a, b in zip(mine, expected) if class_mode else [(mine, expected)]:
                assert a.dtype == b.dtype and np.array_equal(a, b)
        orders.append(ours.index_array.tolist())
        ours.on_epoch_end(), theirs.on_epoch_end()
    assert (orders[0] != orders[1] != orders[2]) == shuffle


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_grey_of_16_bits_is_scaled_and_not_clipped(tmp_path, name):
    "By the loaders, the views, the extraction of faces and the file features; a ramp was 99.6 % white."
    from deepfake_nb.studies.audit import _image_header, _picture
    from deepfake_nb.faces.extraction import Extraction, wanted_frames
    from deepfake_nb.core.images import read_image

    ramp, file = np.arange(65536, dtype=np.uint16).reshape(256, 256), tmp_path / name
    if name.endswith("pgm"):
        file.write_bytes(b"P5 256 256 65535\n" + ramp.astype(">u2").tobytes())
    else:
        Image.fromarray(ramp).save(file)
    expected = np.repeat((ramp / 257).round().astype(np.uint8)[..., None], 3, 2)
    assert np.array_equal(read_image(file), expected) and np.array_equal(
        read_image(str(file), 0), expected
    )
    assert _image_header(file)["brightness"] == pytest.approx(expected.mean())
    assert (
        np.abs(
            _picture(file, "image", grey=True, size=(256, 256)).astype(int) - expected[..., 0]
        ).max()
        <= 1
    )
    if name.endswith("png"):
        assert np.array_equal(next(wanted_frames(file, Extraction())).image, expected)


@pytest.mark.parametrize("form", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_it_is_shown(tmp_path, orientation, form):
    "Stored lying, it comes upright from the loaders and the views, as it does in `predict`."
    from PIL import ImageOps
    from deepfake_nb.core.images import read_image

    exif, file = Image.Exif(), tmp_path / f"phone.{form}"
    exif[0x0112] = orientation
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)).save(
        file, exif=exif
    )
    with Image.open(file) as image:
        expected = np.asarray(
            ImageOps.exif_transpose(image.convert("RGB") if form != "tif" else image)
        )
    assert expected.shape == ((40, 80, 3) if orientation < 5 else (80, 40, 3))
    assert np.array_equal(read_image(file), expected) and np.array_equal(
        read_image(str(file), 0), expected
    )


CHROMA = ("444", "440", "422", "420", "411")


def jpeg(seed: int) -> bytes:
    "A small JPEG file: noise or gradients, any quality and subsampling, some progressive, some with restarts."
    rng = np.random.default_rng(seed)
    h, w = rng.integers(1, 60, 2)
    image = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
    if seed % 2:
        image = cv2.resize(image[:4, :5], (int(w), int(h)), interpolation=cv2.INTER_CUBIC)
    factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{CHROMA[seed % 5]}")
    flags = [
        cv2.IMWRITE_JPEG_QUALITY,
        int(rng.integers(1, 101)),
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        factor,
    ]
    flags += [
        cv2.IMWRITE_JPEG_PROGRESSIVE,
        int(seed % 7 == 0),
        cv2.IMWRITE_JPEG_RST_INTERVAL,
        3 * int(seed % 11 == 0),
    ]
    return cv2.imencode(".jpg", image, flags)[1].tobytes()


def damaged(seed: int) -> bytes:
    "A JPEG file cut, cut and ended, with bytes changed, dropped or zeroed, or with another file after its first half."
    content, rng = bytearray(jpeg(seed)), np.random.default_rng([seed, 1])
    at, length = int(rng.integers(1, len(content))), int(rng.integers(1, 200))
    if seed % 6 == 0:
        return bytes(content[:at])
    if seed % 6 == 1:
        return bytes(content[:at]) + b"\xff\xd9"
    if seed % 6 == 2:
        for position in rng.integers(0, len(content), 4):
            content[position] = rng.integers(0, 256)
    if seed % 6 == 3:
        del content[at : at + length]
    if seed % 6 == 4:
        content[at : at + length] = bytes(len(content[at : at + length]))
    if seed % 6 == 5:
        content[at:] = jpeg(seed + 1)
    return bytes(content)


def pixels_or_none(path, size=None):
    try:
        return read_image(path, size)
    except ImageError:
        return None


@pytest.mark.parametrize("make", [jpeg, damaged])
def test_jpeg_files_give_what_pillow_gives(tmp_path, monkeypatch, make):
    "OpenCV decodes the plain ones: to the same pixels, and nothing that Pillow refuses."
    by_opencv, real = [], cv2.imdecode
    monkeypatch.setattr(
        loaders.cv2, "imdecode", lambda *given: (by_opencv.append(1), real(*given))[1]
    )
    found = []
    for seed in range(300):
        (tmp_path / f"{seed}.jpg").write_bytes(make(seed))
        found.append(pixels_or_none(tmp_path / f"{seed}.jpg"))
    assert len(by_opencv) > 60
    monkeypatch.setattr(loaders, "_decode_jpeg", lambda *_: None)
    expected = [pixels_or_none(tmp_path / f"{seed}.jpg") for seed in range(300)]
    assert [seed for seed in range(300) if not np.array_equal(found[seed], expected[seed])] == []
    assert sum(pixels is not None for pixels in expected) > (60 if make is damaged else 299)


def test_only_jpeg_files_of_the_wanted_size_that_decode_alike_go_to_opencv(tmp_path, monkeypatch):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {
        "plain.jpg": {},
        "turned.jpg": {"exif": exif},
        "progressive.jpg": {"progressive": True},
        "plain.png": {},
    }
    for name, more in options.items():
        image.save(tmp_path / name, **more)
    image.convert("L").save(tmp_path / "grey.jpg")
    image.convert("CMYK").save(tmp_path / "print.jpg")
    _decoders_agree()  # decodes noise, once
    monkeypatch.setattr(loaders.cv2, "imdecode", lambda *_: np.zeros((40, 48, 3), np.uint8))
    black = lambda name, size=None: not read_image(tmp_path / name, size).any()
    assert black("plain.jpg") and black("plain.jpg", (40, 48)) and not black("plain.jpg", (20, 24))
    assert not any(black(path.name) for path in tmp_path.iterdir() if path.name != "plain.jpg")
    monkeypatch.setattr(loaders, "_decoders_agree", lambda: False)
    assert not black("plain.jpg")


def test_decoders_that_differ_are_noticed(monkeypatch):
    real = cv2.imdecode
    assert _decoders_agree.__wrapped__()
    monkeypatch.setattr(
        loaders.cv2, "imdecode", lambda *given: real(*given) ^ (np.arange(45) == 44)[:, None]
    )
    assert not _decoders_agree.__wrapped__()


def test_second_run_reads_what_the_first_kept(samples, tmp_path, monkeypatch):
    first = ImageBatches(samples, cache=tmp_path, size=(32, 32), shuffle=False)
    expected = first[0][0].copy()
    assert first.cache.store.wait().exists() and [p.suffix for p in tmp_path.iterdir()] == [".npy"]
    monkeypatch.setattr("deepfake_nb.loaders.read_image", lambda *_: pytest.fail("decoded again"))
    assert np.array_equal(
        ImageBatches(samples, cache=tmp_path, size=(32, 32), shuffle=False)[0][0], expected
    )


def test_changed_image_is_read_anew(samples, tmp_path):
    table = samples.copy()
    path = tmp_path / "changing.png"
    Image.new("RGB", (9, 9), (10, 10, 10)).save(path)
    table.loc[0, "path"] = str(path)
    assert load_images(table.head(1), (9, 9), cache=tmp_path)[0, 0, 0, 0] == 10
    Image.new("RGB", (9, 9), (200, 200, 200)).save(path)
    os.utime(path, (1, 1))
    assert load_images(table.head(1), (9, 9), cache=tmp_path)[0, 0, 0, 0] == 200


@pytest.mark.parametrize("content", [b"", b"no image", "truncated"])
def test_corrupt_image_is_named_or_skipped_never_black(samples, tmp_path, content):
    table = samples.copy()
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(
        open(samples["path"][0], "rb").read()[:900] if content == "truncated" else content
    )
    table.loc[20, "path"] = str(broken)
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(ImageError, match=r"row 20: .*broken\.jpg"):
            for batch in ImageBatches(table, size=(32, 32), batch_size=8, cache=cache):
                pass
        for _ in range(2):
            batches = ImageBatches(
                table,
                size=(32, 32),
                batch_size=8,
                cache=cache,
                on_corrupt="skip",
                shuffle=False,
                progress=False,
            )
            assert (
                batches.skipped["row"].tolist() == [20]
                and "broken.jpg" in batches.skipped["reason"][0]
            )
            assert batches.samples.index.tolist() == [i for i in range(37) if i != 20]
            x, y = (np.concatenate(part) for part in zip(*[(a.copy(), b) for a, b in batches]))
            assert np.array_equal(
                x, scale_images(load_images(batches.samples, (32, 32), cache=None))
            )
            assert np.array_equal(y.argmax(1), batches.samples["label"])
            if batches.cache.store is not None:
                batches.cache.store.wait()
    with pytest.raises(ImageError, match="broken.jpg"):
        load_images(table, (32, 32), cache=tmp_path / "cache")


def test_skipping_survives_an_index_that_is_not_unique(samples, tmp_path):
    table = samples.copy()
    (tmp_path / "broken.png").write_bytes(b"x")
    table.loc[3, "path"] = str(tmp_path / "broken.png")
    table.index = [0] * len(table)
    batches = ImageBatches(table, size=(16, 16), cache=None, on_corrupt="skip", progress=False)
    assert batches.n == 36 and batches.skipped["position"].tolist() == [3]


@pytest.mark.slow
def test_killed_first_epoch_leaves_no_whole_cache(samples, tmp_path):
    code = (
        "import sys, os, signal, pandas as pd; from deepfake_nb.loaders import ImageCache; from pathlib import Path\n"
        "cache = ImageCache(sys.argv[2:], (16, 16), folder=Path(sys.argv[1])); [cache[i] for i in range(20)]; os.kill(os.getpid(), signal.SIGKILL)"
    )
    env = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *samples["path"]], env=env, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-500:]
    assert [p.suffix for p in tmp_path.iterdir()] == [".partial"]
    cache = ImageCache(samples["path"], (16, 16), folder=tmp_path)
    assert not cache.store.filled.any()
    for i in range(len(cache)):
        cache[i]
    assert cache.store.wait().exists()
    del cache
    assert [p.suffix for p in tmp_path.iterdir()] == [".npy"]


def test_full_disk_is_an_error_before_the_first_image(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="bytes free, .* are needed; give another cache folder"):
        MappedRows(tmp_path, "key", (10, 10))
    assert list(tmp_path.iterdir()) == []


def test_batches_stay_whole_while_they_are_held(samples):
    batches = ImageBatches(samples, size=(32, 32), batch_size=4, cache=None, shuffle=False)
    held = [batches[i][0] for i in range(len(batches))]
    assert np.array_equal(
        np.concatenate(held), scale_images(load_images(samples, (32, 32), cache=None))
    )
    address = held[0].ctypes.data
    del held
    assert batches[0][0].ctypes.data == address


def test_threads_give_the_same_epochs(samples):
    def epochs(workers):
        batches = ImageBatches(
            samples, size=(16, 16), batch_size=5, cache=None, seed=3, workers=workers
        )
        seen = []
        for _ in range(3):
            if workers > 1:
                from concurrent.futures import ThreadPoolExecutor

                with ThreadPoolExecutor(workers) as pool:
                    seen += [
                        y.argmax(1).tolist()
                        for _, y in pool.map(batches.__getitem__, range(len(batches)))
                    ]
            else:
                seen += [batches[i][1].argmax(1).tolist() for i in range(len(batches))]
            batches.on_epoch_end()
        return seen

    assert epochs(1) == epochs(3)


@pytest.mark.parametrize("mode", ["tf", "caffe", "torch"])
def test_scalings_equal_keras(mode):
    images = np.random.default_rng(0).integers(0, 256, (3, 33, 31, 3), dtype=np.uint8)
    assert np.array_equal(
        scale_images(images, mode), preprocess_input(images.astype("float32"), mode=mode)
    )


def test_unit_scaling_is_bitwise_the_generators():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, 2)
    expected = levels.astype("float32")
    expected *= 1.0 / 255
    assert np.array_equal(scale_images(levels), expected)


def test_order_in_table(samples):
    batches = ImageBatches(samples, size=(16, 16), batch_size=10, cache=None, seed=1)
    before = (batches.total_batches_seen, batches.index_array)
    labels = np.concatenate([y.argmax(1) for _, y in in_table_order(batches)])
    assert (
        labels.tolist() == samples["label"].tolist()
        and (batches.total_batches_seen, batches.index_array) == before
    )


def test_a_batch_of_every_row_once():
    batches = ShuffledBatches(23, 5, seed=2)
    for _ in range(4):
        assert sorted(np.concatenate([batches[i][0] for i in range(len(batches))])) == list(
            range(23)
        )
        batches.on_epoch_end()


@pytest.mark.slow
def test_no_tensorflow_under_jax():
    code = "import sys, deepfake_nb.loaders, deepfake_nb.training; sys.exit('tensorflow' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "KERAS_BACKEND": "jax"}
        ).returncode
        == 0
    )
