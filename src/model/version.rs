//! Tags, and the question whether two states of a file have the same content.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::hash::Hashes;

macro_rules! tag {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the tag exactly as the service wrote it, inner quotes included.
            pub fn new(raw: impl Into<String>) -> Self {
                Self(raw.into())
            }

            /// The tag as the service wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

tag! {
    /// Changes with content and metadata (graph-api 3.4). Opaque.
    ETag
}
tag! {
    /// Changes with content; may be absent, may change on its own (graph-api 3.4, 15.8). Opaque.
    CTag
}

/// What is known of one state of a file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentVersion {
    /// Content and metadata tag.
    pub etag: Option<ETag>,
    /// Content tag.
    pub ctag: Option<CTag>,
    /// Bytes.
    pub size: Option<u64>,
    /// Whatever hashes the service gave.
    pub hashes: Hashes,
}

/// What two versions say of each other's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Proven equal: an equal tag or an equal strong hash.
    Same,
    /// Equal quickXorHash and size only: enough to keep clean blocks, never to discard unsent bytes.
    ProbablySame,
    /// Proven different: another size or another hash.
    Different,
    /// Nothing is known either way: GET the item.
    Unknown,
}

impl ContentVersion {
    /// Compares two versions of one item by the rules of design 3 "Same content?".
    ///
    /// A different hash or size proves Different, whatever the tags say, because tags move by themselves
    /// but a hash does not lie; Same needs an equal cTag or eTag, or an equal sha256 or sha1.
    pub fn compare(&self, other: &Self) -> Comparison {
        fn differ<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
            matches!((a, b), (Some(a), Some(b)) if a != b)
        }
        fn equal<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
            matches!((a, b), (Some(a), Some(b)) if a == b)
        }
        let (mine, theirs) = (&self.hashes, &other.hashes);
        if differ(&self.size, &other.size)
            || differ(&mine.quick_xor, &theirs.quick_xor)
            || differ(&mine.sha1, &theirs.sha1)
            || differ(&mine.sha256, &theirs.sha256)
        {
            return Comparison::Different;
        }
        if equal(&self.ctag, &other.ctag)
            || equal(&self.etag, &other.etag)
            || equal(&mine.sha256, &theirs.sha256)
            || equal(&mine.sha1, &theirs.sha1)
        {
            return Comparison::Same;
        }
        if equal(&mine.quick_xor, &theirs.quick_xor) && equal(&self.size, &other.size) {
            return Comparison::ProbablySame;
        }
        Comparison::Unknown
    }

    /// Whether clean blocks fetched for `self` may serve `other`.
    pub fn keeps_blocks_of(&self, other: &Self) -> bool {
        matches!(self.compare(other), Comparison::Same | Comparison::ProbablySame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(
        etag: Option<&str>,
        ctag: Option<&str>,
        size: Option<u64>,
        quick: Option<u8>,
    ) -> ContentVersion {
        ContentVersion {
            etag: etag.map(ETag::new),
            ctag: ctag.map(CTag::new),
            size,
            hashes: Hashes { quick_xor: quick.map(|byte| [byte; 20]), ..Hashes::default() },
        }
    }

    #[test]
    fn equal_tags_are_same_and_another_hash_or_size_is_different() {
        let cases = [
            (
                version(Some("e1"), None, Some(5), None),
                version(Some("e1"), None, Some(5), None),
                Comparison::Same,
            ),
            (
                version(Some("e1"), Some("c"), None, None),
                version(Some("e2"), Some("c"), None, None),
                Comparison::Same,
            ),
            (
                version(Some("e1"), Some("c"), Some(5), None),
                version(Some("e1"), Some("c"), Some(6), None),
                Comparison::Different,
            ),
            (
                version(None, Some("c"), Some(5), Some(1)),
                version(None, Some("c"), Some(5), Some(2)),
                Comparison::Different,
            ),
            (
                version(Some("e1"), None, Some(5), Some(1)),
                version(Some("e2"), None, Some(5), Some(1)),
                Comparison::ProbablySame,
            ),
            (
                version(Some("e1"), None, Some(5), None),
                version(Some("e2"), None, Some(5), None),
                Comparison::Unknown,
            ),
            (version(None, None, None, None), version(None, None, None, None), Comparison::Unknown),
        ];
        for (left, right, expected) in cases {
            assert_eq!(left.compare(&right), expected, "{left:?} {right:?}");
            assert_eq!(right.compare(&left), expected, "symmetric: {left:?} {right:?}");
        }
    }

    #[test]
    fn quick_xor_and_size_alone_never_prove_equality() {
        let left = version(Some("e1"), None, Some(8192), Some(7));
        let right = version(Some("e2"), None, Some(8192), Some(7));
        assert_ne!(left.compare(&right), Comparison::Same);
        assert!(left.keeps_blocks_of(&right));
    }
}
