"""JAX on the small networks, where compiling the whole step makes it the best peer; not measured on the others.

`bind(what, case, batch)` gives a function that runs one compiled step and waits for it.
"""
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

INFERENCE = {"mlp-fraud", "lenet"}
TRAINING = {"linear", "mlp", "lenet"}
random = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(random.standard_normal(shape, dtype=np.float32))


def labels(batch):
    return jnp.asarray(random.integers(0, 10, batch))


def dense(*sizes):
    """Weights of a multi-layer perceptron: a list of (matrix, bias)."""
    return [(normal(a, b) * a ** -0.5, jnp.zeros(b)) for a, b in zip(sizes, sizes[1:])]


def mlp(layers, x):
    for weight, bias in layers[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


def lenet_weights():
    filters = [(normal(5, 5, cin, cout) * (25 * cin) ** -0.5, jnp.zeros(cout)) for cin, cout in ((1, 6), (6, 16))]
    return filters, dense(400, 120, 84, 10)


def lenet(weights, x):
    """Pictures come as [batch, 28, 28, 1], the layout in which XLA convolves fastest on a CPU."""
    filters, head = weights
    for (weight, bias), padding in zip(filters, ("SAME", "VALID")):
        x = jax.lax.conv_general_dilated(x, weight, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.lax.reduce_window(jax.nn.relu(x + bias), -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return mlp(head, x.reshape(len(x), -1))


def squared_error(y, t):
    return jnp.mean((y - t) ** 2)


def cross_entropy(y, t):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(y), t[:, None], axis=1))


def step_of(net, loss, update):
    """One jitted training step over a state (weights, what the optimiser keeps) whose buffers are reused."""
    @partial(jax.jit, donate_argnums=0)
    def step(state, x, t):
        weights, kept = state
        value, gradient = jax.value_and_grad(lambda w: loss(net(w, x), t))(weights)
        return update(weights, gradient, kept), value
    return step


def zeros_like(weights):
    return jax.tree.map(jnp.zeros_like, weights)


def momentum(weights, gradient, velocity):
    velocity = jax.tree.map(lambda m, g: 0.9 * m + g, velocity, gradient)
    return jax.tree.map(lambda w, m: w - 1e-2 * m, weights, velocity), velocity


def adam(weights, gradient, kept):
    mean, square, count = kept
    count += 1
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
    square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, square, gradient)
    a, b = 1 - 0.9 ** count, 1 - 0.999 ** count
    move = lambda w, m, v: w - 1e-3 * (m / a) / (jnp.sqrt(v / b) + 1e-8)
    return jax.tree.map(move, weights, mean, square), (mean, square, count)


def bind(what, case, batch):
    if what == "infer":
        weights, x, net = ((dense(30, 128, 64, 1), normal(batch, 30), mlp) if case == "mlp-fraud" else
                           (lenet_weights(), normal(batch, 28, 28, 1), lenet))
        run = jax.jit(net)
        return lambda: run(weights, x).block_until_ready()
    weights, x, t, net, loss, update = {
        "linear": lambda: (dense(10, 1), normal(batch, 10), normal(batch, 1), mlp, squared_error, momentum),
        "mlp": lambda: (dense(784, 512, 512, 10), normal(batch, 784), labels(batch), mlp, cross_entropy, adam),
        "lenet": lambda: (lenet_weights(), normal(batch, 28, 28, 1), labels(batch), lenet, cross_entropy, adam),
    }[case]()
    step = step_of(net, loss, update)
    state = (weights, zeros_like(weights) if update is momentum else (zeros_like(weights), zeros_like(weights), jnp.float32(0)))

    def once():
        nonlocal state
        state, value = step(state, x, t)
        value.block_until_ready()
    return once
