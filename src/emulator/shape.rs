//! Bandwidth of a connection, and bodies that break, stall or lie.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::http::Body;

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    free_at: Mutex<Option<Instant>>,
}

impl Pipe {
    /// When `bytes` more have passed at `rate` bytes per second.
    pub(crate) fn pass(&self, bytes: usize, rate: u64, now: Instant) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let from = free_at.unwrap_or(now).max(now);
        let done = from + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        *free_at = Some(done);
        done
    }
}

/// One connection: both directions share nothing.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) down: Pipe,
    pub(crate) up: Pipe,
}

/// What goes wrong in a body, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Reset,
    End,
    Stall,
    Corrupt,
}

/// A body with limited bandwidth that may break.
pub(crate) struct Shaped {
    pub(crate) inner: Body,
    pub(crate) link: Arc<Link>,
    pub(crate) rate: Option<u64>,
    /// Bytes until the event.
    pub(crate) cut: Option<(Cut, u64)>,
    pub(crate) release: watch::Receiver<u64>,
    wait: Option<Pin<Box<Sleep>>>,
    stalled: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    rest: Bytes,
}

impl Shaped {
    pub(crate) fn new(
        inner: Body,
        link: Arc<Link>,
        rate: Option<u64>,
        release: watch::Receiver<u64>,
    ) -> Self {
        Self { inner, link, rate, cut: None, release, wait: None, stalled: None, rest: Bytes::new() }
    }

    /// Pieces small enough that a slow connection flows.
    fn piece(&self) -> usize {
        match self.rate {
            Some(rate) => ((rate / 20) as usize).clamp(1024, 256 << 10),
            None => usize::MAX,
        }
    }

    /// Applies the event to the next piece: what may pass of it.
    fn meet(&mut self, mut data: Bytes) -> Bytes {
        let Some((kind, left)) = &mut self.cut else { return data };
        if data.len() as u64 <= *left && *kind != Cut::Corrupt {
            *left -= data.len() as u64;
            return data;
        }
        if *kind == Cut::Corrupt {
            if *left >= data.len() as u64 {
                *left -= data.len() as u64;
                return data;
            }
            let mut bytes = data.to_vec();
            bytes[*left as usize] ^= 0xff;
            self.cut = None;
            return bytes.into();
        }
        let pass = data.split_to(*left as usize);
        *left = 0;
        self.rest = [data, std::mem::take(&mut self.rest)].concat().into();
        pass
    }
}

impl http_body::Body for Shaped {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if let Some(wait) = &mut self.wait {
                std::task::ready!(wait.as_mut().poll(cx));
                self.wait = None;
            }
            if let Some(stalled) = &mut self.stalled {
                std::task::ready!(stalled.as_mut().poll(cx));
                self.stalled = None;
            }
            match self.cut {
                Some((Cut::Reset, 0)) => {
                    return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::ConnectionReset))));
                }
                Some((Cut::End, 0)) => return Poll::Ready(None),
                Some((Cut::Stall, 0)) => {
                    self.cut = None;
                    let mut release = self.release.clone();
                    release.mark_unchanged();
                    self.stalled = Some(Box::pin(async move {
                        // The sender lives as long as the emulator; afterwards nothing matters.
                        let _ = release.changed().await;
                    }));
                    continue;
                }
                _ => {}
            }
            let max = self.piece();
            let data = if self.rest.is_empty() {
                match std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => data,
                        Err(frame) => return Poll::Ready(Some(Ok(frame))),
                    },
                    other => return Poll::Ready(other),
                }
            } else {
                std::mem::take(&mut self.rest)
            };
            let mut data = data;
            if data.len() > max {
                self.rest = data.split_off(max);
            }
            let data = self.meet(data);
            if let Some(rate) = self.rate {
                let until = self.link.down.pass(data.len(), rate, Instant::now());
                self.wait = Some(Box::pin(tokio::time::sleep_until(until)));
            }
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.cut.is_none() && self.rest.is_empty() && self.wait.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self.cut {
            // The header keeps promising the full length.
            Some(_) => http_body::SizeHint::default(),
            None if self.rest.is_empty() => self.inner.size_hint(),
            None => http_body::SizeHint::default(),
        }
    }
}
