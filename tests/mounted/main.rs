//! The whole program, mounted: system calls and real programs, each compared with a local directory, and
//! afterwards the service compared with the tree.

#[path = "../mounted_support/mod.rs"]
mod mounted_support;

mod attributes;
mod coherence;
mod commands;
mod directories;
mod drives;
mod files;
mod huge;
mod life;
mod locks;
mod names;
mod passthrough;
mod pins;
mod programs;
mod saves;
mod scale;
mod shortcuts;
mod thumbnails;
mod together;
