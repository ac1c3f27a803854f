//! The service in a process.
