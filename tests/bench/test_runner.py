import pytest

from bench.h2load import H2load
from bench.runner import peers_for, turns
from bench.scenario import IDENTITY, SCENARIOS, Scenario
from bench.subjects import RAW, SUBJECTS, subject

SCENARIO = Scenario("s", IDENTITY, 1, 1, peers=("crossgate", "aio-echo", "mlserver"))


def test_every_subject_is_first_equally_often():
    orders = [turns(3, number) for number in range(6)]
    assert sorted(order[0] for order in orders) == [0, 0, 1, 1, 2, 2]
    assert all(sorted(order) == [0, 1, 2] for order in orders)


def test_no_subjects_no_turns():
    assert turns(0, 4) == []


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ([], ["crossgate", "aio-echo", "mlserver"]),
        (["mlserver"], ["mlserver"]),
        (["crossgate", "crossgate:native"], ["crossgate", "crossgate:native"]),
        (["triton-python"], []),
    ],
)
def test_peers_are_chosen_by_name_with_any_mode(wanted, chosen):
    assert peers_for(SCENARIO, wanted) == chosen


def test_every_peer_of_every_scenario_exists():
    named = {peer.partition(":")[0] for scenario in SCENARIOS for peer in scenario.peers}
    assert named <= set(SUBJECTS)


def test_every_target_is_of_and_relative_to_peers_of_its_scenario():
    for scenario in SCENARIOS:
        for target in scenario.targets:
            assert target.relative_to is None or target.relative_to in scenario.peers
            assert not target.of or target.of in scenario.peers
            if target.metric in ("share_of_raw", "added_p50_us"):
                assert RAW in scenario.peers


def test_names_make_subjects_of_that_name():
    generators = [H2load()]
    named = {name for scenario in SCENARIOS for name in scenario.peers}
    assert {subject(name, generators).name for name in named} == named
