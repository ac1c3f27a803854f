//! Makes local and remote agree.
mod conflict;
mod op;
pub mod planner;
#[cfg(test)]
mod testing;
