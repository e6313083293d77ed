"""Measure the smallest eigenvalue of the neural tangent kernel (NTK), and the bounds on it.

The data flow names the rooms, and an import only ever points left:
``data → networks → kernels → spectra → bounds → training → report``. Beside it stands ``lab``, the
laboratory, which knows no NTK. Every public name is importable from ``ntk_utils`` itself; a module
loads when one of its names is first used, so ``import ntk_utils`` costs what ``import jax`` costs.

    >>> import jax, ntk_utils
    >>> key_x, key_w = jax.random.split(jax.random.key(0))
    >>> x = ntk_utils.uniform_sphere(key_x, n=20, d=10)
    >>> network = ntk_utils.Network(widths=(10, 160, 20, 1), init="he")
    >>> params = ntk_utils.init_params(network, key_w)
    >>> k = ntk_utils.empirical_ntk(params, x)
    >>> lambda_min = ntk_utils.smallest_eigenvalue(k)
    >>> ntk_utils.schur_lower_bound(params, x) <= lambda_min <= ntk_utils.diagonal_upper_bound(k)
    True

**Importing this package switches JAX's 64-bit mode on** (``jax_enable_x64``): a smallest eigenvalue
is a small difference of large numbers, and in single precision it is noise.

It also lets the threads of OpenBLAS sleep sooner (``OPENBLAS_THREAD_TIMEOUT``), unless that is set
already: imported before NumPy, kernels and eigenvalues in turns take a third less time.
"""

import difflib
import os

# NumPy and SciPy bring an OpenBLAS each. While its threads wait they spin, for 2^26 ticks of the
# clock by themselves, and slow those of the other. Read when a library loads: SciPy's is not yet
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")

import jax
import lazy_loader

__version__ = "0.1.0"

jax.config.update("jax_enable_x64", True)

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str):
    if name in __all__:
        return _load(name)
    close = difflib.get_close_matches(name, __all__)
    hint = f": did you mean {' or '.join(close)}?" if close else ""
    # with the name alone: the interpreter, unlike Jupyter, would guess once more
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}", name=name)
