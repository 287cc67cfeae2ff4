import pytest

from bench.figures import Figures
from bench.results import ScenarioResult, SubjectResult, Unloaded, ratios, unloaded_ratio
from bench.scenario import IDENTITY, Scenario, Target


def one(requests_per_s=100.0, cpu_us=50.0, p50_us=900.0, mean_batch=4.0, void=()):
    return Figures(
        requests=10,
        wall_s=1.0,
        requests_per_s=requests_per_s,
        p50_us=p50_us,
        p99_us=2 * p50_us,
        cpu_us=cpu_us,
        pss_bytes=1,
        rss_bytes=2,
        mean_batch=mean_batch,
        void=void,
    )


def result(*targets, streams=8, open_share=None, **subjects):
    scenario = Scenario(
        "load", IDENTITY, connections=1, streams=streams, targets=targets, open_share=open_share
    )
    names = {name.replace("_", "-").replace("--", ":"): rounds for name, rounds in subjects.items()}
    return ScenarioResult(
        scenario,
        "h2load",
        tuple(SubjectResult(name, "", {}, tuple(rounds)) for name, rounds in names.items()),
    )


def found(result):
    return {ratio.label: ratio for ratio in ratios(result)}


def test_a_ratio_is_the_median_of_quotients_within_one_round():
    """The machine was four times slower in the second round: both sides suffered, the ratio does not."""
    ours = [one(300.0), one(75.0), one(330.0)]
    theirs = [one(100.0), one(25.0), one(100.0)]
    label = "load: crossgate / mlserver, requests/s"
    assert found(result(crossgate=ours, mlserver=theirs))[label].value == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("target", "value", "met"),
    [
        (Target("cpu_us", 1.25, "at_most", relative_to="aio-echo"), 1.2, True),
        (Target("cpu_us", 1.1, "at_most", relative_to="aio-echo"), 1.2, False),
        (Target("mean_batch", 8, "at_least"), 8.0, True),
        (Target("mean_batch", 8.5, "at_least"), 8.0, False),
        (Target("share_of_raw", 0.9, "at_least"), 0.95, True),
        (Target("share_of_raw", 0.96, "at_least"), 0.95, False),
        (Target("added_p50_us", 150, "at_most"), 0.0, True),
        (Target("p99_us", 1700, "at_most"), 1800.0, False),
    ],
)
def test_what_was_wanted_is_judged(target, value, met):
    crossgate = [one(requests_per_s=95.0, cpu_us=60.0, mean_batch=8.0)]
    measured = result(target, crossgate=crossgate, aio_echo=[one(cpu_us=50.0)], onnxruntime=[one()])
    ratio = ratios(measured)[0]
    assert ratio.value == pytest.approx(value)
    assert ratio.met is met
    assert ratio.wanted


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([one(), one(void=("lost",))], [one(), one()]),
        ([one(), one()], [one(), one(void=("lost",))]),
        ([], [one(), one()]),
        ([one(), one()], []),
    ],
)
def test_a_void_side_gives_no_ratio(ours, theirs):
    target = Target("cpu_us", 1.25, "at_most", relative_to="aio-echo")
    assert {
        (ratio.value, ratio.met) for ratio in ratios(result(target, crossgate=ours, aio_echo=theirs))
    } == {(None, None)}


def test_a_target_against_a_peer_that_was_left_out_is_neither_met_nor_missed():
    target = Target("share_of_raw", 0.9, "at_least")
    assert [ratio.met for ratio in ratios(result(target, crossgate=[one()]))] == [None]


def test_each_variant_of_ours_is_compared_with_every_peer_and_later_ones_with_the_first():
    labels = found(result(crossgate=[one()], crossgate__native=[one()], mlserver=[one()])).keys()
    assert labels == {
        "load: crossgate / mlserver, requests/s",
        "load: crossgate / mlserver, server CPU per request",
        "load: crossgate:native / mlserver, requests/s",
        "load: crossgate:native / mlserver, server CPU per request",
        "load: crossgate:native / crossgate, requests/s",
        "load: crossgate:native / crossgate, server CPU per request",
    }


def test_a_target_of_one_variant_is_not_asked_of_another():
    target = Target("cpu_us", 20, "at_most", of="crossgate:native")
    measured = result(target, crossgate__native=[one(cpu_us=19.0)], crossgate__grpcio=[one(cpu_us=300.0)])
    assert [ratio.label for ratio in ratios(measured) if ratio.wanted] == [
        "load: server CPU per request, crossgate:native"
    ]


def test_an_open_loop_is_compared_by_its_tail():
    measured = result(open_share=0.5, crossgate=[one(p50_us=100.0)], mlserver=[one(p50_us=200.0)])
    assert found(measured)["load: crossgate / mlserver, p99"].value == pytest.approx(0.5)


def test_one_in_flight_reports_the_latency_added_to_the_model_alone():
    measured = result(streams=1, crossgate=[one(p50_us=250.0)], onnxruntime=[one(p50_us=100.0)])
    assert found(measured)["load: crossgate / onnxruntime, added p50"].value == pytest.approx(150.0)
    target = Target("added_p50_us", 100, "at_most")
    wanted = ratios(result(target, streams=1, crossgate=[one(p50_us=250.0)], onnxruntime=[one(p50_us=100.0)]))
    assert (wanted[0].value, wanted[0].met) == (pytest.approx(150.0), False)
    assert not any("added p50" in ratio.label for ratio in wanted[1:]), "it is not said twice"


def test_a_batch_size_that_the_server_does_not_report_is_not_judged():
    target = Target("mean_batch", 8, "at_least")
    assert ratios(result(target, crossgate=[one(mean_batch=None)]))[0].met is None


@pytest.mark.parametrize(
    ("values", "value", "met"), [((0.2, 0.9, 0.4), 0.4, True), ((0.6,), 0.6, False), ((), None, None)]
)
def test_unloaded_figures_are_judged_by_their_median(values, value, met):
    ratio = unloaded_ratio(Unloaded("idle", "crossgate", "%", values, at_most=0.5, details={}))
    assert (ratio.value, ratio.met) == (value, met)


def test_void_reasons_name_their_round():
    subject = SubjectResult("x", "", {}, (one(), one(void=("lost", "late"))))
    assert subject.void == ["round 2: lost", "round 2: late"]
