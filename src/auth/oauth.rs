//! Access tokens from a refresh token (graph-api 1.7).
//!
//! Rules: the answer's new refresh token is stored before its access token is used; no failure of the network
//! ever discards what is stored; `invalid_grant` is final for that refresh token only, so that a new sign-in (or another process
//! that rotated the token meanwhile) is picked up without a restart.

use std::sync::Arc;

use base64::Engine as _;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracing::{debug, warn};
use url::Url;

use super::aadsts::{Explanation, explain};
use super::cached::{CachedToken, Fresh, Renew};
use super::{AccessToken, Answer, AuthError, EndpointError, Secret, StoredToken, TokenEndpoint, TokenStore};
use crate::clock::Clock;

/// The application as registered with the sign-in service.
#[derive(Clone, Debug)]
pub struct OAuthClient {
    /// Full address of the token endpoint: `{authority}/{tenant}/oauth2/v2.0/token`.
    pub token_url: String,
    /// Application id.
    pub client_id: String,
    /// Scopes, space separated; must be a subset of what was consented to.
    pub scope: String,
}

#[derive(Debug)]
struct Refresh {
    client: OAuthClient,
    endpoint: Arc<dyn TokenEndpoint>,
    store: Arc<dyn TokenStore>,
    /// Newest refresh token if it could not be saved.
    unsaved: Option<StoredToken>,
    /// The refresh token that the service called invalid, and the reason it gave.
    dead: Option<(Secret, String)>,
}

impl CachedToken {
    /// Reads and rotates the refresh token in `store`.
    pub fn refreshed(
        client: OAuthClient,
        endpoint: Arc<dyn TokenEndpoint>,
        store: Arc<dyn TokenStore>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self::new(Refresh { client, endpoint, store, unsaved: None, dead: None }, clock)
    }
}

impl Renew for Refresh {
    fn renew(&mut self, claims: Option<String>) -> BoxFuture<'_, Result<Fresh, AuthError>> {
        Box::pin(self.refresh(claims))
    }
}

impl Refresh {
    async fn refresh(&mut self, claims: Option<String>) -> Result<Fresh, AuthError> {
        let mut used = self.newest().await?;
        if let Some((dead, reason)) = &self.dead
            && *dead == used.refresh_token
        {
            return Err(AuthError::SignedOut { reason: reason.clone() });
        }
        loop {
            match self.ask(&used, claims.as_deref()).await? {
                Ok(grant) => return Ok(self.accept(grant).await),
                Err(refusal) if refusal.error == "invalid_grant" => {
                    // Another process may have rotated the token between our load and our request.
                    self.unsaved = None;
                    let latest = self.newest().await?;
                    if latest != used {
                        used = latest;
                        continue;
                    }
                    let reason = refusal.reason();
                    self.dead = Some((used.refresh_token, reason.clone()));
                    return Err(AuthError::SignedOut { reason });
                }
                Err(refusal) => return Err(refusal.into_error()),
            }
        }
    }

    async fn newest(&self) -> Result<StoredToken, AuthError> {
        if let Some(token) = &self.unsaved {
            return Ok(token.clone());
        }
        let store = Arc::clone(&self.store);
        let loaded = tokio::task::spawn_blocking(move || store.load())
            .await
            .map_err(|error| AuthError::Network(Arc::new(error)))?
            .map_err(|error| AuthError::Configuration { what: format!("the stored sign-in: {error}") })?;
        loaded.ok_or_else(|| AuthError::SignedOut { reason: "nobody has signed in yet".into() })
    }

    /// One request; the outer error is the network's, the inner one the service's refusal.
    async fn ask(
        &self,
        used: &StoredToken,
        claims: Option<&str>,
    ) -> Result<Result<Grant, Refusal>, AuthError> {
        let mut form = vec![
            ("grant_type", Secret::new("refresh_token")),
            ("client_id", Secret::new(&self.client.client_id)),
            ("scope", Secret::new(&self.client.scope)),
            ("refresh_token", used.refresh_token.clone()),
        ];
        if let Some(claims) = claims {
            form.push(("claims", Secret::new(claims)));
        }
        exchange(&*self.endpoint, &self.client.token_url, form).await
    }

    async fn accept(&mut self, grant: Grant) -> Fresh {
        if let Some(next) = grant.refresh_token {
            let next = StoredToken { refresh_token: next };
            let (store, saved) = (Arc::clone(&self.store), next.clone());
            match tokio::task::spawn_blocking(move || store.save(&saved)).await {
                Ok(Ok(())) => self.unsaved = None,
                Ok(Err(error)) => {
                    warn!(%error, "the new sign-in could not be stored; it is kept in memory");
                    self.unsaved = Some(next);
                }
                Err(error) => {
                    warn!(%error, "the new sign-in could not be stored; it is kept in memory");
                    self.unsaved = Some(next);
                }
            }
        }
        self.dead = None;
        Fresh::new(AccessToken(grant.access_token), grant.expires_in)
    }
}

/// One request; the outer error is the network's, the inner one the service's refusal.
pub(super) async fn exchange<T: DeserializeOwned>(
    endpoint: &dyn TokenEndpoint,
    url: &str,
    form: Vec<(&'static str, Secret)>,
) -> Result<Result<T, Refusal>, AuthError> {
    let answer = endpoint.post_form(url, form).await;
    let (status, body) = answer.map_err(|EndpointError(source)| AuthError::Network(source))?;
    if status == 200 {
        return match serde_json::from_slice::<T>(&body) {
            Ok(answer) => Ok(Ok(answer)),
            Err(_) => Err(network(format!("unreadable answer of {} bytes", body.len()))),
        };
    }
    match serde_json::from_slice::<Refusal>(&body) {
        Ok(refusal) if status != 429 && status < 500 => Ok(Err(refusal)),
        _ => Err(network(format!("HTTP status {status}"))),
    }
}

/// One question, with `headers`.
pub(super) async fn get(
    endpoint: &dyn TokenEndpoint,
    url: &Url,
    headers: Vec<(&'static str, Secret)>,
) -> Result<Answer, AuthError> {
    let answer = endpoint.get(url.as_str(), headers).await;
    answer.map_err(|EndpointError(source)| AuthError::Network(source))
}

pub(super) fn network(what: String) -> AuthError {
    AuthError::Network(Arc::new(std::io::Error::other(what)))
}

#[derive(Deserialize)]
pub(super) struct Grant {
    pub access_token: Secret,
    pub refresh_token: Option<Secret>,
    #[serde(default, deserialize_with = "number_or_text")]
    pub expires_in: Option<u64>,
}

/// A number, or a string with a number in it (graph-api 1.6).
pub(super) fn number_or_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok())))
}

/// The OAuth error body (graph-api 1.7).
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    pub error: String,
    #[serde(default)]
    error_codes: Vec<u64>,
    #[serde(default)]
    claims: Option<String>,
}

impl Refusal {
    /// What a person can do about it.
    pub fn into_error(self) -> AuthError {
        match self.error.as_str() {
            "interaction_required" | "login_required" | "consent_required" => {
                debug!(claims = self.claims.is_some(), "the sign-in service wants the user");
                AuthError::SignedOut { reason: self.reason() }
            }
            _ => self.into_unattended(),
        }
    }

    /// As [`Refusal::into_error`], where there is no person.
    pub fn into_unattended(self) -> AuthError {
        if matches!(self.error.as_str(), "temporarily_unavailable" | "server_error" | "slow_down") {
            return network(self.error);
        }
        let said = self.explanation();
        let why = said.map_or("the sign-in service refuses", |said| said.why);
        let remedy = said.map_or("see 'onedrivefs login --help'", |said| said.remedy);
        AuthError::Refused { why: self.with_codes(why), remedy: remedy.to_owned() }
    }

    /// What to say to the user whose sign-in is not valid any more.
    fn reason(&self) -> String {
        let said = self.explanation();
        let words = said.map(|said| format!("{}: {}", said.why, said.remedy));
        self.with_codes(words.as_deref().unwrap_or("the sign-in is no longer valid: sign in again"))
    }

    /// Codes only choose the text (graph-api 1.7).
    fn explanation(&self) -> Option<Explanation> {
        self.error_codes.iter().find_map(|code| explain(*code))
    }

    fn with_codes(&self, words: &str) -> String {
        let codes: String = self.error_codes.iter().map(|code| format!(" AADSTS{code}")).collect();
        format!("{words} ({}{codes})", self.error)
    }
}

/// Turns the `claims` parameter of a `WWW-Authenticate` challenge into the JSON to send (graph-api 1.9).
pub fn decode_claims(parameter: &str) -> Option<String> {
    let engines = [&base64::engine::general_purpose::STANDARD, &base64::engine::general_purpose::URL_SAFE];
    let bare = parameter.trim_end_matches('=');
    let padded = format!("{bare}{}", "=".repeat((4 - bare.len() % 4) % 4));
    let bytes = engines.iter().find_map(|engine| engine.decode(&padded).ok())?;
    let mut claims: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let token = claims.as_object_mut()?.entry("access_token").or_insert_with(|| serde_json::json!({}));
    token.as_object_mut()?.entry("xms_cc").or_insert_with(|| serde_json::json!({ "values": ["cp1"] }));
    Some(claims.to_string())
}

#[cfg(test)]
#[path = "oauth_tests.rs"]
mod tests;
