import os

import jax
import pytest

import ntk_utils  # noqa: F401  (switches JAX's 64-bit mode on)

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(params=[0, 1, 2])
def key(request):
    return jax.random.key(request.param)


def pytest_collection_modifyitems(items):
    if os.environ.get("CI"):
        return
    skip = pytest.mark.skip(reason="slow: runs where CI=true")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)
