"""The laboratory: sweeps, exponents, claims with verdicts, figures. It knows no NTK.

``sweep`` measures and keeps; ``exponents`` fits; ``claims`` judges; ``plotting`` draws;
``reproduce`` executes notebooks. Every public name is importable from ``ntk_utils`` itself.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules={"claims", "exponents", "plotting", "reproduce", "sweep"}
)
