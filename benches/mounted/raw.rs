//! The same downloads by hand: what HTTP allows, without a file system above it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::Client;
use reqwest::header::{AUTHORIZATION, RANGE};
use tokio::runtime::Runtime;

use super::MIB;

/// Length of a range: what large downloads are made of.
const PIECE: u64 = 8 * MIB;

/// What the program asks of each item of an enumeration.
const SELECTED: &str = "id,name,size,eTag,cTag,createdDateTime,lastModifiedDateTime,lastModifiedBy,fileSystemInfo,\
    parentReference,file,folder,package,root,deleted,remoteItem,malware,webUrl";

/// CPU time of this thread, in nanoseconds.
pub fn thread_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) writes one timespec, which is ours.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "every thread has this clock");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A client of the service that knows nothing but HTTP.
pub struct Raw {
    runtime: Runtime,
    service: String,
}

impl Raw {
    pub fn new(service: String) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self { runtime: runtime.expect("a runtime"), service }
    }

    /// Asks for the item's address, then for its content in ranges, `at_once` at a time, into `to`.
    pub fn download(&self, name: &str, size: u64, at_once: usize, to: &Path) {
        let file = Arc::new(File::create(to).expect("a file"));
        let next = Arc::new(AtomicU64::new(0));
        self.runtime.block_on(async {
            let client = client();
            let url = self.address(&client, name).await;
            let workers: Vec<_> = (0..at_once)
                .map(|_| {
                    let (client, url) = (client.clone(), url.clone());
                    let (file, next) = (Arc::clone(&file), Arc::clone(&next));
                    tokio::spawn(async move {
                        loop {
                            let start = next.fetch_add(PIECE, Ordering::Relaxed);
                            if start >= size {
                                return;
                            }
                            range(&client, &url, start, size.min(start + PIECE), &file).await;
                        }
                    })
                })
                .collect();
            for worker in workers {
                worker.await.expect("every range arrives");
            }
        });
    }

    /// Asks for the item's address, then for its first block.
    pub fn first_byte(&self, name: &str) {
        self.runtime.block_on(async {
            let client = client();
            let url = self.address(&client, name).await;
            let answer = client.get(&url).header(RANGE, "bytes=0-131071").send().await.expect("an answer");
            assert_eq!(answer.bytes().await.expect("a body").len(), 131_072);
        });
    }

    /// CPU seconds to parse so many pages of the drive's enumeration, from its beginning, and nothing else.
    pub fn parse_delta(&self, pages: u64) -> f64 {
        let mut next = Some(format!("{}/v1.0/me/drive/root/delta?$select={SELECTED}", self.service));
        let mut nanos = 0;
        let client = client();
        for _ in 0..pages {
            let Some(url) = next else { break };
            let body = self.runtime.block_on(async {
                let answer =
                    client.get(&url).header(AUTHORIZATION, "Bearer x").send().await.expect("an answer");
                answer.bytes().await.expect("a body")
            });
            let before = thread_nanos();
            let page: serde_json::Value = serde_json::from_slice(&body).expect("a page");
            nanos += thread_nanos() - before;
            next = page["@odata.nextLink"].as_str().map(str::to_owned);
        }
        nanos as f64 / 1e9
    }

    /// Where the content of a file is.
    pub fn address_of(&self, name: &str) -> String {
        self.runtime.block_on(async { self.address(&client(), name).await })
    }

    async fn address(&self, client: &Client, name: &str) -> String {
        let item = format!("{}/v1.0/me/drive/root:/{name}", self.service);
        let answer = client.get(item).header(AUTHORIZATION, "Bearer x").send().await.expect("an answer");
        let body = answer.bytes().await.expect("a body");
        let item: serde_json::Value = serde_json::from_slice(&body).expect("an item");
        item["@microsoft.graph.downloadUrl"].as_str().expect("an address").to_owned()
    }
}

/// One connection for each transfer, as the content client has.
fn client() -> Client {
    // Another client of this process may have chosen it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().http1_only().no_proxy().build().expect("a client")
}

async fn range(client: &Client, url: &str, start: u64, end: u64, file: &File) {
    let range = format!("bytes={start}-{}", end - 1);
    let mut answer = client.get(url).header(RANGE, range).send().await.expect("an answer");
    assert_eq!(answer.status(), 206);
    let mut at = start;
    while let Some(chunk) = answer.chunk().await.expect("the body arrives") {
        file.write_all_at(&chunk, at).expect("it is written");
        at += chunk.len() as u64;
    }
    assert_eq!(at, end);
}
