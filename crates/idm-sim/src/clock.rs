//! Clocks with their own speed.

/// A clock as a function of the simulation's time. Both count microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// The reading at time zero.
    offset: u64,
    /// The excess of its speed, in parts per million.
    ppm: i64,
}

impl Clock {
    /// A clock that shows `offset` at the beginning and runs `ppm` millionths too fast.
    pub fn new(offset: u64, ppm: i64) -> Clock {
        Clock { offset, ppm }
    }

    /// The reading at `time`.
    pub fn at(self, time: u64) -> u64 {
        self.offset + time.saturating_add_signed(time as i64 * self.ppm / 1_000_000)
    }

    /// The first time when it shows `reading` or more.
    pub fn when(self, reading: u64) -> u64 {
        // Beyond the end of any simulation, so that the products below fit.
        const FAR: u64 = 1 << 42;
        let elapsed = reading.saturating_sub(self.offset).min(FAR);
        let estimate = elapsed as i64 * 1_000_000 / (1_000_000 + self.ppm);
        let mut time = estimate.max(0) as u64;
        while self.at(time) < self.offset + elapsed {
            time += 1;
        }
        while time > 0 && self.at(time - 1) >= self.offset + elapsed {
            time -= 1;
        }
        time
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[test]
    fn when_is_the_first_time_that_shows_the_reading() {
        for ppm in [-500, -1, 0, 1, 500] {
            let clock = Clock::new(777_000_000, ppm);
            for reading in [0, 777_000_000, 777_000_001, 900_123_456, 5_000_000_000] {
                let time = clock.when(reading);
                assert!(clock.at(time) >= reading, "{ppm} {reading}");
                assert!(time == 0 || clock.at(time - 1) < reading, "{ppm} {reading}");
            }
        }
    }
}
