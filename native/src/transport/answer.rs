//! How answers are written in HTTP/2.

use h2::server::SendResponse;
use h2::SendStream;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::Response;

use super::payload::Payload;
use super::stream::Stream;
use crate::grpc::status::{self, percent_encoded, Status};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// What may be sent instead, for callers whose encoding is not offered.
const GRPC_ACCEPT: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

pub fn missing() -> Status {
    Status::new(status::INTERNAL, "the request has no message")
}

/// Return what to send a stream's messages by; sends the response's head first if that is still to be done.
pub fn begin(stream: &mut Stream, ok: &HeaderMap) -> Option<SendStream<Payload>> {
    if let Some(send) = stream.send.take() {
        return Some(send);
    }
    let mut response = Response::new(());
    *response.headers_mut() = ok.clone();
    stream.respond.take()?.send_response(response, false).ok()
}

/// Answer with an error and nothing else.
pub fn respond_with(
    respond: &mut SendResponse<Payload>,
    ok: &HeaderMap,
    status: &Status,
    trailing: &HeaderMap,
) {
    let mut response = Response::new(());
    let mut headers = bad(status, trailing);
    headers.extend(ok.clone());
    *response.headers_mut() = headers;
    let _ = respond.send_response(response, true);
}

pub fn good(trailing: &HeaderMap) -> HeaderMap {
    let mut trailers = trailing.clone();
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

pub fn bad(status: &Status, trailing: &HeaderMap) -> HeaderMap {
    let mut trailers = trailing.clone();
    trailers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status.code)));
    if !status.message.is_empty() {
        if let Ok(value) = HeaderValue::from_str(&percent_encoded(&status.message)) {
            trailers.insert(GRPC_MESSAGE, value);
        }
    }
    if status.code == status::UNIMPLEMENTED {
        trailers.insert(GRPC_ACCEPT, HeaderValue::from_static("identity,deflate,gzip"));
    }
    if let Some(ms) = status.pushback_ms {
        trailers.insert(GRPC_PUSHBACK, HeaderValue::from(ms));
    }
    trailers
}
