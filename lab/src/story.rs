//! What a scenario does, told while it does it.

use std::time::Instant;

/// Tells each step with the time since the scenario began.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    begin: Instant,
}

impl Story {
    /// Begins now.
    pub fn begin() -> Story {
        Story { begin: Instant::now() }
    }

    /// Seconds since the beginning.
    pub fn seconds(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    /// One step of `who`.
    pub fn tell(&self, who: &str, what: &str) {
        println!("  {:6.1} s  {who:8} {what}", self.seconds());
    }
}
