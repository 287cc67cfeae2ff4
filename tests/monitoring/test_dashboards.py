"""Dashboards ask only for series that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DASHBOARDS = sorted((ROOT / "docker" / "grafana" / "dashboards").glob("*.json"))
SERIES = re.compile(r"\bcrossgate_[a-z_]+")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_series_of_a_panel_is_documented(path):
    documented = set(SERIES.findall((ROOT / "docs" / "metrics.md").read_text()))
    panels = json.loads(path.read_text())["panels"]
    asked = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for panel in panels
        for target in panel["targets"]
        for name in SERIES.findall(target["expr"])
    }
    assert asked
    assert asked - documented == set()


def test_panels_have_numbers_and_places_of_their_own():
    for path in DASHBOARDS:
        panels = json.loads(path.read_text())["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
        assert len(places) == len(panels)
