import numpy as np
import pytest

from bench.peers import native_echo
from bench.peers.native_echo import NativeEcho, answer
from bench.peers.process import StartFailed
from bench.peers.server import Placement
from bench.samples import Sample, Work, decode
from bench.scenario import MLP, Scenario
from gateway.extension import Extension

EXPECTED = {"OUTPUT0": np.arange(10, dtype=np.float32).reshape(1, 10)}
WORK = Work(Scenario("s", MLP, 1, 1), None, (), (Sample(b"", EXPECTED),))


def test_the_answer_is_one_of_the_models():
    assert np.array_equal(decode(answer(WORK), MLP.outputs)["OUTPUT0"], EXPECTED["OUTPUT0"])


@pytest.mark.parametrize(
    ("extension", "reason"),
    [
        (Extension(None, "cargo was not found", ""), "cargo was not found"),
        (Extension(np, "", "release"), "Echo"),
    ],
)
def test_without_the_native_echo_it_says_why(monkeypatch, tmp_path, extension, reason):
    monkeypatch.setattr(native_echo, "find_extension", lambda: extension)
    with pytest.raises(StartFailed, match=reason):
        NativeEcho().start(WORK, Placement(model_cpu=0, load_cpu=0), tmp_path)
