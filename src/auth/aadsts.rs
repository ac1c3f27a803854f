//! What the codes of the sign-in service mean, and what to do about each.
//!
//! Codes choose words only; what the program does follows from `error` (graph-api 1.7).

/// A sentence for a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What is wrong.
    pub why: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

/// What `AADSTS<code>` means (graph-api 1.3 to 1.7; some of the application's own are long-standing knowledge).
pub fn explain(code: u64) -> Option<Explanation> {
    let (why, remedy) = person(code).or_else(|| registration(code)).or_else(|| unattended(code))?;
    Some(Explanation { why, remedy })
}

type Words = (&'static str, &'static str);

/// What the person who signs in can do something about.
fn person(code: u64) -> Option<Words> {
    Some(match code {
        50074 | 50076 | 50078 | 50079 => ("a second factor is needed", "sign in again"),
        50132 | 50133 | 50173 | 70008 | 700_082 => {
            ("the session was revoked, unused for too long, or the password changed", "sign in again")
        }
        50131 | 53000 | 53001 | 53003 | 53004 => {
            ("blocked by conditional access (device or location)", "ask the administrator")
        }
        65001 | 65004 | 65005 | 90094 => (
            "consent is missing, was declined or needs an administrator",
            "sign in again, or have an administrator run 'onedrivefs login --admin-consent'",
        ),
        50105 => ("the user is not assigned to the application", "ask the administrator"),
        50020 | 50034 | 51004 => ("the account is unknown in this tenant", "give another --tenant"),
        50057 => ("the account is disabled", "ask the administrator"),
        50196 => ("too many requests for tokens", "wait some minutes"),
        54005 | 70000 => ("the code from the browser was used or damaged", "sign in again"),
        70016 => ("the sign-in is not finished in the browser", "finish it there"),
        70019 | 70020 => ("the code to enter is too old or unknown", "sign in again"),
        _ => return None,
    })
}

/// What the registration of the application, or what is said of it, is at fault for.
fn registration(code: u64) -> Option<Words> {
    Some(match code {
        50011 | 50194 | 9_002_346 => (
            "the application's registration does not fit",
            "it must allow the kind of account (--tenant; without a person, an organisation's id or domain) and the \
             redirect address http://localhost",
        ),
        50128 | 90002 | 700_016 | 900_023 => {
            ("wrong client id or tenant", "check --client-id and --tenant; without a person, give both")
        }
        50001 | 500_011 | 70011 | 1_002_012 => (
            "the service or the scopes asked for are unknown here",
            "check --cloud, --graph-url and --scopes",
        ),
        7_000_218 => (
            "the application does not allow public clients",
            "turn on 'Allow public client flows' in its registration",
        ),
        7_000_112 => ("the application is disabled", "ask the administrator"),
        7_000_229 => (
            "the application has no service principal in this tenant",
            "run: az ad sp create --id ID, or have an administrator run 'onedrivefs login --admin-consent'",
        ),
        _ => return None,
    })
}

/// What an application without a person proves itself by (graph-api 1.5, 1.6).
fn unattended(code: u64) -> Option<Words> {
    Some(match code {
        7_000_215 => ("wrong client secret", "give its value, not its id"),
        7_000_216 => ("no secret, certificate or federated token was given", "give one of them"),
        7_000_222 => ("the client secret has expired", "make a new one in the application's registration"),
        700_021 | 700_023 => (
            "the certificate's proof is for another application or tenant",
            "check --client-id, --tenant and --cloud",
        ),
        700_024 => ("the certificate's proof is out of its time", "check this machine's clock"),
        700_027 => {
            ("the certificate is not known to the application", "upload its public part to its registration")
        }
        700_211 | 700_213 => (
            "no federated credential fits",
            "check issuer and subject of the federated credential in the application's registration",
        ),
        700_212 => (
            "the federated token is for somebody else",
            "its audience must be api://AzureADTokenExchange, as in the federated credential",
        ),
        _ => return None,
    })
}
