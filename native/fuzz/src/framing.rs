//! The assembler of gRPC messages against a few lines that do the same to a stream in one piece.

use _native::grpc::framing::{Assembler, Bounds, PREFIX_BYTES};
use _native::transport::budget::Budget;
use bytes::Bytes;

/// What came of a stream: its messages (compressed, body), and whether it was refused.
type Outcome = (Vec<(bool, Vec<u8>)>, bool);

/// Check that a stream gives the messages that are in it however it is cut, and that what it takes from the
/// budget goes back. The first three bytes say how large messages and the budget may be.
///
/// # Panics
/// If it does not.
pub fn check_framing(input: &[u8]) {
    let Some((&[size, most, budget], stream)) = input.split_first_chunk() else {
        return;
    };
    let max_message_bytes = usize::from(most) * 64;
    let budget_bytes = max_message_bytes + usize::from(budget) * 64;
    let expected = reference(stream, max_message_bytes);
    for piece in [1 + usize::from(size), 1, 4096, stream.len().max(1)] {
        assert_eq!(assembled(stream, piece, max_message_bytes, budget_bytes), expected, "pieces of {piece}");
    }
}

fn reference(mut stream: &[u8], max_message_bytes: usize) -> Outcome {
    let mut found = Vec::new();
    while let Some((&[flag, a, b, c, d], rest)) = stream.split_first_chunk() {
        let size = u32::from_be_bytes([a, b, c, d]) as usize;
        if flag > 1 || size > max_message_bytes {
            return (found, true);
        }
        let Some((body, rest)) = rest.split_at_checked(size) else {
            break;
        };
        found.push((flag == 1, body.to_vec()));
        stream = rest;
    }
    (found, false)
}

/// Each message is given up before the next begins, so that the budget always has room for one.
fn assembled(stream: &[u8], piece: usize, max_message_bytes: usize, budget_bytes: usize) -> Outcome {
    let budget = Budget::new(budget_bytes);
    let bounds = Bounds { max_message_bytes, budget: &budget };
    let (mut assembler, mut found, mut refused) = (Assembler::default(), Vec::new(), false);
    'stream: for part in stream.chunks(piece) {
        let mut data = Bytes::copy_from_slice(part);
        loop {
            let before = data.len();
            match assembler.feed(&mut data, &bounds) {
                Ok(Some(message)) => {
                    let mut body = vec![0; message.body.len()];
                    message.body.copy_to(&mut body);
                    found.push((message.compressed, body));
                }
                Ok(None) => {
                    assert!(data.is_empty(), "without a message everything is taken");
                    break;
                }
                Err(_) => {
                    refused = true;
                    break 'stream;
                }
            }
            assert!(data.len() < before || before == 0, "it goes on");
            assert!(budget.held() == 0, "a message that is dropped holds nothing");
        }
    }
    let whole = found.iter().map(|(_, body)| body.len() + PREFIX_BYTES).sum::<usize>();
    assert!(refused || assembler.is_between() == (whole == stream.len()));
    drop(assembler);
    assert_eq!(budget.held(), 0);
    (found, refused)
}
