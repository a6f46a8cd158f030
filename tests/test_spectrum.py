"""The 1-D spectrum against the authors' numbers and a slow implementation; safe classifiers."""

import io
import json
import os
import pickle
import threading
import tracemalloc
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from deepfake_nb.core.errors import SpectrumError
from deepfake_nb.forensics import rings, spectrum
from deepfake_nb.forensics.rings import MINIMUM_SIDE, MODES, azimuthal_rings
from deepfake_nb.forensics.spectrum import (
    amplitude_spectrum,
    azimuthal_spectrum,
    grey_image,
    read_grey,
)
from deepfake_nb.forensics.spectrum_classifiers import (
    CLASSIFIERS,
    TRUSTED,
    BlockScaler,
    SpectrumFeatures,
    TwoClusters,
    feature_classifier,
    load_classifier,
    save_classifier,
)
from deepfake_nb.synthetic.people import make_identity, trajectory
from deepfake_nb.synthetic.rendering import render_frame


def slow(image, n_features=300, epsilon=1e-8, mode="reference"):
    """One image, pixel by pixel and ring by ring, with the interpolation that the authors used."""
    h, w = image.shape
    spectrum = np.fft.fftshift(np.fft.fft2(image.astype(float))) + epsilon
    rings = {}
    for y in range(h):
        for x in range(w):
            if mode == "reference":
                radius = np.hypot(x - (w - 1) / 2, y - (h - 1) / 2)
            else:
                radius = np.hypot((x - w // 2) * min(h, w) / w, (y - h // 2) * min(h, w) / h)
            rings.setdefault(int(np.floor(radius)), []).append(20 * np.log(abs(spectrum[y, x])))
    means = np.array([np.mean(rings[k]) for k in range(len(rings))])[1:-1]
    values = interp1d(np.linspace(0, n_features, len(means)), means, kind="cubic")(
        np.linspace(0, n_features, n_features)
    )
    return values / values[0]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def face(i, size=128):
    return cv2.cvtColor(
        render_frame(make_identity(i), trajectory(i, 1)[0], size).image, cv2.COLOR_RGB2GRAY
    )


# ---- the features


def test_golden_vectors():
    path = (
        Path(os.environ.get("DEEPFAKE_NB_DATA", "absent")) / "golden" / "azimuthal_celeba_gan.npz"
    )
    if not path.exists():
        pytest.skip("DEEPFAKE_NB_DATA has no golden/azimuthal_celeba_gan.npz")
    with np.load(path) as file:
        images, theirs = file["images"], file["features"]
    assert np.abs(azimuthal_spectrum(images, 80) - theirs).max() <= 1e-9
    assert (
        np.abs(azimuthal_spectrum(iter(images.astype(float)), 80, threads=1) - theirs).max() <= 1e-9
    )
    np.testing.assert_allclose(azimuthal_spectrum(images, 80, dtype="float32"), theirs, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    h=st.integers(MINIMUM_SIDE, 40),
    w=st.integers(MINIMUM_SIDE, 40),
    mode=st.sampled_from(MODES),
    n=st.integers(2, 120),
    epsilon=st.sampled_from([1e-8, 1e-3, 2.0]),
    seed=st.integers(0, 99),
)
def test_agrees_with_the_slow_implementation(h, w, mode, n, epsilon, seed):
    image = noise(h, w, seed=seed)
    expected = slow(image, n, epsilon, mode)
    np.testing.assert_allclose(
        azimuthal_spectrum([image], n, epsilon, mode)[0], expected, rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(
        azimuthal_spectrum([image], n, epsilon, mode, "float32")[0], expected, rtol=1e-4
    )


@pytest.mark.parametrize("mode", MODES)
def test_smallest_images_and_just_below(mode):
    for shape in ((MINIMUM_SIDE, MINIMUM_SIDE), (MINIMUM_SIDE, 70), (71, MINIMUM_SIDE)):
        np.testing.assert_allclose(
            azimuthal_spectrum([noise(*shape)], 30, mode=mode)[0],
            slow(noise(*shape), 30, mode=mode),
            rtol=1e-9,
        )
        assert np.bincount(azimuthal_rings(shape, mode).ravel()).min() > 0
    for shape in ((MINIMUM_SIDE - 1, 70), (70, MINIMUM_SIDE - 1)):
        with pytest.raises(
            SpectrumError,
            match=f"image 1: {shape[0]}×{shape[1]} pixels are too small.*at least {MINIMUM_SIDE}",
        ):
            azimuthal_spectrum([noise(20, 20), noise(*shape)], mode=mode)
    with pytest.raises(ValueError):
        slow(noise(MINIMUM_SIDE - 1, MINIMUM_SIDE - 1))  # the definition itself gives nothing there


@pytest.mark.parametrize("mode", MODES)
def test_float32_is_within_a_ten_thousandth(mode):

    def blur(image, sigma):
        return cv2.GaussianBlur(image, (0, 0), sigma)

    def jpeg(image):
        content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
        return cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)

    faces = [face(i) for i in range(6)]
    images = [
        *faces,
        *(blur(f, 3) for f in faces),
        *(blur(f.astype(float), 2) for f in faces),
        *map(jpeg, faces),
        *(cv2.resize(f, (200, 190), interpolation=cv2.INTER_CUBIC) for f in faces),
        *(np.kron(f, np.ones((2, 2), np.uint8)) for f in faces),
        *(f // 32 for f in faces),
        *(noise(97, 130, seed=i) for i in range(6)),
        *(noise(64, 64, seed=i).astype(np.uint16) * 200 for i in range(3)),
        np.tile(noise(16, 8), (4, 12)),
        np.tile(noise(1, 90), (60, 1)),
        np.zeros((30, 31), np.uint8),
        np.full((64, 50), 255, np.uint8),
        np.eye(40, dtype=np.uint8),
        face(9, 512),
    ]
    np.testing.assert_allclose(
        azimuthal_spectrum(images, mode=mode, dtype="float32"),
        azimuthal_spectrum(images, mode=mode),
        rtol=1e-4,
    )


def test_float32_stays_in_float32_for_faces(monkeypatch):
    used, real = [], rings.ring_means

    def recorded(images, mode, epsilon, dtype, space):
        used.append((dtype, len(images)))
        return real(images, mode, epsilon, dtype, space)

    monkeypatch.setattr(rings, "ring_means", recorded)  # it calls itself for images in float64
    monkeypatch.setattr(spectrum, "ring_means", recorded)
    azimuthal_spectrum(np.stack([face(i) for i in range(12)]), dtype="float32", threads=1)
    assert used == [("float32", 12)]
    black = np.zeros((128, 128), np.uint8)
    azimuthal_spectrum(np.stack([face(1), black, face(2)]), dtype="float32", threads=1)
    assert used[1:] == [("float32", 3), ("float64", 1)]


def test_result_types_and_first_column():
    for dtype in ("float64", "float32", np.float32):
        features = azimuthal_spectrum([noise(40, 50)] * 3, dtype=dtype)
        assert (
            features.dtype == dtype and features.shape == (3, 300) and (features[:, 0] == 1).all()
        )
    assert azimuthal_spectrum([]).shape == (0, 300)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_batches_threads_and_order_do_not_matter(dtype):
    rng = np.random.default_rng(1)
    shapes = [
        (rng.integers(9, 40), rng.integers(9, 40)) for _ in range(50)
    ]  # more shapes than there are open blocks
    images = [noise(*shapes[rng.integers(50)], seed=i) for i in range(150)]
    alone = np.concatenate([azimuthal_spectrum([image], 50, dtype=dtype) for image in images])
    for options in (
        dict(),
        dict(batch_size=1),
        dict(batch_size=7, threads=1),
        dict(batch_size=1000, threads=3),
    ):
        np.testing.assert_allclose(
            azimuthal_spectrum(iter(images), 50, dtype=dtype, **options),
            alone,
            rtol=1e-12 if dtype == "float64" else 1e-5,
        )
    stack = np.stack([noise(24, 31, seed=i) for i in range(20)])
    for given_ in (
        stack,
        list(stack),
        iter(stack),
        stack[..., None],
        stack.astype(np.float32),
        stack.astype(np.uint16) * 257,
        stack[:, ::-1][:, ::-1],
    ):
        np.testing.assert_allclose(
            azimuthal_spectrum(given_, dtype=dtype),
            azimuthal_spectrum(stack),
            rtol=1e-12 if dtype == "float64" else 1e-4,
        )


def test_a_generator_may_use_its_array_again():
    def reused():
        buffer = np.empty((30, 30), np.uint8)
        for i in range(9):
            buffer[:] = noise(30, 30, seed=i)
            yield buffer

    fresh = [noise(30, 30, seed=i) for i in range(9)]
    np.testing.assert_array_equal(azimuthal_spectrum(reused()), azimuthal_spectrum(fresh))


@pytest.mark.parametrize("threads", [1, 2])
def test_memory_does_not_grow_with_the_number_of_images(threads):
    base = noise(128, 128)

    def peak(n):
        images = (base + np.uint8(i % 256) for i in range(n))
        tracemalloc.start()
        azimuthal_spectrum(images, 20, threads=threads, dtype="float32")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few, many = peak(600), peak(3000)  # 10 and 49 MB of pixels
    assert many - few < 3 * 2**20


def test_images_are_taken_as_they_are_needed(monkeypatch):
    """While the first block is computed, a generator has been asked for that block only."""
    asked, seen, real = [], [], rings.ring_means

    def images():
        for i in range(200):
            asked.append(i)
            yield noise(32, 32, seed=i)

    def recorded(*arguments):
        seen.append(len(asked))
        return real(*arguments)

    monkeypatch.setattr(spectrum, "ring_means", recorded)
    azimuthal_spectrum(images(), batch_size=5, threads=1)
    assert seen == list(range(5, 201, 5))


def test_kept_matrices_are_bounded(monkeypatch):
    monkeypatch.setattr(rings, "KEPT_BYTES", 200_000)
    for side in range(20, 90):
        azimuthal_spectrum([noise(side, side)])
    kept = rings.kept_matrices.values()
    size = sum(m.reach.nbytes + m.means.data.nbytes + m.means.indices.nbytes for m in kept)
    assert size <= 200_000 and len(kept) >= 1
    made = []
    monkeypatch.setattr(rings, "make_ring_matrix", lambda *key: made.append(key))
    azimuthal_spectrum([noise(89, 89)])
    assert made == []  # still there


def test_threads_may_share_it():
    images = [noise(40 + i % 5, 40, seed=i) for i in range(40)]
    expected, results = azimuthal_spectrum(images), {}

    def compute(i):
        results[i] = azimuthal_spectrum(images, batch_size=1 + i)

    workers = [threading.Thread(target=compute, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i in range(4):
        np.testing.assert_allclose(results[i], expected, rtol=1e-12)


# ---- flips, rotations, shifts


@settings(max_examples=25, deadline=None)
@given(h=st.integers(9, 33), w=st.integers(9, 33), seed=st.integers(0, 99))
def test_corrected_features_do_not_change_with_a_flip(h, w, seed):
    image = noise(h, w, seed=seed)
    variants = [
        image,
        image[:, ::-1],
        image[::-1],
        image[::-1, ::-1],
        np.roll(image, (3, -4), (0, 1)),
        image.T,
    ]
    features = azimuthal_spectrum(variants, mode="corrected")
    np.testing.assert_allclose(features, np.broadcast_to(features[0], features.shape), rtol=1e-8)


def test_reference_features_change_with_a_flip_at_even_sizes_only():
    even, odd = face(3), face(3)[:127, :127]
    a, b = azimuthal_spectrum([even, even[:, ::-1]])
    assert np.abs(a - b).max() > 1e-4
    a, b = azimuthal_spectrum([odd, odd[:, ::-1]])
    assert np.abs(a - b).max() < 1e-9
    np.testing.assert_allclose(a, azimuthal_spectrum([odd], mode="corrected")[0], rtol=1e-12)


def test_corrected_rings_hold_one_frequency():
    """A wave of one frequency lands in one ring, whichever way it runs on a wide image."""
    y, x = np.mgrid[:96, :192]
    for wave in (np.sin(2 * np.pi * x * 24 / 96), np.sin(2 * np.pi * y * 24 / 96)):
        image = 120 * wave + 128
        ring = azimuthal_rings(image.shape, "corrected")
        peak = np.argmax(np.where(ring > 0, amplitude_spectrum(image), -np.inf))
        assert ring.ravel()[peak] == 24
    assert {int(azimuthal_rings((96, 192), m)[48, 96]) for m in MODES} == {0}


def test_mean_grey_does_not_matter():
    image = noise(50, 50) // 2
    np.testing.assert_allclose(*azimuthal_spectrum([image, image + np.uint8(90)]), rtol=1e-12)


# ---- images


def test_grey_of_every_kind():
    colour = noise(20, 24, 3)
    grey = cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)
    assert grey_image(colour).dtype == np.uint8 and (grey_image(colour) == grey).all()
    assert (grey_image(np.dstack([colour, noise(20, 24)])) == grey).all()
    assert (grey_image(grey[..., None]) == grey).all() and (grey_image(grey) == grey).all()
    for kind, factor in ((np.uint16, 257), (np.float32, 1), (np.float64, 1), (np.int64, 1)):
        many = grey_image(colour.astype(kind) * kind(factor))
        assert many.dtype == np.float64 and np.abs(many - grey).max() <= 0.51
    assert grey_image(np.full((9, 9), 65535, np.uint16)).max() == 255
    dark = grey_image(np.full((9, 9), 300, np.uint16))  # 16 bits are 16 bits, however dark
    assert dark.max() == pytest.approx(300 / 257)


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((9, 9), bool), "bool"),
        (np.zeros((9, 9), complex), "complex"),
        (np.array([["a"]]), "type"),
        (np.zeros((9, 9, 2), np.uint8), "channels"),
        (np.zeros(9), "shape"),
        (np.zeros((0, 9)), "shape"),
        (np.zeros((2, 9, 9, 3)), "shape"),
        (np.full((9, 9), np.nan), "NaN"),
        (np.full((9, 9), np.inf), "infinite"),
        (np.full((9, 9), 0.5), "scale"),
        (np.full((9, 9), -1.0), "scale"),
        (np.full((9, 9), 256), "expected 0 to 255"),
        (np.full((9, 9), -1), "expected 0 to 255"),
    ],
)
def test_images_that_are_refused(image, message):
    with pytest.raises(SpectrumError, match=message):
        grey_image(image)
    with pytest.raises(SpectrumError, match="image 2: .*" + message):
        azimuthal_spectrum([noise(9, 9), noise(30, 9), image])


@pytest.mark.parametrize(
    "name, flags",
    [
        ("a.png", []),
        ("a.bmp", []),
        ("a.webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
        ("a.jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]),
    ],
)
def test_files_are_read_as_opencv_reads_them(tmp_path, name, flags):
    colour = face(3)[..., None].repeat(3, 2) // np.array([1, 2, 3], np.uint8)
    path = str(tmp_path / name)
    cv2.imwrite(path, colour, flags)
    assert (read_grey(path) == cv2.imread(path, cv2.IMREAD_GRAYSCALE)).all()


def test_files_of_16_bits_and_with_alpha(tmp_path):
    colour = noise(30, 40, 4)
    cv2.imwrite(str(tmp_path / "alpha.png"), colour)
    grey = grey_image(cv2.cvtColor(colour, cv2.COLOR_BGRA2RGBA))
    assert np.abs(read_grey(tmp_path / "alpha.png") - grey.astype(float)).max() <= 1
    deep = noise(30, 40).astype(np.uint16) * 257 + 13
    for name in ("deep.png", "deep.tiff"):
        cv2.imwrite(str(tmp_path / name), deep)
        np.testing.assert_allclose(read_grey(tmp_path / name), deep / 257)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".tiff"])
@pytest.mark.parametrize("share", [0, 0.3, 0.97])
def test_cut_off_files_are_named(tmp_path, extension, share):
    content = cv2.imencode(extension, face(3))[1].tobytes()
    path = tmp_path / f"cut{extension}"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(SpectrumError, match=f"cut{extension}"):
        read_grey(path)


def test_absent_files_and_folders_are_named(tmp_path):
    with pytest.raises(SpectrumError, match="absent.png: No such file"):
        read_grey(tmp_path / "absent.png")
    with pytest.raises(SpectrumError, match=tmp_path.name):
        read_grey(tmp_path)


def test_constant_images():
    flat = [np.full((s, 40), level, np.uint8) for s in (32, 33, 50) for level in (0, 9, 255)] + [
        np.full((31, 47), 77.3)
    ]
    for mode in MODES:
        for dtype in ("float64", "float32"):
            with pytest.warns(
                UserWarning, match=r"image 0: all pixels are equal.*10 such images of 10"
            ):
                features = azimuthal_spectrum(flat, mode=mode, dtype=dtype)
            np.testing.assert_allclose(features, 1, rtol=1e-6)
    with pytest.raises(SpectrumError, match="image 1: .* first ring is 0"):
        azimuthal_spectrum([noise(32, 32), flat[0]], epsilon=1.0)


def test_wrong_settings():
    for wrong in (
        dict(mode="x"),
        dict(dtype="float16"),
        dict(n_features=1),
        dict(epsilon=0),
        dict(epsilon=-1),
        dict(epsilon=float("nan")),
    ):
        with pytest.raises(SpectrumError, match="expected"):
            azimuthal_spectrum([noise(20, 20)], **wrong)
    with pytest.raises(SpectrumError, match="one image"):
        azimuthal_spectrum(noise(20, 20))


# ---- classes and classifiers


def two_classes(n=60, d=12, gap=3.0, seed=0):
    rng, y = np.random.default_rng(seed), np.arange(n) % 2
    return rng.normal(0, 1, (n, d)) + gap * y[:, None] * (np.arange(d) == 0), y


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_learn_score_and_come_back(name, tmp_path):
    x, y = two_classes(gap=8.0)
    for scaling in ("none", "features", "blocks"):
        model = clone(
            feature_classifier(name, scaling, blocks=(2, 10) if scaling == "blocks" else None)
        ).fit(x[:40], y[:40])
        # the one is meant for other features, the other may find other clusters
        exempt = name == "svm rbf, authors" or (name == "k-means" and scaling != "none")
        if not exempt:
            assert roc_auc_score(y[40:], model.decision_function(x[40:])) > 0.9
        about = dict(n_features=300, epsilon=1e-8, mode="reference", classes=["real", "fake"])
        again, told = load_classifier(save_classifier(tmp_path / "model.skops", model, about))
        np.testing.assert_array_equal(again.decision_function(x), model.decision_function(x))
        np.testing.assert_array_equal(again.predict(x), model.predict(x))
        assert told == about
    assert [p.name for p in tmp_path.iterdir()] == ["model.skops"]


def test_our_types_are_trusted_under_the_names_that_files_hold(tmp_path):
    names = ["BlockScaler", "TwoClusters"]
    assert list(TRUSTED) == [f"deepfake_nb.forensics.spectrum_classifiers.{n}" for n in names]
    model = feature_classifier("k-means", "blocks").fit(*two_classes())
    with zipfile.ZipFile(save_classifier(tmp_path / "model.skops", model)) as archive:
        schema = archive.read("schema.json").decode()
    assert all(f'"{name}"' in schema for name in names)
    assert '"deepfake_nb.forensics.spectrum_classifiers"' in schema


def test_two_clusters_are_named_by_their_shares():
    x, y = two_classes(gap=20.0)
    for labels in (y, 1 - y):
        assert (TwoClusters().fit(x, labels).predict(x) == labels).all()
    few_fakes = np.where(np.arange(60) < 55, 0, 1)  # reals are the majority of both clusters
    assert set(TwoClusters().fit(x, few_fakes).predict(x)) == {0, 1}
    with pytest.raises(ValueError, match="12 features"):
        TwoClusters().fit(x, y).predict(x[:, :3])


def test_block_scaler_makes_blocks_count_alike():
    rng = np.random.default_rng(0)
    deep, waves = rng.normal(0, 30, (50, 2048)), rng.normal(0, 0.1, (50, 300))
    scaled = BlockScaler((2048, 300)).fit_transform(np.hstack([deep, waves]))

    def distance(block):
        return np.mean([np.sum((a - b) ** 2) for a, b in zip(block, block[1:])])

    assert distance(scaled[:, :2048]) == pytest.approx(distance(scaled[:, 2048:]), rel=0.2)
    np.testing.assert_allclose(
        np.corrcoef(scaled[:, 5], deep[:, 5])[0, 1], 1
    )  # within a block nothing is reweighted
    with pytest.raises(ValueError, match="do not add up"):
        BlockScaler((2048, 299)).fit(np.hstack([deep, waves]))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([SpectrumFeatures(), BlockScaler()])
def test_scikit_learn_accepts_our_transformers(estimator, check):
    check(estimator)


def test_spectra_are_a_transformer():
    images = np.random.default_rng(0).integers(0, 256, (20, 24, 24), dtype=np.uint8)
    labels = np.arange(20) % 2
    images[labels == 1] //= 8  # darker, so that a search can tell settings apart
    features = SpectrumFeatures(40, mode="corrected", dtype="float32")
    expected = azimuthal_spectrum(images, 40, mode="corrected", dtype="float32")
    for copy in (features, clone(features), pickle.loads(pickle.dumps(features))):
        np.testing.assert_array_equal(copy.fit_transform(images), expected)
    table = clone(features).set_output(transform="pandas").fit_transform(images)
    assert table.columns.tolist() == features.get_feature_names_out().tolist()
    assert table.columns[[0, -1]].tolist() == ["spectrum0", "spectrum39"]

    model = Pipeline([("spectrum", SpectrumFeatures()), ("classify", SVC())])
    grid = {"spectrum__n_features": [10, 40], "classify__C": [1, 10]}
    search = GridSearchCV(model, grid, cv=2).fit(list(images), labels)
    assert search.predict(images).shape == (20,) and len(search.cv_results_["params"]) == 4
    with pytest.raises(SpectrumError, match="n_features=1"):
        SpectrumFeatures(1).fit(images)
    with pytest.raises(SpectrumError, match="mode='exact'"):
        SpectrumFeatures(mode="exact").fit(images)


class Bomb:
    """Would leave a file behind if it were ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def crafted(schema) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("schema.json", json.dumps(schema))
    return buffer.getvalue()


def test_files_that_would_run_code_are_refused(tmp_path):
    from skops import io as skops_io

    trap, x = tmp_path / "trap", two_classes()
    command = {
        "__class__": "list",
        "__module__": "builtins",
        "__loader__": "ListNode",
        "__id__": 2,
        "content": [
            {
                "__class__": "str",
                "__module__": "builtins",
                "__loader__": "JsonNode",
                "__id__": 3,
                "content": json.dumps(f"touch {trap}"),
                "is_json": True,
            }
        ],
    }
    files = {
        "pickle": pickle.dumps(Bomb(trap)),
        "function": skops_io.dumps(
            dict(
                model=feature_classifier().set_params(scale=FunctionTransformer(os.system)),
                about={},
            )
        ),
        "other type": skops_io.dumps(dict(model=Harmless(), about={})),
        "reduce": crafted(
            {
                "__class__": "system",
                "__module__": "os",
                "__loader__": "ReduceNode",
                "__id__": 1,
                "args": command,
                "content": None,
                "protocol": 2,
                "_skops_version": "0.16.0",
            }
        ),
        "callable": crafted(
            {
                "__class__": "system",
                "__module__": "posix",
                "__loader__": "FunctionNode",
                "__id__": 1,
                "content": None,
                "protocol": 2,
                "_skops_version": "0.16.0",
            }
        ),
        "no model": skops_io.dumps(dict(about=1)),
        "cut off": save_classifier(tmp_path / "good", feature_classifier().fit(*x)).read_bytes()[
            :-40
        ],
        "empty": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SpectrumError, match=name):
            load_classifier(tmp_path / name)
        assert not trap.exists(), name
    pickle.loads(files["pickle"])
    assert trap.exists()  # the trap works


class Harmless:
    """A type that nobody has vouched for."""


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    with pytest.raises(SpectrumError, match="Harmless"):
        save_classifier(tmp_path / "m", feature_classifier(), dict(note=Harmless()))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SpectrumError, match="absent: No such file"):
        load_classifier(tmp_path / "absent")
