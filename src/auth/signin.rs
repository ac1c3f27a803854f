//! Signing in as a person: device code (graph-api 1.3), and authorization code with PKCE (1.4).
//!
//! Both end in a refresh token, which [`super::CachedToken`] lives on. Nothing here opens a browser or listens.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use url::Url;
use uuid::Uuid;

use super::oauth::{Grant, Refusal, exchange};
use super::{AccessToken, AuthError, OAuthClient, Secret, StoredToken, TokenEndpoint};

/// Between two looks whether the user is done, where the service does not say (RFC 8628); and what it may say.
const INTERVAL_S: u64 = 5;
const INTERVALS_S: std::ops::RangeInclusive<u64> = 1..=60;
/// How long a code lives where the service does not say (graph-api 1.3), and at most.
const CODE_LIFE_S: u64 = 900;
const CODE_LIFE_MAX_S: u64 = 86_400;
/// What a service that is asked too often wants on top of that, for good.
const SLOW_DOWN: Duration = Duration::from_secs(5);

/// An application as registered with the sign-in service, and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Root of the sign-in service.
    pub login_url: Url,
    /// `common`, `organizations`, `consumers`, a tenant's id or domain (graph-api 1.2).
    pub tenant: String,
    /// Application id.
    pub client_id: String,
    /// Scopes, space separated; with `offline_access`.
    pub scope: String,
}

/// A person has signed in.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// To keep.
    pub stored: StoredToken,
    /// To use at once.
    pub access: AccessToken,
}

/// What the person has to enter, and where.
#[derive(Clone, Debug, Deserialize)]
pub struct DeviceCode {
    /// To enter.
    pub user_code: String,
    /// Where; as the service says it.
    pub verification_uri: String,
    device_code: Secret,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    interval: Option<u64>,
}

/// A sign-in in the browser that is under way.
#[derive(Clone, Debug)]
pub struct CodeRequest {
    /// To open in the browser.
    pub url: Url,
    redirect_uri: String,
    state: String,
    verifier: Secret,
}

/// A link by which an administrator consents for an organisation.
#[derive(Clone, Debug)]
pub struct ConsentRequest {
    /// To open in the browser.
    pub url: Url,
    state: String,
}

/// What to do after a look whether a device code was entered.
#[derive(Debug)]
enum Look {
    Again(Duration),
    Refused(AuthError),
}

impl Application {
    /// The same, as whoever refreshes tokens wants it.
    pub fn client(&self) -> Result<OAuthClient, AuthError> {
        let token_url = self.address("token")?.to_string();
        Ok(OAuthClient { token_url, client_id: self.client_id.clone(), scope: self.scope.clone() })
    }

    fn address(&self, what: &str) -> Result<Url, AuthError> {
        self.below(&["oauth2", "v2.0", what])
    }

    fn below(&self, segments: &[&str]) -> Result<Url, AuthError> {
        let mut url = self.login_url.clone();
        let bad =
            || AuthError::Configuration { what: format!("{} is no address of a service", self.login_url) };
        let mut path = url.path_segments_mut().map_err(|()| bad())?;
        path.pop_if_empty().push(&self.tenant).extend(segments);
        drop(path);
        Ok(url)
    }

    /// Begins to ask an administrator for what the application was registered for; the browser then comes to
    /// `redirect_uri`.
    pub fn begin_consent(&self, redirect_uri: &str) -> Result<ConsentRequest, AuthError> {
        let state = random();
        let mut url = self.below(&["v2.0", "adminconsent"])?;
        url.query_pairs_mut()
            .append_pair("client_id", &self.client_id)
            .append_pair("scope", &self.scope)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("state", &state);
        Ok(ConsentRequest { url, state })
    }

    /// Asks for a code that the person enters on any device.
    pub async fn ask_device_code(&self, endpoint: &dyn TokenEndpoint) -> Result<DeviceCode, AuthError> {
        let form = vec![("client_id", Secret::new(&self.client_id)), ("scope", Secret::new(&self.scope))];
        let answer = exchange::<DeviceCode>(endpoint, self.address("devicecode")?.as_str(), form).await?;
        answer.map_err(Refusal::into_error)
    }

    /// Waits until the person has entered the code, or the code ends.
    pub async fn await_device(
        &self,
        endpoint: &dyn TokenEndpoint,
        code: &DeviceCode,
    ) -> Result<SignIn, AuthError> {
        let interval = code.interval.unwrap_or(INTERVAL_S);
        let mut wait = Duration::from_secs(interval.clamp(*INTERVALS_S.start(), *INTERVALS_S.end()));
        let life = Duration::from_secs(code.expires_in.unwrap_or(CODE_LIFE_S).min(CODE_LIFE_MAX_S));
        let ends = tokio::time::Instant::now() + life;
        loop {
            tokio::time::sleep(wait).await;
            let form = vec![
                ("grant_type", Secret::new("urn:ietf:params:oauth:grant-type:device_code")),
                ("client_id", Secret::new(&self.client_id)),
                ("device_code", code.device_code.clone()),
            ];
            let answer = exchange::<Grant>(endpoint, self.address("token")?.as_str(), form).await;
            let is_over = tokio::time::Instant::now() >= ends;
            match answer {
                Ok(Ok(grant)) => return signed_in(grant),
                Ok(Err(refusal)) => match after(refusal, wait) {
                    Look::Again(next) => wait = next,
                    Look::Refused(error) => return Err(error),
                },
                // A network that is away for a while costs the person nothing.
                Err(AuthError::Network(error)) if is_over => return Err(AuthError::Network(error)),
                Err(AuthError::Network(_)) => {}
                Err(error) => return Err(error),
            }
            if is_over {
                return Err(too_late());
            }
        }
    }

    /// Begins a sign-in in the browser, which then comes to `redirect_uri` on this machine.
    pub fn begin_in_browser(&self, redirect_uri: &str) -> Result<CodeRequest, AuthError> {
        let (state, verifier) = (random(), random());
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
        let mut url = self.address("authorize")?;
        url.query_pairs_mut()
            .append_pair("client_id", &self.client_id)
            .append_pair("response_type", "code")
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("response_mode", "query")
            .append_pair("scope", &self.scope)
            .append_pair("state", &state)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .append_pair("prompt", "select_account");
        Ok(CodeRequest { url, redirect_uri: redirect_uri.to_owned(), state, verifier: Secret::new(verifier) })
    }

    /// Redeems what the browser brought.
    pub async fn redeem(
        &self,
        endpoint: &dyn TokenEndpoint,
        request: &CodeRequest,
        code: Secret,
    ) -> Result<SignIn, AuthError> {
        let form = vec![
            ("grant_type", Secret::new("authorization_code")),
            ("client_id", Secret::new(&self.client_id)),
            ("code", code),
            ("redirect_uri", Secret::new(&request.redirect_uri)),
            ("code_verifier", request.verifier.clone()),
            ("scope", Secret::new(&self.scope)),
        ];
        let answer = exchange::<Grant>(endpoint, self.address("token")?.as_str(), form).await?;
        answer.map_err(Refusal::into_error).and_then(signed_in)
    }
}

impl CodeRequest {
    /// The code in what the browser asked for; none if that was not the answer to this request.
    pub fn answer(&self, query: &str) -> Option<Result<Secret, AuthError>> {
        answered(query, &self.state, "code", declined)
    }
}

impl ConsentRequest {
    /// The organisation that consented, as [`CodeRequest::answer`].
    pub fn answer(&self, query: &str) -> Option<Result<Secret, AuthError>> {
        let declined = || AuthError::SignedOut { reason: "the consent was declined in the browser".into() };
        answered(query, &self.state, "tenant", declined)
    }
}

/// 244 random bits from the system.
fn random() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// What a browser brings as `wanted`, or how it was refused.
fn answered(
    query: &str,
    state: &str,
    wanted: &str,
    declined: impl Fn() -> AuthError,
) -> Option<Result<Secret, AuthError>> {
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let said = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    if said("state") != Some(state) {
        return None;
    }
    if let Some(error) = said("error") {
        let words = said("error_description").unwrap_or_default();
        let what = words.split(" Trace ID:").next().filter(|words| !words.is_empty()).unwrap_or(error);
        return Some(Err(match error {
            "access_denied" => declined(),
            _ => AuthError::Configuration { what: what.trim().to_owned() },
        }));
    }
    said(wanted).filter(|value| !value.is_empty()).map(|value| Ok(Secret::new(value)))
}

fn after(refusal: Refusal, wait: Duration) -> Look {
    match refusal.error.as_str() {
        "authorization_pending" => Look::Again(wait),
        "slow_down" => Look::Again(wait + SLOW_DOWN),
        "authorization_declined" | "access_denied" => Look::Refused(declined()),
        "expired_token" => Look::Refused(too_late()),
        _ => Look::Refused(refusal.into_error()),
    }
}

fn signed_in(grant: Grant) -> Result<SignIn, AuthError> {
    let stored = grant.refresh_token.ok_or_else(|| AuthError::Configuration {
        what: "the service gave no token to keep: the scopes must name offline_access".into(),
    })?;
    Ok(SignIn { stored: StoredToken { refresh_token: stored }, access: AccessToken(grant.access_token) })
}

fn declined() -> AuthError {
    AuthError::SignedOut { reason: "the sign-in was declined in the browser".into() }
}

fn too_late() -> AuthError {
    AuthError::SignedOut { reason: "nobody finished the sign-in in time: begin again".into() }
}

#[cfg(test)]
#[path = "signin_tests.rs"]
mod tests;
