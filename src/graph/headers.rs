//! What the headers of an answer say.

use std::time::Duration;

use http::Response;
use http::header::{self, HeaderMap};
use url::Url;

use super::error::Ids;
use super::limiter::RateLimit;
use crate::auth::oauth::decode_claims;

/// The ids to find the answer again by.
pub(super) fn ids_of<B>(response: &Response<B>, client_request: &str) -> Ids {
    let text = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
    let request = text("request-id").or_else(|| text("sprequestguid"));
    Ids::new(response.status().as_u16(), Some(client_request.to_owned()), request)
}

/// Where a redirect leads.
pub(super) fn location<B>(response: &Response<B>, base: &Url) -> Option<Url> {
    location_header(response.headers(), base)
}

/// The address in `Location`, which may be relative.
pub(super) fn location_header(headers: &HeaderMap, base: &Url) -> Option<Url> {
    base.join(headers.get(header::LOCATION)?.to_str().ok()?).ok()
}

/// The service's own account of what is left (graph-api 11.1).
pub(super) fn rate_limit(headers: &HeaderMap) -> Option<RateLimit> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let finite = |number: f64| number.is_finite().then_some(number.max(0.0));
    Some(RateLimit {
        limit: finite(number("ratelimit-limit")?)?,
        remaining: finite(number("ratelimit-remaining")?)?,
        reset: Duration::from_secs_f64(finite(number("ratelimit-reset")?)?.min(3600.0)),
    })
}

/// The claims of a challenge in any of the `WWW-Authenticate` headers (graph-api 1.9).
pub(super) fn claims_challenge(headers: &HeaderMap) -> Option<String> {
    headers.get_all(header::WWW_AUTHENTICATE).iter().find_map(|challenge| {
        let text = challenge.to_str().ok()?;
        let after = text.split_once("claims=")?.1.trim_start_matches('"');
        decode_claims(after.split(['"', ',', ' ']).next()?)
    })
}

/// The total of `Content-Range: bytes a-b/total` or `bytes */total`.
pub(super) fn content_range_total(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_RANGE)?.to_str().ok()?.rsplit_once('/')?.1.trim().parse().ok()
}
