"""Fixtures that start gateways: one for a whole module, or several within a test."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest
from live_gateway import LiveGateway, wait_until
from model_directory import ModelDirectory


@pytest.fixture
def eventually():
    """The one way to wait: `await eventually(condition)` polls in a thread, for a bounded time."""

    async def poll(condition, timeout_s=15.0):
        return await asyncio.to_thread(wait_until, condition, timeout_s)

    return poll


@pytest.fixture
def models(tmp_path):
    """An empty directory of models."""
    (tmp_path / "models").mkdir()
    return ModelDirectory(tmp_path / "models")


@pytest.fixture
def start_gateway(tmp_path):
    """Start gateways that end with the test; their logs belong to a failure's report."""
    numbers = itertools.count()
    with contextlib.ExitStack() as stack:

        def start(models, **settings):
            log = tmp_path / f"gateway-{next(numbers)}.log"
            gateway = stack.enter_context(LiveGateway(models.root, log, **settings))
            start.gateways.append(gateway)
            return gateway

        start.gateways = []
        yield start


@pytest.fixture(scope="module")
def module_models(tmp_path_factory):
    """An empty directory of models for a whole module."""
    return ModelDirectory(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def start_module_gateway(tmp_path_factory):
    """Start gateways that end with the module."""
    with contextlib.ExitStack() as stack:

        def start(models, **settings):
            log = tmp_path_factory.mktemp("log") / "gateway.log"
            return stack.enter_context(LiveGateway(models.root, log, **settings))

        yield start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed:
        for name, value in item.funcargs.items():
            gateways = [value] if isinstance(value, LiveGateway) else getattr(value, "gateways", [])
            report.sections.extend((f"log of {name}", each.log_text()[-20_000:]) for each in gateways)
    return report
