//! From status and codes of an answer to the error it means (graph-api 7.5, 8.2, 11.4). Pure.

use std::time::Duration;

use super::error::{GraphError, Ids};

/// Which service answered: the same status means different things in different places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Graph itself.
    Graph,
    /// A pre-authenticated address that gives content.
    Content,
    /// The address of an upload session.
    Session,
}

/// An answer that is no success, without its body.
#[derive(Clone, Debug)]
pub struct Refused<'a> {
    /// Where it came from.
    pub place: Place,
    /// HTTP status.
    pub status: u16,
    /// Codes of the error body, outermost first.
    pub codes: &'a [String],
    /// From `Retry-After` and `RateLimit-Reset`.
    pub retry_after: Option<Duration>,
    /// From `Content-Range: bytes */total`.
    pub total: Option<u64>,
    /// To find the answer again.
    pub ids: Ids,
}

/// What the codes say, independent of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Locked,
    Name,
    TooLong,
    TooLarge,
    Quota,
    Malware,
    ReadOnly,
    Denied,
    NotFound,
    Exists,
    EditConflict,
    Stale,
    Framing,
    Resync,
    Unsupported,
    Throttled,
    SessionGone,
    Provisioning,
}

/// The codes that say more than the status; compared without regard to case.
const MEANINGS: &[(&str, Meaning)] = &[
    ("resourcelocked", Meaning::Locked),
    ("lockmismatch", Meaning::Locked),
    ("lockownermismatch", Meaning::Locked),
    ("locknotfoundoralreadyexpired", Meaning::Locked),
    ("namecontainsinvalidcharacters", Meaning::Name),
    ("pathcontainsinvalidcharacters", Meaning::Name),
    ("invalidpath", Meaning::Name),
    ("pathistoolong", Meaning::TooLong),
    ("parameteristoolong", Meaning::TooLong),
    ("pathtoodeep", Meaning::TooLong),
    ("maxfilesizeexceeded", Meaning::TooLarge),
    ("maxstreamsizeexceeded", Meaning::TooLarge),
    ("maxfragmentlengthexceeded", Meaning::TooLarge),
    ("childitemcountexceeded", Meaning::Quota),
    ("maxitemcountexceeded", Meaning::Quota),
    ("maxfoldercountexceeded", Meaning::Quota),
    ("maxdocumentcountexceeded", Meaning::Quota),
    ("quotalimitreached", Meaning::Quota),
    ("insufficientstorage", Meaning::Quota),
    ("malwaredetected", Meaning::Malware),
    ("virussuspicious", Meaning::Malware),
    ("servicereadonly", Meaning::ReadOnly),
    ("notallowed", Meaning::ReadOnly),
    ("accessdenied", Meaning::Denied),
    ("accessrestricted", Meaning::Denied),
    ("authorization_requestdenied", Meaning::Denied),
    ("itemnotfound", Meaning::NotFound),
    ("erroritemnotfound", Meaning::NotFound),
    ("resourcenotfound", Meaning::NotFound),
    ("uploadsessionnotfound", Meaning::SessionGone),
    ("namealreadyexists", Meaning::Exists),
    ("upload_name_conflict", Meaning::Exists),
    ("editconflict", Meaning::EditConflict),
    ("conflict", Meaning::EditConflict),
    ("resourcemodified", Meaning::Stale),
    ("entitytagdoesnotmatch", Meaning::Stale),
    ("fragmentlengthmismatch", Meaning::Framing),
    ("fragmentoutoforder", Meaning::Framing),
    ("fragmentoverlap", Meaning::Framing),
    ("fragmentinvalidrange", Meaning::Framing),
    ("invalidrange", Meaning::Framing),
    ("syncstatenotfound", Meaning::Resync),
    ("notsupported", Meaning::Unsupported),
    ("unsupported", Meaning::Unsupported),
    ("activitylimitreached", Meaning::Throttled),
    ("throttledrequest", Meaning::Throttled),
    ("toomanyrequests", Meaning::Throttled),
    ("resourcebeingprovisioned", Meaning::Provisioning),
];

fn meaning_of(code: &str) -> Option<Meaning> {
    let code = code.to_ascii_lowercase();
    if code.starts_with("resync") {
        return Some(Meaning::Resync);
    }
    MEANINGS.iter().find(|(known, _)| *known == code).map(|&(_, meaning)| meaning)
}

/// The code to show: the innermost that is known, else the outermost.
pub fn telling_code(codes: &[String]) -> Option<&str> {
    codes.iter().rev().find(|code| meaning_of(code).is_some()).or(codes.first()).map(String::as_str)
}

/// Whether the codes ask for a resync, and whether they say that the service's state is right in all cases.
pub fn resync(codes: &[String]) -> Option<ServerWins> {
    let lower: Vec<String> = codes.iter().map(|code| code.to_ascii_lowercase()).collect();
    let asked = lower.iter().any(|code| meaning_of(code) == Some(Meaning::Resync));
    asked.then(|| ServerWins(lower.iter().any(|code| code.ends_with("applydifferences"))))
}

/// The service's listing is complete and right (graph-api 9.5, …ApplyDifferences).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerWins(pub bool);

/// The error that `refused` means.
pub fn classify(refused: Refused<'_>) -> GraphError {
    let Refused { place, status, codes, retry_after, total, ids } = refused;
    let ids = ids.with_code(telling_code(codes));
    let meanings: Vec<Meaning> = codes.iter().rev().filter_map(|code| meaning_of(code)).collect();
    // A lock anywhere in the chain outranks the outer accessDenied (graph-api 8.2).
    if status == 423 || meanings.contains(&Meaning::Locked) {
        return GraphError::Locked { ids };
    }
    let throttled = matches!(status, 429 | 509) || meanings.contains(&Meaning::Throttled);
    if throttled || (status == 503 && retry_after.is_some()) {
        return GraphError::Throttled { retry_after, executed: false, ids };
    }
    if place == Place::Content
        && matches!(status, 401 | 403 | 404 | 410)
        && !meanings.contains(&Meaning::Malware)
    {
        return GraphError::UrlExpired { ids };
    }
    if place == Place::Session {
        match status {
            401 | 404 | 410 => return GraphError::SessionGone { ids },
            416 => return GraphError::FragmentRange { ids },
            _ => {}
        }
    }
    match meanings.first() {
        Some(&meaning) if status < 500 || status == 507 || meaning == Meaning::Unsupported => {
            by_meaning(meaning, place, status, retry_after, total, ids)
        }
        _ => by_status(place, status, total, ids),
    }
}

fn by_meaning(
    meaning: Meaning,
    place: Place,
    status: u16,
    retry_after: Option<Duration>,
    total: Option<u64>,
    ids: Ids,
) -> GraphError {
    match meaning {
        Meaning::Locked => GraphError::Locked { ids },
        Meaning::Name => GraphError::NameRefused { ids },
        Meaning::TooLong => GraphError::TooLong { ids },
        Meaning::TooLarge => GraphError::TooLarge { ids },
        Meaning::Quota => GraphError::QuotaExceeded { ids },
        Meaning::Malware => GraphError::Malware { ids },
        Meaning::ReadOnly => GraphError::AccessDenied { read_only: true, ids },
        Meaning::Denied => GraphError::AccessDenied { read_only: false, ids },
        Meaning::NotFound => GraphError::NotFound { ids },
        Meaning::Exists => GraphError::Exists { ids },
        Meaning::EditConflict => GraphError::EditConflict { ids },
        Meaning::Stale => GraphError::PreconditionFailed { ids },
        Meaning::Framing if place == Place::Session => GraphError::FragmentRange { ids },
        Meaning::Framing | Meaning::Resync => by_status(place, status, total, ids),
        Meaning::Unsupported => GraphError::Unsupported { ids },
        Meaning::Throttled => GraphError::Throttled { retry_after, executed: false, ids },
        Meaning::SessionGone => GraphError::SessionGone { ids },
        Meaning::Provisioning => GraphError::Throttled { retry_after, executed: false, ids },
    }
}

fn by_status(place: Place, status: u16, total: Option<u64>, ids: Ids) -> GraphError {
    match status {
        400 if place == Place::Session => GraphError::FragmentRange { ids },
        401 => GraphError::SignedOut { reason: "the service refuses a token that was just issued".into() },
        402 => GraphError::QuotaExceeded { ids },
        403 => GraphError::AccessDenied { read_only: false, ids },
        404 => GraphError::NotFound { ids },
        405 | 501 => GraphError::Unsupported { ids },
        409 => GraphError::EditConflict { ids },
        410 => GraphError::Resync { location: None, upload_differences: true, ids },
        412 => GraphError::PreconditionFailed { ids },
        413 => GraphError::TooLarge { ids },
        414 => GraphError::TooLong { ids },
        416 => GraphError::RangeNotSatisfiable { total, ids },
        507 => GraphError::QuotaExceeded { ids },
        408 | 500..=599 => GraphError::Server { ids },
        400..=499 => GraphError::Invalid { ids },
        _ => GraphError::Protocol { what: "unexpected status", executed: status < 300, ids },
    }
}
