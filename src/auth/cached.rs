//! One access token for all who need it: answered from memory, renewed early and once.
//!
//! What a renewal is, its [`Renew`] knows. A token is renewed five minutes before it ends; callers share one request;
//! a service that cannot be reached does no harm before the token ends.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tracing::debug;

use super::{AccessToken, AuthError, TokenSource};
use crate::clock::Clock;

/// A token is replaced this long before it ends.
const EARLY: Duration = Duration::from_secs(300);
/// Assumed where the answer does not say.
const DEFAULT_LIFE_S: u64 = 3600;
const LIFE_MAX_S: u64 = 7 * 86_400;

/// A token that was just given out.
#[derive(Debug)]
pub(super) struct Fresh {
    pub token: AccessToken,
    pub life: Duration,
}

impl Fresh {
    /// `seconds`: what the service says of its life.
    pub fn new(token: AccessToken, seconds: Option<u64>) -> Self {
        Self { token, life: Duration::from_secs(seconds.unwrap_or(DEFAULT_LIFE_S).min(LIFE_MAX_S)) }
    }
}

/// Gets a new token; one at a time.
pub(super) trait Renew: Send + fmt::Debug {
    /// `claims`: the JSON of a claims challenge (graph-api 1.9).
    fn renew(&mut self, claims: Option<String>) -> BoxFuture<'_, Result<Fresh, AuthError>>;
}

/// Access tokens of one sign-in. Clones share everything.
#[derive(Clone, Debug)]
pub struct CachedToken {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    clock: Arc<dyn Clock>,
    /// Never held over an await.
    current: Mutex<Option<Current>>,
    /// Held by the one task that renews.
    renewal: Arc<tokio::sync::Mutex<Box<dyn Renew>>>,
}

#[derive(Clone, Debug)]
struct Current {
    token: AccessToken,
    renew_at: Instant,
    ends_at: Instant,
}

impl CachedToken {
    pub(super) fn new(renewal: impl Renew + 'static, clock: Arc<dyn Clock>) -> Self {
        let renewal: Box<dyn Renew> = Box::new(renewal);
        let renewal = Arc::new(tokio::sync::Mutex::new(renewal));
        Self { inner: Arc::new(Inner { clock, current: Mutex::default(), renewal }) }
    }

    /// Runs the renewal as a task of its own: a caller that goes away must not take the answer, which may hold
    /// the only copy of the next refresh token, with it.
    async fn renew(
        &self,
        stale: Option<AccessToken>,
        claims: Option<String>,
    ) -> Result<AccessToken, AuthError> {
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move {
            let mut renewal = Arc::clone(&inner.renewal).lock_owned().await;
            if let Some(current) = inner.cached()
                && Some(&current.token) != stale.as_ref()
                && inner.clock.mono() < current.renew_at
            {
                return Ok(current.token);
            }
            let fresh = renewal.renew(claims).await?;
            Ok(inner.accept(fresh))
        });
        task.await.unwrap_or_else(|error| Err(AuthError::Network(Arc::new(error))))
    }
}

impl TokenSource for CachedToken {
    fn token(&self) -> BoxFuture<'_, Result<AccessToken, AuthError>> {
        Box::pin(async move {
            let cached = self.inner.cached();
            let now = self.inner.clock.mono();
            match cached {
                Some(current) if now < current.renew_at => Ok(current.token),
                Some(current) => match self.renew(Some(current.token.clone()), None).await {
                    // Still good for minutes: a sign-in service that is away does not matter yet.
                    Err(AuthError::Network(_)) if now < current.ends_at => Ok(current.token),
                    other => other,
                },
                None => self.renew(None, None).await,
            }
        })
    }

    fn refresh<'a>(
        &'a self,
        stale: &'a AccessToken,
        claims: Option<String>,
    ) -> BoxFuture<'a, Result<AccessToken, AuthError>> {
        Box::pin(self.renew(Some(stale.clone()), claims))
    }
}

impl Inner {
    fn cached(&self) -> Option<Current> {
        self.current.lock().expect("no code panics while it holds the token").clone()
    }

    fn accept(&self, fresh: Fresh) -> AccessToken {
        let now = self.clock.mono();
        let early = EARLY.min(fresh.life / 2);
        let current = Current {
            token: fresh.token.clone(),
            renew_at: now + (fresh.life - early),
            ends_at: now + fresh.life,
        };
        *self.current.lock().expect("no code panics while it holds the token") = Some(current);
        debug!(seconds = fresh.life.as_secs(), "access token renewed");
        fresh.token
    }
}
