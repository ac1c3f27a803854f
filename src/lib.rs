//! onedrivefs mounts OneDrive and SharePoint document libraries as a local directory.
//!
//! The layers, each naming only those below it:
//!
//! ```text
//! cli -> daemon -> fuse -> vfs -> engine -> { content, store, graph -> auth }
//! all -> model, clock, disk
//! emulator stands apart
//! ```
#![deny(unsafe_code)]

pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod content;
pub mod daemon;
pub mod disk;
pub mod emulator;
pub mod engine;
pub mod fuse;
pub mod graph;
pub mod model;
pub mod store;
pub mod vfs;
