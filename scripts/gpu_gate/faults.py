"""Known faults and limits of upstream releases. A check that meets one of them reports "known" instead of "failed"."""

from __future__ import annotations

# Images higher than 2048 pixels are drawn in tiles, and the tile stride is not initialized.
STRIDE_ABOVE_2048 = "stride-above-2048"
# Images wider or higher than 2048 pixels are rejected.
AT_MOST_2048 = "at-most-2048"
# Width and height must be multiples of 8.
MULTIPLES_OF_8 = "multiples-of-8"
# u and v are clamped separately, so u + v can exceed 1 by a rounding error.
SUM_ABOVE_1 = "sum-above-1"

RELEASES = {
    STRIDE_ABOVE_2048: ("0.3.3", "0.3.3.1", "0.3.4"),
    AT_MOST_2048: ("0.3.0", "0.3.1", "0.3.2"),
    MULTIPLES_OF_8: ("0.3.0", "0.3.1"),
    SUM_ABOVE_1: ("0.3.0", "0.3.1", "0.3.2", "0.3.3", "0.3.3.1", "0.3.4"),
}


def known_faults(release: str) -> frozenset[str]:
    """Return the names of the faults of an upstream release ("0.3.3.1")."""
    return frozenset(fault for fault, releases in RELEASES.items() if release in releases)
