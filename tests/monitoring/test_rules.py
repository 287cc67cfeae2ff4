from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docker" / "prometheus" / "rules"
TESTS = sorted((Path(__file__).parent / "rules").glob("*.yml"))
ALERTS = [
    rule for group in yaml.safe_load((RULES / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]


def run(program, *arguments):
    """Run one of Debian's programs, where it is installed; CI must have it."""
    binary = shutil.which(program)
    if binary is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"there is no {program} on the PATH")
        pytest.skip(f"there is no {program}: apt-get install prometheus prometheus-alertmanager")
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_prometheus_takes_configuration_and_rules():
    assert "SUCCESS" in run("promtool", "check", "config", ROOT / "docker" / "prometheus" / "prometheus.yml")


@pytest.mark.slow
def test_alertmanager_takes_its_configuration():
    assert "SUCCESS" in run("amtool", "check-config", ROOT / "docker" / "alertmanager" / "alertmanager.yml")


@pytest.mark.slow
@pytest.mark.parametrize("file", TESTS, ids=[each.stem for each in TESTS])
def test_alerts_fire_hold_still_below_the_threshold_and_resolve(file):
    assert "SUCCESS" in run("promtool", "test", "rules", file)


@pytest.mark.parametrize("rule", ALERTS, ids=[each["alert"] for each in ALERTS])
def test_every_alert_is_tested_and_says_what_to_do(rule):
    tested = [each for file in TESTS for each in yaml.safe_load(file.read_text())["tests"]]
    checks = [c for each in tested for c in each["alert_rule_test"] if c["alertname"] == rule["alert"]]
    assert any(each["exp_alerts"] for each in checks)
    assert any(not each["exp_alerts"] for each in checks)
    assert rule["labels"]["severity"] in ("critical", "warning")
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (\w+)$", (ROOT / file).read_text(), re.MULTILINE)
    assert anchor in [each.lower() for each in headings]
