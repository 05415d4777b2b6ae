//! Deterministic simulation of hosts and drives around the real engine.
