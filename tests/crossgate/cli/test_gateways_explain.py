from __future__ import annotations

import pytest

from crossgate.cli.gateways_explain import explain_lines
from protos import admin_pb2 as pb


def servable(**rest):
    found = pb.ServableStatus(
        batchable=True, max_batch_size=8, max_queue_delay_us=50, queue_depth=3, max_queue_size=16, **rest
    )
    found.hostings.add(slot="cpu", device="cpu", count=2, batches_in_flight=1, slot_batches_in_flight=2)
    return found


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (pb.ExplainResponse(by="version"), "the request names version 2"),
        (pb.ExplainResponse(by="label"), "the request names a label of version 2"),
        (
            pb.ExplainResponse(by="rule", rule=3, conditions={"b": "y", "a": "x"}),
            "rule 3 matches (a=x, b=y) and leads to version 2",
        ),
        (pb.ExplainResponse(by="only"), "version 2 takes all traffic"),
        (pb.ExplainResponse(by="sticky", sticky="u", sticky_value="anna"), "u=anna sticks to version 2"),
        (pb.ExplainResponse(by="weights"), "chance decides by the weights"),
        (pb.ExplainResponse(by="weights", sticky="u"), "chance decides by the weights, without metadata u"),
    ],
)
def test_each_reason_has_its_sentence(answer, words):
    answer.revision = 7
    answer.ways.add(version="2", share=1, servable=servable())
    assert next(explain_lines("m", answer)) == f"m: {words} (revision 7)"


def test_a_way_is_shown_with_its_queue_and_slots():
    answer = pb.ExplainResponse(by="only")
    answer.ways.add(version="2", share=1, servable=servable())
    assert list(explain_lines("m", answer))[1:] == [
        "  version 2: 3 of 16 waiting, 0 in flight; batches of up to 8, waiting at most 50 us",
        "    slot cpu (cpu): 2 at once, 1 batches in flight, 2 on the slot in all",
    ]


def test_each_of_several_ways_has_its_share_and_failure():
    answer = pb.ExplainResponse(by="weights")
    answer.ways.add(version="1", share=0.75, asleep=True)
    failing = answer.ways.add(version="2", share=0.25)
    failing.failure.CopyFrom(pb.Failure(code="UNAVAILABLE", message="it is loading"))
    assert list(explain_lines("m", answer))[1:] == [
        "  version 1 for 75%: loaded on demand, the request waits for it",
        "  version 2 for 25%: not loaded",
        "    UNAVAILABLE: it is loading",
    ]


def test_a_refusal_is_the_last_line():
    failure = pb.Failure(code="NOT_FOUND", message="unknown model 'n'")
    lines = list(explain_lines("n", pb.ExplainResponse(by="nothing", failure=failure)))
    assert lines == ["n: there is no version to choose from", "answer: NOT_FOUND: unknown model 'n'"]


def test_a_routing_that_waits_and_a_document_that_is_not_valid_are_said():
    answer = pb.ExplainResponse(by="only", revision=19, applied=16, waits=["version 3: no file"])
    answer.ways.add(version="1", share=1, servable=servable())
    first, second, *_ = explain_lines("m", answer)
    assert first == "m: version 1 takes all traffic (revision 19)"
    assert second == (
        "  the routing of revision 19 waits for version 3: no file; that of revision 16 decides"
    )
    answer.applied, answer.problem = 0, "labels: expected a mapping"
    assert list(explain_lines("m", answer))[1:3] == [
        "  its document is not valid, and the one before it serves: labels: expected a mapping",
        "  the routing of revision 19 waits for version 3: no file; none is in force",
    ]
