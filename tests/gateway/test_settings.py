from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gateway.settings import GatewaySettings, Inheritance, from_json, to_json


@pytest.mark.parametrize(
    "settings",
    [
        GatewaySettings(Path("/models")),
        GatewaySettings(
            Path("/models"),
            slots=("cpu:0", "cuda:0"),
            cpus=(0, 1),
            drain_s=1.5,
            tls_certificate=Path("/c"),
            pool_folder=Path("/run/x"),
            processes=3,
            inherited=Inheritance((3, 4), 5, 6, (0, 1, 2), waits=True),
        ),
    ],
    ids=["by default", "with all kinds of fields"],
)
def test_settings_come_back_as_they_were(settings):
    assert from_json(to_json(settings)) == settings


def test_what_another_release_wrote_is_read_as_far_as_it_is_known():
    assert from_json('{"models": "/m", "of_tomorrow": {"a": 1}}') == GatewaySettings(Path("/m"))


@pytest.mark.parametrize("text", ["", "[]", '{"models": "/m", "cpus": ["a"]}'])
def test_what_are_no_settings_is_refused(text):
    with pytest.raises(msgspec.DecodeError):
        from_json(text)
