//! How far one call has come over its attempts: its deadline, its redirects, what is still open.

use std::time::Duration;

use http::Method;
use tokio::time::Instant;
use url::Url;

use super::Graph;
use super::call::Call;
use super::classify::Place;
use super::error::{GraphError, Ids, Result};
use super::limiter::{Pool, Priority};
use super::retry::{self, Failure, Repeat, Verdict};

const MAX_REDIRECTS: u32 = 5;
/// A transfer slower than this is given up, even if it moves.
const MIN_BYTES_PER_S: u64 = 8 << 10;
/// Background calls have this many times the deadline of those a program waits for.
pub(super) const BACKGROUND_FACTOR: u32 = 3;

/// How far a call has come over its attempts.
pub(super) struct Tries {
    pub url: Url,
    pub attempt: u32,
    redirects: u32,
    pub refreshes: u32,
    /// When the call ends. Background calls get theirs when they first leave the queue.
    pub deadline: Option<Instant>,
    /// From an attempt after which the change may have happened.
    unresolved: Option<GraphError>,
    /// A second execution is not the same as one.
    is_once: bool,
}

impl Tries {
    pub fn new(graph: &Graph, call: &Call) -> Self {
        let waited_for = matches!(call.priority, Priority::Interactive | Priority::Listing);
        let deadline = waited_for.then(|| graph.now() + budget(graph, call));
        let is_once = call.repeat == Repeat::Once;
        Self {
            url: call.url.clone(),
            attempt: 1,
            redirects: 0,
            refreshes: 0,
            deadline,
            unresolved: None,
            is_once,
        }
    }

    /// Until when the attempt that begins now may wait for the head of its answer.
    pub fn begin(&mut self, graph: &Graph, call: &Call) -> Instant {
        let now = graph.now();
        let deadline = *self.deadline.get_or_insert_with(|| now + budget(graph, call));
        // Requests hang now and then (graph-api 11.6): a read leaves time for a second attempt.
        let hedge = call.repeat == Repeat::Safe && call.place == Place::Graph && self.attempt == 1;
        if hedge { now + (deadline.saturating_duration_since(now)) / 2 } else { deadline }
    }

    pub fn redirected(&mut self, call: &Call, to: Url) -> Result<()> {
        self.redirects += 1;
        let same_origin = to.origin() == self.url.origin();
        let may_follow = call.method == Method::GET && (call.place == Place::Content || same_origin);
        if self.redirects > MAX_REDIRECTS || !may_follow {
            let what = "a redirect that is not followed";
            return Err(GraphError::Protocol { what, executed: false, ids: Ids::default() });
        }
        self.url = to;
        Ok(())
    }

    /// Waits before the next attempt, or ends the call with `error`.
    pub async fn failed(
        &mut self,
        graph: &Graph,
        call: &Call,
        failure: Failure,
        retry_after: Option<Duration>,
        error: GraphError,
    ) -> Result<()> {
        let now = graph.now();
        let left = self.deadline.map_or(Duration::ZERO, |deadline| deadline.saturating_duration_since(now));
        let jitter = graph.inner.clock.random_below(u64::MAX);
        match retry::decide(call.repeat, failure, self.attempt, retry_after, left, jitter) {
            Verdict::GiveUp => Err(self.verdict(error)),
            Verdict::Retry(delay) => {
                if call.repeat != Repeat::Safe && error.outcome_unknown() {
                    self.unresolved = Some(error);
                }
                self.attempt += 1;
                graph.inner.counters.retried();
                tokio::time::sleep(delay).await;
                Ok(())
            }
        }
    }

    /// What to report: if an earlier attempt may have had its effect, a later refusal does not undo that. It may come from
    /// that effect even, where a second execution is not the same as one.
    pub fn verdict(&mut self, error: GraphError) -> GraphError {
        let says_nothing = matches!(
            error,
            GraphError::Throttled { .. }
                | GraphError::Offline { .. }
                | GraphError::Deadline { .. }
                | GraphError::SignedOut { .. }
                | GraphError::Configuration { .. }
        );
        match self.unresolved.take() {
            Some(earlier) if (says_nothing || self.is_once) && !error.outcome_unknown() => earlier,
            _ => error,
        }
    }
}

/// All the time a call may take from when it first may be sent.
fn budget(graph: &Graph, call: &Call) -> Duration {
    let config = &graph.inner.config;
    match call.pool() {
        Pool::Metadata if matches!(call.priority, Priority::Interactive | Priority::Listing) => {
            config.metadata_deadline
        }
        Pool::Metadata => config.metadata_deadline * BACKGROUND_FACTOR,
        Pool::Content => {
            config.data_idle_timeout + Duration::from_secs(call.body.len() as u64 / MIN_BYTES_PER_S)
        }
    }
}
