//! Engine.IO 4 and Socket.IO as far as the service speaks them (graph-api 10.2): one pure state machine, which is told
//! what was heard and what time it is, and says what to do.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

/// How long the other side may take to say hello.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// What is believed of the times that the other side gives.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// Times of a server that gives none.
const PING_INTERVAL: Duration = Duration::from_secs(25);
const PING_TIMEOUT: Duration = Duration::from_secs(60);
/// The namespace that clients derive from the path of the notification address.
const JOIN: &str = "40/notifications";
const JOIN_DEFAULT: &str = "40";
const PING: &str = "2";
const PONG: &str = "3";
/// The one event that means anything.
const EVENT: &str = "notification";

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this message.
    Send(&'static str),
    /// From now on changes are told.
    Joined,
    /// Something in the drive changed.
    Changed,
    /// No more will come: get a new address and connect again.
    End(End),
}

/// Why a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The connection was closed or broke.
    #[error("the connection ended")]
    Lost,
    /// The service said that it is over.
    #[error("the service ended it")]
    Dismissed,
    /// The service did not let us in.
    #[error("the service refused it")]
    Refused,
    /// Nothing was heard for longer than was agreed.
    #[error("the service fell silent")]
    Silent,
}

/// One connection, from hello to end.
#[derive(Debug)]
pub struct Session {
    pace: Option<Pace>,
    heard: Instant,
    joined: bool,
    server_pings: bool,
    own_ping: Instant,
}

/// How often the service pings, and how long it may be late.
#[derive(Clone, Copy, Debug)]
struct Pace {
    interval: Duration,
    timeout: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hello {
    ping_interval: Option<u64>,
    ping_timeout: Option<u64>,
}

impl Session {
    /// A connection that was made just now.
    pub fn new(now: Instant) -> Self {
        Self { pace: None, heard: now, joined: false, server_pings: false, own_ping: now }
    }

    /// Takes one message in.
    pub fn heard(&mut self, now: Instant, text: &str) -> VecDeque<Step> {
        self.heard = now;
        let mut characters = text.chars();
        let steps = match (characters.next(), characters.next()) {
            (Some('0'), _) => self.opened(now, &text[1..]),
            (Some('1'), _) => vec![Step::End(End::Dismissed)],
            (Some('2'), _) => {
                self.server_pings = true;
                vec![Step::Send(PONG)]
            }
            (Some('4'), Some('0')) if !std::mem::replace(&mut self.joined, true) => vec![Step::Joined],
            (Some('4'), Some('1')) => vec![Step::End(End::Dismissed)],
            (Some('4'), Some('2')) if is_notification(&text[2..]) => vec![Step::Changed],
            (Some('4'), Some('4')) => vec![Step::End(End::Refused)],
            // Pongs, further namespaces, other events, and what later versions may say.
            _ => Vec::new(),
        };
        steps.into()
    }

    /// When [`Session::tick`] must be called if nothing is heard before.
    pub fn wake_at(&self) -> Instant {
        match self.pace {
            Some(_) if !self.server_pings => self.silent_at().min(self.own_ping),
            _ => self.silent_at(),
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) -> VecDeque<Step> {
        let mut steps = VecDeque::new();
        if now >= self.silent_at() {
            steps.push_back(Step::End(End::Silent));
        } else if let Some(pace) = self.pace.filter(|_| !self.server_pings && now >= self.own_ping) {
            self.own_ping = now + pace.interval;
            steps.push_back(Step::Send(PING));
        }
        steps
    }

    fn opened(&mut self, now: Instant, hello: &str) -> Vec<Step> {
        let hello = serde_json::from_str(hello).unwrap_or(Hello { ping_interval: None, ping_timeout: None });
        let within = |millis: Option<u64>, otherwise| {
            millis.map_or(otherwise, Duration::from_millis).clamp(SHORTEST, LONGEST)
        };
        let pace = Pace {
            interval: within(hello.ping_interval, PING_INTERVAL),
            timeout: within(hello.ping_timeout, PING_TIMEOUT),
        };
        // In version 3 of the protocol the client pings. A server of version 4 has pinged long before this, and would
        // take a ping of ours for nonsense.
        self.own_ping = now + pace.interval + pace.timeout / 2;
        self.pace = Some(pace);
        vec![Step::Send(JOIN_DEFAULT), Step::Send(JOIN)]
    }

    fn silent_at(&self) -> Instant {
        self.heard + self.pace.map_or(OPEN_TIMEOUT, |pace| pace.interval + pace.timeout)
    }
}

/// Whether the rest of an event message (`/namespace,17["name",…]`) is the event that says "changed". What it carries is
/// not looked at: a string of JSON or an object, it never says what changed. An event that cannot be read may be it.
fn is_notification(rest: &str) -> bool {
    let rest = match rest.strip_prefix('/') {
        Some(named) => named.split_once(',').map_or("", |(_, rest)| rest),
        None => rest,
    };
    let rest = rest.trim_start_matches(|character: char| character.is_ascii_digit());
    match serde_json::from_str::<Vec<Value>>(rest) {
        Ok(parts) => parts.first().and_then(Value::as_str) == Some(EVENT),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = r#"0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":60000}"#;

    fn opened() -> (Session, Instant) {
        let now = Instant::now();
        let mut session = Session::new(now);
        session.heard(now, HELLO);
        (session, now)
    }

    #[test]
    fn a_hello_is_answered_by_joining_and_a_join_is_told_once() {
        let now = Instant::now();
        let mut session = Session::new(now);
        assert_eq!(session.heard(now, HELLO), [Step::Send("40"), Step::Send("40/notifications")]);
        assert_eq!(session.heard(now, r#"40{"sid":"a"}"#), [Step::Joined]);
        assert_eq!(session.heard(now, r#"40/notifications,{"sid":"a"}"#), []);
        let (mut session, now) = opened();
        assert_eq!(session.heard(now, "40/notifications,"), [Step::Joined], "without a body");
    }

    #[test]
    fn every_form_of_the_event_is_a_change_and_no_other_event_is() {
        let (mut session, now) = opened();
        for text in [
            r#"42/notifications,["notification","{\"value\":[]}"]"#,
            r#"42/notifications,["notification",{"value":[]}]"#,
            r#"42["notification",{}]"#,
            r#"42/notifications,17["notification"]"#,
            "42/notifications,[broken",
        ] {
            assert_eq!(session.heard(now, text), [Step::Changed], "{text}");
        }
        for text in [r#"42["hello"]"#, "42[]", "6", "3", "451-[\"x\"]", "", "ü", "4", "9"] {
            assert_eq!(session.heard(now, text), [], "{text}");
        }
    }

    #[test]
    fn each_end_is_told_apart() {
        for (text, end) in [
            ("41", End::Dismissed),
            ("41/notifications,", End::Dismissed),
            ("1", End::Dismissed),
            (r#"44/notifications,{"message":"Invalid namespace"}"#, End::Refused),
        ] {
            let (mut session, now) = opened();
            assert_eq!(session.heard(now, text), [Step::End(end)], "{text}");
        }
    }

    #[test]
    fn pings_are_answered_and_silence_ends_the_channel() {
        let (mut session, now) = opened();
        let later = now + Duration::from_secs(25);
        assert_eq!(session.heard(later, "2"), [Step::Send("3")]);
        assert_eq!(session.wake_at(), later + Duration::from_secs(85), "a server that pings is not pinged");
        assert_eq!(session.tick(later + Duration::from_secs(84)), []);
        assert_eq!(session.tick(session.wake_at()), [Step::End(End::Silent)]);
    }

    #[test]
    fn a_server_that_says_nothing_at_all_is_given_up() {
        let now = Instant::now();
        let mut session = Session::new(now);
        assert_eq!(session.tick(now + Duration::from_secs(19)), []);
        assert_eq!(session.tick(session.wake_at()), [Step::End(End::Silent)]);
    }

    #[test]
    fn a_server_of_the_older_version_is_pinged() {
        let (mut session, now) = opened();
        let first = now + Duration::from_secs(55);
        assert_eq!(session.wake_at(), first);
        assert_eq!(session.tick(first), [Step::Send("2")]);
        assert_eq!(session.heard(first, "3"), []);
        assert_eq!(session.wake_at(), first + Duration::from_secs(25));
    }

    #[test]
    fn times_that_make_no_sense_are_not_believed() {
        let now = Instant::now();
        for hello in
            [r#"0{"pingInterval":0,"pingTimeout":0}"#, "0", "0[]", r#"0{"pingInterval":99999999999}"#]
        {
            let mut session = Session::new(now);
            session.heard(now, hello);
            let wait = session.wake_at() - now;
            assert!(wait >= Duration::from_secs(1) && wait <= Duration::from_secs(600), "{hello}: {wait:?}");
        }
    }
}
