//! Local names and the service's names.
