//! Small facts about a run, by which a search tells what is new in it.

/// A small fact, as a number below [`Feature::COUNT`]. Few facts share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Feature(u32);

impl Feature {
    const BITS: u32 = 18;
    /// How many there are.
    pub const COUNT: usize = 1 << Feature::BITS;

    /// The feature of a fact that is told by numbers.
    pub fn of(fact: &[u64]) -> Feature {
        // An odd number without a pattern, near 2^64 divided by the golden ratio.
        const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
        let mix = |hash: u64, &word: &u64| (hash ^ word).wrapping_mul(FACTOR).rotate_left(29);
        let hash = fact.iter().fold(fact.len() as u64, mix).wrapping_mul(FACTOR);
        Feature((hash >> (64 - Feature::BITS)) as u32)
    }

    /// Its number.
    pub fn number(self) -> usize {
        self.0 as usize
    }
}

/// A feature that came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Which.
    pub feature: Feature,
    /// How near that is to the violation of an invariant, below [`Sight::DANGERS`].
    pub danger: u8,
    /// The number of the event.
    pub event: u32,
}

impl Sight {
    /// How many degrees of danger there are.
    pub const DANGERS: usize = 5;
}

/// The features of one run, each with the event at which it came up first.
#[derive(Debug)]
pub struct Sights {
    seen: Vec<u64>,
    first: Vec<Sight>,
}

impl Default for Sights {
    fn default() -> Sights {
        Sights { seen: vec![0; Feature::COUNT / 64], first: Vec::new() }
    }
}

impl Sights {
    /// Notes a feature.
    pub fn note(&mut self, sight: Sight) {
        let feature = sight.feature;
        let (word, bit) = (feature.number() / 64, 1 << (feature.number() % 64));
        if self.seen[word] & bit == 0 {
            self.seen[word] |= bit;
            self.first.push(sight);
        }
    }

    /// The features in the order in which they came up.
    pub fn all(&self) -> &[Sight] {
        &self.first
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        for sight in self.first.drain(..) {
            self.seen[sight.feature.number() / 64] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Feature, Sight, Sights};

    #[test]
    fn a_feature_is_told_once() {
        let mut sights = Sights::default();
        let sight = |fact: &[u64], event| Sight { feature: Feature::of(fact), danger: 0, event };
        sights.note(sight(&[1, 2], 5));
        sights.note(sight(&[2, 1], 6));
        sights.note(sight(&[1, 2], 7));
        assert_eq!(sights.all(), [sight(&[1, 2], 5), sight(&[2, 1], 6)]);
        sights.clear();
        assert_eq!(sights.all(), []);
        sights.note(sight(&[1, 2], 8));
        assert_eq!(sights.all(), [sight(&[1, 2], 8)]);
    }

    #[test]
    fn few_facts_share_a_feature() {
        let facts = (0..4096u64).map(|n| Feature::of(&[n % 16, n / 16 % 16, n / 256]).number());
        let distinct: std::collections::HashSet<usize> = facts.collect();
        assert!(distinct.len() > 4000, "{}", distinct.len());
    }
}
