//! Errors as the service answers them (graph-api 11.3, 11.4).

use std::borrow::Cow;

use serde_json::{Value, json};

use super::names::NameRefused;

type Text = Cow<'static, str>;

/// One refused request.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: Text,
    pub(crate) message: Text,
    /// Codes of the nested inner errors, outermost first.
    pub(crate) inner: Vec<Text>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(status: u16, code: impl Into<Text>, message: impl Into<Text>) -> Self {
        Self { status, code: code.into(), message: message.into(), inner: Vec::new(), headers: Vec::new() }
    }

    pub(crate) fn inner(mut self, code: impl Into<Text>) -> Self {
        self.inner.push(code.into());
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn not_found() -> Self {
        Self::new(404, "itemNotFound", "The resource could not be found.")
    }

    pub(crate) fn invalid(message: impl Into<Text>) -> Self {
        Self::new(400, "invalidRequest", message)
    }

    pub(crate) fn exists() -> Self {
        Self::new(409, "nameAlreadyExists", "An item with the same name already exists under the parent.")
    }

    pub(crate) fn precondition() -> Self {
        Self::new(412, "resourceModified", "ETag does not match current item's value.")
    }

    pub(crate) fn not_supported(message: impl Into<Text>) -> Self {
        Self::new(400, "notSupported", message)
    }

    pub(crate) fn quota() -> Self {
        Self::new(507, "quotaLimitReached", "Insufficient Space Available.")
    }

    /// The unknown function or segment that OData answers with its own code (graph-api 11.3).
    pub(crate) fn no_route() -> Self {
        Self::new(400, "BadRequest", "Resource not found for the segment.")
    }

    pub(crate) fn method(allowed: &'static str) -> Self {
        Self::new(405, "BadRequest", "The HTTP method is not allowed for this resource.")
            .header("allow", allowed)
    }

    /// The body; `date` has no zone (graph-api 11.3).
    pub(crate) fn body(&self, date: &str, request_id: &str, client_request_id: &str) -> Value {
        let mut inner = json!({
            "date": date,
            "request-id": request_id,
            "client-request-id": client_request_id,
        });
        for (depth, code) in self.inner.iter().rev().enumerate() {
            if depth == 0 {
                inner["code"] = json!(code);
            } else {
                inner = json!({"code": code, "innerError": inner});
            }
        }
        json!({"error": {"code": self.code, "message": self.message, "innerError": inner}})
    }
}

impl From<NameRefused> for ApiError {
    fn from(n: NameRefused) -> Self {
        Self::new(400, n.code, n.message).inner(n.inner)
    }
}

impl From<std::io::Error> for ApiError {
    fn from(e: std::io::Error) -> Self {
        Self::new(500, "generalException", e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_codes_nest_with_the_details_in_the_innermost() {
        let e = ApiError::new(423, "notAllowed", "x").inner("a").inner("b");
        let body = e.body("2026-01-01T00:00:00", "r", "c");
        assert_eq!(body["error"]["innerError"]["code"], "a");
        assert_eq!(body["error"]["innerError"]["innerError"]["code"], "b");
        assert_eq!(body["error"]["innerError"]["innerError"]["request-id"], "r");
    }
}
