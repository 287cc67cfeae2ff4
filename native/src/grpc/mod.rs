//! gRPC over HTTP/2: message framing, the request's head, the answer's encoding.

pub mod framing;
pub mod head;
pub mod inflate;
pub mod response;
pub mod status;
