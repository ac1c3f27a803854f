//! How an application proves who it is: the flags of `login` for signing in without a person.

use std::path::PathBuf;

use clap::ValueEnum;

use super::output::CliError;
use crate::config::Environment;
use crate::daemon::exit;
use crate::daemon::signin::{Proof, SecretSource, Signing};

/// Flags that exclude each other, but for those about the certificate.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Without a person, one of")]
pub struct Args {
    /// The application's secret is there: file:PATH, credential:NAME (of systemd), env:NAME, command:COMMAND, or
    /// keyvault:[ACCOUNT@]VAULT/NAME. It is read whenever a token is needed
    #[arg(long, value_name = "SOURCE", group = "proof")]
    client_secret: Option<String>,
    /// The application's certificate and key are there, PEM or PKCS#12; SOURCE as above
    #[arg(long, value_name = "SOURCE", group = "proof")]
    certificate: Option<String>,
    /// The password of the certificate's key is there
    #[arg(long, value_name = "SOURCE", requires = "certificate")]
    certificate_password: Option<String>,
    /// How the certificate's key signs
    #[arg(long, value_enum, value_name = "HOW", requires = "certificate")]
    certificate_signing: Option<Algorithm>,
    /// What this machine is to Azure; of several identities the one with this application id, object:ID or resource id
    #[arg(long, value_name = "ID", num_args = 0..=1, require_equals = true, group = "proof")]
    managed_identity: Option<Option<String>>,
    /// A token of a service that this one trusts, such as Kubernetes
    #[arg(long, value_name = "PATH", group = "proof")]
    federated_token_file: Option<PathBuf>,
}

/// How proofs are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Algorithm {
    /// PS256, the certificate named by its SHA-256 (usual)
    Ps256,
    /// RS256, the certificate named by its SHA-1
    Rs256,
}

impl From<Algorithm> for Signing {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Ps256 => Self::Ps256,
            Algorithm::Rs256 => Self::Rs256,
        }
    }
}

impl Args {
    /// Whether anything was said.
    pub fn is_given(&self) -> bool {
        let said = [&self.client_secret, &self.certificate].into_iter().any(Option::is_some);
        said || self.managed_identity.is_some() || self.federated_token_file.is_some()
    }

    /// This, or if nothing was said, what `word` gives for each flag.
    pub fn or(self, word: impl Fn(&str) -> Option<String>) -> Self {
        if self.is_given() {
            return self;
        }
        Self {
            client_secret: word("client-secret"),
            certificate: word("certificate"),
            certificate_password: word("certificate-password"),
            certificate_signing: None,
            managed_identity: None,
            federated_token_file: word("federated-token-file").map(PathBuf::from),
        }
    }

    /// What was said; none: a person signs in.
    pub fn proof(&self) -> Result<Option<Proof>, CliError> {
        if let Some(text) = &self.client_secret {
            return Ok(Some(Proof::ClientSecret { source: source("--client-secret", text)? }));
        }
        if let Some(text) = &self.certificate {
            let password = self.certificate_password.as_ref();
            return Ok(Some(Proof::Certificate {
                source: source("--certificate", text)?,
                password: password.map(|text| source("--certificate-password", text)).transpose()?,
                signing: self.certificate_signing.map(Signing::from).unwrap_or_default(),
            }));
        }
        if let Some(path) = &self.federated_token_file {
            return Ok(Some(Proof::FederatedToken { path: absolute(path.clone())? }));
        }
        Ok(self.managed_identity.as_ref().map(|id| Proof::ManagedIdentity { id: id.clone() }))
    }
}

/// What Kubernetes says to the programs it signs in (graph-api 1.6): application id, tenant, sign-in service.
pub fn of_workload(environment: &Environment) -> [Option<String>; 3] {
    ["AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_AUTHORITY_HOST"].map(|name| {
        let value = environment.variable(name).filter(|value| !value.is_empty());
        value.map(|value| value.to_string_lossy().into_owned())
    })
}

/// The words are not repeated: they may be the secret itself.
fn source(flag: &str, text: &str) -> Result<SecretSource, CliError> {
    let source: SecretSource = text.parse().map_err(|remedy: String| {
        CliError::new(exit::USAGE, flag, "what follows is no place of a secret", remedy)
    })?;
    Ok(match source {
        SecretSource::File(path) => SecretSource::File(absolute(path)?),
        other => other,
    })
}

/// The daemon works in another directory than the shell.
fn absolute(path: PathBuf) -> Result<PathBuf, CliError> {
    std::path::absolute(&path)
        .map_err(|error| CliError::new(exit::USAGE, path.display(), error, "give the path of a file"))
}
