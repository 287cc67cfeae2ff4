"""What is shown of a state, from messages."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from crossgate.cli.gateways_json import plain
from crossgate.cli.gateways_screen import print_status, screen
from crossgate.cli.gateways_status import MODEL_HEADER, SLOT_HEADER, status_text, unmatched_text
from protos import admin_pb2 as pb


def page(**rest):
    figures = pb.Figures(
        window_seconds=10,
        requests_per_second=1234.5,
        errors_per_second=0.5,
        mean_batch_size=8.2,
        p50_seconds=0.0013,
        p99_seconds=0.0048,
        requests_total=5_000_000_000,
        outcomes_total={"ok": 4_999_999_990, "failed": 10},
    )
    digits = pb.ModelStatus(
        model="digits", revision=12, applied=10, waits=["version 3: no file"], load_mode="always",
        labels={"stable": "1"}, split={"1": 95.0}, rules=2, sticky="x-user", problem="",
    )  # fmt: skip
    one = digits.versions.add(version="1", state="READY", batchable=True, queue_depth=3, in_flight=2)
    one.figures.CopyFrom(figures)
    one.instances.add(slot="cpu", device="cpu", runtime="onnxruntime", state="ready", count=2)
    digits.versions.add(version="3", state="UNAVAILABLE", reason="no file")
    return pb.StatusResponse(
        gateway=pb.GatewayStatus(
            name="gw", node="n1", release="1.2", pid=42, uptime_seconds=5400, frontend="native",
            addresses={"grpc": "127.0.0.1:8001"}, state="serving", models_by_state={"READY": 1},
        ),
        configuration=pb.ConfigurationStatus(
            source="etcd a:2379", desired_revision=12, applied_revision=10, **rest
        ),
        slots=[
            pb.SlotStatus(
                slot="cpu", node="n1", device="cpu", state="up", capacity=4, batches_in_flight=2,
                utilisation=0.42, memory_bytes=45 << 20, memory_limit_bytes=1 << 30,
            ),
            pb.SlotStatus(slot="cuda:0", node="n1", device="cuda:0", state="down", reason="exited"),
        ],
        models=[digits],
        models_matching=1,
    )  # fmt: skip


def row_of(text, version):
    (row,) = [row for row in text.models if row[1] == version]
    return dict(zip(MODEL_HEADER, row, strict=True))


def test_a_version_has_its_live_figures_in_its_row():
    row = row_of(status_text([page()]), "1")
    assert row == {
        "model": "digits", "version": "1", "state": "READY", "split": "95%", "req/s": "1.2k", "err/s": "0.5",
        "queue": "3", "batch": "8.2", "p50": "1.3ms", "p99": "4.8ms",
    }  # fmt: skip


def test_a_version_without_requests_has_dashes():
    row = row_of(status_text([page()]), "3")
    assert (row["split"], row["batch"], row["p50"]) == ("-", "-", "-")


def test_what_an_operator_should_look_at_is_remarked():
    text = status_text([page()])
    assert text.remarks == (
        "slot cuda:0: exited",
        "digits: revision 12 waits for version 3: no file",
        "digits/3: no file",
    )


def test_the_source_that_is_away_is_said_with_what_is_served():
    (away,) = [
        line
        for line in status_text([page(away="connection refused", away_seconds=65, from_disk=True)]).headlines
        if "away" in line
    ]
    assert away == ("its source is away for 1m 5s, from the last good state on disk: connection refused")


def test_headlines_say_who_it_is_and_which_revision_is_in_force():
    headlines = status_text([page()]).headlines
    assert headlines[0] == "gw on n1: serving, up 1h 30m, crossgate 1.2, pid 42, native front end"
    assert "configuration: etcd a:2379, revision 12, 10 in force everywhere" in headlines


def test_details_have_labels_instances_and_totals():
    remarks = "\n".join(status_text([page()], details=True).remarks)
    assert "label stable is 1, 2 rules, sticky by x-user" in remarks
    assert "onnxruntime on cpu ready, 2 at once, batchable" in remarks
    assert "so far 4999999990 ok, 10 failed" in remarks


def test_several_pages_are_one_table_and_what_was_left_off_is_counted():
    first, second = page(), page()
    first.models_matching = second.models_matching = 5
    text = status_text([first, second])
    assert len(text.models) == 4
    assert text.remarks[-1] == "... and 3 more models"


@pytest.mark.parametrize("width", [80, 200])
def test_a_screen_is_not_wider_than_the_terminal(width):
    shown = page()
    shown.models[0].model = "a-model-with-a-name-of-" + "x" * 70
    shown.slots[0].slot = "openvino:CPU,cpus=0-3,5,7-11,capacity=12"
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    text = status_text([shown])
    console.print(screen(text, width))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    (row,) = [line for line in lines if "1.2k" in line]
    assert row.split()[2:] == ["READY", "95%", "1.2k", "0.5", "3", "8.2", "1.3ms", "4.8ms"]
    (slot,) = [line for line in lines if "42%" in line]
    assert slot.rstrip().endswith("45 MiB of 1.0 GiB")


def test_names_with_brackets_are_shown_as_they_are(capsys):
    shown = page()
    shown.models[0].versions[1].reason = "shape [-1, 4] [bold]"
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(screen(status_text([shown]), 120))
    assert "shape [-1, 4] [bold]" in console.file.getvalue()


def test_elsewhere_than_on_a_terminal_columns_are_plain(capsys):
    print_status(status_text([page()]))
    lines = capsys.readouterr().out.splitlines()
    (header,) = [line for line in lines if line.startswith("model ")]
    assert tuple(header.split()) == MODEL_HEADER
    assert SLOT_HEADER in [tuple(line.split()) for line in lines]
    assert "digits/3: no file" in lines


def test_what_is_missing_is_named_with_the_nearest():
    unmatched = [
        pb.Unmatched(pattern="digist", hint='; did you mean "digits"?'),
        pb.Unmatched(pattern="x*"),
    ]
    text = unmatched_text(pb.StatusResponse(unmatched=unmatched))
    assert text == 'no model "digist"; did you mean "digits"?; no model matches "x*"'
    assert unmatched_text(pb.StatusResponse()) == ""


def test_json_has_every_key_and_numbers_as_numbers():
    found = plain(page())
    version = found["models"][0]["versions"][0]
    assert version["figures"]["requests_total"] == 5_000_000_000
    assert version["figures"]["outcomes_total"] == {"failed": 10, "ok": 4_999_999_990}
    assert found["models"][0]["versions"][1]["batchable"] is None
    assert found["models"][0]["problem"] == ""
    assert found["slots"][1]["utilisation"] is None
    assert found["unmatched"] == []
    assert found["gateway"]["unknown_models"] is None


def test_pools_that_are_not_in_use_are_named_with_the_reason():
    state = page()
    state.gateway.notes.append("workers/n2/cpu: its certificate is not of an allowed identity")
    state.gateway.notes_left_off = 2
    headlines = status_text([state]).headlines
    assert "note: workers/n2/cpu: its certificate is not of an allowed identity" in headlines
    assert "... and 2 more notes" in headlines
