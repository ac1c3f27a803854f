//! The channel on which the service says that a drive changed (graph-api 10.2): a WebSocket that nobody but the service
//! writes to of its own accord. It says that something changed, never what: a round of delta follows.

mod protocol;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request, StatusCode, header};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use url::Url;

use self::protocol::{Session, Step};
use super::call::offline;
use super::error::{GraphError, Ids, Result};
use super::transport::RawSocket;
use super::{Graph, url as addresses};
use crate::model::{DriveId, Timestamp};

pub use protocol::End;

/// How long connecting, and sending one message, may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest message that is taken in, in bytes.
const MAX_MESSAGE: usize = 1 << 20;

/// What a channel told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushEvent {
    /// From now on changes are told; what happened before may not have been.
    Joined,
    /// Something changed.
    Changed,
}

/// An open channel. Dropping it closes the connection.
pub struct Push {
    socket: WebSocketStream<RawSocket>,
    session: Session,
    todo: VecDeque<Step>,
    /// When the service ends it, where told.
    pub expires: Option<Timestamp>,
}

impl fmt::Debug for Push {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Push({:?})", self.session)
    }
}

impl Graph {
    /// Opens the channel of `drive`.
    ///
    /// `Unsupported`, `NotFound`: not offered, at least not now. Takes one request and one connection, to a host of the
    /// service's choice, without the account's token. Cancel-safe: dropping the future closes what was opened.
    pub async fn open_push(&self, drive: &DriveId) -> Result<Push> {
        let channel = self.push_channel(drive).await?;
        let address = socket_address(channel.expose())?;
        let mut nonce = [0; 16];
        self.inner.clock.random(&mut nonce);
        let key = STANDARD.encode(nonce);
        let request = self.switch_request(&address, &key)?;
        self.inner.counters.sent(0);
        let answer = timeout(PATIENCE, self.inner.transport.switch(request)).await;
        let answer = answer
            .map_err(|_| GraphError::Deadline { sent: false })?
            .map_err(|error| offline(error, false))?;
        let accepted = answer.headers().get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        let agreed = answer.status() == StatusCode::SWITCHING_PROTOCOLS
            && accepted == Some(derive_accept_key(key.as_bytes()).as_bytes());
        let ids = Ids::new(answer.status().as_u16(), None, None);
        let socket = answer.into_body().filter(|_| agreed).ok_or(GraphError::Unsupported { ids })?;
        let config =
            WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        Ok(Push {
            socket: WebSocketStream::from_raw_socket(socket, Role::Client, Some(config)).await,
            session: Session::new(Instant::now()),
            todo: VecDeque::new(),
            expires: channel.expires,
        })
    }

    fn switch_request(&self, address: &Url, key: &str) -> Result<Request<Bytes>> {
        Request::get(address.as_str())
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, key)
            .header(header::USER_AGENT, &self.inner.config.user_agent)
            .body(Bytes::new())
            .map_err(|_| nonsense("a channel whose address cannot be asked for"))
    }
}

impl Push {
    /// Waits for what the channel tells next. After an `Err` nothing more comes.
    ///
    /// Not cancel-safe towards the service: drop the channel with the future.
    pub async fn next(&mut self) -> std::result::Result<PushEvent, End> {
        loop {
            match self.todo.pop_front() {
                Some(Step::Send(text)) => self.send(text).await?,
                Some(Step::Joined) => return Ok(PushEvent::Joined),
                Some(Step::Changed) => return Ok(PushEvent::Changed),
                Some(Step::End(end)) => return Err(end),
                None => self.todo = self.listen().await?,
            }
        }
    }

    async fn send(&mut self, text: &'static str) -> std::result::Result<(), End> {
        let sending = self.socket.send(Message::text(text));
        timeout(PATIENCE, sending).await.map_err(|_| End::Silent)?.map_err(|_| End::Lost)
    }

    async fn listen(&mut self) -> std::result::Result<VecDeque<Step>, End> {
        let message = tokio::select! {
            biased;
            message = self.socket.next() => message.and_then(std::result::Result::ok).ok_or(End::Lost)?,
            () = sleep_until(self.session.wake_at()) => return Ok(self.session.tick(Instant::now())),
        };
        match message {
            Message::Text(text) => Ok(self.session.heard(Instant::now(), &text)),
            Message::Close(_) => Err(End::Lost),
            // Pings of the WebSocket itself are answered by the library, with the next message.
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                Ok(VecDeque::new())
            }
        }
    }
}

/// Where the WebSocket is: the host and the query of the notification address, at a path of its own.
fn socket_address(notification: &str) -> Result<Url> {
    let mut address = Url::parse(notification).map_err(|_| nonsense("a channel whose address is none"))?;
    let plain = match address.scheme() {
        "wss" => Some("https"),
        "ws" => Some("http"),
        _ => None,
    };
    if let Some(plain) = plain {
        address.set_scheme(plain).map_err(|()| nonsense("a channel whose address is none"))?;
    }
    addresses::check_encrypted(&address)?;
    let own = "EIO=4&transport=websocket";
    let query = address.query().map_or_else(|| own.to_owned(), |query| format!("{own}&{query}"));
    address.set_path("/socket.io/");
    address.set_query(Some(&query));
    address.set_fragment(None);
    Ok(address)
}

fn nonsense(what: &'static str) -> GraphError {
    GraphError::Protocol { what, executed: false, ids: Ids::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_on_the_host_of_the_notification_address_with_its_query() {
        for (given, expected) in [
            (
                "https://eu.push.svc.ms/notifications?token=a%2Bb&applicationId=c",
                "https://eu.push.svc.ms/socket.io/?EIO=4&transport=websocket&token=a%2Bb&applicationId=c",
            ),
            ("wss://host:444/x", "https://host:444/socket.io/?EIO=4&transport=websocket"),
            ("http://127.0.0.1:80/n?a=b#c", "http://127.0.0.1/socket.io/?EIO=4&transport=websocket&a=b"),
        ] {
            assert_eq!(socket_address(given).expect("an address").as_str(), expected);
        }
        for bad in ["http://push.svc.ms/n", "ws://push.svc.ms/n", "no address", "ftp://host/n"] {
            assert!(socket_address(bad).is_err(), "{bad}");
        }
    }
}
