"""A convolutional network for 8x8 pictures, trained with numpy only.

A framework would be a large dependency, and would produce other weights on other CPUs: kernels add
in another order, and training amplifies the differences. Here all numbers are float64, and after each
step the weights are rounded to a grid, far coarser than such differences and far finer than a step,
so that the weights are reproducible.
"""

import numpy as np

CHANNELS = (8, 16)
EPOCHS = 40
BATCH = 64
LEARNING_RATE = 0.05
MOMENTUM = 0.9
DECAY = 1e-4
GRID = 2.0**-20
DESCRIPTION = (
    f"3x3 convolutions of {CHANNELS[0]} and {CHANNELS[1]} channels, each with ReLU, 2x2 maximum, dense; "
    f"cross entropy, momentum {MOMENTUM}, rate {LEARNING_RATE} falling to 0, decay {DECAY}, {EPOCHS} "
    f"epochs of batches of {BATCH}, each picture moved by up to a pixel"
)


def round_to_grid(values):
    return np.round(values / GRID) * GRID


def initial(rng):
    """He initialisation (2015)."""
    first, second = CHANNELS
    flat = second * 4 * 4

    def normal(shape, inputs):
        return round_to_grid(rng.standard_normal(shape) * np.sqrt(2 / inputs))

    return {
        "convolution_1": normal((first, 1, 3, 3), 9),
        "bias_1": np.zeros(first),
        "convolution_2": normal((second, first, 3, 3), 9 * first),
        "bias_2": np.zeros(second),
        "dense": normal((flat, 10), flat),
        "bias_3": np.zeros(10),
    }


def patches(pictures):
    """The 3x3 neighbourhood of each pixel: (picture, row, column, channel * 9)."""
    padded = np.pad(pictures, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    count, _, rows, columns = pictures.shape
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(count, rows, columns, -1)


def convolve(around, weights, bias):
    """Convolution and ReLU: (picture, channel, row, column)."""
    values = around @ weights.reshape(len(weights), -1).T + bias
    return np.maximum(values, 0).transpose(0, 3, 1, 2)


def convolve_back(around, outputs, gradient):
    """The gradients of the weights (flat), of the bias, and of the values before the ReLU."""
    gradient = (gradient * (outputs > 0)).transpose(0, 2, 3, 1)
    rows = gradient.reshape(-1, gradient.shape[-1])
    return rows.T @ around.reshape(len(rows), -1), rows.sum(axis=0), gradient


def gradients(weights, pictures, digits):
    """The gradients of the mean cross entropy over the pictures."""
    # forward
    around_1 = patches(pictures[:, None])
    first = convolve(around_1, weights["convolution_1"], weights["bias_1"])
    around_2 = patches(first)
    second = convolve(around_2, weights["convolution_2"], weights["bias_2"])
    count, channels = second.shape[:2]
    blocks = second.reshape(count, channels, 4, 2, 4, 2)
    pooled = blocks.max(axis=(3, 5), keepdims=True)
    flat = pooled.reshape(count, -1)
    scores = flat @ weights["dense"] + weights["bias_3"]
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)

    # backward
    shares[np.arange(count), digits] -= 1
    shares /= count
    of_pooled = (shares @ weights["dense"].T).reshape(pooled.shape)
    # Equal maxima share the gradient.
    greatest = blocks == pooled
    of_second = greatest * (of_pooled / greatest.sum(axis=(3, 5), keepdims=True))
    of_weights_2, of_bias_2, values = convolve_back(
        around_2, second, of_second.reshape(second.shape)
    )
    # A convolution with the weights rotated by 180 degrees.
    rotated = weights["convolution_2"][:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    of_first = patches(values.transpose(0, 3, 1, 2)) @ rotated.reshape(len(rotated), -1).T
    of_weights_1, of_bias_1, _ = convolve_back(around_1, first, of_first.transpose(0, 3, 1, 2))
    return {
        "convolution_1": of_weights_1.reshape(weights["convolution_1"].shape),
        "bias_1": of_bias_1,
        "convolution_2": of_weights_2.reshape(weights["convolution_2"].shape),
        "bias_2": of_bias_2,
        "dense": flat.T @ shares,
        "bias_3": shares.sum(axis=0),
    }


def move(pictures, rng):
    """Shifts each picture by up to one pixel in each direction, filled with paper."""
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1)))
    moved = np.lib.stride_tricks.sliding_window_view(padded, (8, 8), axis=(1, 2))
    rows, columns = rng.integers(0, 3, (2, len(pictures)))
    return moved[np.arange(len(pictures)), rows, columns]


def train(pictures, digits, seed):
    """Weights by name, exact in float32, for pictures of 0 to 1."""
    rng = np.random.default_rng(seed)
    pictures = pictures.astype(np.float64)
    weights = initial(rng)
    velocity = {name: np.zeros_like(value) for name, value in weights.items()}
    steps = EPOCHS * (len(pictures) // BATCH)
    step = 0
    for _ in range(EPOCHS):
        order = rng.permutation(len(pictures))
        for batch in np.split(order[: steps // EPOCHS * BATCH], steps // EPOCHS):
            rate = LEARNING_RATE * (1 - step / steps)
            step_gradients = gradients(weights, move(pictures[batch], rng), digits[batch])
            for name, gradient in step_gradients.items():
                push = MOMENTUM * velocity[name] - rate * (gradient + DECAY * weights[name])
                velocity[name] = round_to_grid(push)
                weights[name] = weights[name] + velocity[name]
            step += 1
    return weights
