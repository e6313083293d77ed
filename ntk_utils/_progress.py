"""The progress bar of long work."""

import os

from tqdm.auto import tqdm


def progress_bar(total: int, *, silent: bool = False, **options) -> tqdm:
    """A bar of `total` units; none where the environment has TQDM_DISABLE=1."""
    # tqdm's bar for notebooks does not ask the environment
    silent = silent or os.environ.get("TQDM_DISABLE") == "1"
    return tqdm(total=total, disable=silent, **options)
