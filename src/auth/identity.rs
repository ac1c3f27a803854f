//! Tokens of the machine's own identity (graph-api 1.6): virtual machines, App Service and Container Apps, Arc.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use url::Url;

use super::cached::Fresh;
use super::oauth::{get, network, number_or_text};
use super::secrets::Variables;
use super::{AccessToken, Answer, AuthError, Secret, TokenEndpoint};
use crate::clock::Clock;

/// Where a virtual machine asks; the variable is what Azure's own libraries know.
const IMDS: &str = "http://169.254.169.254";
const IMDS_VARIABLE: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
const IMDS_VERSION: &str = "2018-02-01";
const APP_SERVICE_VERSION: &str = "2019-08-01";
const ARC_VERSION: &str = "2019-11-01";
/// Where Arc's agent puts the proof that a reader may act as the machine, and its largest size in bytes.
pub const ARC_TOKENS: &str = "/var/opt/azcmagent/tokens";
const ARC_TOKEN_MAX: u64 = 4096;
/// A service that updates itself is asked again for so long.
const PATIENCE: Duration = Duration::from_secs(75);
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Names in small letters, and values.
type Headers = Vec<(&'static str, Secret)>;

/// Where this machine's tokens come from.
#[derive(Debug)]
enum Place {
    Machine { address: String },
    AppService { address: String, header: Secret },
    Arc { address: String },
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    /// The service a token is for: an address, not a scope.
    pub resource: &'a str,
    /// Which of several identities: an application id, `object:ID`, or a resource id with slashes.
    pub id: Option<&'a str>,
    /// Where Arc's proofs are.
    pub arc_tokens: &'a Path,
}

#[derive(Deserialize)]
struct Granted {
    access_token: Secret,
    #[serde(default, deserialize_with = "number_or_text")]
    expires_in: Option<u64>,
    #[serde(default, deserialize_with = "number_or_text")]
    expires_on: Option<u64>,
}

#[derive(Deserialize, Default)]
struct Refused {
    #[serde(default)]
    error_description: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

fn place(variables: &Variables) -> Result<Place, AuthError> {
    let said = |name: &str| variables(name).and_then(|it| it.into_string().ok()).filter(|it| !it.is_empty());
    Ok(match (said("IDENTITY_ENDPOINT"), said("IDENTITY_HEADER"), said("IMDS_ENDPOINT")) {
        (Some(address), Some(header), _) => Place::AppService { address, header: Secret::new(header) },
        (Some(address), None, Some(_)) => Place::Arc { address },
        _ => {
            let root = said(IMDS_VARIABLE).unwrap_or_else(|| IMDS.to_owned());
            let root = root.trim_end_matches('/');
            Place::Machine { address: format!("{root}/metadata/identity/oauth2/token") }
        }
    })
}

impl Place {
    fn request(&self, ask: &Ask<'_>) -> Result<(Url, Headers), AuthError> {
        let (address, version, names, headers) = match self {
            Self::Machine { address } => {
                let metadata = ("metadata", Secret::new("true"));
                (address, IMDS_VERSION, ["client_id", "object_id", "msi_res_id"], vec![metadata])
            }
            Self::AppService { address, header } => {
                let names = ["client_id", "principal_id", "mi_res_id"];
                (address, APP_SERVICE_VERSION, names, vec![("x-identity-header", header.clone())])
            }
            Self::Arc { .. } if ask.id.is_some() => {
                let what = "a machine of Azure Arc has one identity: leave the id of --managed-identity out";
                return Err(AuthError::Configuration { what: what.into() });
            }
            Self::Arc { address } => {
                (address, ARC_VERSION, ["", "", ""], vec![("metadata", Secret::new("true"))])
            }
        };
        let mut url = Url::parse(address).map_err(|_| AuthError::Configuration {
            what: format!("{address} is no address of an identity service: check IDENTITY_ENDPOINT"),
        })?;
        url.query_pairs_mut().append_pair("api-version", version).append_pair("resource", ask.resource);
        if let Some(id) = ask.id {
            let (name, value) = match id.strip_prefix("object:") {
                Some(object) => (names[1], object),
                None if id.contains('/') => (names[2], id),
                None => (names[0], id),
            };
            url.query_pairs_mut().append_pair(name, value);
        }
        Ok((url, headers))
    }
}

/// A token of the machine's identity. Asks again while the service updates itself (404, 410, 429, 5xx).
pub(super) async fn token(
    endpoint: &dyn TokenEndpoint,
    variables: &Variables,
    clock: &dyn Clock,
    ask: &Ask<'_>,
) -> Result<Fresh, AuthError> {
    let place = place(variables)?;
    let (url, headers) = place.request(ask)?;
    let began = clock.mono();
    let mut wait = FIRST_WAIT;
    let answer = loop {
        let answer = get(endpoint, &url, headers.clone()).await?;
        let passes = matches!(answer.status, 404 | 410 | 429 | 500..);
        if !passes || clock.mono() + wait > began + PATIENCE {
            break answer;
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    };
    let answer = match (&place, answer.status) {
        (Place::Arc { .. }, 401) => {
            let proof = arc_proof(&answer, ask.arc_tokens).await?;
            let proof = Secret::new(format!("Basic {}", proof.expose()));
            get(endpoint, &url, [headers, vec![("authorization", proof)]].concat()).await?
        }
        _ => answer,
    };
    granted(&answer, clock)
}

fn granted(answer: &Answer, clock: &dyn Clock) -> Result<Fresh, AuthError> {
    match answer.status {
        200 => {
            let granted: Granted = serde_json::from_slice(&answer.body)
                .map_err(|_| network("unreadable answer of the identity service".into()))?;
            let now = clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            // App Service says only when it ends.
            let seconds = granted.expires_in.or(granted.expires_on.map(|end| end.saturating_sub(now)));
            Ok(Fresh::new(AccessToken(granted.access_token), seconds))
        }
        400 | 401 | 403 => {
            let said: Refused = serde_json::from_slice(&answer.body).unwrap_or_default();
            let words = said.error_description.or(said.message).unwrap_or_default();
            let words = words.lines().next().unwrap_or_default();
            Err(AuthError::Refused {
                why: format!("it is refused ({} {words})", answer.status),
                remedy: "give this machine an identity, or check the id of --managed-identity".into(),
            })
        }
        status => Err(network(format!("the identity service: HTTP status {status}"))),
    }
}

/// The content of the file that the agent names: only who may read it acts as the machine.
async fn arc_proof(answer: &Answer, directory: &Path) -> Result<Secret, AuthError> {
    let trouble = |why: &str| AuthError::Credential {
        what: "the identity of this machine".into(),
        why: why.to_owned(),
        remedy: "run it as root or as a member of the group himds".into(),
    };
    let realm =
        answer.challenge.as_deref().and_then(|text| text.split_once("realm=")).map(|(_, realm)| realm);
    let path = PathBuf::from(realm.unwrap_or_default().trim().trim_matches('"'));
    // Nothing else on this machine is anybody's to have sent away.
    let is_proof = path.parent() == Some(directory) && path.extension().is_some_and(|it| it == "key");
    if !is_proof {
        return Err(trouble("its agent names a file that is no proof"));
    }
    let read = tokio::task::spawn_blocking(move || {
        let size = std::fs::metadata(&path)?.len();
        if size > ARC_TOKEN_MAX { Err(std::io::Error::other("too large")) } else { std::fs::read(&path) }
    });
    let bytes = read.await.map_err(|error| network(error.to_string()))?;
    let bytes = bytes.map_err(|error| trouble(&format!("its proof cannot be read: {error}")))?;
    // What the agent wrote is sent back as it is: it is base64 already.
    let text = String::from_utf8(bytes).unwrap_or_else(|error| STANDARD.encode(error.into_bytes()));
    Ok(Secret::new(text.trim()))
}
