import pytest

from bench.runner import peers_for, turns
from bench.scenario import IDENTITY, SCENARIOS, Scenario
from bench.subjects import SUBJECTS

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
    assert named <= SUBJECTS.keys()


def test_every_target_is_relative_to_a_peer_of_its_scenario():
    for scenario in SCENARIOS:
        if scenario.target is not None and scenario.target.relative_to is not None:
            assert scenario.target.relative_to in scenario.peers
