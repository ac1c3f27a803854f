//! A bare client for tests of the emulator: no retries, no redirects, nothing of the real client.
#![allow(dead_code, reason = "each test file uses a part")]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use onedrivefs::clock::SeededClock;
use onedrivefs::emulator::{
    Body, ConnectionReset, Control, Emulator, EmulatorConfig, Flavour, empty_body, full_body,
};
use serde_json::{Value, json};

pub const FLAVOURS: [Flavour; 4] =
    [Flavour::Personal, Flavour::PersonalNew, Flavour::Business, Flavour::DocumentLibrary];

/// 320 KiB.
pub const UNIT: usize = 320 << 10;

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    /// The JSON of an answer with this status.
    #[track_caller]
    pub fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// Asserts status and outer code of an error.
    #[track_caller]
    pub fn fails(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.json()["error"]["code"], code);
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|v| v.to_str().expect("ASCII")).unwrap_or_default()
    }
}

#[derive(Clone)]
pub struct Client {
    pub emulator: Emulator,
    /// Every exchange of [`Client::send`], for checks against the schema.
    pub transcript: Arc<Mutex<Vec<Value>>>,
}

/// A config with seeded clock; needs a tokio runtime.
pub fn config(flavour: Flavour) -> EmulatorConfig {
    EmulatorConfig { flavour, clock: Arc::new(SeededClock::with_seed(1)), ..EmulatorConfig::default() }
}

impl Client {
    pub fn new(flavour: Flavour) -> Self {
        Self::with(config(flavour))
    }

    pub fn with(config: EmulatorConfig) -> Self {
        let emulator = Emulator::new(config).expect("the emulator starts");
        Self { emulator, transcript: Arc::default() }
    }

    pub fn control(&self) -> Control {
        self.emulator.control()
    }

    pub async fn raw(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<Response<Body>, ConnectionReset> {
        let url = if url.starts_with("http") { url.to_owned() } else { format!("http://emu{url}") };
        let mut request = Request::builder().method(method).uri(url).body(body).expect("a valid request");
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).expect("a header name");
            request.headers_mut().append(name, HeaderValue::from_str(value).expect("a header value"));
        }
        self.emulator.handle(request).await
    }

    /// Sends exactly these headers.
    pub async fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let sent: Bytes = body.into();
        let response = self.raw(method, url, headers, full_body(sent.clone())).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        let json = |bytes: &Bytes| serde_json::from_slice::<Value>(bytes).unwrap_or(Value::Null);
        self.transcript.lock().expect("no test panics here").push(json!({
            "method": method, "url": url, "status": parts.status.as_u16(), "location": parts.headers.contains_key("location"),
            "request": json(&sent), "length": body.len(), "body": json(&body),
        }));
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// A Graph call with a token; `path` after `/v1.0`, or a whole URL.
    pub async fn graph(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("/v1.0{path}") };
        let mut all = vec![("authorization", "Bearer t")];
        all.extend_from_slice(headers);
        self.send(method, &url, &all, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.graph("GET", path, &[], "").await
    }

    pub async fn json(&self, method: &str, path: &str, body: Value) -> Answer {
        self.graph(method, path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn put(&self, path: &str, content: impl Into<Bytes>) -> Answer {
        self.graph("PUT", &format!("/me/drive/root:/{path}:/content"), &[], content).await
    }

    pub async fn mkdir(&self, parent: &str, name: &str) -> Answer {
        let body = json!({"name": name, "folder": {}, "@microsoft.graph.conflictBehavior": "fail"});
        self.json("POST", &format!("/me/drive/{parent}/children"), body).await
    }

    /// Follows the 302 of `/content` as a client must: without Authorization.
    pub async fn download(&self, path: &str) -> Answer {
        let redirect = self.get(&format!("/me/drive/{path}/content")).await;
        assert_eq!(redirect.status, 302, "{:?}", redirect.body);
        assert!(redirect.body.is_empty());
        self.send("GET", redirect.header("location"), &[], "").await
    }

    /// Creates a session by name; returns its URL.
    pub async fn session(&self, path: &str, item: Value) -> String {
        let answer = self
            .json("POST", &format!("/me/drive/root:/{path}:/createUploadSession"), json!({"item": item}))
            .await;
        answer.ok(200)["uploadUrl"].as_str().expect("a URL").to_owned()
    }

    pub async fn fragment(&self, url: &str, start: usize, data: &[u8], total: usize) -> Answer {
        let range = format!("bytes {start}-{}/{total}", start + data.len() - 1);
        self.send("PUT", url, &[("content-range", &range)], data.to_vec()).await
    }

    /// All entries of a round, and its deltaLink.
    pub async fn delta(&self, url: &str) -> (Vec<Value>, String) {
        let (mut all, mut url) = (Vec::new(), url.to_owned());
        loop {
            let page = self.get(&url).await.ok(200);
            all.extend(page["value"].as_array().expect("a page").iter().cloned());
            if let Some(link) = page["@odata.deltaLink"].as_str() {
                assert!(page.get("@odata.nextLink").is_none());
                return (all, link.to_owned());
            }
            url = page["@odata.nextLink"].as_str().expect("one of the two links").to_owned();
        }
    }
}

pub fn names(items: &[Value]) -> Vec<String> {
    items.iter().map(|i| i["name"].as_str().unwrap_or("-").to_owned()).collect()
}

pub fn nothing() -> Body {
    empty_body()
}
