//! Faults that tests ask for: which requests they hit, and what happens then.

use serde::{Deserialize, Serialize};

/// One fault. All given conditions must hold; without any it hits every request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// The method, exactly.
    #[serde(default)]
    pub method: Option<String>,
    /// Part of the percent-encoded path with query; `*` matches anything.
    #[serde(default)]
    pub path: Option<String>,
    /// The name of the operation as in the request log: `download`, `upload.fragment`...
    #[serde(default)]
    pub op: Option<String>,
    /// Matching requests to let pass first.
    #[serde(default)]
    pub skip: u32,
    /// Matching requests to hit after that; `None` means all.
    #[serde(default = "once")]
    pub count: Option<u32>,
    /// What happens.
    pub action: FaultAction,
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's type")]
fn once() -> Option<u32> {
    Some(1)
}

/// What a fault does. `after`: when the request has taken effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum FaultAction {
    /// Answers this status and code.
    Status {
        /// HTTP status.
        status: u16,
        /// Outer code of the error body.
        #[serde(default)]
        code: Option<String>,
        /// Inner code.
        #[serde(default)]
        inner: Option<String>,
        /// `Retry-After` as sent: integer, decimal or date (graph-api 11.1).
        #[serde(default)]
        retry_after: Option<String>,
        /// When the request has taken effect.
        #[serde(default)]
        after: bool,
    },
    /// Answers HTML, as data hosts and gateways do (graph-api 11.3).
    Html {
        /// HTTP status.
        status: u16,
    },
    /// The connection goes away without an answer.
    Reset {
        /// When the request has taken effect.
        #[serde(default)]
        after: bool,
    },
    /// No answer until released.
    Stall {
        /// When the request has taken effect.
        #[serde(default)]
        after: bool,
    },
    /// Waits before the request is looked at.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// The answer's body breaks with an error after `at` bytes.
    ResetBody {
        /// Bytes sent before.
        at: u64,
    },
    /// The answer's body ends after `at` bytes, short of its Content-Length.
    TruncateBody {
        /// Bytes sent before.
        at: u64,
    },
    /// The answer is a shorter one that looks complete.
    ShortenBody {
        /// Bytes sent.
        at: u64,
    },
    /// The answer's body stops after `at` bytes until released.
    StallBody {
        /// Bytes sent before.
        at: u64,
    },
    /// One byte of the answer's body is wrong.
    CorruptBody {
        /// Its offset.
        at: u64,
    },
    /// The answer comes without its body.
    EmptyBody,
}

impl FaultAction {
    /// Answers `status` with this outer code, before the request has taken effect.
    pub fn status(status: u16, code: &str) -> Self {
        Self::Status { status, code: Some(code.into()), inner: None, retry_after: None, after: false }
    }
}

/// Refuses requests of the Graph plane and the data plane by their number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Throttle {
    /// Requests allowed in each window; refused ones count too (graph-api 11.1).
    pub limit: u64,
    /// Length of the window in milliseconds.
    pub window_ms: u64,
    /// 429, 503 or 509.
    #[serde(default = "too_many")]
    pub status: u16,
    /// `Retry-After` as sent; `None`: seconds to the end of the window; `Some("")`: no header.
    #[serde(default)]
    pub retry_after: Option<String>,
}

fn too_many() -> u16 {
    429
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    active: Vec<Active>,
    pub(crate) throttle: Option<Throttle>,
    window: (i64, u64),
    pub(crate) latency_ms: u64,
    /// Bytes per second and direction of each connection.
    pub(crate) bandwidth: Option<u64>,
    next: u64,
}

#[derive(Debug)]
struct Active {
    id: u64,
    seen: u32,
    fault: Fault,
}

impl Faults {
    pub(crate) fn inject(&mut self, fault: Fault) -> u64 {
        self.next += 1;
        self.active.push(Active { id: self.next, seen: 0, fault });
        self.next
    }

    pub(crate) fn clear(&mut self) {
        self.active.clear();
        self.throttle = None;
    }

    pub(crate) fn remove(&mut self, id: u64) {
        self.active.retain(|a| a.id != id);
    }

    /// The first fault that hits this request; those matched but not due count it.
    pub(crate) fn pick(&mut self, method: &str, target: &str, op: &str) -> Option<FaultAction> {
        for a in &mut self.active {
            let f = &a.fault;
            let hit = f.method.as_ref().is_none_or(|m| m.eq_ignore_ascii_case(method))
                && f.path.as_ref().is_none_or(|p| wildcard(p, target))
                && f.op.as_ref().is_none_or(|o| o == op);
            if !hit {
                continue;
            }
            a.seen += 1;
            let due = a.seen > f.skip && f.count.is_none_or(|c| a.seen - f.skip <= c);
            if due {
                return Some(f.action.clone());
            }
        }
        None
    }

    /// Counts a request; the status and Retry-After when it is one too many.
    pub(crate) fn throttled(&mut self, now: i64) -> Option<(u16, Option<String>)> {
        let t = self.throttle.as_ref()?;
        let length = i64::try_from(t.window_ms).unwrap_or(i64::MAX).max(1);
        if now >= self.window.0.saturating_add(length) {
            self.window = (now, 0);
        }
        self.window.1 += 1;
        if self.window.1 <= t.limit {
            return None;
        }
        let left = (self.window.0 + length - now + 999) / 1000;
        let after = match t.retry_after.as_deref() {
            None => Some(left.to_string()),
            Some("") => None,
            Some(text) => Some(text.to_owned()),
        };
        Some((t.status, after))
    }
}

/// Whether `pattern` occurs in `text`, `*` standing for anything.
fn wildcard(pattern: &str, text: &str) -> bool {
    let mut rest = text;
    pattern.split('*').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(path: &str, skip: u32, count: Option<u32>) -> Fault {
        let action = FaultAction::Reset { after: false };
        Fault { method: Some("GET".into()), path: Some(path.into()), op: None, skip, count, action }
    }

    #[test]
    fn a_fault_hits_the_nth_match_and_no_more_than_its_count() {
        let mut faults = Faults::default();
        faults.inject(fault("/items/*/children", 1, Some(2)));
        let mut hit = |m: &str, p: &str| faults.pick(m, p, "").is_some();
        assert!(!hit("GET", "/v1.0/drives/d/items/x/children"));
        assert!(!hit("POST", "/v1.0/drives/d/items/x/children"));
        assert!(!hit("GET", "/v1.0/drives/d/items/x"));
        assert!(hit("GET", "/v1.0/drives/d/items/x/children"));
        assert!(hit("GET", "/v1.0/drives/d/items/y/children?$top=1"));
        assert!(!hit("GET", "/v1.0/drives/d/items/y/children"));
    }

    #[test]
    fn a_throttle_lets_its_limit_pass_in_each_window() {
        let mut faults = Faults::default();
        let t = Throttle { limit: 2, window_ms: 10_000, status: 429, retry_after: None };
        faults.throttle = Some(t);
        assert_eq!(faults.throttled(1_000_000), None);
        assert_eq!(faults.throttled(1_000_000), None);
        assert_eq!(faults.throttled(1_004_000), Some((429, Some("6".into()))));
        assert_eq!(faults.throttled(1_010_000), None);
    }
}
