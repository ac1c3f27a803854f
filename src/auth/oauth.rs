//! Access tokens from a refresh token (graph-api 1.7).
//!
//! Rules: a token is refreshed five minutes before it ends; callers share one request; the answer's new
//! refresh token is stored before its access token is used; no failure of the network ever discards what is
//! stored; `invalid_grant` is final for that refresh token only, so that a new sign-in (or another process
//! that rotated the token meanwhile) is picked up without a restart.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    AccessToken, AuthError, EndpointError, Secret, StoredToken, TokenEndpoint, TokenSource, TokenStore,
};
use crate::clock::Clock;

/// A token is replaced this long before it ends.
const EARLY: Duration = Duration::from_secs(300);
/// Assumed where the answer does not say.
const DEFAULT_LIFE_S: u64 = 3600;

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

/// Gives access tokens from a stored refresh token.
#[derive(Clone, Debug)]
pub struct RefreshTokenSource {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: OAuthClient,
    endpoint: Arc<dyn TokenEndpoint>,
    store: Arc<dyn TokenStore>,
    clock: Arc<dyn Clock>,
    /// Never held over an await.
    current: Mutex<Option<Current>>,
    /// Held by the one task that refreshes; guards what `State` remembers between refreshes.
    refreshing: Arc<tokio::sync::Mutex<State>>,
}

#[derive(Clone, Debug)]
struct Current {
    token: AccessToken,
    renew_at: Instant,
    ends_at: Instant,
}

#[derive(Debug, Default)]
struct State {
    /// Newest refresh token if it could not be saved.
    unsaved: Option<StoredToken>,
    /// The refresh token that the service called invalid, and the reason it gave.
    dead: Option<(Secret, String)>,
}

impl RefreshTokenSource {
    /// Reads and rotates the refresh token in `store`.
    pub fn new(
        client: OAuthClient,
        endpoint: Arc<dyn TokenEndpoint>,
        store: Arc<dyn TokenStore>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let inner =
            Inner { client, endpoint, store, clock, current: Mutex::default(), refreshing: Arc::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Runs the refresh as a task of its own: a caller that goes away must not take the answer, which holds
    /// the only copy of the next refresh token, with it.
    async fn renew(
        &self,
        stale: Option<AccessToken>,
        claims: Option<String>,
    ) -> Result<AccessToken, AuthError> {
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move {
            let mut state = Arc::clone(&inner.refreshing).lock_owned().await;
            if let Some(current) = inner.cached()
                && Some(&current.token) != stale.as_ref()
                && inner.clock.mono() < current.renew_at
            {
                return Ok(current.token);
            }
            inner.refresh(&mut state, claims).await
        });
        task.await.unwrap_or_else(|error| Err(AuthError::Network(Arc::new(error))))
    }
}

impl TokenSource for RefreshTokenSource {
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

    async fn refresh(&self, state: &mut State, claims: Option<String>) -> Result<AccessToken, AuthError> {
        let mut used = self.newest(state).await?;
        if let Some((dead, reason)) = &state.dead
            && *dead == used.refresh_token
        {
            return Err(AuthError::SignedOut { reason: reason.clone() });
        }
        loop {
            match self.ask(&used, claims.as_deref()).await? {
                Ok(grant) => return Ok(self.accept(state, grant).await),
                Err(refusal) if refusal.error == "invalid_grant" => {
                    // Another process may have rotated the token between our load and our request.
                    state.unsaved = None;
                    let latest = self.newest(state).await?;
                    if latest != used {
                        used = latest;
                        continue;
                    }
                    let reason = refusal.reason();
                    state.dead = Some((used.refresh_token, reason.clone()));
                    return Err(AuthError::SignedOut { reason });
                }
                Err(refusal) => return Err(refusal.into_error()),
            }
        }
    }

    async fn newest(&self, state: &State) -> Result<StoredToken, AuthError> {
        if let Some(token) = &state.unsaved {
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

    async fn accept(&self, state: &mut State, grant: Grant) -> AccessToken {
        if let Some(next) = grant.refresh_token {
            let next = StoredToken { refresh_token: next };
            let (store, saved) = (Arc::clone(&self.store), next.clone());
            match tokio::task::spawn_blocking(move || store.save(&saved)).await {
                Ok(Ok(())) => state.unsaved = None,
                Ok(Err(error)) => {
                    warn!(%error, "the new sign-in could not be stored; it is kept in memory");
                    state.unsaved = Some(next);
                }
                Err(error) => {
                    warn!(%error, "the new sign-in could not be stored; it is kept in memory");
                    state.unsaved = Some(next);
                }
            }
        }
        state.dead = None;
        let life = Duration::from_secs(grant.expires_in.unwrap_or(DEFAULT_LIFE_S).min(7 * 86_400));
        let now = self.clock.mono();
        let early = EARLY.min(life / 2);
        let current = Current {
            token: AccessToken(grant.access_token),
            renew_at: now + (life - early),
            ends_at: now + life,
        };
        let token = current.token.clone();
        *self.current.lock().expect("no code panics while it holds the token") = Some(current);
        debug!(seconds = life.as_secs(), "access token refreshed");
        token
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

fn network(what: String) -> AuthError {
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
fn number_or_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
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
    pub fn into_error(self) -> AuthError {
        match self.error.as_str() {
            "interaction_required" | "login_required" | "consent_required" => {
                debug!(claims = self.claims.is_some(), "the sign-in service wants the user");
                AuthError::SignedOut { reason: self.reason() }
            }
            "temporarily_unavailable" | "server_error" | "slow_down" => network(self.error),
            _ => AuthError::Configuration { what: self.text("the sign-in service refuses") },
        }
    }

    /// What to say to the user whose sign-in is not valid any more.
    fn reason(&self) -> String {
        self.text("the sign-in is no longer valid: sign in again")
    }

    /// Codes only choose the text (graph-api 1.7).
    fn text(&self, otherwise: &str) -> String {
        let said = self.error_codes.iter().find_map(|code| explain(*code));
        let codes: String = self.error_codes.iter().map(|code| format!(" AADSTS{code}")).collect();
        format!("{} ({}{codes})", said.unwrap_or(otherwise), self.error)
    }
}

/// What a code of the sign-in service means, and what to do (graph-api 1.3 to 1.7).
pub fn explain(code: u64) -> Option<&'static str> {
    Some(match code {
        50074 | 50076 | 50078 | 50079 => "a second factor is needed: sign in again",
        50132 | 50133 | 50173 | 70008 | 700_082 => {
            "the session was revoked, unused for too long, or the password changed: sign in again"
        }
        50131 | 53000 | 53001 | 53003 | 53004 => {
            "blocked by conditional access (device or location): ask the administrator"
        }
        65001 | 65004 | 65005 | 90094 => {
            "consent is missing, was declined or needs an administrator: sign in again, or ask one to consent"
        }
        50105 => "the user is not assigned to the application: ask the administrator",
        50020 | 50034 | 51004 => "the account is unknown in this tenant: give another --tenant",
        50057 => "the account is disabled: ask the administrator",
        50011 | 50194 | 9_002_346 => {
            "the application's registration does not fit: it must allow the kind of account (--tenant) and the redirect \
             address http://localhost"
        }
        50128 | 90002 | 700_016 => "wrong client id or tenant: check --client-id and --tenant",
        50196 => "too many requests for tokens: wait some minutes",
        54005 | 70000 => "the code from the browser was used or damaged: sign in again",
        70016 => "the sign-in is not finished in the browser",
        7_000_215 => "wrong client secret: give its value, not its id",
        7_000_218 => {
            "the application does not allow public clients: turn on 'Allow public client flows' in its registration"
        }
        7_000_222 => "the client secret has expired: make a new one in the application's registration",
        700_024 => "the certificate's proof is out of its time: check this machine's clock",
        700_027 => "the certificate is not known to the application: upload it to its registration",
        700_211 | 700_213 => {
            "no federated credential fits: check issuer and subject in the application's registration"
        }
        _ => return None,
    })
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
