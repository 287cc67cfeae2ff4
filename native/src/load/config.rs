//! What a run is made of, as it comes in JSON.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::hpack::RequestHeaders;
use super::schedule::Mix;

const MAX_CONNECTIONS: usize = 4096;
const MAX_IN_FLIGHT: usize = 1 << 20;
const MAX_MESSAGE_BYTES: usize = u32::MAX as usize; // gRPC's prefix has four bytes for the length
const MAX_RATE_PER_S: f64 = 1e7;
const MAX_SECONDS: f64 = 7.0 * 86_400.0;
/// gRPC's, or HTTP/2's: a run cannot set them.
const RESERVED: [&str; 7] =
    ["te", "content-type", "connection", "transfer-encoding", "host", "content-length", "upgrade"];

/// The configuration cannot be used: why, naming the field.
#[derive(Debug, PartialEq)]
pub struct Invalid(pub String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mode {
    /// On every connection, so many requests are always in flight.
    Closed { streams: usize },
    /// Poisson arrivals, whatever the server does. What is due while `max_in_flight` are out waits; its latency
    /// still counts from when it was due.
    Open {
        rate_per_s: f64,
        #[serde(default = "default::max_in_flight")]
        max_in_flight: usize,
    },
}

/// One run. Shares are of all requests, from 0 to 1.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `host:port` or `unix:/path`, without TLS.
    pub target: String,
    #[serde(default = "default::method")]
    pub method: String,
    #[serde(default)]
    pub metadata: Vec<(String, String)>,
    pub mode: Mode,
    #[serde(default = "default::one")]
    pub connections: usize,
    #[serde(default = "default::one")]
    pub threads: usize,
    #[serde(default)]
    pub warm_up_s: f64,
    /// Of the window that counts, which begins after the warm-up. Either this or `requests`.
    #[serde(default)]
    pub duration_s: Option<f64>,
    /// How many requests count, instead of `duration_s`.
    #[serde(default)]
    pub requests: Option<u64>,
    /// How often each good body is sent, relative to the others; none: in rotation.
    #[serde(default)]
    pub weights: Option<Vec<f64>>,
    /// How many bodies, the last ones, are not what the server accepts.
    #[serde(default)]
    pub malformed_bodies: usize,
    #[serde(default)]
    pub malformed_share: f64,
    #[serde(default)]
    pub cancel_share: f64,
    /// Cancellations come at once (a quarter of them), or within this time of the request.
    #[serde(default = "default::cancel_within_ms")]
    pub cancel_within_ms: f64,
    /// Sent as grpc-timeout.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// After so long a request counts as not answered.
    #[serde(default = "default::answer_limit_s")]
    pub answer_limit_s: f64,
    #[serde(default = "default::connect_limit_s")]
    pub connect_limit_s: f64,
    /// The run fails after so long without any connection.
    #[serde(default = "default::reconnect_limit_s")]
    pub reconnect_limit_s: f64,
    #[serde(default)]
    pub seed: u64,
    /// How many answers, the first that are OK, are handed back.
    #[serde(default)]
    pub sample: usize,
}

mod default {
    pub fn method() -> String {
        "/inference.GRPCInferenceService/ModelInfer".into()
    }
    pub fn one() -> usize {
        1
    }
    pub fn max_in_flight() -> usize {
        1024
    }
    pub fn cancel_within_ms() -> f64 {
        5.0
    }
    pub fn answer_limit_s() -> f64 {
        30.0
    }
    pub fn connect_limit_s() -> f64 {
        5.0
    }
    pub fn reconnect_limit_s() -> f64 {
        10.0
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    Tcp(String),
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(address) => f.write_str(address),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A checked configuration, ready to run. Times are nanoseconds from the start of the run.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) target: Target,
    pub(super) framed: Vec<Bytes>, // the bodies with gRPC's prefix
    pub(super) mix: Mix,
    fields: Vec<(String, Vec<u8>)>,
    pub(super) window_start_ns: u64,
    /// The end of time where a number of requests ends the run.
    pub(super) window_end_ns: u64,
    pub(super) answer_limit_ns: u64,
}

impl Plan {
    /// Check a configuration and the messages to be sent.
    pub(super) fn new(config: Config, bodies: &[Bytes]) -> Result<Plan, Invalid> {
        check_numbers(&config)?;
        let good = bodies.len().checked_sub(config.malformed_bodies).filter(|good| *good > 0);
        let good = good.ok_or_else(|| {
            invalid(format_args!(
                "there are {} bodies, of which {} are malformed: none is good",
                bodies.len(),
                config.malformed_bodies
            ))
        })?;
        if config.malformed_share > 0.0 && config.malformed_bodies == 0 {
            return Err(invalid("malformed_share needs malformed_bodies"));
        }
        if let Some(large) = bodies.iter().find(|body| body.len() > MAX_MESSAGE_BYTES) {
            return Err(invalid(format_args!("a body of {} bytes is too large for gRPC", large.len())));
        }
        let ns = |seconds: f64| (seconds * 1e9) as u64;
        let window_start_ns = ns(config.warm_up_s);
        let window_end_ns = config.duration_s.map_or(u64::MAX, |duration| window_start_ns + ns(duration));
        // with a deadline the server has to say that it has passed, and has a second more to do so
        let deadline_s = config.timeout_ms.map_or(f64::MAX, |timeout| timeout as f64 / 1e3 + 1.0);
        Ok(Plan {
            target: target(&config.target)?,
            framed: bodies.iter().map(framed).collect(),
            mix: Mix {
                cancel_share: config.cancel_share,
                cancel_within_ns: ns(config.cancel_within_ms / 1e3),
                malformed_share: config.malformed_share,
                good,
                malformed: config.malformed_bodies,
                weights: running_sums(config.weights.as_deref(), good)?,
            },
            fields: fields(&config)?,
            window_start_ns,
            window_end_ns,
            answer_limit_ns: ns(config.answer_limit_s.min(deadline_s)),
            config,
        })
    }

    pub(super) fn headers(&self) -> RequestHeaders {
        let authority = match &self.target {
            Target::Tcp(address) => address,
            Target::Unix(_) => "localhost",
        };
        RequestHeaders::new(&self.config.method, authority, &self.fields)
    }

    pub(super) fn connect_limit(&self) -> Duration {
        Duration::from_secs_f64(self.config.connect_limit_s)
    }
}

fn invalid(why: impl fmt::Display) -> Invalid {
    Invalid(why.to_string())
}

fn check_numbers(config: &Config) -> Result<(), Invalid> {
    let seconds = [
        ("warm_up_s", config.warm_up_s, true),
        ("duration_s", config.duration_s.unwrap_or(1.0), false),
        ("cancel_within_ms", config.cancel_within_ms, true),
        ("answer_limit_s", config.answer_limit_s, false),
        ("connect_limit_s", config.connect_limit_s, false),
        ("reconnect_limit_s", config.reconnect_limit_s, false),
    ];
    for (name, value, may_be_zero) in seconds {
        if !(value > 0.0 || may_be_zero && value == 0.0) || value > MAX_SECONDS {
            return Err(invalid(format_args!(
                "{name} must be above 0 and at most {MAX_SECONDS}, not {value}"
            )));
        }
    }
    let shares = [config.cancel_share, config.malformed_share];
    if !shares.iter().all(|share| (0.0..=1.0).contains(share)) || shares.iter().sum::<f64>() > 1.0 {
        return Err(invalid("cancel_share and malformed_share must be from 0 to 1, also together"));
    }
    match (config.duration_s, config.requests) {
        (Some(_), None) | (None, Some(1..)) => {}
        (None, Some(0)) => return Err(invalid("requests must be at least 1")),
        _ => return Err(invalid("give either duration_s or requests")),
    }
    if !(1..=MAX_CONNECTIONS).contains(&config.connections) {
        return Err(invalid(format_args!("connections must be from 1 to {MAX_CONNECTIONS}")));
    }
    if !(1..=config.connections).contains(&config.threads) {
        return Err(invalid("threads must be from 1 to the number of connections"));
    }
    if config.timeout_ms == Some(0) {
        return Err(invalid("timeout_ms must be at least 1"));
    }
    match config.mode {
        Mode::Closed { streams } if !(1..=MAX_IN_FLIGHT / config.connections).contains(&streams) => {
            Err(invalid(format_args!("streams must be at least 1, and at most {MAX_IN_FLIGHT} in flight")))
        }
        Mode::Open { rate_per_s, .. } if !(rate_per_s > 0.0 && rate_per_s <= MAX_RATE_PER_S) => {
            Err(invalid(format_args!("rate_per_s must be above 0 and at most {MAX_RATE_PER_S}")))
        }
        Mode::Open { max_in_flight, .. } if !(config.threads..=MAX_IN_FLIGHT).contains(&max_in_flight) => {
            Err(invalid(format_args!("max_in_flight must be from {} to {MAX_IN_FLIGHT}", config.threads)))
        }
        _ => Ok(()),
    }
}

fn target(text: &str) -> Result<Target, Invalid> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        return if path.is_absolute() {
            Ok(Target::Unix(path))
        } else {
            Err(invalid(format_args!("target {text:?}: the path of a Unix socket must be absolute")))
        };
    }
    let wanted = || invalid(format_args!("target {text:?} is neither host:port nor unix:/path"));
    let (host, port) = text.rsplit_once(':').ok_or_else(wanted)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_host = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(plain),
    };
    if !is_host || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(wanted());
    }
    Ok(Target::Tcp(text.to_string()))
}

fn framed(body: &Bytes) -> Bytes {
    let mut framed = Vec::with_capacity(body.len() + 5);
    framed.push(0); // not compressed
    framed.extend_from_slice(&(body.len() as u32).to_be_bytes());
    framed.extend_from_slice(body);
    framed.into()
}

fn running_sums(weights: Option<&[f64]>, good: usize) -> Result<Vec<f64>, Invalid> {
    let Some(weights) = weights else { return Ok(Vec::new()) };
    let total: f64 = weights.iter().sum();
    if weights.len() != good
        || !weights.iter().all(|weight| *weight >= 0.0)
        || !(total > 0.0 && total.is_finite())
    {
        return Err(invalid(format_args!("weights must be {good} numbers, none below 0, one above")));
    }
    let sums = weights.iter().scan(0.0, |sum, weight| {
        *sum += weight / total;
        Some(*sum)
    });
    Ok(sums.collect())
}

/// The header fields of every request, after the pseudo-header fields.
fn fields(config: &Config) -> Result<Vec<(String, Vec<u8>)>, Invalid> {
    let path_is_plain = config.method.bytes().all(|byte| byte.is_ascii_graphic());
    if !config.method.starts_with('/') || !path_is_plain {
        return Err(invalid(format_args!(
            "method {:?} is no path such as /package.Service/Method",
            config.method
        )));
    }
    let mut fields = vec![
        ("te".to_string(), b"trailers".to_vec()),
        ("content-type".to_string(), b"application/grpc".to_vec()),
        ("user-agent".to_string(), concat!("crossgate-load/", env!("CARGO_PKG_VERSION")).as_bytes().to_vec()),
    ];
    if let Some(timeout_ms) = config.timeout_ms {
        fields.push(("grpc-timeout".to_string(), timeout(timeout_ms)?.into_bytes()));
    }
    for (name, value) in &config.metadata {
        let wrong = |why: &str| invalid(format_args!("metadata {name:?}: {why}"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("no name of a header"))?;
        if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("grpc-") {
            return Err(wrong("gRPC sets it itself"));
        }
        let value = HeaderValue::from_str(value).map_err(|_| wrong("its value is not visible ASCII"))?;
        fields.push((name.as_str().to_string(), value.as_bytes().to_vec()));
    }
    Ok(fields)
}

/// gRPC's grammar has eight digits.
fn timeout(timeout_ms: u64) -> Result<String, Invalid> {
    const MOST: u64 = 99_999_999;
    match (timeout_ms, timeout_ms / 1000) {
        (0..=MOST, _) => Ok(format!("{timeout_ms}m")),
        (_, seconds @ 0..=MOST) => Ok(format!("{seconds}S")),
        _ => Err(invalid("timeout_ms is longer than three years")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str, bodies: usize) -> Result<Plan, String> {
        let config: Config = serde_json::from_str(json).map_err(|error| error.to_string())?;
        Plan::new(config, &vec![Bytes::from_static(b"body"); bodies]).map_err(|error| error.0)
    }

    #[test]
    fn what_is_left_out_has_defaults() {
        let plan = plan(r#"{"target": "[::1]:80", "mode": {"open": {"rate_per_s": 5}}, "duration_s": 2}"#, 1)
            .unwrap();
        assert_eq!(plan.target, Target::Tcp("[::1]:80".into()));
        assert_eq!(plan.config.mode, Mode::Open { rate_per_s: 5.0, max_in_flight: 1024 });
        assert_eq!((plan.window_start_ns, plan.window_end_ns), (0, 2_000_000_000));
        assert_eq!(&plan.framed[0][..], b"\0\0\0\0\x04body");
        assert!(plan.fields.iter().any(|(name, value)| name == "te" && value == b"trailers"));
    }

    #[test]
    fn a_deadline_limits_how_long_an_answer_is_waited_for() {
        let json = r#"{"target": "unix:/run/a", "mode": {"closed": {"streams": 1}}, "requests": 3, "timeout_ms": 250}"#;
        let plan = plan(json, 1).unwrap();
        assert_eq!(plan.target, Target::Unix("/run/a".into()));
        assert_eq!((plan.window_end_ns, plan.answer_limit_ns), (u64::MAX, 1_250_000_000));
        assert!(plan.fields.contains(&("grpc-timeout".into(), b"250m".to_vec())));
        assert_eq!(timeout(100_000_000).unwrap(), "100000S");
    }

    #[test]
    fn a_wrong_configuration_is_refused_with_the_name_of_what_is_wrong() {
        let cases = [
            (r#""target": "here""#, 1, "target"),
            (r#""target": "http://here:1""#, 1, "target"),
            (r#""target": "here:0""#, 1, "target"),
            (r#""target": "unix:relative""#, 1, "absolute"),
            (r#""connections": 0"#, 1, "connections"),
            (r#""threads": 2"#, 1, "threads"),
            (r#""mode": {"closed": {"streams": 0}}"#, 1, "streams"),
            (r#""mode": {"open": {"rate_per_s": 0}}"#, 1, "rate_per_s"),
            (r#""mode": {"open": {"rate_per_s": 1, "max_in_flight": 0}}"#, 1, "max_in_flight"),
            (r#""mode": {"half": {}}"#, 1, "half"),
            (r#""duration_s": 0"#, 1, "duration_s"),
            (r#""requests": 5"#, 1, "either duration_s or requests"),
            (r#""duration_s": null, "requests": 0"#, 1, "requests"),
            (r#""warm_up_s": -1"#, 1, "warm_up_s"),
            (r#""cancel_share": 0.7, "malformed_share": 0.7, "malformed_bodies": 1"#, 2, "cancel_share"),
            (r#""malformed_share": 0.1"#, 1, "malformed_bodies"),
            (r#""malformed_bodies": 1"#, 1, "none is good"),
            (r#""seed": 1"#, 0, "bodies"),
            (r#""weights": [1, 2]"#, 1, "weights"),
            (r#""weights": [0]"#, 1, "weights"),
            (r#""method": "Infer""#, 1, "method"),
            (r#""metadata": [["te", "x"]]"#, 1, "te"),
            (r#""metadata": [["a b", "x"]]"#, 1, "a b"),
            (r#""metadata": [["a", "\n"]]"#, 1, "value"),
            (r#""timeout_ms": 0"#, 1, "timeout_ms"),
            (r#""timeout": 5"#, 1, "timeout"),
        ];
        for (change, bodies, named) in cases {
            let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(
                r#"{"target": "a:1", "mode": {"closed": {"streams": 1}}, "duration_s": 1}"#,
            )
            .unwrap();
            let changed: serde_json::Map<_, _> = serde_json::from_str(&format!("{{{change}}}")).unwrap();
            fields.extend(changed);
            let error = plan(&serde_json::to_string(&fields).unwrap(), bodies).unwrap_err();
            assert!(error.contains(named), "{change}: {error}");
        }
    }
}
