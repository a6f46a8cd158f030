"""Occlusion maps against one patch at a time, on any backend of Keras, and their two tests."""

import tracemalloc
from functools import partial

import keras
import numpy as np
import pytest
from keras import layers, ops

from deepfake_nb.explain import incremental
from deepfake_nb.explain.faithfulness import (
    deletion_insertion,
    mass_test,
    relevance_mass_accuracy,
)
from deepfake_nb.explain.incremental import choose_batch, compile_program, hidden_patch_scores
from deepfake_nb.explain.lowering import lower_model
from deepfake_nb.explain.occlusion import occlusion_sensitivity, patch_positions
from deepfake_nb.explain.steps import compute_step
from deepfake_nb.studies.maps import run_listing

pytestmark = [
    pytest.mark.backend,
    # Keras's own, under NumPy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

# JAX compiles for seconds what TensorFlow traces in tenths of one
JAX = keras.backend.backend() == "jax"
once = pytest.mark.skipif(JAX, reason="does not depend on the backend: shown on TensorFlow")


def network(shape, classes=1, dtype=None):
    """A small network with everything that behaves differently in training."""
    keras.utils.set_random_seed(0)
    options = {"dtype": dtype}
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
    rng, weights = np.random.default_rng(1), []
    for variable, value in zip(model.weights, model.get_weights()):
        value = value + rng.normal(0, 0.2, value.shape)
        weights.append(np.abs(value) if "variance" in variable.path else value)
    model.set_weights(weights)
    return model


def linear(weights):
    stack = [layers.Flatten(), layers.Dense(1, use_bias=False)]
    model = keras.Sequential([layers.Input(weights.shape), *stack])
    model.set_weights([weights.reshape(-1, 1).astype("float32")])
    return model


def random_images(n, *shape, seed=0):
    return np.random.default_rng(seed).random((n, *shape), dtype="float32")


def starts(side, patch, stride):
    return [*range(0, side - patch, stride), side - patch]


def loop(model, images, patch, stride, fill=0, column=0):
    """Scores with each patch hidden, one image for each patch, averaged by pixel.

    Written without the library's geometry.
    """
    (ph, pw), (sh, sw), (n, h, w, _) = patch, stride, images.shape
    sums, counts = np.zeros((n, h, w)), np.zeros((n, h, w))
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
    model, images = network(shape, 3), random_images(3, *shape)
    expected = loop(model, images, patch, stride, column=2)
    options = {"class_index": 2, "progress": False}
    found = occlusion_sensitivity(model, images, patch, stride, output="score", **options)
    assert (found.dtype, found.shape) == (np.float32, (3, *shape[:2]))
    assert np.ptp(expected) > 1e-3 or patch == shape[:2]  # something depends on the patch
    np.testing.assert_allclose(found, expected, atol=1e-6)
    drop = occlusion_sensitivity(model, images, patch, stride, **options)
    complete = ops.convert_to_numpy(model(images, training=False))[:, 2, None, None]
    np.testing.assert_allclose(drop, complete - expected, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 26, 40, 1000])
def test_batches_make_no_difference(batch_size):
    model, images = network((10, 10, 1)), random_images(3, 10, 10, 1)
    options = {"patch": 2, "batch_size": batch_size, "progress": False}
    batches = occlusion_sensitivity(model, images, method="batch", **options)
    incrementally = occlusion_sensitivity(model, images, method="incremental", **options)
    np.testing.assert_allclose(batches, incrementally, atol=1e-6)


@pytest.mark.parametrize("kind", ["float32", "float64", "uint8", "int16", "bool"])
def test_number_types(kind):
    images = random_images(2, 8, 10, 3)
    if kind == "bool":
        images = images > 0.5
    elif kind.startswith("f"):
        images = images.astype(kind)
    else:
        images = (images * 255).astype(kind)
    scale = layers.Rescaling(1 if images.max() <= 1 else 1 / 255)
    model = keras.Sequential([layers.Input((8, 10, 3)), scale, *network((8, 10, 3)).layers])
    found = occlusion_sensitivity(model, images, (2, 5), output="score", progress=False)
    np.testing.assert_allclose(found, loop(model, images, (2, 5), (2, 5)), atol=1e-6)


# Blocks of random networks. Each takes a generator and a tensor, and returns a tensor.


def convolution_options(rng, x):
    """Options of a convolution that fits x.

    TensorFlow takes no strides together with dilation, and depthwise only equal strides.
    """
    kernel, stride = tuple(int(k) for k in rng.integers(1, 5, 2)), int(rng.integers(1, 4))
    dilation = int(rng.integers(2, 4)) if stride == 1 and rng.random() < 0.4 else 1
    fits = all((k - 1) * dilation < side for k, side in zip(kernel, x.shape[1:3]))
    return {
        "kernel_size": kernel,
        "strides": stride,
        "dilation_rate": dilation,
        "padding": "valid" if fits and rng.random() < 0.4 else "same",
    }


def inverted_residual(rng, x):
    """As in MobileNetV2."""

    def normalised(layer, y):
        return layers.BatchNormalization()(layer(y))

    y = layers.ReLU(6.0)(normalised(layers.Conv2D(2 * x.shape[-1], 1, use_bias=False), x))
    y = layers.ReLU(6.0)(normalised(layers.DepthwiseConv2D(3, padding="same", use_bias=False), y))
    merges = ("Add", "Maximum", "Average", "Multiply", "Subtract", "Minimum")
    merge = getattr(layers, merges[rng.integers(6)])
    return merge()([x, normalised(layers.Conv2D(x.shape[-1], 1, use_bias=False), y)])


def pooling(rng, x):
    size, strides = (tuple(int(k) for k in rng.integers(1, 4, 2)) for _ in range(2))
    padding = "valid" if min(x.shape[1:3]) > 3 and rng.random() < 0.4 else "same"
    pool = (layers.MaxPooling2D, layers.AveragePooling2D)[rng.integers(2)]
    return pool(size, strides, padding)(x)


def squeeze_and_excite(rng, x):
    y = layers.GlobalAveragePooling2D(keepdims=bool(rng.integers(2)))(x)
    y = layers.Reshape((1, 1, x.shape[-1]))(y)
    return layers.Multiply()([x, layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(y)])


def nested(rng, x):
    stack = [layers.ReLU(negative_slope=0.1), layers.Dropout(0.5)]
    inner = keras.Sequential([layers.Input((*x.shape[1:3], 3)), *stack])
    convolution = layers.Conv2D(3, 3, padding="same")
    return keras.Sequential([layers.Input(x.shape[1:]), convolution, inner])(x)


def convolution(rng, x):
    activation, use_bias = ["gelu", "relu"][rng.integers(2)], bool(rng.integers(2))
    options = convolution_options(rng, x)
    return layers.Conv2D(4, activation=activation, use_bias=use_bias, **options)(x)


def grouped_convolution(rng, x):
    channels = x.shape[-1]
    return layers.Conv2D(2 * channels, 3, strides=(1, 2), padding="same", groups=channels)(x)


def depthwise_convolution(rng, x):
    multiplier = int(rng.integers(1, 3))
    return layers.DepthwiseConv2D(depth_multiplier=multiplier, **convolution_options(rng, x))(x)


def separable_convolution(rng, x):
    options = convolution_options(rng, x)
    return layers.SeparableConv2D(4, depth_multiplier=2, activation="tanh", **options)(x)


def padding_or_cropping(rng, x):
    if rng.integers(2) or min(x.shape[1:3]) < 4:
        return layers.ZeroPadding2D(((0, 1), (2, 0)))(x)
    return layers.Cropping2D(((1, 0), (0, 2)))(x)


def dense_block(rng, x):
    """As in DenseNet."""
    y = layers.ReLU()(layers.BatchNormalization(scale=False)(x))
    return layers.Concatenate()([x, layers.Conv2D(3, 3, padding="same")(y)])


def activation(rng, x):
    choices = [
        layers.LeakyReLU(0.2),
        layers.ELU(0.5),
        layers.Softmax(),
        layers.Activation("swish"),
        layers.PReLU(),
        layers.PReLU(shared_axes=[1, 2]),
    ]
    return choices[rng.integers(6)](x)


def scaling(rng, x):
    mean, variance = [0.3] * x.shape[-1], [0.5] * x.shape[-1]
    choices = [layers.Rescaling(2.0, -0.5), layers.Normalization(mean=mean, variance=variance)]
    return choices[rng.integers(2)](x)


def operators_or_dense(rng, x):
    choice = rng.integers(3)
    if choice == 0:
        return (x + 3.0) * 0.5 - (1 - x) / 2
    if choice == 1:
        return x * x
    return layers.Dense(3, activation="tanh")(x)


BLOCKS = [
    inverted_residual,
    pooling,
    squeeze_and_excite,
    nested,
    convolution,
    grouped_convolution,
    depthwise_convolution,
    separable_convolution,
    padding_or_cropping,
    dense_block,
    activation,
    scaling,
    operators_or_dense,
]


def random_network(seed):
    """Layers that are recomputed by windows, in random order, with random weights and statistics.

    The largest images are 17×17.
    """
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    image = x = layers.Input([int(side) for side in (*rng.integers(10, 18, 2), rng.integers(1, 4))])
    for k in rng.integers(0, len(BLOCKS), rng.integers(2, 6)):
        x = BLOCKS[k](rng, x)
    ends = [layers.GlobalAveragePooling2D(), layers.GlobalMaxPooling2D(), layers.Flatten()]
    x = layers.BatchNormalization()(ends[rng.integers(3)](x))
    model = keras.Model(image, layers.Dense(3, activation="softmax")(x))
    for variable in model.weights:
        if any(word in variable.path for word in ("mean", "variance", "beta", "bias", "alpha")):
            variable.assign(variable + rng.random(variable.shape) * 0.5)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3 if JAX else 18))
def test_incremental_maps_are_those_of_the_loop(seed, monkeypatch):
    """Any stride, patch that does not divide the side, fill and column, any memory."""
    rng, model = np.random.default_rng(seed), random_network(seed)
    (h, w, c), budget = model.inputs[0].shape[1:], [1e3, 2e4, 16e6][rng.integers(3)]
    monkeypatch.setattr(incremental, "choose_batch", partial(choose_batch, budget=budget))
    images = random_images(int(rng.integers(1, 4)), h, w, c, seed=seed)
    patch = tuple(int(p) for p in rng.integers(1, 6, 2))
    stride = tuple(int(rng.integers(1, p + 1)) for p in patch)
    fills = [0.25, list(rng.random(c)), random_images(len(images), h, w, c, seed=99)]
    fill = fills[rng.integers(3)]
    column = int(rng.integers(3))
    options = {"output": "score", "method": "incremental", "progress": False}
    found = occlusion_sensitivity(model, images, patch, stride, fill, column, **options)
    expected = loop(model, images, patch, stride, fill, column)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_a_map_that_is_enlarged_is_the_loops(interpolation):
    """As in a U-Net: halved, enlarged, and joined with what there was before."""
    keras.utils.set_random_seed(0)
    image = layers.Input((16, 12, 2))
    fine = layers.Conv2D(4, 3, padding="same", activation="tanh")(image)
    coarse = layers.Conv2D(6, 3, padding="same", activation="tanh")(layers.MaxPooling2D()(fine))
    enlarged = layers.UpSampling2D((2, 2), interpolation=interpolation)(coarse)
    x = layers.Concatenate()([fine, enlarged])
    x = layers.Conv2D(3, 3, padding="same", activation="relu")(x)
    model = keras.Model(image, layers.Dense(1)(layers.Flatten()(x)))
    images = random_images(2, 16, 12, 2)
    options = {"method": "incremental", "output": "score", "progress": False}
    found = occlusion_sensitivity(model, images, (5, 3), (4, 3), 0.25, **options)
    np.testing.assert_allclose(found, loop(model, images, (5, 3), (4, 3), 0.25), atol=1e-6, rtol=0)


@pytest.mark.parametrize("pool", [layers.MaxPooling2D, layers.AveragePooling2D])
def test_padding_of_pooling_is_no_pixel(pool):
    """All values are negative: a zero beyond the edge would be the highest, and count in a mean."""
    stack = [layers.Rescaling(-1.0, -1.0), pool(3, 1, "same"), layers.Flatten(), layers.Dense(1)]
    model = keras.Sequential([layers.Input((20, 20, 1)), *stack])
    images = random_images(1, 20, 20, 1)
    options = {"method": "incremental", "output": "score", "progress": False}
    found = occlusion_sensitivity(model, images, 3, 2, **options)
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
    sizes = []

    def recorded(step, xs, weights, full=True):
        if not full:
            sizes.append(sum(int(np.prod(x.shape)) for x in xs))
        return compute_step(step, xs, weights, full)

    def uncompiled(function, plan, sizes):
        return partial(function, plan)

    monkeypatch.setattr(incremental, "compute_step", recorded)
    monkeypatch.setattr(incremental, "compile_program", uncompiled)
    monkeypatch.setattr(incremental, "choose_batch", partial(choose_batch, budget=3e4))
    images = random_images(2, 48, 40, 3)
    occlusion_sensitivity(wide_network(), images, 4, fill=2.0, progress=False)
    assert max(sizes) <= 3e4
    # channels that the layers up to the second convolution read, by pixel of the image
    inputs = 3 + 8 + 8 / 4 + 8 + 8
    assert sum(sizes) < 0.15 * 2 * 120 * 48 * 40 * inputs


def test_patches_that_change_nothing_change_nothing():
    """Exactly, so that they stay ties; and a bar that counts them, too."""
    model, images, done = wide_network(), random_images(3, 48, 40, 3), []
    images[:, :24], images[1] = 0, 0
    assert not occlusion_sensitivity(model, images, 8, progress=False)[:, :24].any()
    lowered = lower_model(model, (48, 40, 3))
    tops, lefts = patch_positions(48, 8, 8), patch_positions(40, 8, 8)
    black, columns = np.zeros((3, 1, 1, 3)), np.zeros(3, int)
    hidden_patch_scores(lowered, images, black, (8, 8), tops, lefts, columns, done.append)
    assert sum(done) == 3 * (30 + 1)


def test_a_model_whose_activation_is_replaced_has_new_maps():
    model, images = wide_network(), random_images(1, 48, 40, 3)
    before = occlusion_sensitivity(model, images, 8, progress=False)
    model.layers[-1].activation = keras.activations.linear
    after = occlusion_sensitivity(model, images, 8, output="score", progress=False)
    np.testing.assert_allclose(after, loop(model, images, (8, 8), (8, 8)), atol=1e-6)
    assert np.abs(before - after).max() > 1e-3


def test_models_of_one_architecture_share_a_compiled_program():
    keras.utils.set_random_seed(1)
    for hits in (0, 1):
        before, images = compile_program.cache_info(), random_images(1, 48, 40, 3)
        occlusion_sensitivity(wide_network(layers.LeakyReLU(0.123)), images, 8, progress=False)
        assert (compile_program.cache_info().hits > before.hits) == hits


@once
@pytest.mark.parametrize(
    "layer, message",
    [
        (
            layers.Lambda(lambda x: x[:, ::-1], name="flipped"),
            r"layer 'flipped' \(Lambda\) has no incremental form",
        ),
        (layers.Activation(lambda x: x[:, ::-1]), "may look beyond a pixel"),
        (layers.Softmax(axis=1), "works along axis 1"),
        (layers.Conv2D(8, 3, dtype="mixed_bfloat16"), "computes in bfloat16"),
        (layers.BatchNormalization(axis=1), "works along axis 1"),
    ],
    ids=["lambda", "activation", "softmax", "precision", "normalisation"],
)
def test_other_layers_are_computed_as_a_whole_and_named(layer, message, capsys):
    model, images = wide_network(layer), random_images(1, 48, 40, 3)
    with pytest.raises(ValueError, match="method='incremental': .*" + message):
        occlusion_sensitivity(model, images, 24, method="incremental")
    if layer.name != "flipped":
        return
    found = occlusion_sensitivity(model, images, (24, 20), output="score")
    title = "occlusion by batches (layer 'flipped' (Lambda) has no incremental form)"
    assert title in capsys.readouterr().err
    np.testing.assert_allclose(found, loop(model, images, (24, 20), (24, 20)), atol=1e-6)


def test_a_model_that_takes_bytes():
    image = layers.Input((8, 8, 1), dtype="uint8")
    model = keras.Sequential([image, layers.Rescaling(1 / 255), *network((8, 8, 1)).layers])
    images = (random_images(2, 8, 8, 1) * 255).astype("uint8")
    found = occlusion_sensitivity(model, images, 4, fill=7, output="score", progress=False)
    np.testing.assert_allclose(found, loop(model, images, (4, 4), (4, 4), fill=7), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_other_precisions(policy):
    if policy == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 by default")
    model, images = network((8, 8, 3), dtype=policy), random_images(2, 8, 8, 3)
    found = occlusion_sensitivity(model, images, 4, output="score", progress=False)
    assert found.dtype == np.float32
    assert np.ptp(found) > 1e-3
    tolerance = {"mixed_bfloat16": 2e-2, "mixed_float16": 2e-3, "float64": 1e-6}[policy]
    np.testing.assert_allclose(found, loop(model, images, (4, 4), (4, 4)), atol=tolerance)


@pytest.mark.slow
def test_fills():
    model, images = network((8, 6, 3)), random_images(2, 8, 6, 3)
    patch, options = (4, 3), {"output": "score", "progress": False}
    for fill in (0.5, [0.1, 0.2, 0.3]):
        found = occlusion_sensitivity(model, images, patch, fill=fill, **options)
        np.testing.assert_allclose(found, loop(model, images, patch, patch, fill), atol=1e-6)
    by_mean = occlusion_sensitivity(model, images, patch, fill="mean", **options)
    for image, found in zip(images, by_mean):
        expected = loop(model, image[None], patch, patch, image.mean((0, 1)))[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    by_itself = occlusion_sensitivity(model, images, 2, fill=images, progress=False)
    assert not by_itself.any()
    total = linear(np.ones((8, 6, 3)))
    swapped = occlusion_sensitivity(total, images, 2, fill=images[::-1], progress=False)
    np.testing.assert_allclose(swapped[0], -swapped[1], atol=1e-4)


def test_one_column_for_each_image():
    model, images = network((8, 8, 1), 4), random_images(3, 8, 8, 1)
    columns = [3, 0, 1]
    options = {"patch": 2, "progress": False}
    found = occlusion_sensitivity(model, images, class_index=columns, batch_size=5, **options)
    for i, column in enumerate(columns):
        alone = occlusion_sensitivity(model, images[i], class_index=column, **options)[0]
        np.testing.assert_allclose(found[i], alone, atol=1e-6)


def test_a_model_that_is_always_sure_gives_zero():
    model, images = linear(np.zeros((9, 7, 3))), random_images(2, 9, 7, 3)
    assert not occlusion_sensitivity(model, images, 4, 3, progress=False).any()


@pytest.mark.parametrize("shape", [(12, 8), (8, 12)])
def test_linear_models_have_maps_that_can_be_computed(shape):
    weights = np.random.default_rng(3).normal(size=(*shape, 3))
    images = random_images(4, *shape, 3)
    found = occlusion_sensitivity(linear(weights), images, (4, 2), progress=False)
    products = (images * weights).sum(3)
    parts = products.reshape(4, shape[0] // 4, 4, shape[1] // 2, 2).sum((2, 4))
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
    assert (first[0], first[-1]) == (0, side - patch)
    assert (np.diff(first) <= stride).all()
    assert (np.diff(first) > 0).all()
    assert set(np.add.outer(first, np.arange(patch)).ravel()) == set(range(side))


class Counting(layers.Layer):
    """Records the shape of the images each time it is traced."""

    seen: list = []

    def call(self, x):
        self.seen.append(tuple(x.shape))
        return x


def test_traced_once_with_one_size_of_batch():
    stack = [Counting(), layers.Flatten(), layers.Dense(1)]
    model = keras.Sequential([layers.Input((8, 8, 1)), *stack])
    Counting.seen.clear()
    images = random_images(23, 8, 8, 1)  # 23·17 jobs, which 10 does not divide
    occlusion_sensitivity(model, images, 2, batch_size=10, progress=False)
    assert set(Counting.seen) == {(10, 8, 8, 1)}
    assert len(Counting.seen) == 1 or keras.backend.backend() == "torch"  # which does not trace


MEMORY = """
import resource, sys
import keras, numpy as np
from keras import layers
from deepfake_nb.explain.occlusion import occlusion_sensitivity

stack = [layers.Conv2D(4, 4, strides=4), layers.GlobalAveragePooling2D(), layers.Dense(1)]
model = keras.Sequential([layers.Input((128, 128, 3)), *stack])
image = np.random.default_rng(0).random((1, 128, 128, 3), dtype="float32")

def most():
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

batches = dict(batch_size=16, method="batch", progress=False)
occlusion_sensitivity(model, image, 32, **batches)
before = most()
occlusion_sensitivity(model, image, 8, 3, **batches)
occlusion_sensitivity(model, image, 8, 3, progress=False)
print(most() - before)
"""


@pytest.mark.slow
@once
def test_memory_does_not_grow_with_the_number_of_patches(forks, tmp_path):
    """1,681 partly hidden images would take 330 MB.

    In MB as the operating system counts them, since the backend's memory is not Python's.
    """
    assert forks.script(MEMORY, log=tmp_path / "log") == 0
    assert float((tmp_path / "log").read_text().split()[-1]) < 150


@once
def test_host_memory_does_not_grow_with_the_number_of_images():
    model, peaks = linear(np.ones((32, 32, 3))), []
    for n in (200, 600):
        images = random_images(n, 32, 32, 3)
        tracemalloc.start()
        occlusion_sensitivity(model, images, 8, batch_size=16, progress=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    maps_and_scores = 2 * 400 * 32 * 32 * 4  # not 400·17 images of 12 kB
    assert peaks[1] - peaks[0] < maps_and_scores + 2**20


def test_new_weights_count():
    model, images = linear(np.zeros((6, 6, 1))), random_images(1, 6, 6, 1)
    assert not occlusion_sensitivity(model, images, 2, progress=False).any()
    model.set_weights([np.ones((36, 1))])
    found = occlusion_sensitivity(model, images, 6, progress=False)
    np.testing.assert_allclose(found, images.sum(), rtol=1e-5)


@keras.saving.register_keras_serializable("occlusion_tests")
class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(2)

    def call(self, x):
        return self.inner(ops.reshape(x, (ops.shape(x)[0], -1)))


def test_subclassed_models():
    model, images = Subclassed(), random_images(2, 6, 4, 1)
    with pytest.raises(ValueError, match="no weights yet"):
        occlusion_sensitivity(model, images, 2, progress=False)
    model(images)
    options = {"class_index": 1, "output": "score", "progress": False}
    found = occlusion_sensitivity(model, images, 2, **options)
    np.testing.assert_allclose(found, loop(model, images, (2, 2), (2, 2), column=1), atol=1e-6)


def test_bad_models_and_images():
    model, images = network((8, 8, 1), 2), random_images(3, 8, 8, 1)
    left, right = layers.Input((8, 8, 1)), layers.Input((8, 8, 1))
    added = layers.Flatten()(layers.Add()([left, right]))
    flat = layers.Flatten()(left)
    first, second = layers.Dense(1)(flat), layers.Dense(1)(flat)
    infinite = images.copy()
    infinite.flat[140] = np.inf
    usual = {"model": model, "images": images, "patch": 2, "progress": False}
    for message, arguments in {
        "2 outputs": {"model": keras.Model(left, [first, second])},
        "has 2 outputs": {"model": keras.Model(left, {"a": first, "b": second})},
        "2 inputs": {"model": keras.Model([left, right], layers.Dense(1)(added))},
        r"output is \(n, 8, 8, 1\)": {"model": keras.Model(left, layers.ReLU()(left))},
        r"takes \(8, 8, 1\)": {"images": random_images(3, 8, 8, 3)},
        r"\(4, 8, 8\) for model": {"images": random_images(8, 4, 8, 8)},
        "nothing to explain": {"images": images[:0]},
        "last axis of 1": {"images": images[0, ..., 0]},
        r"shape \(1, 3, 8, 8, 1\)": {"images": images[None]},
        "image 2 has 1 NaN or infinite values of 64": {"images": infinite},
        "several shapes": {"images": [images[0], images[0, :4]]},
        "patch of 9 pixels along a side of 8": {"patch": (2, 9)},
        "patch=0": {"patch": 0},
        r"stride=\(1, 0\)": {"stride": (1, 0)},
        "stride 3 for a patch of 2": {"stride": 3},
        "patch=2.0": {"patch": 2.0},
        "class_index=2: the model's output has 2 columns, expected 0 to 1": {"class_index": 2},
        "class_index=-1": {"class_index": -1},
        r"class_index=\[0, 1\]": {"class_index": [0, 1]},
        "1 column, expected 0": {"model": network((8, 8, 1)), "class_index": 1},
        "output='drops'": {"output": "drops"},
        "method='fast'": {"method": "fast"},
        "batch_size=0": {"batch_size": 0},
        "fill='black'": {"fill": "black"},
        r"fill of shape \(2,\)": {"fill": (1, 2)},
        "fill=nan": {"fill": np.nan},
    }.items():
        with pytest.raises(ValueError, match=message):
            occlusion_sensitivity(**usual | arguments)


def test_deletion_and_insertion_of_a_linear_model():
    """The score is the sum of the contributions present, so both curves follow from sorting.

    20 steps do not divide 35 pixels.
    """
    weights, images = np.random.default_rng(5).random((5, 7, 1)), random_images(3, 5, 7, 1)
    parts, model = (images * weights)[..., 0], linear(weights)
    curves, areas = deletion_insertion(model, images, parts, progress=False, batch_size=11)
    ordered = -np.sort(-parts.reshape(3, -1), axis=1)
    gone = np.linspace(0, 35, 21).round().astype(int)
    inserted = np.stack([ordered[:, :k].sum(1) for k in gone], 1)
    deleted = ordered.sum(1, keepdims=True) - inserted
    by_map = curves[curves["order"] == "map"].set_index("curve")["score"]
    np.testing.assert_allclose(by_map["insertion"], inserted.mean(0), atol=1e-5)
    np.testing.assert_allclose(by_map["deletion"], deleted.mean(0), atol=1e-5)
    expected = np.trapezoid(deleted, gone / 35, axis=1)
    np.testing.assert_allclose(areas["deletion"], expected, atol=1e-5)
    assert (areas["deletion"] < areas["random_deletion"]).all()
    assert (areas["insertion"] > areas["random_insertion"]).all()
    reversed_order = deletion_insertion(model, images, -parts, progress=False).areas
    assert (reversed_order["deletion"] > reversed_order["random_deletion"]).all()


@pytest.mark.slow
@once
def test_a_flat_map_is_at_chance():
    """Equal pixels follow in random order, so a constant map is one more random order."""
    weights = np.random.default_rng(5).normal(size=(6, 6, 1))
    images, maps = random_images(200, 6, 6, 1), np.zeros((200, 6, 6))
    options = {"n_random": 20, "seed": 1, "progress": False}
    areas = deletion_insertion(linear(weights), images, maps, **options).areas
    each = areas["deletion"] - areas["random_deletion"]
    assert abs(each.mean()) < 4 * each.std() / np.sqrt(len(each))
    assert each.std() > 0


@once
def test_masses_against_shifting_by_hand():
    rng = np.random.default_rng(0)
    maps, masks = rng.normal(size=(4, 9, 7)), rng.random((4, 9, 7)) > 0.6
    table = relevance_mass_accuracy(maps.astype("float32"), masks.astype("uint8") * 255)
    for i, row in table.iterrows():
        mass, total = np.maximum(maps[i], 0), np.maximum(maps[i], 0).sum()
        shifts = np.ndindex(9, 7)
        inside = np.array([np.roll(mass, s, (0, 1))[masks[i]].sum() for s in shifts]) / total
        p_value = (inside >= inside[0] - 1e-9).mean()
        found = [row.mass, row.inside, row.area, row.p_value]
        np.testing.assert_allclose(found, [total, inside[0], inside.mean(), p_value], rtol=1e-5)
        others = np.mean([mass[masks[k]].sum() / total for k in range(4) if k != i])
        np.testing.assert_allclose(row.others, others, rtol=1e-5)


@once
def test_maps_without_mass_and_empty_masks_are_counted():
    maps, masks = np.ones((8, 4, 4)), np.zeros((8, 4, 4), bool)
    maps[0], maps[1] = -1, 1e-9
    masks[:6, 1:3, 1:3] = True
    table = relevance_mass_accuracy(maps, masks)
    assert table["note"].tolist() == ["no positive mass"] * 2 + [""] * 4 + ["empty mask"] * 2
    assert table["inside"].isna().tolist() == [True] * 2 + [False] * 4 + [True] * 2
    result = mass_test(table)
    assert (result.images, result.empty_masks, result.without_mass) == (4, 2, 2)
    assert result.verdict == "undecided"
    damaged = maps.copy()
    damaged[3] = np.nan
    for message, wrong in {
        "map 3 has NaN": (damaged, masks),
        r"masks of shape \(8, 4, 3\)": (maps, masks[..., :3]),
        "mask 0 has 16 values": (maps, np.arange(128.0).reshape(8, 4, 4)),
        "mask 0 has 2 values from 1 to 2": (maps, masks + 1),
    }.items():
        with pytest.raises(ValueError, match=message):
            relevance_mass_accuracy(*wrong)
    with pytest.raises(ValueError, match="none can be tested"):
        mass_test(table[:2])
    with pytest.raises(ValueError, match="3 groups for 8"):
        mass_test(table, groups=[1, 2, 3])


@pytest.mark.slow
@once
def test_mass_test_is_at_chance_where_nothing_is_and_respects_groups():
    rng, at_chance, widths = np.random.default_rng(0), 0, []
    people = np.repeat(np.arange(25), 8)
    ramp = np.add.outer(np.arange(12), np.arange(12)) ** 2.0
    masks = np.zeros((200, 12, 12), bool)
    masks[:, 3:8, 3:8] = True
    for seed in range(60):
        shifts = rng.integers(0, 12, (25, 2)).repeat(8, 0)  # a person's maps lie alike
        maps = np.stack([np.roll(ramp, shift, (0, 1)) for shift in shifts])
        table = relevance_mass_accuracy(maps, masks)
        by_person = mass_test(table, people, seed=seed, n_resamples=300).excess
        by_map = mass_test(table, seed=seed, n_resamples=300).excess
        at_chance += by_person.contains(0)
        widths.append((by_person.high - by_person.low) / (by_map.high - by_map.low))
    assert at_chance >= 50  # 57 expected
    assert np.median(widths) > 2


@once
def test_maps_in_the_middle_beat_the_area_but_not_the_others():
    y, x = np.indices((16, 16)) - 7.5
    maps = np.stack([np.exp(-(y**2 + x**2) / 20)] * 12)
    centres = np.random.default_rng(0).normal(0, 1, (12, 2))
    masks = np.stack([np.hypot(y - a, x - b) < 4 for a, b in centres])
    table = relevance_mass_accuracy(maps, masks)
    assert mass_test(table).verdict == "above chance"
    assert mass_test(table, against="others").verdict == "at chance"


def test_the_listing_that_fails_leaves_the_network_whole():
    model = network((8, 8, 1), classes=10)
    image = np.random.default_rng(0).random((8, 8)).astype("float32")
    before = model.predict_on_batch(image[None, ..., None])
    runs, found = run_listing(model, image, 4, of_class=3)
    assert [end.split(":")[0] for end in runs["ends with"]] == [
        "NameError",
        "ValueError",
        "ValueError",
        "a map",
    ]
    assert found is not None and found.shape == image.shape
    np.testing.assert_array_equal(model.predict_on_batch(image[None, ..., None]), before)
