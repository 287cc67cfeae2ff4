"""What each peer is told about a model."""

import pytest
import yaml

from bench.peers.crossgate import Mode, sum_counts, write_document
from bench.peers.server import Counts, Placement
from bench.peers.triton_python import config
from bench.scenario import MINILM, MLP


def document(model, tmp_path):
    (tmp_path / model.name).mkdir()
    write_document(model, tmp_path, threads=1)
    return yaml.safe_load((tmp_path / model.name / "model.yaml").read_text())


def test_crossgate_batches_on_one_session_with_the_given_threads(tmp_path):
    written = document(MLP, tmp_path)
    assert written["batching"] == {"max_batch_size": 64, "batchable": True}
    assert written["instances"] == [{"runtime": "onnxruntime", "device": "cpu", "count": 1, "threads": 1}]


def test_crossgate_pads_every_input_of_a_model_with_buckets(tmp_path):
    padding = document(MINILM, tmp_path)["batching"]["pad"]
    assert padding.keys() == {"input_ids", "attention_mask", "token_type_ids"}
    assert padding["input_ids"] == {"axis": 1, "value": 0, "buckets": list(MINILM.buckets)}


def test_triton_names_the_python_back_end_and_allows_ragged_batches_where_lengths_vary():
    text = config(MINILM, Placement(model_cpu=3, load_cpu=0))
    assert 'backend: "python"' in text
    assert 'name: "input_ids" data_type: TYPE_INT64 dims: [-1] allow_ragged_batch: true' in text
    assert '\\"cpu\\": 3' in text


def test_triton_has_no_ragged_batches_for_fixed_shapes():
    text = config(MLP, Placement(model_cpu=1, load_cpu=0))
    assert "ragged" not in text
    assert "max_batch_size: 64" in text


@pytest.mark.parametrize(
    ("text", "mode"), [("", Mode()), ("native", Mode("native", 1)), ("native-x2", Mode("native", 2))]
)
def test_the_mode_names_front_end_and_processes(text, mode):
    assert Mode.parse(text) == mode


def test_counts_of_several_processes_are_added_up():
    def exposition(rows, batches, failed):
        return (
            "# TYPE crossgate_requests_total counter\n"
            f'crossgate_requests_total{{model="m",version="1",outcome="ok"}} {rows}\n'
            f'crossgate_requests_total{{model="m",version="1",outcome="failed"}} {failed}\n'
            'crossgate_requests_total{model="other",version="1",outcome="failed"} 7\n'
            "# TYPE crossgate_batch_size histogram\n"
            f'crossgate_batch_size_bucket{{model="m",device="cpu",le="+Inf"}} {batches}\n'
            f'crossgate_batch_size_count{{model="m",device="cpu"}} {batches}\n'
            f'crossgate_batch_size_sum{{model="m",device="cpu"}} {rows}\n'
            "# TYPE crossgate_rows_total counter\n"
            f'crossgate_rows_total{{model="m",version="1"}} {rows}\n'
        )

    assert sum_counts([exposition(100, 10, 0), exposition(40, 5, 3)], "m") == Counts(140, 15, 3)
