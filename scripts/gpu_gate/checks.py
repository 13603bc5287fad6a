"""Every check of the gate, in the order in which they are made."""

from __future__ import annotations

from . import checks_install, checks_reference, checks_render

CHECKS = (*checks_install.CHECKS, *checks_reference.CHECKS, *checks_render.CHECKS)
