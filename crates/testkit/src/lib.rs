//! Parts for tests: a clock that is driven, randomness from a seed, a key provider and object stores that fail on command.
//! Not published.

pub mod bucket;
pub mod faults;
pub mod metered;
pub mod provider;
pub mod runtime;
pub mod scripted;
pub mod simulation;
pub mod store;
pub mod trace;
