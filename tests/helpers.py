"""What several test files start from."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from ntk_utils import Network, SmoothedLeakyReLU, gaussian, init_params

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
"""The browser of tests/browser, if there is one."""

SMOOTH = [jnp.tanh, jax.nn.sigmoid, SmoothedLeakyReLU(0.3, 2.0)]
"""Activations beside the ReLU: odd, of σ(0) ≠ 0, and unbounded."""


def draw(widths, seed, n_samples=10, init="lecun"):
    """Weights and Gaussian samples of a network; the seed is an integer or a random key."""
    key = jax.random.key(seed) if isinstance(seed, int) else seed
    key_x, key_w = jax.random.split(key)
    return init_params(Network(widths, init), key_w), gaussian(key_x, n_samples, widths[0])


@contextlib.contextmanager
def compilations():
    """The events of JAX's compiler, while the block runs."""
    events = []

    def listen(event, seconds, **_):  # noqa: ARG001
        if event.startswith("/jax/core/compile/"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def build_site(folder):
    """Build the site of all notebooks into a folder; a warning fails."""
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    result = subprocess.run(
        [*command, "--conf-dir", "book", ".", folder],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return folder
