//! Where a secret is, and how it is read: at each request for a token, so that a new one is found without a restart.
//!
//! Only the words of the [`SecretSource`] are ever kept or shown, never what it leads to.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use super::vault::{Vault, VaultSecret};
use super::{AuthError, Secret};

/// Nothing that is a secret is larger.
const MAX_BYTES: u64 = 1 << 20;
/// So long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SecretSource {
    /// `file:PATH`
    File(PathBuf),
    /// `credential:NAME`: of the systemd unit, below `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// `env:NAME`
    Env(String),
    /// `command:…`: what a shell's command prints.
    Command(String),
    /// `keyvault:[ACCOUNT@]VAULT/NAME`
    KeyVault(VaultSecret),
}

/// What is said of a source that is none. The words are not repeated: they may be the secret itself.
const FORMS: &str = "write file:PATH, credential:NAME, env:NAME, command:COMMAND or keyvault:VAULT/NAME; a secret \
    itself is not taken, because arguments can be seen by everybody";

impl FromStr for SecretSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let forms = || FORMS.to_owned();
        let (kind, rest) = text.split_once(':').filter(|(_, rest)| !rest.is_empty()).ok_or_else(forms)?;
        Ok(match kind {
            "file" => Self::File(PathBuf::from(rest)),
            "credential" if rest.contains('/') || rest.starts_with('.') => {
                return Err("a credential's name has no slash; write credential:NAME".into());
            }
            "credential" => Self::Credential(rest.to_owned()),
            "env" if rest.contains('=') => return Err("write the variable's name only: env:NAME".into()),
            "env" => Self::Env(rest.to_owned()),
            "command" => Self::Command(rest.to_owned()),
            "keyvault" => Self::KeyVault(rest.parse()?),
            _ => return Err(forms()),
        })
    }
}

impl TryFrom<String> for SecretSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<SecretSource> for String {
    fn from(source: SecretSource) -> Self {
        source.to_string()
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "file:{}", path.display()),
            Self::Credential(name) => write!(formatter, "credential:{name}"),
            Self::Env(name) => write!(formatter, "env:{name}"),
            Self::Command(words) => write!(formatter, "command:{words}"),
            Self::KeyVault(secret) => write!(formatter, "keyvault:{secret}"),
        }
    }
}

/// What a source gave: text, or a certificate's bytes. Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, for a request or a key only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretBytes(hidden)")
    }
}

/// Looks up a variable of the process's environment.
pub type Variables = Arc<dyn Fn(&str) -> Option<OsString> + Send + Sync>;

/// Reads secrets.
#[derive(Clone)]
pub struct SecretReader {
    variables: Variables,
    /// Needed by `keyvault:` only.
    vault: Option<Vault>,
}

impl fmt::Debug for SecretReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SecretReader").field("vault", &self.vault).finish_non_exhaustive()
    }
}

impl SecretReader {
    /// Reads with these variables, and from key vaults where there is one.
    pub fn new(variables: Variables, vault: Option<Vault>) -> Self {
        Self { variables, vault }
    }

    /// What it looks variables up with.
    pub(super) fn variables(&self) -> &Variables {
        &self.variables
    }

    /// The secret as one line of text.
    ///
    /// `Credential` says what to do where there is none; `Network` where a vault does not answer. Cancel-safe.
    pub async fn text(&self, source: &SecretSource) -> Result<Secret, AuthError> {
        let bytes = self.bytes(source).await?;
        let text = std::str::from_utf8(bytes.expose()).map_err(|_| {
            trouble(source, "it is no text", "give the secret's value, as the service showed it")
        })?;
        let text = text.trim();
        if text.contains(['\n', '\r', '\0']) {
            return Err(trouble(source, "it has several lines", "leave only the secret in it"));
        }
        Ok(Secret::new(text))
    }

    /// The secret as it is, and not empty. As [`SecretReader::text`].
    pub async fn bytes(&self, source: &SecretSource) -> Result<SecretBytes, AuthError> {
        let bytes = match source {
            SecretSource::File(path) => read_file(source, path.clone()).await?,
            SecretSource::Credential(name) => {
                let directory = (self.variables)("CREDENTIALS_DIRECTORY").filter(|it| !it.is_empty());
                let directory = directory.ok_or_else(|| {
                    let remedy = format!("run it as a service of systemd with LoadCredential={name}:PATH");
                    trouble(source, "no credentials were passed to this process", &remedy)
                })?;
                read_file(source, PathBuf::from(directory).join(name)).await?
            }
            SecretSource::Env(name) => {
                let value = (self.variables)(name);
                let value = value.ok_or_else(|| {
                    trouble(source, "the variable is not set", "set it, also for the daemon")
                })?;
                value.into_encoded_bytes()
            }
            SecretSource::Command(words) => run(source, words).await?,
            SecretSource::KeyVault(secret) => {
                let vault = self.vault.as_ref();
                let vault =
                    vault.ok_or_else(|| trouble(source, "no vault can be asked here", "use a file"))?;
                vault.read(secret).await?
            }
        };
        if bytes.trim_ascii().is_empty() {
            return Err(trouble(source, "it is empty", "put the secret there"));
        }
        Ok(SecretBytes(bytes))
    }
}

/// A secret that cannot be used.
pub(super) fn trouble(source: &SecretSource, why: &str, remedy: &str) -> AuthError {
    AuthError::Credential { what: source.to_string(), why: why.to_owned(), remedy: remedy.to_owned() }
}

async fn read_file(source: &SecretSource, path: PathBuf) -> Result<Vec<u8>, AuthError> {
    let failed = |error: std::io::Error| {
        let remedy = format!("put the secret into {}, readable by this user", path.display());
        trouble(source, &format!("it cannot be read: {error}"), &remedy)
    };
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(&path).await.map_err(failed)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    too_large(source, &bytes)?;
    Ok(bytes)
}

fn too_large(source: &SecretSource, bytes: &[u8]) -> Result<(), AuthError> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(trouble(source, "it is larger than 1 MiB", "leave only the secret in it"));
    }
    Ok(())
}

/// What a command prints. What it says besides is shown nowhere: it might be the secret.
async fn run(source: &SecretSource, words: &str) -> Result<Vec<u8>, AuthError> {
    let failed = |why: String| trouble(source, &why, "run it by hand as this user, and see what it says");
    let mut command = tokio::process::Command::new("/bin/sh");
    command.args(["-c", words]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child =
        command.kill_on_drop(true).spawn().map_err(|error| failed(format!("it cannot be run: {error}")))?;
    let stdout = child.stdout.take().expect("it was asked for above");
    let finish = async {
        let mut bytes = Vec::new();
        stdout.take(MAX_BYTES + 1).read_to_end(&mut bytes).await?;
        if bytes.len() as u64 <= MAX_BYTES {
            return Ok((child.wait().await?, bytes));
        }
        child.kill().await?;
        Ok::<_, std::io::Error>((child.wait().await?, bytes))
    };
    let (status, bytes) = tokio::time::timeout(COMMAND_LIMIT, finish)
        .await
        .map_err(|_| failed(format!("it did not end within {} s", COMMAND_LIMIT.as_secs())))?
        .map_err(|error| failed(format!("it cannot be read: {error}")))?;
    too_large(source, &bytes)?;
    if !status.success() {
        return Err(failed(format!("it failed ({status})")));
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
