//! How long it takes to read a request, in nanoseconds: the best and the median of several rounds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use _native::chunks::Chunks;
use _native::request::Reader;
use bytes::Bytes;
use crossgate_native_fuzz::schema::{
    InferInputTensor, InferParameter, InferRequestedOutputTensor, InferTensorContents, ModelInferRequest,
    ParameterChoice,
};
use prost::Message;

const MESSAGES: usize = 256;
const ROUNDS: usize = 201;

fn request(id: usize, size: usize) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "resnet50".into(),
        id: format!("{id:08}"),
        inputs: vec![InferInputTensor {
            name: "input_1".into(),
            datatype: "FP32".into(),
            shape: vec![1, size as i64 / 4],
            ..Default::default()
        }],
        outputs: vec![InferRequestedOutputTensor { name: "output_1".into(), ..Default::default() }],
        raw_input_contents: vec![vec![id as u8; size]],
        ..Default::default()
    }
}

fn typed(id: usize) -> ModelInferRequest {
    let mut request = request(id, 64);
    request.raw_input_contents.clear();
    request.inputs[0].contents = Some(InferTensorContents {
        fp32_contents: (0..16).map(|i| (id * i) as f32).collect(),
        ..Default::default()
    });
    request
}

fn unlike(id: usize) -> ModelInferRequest {
    let mut request = request(id, 64);
    let parameter = InferParameter { parameter_choice: Some(ParameterChoice::Uint64(id as u64)) };
    request.parameters.insert("number".into(), parameter);
    request
}

fn encoded(first: usize, piece: usize, build: &impl Fn(usize) -> ModelInferRequest) -> Vec<Chunks> {
    let numbers = first..first + MESSAGES;
    let messages = numbers.map(|number| {
        let mut chunks = Chunks::new();
        for part in build(number).encode_to_vec().chunks(piece) {
            let part = Bytes::copy_from_slice(part);
            drop(part.clone()); // a transport's bytes are shared already, and the first clone makes them so
            chunks.push(part);
        }
        chunks
    });
    messages.collect()
}

/// Read messages that differ in their number; over and over the same ones, or none twice if `anew`.
fn measure(name: &str, piece: usize, anew: bool, build: impl Fn(usize) -> ModelInferRequest) {
    let mut reader = Reader::new();
    let mut messages = encoded(0, piece, &build);
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        if anew {
            messages = encoded(round * MESSAGES, piece, &build);
        }
        let mut requests = Vec::with_capacity(MESSAGES);
        let start = Instant::now();
        for message in &messages {
            requests.push(reader.read(message));
        }
        let read = start.elapsed();
        let good = requests.iter().filter(|request| request.is_ok()).count();
        assert_eq!(good, MESSAGES);
        let start = Instant::now();
        black_box(requests).clear();
        let dropped = start.elapsed();
        let each = |time: Duration| time.as_nanos() as f64 / MESSAGES as f64;
        times.push((each(read), each(dropped)));
    }
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (best, median) = (times[0], times[ROUNDS / 2]);
    println!(
        "{name:36} {:7} bytes: best {:5.0}, median {:5.0}, and to drop {:5.0}",
        messages[0].len(),
        best.0,
        median.0,
        median.1
    );
}

fn main() {
    let piece = 16 << 10;
    measure("64 bytes raw", piece, false, |id| request(id, 64));
    measure("3 KiB raw", piece, false, |id| request(id, 3 << 10));
    measure("600 KB raw in pieces of 16 KiB", piece, false, |id| request(id, 602_112));
    measure("16 floats typed", piece, true, typed);
    measure("heads that never come again", piece, true, unlike);
}
