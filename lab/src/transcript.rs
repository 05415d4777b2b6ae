//! A transcript of a scenario, printed while the scenario runs.

use std::time::Instant;

/// Prints each step with the time since the start of the scenario.
#[derive(Clone, Copy, Debug)]
pub struct Transcript {
    begin: Instant,
    /// Name of the scenario, if several run at the same time.
    label: Option<&'static str>,
}

impl Transcript {
    /// Starts now. With a label, each line begins with it.
    pub fn begin(label: Option<&'static str>) -> Transcript {
        Transcript { begin: Instant::now(), label }
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    /// Prints a step of `who`.
    pub fn step(&self, who: &str, what: &str) {
        self.print(&format!("{:6.1} s  {who:8} {what}", self.seconds()));
    }

    /// Prints a detail of the last step.
    pub fn detail(&self, what: &str) {
        self.print(&format!("{:18} {what}", ""));
    }

    /// Prints one or more lines.
    pub fn print(&self, text: &str) {
        match self.label {
            // One write, so that lines of different scenarios are not mixed.
            Some(label) => println!("{label:16} {text}"),
            None => println!("  {text}"),
        }
    }
}
