//! Secrets of Azure Key Vault, through its REST interface.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;
use url::Url;

use super::oauth::{get, network};
use super::secrets::{SecretSource, trouble};
use super::{AuthError, Secret, TokenEndpoint, TokenSource};

const API_VERSION: &str = "7.4";
/// Where a vault is whose name has no dot.
const SUFFIX: &str = "vault.azure.net";

/// A secret in a vault: `[ACCOUNT@]VAULT/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultSecret {
    /// The account of this machine that reads it; none: the machine's managed identity.
    pub account: Option<String>,
    /// A vault's name, its host, or its address.
    vault: String,
    name: String,
}

impl FromStr for VaultSecret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let forms = || "write keyvault:VAULT/NAME or keyvault:ACCOUNT@VAULT/NAME".to_owned();
        let (account, rest) = match text.split_once('@') {
            Some((account, rest)) => (Some(account.to_owned()), rest),
            None => (None, text),
        };
        let (vault, name) = rest.rsplit_once('/').ok_or_else(forms)?;
        let name_fits = !name.is_empty() && name.chars().all(|it| it.is_ascii_alphanumeric() || it == '-');
        if vault.is_empty() || !name_fits || account.as_ref().is_some_and(String::is_empty) {
            return Err(forms());
        }
        let secret = Self { account, vault: vault.to_owned(), name: name.to_owned() };
        secret.address().ok_or_else(forms)?;
        Ok(secret)
    }
}

impl fmt::Display for VaultSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(account) = &self.account {
            write!(formatter, "{account}@")?;
        }
        write!(formatter, "{}/{}", self.vault, self.name)
    }
}

impl VaultSecret {
    fn root(&self) -> Option<Url> {
        let text = match () {
            () if self.vault.contains("://") => self.vault.clone(),
            () if self.vault.contains('.') => format!("https://{}", self.vault),
            () => format!("https://{}.{SUFFIX}", self.vault),
        };
        Url::parse(&text).ok().filter(|url| url.host_str().is_some() && matches!(url.path(), "" | "/"))
    }

    fn address(&self) -> Option<Url> {
        let mut url = self.root()?.join(&format!("secrets/{}", self.name)).ok()?;
        url.set_query(Some(&format!("api-version={API_VERSION}")));
        Some(url)
    }

    /// What a token for the vault is asked for: each cloud has its own, which is where its vaults are.
    pub fn resource(&self) -> String {
        let root = self.root();
        let host = root.as_ref().and_then(|root| root.host_str()).unwrap_or_default();
        match host.split_once('.') {
            Some((_, suffix)) if suffix.starts_with("vault.") => format!("https://{suffix}"),
            _ => format!("https://{SUFFIX}"),
        }
    }
}

/// Reads from vaults, as whoever the tokens belong to.
#[derive(Clone, Debug)]
pub struct Vault {
    endpoint: Arc<dyn TokenEndpoint>,
    tokens: Arc<dyn TokenSource>,
}

#[derive(Deserialize)]
struct Answer {
    value: Secret,
}

impl Vault {
    /// `tokens` are for [`VaultSecret::resource`].
    pub fn new(endpoint: Arc<dyn TokenEndpoint>, tokens: Arc<dyn TokenSource>) -> Self {
        Self { endpoint, tokens }
    }

    pub(super) async fn read(&self, secret: &VaultSecret) -> Result<Vec<u8>, AuthError> {
        let source = SecretSource::KeyVault(secret.clone());
        let address = secret.address().ok_or_else(|| trouble(&source, "it is no vault", "check its name"))?;
        let mut token = self.tokens.token().await?;
        let mut tries = 2;
        let answer = loop {
            let bearer = Secret::new(format!("Bearer {}", token.expose()));
            let answer = get(&*self.endpoint, &address, vec![("authorization", bearer)]).await?;
            tries -= 1;
            if answer.status != 401 || tries == 0 {
                break answer;
            }
            token = self.tokens.refresh(&token, None).await?;
        };
        let refused = |why: &str, remedy: &str| Err(trouble(&source, why, remedy));
        match answer.status {
            200 => match serde_json::from_slice::<Answer>(&answer.body) {
                Ok(answer) => Ok(answer.value.expose().as_bytes().to_vec()),
                Err(_) => refused("the vault's answer is unreadable", "check the vault's name"),
            },
            401 => refused(
                "the vault does not accept the token",
                "check that vault and reader belong to one tenant",
            ),
            403 => refused(
                "the vault refuses: no permission, or the secret is disabled or out of its time",
                "give whoever reads it the role 'Key Vault Secrets User', and look at the secret",
            ),
            404 => refused("the vault has no such secret", "check the secret's name"),
            status => Err(network(format!("vault: HTTP status {status}"))),
        }
    }
}
