//! The transport over real sockets of this machine: what it does by itself, and what it must not do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::Request;
use onedrivefs::graph::transport::{HttpTransport, Lane, RawBody, Transport, TransportError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const CONTENT: Lane = Lane::Content { idle: Duration::from_secs(20) };

/// What a connection is answered, and whether it is closed then.
enum Then {
    Close(&'static str),
    Stay(&'static str),
}

type Requests = Arc<Mutex<Vec<String>>>;

/// Answers each connection with the next of `answers`.
async fn serve(answers: Vec<Then>) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        let mut open = Vec::new();
        for answer in answers {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let text = read_request(&mut socket).await;
            seen.lock().expect("unpoisoned").push(text);
            let (Then::Close(text) | Then::Stay(text)) = &answer;
            socket.write_all(text.as_bytes()).await.expect("written");
            if matches!(answer, Then::Stay(_)) {
                open.push(socket);
            }
        }
        std::future::pending::<()>().await;
    });
    (address, requests)
}

async fn read_request(socket: &mut tokio::net::TcpStream) -> String {
    let mut all = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = socket.read(&mut part).await.expect("readable");
        all.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&all).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = |line: &str| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok();
        if count == 0 || body.len() >= head.lines().find_map(length).unwrap_or(0) {
            return text;
        }
    }
}

fn request(method: &str, url: &str, body: &'static str) -> Request<Bytes> {
    Request::builder().method(method).uri(url).body(Bytes::from(body)).expect("a request")
}

async fn collect(mut body: RawBody) -> Result<Vec<u8>, TransportError> {
    let mut all = Vec::new();
    while let Some(chunk) = body.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

#[tokio::test]
async fn a_request_goes_out_as_it_is_and_its_answer_comes_back() {
    let (address, seen) =
        serve(vec![Then::Close("HTTP/1.1 201 Created\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello")]).await;
    let transport = HttpTransport::new().expect("a transport");
    let request = request("PUT", &format!("{address}/a%20b?c=%2F"), "body");
    let answer = transport.send(request, CONTENT).await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.headers()["x-a"].as_bytes()), (201, b"b".as_slice()));
    assert_eq!(collect(answer.into_body()).await.expect("a body"), b"hello");
    let seen = seen.lock().expect("unpoisoned").concat();
    assert!(seen.starts_with("PUT /a%20b?c=%2F HTTP/1.1\r\n") && seen.ends_with("\r\n\r\nbody"), "{seen}");
    assert!(seen.to_lowercase().contains("content-length: 4\r\n"), "{seen}");
    assert!(!seen.to_lowercase().contains("accept-encoding"), "{seen}");
}

#[tokio::test]
async fn redirects_and_refusals_are_answers() {
    let (address, seen) = serve(vec![
        Then::Close("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        Then::Close("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    ])
    .await;
    let transport = HttpTransport::new().expect("a transport");
    for status in [302, 503] {
        let answer = transport.send(request("GET", &address, ""), Lane::Metadata).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status);
    }
    assert_eq!(seen.lock().expect("unpoisoned").len(), 2, "each was asked for once");
}

#[tokio::test]
async fn a_port_nobody_listens_at_is_known_not_to_have_got_the_request() {
    let transport = HttpTransport::new().expect("a transport");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let url = format!("http://127.0.0.1:{port}/?token=hush");
    for lane in [Lane::Metadata, CONTENT] {
        let error = transport.send(request("POST", &url, "x"), lane).await.err().expect("nobody is there");
        assert!(matches!(error, TransportError::NotSent(_)), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("hush"));
    }
}

#[tokio::test]
async fn a_connection_that_ends_without_an_answer_leaves_the_outcome_open() {
    let (address, _) = serve(vec![Then::Close("")]).await;
    let transport = HttpTransport::new().expect("a transport");
    let error =
        transport.send(request("POST", &address, "x"), Lane::Metadata).await.err().expect("no answer");
    assert!(matches!(error, TransportError::Broken(_)), "{error:?}");
}

#[tokio::test]
async fn a_body_that_ends_early_is_an_error() {
    let (address, _) = serve(vec![Then::Close("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")]).await;
    let transport = HttpTransport::new().expect("a transport");
    let answer = transport.send(request("GET", &address, ""), CONTENT).await.expect("an answer");
    assert!(matches!(collect(answer.into_body()).await, Err(TransportError::Broken(_))));
}

#[tokio::test]
async fn a_transfer_in_which_nothing_moves_is_given_up() {
    let (address, _) = serve(vec![Then::Stay("")]).await;
    let transport = HttpTransport::new().expect("a transport");
    let lane = Lane::Content { idle: Duration::from_millis(50) };
    let error = transport.send(request("PUT", &address, "x"), lane).await.err().expect("no answer");
    assert!(matches!(error, TransportError::Stalled), "{error:?}");
}

#[tokio::test]
async fn the_client_works_over_sockets_as_it_does_in_process() {
    use onedrivefs::emulator::{Emulator, EmulatorConfig};
    use onedrivefs::graph::*;

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let graph_url = format!("http://{}", listener.local_addr().expect("an address"));
    let emulator = Emulator::new(EmulatorConfig::default()).expect("an emulator");
    let serving = emulator.clone();
    tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });

    let config = GraphConfig { graph_url: graph_url.parse().expect("an address"), ..GraphConfig::default() };
    let transport = Arc::new(HttpTransport::new().expect("a transport"));
    let tokens = Arc::new(onedrivefs::auth::StaticToken::new("t"));
    let clock = Arc::new(onedrivefs::clock::SystemClock);
    let graph = Graph::new(config, transport, tokens, clock).expect("a client");

    let drive = graph.own_drive().await.expect("a drive").id;
    let root = graph.root(&drive, Priority::Interactive).await.expect("a root").id;
    let target =
        UploadTarget::New { parent: root.clone(), name: "b".into(), conflict: ConflictBehavior::Fail };
    let content: Bytes = (0..3_000_000usize).map(|index| (index % 251) as u8).collect();
    let total = content.len() as u64;
    let spec = SessionSpec { size: total, ..SessionSpec::default() };
    let session = graph.create_session(&drive, &target, &spec).await.expect("a session");
    let mut next = session.next;
    while next < total {
        let end = next + fragment_len(next, total, 1 << 20, FRAGMENT_UNIT);
        let part = content.slice(next as usize..end as usize);
        next = match graph.put_fragment(&session.url, next, total, part).await.expect("taken") {
            FragmentOutcome::More { next } => next,
            FragmentOutcome::Done(_) => total,
        };
    }
    let item = graph.child(&drive, &root, "b", Priority::Interactive).await.expect("there");
    let url = item.download_url.expect("an address");
    let mut body = graph.download(&url, None, Priority::Interactive).await.expect("begun").body;
    let mut read = Vec::new();
    while let Some(chunk) = body.next().await {
        read.extend_from_slice(&chunk.expect("a part"));
    }
    assert_eq!(read, content);
    graph.delete(&drive, &item.id, None).await.expect("deleted");
    let page = graph.delta(&drive, &DeltaFrom::Start, Priority::Enumeration).await.expect("a page");
    assert!(page.items.iter().all(|found| found.id != item.id || found.deleted));
}
