//! Runs against real servers in this process: one of the crate h2, and some that misbehave.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use serde_json::{json, Value};

use super::*;

/// What the server does with a request, by the number of those that it has seen before.
#[derive(Clone)]
struct Script {
    /// The whole server stands still before this one.
    stall: Option<(usize, Duration)>,
    /// The connection is dropped, or shut down gracefully, at this one.
    drop_at: Option<usize>,
    shut_down_at: Option<usize>,
    /// Nobody gets an answer.
    silent: bool,
    max_streams: Option<u32>,
    header_table_bytes: u32,
}

const ECHO: Script = Script {
    stall: None,
    drop_at: None,
    shut_down_at: None,
    silent: false,
    max_streams: None,
    header_table_bytes: 4096,
};

#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    connections: AtomicUsize,
    with_deadline: AtomicUsize,
    resets: AtomicUsize,
}

struct Server {
    address: String,
    seen: Arc<Seen>,
}

/// Echoes messages; those that begin with "bad" get INVALID_ARGUMENT. It ends with the test's process.
fn serve(script: Script) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Seen::default());
    let shared = seen.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::task::spawn_local(connection(socket, script.clone(), shared.clone()));
            }
        });
    });
    Server { address, seen }
}

async fn connection(socket: tokio::net::TcpStream, script: Script, seen: Arc<Seen>) {
    seen.connections.fetch_add(1, SeqCst);
    let mut settings = h2::server::Builder::new();
    if let Some(most) = script.max_streams {
        settings.max_concurrent_streams(most);
    }
    settings.header_table_size(script.header_table_bytes);
    let Ok(mut connection) = settings.handshake::<_, Bytes>(socket).await else { return };
    while let Some(Ok((request, response))) = connection.accept().await {
        let number = seen.requests.fetch_add(1, SeqCst);
        if let Some((_, pause)) = script.stall.filter(|(at, _)| *at == number) {
            thread::sleep(pause);
        }
        if script.drop_at == Some(number) {
            return;
        }
        if script.shut_down_at == Some(number) {
            connection.graceful_shutdown();
        }
        let (script, seen) = (script.clone(), seen.clone());
        tokio::task::spawn_local(async move {
            let now = seen.in_flight.fetch_add(1, SeqCst) + 1;
            seen.most_in_flight.fetch_max(now, SeqCst);
            if answer(request, response, &script, &seen).await.is_err() {
                seen.resets.fetch_add(1, SeqCst);
            }
            seen.in_flight.fetch_sub(1, SeqCst);
        });
    }
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut response: h2::server::SendResponse<Bytes>,
    script: &Script,
    seen: &Seen,
) -> Result<(), h2::Error> {
    assert_eq!(request.method(), http::Method::POST);
    assert_eq!(request.uri().path(), "/inference.GRPCInferenceService/ModelInfer");
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_string());
    assert_eq!(header("te").as_deref(), Some("trailers"));
    assert_eq!(header("content-type").as_deref(), Some("application/grpc"));
    seen.with_deadline.fetch_add(usize::from(header("grpc-timeout").is_some()), SeqCst);
    let mut body = request.into_body();
    let mut message = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        message.extend_from_slice(&part);
    }
    if script.silent {
        std::future::poll_fn(|context| response.poll_reset(context)).await?;
        return Ok(());
    }
    let head = http::Response::builder().header("content-type", "application/grpc");
    if message[5..].starts_with(b"bad") {
        let head = head.header("grpc-status", "3").header("grpc-message", "not%20accepted");
        response.send_response(head.body(()).unwrap(), true)?;
        return Ok(());
    }
    let mut stream = response.send_response(head.body(()).unwrap(), false)?;
    stream.send_data(message.freeze(), false)?;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    stream.send_trailers(trailers)
}

/// The configuration with these fields on top of a closed loop of one.
fn config(target: &str, fields: Value) -> Config {
    let mut all = json!({"target": target, "mode": {"closed": {"streams": 1}}});
    for (name, value) in fields.as_object().unwrap() {
        all[name] = value.clone();
    }
    serde_json::from_value(all).unwrap()
}

fn messages(texts: &[&'static str]) -> Vec<Bytes> {
    texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
}

fn measure(server: &Server, fields: Value, texts: &[&'static str]) -> Report {
    run(config(&server.address, fields), &messages(texts), &mut ()).unwrap().0
}

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(name, count)| ((*name).to_string(), *count)).collect()
}

#[test]
fn a_closed_loop_sends_exactly_what_it_counts() {
    let server = serve(ECHO);
    let fields = json!({
        "mode": {"closed": {"streams": 5}}, "connections": 3, "threads": 2, "requests": 3001, "sample": 7,
        "timeout_ms": 20000, "metadata": [["x-user", "someone"]],
    });
    let bodies = messages(&["first", "second one"]);
    let (report, samples) = run(config(&server.address, fields), &bodies, &mut ()).unwrap();
    assert_eq!(report.outcomes, counts(&[("OK", 3001)]));
    assert_eq!(
        (report.requests, report.unexpected, report.sent_in_all, report.ok_in_all),
        (3001, 0, 3001, 3001)
    );
    assert_eq!(server.seen.requests.load(SeqCst), 3001);
    assert_eq!(server.seen.with_deadline.load(SeqCst), 3001);
    assert_eq!(server.seen.connections.load(SeqCst), 3);
    assert!(server.seen.most_in_flight.load(SeqCst) <= 15);
    assert_eq!(samples.len(), 7);
    for (body, sample) in report.sampled_bodies.iter().zip(&samples) {
        assert_eq!(bodies[*body], sample);
    }
    let sizes: Vec<_> =
        report.bodies.iter().map(|body| (body.answer_bytes_min, body.answer_bytes_max)).collect();
    assert_eq!(sizes, [(Some(5), Some(5)), (Some(10), Some(10))]);
    let (first, second) = (report.bodies[0].ok, report.bodies[1].ok);
    assert!(first.abs_diff(second) <= 2, "in rotation: {first}, {second}");
    assert_eq!(report.sent_bytes, first * 10 + second * 15);
    assert_eq!(report.received_bytes, first * 5 + second * 10);
    let latency = report.latency_us.unwrap();
    assert_eq!(latency.count, 3001);
    assert!(0.0 < latency.p50 && latency.p50 <= latency.p99 && latency.p99 <= latency.max);
    assert!((report.requests_per_s * report.window_s - 3001.0).abs() < 0.5);
}

#[test]
fn only_the_window_after_the_warm_up_counts() {
    let server = serve(ECHO);
    let report = measure(&server, json!({"warm_up_s": 0.3, "duration_s": 0.5}), &["x"]);
    assert!(report.sent_in_all > report.requests);
    assert_eq!(report.sent_in_all as usize, server.seen.requests.load(SeqCst));
    assert_eq!(report.window_s, 0.5);
    assert!((report.requests_per_s * 0.5 - report.requests as f64).abs() <= 2.0);
    assert_eq!(report.series.iter().map(|second| second.second).collect::<Vec<_>>(), [0]);
    assert_eq!(report.latency_us.unwrap().count, report.requests);
}

#[test]
fn threads_without_a_request_of_their_own_end_too() {
    let server = serve(ECHO);
    let report = measure(&server, json!({"connections": 4, "threads": 4, "requests": 2}), &["x"]);
    assert_eq!(report.outcomes, counts(&[("OK", 2)]));
    assert_eq!(server.seen.requests.load(SeqCst), 2);
}

#[test]
fn the_seconds_of_a_run_add_up_to_it() {
    let server = serve(ECHO);
    let fields = json!({
        "mode": {"open": {"rate_per_s": 500}}, "connections": 2, "threads": 2, "warm_up_s": 0.5, "duration_s": 2.5,
    });
    let report = measure(&server, fields, &["x"]);
    assert_eq!(report.series.iter().map(|second| second.second).collect::<Vec<_>>(), [0, 1, 2]);
    let [first, second, half] = &report.series[..] else { panic!("{:?}", report.series) };
    let answered = first.requests_per_s + second.requests_per_s + half.requests_per_s / 2.0;
    let in_window = report.requests_per_s * 2.5;
    // answers of requests from before the window count in its first second
    assert!((answered - in_window).abs() < 20.0, "{answered} of {in_window}");
    assert!((150.0..350.0).contains(&(half.requests_per_s / 2.0)), "{half:?}");
}

#[test]
fn the_server_limits_how_many_streams_are_open() {
    let server = serve(Script { max_streams: Some(3), ..ECHO });
    let report = measure(&server, json!({"mode": {"closed": {"streams": 50}}, "requests": 500}), &["x"]);
    assert_eq!(report.outcomes, counts(&[("OK", 500)]));
    assert_eq!(report.connections.max_streams, Some(3));
    assert!(server.seen.most_in_flight.load(SeqCst) <= 3);
}

#[test]
fn bodies_larger_than_all_windows_arrive_whole() {
    let server = serve(Script { header_table_bytes: 0, ..ECHO });
    let large: Bytes = (0..700_000u32).map(|at| (at % 251) as u8).collect::<Vec<u8>>().into();
    let fields = json!({"mode": {"closed": {"streams": 4}}, "requests": 12, "sample": 12});
    let (report, samples) =
        run(config(&server.address, fields), std::slice::from_ref(&large), &mut ()).unwrap();
    assert_eq!(report.outcomes, counts(&[("OK", 12)]));
    assert!(samples.iter().all(|sample| *sample == large));
}

#[test]
fn cancelled_and_malformed_requests_are_counted_apart() {
    let server = serve(ECHO);
    let fields = json!({
        "mode": {"closed": {"streams": 8}}, "requests": 4000, "cancel_share": 0.2, "cancel_within_ms": 1,
        "malformed_share": 0.1, "malformed_bodies": 1, "seed": 3,
    });
    let first = measure(&server, fields.clone(), &["good", "bad"]);
    assert_eq!((first.requests, first.unexpected, first.warm_up.unexpected), (4000, 0, 0));
    assert!((300..500).contains(&first.malformed.sent), "{}", first.malformed.sent);
    assert_eq!(first.malformed.outcomes, counts(&[("INVALID_ARGUMENT", first.malformed.sent)]));
    let cancellations = |report: &Report| report.cancelled.sent + report.cancelled.answered_first;
    assert!((650..950).contains(&cancellations(&first)), "{}", cancellations(&first));
    assert!(first.cancelled.sent > 100, "at least those that are cancelled at once");
    assert_eq!(first.outcomes, counts(&[("OK", 4000 - first.malformed.sent - cancellations(&first))]));
    let again = measure(&server, fields, &["good", "bad"]);
    assert_eq!(again.malformed.sent, first.malformed.sent);
    assert_eq!(cancellations(&again), cancellations(&first));
}

#[test]
fn a_server_sees_every_cancellation() {
    let server = serve(Script { silent: true, ..ECHO });
    let fields = json!({"requests": 40, "cancel_share": 1, "cancel_within_ms": 2});
    let report = measure(&server, fields, &["x"]);
    assert_eq!((report.cancelled.sent, report.cancelled.answered_first, report.unexpected), (40, 0, 0));
    assert!(report.latency_us.is_none());
    let began = Instant::now();
    while server.seen.in_flight.load(SeqCst) > 0 {
        assert!(began.elapsed() < Duration::from_secs(10));
        thread::yield_now();
    }
}

#[test]
fn an_accepted_malformed_request_is_unexpected() {
    let server = serve(ECHO);
    let fields = json!({"requests": 50, "malformed_share": 1, "malformed_bodies": 1});
    let report = measure(&server, fields, &["good", "also good"]);
    assert_eq!((report.unexpected, report.malformed.rejected), (50, 0));
    assert_eq!(report.malformed.outcomes, counts(&[("OK", 50)]));
    assert!(report.outcomes.is_empty());
}

#[test]
fn refusals_are_named_with_the_servers_words() {
    let report = measure(&serve(ECHO), json!({"requests": 20}), &["bad"]);
    assert_eq!(report.outcomes, counts(&[("INVALID_ARGUMENT", 20)]));
    assert_eq!((report.unexpected, report.requests_per_s), (20, 0.0));
    assert_eq!((report.errors[0].message.as_str(), report.errors[0].count), ("not accepted", 20));
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let server = serve(ECHO);
    let fields = json!({
        "mode": {"open": {"rate_per_s": 2000, "max_in_flight": 10000}}, "connections": 2, "threads": 2, "warm_up_s": 0.2, "duration_s": 1,
    });
    let report = measure(&server, fields, &["x"]);
    assert!((1750..2250).contains(&report.requests), "{}", report.requests); // over five standard deviations
    assert_eq!(report.outcomes, counts(&[("OK", report.requests)]));
    let schedule = report.schedule.unwrap();
    assert_eq!((schedule.held_back, schedule.never_started), (0, 0));
}

#[test]
fn latency_counts_from_when_a_request_was_due() {
    let stall = Duration::from_millis(300);
    for max_in_flight in [1000, 10] {
        let server = serve(Script { stall: Some((300, stall)), ..ECHO });
        let fields = json!({
            "mode": {"open": {"rate_per_s": 1000, "max_in_flight": max_in_flight}}, "duration_s": 1, "seed": 5,
        });
        let report = measure(&server, fields, &["x"]);
        assert_eq!(report.outcomes, counts(&[("OK", report.requests)]));
        let latency = report.latency_us.unwrap();
        // 300 of 1,000 requests were due while it stood still; a closed loop would have sent one of them
        assert!(latency.p99 > 200e3, "{latency:?}");
        assert!(latency.p90 > 100e3, "{latency:?}");
        let schedule = report.schedule.unwrap();
        assert_eq!(schedule.held_back > 100, max_in_flight == 10, "{schedule:?}");
        assert!(schedule.late_starts > 100 || max_in_flight == 1000, "{schedule:?}");
    }
}

#[test]
fn a_lost_connection_is_made_again() {
    let server = serve(Script { drop_at: Some(100), ..ECHO });
    let report = measure(&server, json!({"mode": {"closed": {"streams": 4}}, "requests": 300}), &["x"]);
    let lost = report.outcomes["connection lost"];
    assert!((1..=4).contains(&lost), "{lost}");
    assert_eq!(report.outcomes["OK"], 300 - lost);
    assert_eq!((report.unexpected, report.connections.lost), (lost, 1));
    assert!(report.connections.last_failure.is_some());
    assert_eq!(server.seen.connections.load(SeqCst), 2);
}

#[test]
fn a_connection_that_the_server_shuts_down_is_replaced() {
    let server = serve(Script { shut_down_at: Some(100), ..ECHO });
    let report = measure(&server, json!({"mode": {"closed": {"streams": 4}}, "requests": 300}), &["x"]);
    assert_eq!(report.outcomes.values().sum::<u64>(), 300);
    assert!(report.outcomes["OK"] >= 296, "{:?}", report.outcomes);
    assert_eq!(server.seen.connections.load(SeqCst), 2);
}

#[test]
fn a_request_without_an_answer_ends_all_the_same() {
    let server = serve(Script { silent: true, ..ECHO });
    let fields = json!({"mode": {"closed": {"streams": 2}}, "duration_s": 0.1, "answer_limit_s": 0.2});
    let report = measure(&server, fields, &["x"]);
    assert_eq!(report.outcomes, counts(&[("no answer", 2)]));
    let fields = json!({
        "mode": {"open": {"rate_per_s": 500, "max_in_flight": 5}}, "duration_s": 0.2, "answer_limit_s": 0.2,
    });
    let report = measure(&server, fields, &["x"]);
    assert_eq!(report.outcomes, counts(&[("no answer", 5)]));
    assert!(report.schedule.unwrap().never_started > 50);
}

#[test]
fn no_connection_is_an_error_in_bounded_time() {
    fn fails(listener: TcpListener, answer: Option<&'static [u8]>) -> String {
        let address = listener.local_addr().unwrap().to_string();
        match answer {
            None => drop(listener),
            Some(answer) => {
                thread::spawn(move || {
                    let mut kept = Vec::new();
                    for socket in listener.incoming() {
                        let mut socket = socket.unwrap();
                        let _ = socket.read(&mut [0; 100]).and_then(|_| socket.write_all(answer));
                        kept.push(socket);
                    }
                });
            }
        }
        let began = Instant::now();
        // one of the threads that fails takes the other along
        let fields = json!({"requests": 1, "connections": 2, "threads": 2, "connect_limit_s": 0.3});
        let error = run(config(&address, fields), &messages(&["x"]), &mut ()).unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(10));
        assert!(error.to_string().contains(&address));
        error.to_string()
    }
    let bound = || TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(fails(bound(), None).contains("refused"));
    assert!(fails(bound(), Some(b"")).contains("did not answer as an HTTP/2 server"));
    assert!(fails(bound(), Some(b"HTTP/1.1 400 Bad Request\r\n\r\n")).contains("HTTP/1"));
    assert!(fails(bound(), Some(&[0; 9])).contains("SETTINGS"));
}

#[test]
fn a_server_that_does_not_come_back_ends_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        drop(listener);
        let mut settings = Vec::new();
        frame::Head { length: 0, kind: frame::SETTINGS, flags: 0, stream: 0 }.put(&mut settings);
        socket.write_all(&settings).unwrap();
        let _ = socket.read(&mut [0; 100]);
    });
    let fields = json!({"requests": 1000, "reconnect_limit_s": 0.3});
    let error = run(config(&address, fields), &messages(&["x"]), &mut ()).unwrap_err();
    assert!(error.to_string().contains("none came back"), "{error}");
}

#[test]
fn a_unix_socket_will_do() {
    let folder = std::env::temp_dir().join(format!("load-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let bridge = serve(ECHO);
    let address = bridge.address.clone();
    thread::spawn(move || {
        let (mut inner, _) = listener.accept().unwrap();
        let mut outer = std::net::TcpStream::connect(address).unwrap();
        let (mut from, mut to) = (inner.try_clone().unwrap(), outer.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from, &mut to));
        let _ = std::io::copy(&mut outer, &mut inner);
    });
    let target = format!("unix:{}", path.display());
    let ended = run(config(&target, json!({"requests": 10})), &messages(&["x"]), &mut ());
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(ended.unwrap().0.outcomes, counts(&[("OK", 10)]));
}

#[test]
fn the_observer_sees_every_second_and_may_end_the_run() {
    struct Counting(Vec<Snapshot>, usize);
    impl Observer for Counting {
        fn tick(&mut self) -> bool {
            true
        }
        fn progress(&mut self, snapshot: &Snapshot) -> bool {
            self.0.push(snapshot.clone());
            self.0.len() < self.1
        }
    }
    let server = serve(ECHO);
    let mut observer = Counting(Vec::new(), 2);
    let fields = json!({"warm_up_s": 1, "duration_s": 600, "mode": {"closed": {"streams": 3}}});
    let ended = run(config(&server.address, fields), &messages(&["x"]), &mut observer);
    assert!(matches!(ended, Err(Error::Stopped)));
    assert_eq!(observer.0.iter().map(|each| each.second).collect::<Vec<_>>(), [-1, 0]);
    assert!(observer.0.iter().all(|each| each.requests_per_s > 0.0 && each.p50_us < each.p99_us));
    assert_eq!(observer.0[1].in_flight, 3);
    let mut observer = Counting(Vec::new(), 9);
    run(config(&server.address, json!({"duration_s": 1})), &messages(&["x"]), &mut observer).unwrap();
    assert_eq!(observer.0.iter().map(|each| each.second).collect::<Vec<_>>(), [0], "and no empty one");
}

/// Bytes of a peer can do no more than break the connection.
#[test]
fn no_bytes_of_a_peer_make_it_panic() {
    use connection::Connection;
    use schedule::Kind;
    use streams::Ticket;

    let plan = Plan::new(config("a:1", json!({"requests": 1})), &messages(&["some message"])).unwrap();
    let mut random = 1u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as u32
    };
    let mut survived = 0;
    for _ in 0..20_000 {
        let mut connection = Connection::new(plan.headers());
        let mut finished = Vec::new();
        let mut input = vec![0, 0, 0, frame::SETTINGS, 0, 0, 0, 0, 0];
        connection.receive(&input, &mut finished).unwrap();
        for _ in 0..3 {
            let kind = Kind::Plain;
            let ticket = Ticket { intended_ns: 0, started_ns: 0, kind, body: 0, measured: true, keep: true };
            connection.start(ticket, &plan.framed[0]);
        }
        input.clear();
        for _ in 0..next() % 6 {
            let length = next() % 24;
            input.extend_from_slice(&length.to_be_bytes()[1..]);
            input.extend_from_slice(&[(next() % 11) as u8, next() as u8]);
            input.extend_from_slice(&(next() % 9).to_be_bytes());
            input.extend((0..length).map(|_| if next() % 2 == 0 { 0 } else { next() as u8 }));
        }
        survived += usize::from(connection.receive(&input, &mut finished).is_ok());
        connection.abandon(Outcome::Connection, &mut finished);
        assert_eq!((connection.in_flight(), finished.len()), (0, 3));
    }
    assert!(survived > 1000, "{survived}: the bytes are refused too early to prove anything");
}
