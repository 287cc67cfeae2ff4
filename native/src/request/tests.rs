use bytes::Bytes;

use super::*;

/// Writes protobuf messages.
#[derive(Clone, Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(mut self, mut value: u64) -> Self {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn varint(self, field: u64, value: u64) -> Self {
        self.number(field << 3).number(value)
    }

    fn bytes(self, field: u64, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        let mut message = self.number(field << 3 | 2).number(value.len() as u64);
        message.0.extend_from_slice(value);
        message
    }

    fn message(self, field: u64, value: Message) -> Self {
        self.bytes(field, value.0)
    }

    fn raw(self, bytes: &[u8]) -> Self {
        Message([&self.0, bytes].concat())
    }

    fn join(self, other: &Message) -> Self {
        self.raw(&other.0)
    }
}

fn message() -> Message {
    Message::default()
}

fn tensor(name: &str, datatype: &str, shape: &[i64]) -> Message {
    let mut packed = message();
    for &size in shape {
        packed = packed.number(size as u64);
    }
    message().bytes(1, name).bytes(2, datatype).bytes(3, packed.0)
}

fn parameter(key: &str, value: Message) -> Message {
    message().bytes(1, key).message(2, value)
}

/// A request with an input of four floats.
fn plain(id: &str, data: &[u8]) -> Message {
    message()
        .bytes(1, "m")
        .bytes(2, "1")
        .bytes(3, id)
        .message(5, tensor("x", "FP32", &[1, 4]))
        .message(6, message().bytes(1, "y"))
        .bytes(7, data)
}

fn one_piece(message: &Message) -> Chunks {
    Bytes::copy_from_slice(&message.0).into()
}

fn pieces(message: &Message, size: usize) -> Chunks {
    let mut chunks = Chunks::new();
    for piece in message.0.chunks(size) {
        chunks.push(Bytes::copy_from_slice(piece));
    }
    chunks
}

fn joined(chunks: &Chunks) -> Vec<u8> {
    let mut bytes = vec![0; chunks.len()];
    chunks.copy_to(&mut bytes);
    bytes
}

type Said = (String, String, String, Vec<(String, Parameter)>, Vec<(InputHead, Vec<u8>)>, Vec<String>);

/// What a request says, without where it lies.
fn said(request: &Request) -> Said {
    let shape = &request.shape;
    assert_eq!(shape.inputs.len(), request.inputs.len());
    let data = request.inputs.iter().map(joined);
    (
        shape.model.clone(),
        shape.version.clone(),
        request.id.clone(),
        shape.parameters.clone(),
        shape.inputs.iter().cloned().zip(data).collect(),
        shape.outputs.clone(),
    )
}

/// Read a message in one piece and in many, by new readers and by ones that know it; all must agree.
fn read(message: &Message) -> Result<Request, Malformed> {
    let mut reader = Reader::new();
    let first = reader.read(&one_piece(message));
    for size in [message.0.len().max(1), 1, 2, 3, 7, 64] {
        for again in [Reader::new().read(&pieces(message, size)), reader.read(&pieces(message, size))] {
            match (&first, &again) {
                (Ok(first), Ok(again)) => assert_eq!(said(first), said(again)),
                (Err(first), Err(again)) => assert_eq!(first, again),
                _ => panic!("read as {first:?} and as {again:?} in pieces of {size}"),
            }
        }
    }
    first
}

fn accepted(message: &Message) -> Said {
    match read(message) {
        Ok(request) => said(&request),
        Err(Malformed(why)) => panic!("refused: {why}"),
    }
}

fn refused(message: &Message) -> String {
    match read(message) {
        Ok(request) => panic!("accepted: {request:?}"),
        Err(Malformed(why)) => why,
    }
}

const NO_REQUEST: &str = "the message is not a ModelInferRequest";

#[test]
fn everything_of_a_request_is_read() {
    let request = plain("7", b"0123456789abcdef")
        .message(4, parameter("f", message().raw(b"\x21\0\0\0\0\0\0\xf0\x3f")))
        .message(4, parameter("b", message().varint(1, 2)))
        .message(4, parameter("i", message().varint(2, u64::MAX)))
        .message(4, parameter("s", message().bytes(3, "é")))
        .message(4, parameter("u", message().varint(5, u64::MAX)))
        .message(4, parameter("none", message()));
    let (model, version, id, parameters, inputs, outputs) = accepted(&request);
    assert_eq!((&*model, &*version, &*id), ("m", "1", "7"));
    assert_eq!(
        parameters,
        [
            ("b".to_owned(), Parameter::Bool(true)),
            ("f".to_owned(), Parameter::Double(1.0)),
            ("i".to_owned(), Parameter::Int64(-1)),
            ("s".to_owned(), Parameter::String("é".to_owned())),
            ("u".to_owned(), Parameter::Uint64(u64::MAX)),
        ]
    );
    let head = InputHead {
        name: "x".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, 4],
        size_bytes: 16,
        elements_fit: true,
    };
    assert_eq!(inputs, [(head, b"0123456789abcdef".to_vec())]);
    assert_eq!(outputs, ["y"]);
}

#[test]
fn the_empty_message_is_a_request_of_nothing() {
    let nothing = accepted(&message());
    assert_eq!(nothing, Default::default());
}

#[test]
fn of_fields_given_twice_the_last_counts() {
    let request = message()
        .bytes(1, "a")
        .bytes(3, "first")
        .bytes(1, "b")
        .message(5, tensor("x", "FP32", &[1]).join(&tensor("z", "INT8", &[2])))
        .bytes(3, "last")
        .bytes(7, "");
    let (model, _, id, _, inputs, _) = accepted(&request);
    assert_eq!((&*model, &*id), ("b", "last"));
    assert_eq!((&*inputs[0].0.name, &*inputs[0].0.datatype), ("z", "INT8"));
    assert_eq!(inputs[0].0.shape, [1, 2]);
}

#[test]
fn shapes_may_be_packed_or_not() {
    let request =
        message().message(5, message().varint(3, 1).bytes(3, [2, 3]).bytes(3, []).varint(3, u64::MAX));
    assert_eq!(accepted(&request).4[0].0.shape, [1, 2, 3, -1]);
}

#[test]
fn of_parameters_with_one_key_the_last_counts_even_without_a_value() {
    let set = |value| parameter("k", message().varint(2, value));
    let both = message().message(4, set(1)).message(4, set(2));
    assert_eq!(accepted(&both).3, [("k".to_owned(), Parameter::Int64(2))]);
    let unset = both.message(4, message().bytes(1, "k"));
    assert_eq!(accepted(&unset).3, []);
}

#[test]
fn a_parameter_in_parts_is_one_and_its_last_choice_counts() {
    let request = message().message(
        4,
        message()
            .message(2, message().varint(1, 1).bytes(3, "x"))
            .bytes(1, "k")
            .message(2, message().varint(2, 5))
            .message(2, message()),
    );
    assert_eq!(accepted(&request).3, [("k".to_owned(), Parameter::Int64(5))]);
    let without_key = message().message(4, message().message(2, message().varint(1, 0)));
    assert_eq!(accepted(&without_key).3, [(String::new(), Parameter::Bool(false))]);
}

#[test]
fn a_map_entry_with_unknown_fields_is_an_unknown_field() {
    let entry = parameter("k", message().varint(2, 1));
    let with_unknown =
        message().message(4, entry.clone()).message(4, parameter("k", message().varint(2, 9)).varint(3, 1));
    assert_eq!(accepted(&with_unknown).3, [("k".to_owned(), Parameter::Int64(1))]);
    let in_the_value = parameter("k", message().varint(2, 1).varint(9, 1));
    assert_eq!(accepted(&message().message(4, in_the_value)).3, [("k".to_owned(), Parameter::Int64(1))]);
}

#[test]
fn unknown_fields_and_other_wire_types_are_passed_over() {
    let expected = accepted(&plain("7", b"0123456789abcdef"));
    for unknown in [
        &b"\xfa\x3f\x03abc"[..],
        b"\xf0\x3f\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\xf1\x3f\0\0\0\0\0\0\0\0",
        b"\xf5\x3f\0\0\0\0",
        b"\xf3\x3f\xf4\x3f",
        b"\xf3\x3f\x3a\x01x\xf4\x3f", // a group with a field 7 of its own
        b"\x38\x05",                  // 7, but a varint
        b"\x18\x05",                  // 3, but a varint
        b"\x0b\x0a\x01\xff\x0c",      // 1, but a group
        b"\x08\x01",
        b"\x2d\0\0\0\0",
    ] {
        let before = message().raw(unknown).join(&plain("7", b"0123456789abcdef"));
        assert_eq!(accepted(&before), expected);
        let after = plain("7", b"0123456789abcdef").raw(unknown);
        assert_eq!(accepted(&after), expected);
    }
}

#[test]
fn damaged_messages_are_no_requests() {
    for damaged in [
        &b"\x0a"[..],
        b"\x0a\x02x",
        b"\x3a\x05x",
        b"\x80",
        b"\x02\x00",
        b"\x7e",
        b"\x7c",
        b"\x7b",
        b"\x7b\x74",
        b"\x0a\x02\xff\xfe",
        b"\x1a\x01\xff",
        b"\x2a\x03\x0a\x01\xff",
        b"\x2a\x05\x2a\x03\x32\x01x", // half a float
        b"\x32\x03\x0a\x01\xff",
        b"\x22\x03\x0a\x01\xff",
        b"\x2a\x05\x22\x03\x0a\x01\xff", // the key of an input's parameter
    ] {
        assert_eq!(refused(&message().raw(damaged)), NO_REQUEST);
        assert_eq!(refused(&plain("7", &[0; 16]).raw(damaged)), NO_REQUEST);
    }
}

#[test]
fn groups_may_be_as_deep_as_the_limit_of_protobuf() {
    let nested = |count| message().raw(&vec![0x7b; count]).raw(&vec![0x7c; count]);
    accepted(&nested(100));
    assert_eq!(refused(&nested(101)), NO_REQUEST);
    accepted(&message().message(5, nested(99)));
    assert_eq!(refused(&message().message(5, nested(100))), NO_REQUEST);
    accepted(&message().message(4, message().message(2, nested(98))));
    let deep = message().message(4, message().message(2, nested(99)));
    assert_eq!(refused(&deep), NO_REQUEST);
}

#[test]
fn raw_tensors_are_one_for_each_input_and_have_no_typed_contents() {
    let two = message().message(5, tensor("x", "FP32", &[])).message(5, tensor("it's", "FP32", &[]));
    assert_eq!(refused(&two.clone().bytes(7, "x")), "1 raw_input_contents for 2 inputs");
    assert_eq!(refused(&message().bytes(7, "")), "1 raw_input_contents for 0 inputs");
    let typed = two.clone().message(5, tensor("a\n", "FP32", &[]).message(5, message()));
    assert_eq!(
        refused(&typed.bytes(7, "").bytes(7, "").bytes(7, "")),
        "input 'a\\n' has typed contents beside raw_input_contents"
    );
    let (.., inputs, _) = accepted(&two.bytes(7, "").bytes(7, "abcd"));
    assert_eq!((&*inputs[0].1, &*inputs[1].1), (&b""[..], &b"abcd"[..]));
}

#[test]
fn typed_contents_become_raw_bytes() {
    let contents = message().bytes(6, 1_f32.to_le_bytes());
    let request = message().message(
        5,
        message().message(5, contents.clone()).join(&tensor("x", "FP32", &[2])).message(5, contents),
    );
    let (.., inputs, _) = accepted(&request);
    assert_eq!(inputs[0].1, [1_f32.to_le_bytes(); 2].concat());
    assert_eq!(inputs[0].0.size_bytes, 8);
}

#[test]
fn typed_contents_must_be_what_the_datatype_has() {
    let refusal = |datatype, shape: &[i64], contents| {
        let tensor = tensor("x", datatype, shape).message(5, contents);
        refused(&message().message(5, tensor))
    };
    let int = |value| message().varint(2, value);
    assert_eq!(refusal("INT8", &[1], int(128)), "input 'x' holds a value that is no INT8");
    assert_eq!(refusal("INT8", &[1], int(128).varint(1, 1)), "input 'x' holds a value that is no INT8");
    assert_eq!(
        refusal("FP32", &[1], int(1).varint(1, 1)),
        "input 'x' is FP32 and has bool_contents instead of fp32_contents"
    );
    assert_eq!(
        refusal("BYTES", &[1], int(1)),
        "input 'x' is BYTES and has int_contents instead of bytes_contents"
    );
    assert_eq!(
        refusal("FP16", &[0], message()),
        "input 'x': FP16 has no typed contents, send raw_input_contents"
    );
    assert_eq!(
        refusal("BOOL", &[2, 1], message()),
        "input 'x' has no data: neither raw_input_contents nor contents"
    );
    let absent = message().message(5, tensor("x", "BYTES", &[1]));
    assert_eq!(refused(&absent), "input 'x' has no data: neither raw_input_contents nor contents");
}

#[test]
fn empty_tensors_and_unknown_datatypes_need_no_typed_contents() {
    for tensor in [
        tensor("x", "FP32", &[2, 0]),
        tensor("x", "BYTES", &[0]),
        tensor("x", "FP8", &[1]).message(5, message().varint(2, 1)),
        tensor("x", "", &[1]),
    ] {
        let (.., inputs, _) = accepted(&message().message(5, tensor));
        assert_eq!((inputs[0].0.size_bytes, inputs[0].0.elements_fit), (0, true));
    }
}

#[test]
fn what_is_no_request_comes_before_what_breaks_the_rules() {
    let wrong = message().message(5, tensor("x", "FP16", &[1]));
    assert!(refused(&wrong).starts_with("input 'x'"));
    assert_eq!(refused(&wrong.clone().message(5, message().bytes(5, b"\x32\x01x"))), NO_REQUEST);
    let output = message().message(2, parameter("classification", message()));
    assert!(refused(&wrong.message(6, output)).starts_with("input 'x'"));
}

#[test]
fn outputs_in_another_form_are_refused() {
    for key in ["classification", "shared_memory_region"] {
        let output = message()
            .message(2, parameter("a", message()))
            .message(2, parameter(key, message().varint(2, 1)))
            .bytes(1, "y");
        let request = message().message(6, message().bytes(1, "z")).message(6, output);
        assert_eq!(refused(&request), format!("output 'y': parameter '{key}' is not offered"));
    }
}

#[test]
fn outputs_asked_for_twice_come_once() {
    for count in [3, 100] {
        let mut request = message();
        let mut expected = Vec::new();
        for i in 0..count {
            expected.push(format!("y{i}"));
            request =
                request.message(6, message().bytes(1, format!("y{i}"))).message(6, message().bytes(1, "y0"));
        }
        assert_eq!(accepted(&request).5, expected);
    }
}

#[test]
fn bytes_elements_are_counted() {
    let text = |data: &[u8]| {
        let (.., inputs, _) = accepted(&message().message(5, tensor("t", "BYTES", &[2])).bytes(7, data));
        inputs[0].0.elements_fit
    };
    assert!(text(b"\x01\0\0\0a\0\0\0\0"));
    assert!(!text(b"\x01\0\0\0a"));
    assert!(!text(b"\x01\0\0\0a\0\0\0\0\0"));
    let typed =
        message().message(5, tensor("t", "BYTES", &[2]).message(5, message().bytes(8, "a").bytes(8, "")));
    let (.., inputs, _) = accepted(&typed);
    assert_eq!(inputs[0].1, b"\x01\0\0\0a\0\0\0\0");
    assert!(inputs[0].0.elements_fit);
}

#[test]
fn requests_that_differ_in_id_and_data_have_one_shape() {
    let mut reader = Reader::new();
    let mut read = |message: &Message| match reader.read(&one_piece(message)) {
        Ok(request) => request,
        Err(Malformed(why)) => panic!("{why}"),
    };
    let first = read(&plain("", b"0123456789abcdef"));
    for i in 0..300 {
        let again = read(&plain(&"i".repeat(i), &[i as u8; 16]));
        assert!(Arc::ptr_eq(&first.shape, &again.shape));
        assert_eq!(again.id.len(), i);
        assert_eq!(joined(&again.inputs[0]), [i as u8; 16]);
    }
    for other in [
        plain("", &[0; 12]),
        plain("", &[0; 16]).bytes(2, "2"),
        plain("", &[0; 16]).message(6, message().bytes(1, "z")),
        plain("", &[0; 16]).message(4, parameter("k", message().varint(1, 1))),
    ] {
        let others = [read(&other), read(&other)];
        assert!(!Arc::ptr_eq(&first.shape, &others[0].shape));
        assert!(Arc::ptr_eq(&others[0].shape, &others[1].shape));
    }
}

#[test]
fn requests_that_mean_the_same_have_one_shape_however_they_are_written() {
    let contents = |value: f32| message().bytes(6, value.to_le_bytes());
    let typed = |value| {
        message()
            .message(4, parameter("b", message().varint(1, 1)))
            .message(4, parameter("a", message().raw(b"\x21\0\0\0\0\0\0\xf8\x7f"))) // NaN
            .message(5, tensor("x", "FP32", &[1]).message(5, contents(value)))
    };
    let mut reader = Reader::new();
    let mut shape = |message: &Message| match reader.read(&pieces(message, 16)) {
        Ok(request) => request.shape,
        Err(Malformed(why)) => panic!("{why}"),
    };
    let first = shape(&typed(1.0));
    assert!(Arc::ptr_eq(&first, &shape(&typed(2.0))));
    let unlike = message()
        .bytes(7, "abcd")
        .raw(b"\xf5\x3f\0\0\0\0")
        .message(5, message().varint(3, 1).bytes(2, "FP32").bytes(1, "q").bytes(1, "x"))
        .message(4, parameter("a", message().raw(b"\x21\0\0\0\0\0\0\xf8\x7f")))
        .message(4, parameter("b", message().varint(1, 7)))
        .bytes(3, "id");
    assert!(Arc::ptr_eq(&first, &shape(&unlike)));
    assert!(Arc::ptr_eq(&first, &shape(&unlike)));
}

#[test]
fn whether_elements_fit_is_part_of_the_shape() {
    let text = |data: &[u8]| message().message(5, tensor("t", "BYTES", &[1])).bytes(7, data);
    let mut reader = Reader::new();
    for _ in 0..3 {
        for (data, fits) in [(b"\x02\0\0\0hi", true), (b"\x01\0\0\0hi", false), (b"\x02\0\0\0ho", true)] {
            match reader.read(&one_piece(&text(data))) {
                Ok(request) => assert_eq!(request.shape.inputs[0].elements_fit, fits),
                Err(Malformed(why)) => panic!("{why}"),
            }
        }
    }
}

#[test]
fn a_head_is_remembered_once_however_its_elements_fit() {
    let mut reader = Reader::new();
    for data in [b"\x02\0\0\0hi", b"\x01\0\0\0hi", b"\x01\0\0\0ho"] {
        let text = message().message(5, tensor("t", "BYTES", &[1])).bytes(7, data);
        assert!(reader.read(&one_piece(&text)).is_ok());
        assert_eq!(reader.heads.remembered(), 1);
    }
}

#[test]
fn raw_tensors_are_slices_of_the_message() {
    let message = plain("7", &[5; 100]);
    for chunks in [one_piece(&message), pieces(&message, 10)] {
        let ranges: Vec<_> = chunks.parts().iter().map(|part| part.as_ptr_range()).collect();
        let mut reader = Reader::new();
        for _ in 0..3 {
            match reader.read(&chunks) {
                Ok(request) => {
                    for part in request.inputs[0].parts() {
                        let at = part.as_ptr();
                        assert!(ranges.iter().any(|range| range.contains(&at)));
                    }
                }
                Err(Malformed(why)) => panic!("{why}"),
            }
        }
    }
}

#[test]
fn more_parts_than_anybody_needs_are_refused() {
    for (part, what) in
        [(&[0x2a, 0][..], "inputs"), (&[0x32, 0], "outputs"), (&[0x3a, 0], "raw_input_contents")]
    {
        let message = Chunks::from(Bytes::from(part.repeat(MAX_PARTS + 1)));
        let refused = Reader::new().read(&message).map(|_| ()).map_err(|Malformed(why)| why);
        assert_eq!(refused, Err(format!("a request may have 10000 {what}, this one has more")));
    }
}

#[test]
fn heads_that_never_come_again_leave_the_others_remembered() {
    let mut reader = Reader::new();
    let mut shape = |message: &Message| match reader.read(&one_piece(message)) {
        Ok(request) => request.shape,
        Err(Malformed(why)) => panic!("{why}"),
    };
    let typed = message().message(5, tensor("x", "INT8", &[1]).message(5, message().varint(2, 1)));
    let (known, known_typed) = (shape(&plain("", &[0; 16])), shape(&typed));
    for i in 0..20_000 {
        if i % 100 == 0 {
            assert!(Arc::ptr_eq(&known, &shape(&plain("", &[0; 16]))));
            assert!(Arc::ptr_eq(&known_typed, &shape(&typed)));
        }
        let never_again = parameter("request", message().varint(2, i));
        shape(&plain("", &[0; 16]).message(4, never_again));
    }
}

#[test]
fn heads_and_shapes_over_their_limits_are_read_every_time() {
    let long = "x".repeat(MAX_KEY_BYTES);
    accepted(&plain("7", &[0; 16]).message(4, parameter(&long, message().varint(1, 1))));
    let mut wide = message();
    for _ in 0..400 {
        wide = wide.message(5, message());
    }
    for _ in 0..400 {
        wide = wide.bytes(7, "");
    }
    let mut reader = Reader::new();
    for _ in 0..2 {
        match reader.read(&one_piece(&wide)) {
            Ok(request) => assert_eq!(request.shape.inputs.len(), 400),
            Err(Malformed(why)) => panic!("{why}"),
        }
        assert!(reader.scratch.capacity() <= MAX_SCRATCH_BYTES);
    }
}

/// A small generator of random numbers, splitmix64; the same numbers in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }

    fn pick<'a, T: ?Sized>(&mut self, among: &[&'a T]) -> &'a T {
        among[self.below(among.len() as u64) as usize]
    }

    fn request(&mut self) -> Message {
        let mut fields = Vec::new();
        for _ in 0..self.below(3) {
            fields.push(message().bytes(1, self.pick(&["m", "n", "long name"])));
        }
        for _ in 0..self.below(2) {
            fields.push(message().bytes(3, self.pick(&["", "1", "seven"])));
        }
        let inputs = self.below(4);
        for _ in 0..inputs {
            let datatype = self.pick(&["FP32", "INT8", "BYTES", "", "FP16"]);
            fields.push(message().message(5, tensor(self.pick(&["x", "y"]), datatype, &[1])));
        }
        let raw = if self.below(5) == 0 { self.below(4) } else { inputs };
        for _ in 0..raw {
            fields.push(message().bytes(7, self.pick(&[&b""[..], b"\0\0\0\0", &[9; 300]])));
        }
        for _ in 0..self.below(3) {
            let value = message().varint(2, self.below(4));
            fields.push(message().message(4, parameter(self.pick(&["a", "b"]), value)));
        }
        for _ in 0..self.below(3) {
            fields.push(message().message(6, message().bytes(1, self.pick(&["a", "b"]))));
        }
        let mut request = message();
        while !fields.is_empty() {
            let next = fields.swap_remove(self.below(fields.len() as u64) as usize);
            request = request.join(&next);
        }
        for _ in 0..self.below(3) {
            if self.below(4) == 0 && !request.0.is_empty() {
                let at = self.below(request.0.len() as u64) as usize;
                request.0[at] = self.below(256) as u8;
            }
        }
        request
    }
}

#[test]
fn what_came_before_and_how_it_is_cut_change_nothing() {
    let mut random = Random(1);
    let mut reader = Reader::new();
    let (mut good, mut bad) = (0, 0);
    for _ in 0..5_000 {
        let request = random.request();
        let cut = pieces(&request, 1 + random.below(40) as usize);
        let afresh = Reader::new().read(&one_piece(&request));
        for again in [reader.read(&cut), reader.read(&one_piece(&request))] {
            match (&afresh, &again) {
                (Ok(afresh), Ok(again)) => {
                    assert_eq!(said(afresh), said(again));
                    good += 1;
                }
                (Err(afresh), Err(again)) => {
                    assert_eq!(afresh, again);
                    bad += 1;
                }
                _ => panic!("{afresh:?} and {again:?}"),
            }
        }
    }
    assert!(good > 1_000 && bad > 1_000, "{good} good, {bad} bad");
}

#[test]
fn every_beginning_of_a_message_is_read_without_a_panic() {
    let whole = plain("7", &[1; 40])
        .message(5, tensor("t", "BYTES", &[1]).message(5, message().bytes(8, "abc")))
        .raw(b"\x7b\x7b\x08\x01\x7c\x7c");
    for end in 0..=whole.0.len() {
        let _ = read(&Message(whole.0[..end].to_vec()));
    }
    assert!(read(&whole).is_err());
}
