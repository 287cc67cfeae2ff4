//! What a request says before its first message.

use http::HeaderMap;

use super::status::{self, Status};

/// How the messages of a stream may be compressed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

/// Return the time limit of a request in nanoseconds, None without one.
pub fn timeout_ns(headers: &HeaderMap) -> Result<Option<u64>, Status> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let text = value.as_bytes();
    let refused = || {
        let shown: String = String::from_utf8_lossy(text).chars().take(32).collect();
        Status::new(status::INTERNAL, format!("grpc-timeout {shown:?} is not up to 8 digits and a unit"))
    };
    let Some((unit, digits)) = text.split_last() else {
        return Err(refused());
    };
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(refused());
    }
    let amount = digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let unit_ns = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return Err(refused()),
    };
    Ok(Some(amount.saturating_mul(unit_ns)))
}

/// Return how messages with the compressed flag are compressed.
pub fn encoding(headers: &HeaderMap) -> Result<Encoding, Status> {
    match headers.get("grpc-encoding").map(|value| value.as_bytes()) {
        None | Some(b"identity") => Ok(Encoding::Identity),
        Some(b"gzip") => Ok(Encoding::Gzip),
        Some(b"deflate") => Ok(Encoding::Deflate),
        Some(other) => {
            let shown: String = String::from_utf8_lossy(other).chars().take(32).collect();
            let message =
                format!("grpc-encoding {shown:?} is not offered; there are identity, gzip and deflate");
            Err(Status::new(status::UNIMPLEMENTED, message))
        }
    }
}

/// Whether a header is a caller's own metadata, as text.
pub fn is_metadata(name: &str) -> bool {
    !(name.starts_with("grpc-") || name.ends_with("-bin") || name == "te" || name == "content-type")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, http::HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn timeouts_are_read_in_every_unit() {
        let cases = [("1H", 3_600_000_000_000), ("2M", 120_000_000_000), ("3S", 3_000_000_000)];
        for (text, ns) in
            cases.into_iter().chain([("99999999m", 99_999_999_000_000), ("5u", 5_000), ("7n", 7)])
        {
            assert_eq!(timeout_ns(&with("grpc-timeout", text)), Ok(Some(ns)), "{text}");
        }
        assert_eq!(timeout_ns(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn what_is_no_timeout_is_refused() {
        for text in ["", "S", "5", "-1S", "1.5S", "123456789S", "1x", "1 S"] {
            assert!(timeout_ns(&with("grpc-timeout", text)).is_err(), "{text}");
        }
    }

    #[test]
    fn unknown_encodings_are_not_offered() {
        assert_eq!(encoding(&HeaderMap::new()), Ok(Encoding::Identity));
        assert_eq!(encoding(&with("grpc-encoding", "gzip")), Ok(Encoding::Gzip));
        let refused = encoding(&with("grpc-encoding", "snappy")).map_err(|status| status.code);
        assert_eq!(refused, Err(status::UNIMPLEMENTED));
    }
}
