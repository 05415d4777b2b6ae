//! Deterministic simulation of hosts and drives around the real engine.
pub mod campaign;
pub mod clock;
pub mod coverage;
pub mod old_stack;
pub mod plan;
pub mod world;
