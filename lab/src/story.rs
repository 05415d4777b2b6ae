//! What a scenario does, told while it does it.

use std::time::Instant;

/// Tells each step with the time since the scenario began.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    begin: Instant,
    /// The scenario's name, where several are told at once.
    label: Option<&'static str>,
}

impl Story {
    /// Begins now. With a label each line begins with that.
    pub fn begin(label: Option<&'static str>) -> Story {
        Story { begin: Instant::now(), label }
    }

    /// Seconds since the beginning.
    pub fn seconds(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    /// One step of `who`.
    pub fn tell(&self, who: &str, what: &str) {
        self.print(&format!("{:6.1} s  {who:8} {what}", self.seconds()));
    }

    /// What belongs to the last step.
    pub fn add(&self, what: &str) {
        self.print(&format!("{:18} {what}", ""));
    }

    /// A line, or several.
    pub fn print(&self, text: &str) {
        match self.label {
            // One write, so that lines of different scenarios are not mixed.
            Some(label) => println!("{label:16} {text}"),
            None => println!("  {text}"),
        }
    }
}
