//! Small makers of views for the tests of the pure parts.

use crate::model::{CTag, ContentVersion, ETag, Hashes, ItemId, NodeId, Timestamp};
use crate::store::{Attrs, LocalView, Node, NodeKind, RemoteView};

/// An item at a place with the content numbered `content`.
pub(super) fn remote_at(item: &str, parent: NodeId, name: &str, content: u8) -> RemoteView {
    RemoteView {
        item: ItemId::new(item),
        parent: Some(parent),
        name: name.into(),
        version: ContentVersion {
            etag: Some(ETag::new(format!("e{content}"))),
            ctag: Some(CTag::new(format!("c{content}"))),
            size: Some(100 + u64::from(content)),
            hashes: Hashes { quick_xor: Some([content; 20]), ..Hashes::default() },
        },
        mtime: Some(Timestamp(1)),
        btime: None,
        malware: false,
        actual_size: None,
    }
}

/// A local view at a place with nothing else changed.
pub(super) fn local_at(parent: NodeId, name: &str) -> LocalView {
    LocalView {
        parent,
        name: name.into(),
        deleted: false,
        content: None,
        size: 0,
        mtime: Timestamp(1),
        mtime_set: false,
        seal: None,
        changed_at: Timestamp(0),
        changed_seq: 1,
        parked: None,
        tries: 0,
        retry_at: Timestamp(0),
        local_only: false,
    }
}

/// A node without any view.
pub(super) fn node(id: NodeId, kind: NodeKind) -> Node {
    Node {
        id,
        kind,
        place: None,
        remote: None,
        base: None,
        local: None,
        attrs: Attrs::default(),
        web_url: None,
        own_seq: 0,
        own_time: Timestamp(0),
        ctime: Timestamp(0),
        shown_mtime: None,
        listed: true,
    }
}
