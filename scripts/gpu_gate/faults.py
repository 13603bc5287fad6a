"""What upstream's releases are known to do wrong or not to do; a check that meets one says "known", not "failed"."""

from __future__ import annotations

# Images higher than 2048 are drawn by tiles whose stride is not initialised.
STRIDE_ABOVE_2048 = "stride-above-2048"
# Images wider or higher than 2048 are refused.
AT_MOST_2048 = "at-most-2048"
# Width and height must be multiples of 8.
MULTIPLES_OF_8 = "multiples-of-8"
# u and v are limited one by one, so that u + v may pass 1 by a rounding.
SUM_ABOVE_1 = "sum-above-1"

_KNOWN = {
    STRIDE_ABOVE_2048: ("0.3.3", "0.3.3.1", "0.3.4"),
    AT_MOST_2048: ("0.3.0", "0.3.1", "0.3.2"),
    MULTIPLES_OF_8: ("0.3.0", "0.3.1"),
    SUM_ABOVE_1: ("0.3.0", "0.3.1", "0.3.2", "0.3.3", "0.3.3.1", "0.3.4"),
}


def known(release: str) -> frozenset[str]:
    """The faults of an upstream release ("0.3.3.1")."""
    return frozenset(fault for fault, releases in _KNOWN.items() if release in releases)
