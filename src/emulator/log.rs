//! The log of requests, for tests that count them.

use std::collections::BTreeMap;

use serde::Serialize;

/// One request as it arrived, with what became of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRecord {
    /// Counts from 1 since the start, not since the last reset.
    pub number: u64,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// The method.
    pub method: String,
    /// Percent-encoded path.
    pub path: String,
    /// Raw query.
    pub query: String,
    /// What it was, for counting: `item.get`, `children.list`, `delta`, `download`, `upload.fragment`...
    pub op: String,
    /// Answered status; 0 while under way, or when no answer was given.
    pub status: u16,
    /// Whether it carried an `Authorization` header.
    pub authorized: bool,
    /// The `Range` or `Content-Range` header.
    pub range: Option<String>,
    /// The `If-Match` header.
    pub if_match: Option<String>,
    /// The `client-request-id` header.
    pub client_request_id: Option<String>,
    /// The `Prefer` header.
    pub prefer: Option<String>,
    /// Bytes of the body, if announced.
    pub content_length: Option<u64>,
    /// It came inside a `$batch`.
    pub in_batch: bool,
    /// The fault that was applied.
    pub fault: Option<String>,
}

/// Records kept; older ones are dropped, the counts stay.
const MAX_RECORDS: usize = 200_000;

#[derive(Debug, Default)]
pub(crate) struct Log {
    records: std::collections::VecDeque<RequestRecord>,
    next: u64,
    counts: BTreeMap<String, u64>,
    sessions: u64,
}

impl Log {
    /// Numbers upload sessions.
    pub(crate) fn next_session(&mut self) -> u64 {
        self.sessions += 1;
        self.sessions
    }

    /// Returns the record's number.
    pub(crate) fn begin(&mut self, mut record: RequestRecord) -> u64 {
        self.next += 1;
        record.number = self.next;
        *self.counts.entry(record.op.clone()).or_default() += 1;
        if self.records.len() == MAX_RECORDS {
            self.records.pop_front();
        }
        self.records.push_back(record);
        self.next
    }

    fn record(&mut self, number: u64) -> Option<&mut RequestRecord> {
        let first = self.records.front()?.number;
        self.records.get_mut(usize::try_from(number.checked_sub(first)?).ok()?)
    }

    pub(crate) fn status(&mut self, number: u64, status: u16) {
        if let Some(record) = self.record(number) {
            record.status = status;
        }
    }

    pub(crate) fn fault(&mut self, number: u64, fault: &str) {
        if let Some(record) = self.record(number) {
            record.fault = Some(fault.to_owned());
        }
    }

    pub(crate) fn records(&self) -> Vec<RequestRecord> {
        self.records.iter().cloned().collect()
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.clone()
    }

    pub(crate) fn reset(&mut self) {
        self.records.clear();
        self.counts.clear();
    }
}
