"""What each peer is told about a model."""

import yaml

from bench.peers.crossgate import write_document
from bench.peers.server import Placement
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
