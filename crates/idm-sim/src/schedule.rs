//! The input that decides a run: a seed, and the events at which chance begins anew.

use core::fmt;
use core::str::FromStr;

/// A new seed for all random choices from an event on. Everything before stays the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reseed {
    /// The number of the event; the first of a run is 1.
    pub event: u32,
    /// The seed from this event on.
    pub seed: u64,
}

/// A seed, and reseeds in the order of their events.
///
/// Its text is `SEED@EVENT:SEED,EVENT:SEED`, or only `SEED`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Schedule {
    seed: u64,
    reseeds: Vec<Reseed>,
}

impl Schedule {
    /// The seed that decides the world, and the events up to the first reseed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The reseeds, in the order of their events.
    pub fn reseeds(&self) -> &[Reseed] {
        &self.reseeds
    }

    /// The same schedule up to an event, and another seed from there on.
    pub fn branch(&self, event: u32, seed: u64) -> Schedule {
        let mut branch = self.until(event);
        branch.reseeds.push(Reseed { event, seed });
        branch
    }

    /// The same schedule up to an event, and from there on the reseeds of another.
    pub fn splice(&self, event: u32, other: &Schedule) -> Schedule {
        let mut spliced = self.until(event);
        spliced.reseeds.extend(other.reseeds.iter().filter(|reseed| reseed.event >= event));
        spliced
    }

    /// The same schedule without one of the reseeds.
    pub fn without(&self, reseed: usize) -> Schedule {
        let mut rest = self.clone();
        rest.reseeds.remove(reseed);
        rest
    }

    fn until(&self, event: u32) -> Schedule {
        let before = self.reseeds.iter().filter(|reseed| reseed.event < event);
        Schedule { seed: self.seed, reseeds: before.copied().collect() }
    }
}

impl From<u64> for Schedule {
    fn from(seed: u64) -> Schedule {
        Schedule { seed, reseeds: Vec::new() }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seed)?;
        for (i, Reseed { event, seed }) in self.reseeds.iter().enumerate() {
            write!(f, "{}{event}:{seed}", if i == 0 { '@' } else { ',' })?;
        }
        Ok(())
    }
}

/// The error for a text that is no schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSchedule;

impl fmt::Display for NoSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not of the form SEED or SEED@EVENT:SEED,EVENT:SEED with ascending events")
    }
}

impl core::error::Error for NoSchedule {}

impl FromStr for Schedule {
    type Err = NoSchedule;

    fn from_str(text: &str) -> Result<Schedule, NoSchedule> {
        let number = |text: &str| text.parse().map_err(|_| NoSchedule);
        let Some((seed, rest)) = text.split_once('@') else {
            return Ok(Schedule::from(number(text)?));
        };
        let mut schedule = Schedule::from(number(seed)?);
        let mut last = 0;
        for reseed in rest.split(',') {
            let (event, seed) = reseed.split_once(':').ok_or(NoSchedule)?;
            let event: u32 = event.parse().map_err(|_| NoSchedule)?;
            if event <= last {
                return Err(NoSchedule);
            }
            last = event;
            schedule.reseeds.push(Reseed { event, seed: number(seed)? });
        }
        Ok(schedule)
    }
}

#[cfg(test)]
mod tests {
    use super::{NoSchedule, Schedule};

    #[test]
    fn the_text_of_a_schedule_is_read_as_the_same_schedule() {
        let texts =
            ["0", "900450693", "18446744073709551615@1:18446744073709551615", "7@77:3,78:0"];
        for text in texts {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_no_schedules() {
        for text in
            ["", "@1:2", "x", "1@", "1@2", "1@0:5", "1@2:", "1@2:3,", "1@2:3,2:4", "1@3:3,2:4"]
        {
            assert_eq!(text.parse::<Schedule>(), Err(NoSchedule), "{text}");
        }
    }

    #[test]
    fn what_comes_before_the_event_is_kept() {
        let schedule: Schedule = "1@10:2,20:3,30:4".parse().unwrap();
        assert_eq!(schedule.branch(25, 9).to_string(), "1@10:2,20:3,25:9");
        assert_eq!(schedule.branch(20, 9).to_string(), "1@10:2,20:9");
        assert_eq!(schedule.branch(5, 9).to_string(), "1@5:9");
        assert_eq!(schedule.without(1).to_string(), "1@10:2,30:4");
        let other: Schedule = "5@15:6,25:7".parse().unwrap();
        assert_eq!(schedule.splice(20, &other).to_string(), "1@10:2,25:7");
    }
}
