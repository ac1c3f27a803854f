//! The version that a change was made from, when the service has another one by now (design 6).
//!
//! A file that was changed in part lies over the version it was opened with; its untouched part is fetched when it is read
//! or sealed. Where somebody replaced that version before, the service still has it among the versions of the item. It
//! says of them no hash (graph-api 3.3), so one that may be it is fetched whole and told by the hash that it had: what is
//! sent in the end is our change of that version, never a mix of two.

use std::sync::Arc;

use futures_util::StreamExt;

use super::{Engine, EngineError};
use crate::content::{Base, ContentKey, StagingError, StagingFile, StagingId};
use crate::graph::{Download, GraphError, Priority};
use crate::model::Hashes;
use crate::store::Durability;

/// At most so many versions of the right size are fetched.
const MOST: usize = 8;

impl Engine {
    /// Fills `file` from the version `key` of its item's history; false if the service does not have that any more, or
    /// nobody can tell which it is.
    pub(super) async fn fill_from_history(
        &self,
        file: &Arc<StagingFile>,
        key: &ContentKey,
    ) -> Result<bool, EngineError> {
        if key.version.hashes.is_empty() {
            return Ok(false);
        }
        let versions = self.0.graph.versions(&self.0.drive.id, &key.item, Priority::Upload).await;
        let Some(versions) = unless_refused(versions)? else { return Ok(false) };
        let mut found: Vec<Candidate> = Vec::new();
        for version in versions.iter().filter(|version| version.size == Some(key.size)).take(MOST) {
            let Some(old) = self.fetch_old(key, &version.id).await? else { continue };
            let (file, hashes) = (old.clone(), key.version.hashes.clone());
            let verdict = self.0.blocking.start(move || judge(&file, &hashes)).await.map_err(staging)?;
            match verdict {
                Verdict::Other => {}
                Verdict::Same => {
                    found = vec![Candidate { old, blake3: None }];
                    break;
                }
                Verdict::Probably { blake3 } => found.push(Candidate { old, blake3: Some(blake3) }),
            }
        }
        found.dedup_by_key(|candidate| candidate.blake3);
        let [Candidate { old, .. }] = &found[..] else { return Ok(false) };
        file.attach(Base::Sealed(old.clone()));
        file.fill_from_base().await.map_err(staging)?;
        tracing::info!(item = %key.item, "an earlier version was fetched for a change of it");
        Ok(true)
    }

    /// The bytes of a version in a staged file without a name;
    /// none if the service does not give them out.
    async fn fetch_old(
        &self,
        key: &ContentKey,
        version: &str,
    ) -> Result<Option<Arc<StagingFile>>, EngineError> {
        let (graph, drive) = (&self.0.graph, &self.0.drive.id);
        let download = graph.version_download(drive, &key.item, version, None, Priority::Upload).await;
        let Some(download) = unless_refused(download)? else { return Ok(None) };
        let inner = self.0.clone();
        let create = move || -> Result<_, EngineError> {
            let content = inner.store.write(Durability::Process, |tx| tx.next_content())?;
            let file = inner.staging.create(StagingId(content)).map_err(staging)?;
            // Its bytes stay for as long as it is open here, and a crash leaves nothing of it.
            inner.staging.unlink(StagingId(content)).map_err(staging)?;
            Ok(file)
        };
        let file = self.0.blocking.start(create).await?;
        self.save_to(download, &file).await?;
        Ok(Some(file))
    }

    /// Writes what is downloaded into `file`; returns how many bytes.
    pub(super) async fn save_to(
        &self,
        mut download: Download,
        file: &Arc<StagingFile>,
    ) -> Result<u64, EngineError> {
        let mut at = 0;
        while let Some(chunk) = download.body.next().await {
            let (chunk, part) = (chunk?, file.clone());
            let len = chunk.len() as u64;
            self.0.blocking.start(move || part.write(at, &chunk)).await.map_err(staging)?;
            at += len;
        }
        Ok(at)
    }
}

/// A version that may be the one.
struct Candidate {
    old: Arc<StagingFile>,
    /// Of its bytes; none where a strong hash has told already.
    blake3: Option<[u8; 32]>,
}

/// Whether bytes are those of a version that is known by its hashes.
enum Verdict {
    Same,
    /// The quickXorHash is: of several such, nobody can tell which.
    Probably {
        blake3: [u8; 32],
    },
    Other,
}

/// Waits for the disk.
fn judge(file: &Arc<StagingFile>, hashes: &Hashes) -> Result<Verdict, StagingError> {
    match file.has_hash(hashes)? {
        Some(true) => return Ok(Verdict::Same),
        Some(false) => return Ok(Verdict::Other),
        None => {}
    }
    let sealed = file.seal()?;
    let same = hashes.quick_xor == Some(sealed.quick_xor);
    Ok(if same { Verdict::Probably { blake3: sealed.blake3 } } else { Verdict::Other })
}

/// What the service will never give is none; what it may give later is the error.
fn unless_refused<T>(answer: Result<T, GraphError>) -> Result<Option<T>, EngineError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(
            GraphError::NotFound { .. }
            | GraphError::Invalid { .. }
            | GraphError::Unsupported { .. }
            | GraphError::AccessDenied { .. }
            | GraphError::Malware { .. },
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn staging(error: StagingError) -> EngineError {
    GraphError::Configuration { what: format!("unsent content: {error}") }.into()
}
