//! Who the program is to the service: access tokens, their refresh, and where they are kept.
//!
//! Owns secrets. Nothing here prints one: [`Secret`] and [`AccessToken`] hide themselves in `Debug`.
//! Knows nothing of HTTP clients or of the file service; what it needs to say to the sign-in service goes
//! through [`TokenEndpoint`].

pub mod aadsts;
mod cached;
pub mod certificate;
pub mod identity;
pub mod oauth;
pub mod secrets;
pub mod signin;
pub mod store;
#[cfg(test)]
mod testing;
pub mod unattended;
pub mod vault;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

pub use cached::CachedToken;
pub use oauth::OAuthClient;
pub use secrets::{SecretReader, SecretSource};
pub use signin::{Application, CodeRequest, DeviceCode, SignIn};
pub use store::{FileTokenStore, StoredToken, TokenStore};
pub use unattended::{Proof, Registration, Unattended};

/// Gives the bearer token of one account.
pub trait TokenSource: Send + Sync + fmt::Debug {
    /// The token to use now; answered from memory while it is good.
    ///
    /// Cancel-safe: a refresh that has begun goes on, so that a rotated refresh token is not lost.
    fn token(&self) -> BoxFuture<'_, Result<AccessToken, AuthError>>;

    /// A token to use instead of `stale`, which the service refused.
    ///
    /// Callers that hold the same stale token share one request. `claims` is the JSON of a claims challenge
    /// (graph-api 1.9).
    fn refresh<'a>(
        &'a self,
        stale: &'a AccessToken,
        claims: Option<String>,
    ) -> BoxFuture<'a, Result<AccessToken, AuthError>>;
}

/// Text that must not be shown. Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for a request or a protected file only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(hidden)")
    }
}

/// A bearer token. Opaque: never parsed (graph-api 1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken(Secret);

impl AccessToken {
    /// Takes the token as it goes into the `Authorization` header.
    pub fn new(token: impl Into<String>) -> Self {
        Self(Secret::new(token))
    }

    /// The token, for the `Authorization` header only.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// Why there is no token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuthError {
    /// Only the user can help, by signing in again.
    #[error("signed out: {reason}")]
    SignedOut {
        /// For the user: what happened and what to do.
        reason: String,
    },
    /// The sign-in service could not be reached or is failing; what is stored is kept.
    #[error("the sign-in service cannot be reached")]
    Network(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// A secret or a certificate of this machine cannot be used.
    #[error("{what}: {why}; {remedy}")]
    Credential {
        /// Its source.
        what: String,
        /// What is wrong with it.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// The sign-in service refuses the application, or what proves it; asking again does not help.
    #[error("{why}; {remedy}")]
    Refused {
        /// What is wrong.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// The settings are wrong; asking again does not help.
    #[error("sign-in is not set up correctly: {what}")]
    Configuration {
        /// What is wrong.
        what: String,
    },
}

/// What a request to the sign-in service failed with before there was an answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no answer from the sign-in service")]
pub struct EndpointError(#[source] pub Arc<dyn std::error::Error + Send + Sync>);

/// Sends forms to the sign-in service; whoever owns the HTTP client implements it.
pub trait TokenEndpoint: Send + Sync + fmt::Debug {
    /// POSTs `form` as `application/x-www-form-urlencoded`; gives status and body of whatever was answered.
    fn post_form<'a>(
        &'a self,
        url: &'a str,
        form: Vec<(&'static str, Secret)>,
    ) -> BoxFuture<'a, Result<(u16, Bytes), EndpointError>>;

    /// GETs `url` with these headers, their names in small letters; gives whatever was answered.
    fn get<'a>(
        &'a self,
        url: &'a str,
        headers: Vec<(&'static str, Secret)>,
    ) -> BoxFuture<'a, Result<Answer, EndpointError>>;
}

/// What a GET was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The whole body.
    pub body: Bytes,
    /// `WWW-Authenticate`.
    pub challenge: Option<String>,
}

/// A token handed in from outside, never refreshed.
#[derive(Clone, Debug)]
pub struct StaticToken(AccessToken);

impl StaticToken {
    /// Uses `token` until the service refuses it.
    pub fn new(token: impl Into<String>) -> Self {
        Self(AccessToken::new(token))
    }
}

impl TokenSource for StaticToken {
    fn token(&self) -> BoxFuture<'_, Result<AccessToken, AuthError>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }

    fn refresh<'a>(
        &'a self,
        _stale: &'a AccessToken,
        _claims: Option<String>,
    ) -> BoxFuture<'a, Result<AccessToken, AuthError>> {
        Box::pin(std::future::ready(Err(AuthError::SignedOut {
            reason: "the access token that was given is no longer accepted; start again with a new one"
                .into(),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_forms_hide_secrets() {
        let shown = format!(
            "{:?} {:?} {:?}",
            Secret::new("hush"),
            AccessToken::new("hush"),
            StaticToken::new("hush")
        );
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[tokio::test]
    async fn a_static_token_that_is_refused_means_signed_out() {
        let source = StaticToken::new("t");
        let stale = source.token().await.expect("a static token is always there");
        assert!(matches!(source.refresh(&stale, None).await, Err(AuthError::SignedOut { .. })));
    }
}
