//! Small facts about a run, by which a search recognises what is new in it.

/// A small fact, as a number below [`Feature::COUNT`]. Different facts rarely have the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Feature(u32);

impl Feature {
    const BITS: u32 = 18;
    /// The number of features.
    pub const COUNT: usize = 1 << Feature::BITS;

    /// The feature of a fact that consists of numbers.
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

/// An occurrence of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureHit {
    /// The feature.
    pub feature: Feature,
    /// The closeness to the violation of an invariant, below [`FeatureHit::DANGERS`].
    pub danger: u8,
    /// The number of the event.
    pub event: u32,
}

impl FeatureHit {
    /// The number of degrees of danger.
    pub const DANGERS: usize = 5;
}

/// The features of one run, each with the event of its first occurrence.
#[derive(Debug)]
pub struct FeatureHits {
    seen: Vec<u64>,
    first: Vec<FeatureHit>,
}

impl Default for FeatureHits {
    fn default() -> FeatureHits {
        FeatureHits { seen: vec![0; Feature::COUNT / 64], first: Vec::new() }
    }
}

impl FeatureHits {
    /// Notes a feature.
    pub fn note(&mut self, hit: FeatureHit) {
        let feature = hit.feature;
        let (word, bit) = (feature.number() / 64, 1 << (feature.number() % 64));
        if self.seen[word] & bit == 0 {
            self.seen[word] |= bit;
            self.first.push(hit);
        }
    }

    /// The features in the order of their first occurrence.
    pub fn all(&self) -> &[FeatureHit] {
        &self.first
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        for hit in self.first.drain(..) {
            self.seen[hit.feature.number() / 64] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Feature, FeatureHit, FeatureHits};

    #[test]
    fn a_feature_is_told_once() {
        let mut feature_hits = FeatureHits::default();
        let hit = |fact: &[u64], event| FeatureHit { feature: Feature::of(fact), danger: 0, event };
        feature_hits.note(hit(&[1, 2], 5));
        feature_hits.note(hit(&[2, 1], 6));
        feature_hits.note(hit(&[1, 2], 7));
        assert_eq!(feature_hits.all(), [hit(&[1, 2], 5), hit(&[2, 1], 6)]);
        feature_hits.clear();
        assert_eq!(feature_hits.all(), []);
        feature_hits.note(hit(&[1, 2], 8));
        assert_eq!(feature_hits.all(), [hit(&[1, 2], 8)]);
    }

    #[test]
    fn few_facts_share_a_feature() {
        let facts = (0..4096u64).map(|n| Feature::of(&[n % 16, n / 16 % 16, n / 256]).number());
        let distinct: std::collections::HashSet<usize> = facts.collect();
        assert!(distinct.len() > 4000, "{}", distinct.len());
    }
}
