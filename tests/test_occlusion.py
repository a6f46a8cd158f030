"""Occlusion maps against one patch at a time and against models whose maps are known, their two tests, bad input. Any Keras backend."""

import subprocess
import sys
import tracemalloc
from functools import partial

import keras
import numpy as np
import pytest
from keras import layers, ops

from deepfake_nb.explain.incremental import _batch_sizes, _compiled, _compute, hidden_patch_scores
from deepfake_nb.explain.lowering import lower_model
from deepfake_nb.explain.faithfulness import deletion_insertion, relevance_mass_accuracy, mass_test
from deepfake_nb.explain.occlusion import occlusion_sensitivity, patch_positions

pytestmark = [
    pytest.mark.backend,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]  # Keras's own, under NumPy 2


JAX = (
    keras.backend.backend() == "jax"
)  # compiles for seconds what TensorFlow traces in tenths of one
once = pytest.mark.skipif(JAX, reason="does not depend on the backend: shown on TensorFlow")


def network(shape, classes=1, dtype=None):
    "A small network with everything that behaves differently in training."
    keras.utils.set_random_seed(0)
    options = dict(dtype=dtype)
    model = keras.Sequential(
        [
            layers.Input(shape),
            layers.Conv2D(6, 3, padding="same", activation="relu", **options),
            layers.BatchNormalization(**options),
            layers.Dropout(0.5, **options),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", **options),
            layers.Flatten(**options),
            layers.Dense(classes, activation="softmax" if classes > 1 else "sigmoid", **options),
        ]
    )
    rng = np.random.default_rng(1)
    model.set_weights(
        [
            np.abs(w + rng.normal(0, 0.2, w.shape))
            if "variance" in v.path
            else w + rng.normal(0, 0.2, w.shape)
            for v, w in zip(model.weights, model.get_weights())
        ]
    )
    return model


def linear(weights):
    model = keras.Sequential(
        [layers.Input(weights.shape), layers.Flatten(), layers.Dense(1, use_bias=False)]
    )
    model.set_weights([weights.reshape(-1, 1).astype("float32")])
    return model


def pictures(n, *shape, seed=0):
    return np.random.default_rng(seed).random((n, *shape), dtype="float32")


def loop(model, images, patch, stride, fill=0, column=0):
    "Scores with each patch hidden, an image a patch, averaged by pixel; written without the library's geometry."
    (ph, pw), (sh, sw), (n, h, w, _) = patch, stride, images.shape
    sums, counts = np.zeros((n, h, w)), np.zeros((n, h, w))
    starts = lambda side, p, s: [*range(0, side - p, s), side - p]
    places = [(top, left) for top in starts(h, ph, sh) for left in starts(w, pw, sw)]
    for i, image in enumerate(images):
        hidden = np.stack([image] * len(places)).astype("float32")
        for one, (top, left) in zip(hidden, places):
            where = np.s_[top : top + ph, left : left + pw]
            one[where] = fill[i][where] if np.ndim(fill) == 4 else fill
        scores = ops.convert_to_numpy(model(hidden, training=False))[:, column]
        for score, (top, left) in zip(scores, places):
            sums[i, top : top + ph, left : left + pw] += score
            counts[i, top : top + ph, left : left + pw] += 1
    return sums / counts


SHAPES = [  # image, patch, stride
    ((12, 12, 3), (4, 4), (4, 4)),
    ((13, 9, 3), (4, 4), (4, 4)),
    ((9, 14, 1), (3, 5), (2, 4)),
    ((10, 7, 9), (1, 7), (1, 7)),
    ((8, 8, 1), (8, 8), (3, 3)),
    ((11, 6, 2), (5, 2), (1, 2)),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape, patch, stride", SHAPES[1:3] if JAX else SHAPES, ids=lambda v: "x".join(map(str, v))
)
def test_equal_to_one_patch_at_a_time(shape, patch, stride):
    model, images = network(shape, 3), pictures(3, *shape)
    expected = loop(model, images, patch, stride, column=2)
    found = occlusion_sensitivity(
        model, images, patch, stride, class_index=2, output="score", progress=False
    )
    assert found.dtype == np.float32 and found.shape == (3, *shape[:2])
    assert np.ptp(expected) > 1e-3 or patch == shape[:2]  # something depends on the patch
    np.testing.assert_allclose(found, expected, atol=1e-6)
    drop = occlusion_sensitivity(model, images, patch, stride, class_index=2, progress=False)
    np.testing.assert_allclose(
        drop,
        ops.convert_to_numpy(model(images, training=False))[:, 2, None, None] - expected,
        atol=1e-6,
    )


@pytest.mark.parametrize("batch_size", [1, 26, 40, 1000])
def test_batches_make_no_difference(batch_size):
    model, images = network((10, 10, 1)), pictures(3, 10, 10, 1)
    batches = occlusion_sensitivity(
        model, images, 2, method="batch", batch_size=batch_size, progress=False
    )
    np.testing.assert_allclose(
        batches,
        occlusion_sensitivity(model, images, 2, method="incremental", progress=False),
        atol=1e-6,
    )


@pytest.mark.parametrize("kind", ["float32", "float64", "uint8", "int16", "bool"])
def test_number_types(kind):
    images = pictures(2, 8, 10, 3)
    images = (
        (images > 0.5)
        if kind == "bool"
        else images.astype(kind)
        if kind.startswith("f")
        else (images * 255).astype(kind)
    )
    model = keras.Sequential(
        [
            layers.Input((8, 10, 3)),
            layers.Rescaling(1 if images.max() <= 1 else 1 / 255),
            *network((8, 10, 3)).layers,
        ]
    )
    found = occlusion_sensitivity(model, images, (2, 5), output="score", progress=False)
    np.testing.assert_allclose(found, loop(model, images, (2, 5), (2, 5)), atol=1e-6)


def convolution(rng, x):
    "Options of a convolution that fits x; TensorFlow takes no strides together with dilation, and depthwise only equal strides."
    kernel, stride = tuple(int(k) for k in rng.integers(1, 5, 2)), int(rng.integers(1, 4))
    dilation = int(rng.integers(2, 4)) if stride == 1 and rng.random() < 0.4 else 1
    fits = all((k - 1) * dilation < side for k, side in zip(kernel, x.shape[1:3]))
    return dict(
        kernel_size=kernel,
        strides=stride,
        dilation_rate=dilation,
        padding="valid" if fits and rng.random() < 0.4 else "same",
    )


def inverted_residual(rng, x):
    "As in MobileNetV2."
    normalised = lambda layer, y: layers.BatchNormalization()(layer(y))
    y = layers.ReLU(6.0)(normalised(layers.Conv2D(2 * x.shape[-1], 1, use_bias=False), x))
    y = layers.ReLU(6.0)(normalised(layers.DepthwiseConv2D(3, padding="same", use_bias=False), y))
    merge = (
        layers.Add,
        layers.Maximum,
        layers.Average,
        layers.Multiply,
        layers.Subtract,
        layers.Minimum,
    )[rng.integers(6)]
    return merge()([x, normalised(layers.Conv2D(x.shape[-1], 1, use_bias=False), y)])


def pooling(rng, x):
    size, strides = (tuple(int(k) for k in rng.integers(1, 4, 2)) for _ in range(2))
    padding = "valid" if min(x.shape[1:3]) > 3 and rng.random() < 0.4 else "same"
    return (layers.MaxPooling2D, layers.AveragePooling2D)[rng.integers(2)](size, strides, padding)(
        x
    )


def squeeze_and_excite(rng, x):
    y = layers.GlobalAveragePooling2D(keepdims=bool(rng.integers(2)))(x)
    return layers.Multiply()(
        [
            x,
            layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(
                layers.Reshape((1, 1, x.shape[-1]))(y)
            ),
        ]
    )


def nested(rng, x):
    inner = keras.Sequential(
        [layers.Input((*x.shape[1:3], 3)), layers.ReLU(negative_slope=0.1), layers.Dropout(0.5)]
    )
    return keras.Sequential(
        [layers.Input(x.shape[1:]), layers.Conv2D(3, 3, padding="same"), inner]
    )(x)


BLOCKS = [
    inverted_residual,
    pooling,
    squeeze_and_excite,
    nested,
    lambda rng, x: layers.Conv2D(
        4,
        activation=["gelu", "relu"][rng.integers(2)],
        use_bias=bool(rng.integers(2)),
        **convolution(rng, x),
    )(x),
    lambda rng, x: layers.Conv2D(
        2 * x.shape[-1], 3, strides=(1, 2), padding="same", groups=x.shape[-1]
    )(x),
    lambda rng, x: layers.DepthwiseConv2D(
        depth_multiplier=int(rng.integers(1, 3)), **convolution(rng, x)
    )(x),
    lambda rng, x: layers.SeparableConv2D(
        4, depth_multiplier=2, activation="tanh", **convolution(rng, x)
    )(x),
    lambda rng, x: (
        layers.ZeroPadding2D(((0, 1), (2, 0)))(x)
        if rng.integers(2) or min(x.shape[1:3]) < 4
        else layers.Cropping2D(((1, 0), (0, 2)))(x)
    ),
    lambda rng, x: layers.Concatenate()(
        [
            x,
            layers.Conv2D(3, 3, padding="same")(
                layers.ReLU()(layers.BatchNormalization(scale=False)(x))
            ),
        ]
    ),  # as in DenseNet
    lambda rng, x: [
        layers.LeakyReLU(0.2),
        layers.ELU(0.5),
        layers.Softmax(),
        layers.Activation("swish"),
        layers.PReLU(),
        layers.PReLU(shared_axes=[1, 2]),
    ][rng.integers(6)](x),
    lambda rng, x: [
        layers.Rescaling(2.0, -0.5),
        layers.Normalization(mean=[0.3] * x.shape[-1], variance=[0.5] * x.shape[-1]),
    ][rng.integers(2)](x),
    lambda rng, x: [
        lambda: (x + 3.0) * 0.5 - (1 - x) / 2,
        lambda: x * x,
        lambda: layers.Dense(3, activation="tanh")(x),
    ][rng.integers(3)](),
]


def random_network(seed):
    "Layers that the incremental evaluation knows, in random order, with random weights and statistics; its largest images are 17×17."
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    image = x = layers.Input([int(side) for side in (*rng.integers(10, 18, 2), rng.integers(1, 4))])
    for k in rng.integers(0, len(BLOCKS), rng.integers(2, 6)):
        x = BLOCKS[k](rng, x)
    x = [layers.GlobalAveragePooling2D(), layers.GlobalMaxPooling2D(), layers.Flatten()][
        rng.integers(3)
    ](x)
    model = keras.Model(
        image, layers.Dense(3, activation="softmax")(layers.BatchNormalization()(x))
    )
    for v in model.weights:
        if any(word in v.path for word in ("mean", "variance", "beta", "bias", "alpha")):
            v.assign(v + rng.random(v.shape) * 0.5)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3 if JAX else 18))
def test_incremental_maps_are_those_of_the_loop(seed, monkeypatch):
    "Any stride, patch that does not divide the side, fill and column, with little memory or with much."
    rng, model = np.random.default_rng(seed), random_network(seed)
    (h, w, c), budget = model.inputs[0].shape[1:], [1e3, 2e4, 16e6][rng.integers(3)]
    monkeypatch.setattr(incremental, "_batch_sizes", partial(_batch_sizes, budget=budget))
    images, patch = (
        pictures(int(rng.integers(1, 4)), h, w, c, seed=seed),
        tuple(int(p) for p in rng.integers(1, 6, 2)),
    )
    stride = tuple(int(rng.integers(1, p + 1)) for p in patch)
    fill, column = (
        [0.25, list(rng.random(c)), pictures(len(images), h, w, c, seed=99)][rng.integers(3)],
        int(rng.integers(3)),
    )
    options = dict(output="score", method="incremental", class_index=column, progress=False)
    found = occlusion_sensitivity(model, images, patch, stride, fill, **options)
    np.testing.assert_allclose(
        found, loop(model, images, patch, stride, fill, column), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_a_map_that_is_enlarged_is_the_loops(interpolation):
    "As in a U-Net: halved, enlarged, and joined with what there was before."
    keras.utils.set_random_seed(0)
    image = layers.Input((16, 12, 2))
    fine = layers.Conv2D(4, 3, padding="same", activation="tanh")(image)
    coarse = layers.Conv2D(6, 3, padding="same", activation="tanh")(layers.MaxPooling2D()(fine))
    x = layers.Concatenate()(
        [fine, layers.UpSampling2D((2, 2), interpolation=interpolation)(coarse)]
    )
    x = layers.Conv2D(3, 3, padding="same", activation="relu")(x)
    model = keras.Model(image, layers.Dense(1)(layers.Flatten()(x)))
    images = pictures(2, 16, 12, 2)
    found = occlusion_sensitivity(
        model, images, (5, 3), (4, 3), 0.25, method="incremental", output="score", progress=False
    )
    np.testing.assert_allclose(found, loop(model, images, (5, 3), (4, 3), 0.25), atol=1e-6, rtol=0)


@pytest.mark.parametrize("pool", [layers.MaxPooling2D, layers.AveragePooling2D])
def test_padding_of_pooling_is_no_pixel(pool):
    "All values are negative, so that a zero beyond the edge would be the highest, and count in a mean."
    model = keras.Sequential(
        [
            layers.Input((20, 20, 1)),
            layers.Rescaling(-1.0, -1.0),
            pool(3, 1, "same"),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
    images = pictures(1, 20, 20, 1)
    found = occlusion_sensitivity(
        model, images, 3, 2, method="incremental", output="score", progress=False
    )
    np.testing.assert_allclose(found, loop(model, images, (3, 3), (2, 2)), atol=3e-6)


def wide_network(*more):
    return keras.Sequential(
        [
            layers.Input((48, 40, 3)),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            *more,
            layers.MaxPooling2D(),
            layers.Conv2D(8, 3, padding="same"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, activation="softmax"),
        ]
    )


@pytest.mark.slow
def test_only_what_a_patch_reaches_is_computed_in_bounded_batches(monkeypatch):
    sizes, compute = [], _compute

    def recorded(step, xs, weights, full=True):
        if not full:
            sizes.append(sum(int(np.prod(x.shape)) for x in xs))
        return compute(step, xs, weights, full)

    monkeypatch.setattr(incremental, "_compute", recorded)
    monkeypatch.setattr(
        incremental, "_compiled", lambda function, plan, sizes: partial(function, plan)
    )
    monkeypatch.setattr(incremental, "_batch_sizes", partial(_batch_sizes, budget=3e4))
    occlusion_sensitivity(wide_network(), pictures(2, 48, 40, 3), 4, fill=2.0, progress=False)
    assert max(sizes) <= 3e4
    inputs = (
        3 + 8 + 8 / 4 + 8 + 8
    )  # channels that the layers up to the second convolution read, by pixel of the image
    assert sum(sizes) < 0.15 * 2 * 120 * 48 * 40 * inputs


def test_patches_that_change_nothing_change_nothing():
    "Exactly, so that they stay ties; and a bar that counts them, too."
    model, images, done = wide_network(), pictures(3, 48, 40, 3), []
    images[:, :24], images[1] = 0, 0
    assert not occlusion_sensitivity(model, images, 8, progress=False)[:, :24].any()
    lowered, tops, lefts = (
        lower_model(model, (48, 40, 3)),
        patch_positions(48, 8, 8),
        patch_positions(40, 8, 8),
    )
    hidden_patch_scores(
        lowered, images, np.zeros((3, 1, 1, 3)), (8, 8), tops, lefts, np.zeros(3, int), done.append
    )
    assert sum(done) == 3 * (30 + 1)


def test_a_model_whose_activation_is_replaced_has_new_maps():
    model, images = wide_network(), pictures(1, 48, 40, 3)
    before = occlusion_sensitivity(model, images, 8, progress=False)
    model.layers[-1].activation = keras.activations.linear
    after = occlusion_sensitivity(model, images, 8, output="score", progress=False)
    np.testing.assert_allclose(after, loop(model, images, (8, 8), (8, 8)), atol=1e-6)
    assert np.abs(before - after).max() > 1e-3


def test_models_of_one_architecture_share_a_compiled_program():
    keras.utils.set_random_seed(1)
    for hits in (0, 1):
        found, images = _compiled.cache_info(), pictures(1, 48, 40, 3)
        occlusion_sensitivity(wide_network(layers.LeakyReLU(0.123)), images, 8, progress=False)
        assert (_compiled.cache_info().hits > found.hits) == hits


@once
@pytest.mark.parametrize(
    "layer, word",
    [
        (
            layers.Lambda(lambda x: x[:, ::-1], name="turned"),
            r"layer 'turned' \(Lambda\) has no incremental form",
        ),
        (layers.Activation(lambda x: x[:, ::-1]), "may look beyond a pixel"),
        (layers.Softmax(axis=1), "works along axis 1"),
        (layers.Conv2D(8, 3, dtype="mixed_bfloat16"), "computes in bfloat16"),
        (layers.BatchNormalization(axis=1), "works along axis 1"),
    ],
    ids=["lambda", "activation", "softmax", "precision", "normalisation"],
)
def test_other_layers_are_computed_as_a_whole_and_named(layer, word, capsys):
    model, images = wide_network(layer), pictures(1, 48, 40, 3)
    with pytest.raises(ValueError, match="method='incremental': .*" + word):
        occlusion_sensitivity(model, images, 24, method="incremental")
    if layer.name != "turned":
        return
    found = occlusion_sensitivity(model, images, (24, 20), output="score")
    assert (
        "occlusion by batches (layer 'turned' (Lambda) has no incremental form)"
        in capsys.readouterr().err
    )
    np.testing.assert_allclose(found, loop(model, images, (24, 20), (24, 20)), atol=1e-6)


def test_a_model_that_takes_bytes():
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1), dtype="uint8"),
            layers.Rescaling(1 / 255),
            *network((8, 8, 1)).layers,
        ]
    )
    images = (pictures(2, 8, 8, 1) * 255).astype("uint8")
    np.testing.assert_allclose(
        occlusion_sensitivity(model, images, 4, fill=7, output="score", progress=False),
        loop(model, images, (4, 4), (4, 4), fill=7),
        atol=1e-6,
    )


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_other_precisions(policy):
    if policy == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 unless it is told")
    model, images = network((8, 8, 3), dtype=policy), pictures(2, 8, 8, 3)
    found = occlusion_sensitivity(model, images, 4, output="score", progress=False)
    assert found.dtype == np.float32 and np.ptp(found) > 1e-3
    np.testing.assert_allclose(
        found,
        loop(model, images, (4, 4), (4, 4)),
        atol={"mixed_bfloat16": 2e-2, "mixed_float16": 2e-3, "float64": 1e-6}[policy],
    )


@pytest.mark.slow
def test_fills():
    model, images = network((8, 6, 3)), pictures(2, 8, 6, 3)
    found = {
        str(fill): occlusion_sensitivity(
            model, images, (4, 3), fill=fill, output="score", progress=False
        )
        for fill in (0.5, [0.1, 0.2, 0.3], "mean")
    }
    np.testing.assert_allclose(found["0.5"], loop(model, images, (4, 3), (4, 3), 0.5), atol=1e-6)
    np.testing.assert_allclose(
        found["[0.1, 0.2, 0.3]"], loop(model, images, (4, 3), (4, 3), [0.1, 0.2, 0.3]), atol=1e-6
    )
    for image, by_mean in zip(images, found["mean"]):
        np.testing.assert_allclose(
            by_mean, loop(model, image[None], (4, 3), (4, 3), image.mean((0, 1)))[0], atol=1e-6
        )
    assert not occlusion_sensitivity(
        model, images, 2, fill=images, progress=False
    ).any()  # each painted over with itself
    swapped = occlusion_sensitivity(
        linear(np.ones((8, 6, 3))), images, 2, fill=images[::-1], progress=False
    )
    np.testing.assert_allclose(swapped[0], -swapped[1], atol=1e-4)


def test_one_column_for_each_image():
    model, images = network((8, 8, 1), 4), pictures(3, 8, 8, 1)
    found = occlusion_sensitivity(
        model, images, 2, class_index=[3, 0, 1], progress=False, batch_size=5
    )
    for i, column in enumerate((3, 0, 1)):
        np.testing.assert_allclose(
            found[i],
            occlusion_sensitivity(model, images[i], 2, class_index=column, progress=False)[0],
            atol=1e-6,
        )


def test_a_model_that_is_always_sure_gives_zero():
    assert not occlusion_sensitivity(
        linear(np.zeros((9, 7, 3))), pictures(2, 9, 7, 3), 4, 3, progress=False
    ).any()


@pytest.mark.parametrize("shape", [(12, 8), (8, 12)])
def test_linear_models_have_maps_that_can_be_computed(shape):
    weights, images = np.random.default_rng(3).normal(size=(*shape, 3)), pictures(4, *shape, 3)
    found = occlusion_sensitivity(linear(weights), images, (4, 2), progress=False)
    parts = (images * weights).sum(3).reshape(4, shape[0] // 4, 4, shape[1] // 2, 2).sum((2, 4))
    np.testing.assert_allclose(found, parts.repeat(4, 1).repeat(2, 2), atol=1e-4)


def test_rows_and_columns_are_not_exchanged():
    weights = np.zeros((6, 15, 1))
    weights[1, 12] = 1
    found = occlusion_sensitivity(linear(weights), np.ones((1, 6, 15, 1)), 1, progress=False)[0]
    assert np.argwhere(found).tolist() == [[1, 12]]


@once
@pytest.mark.parametrize(
    "side, patch, stride", [(7, 3, 2), (8, 3, 3), (5, 5, 5), (100, 7, 6), (3, 1, 1)]
)
def test_patches_cover_the_side_and_stay_within_it(side, patch, stride):
    first = patch_positions(side, patch, stride)
    assert (
        first[0] == 0
        and first[-1] == side - patch
        and (np.diff(first) <= stride).all()
        and (np.diff(first) > 0).all()
    )
    assert set(np.add.outer(first, np.arange(patch)).ravel()) == set(range(side))


class Counting(layers.Layer):
    "Counts how often it is traced, and the images of each trace."

    seen: list = []

    def call(self, x):
        self.seen.append(tuple(x.shape))
        return x


def test_traced_once_with_one_size_of_batch():
    model = keras.Sequential(
        [layers.Input((8, 8, 1)), Counting(), layers.Flatten(), layers.Dense(1)]
    )
    Counting.seen.clear()
    occlusion_sensitivity(
        model, pictures(23, 8, 8, 1), 2, batch_size=10, progress=False
    )  # 23·17 jobs, which 10 does not divide
    assert set(Counting.seen) == {(10, 8, 8, 1)}
    assert len(Counting.seen) == 1 or keras.backend.backend() == "torch"  # which runs it as it is


MEMORY = """
import resource, sys
import keras, numpy as np
from keras import layers
from deepfake_nb.explain.occlusion import occlusion_sensitivity
model = keras.Sequential([layers.Input((128, 128, 3)), layers.Conv2D(4, 4, strides=4), layers.GlobalAveragePooling2D(), layers.Dense(1)])
most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
image = np.random.default_rng(0).random((1, 128, 128, 3), dtype="float32")
occlusion_sensitivity(model, image, 32, batch_size=16, method="batch", progress=False)
before = most()
occlusion_sensitivity(model, image, 8, 3, batch_size=16, method="batch", progress=False)
occlusion_sensitivity(model, image, 8, 3, progress=False)
print(most() - before)
"""


@pytest.mark.slow
@once
def test_memory_does_not_grow_with_the_number_of_patches():
    "1,681 partly hidden images would take 330 MB; MB as the operating system counts them, since the backend's memory is not Python's."
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    )
    assert float(done.stdout.split()[-1]) < 150


@once
def test_host_memory_does_not_grow_with_the_number_of_images():
    model, peaks = linear(np.ones((32, 32, 3))), []
    for n in (200, 600):
        images = pictures(n, 32, 32, 3)
        tracemalloc.start()
        occlusion_sensitivity(model, images, 8, batch_size=16, progress=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (
        peaks[1] - peaks[0] < 2 * 400 * 32 * 32 * 4 + 2**20
    )  # maps and scores, not 400·17 images of 12 kB


def test_new_weights_count():
    model, images = linear(np.zeros((6, 6, 1))), pictures(1, 6, 6, 1)
    assert not occlusion_sensitivity(model, images, 2, progress=False).any()
    model.set_weights([np.ones((36, 1))])
    np.testing.assert_allclose(
        occlusion_sensitivity(model, images, 6, progress=False), images.sum(), rtol=1e-5
    )


@keras.saving.register_keras_serializable("occlusion_tests")
class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(2)

    def call(self, x):
        return self.inner(ops.reshape(x, (ops.shape(x)[0], -1)))


def test_subclassed_models():
    model, images = Subclassed(), pictures(2, 6, 4, 1)
    with pytest.raises(ValueError, match="no weights yet"):
        occlusion_sensitivity(model, images, 2, progress=False)
    model(images)
    np.testing.assert_allclose(
        occlusion_sensitivity(model, images, 2, class_index=1, output="score", progress=False),
        loop(model, images, (2, 2), (2, 2), column=1),
        atol=1e-6,
    )


def test_bad_models_and_images():
    model, images = network((8, 8, 1), 2), pictures(3, 8, 8, 1)
    run = lambda model=model, images=images, patch=2, **more: occlusion_sensitivity(
        model, images, patch, progress=False, **more
    )
    left, right = layers.Input((8, 8, 1)), layers.Input((8, 8, 1))
    two_in = keras.Model(
        [left, right], layers.Dense(1)(layers.Flatten()(layers.Add()([left, right])))
    )
    flat = layers.Flatten()(left)
    for word, arguments in {
        "2 outputs": dict(model=keras.Model(left, [layers.Dense(1)(flat), layers.Dense(1)(flat)])),
        "has 2 outputs": dict(
            model=keras.Model(left, {"a": layers.Dense(1)(flat), "b": layers.Dense(1)(flat)})
        ),
        "2 inputs": dict(model=two_in),
        r"output is \(n, 8, 8, 1\)": dict(model=keras.Model(left, layers.ReLU()(left))),
        r"takes \(8, 8, 1\)": dict(images=pictures(3, 8, 8, 3)),
        r"\(4, 8, 8\) for model": dict(images=pictures(8, 4, 8, 8)),
        "nothing to explain": dict(images=images[:0]),
        "last axis of 1": dict(images=images[0, ..., 0]),
        r"shape \(1, 3, 8, 8, 1\)": dict(images=images[None]),
        "image 2 has 1 NaN or infinite values of 64": dict(
            images=np.where(np.arange(192).reshape(images.shape) == 140, np.inf, images)
        ),
        "several shapes": dict(images=[images[0], images[0, :4]]),
        "patch of 9 pixels along a side of 8": dict(patch=(2, 9)),
        "patch=0": dict(patch=0),
        r"stride=\(1, 0\)": dict(stride=(1, 0)),
        "stride 3 for a patch of 2": dict(stride=3),
        "patch=2.0": dict(patch=2.0),
        "class_index=2: the model's output has 2 columns, expected 0 to 1": dict(class_index=2),
        "class_index=-1": dict(class_index=-1),
        r"class_index=\[0, 1\]": dict(class_index=[0, 1]),
        "1 column, expected 0": dict(model=network((8, 8, 1)), class_index=1),
        "output='drops'": dict(output="drops"),
        "method='fast'": dict(method="fast"),
        "batch_size=0": dict(batch_size=0),
        "fill='black'": dict(fill="black"),
        r"fill of shape \(2,\)": dict(fill=(1, 2)),
        "fill=nan": dict(fill=np.nan),
    }.items():
        with pytest.raises(ValueError, match=word):
            run(**arguments)


def test_deletion_and_insertion_of_a_linear_model():
    "The score is the sum of the contributions that are there, so that both curves follow from sorting; 20 steps do not divide 35 pixels."
    weights, images = np.random.default_rng(5).random((5, 7, 1)), pictures(3, 5, 7, 1)
    parts = (images * weights)[..., 0]
    curves, areas = deletion_insertion(
        linear(weights), images, parts, progress=False, batch_size=11
    )
    ordered = -np.sort(-parts.reshape(3, -1), axis=1)
    gone = np.linspace(0, 35, 21).round().astype(int)
    inserted = np.stack([ordered[:, :k].sum(1) for k in gone], 1)
    deleted = ordered.sum(1, keepdims=True) - inserted
    by_map = curves[curves["order"] == "map"].set_index("curve")["score"]
    np.testing.assert_allclose(by_map["insertion"], inserted.mean(0), atol=1e-5)
    np.testing.assert_allclose(by_map["deletion"], deleted.mean(0), atol=1e-5)
    np.testing.assert_allclose(
        areas["deletion"], np.trapezoid(deleted, gone / 35, axis=1), atol=1e-5
    )
    assert (areas["deletion"] < areas["random_deletion"]).all() and (
        areas["insertion"] > areas["random_insertion"]
    ).all()
    upside_down = deletion_insertion(linear(weights), images, -parts, progress=False).areas
    assert (upside_down["deletion"] > upside_down["random_deletion"]).all()


@pytest.mark.slow
@once
def test_a_flat_map_is_at_chance():
    "Equal pixels follow in random order, so a constant map is one more random order."
    weights, images = np.random.default_rng(5).normal(size=(6, 6, 1)), pictures(200, 6, 6, 1)
    areas = deletion_insertion(
        linear(weights), images, np.zeros((200, 6, 6)), progress=False, n_random=20, seed=1
    ).areas
    each = areas["deletion"] - areas["random_deletion"]
    assert abs(each.mean()) < 4 * each.std() / np.sqrt(len(each)) and each.std() > 0


@once
def test_masses_against_shifting_by_hand():
    rng = np.random.default_rng(0)
    maps, masks = rng.normal(size=(4, 9, 7)), rng.random((4, 9, 7)) > 0.6
    table = relevance_mass_accuracy(maps.astype("float32"), masks.astype("uint8") * 255)
    for i, row in table.iterrows():
        mass = np.maximum(maps[i], 0)
        shares = (
            np.array([np.roll(mass, s, (0, 1))[masks[i]].sum() for s in np.ndindex(9, 7)])
            / mass.sum()
        )
        np.testing.assert_allclose(
            [row.mass, row.inside, row.area, row.p_value],
            [mass.sum(), shares[0], shares.mean(), (shares >= shares[0] - 1e-9).mean()],
            rtol=1e-5,
        )
        np.testing.assert_allclose(
            row.others,
            np.mean([mass[masks[k]].sum() / mass.sum() for k in range(4) if k != i]),
            rtol=1e-5,
        )


@once
def test_masses_that_cannot_be_told_are_counted():
    maps, masks = np.ones((8, 4, 4)), np.zeros((8, 4, 4), bool)
    maps[0], maps[1] = -1, 1e-9
    masks[:6, 1:3, 1:3] = True
    table = relevance_mass_accuracy(maps, masks)
    assert table["note"].tolist() == ["no positive mass"] * 2 + [""] * 4 + ["empty mask"] * 2
    assert table["inside"].isna().tolist() == [True] * 2 + [False] * 4 + [True] * 2
    result = mass_test(table)
    assert (result.images, result.empty_masks, result.without_mass, result.verdict) == (
        4,
        2,
        2,
        "undecided",
    )
    for word, wrong in {
        "map 3 has NaN": (np.where(np.arange(8)[:, None, None] == 3, np.nan, maps), masks),
        r"masks of shape \(8, 4, 3\)": (maps, masks[..., :3]),
        "mask 0 has 16 values": (maps, np.arange(128.0).reshape(8, 4, 4)),
        "mask 0 has 2 values from 1 to 2": (maps, masks + 1),
    }.items():
        with pytest.raises(ValueError, match=word):
            relevance_mass_accuracy(*wrong)
    with pytest.raises(ValueError, match="none can be tested"):
        mass_test(table[:2])
    with pytest.raises(ValueError, match="3 groups for 8"):
        mass_test(table, groups=[1, 2, 3])


@pytest.mark.slow
@once
def test_mass_test_is_at_chance_where_nothing_is_and_respects_groups():
    rng, at_chance, widths = np.random.default_rng(0), 0, []
    people, ramp = np.repeat(np.arange(25), 8), np.add.outer(np.arange(12), np.arange(12)) ** 2.0
    for seed in range(60):
        shifts = rng.integers(0, 12, (25, 2)).repeat(8, 0)  # a person's maps lie alike
        maps = np.stack([np.roll(ramp, shift, (0, 1)) for shift in shifts])
        masks = np.zeros((200, 12, 12), bool)
        masks[:, 3:8, 3:8] = True
        table = relevance_mass_accuracy(maps, masks)
        by_person, by_map = (
            mass_test(table, people, seed=seed, n_resamples=300).excess,
            mass_test(table, seed=seed, n_resamples=300).excess,
        )
        at_chance += by_person.contains(0)
        widths.append((by_person.high - by_person.low) / (by_map.high - by_map.low))
    assert at_chance >= 50  # 57 expected
    assert np.median(widths) > 2


@once
def test_maps_in_the_middle_beat_the_area_but_not_the_others():
    y, x = np.indices((16, 16)) - 7.5
    blob = np.exp(-(y**2 + x**2) / 20)
    maps, masks = (
        np.stack([blob] * 12),
        np.stack(
            [np.hypot(y - a, x - b) < 4 for a, b in np.random.default_rng(0).normal(0, 1, (12, 2))]
        ),
    )
    table = relevance_mass_accuracy(maps, masks)
    assert (
        mass_test(table).verdict == "above chance"
        and mass_test(table, against="others").verdict == "at chance"
    )
