//! Mistakes that a test plants, one at a time, to show that the simulation notices each. In release builds none
//! can be planted, and asking costs nothing.

/// A known mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Changes are sent without the tag that they started from.
    DropPrecondition,
    /// Content counts as sent when its request begins.
    SentBeforeAnswer,
    /// No attempt is recorded: a lost answer is taken for a request that never was.
    ForgetAttempt,
    /// A round's link is committed before its items.
    TokenApart,
    /// The pages of a round are applied as they come.
    RoundByPage,
    /// What was asked for before an operation of ours ended is believed.
    StaleListing,
    /// Content is sent while somebody writes it.
    UploadUnsealed,
    /// Two contents of one length and quickXorHash are taken for the same.
    TrustQuickXor,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::DropPrecondition,
        Self::SentBeforeAnswer,
        Self::ForgetAttempt,
        Self::TokenApart,
        Self::RoundByPage,
        Self::StaleListing,
        Self::UploadUnsealed,
        Self::TrustQuickXor,
    ];

    /// Whether it was planted on this thread.
    #[cfg(debug_assertions)]
    pub fn is_planted(self) -> bool {
        PLANTED.get() == Some(self)
    }

    /// Never, in a release build.
    #[cfg(not(debug_assertions))]
    pub const fn is_planted(self) -> bool {
        false
    }

    /// Plants one, or none, on this thread from here on.
    #[cfg(debug_assertions)]
    pub fn plant(mutant: Option<Self>) {
        PLANTED.set(mutant);
    }
}

#[cfg(debug_assertions)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}
