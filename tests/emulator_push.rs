//! The push channel and compressed answers, over TCP (graph-api 10.2, 11.6).

mod emulator_support;

use std::net::SocketAddr;

use onedrivefs::emulator::{Edit, Emulator, EmulatorConfig, Flavour, Seed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn start() -> (Emulator, SocketAddr) {
    let config =
        EmulatorConfig { flavour: Flavour::Business, seed: Seed::Sample, ..EmulatorConfig::default() };
    let emulator = Emulator::new(config).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = emulator.clone();
    tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
    (emulator, address)
}

/// A WebSocket client of a few lines.
struct Socket(TcpStream);

impl Socket {
    async fn open(address: SocketAddr, target: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET {target} HTTP/1.1\r\nhost: emu\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        // The example of RFC 6455, section 1.3.
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        Self(stream)
    }

    async fn receive(&mut self) -> String {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).await.unwrap();
        let length = match head[1] {
            126 => usize::from(self.0.read_u16().await.unwrap()),
            n => usize::from(n),
        };
        let mut data = vec![0; length];
        self.0.read_exact(&mut data).await.unwrap();
        String::from_utf8(data).unwrap()
    }

    async fn send(&mut self, text: &str) {
        let mut frame = vec![0x81, 0x80 | text.len() as u8, 9, 8, 7, 6];
        frame.extend(text.bytes().zip([9, 8, 7, 6].into_iter().cycle()).map(|(b, m)| b ^ m));
        self.0.write_all(&frame).await.unwrap();
    }
}

/// An HTTP/1.1 GET with the connection closed after it.
async fn get(address: SocketAddr, path: &str, extra: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: emu\r\nauthorization: Bearer t\r\nconnection: close\r\n{extra}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn a_change_wakes_who_joined_the_channel() {
    let (emulator, address) = start().await;
    let answer = get(address, "/v1.0/me/drive/root/subscriptions/socketIo", "").await;
    let answer = String::from_utf8(answer).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let url = body["notificationUrl"].as_str().unwrap();
    let query = url.split_once('?').unwrap().1;
    let target = format!("/socket.io/?EIO=4&transport=websocket&{query}");
    for (namespace, prefix, as_string) in [("/notifications", "42/notifications,", false), ("", "42[", true)]
    {
        emulator.control().switch(|s| s.socket_io_string_payload = as_string);
        let mut socket = Socket::open(address, &target).await;
        assert!(socket.receive().await.starts_with("0{"));
        socket.send(&format!("40{namespace}")).await;
        assert!(socket.receive().await.starts_with(&format!("40{namespace}")));
        let edit = Edit::Write { path: "pushed".into(), content: namespace.into() };
        emulator.control().edit_as_other(&edit).unwrap();
        let event = socket.receive().await;
        assert!(event.starts_with(prefix), "{event}");
        assert_eq!(event.contains(r#"\"value\""#), as_string, "{event}");
        emulator.control().close_push();
        assert_eq!(socket.receive().await, "41");
    }
    let wrong = get(address, "/socket.io/?EIO=3&transport=websocket", "").await;
    assert!(wrong.starts_with(b"HTTP/1.1 400"));
}

#[tokio::test]
async fn a_listing_is_compressed_for_who_accepts_it() {
    let (_, address) = start().await;
    let plain = get(address, "/v1.0/me/drive/root/children", "").await;
    let small = get(address, "/v1.0/me/drive/root/children", "accept-encoding: gzip\r\n").await;
    assert!(small.len() < plain.len() / 2, "{} {}", small.len(), plain.len());
    assert!(String::from_utf8_lossy(&small).contains("content-encoding: gzip"));
}
