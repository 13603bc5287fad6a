"""All that is checked of what a wheel renders."""

from __future__ import annotations

from . import checks_render_gradients, checks_render_process, checks_render_raster, checks_render_sampling

CHECKS = (
    *checks_render_raster.CHECKS,
    *checks_render_sampling.CHECKS,
    *checks_render_gradients.CHECKS,
    *checks_render_process.CHECKS,
)
