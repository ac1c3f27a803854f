//! Tokens of an application that runs without a person (graph-api 1.5, 1.6).
//!
//! There is no refresh token: a new token is asked for, and what proves the application is read anew each time. A
//! proof that the service has refused is not shown again for a while, so that a wrong secret does not press the
//! service; another one is shown at once.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::cached::{CachedToken, Fresh, Renew};
use super::certificate::{CertificateError, ClientCertificate, Signing};
use super::oauth::{Grant, Refusal, exchange};
use super::secrets::{SecretReader, SecretSource, trouble};
use super::signin::Application;
use super::{AccessToken, AuthError, Secret, TokenEndpoint, identity};
use crate::clock::Clock;
use crate::model::Timestamp;

/// A refused proof is not shown again for so long.
const PENANCE: Duration = Duration::from_secs(300);

/// How an application proves who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Proof {
    /// A secret that the service made.
    ClientSecret {
        /// Where it is.
        source: SecretSource,
    },
    /// A certificate whose public part the service knows.
    Certificate {
        /// Where certificate and key are: PEM or PKCS#12.
        source: SecretSource,
        /// Where the key's password is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<SecretSource>,
        /// How it signs.
        #[serde(default)]
        signing: Signing,
    },
    /// A token of another service that this one trusts, such as Kubernetes.
    FederatedToken {
        /// The file it is in; read each time, because it is replaced from time to time.
        path: PathBuf,
    },
    /// What the machine is to Azure.
    ManagedIdentity {
        /// Which of several: an application id, `object:ID`, or a resource id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
}

impl Proof {
    /// The sources that have to be read.
    pub fn sources(&self) -> Vec<&SecretSource> {
        match self {
            Self::ClientSecret { source } => vec![source],
            Self::Certificate { source, password, .. } => {
                [Some(source), password.as_ref()].into_iter().flatten().collect()
            }
            Self::FederatedToken { .. } | Self::ManagedIdentity { .. } => Vec::new(),
        }
    }
}

/// An application, what proves it, and what its tokens are for.
#[derive(Clone, Debug)]
pub struct Unattended {
    /// As registered. Its scope says nothing here.
    pub application: Application,
    /// Who it is.
    pub proof: Proof,
    /// The service that tokens are for: `https://graph.microsoft.com/`.
    pub resource: String,
    /// Reads what proves it.
    pub secrets: SecretReader,
    /// Where Arc's proofs are: [`identity::ARC_TOKENS`].
    pub arc_tokens: PathBuf,
}

/// Where an application's sign-in is kept. Calls may block on the disk.
pub trait Registration: Send + Sync + fmt::Debug {
    /// What is to be used now; none where it signed out.
    fn load(&self) -> Result<Option<Unattended>, AuthError>;
}

impl Registration for Unattended {
    fn load(&self) -> Result<Option<Unattended>, AuthError> {
        Ok(Some(self.clone()))
    }
}

impl CachedToken {
    /// Tokens of an application: asks `endpoint` whenever one is needed, with what `registration` says then.
    pub fn unattended(
        registration: Arc<dyn Registration>,
        endpoint: Arc<dyn TokenEndpoint>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let asking = Asking { registration, endpoint, clock: Arc::clone(&clock), refused: None };
        Self::new(asking, clock)
    }
}

#[derive(Debug)]
struct Asking {
    registration: Arc<dyn Registration>,
    endpoint: Arc<dyn TokenEndpoint>,
    clock: Arc<dyn Clock>,
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    /// Of what was shown.
    digest: [u8; 32],
    until: Instant,
    error: AuthError,
}

/// What is shown to the service.
struct Shown {
    /// Tells one proof from another.
    digest: [u8; 32],
    /// Fields of the form.
    fields: Vec<(&'static str, Secret)>,
}

impl Renew for Asking {
    fn renew(&mut self, claims: Option<String>) -> BoxFuture<'_, Result<Fresh, AuthError>> {
        Box::pin(self.ask(claims))
    }
}

impl Asking {
    async fn ask(&mut self, claims: Option<String>) -> Result<Fresh, AuthError> {
        let registration = Arc::clone(&self.registration);
        let loaded = tokio::task::spawn_blocking(move || registration.load()).await;
        let what = loaded.map_err(|error| AuthError::Network(Arc::new(error)))??;
        let what = what.ok_or_else(|| AuthError::SignedOut { reason: "nobody has signed in yet".into() })?;
        let url = what.application.client()?.token_url;
        let shown = what.shown(&url, self.clock.wall()).await?;
        let digest = shown.as_ref().map(|shown| shown.digest).unwrap_or_default();
        if let Some(refused) = &self.refused
            && refused.digest == digest
            && self.clock.mono() < refused.until
        {
            return Err(refused.error.clone());
        }
        let answer = match shown {
            Some(shown) => what.exchange(&*self.endpoint, &url, shown, claims).await,
            None => what.identity(&*self.endpoint, &*self.clock).await,
        };
        self.refused = match &answer {
            Err(error @ AuthError::Refused { .. }) => {
                let until = self.clock.mono() + PENANCE;
                Some(Refused { digest, until, error: error.clone() })
            }
            _ => None,
        };
        answer
    }
}

impl Unattended {
    async fn exchange(
        &self,
        endpoint: &dyn TokenEndpoint,
        url: &str,
        shown: Shown,
        claims: Option<String>,
    ) -> Result<Fresh, AuthError> {
        let scope = format!("{}/.default", self.resource.trim_end_matches('/'));
        let mut form = vec![
            ("grant_type", Secret::new("client_credentials")),
            ("client_id", Secret::new(&self.application.client_id)),
            ("scope", Secret::new(scope)),
        ];
        form.extend(shown.fields);
        form.extend(claims.map(|claims| ("claims", Secret::new(claims))));
        let answer = exchange::<Grant>(endpoint, url, form).await?;
        let grant = answer.map_err(Refusal::into_unattended)?;
        Ok(Fresh::new(AccessToken(grant.access_token), grant.expires_in))
    }

    async fn identity(&self, endpoint: &dyn TokenEndpoint, clock: &dyn Clock) -> Result<Fresh, AuthError> {
        let id = match &self.proof {
            Proof::ManagedIdentity { id } => id.as_deref(),
            _ => None,
        };
        let ask = identity::Ask { resource: &self.resource, id, arc_tokens: &self.arc_tokens };
        identity::token(endpoint, self.secrets.variables(), clock, &ask).await
    }

    /// None: the machine vouches for the application.
    async fn shown(&self, audience: &str, now: SystemTime) -> Result<Option<Shown>, AuthError> {
        let secrets = &self.secrets;
        Ok(Some(match &self.proof {
            Proof::ManagedIdentity { .. } => return Ok(None),
            Proof::ClientSecret { source } => {
                let secret = secrets.text(source).await?;
                let digest = Sha256::digest(secret.expose()).into();
                Shown { digest, fields: vec![("client_secret", secret)] }
            }
            Proof::Certificate { source, password, signing } => {
                let certificate = certificate(secrets, source, password.as_ref(), now).await?;
                let client_id = &self.application.client_id;
                let assertion = certificate.assertion(*signing, client_id, audience, now);
                let assertion = assertion.map_err(|error| unusable(source, error))?;
                Shown { digest: certificate.digest(), fields: asserted(assertion) }
            }
            Proof::FederatedToken { path } => {
                let token = secrets.text(&SecretSource::File(path.clone())).await?;
                let digest = Sha256::digest(token.expose()).into();
                Shown { digest, fields: asserted(token) }
            }
        }))
    }
}

/// Reads a certificate that is still good.
pub async fn certificate(
    secrets: &SecretReader,
    source: &SecretSource,
    password: Option<&SecretSource>,
    now: SystemTime,
) -> Result<ClientCertificate, AuthError> {
    let bytes = secrets.bytes(source).await?;
    let password = match password {
        Some(password) => Some(secrets.text(password).await?),
        None => None,
    };
    let certificate = ClientCertificate::read(&bytes, password.as_ref());
    let certificate = certificate.map_err(|error| unusable(source, error))?;
    if certificate.ends() <= now {
        let ended = Timestamp::from(certificate.ends()).to_rfc3339_seconds();
        let why = format!("the certificate expired at {ended}");
        let remedy = "make a new one, and upload its public part to the application's registration";
        return Err(trouble(source, &why, remedy));
    }
    Ok(certificate)
}

fn asserted(assertion: Secret) -> Vec<(&'static str, Secret)> {
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    vec![("client_assertion_type", Secret::new(kind)), ("client_assertion", assertion)]
}

fn unusable(source: &SecretSource, error: CertificateError) -> AuthError {
    AuthError::Credential { what: source.to_string(), why: error.why, remedy: error.remedy.to_owned() }
}
