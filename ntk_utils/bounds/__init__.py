"""Bounds on the smallest eigenvalue of the NTK, and what follows: a room for each theorem.

``hermite`` the coefficients in which they are written; ``limiting`` Theorem 3.2; ``empirical``
Theorem 4.1; ``features`` Theorem 5.1; ``lipschitz`` Theorem 6.2, of Nguyen, Mondelli, Montúfar
(ICML 2021, arXiv:2012.11654v5); ``convergence`` what other papers prove about gradient descent;
``verified`` bounds that hold with all rounding.
Every public name is importable from ``ntk_utils`` itself.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules={
        "convergence",
        "empirical",
        "features",
        "hermite",
        "limiting",
        "lipschitz",
        "verified",
    },
)
