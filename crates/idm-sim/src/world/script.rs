//! Callers that follow a script.

use super::World;
use super::agenda::What;
use super::verdict::{Ending, Failure};
use crate::ids::{Ix, LockIx};
use crate::plan::WorldKind;
use crate::scenario::{Scenario, Step};
use fastrand::Rng;

impl World {
    /// Runs a scenario to its end.
    pub fn play(&mut self, scenario: &Scenario) -> Result<Ending, Failure> {
        debug_assert!(scenario.plan.kind == WorldKind::Budget);
        self.rng = Rng::with_seed(0);
        self.reseeds.clear();
        self.plan = scenario.plan.clone();
        self.script = Some(scenario.steps.iter().map(|&(_, step)| step).collect());
        self.furnish();
        for (i, &(at, _)) in scenario.steps.iter().enumerate() {
            self.push(at, What::Script(i as u8));
        }
        self.push_episodes();
        self.push(scenario.end, What::Finish);
        self.go_on()
    }

    /// Takes a step of the script.
    pub(super) fn follow_script(&mut self, i: u8) {
        let Some(&step) = self.script.as_ref().and_then(|steps| steps.get(usize::from(i))) else {
            return;
        };
        let slot = |h| self.slots.at(h, LockIx::new(0));
        match step {
            Step::Acquire(h, mode) => self.acquire(slot(h), mode),
            Step::Adopt(h, mode) => {
                let s = slot(h);
                self.slots[s].call.target = mode;
                self.adopt(s, 0);
            }
            Step::Release(h) => self.release(slot(h)),
            Step::Spread(h, set) => {
                let s = slot(h);
                self.spread_to(s, set);
                self.follow_spread(s, set);
            }
        }
    }
}
