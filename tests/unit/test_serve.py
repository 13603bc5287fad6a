"""The form of an index that an Accept header requests."""

from __future__ import annotations

import pytest

from scripts.publish.serve import prefers_json

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"


@pytest.mark.parametrize(
    "accept",
    [
        f"{JSON}, {HTML}; q=0.1, text/html; q=0.01",
        f"{JSON}, {HTML};q=0.2, text/html;q=0.01",
        f"text/html;q=0.2,{JSON};q=0.3",
        JSON,
        JSON.upper(),
    ],
)
def test_prefers_json(accept: str) -> None:
    assert prefers_json(accept)


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        f"{JSON};q=0.1, text/html",
        f"{JSON}, {HTML}",
        f"{JSON};q=0",
        f"{JSON};q=much",
        "application/json",
        ",,;;q=",
    ],
)
def test_prefers_html(accept: str) -> None:
    assert not prefers_json(accept)
