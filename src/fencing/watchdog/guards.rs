//! Until when the locks of this host are safe, all together.

use core::cmp::Reverse;
use idm_engine::Instant;
use std::collections::{BinaryHeap, HashMap};

/// The dates of all locks that are in use, and the first of them. A date that moves on, as each
/// refresh makes it do, costs next to nothing: the heap learns of it when it matters.
#[derive(Default)]
pub struct Guards {
    until: HashMap<u64, Instant>,
    /// For every lock an entry that is not later than its date, and others that are void.
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
}

impl Guards {
    /// Takes note of until when a lock is safe; `None`: it is not in use.
    pub fn set(&mut self, lock: u64, until: Option<Instant>) {
        let before = match until {
            Some(until) => self.until.insert(lock, until),
            None => self.until.remove(&lock),
        };
        if let Some(until) = until.filter(|&until| before.is_none_or(|before| until < before)) {
            self.heap.push(Reverse((until, lock)));
        }
    }

    /// The first date; `None` where no lock is in use.
    pub fn first(&mut self) -> Option<Instant> {
        while let Some(&Reverse((noted, lock))) = self.heap.peek() {
            match self.until.get(&lock) {
                Some(&until) if until == noted => return Some(until),
                Some(&until) => {
                    self.heap.pop();
                    // A void entry of a lock whose date was once earlier is replaced, too.
                    if until > noted {
                        self.heap.push(Reverse((until, lock)));
                    }
                }
                None => drop(self.heap.pop()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_is_the_first_of_all(
            steps in proptest::collection::vec((0u64..8, proptest::option::of(0u64..50)), 0..300)
        ) {
            let mut guards = Guards::default();
            let mut plain: HashMap<u64, Instant> = HashMap::new();
            for (lock, until) in steps {
                let until = until.map(Instant::from_micros);
                guards.set(lock, until);
                match until {
                    Some(until) => plain.insert(lock, until),
                    None => plain.remove(&lock),
                };
                prop_assert_eq!(guards.first(), plain.values().min().copied());
                prop_assert!(guards.heap.len() <= 300);
            }
        }
    }

    #[test]
    fn refreshes_do_not_pile_up() {
        let mut guards = Guards::default();
        for round in 1..1000 {
            for lock in 0..10 {
                guards.set(lock, Some(Instant::from_micros(round * 100 + lock)));
            }
            assert_eq!(guards.first(), Some(Instant::from_micros(round * 100)));
        }
        assert!(guards.heap.len() <= 20, "{}", guards.heap.len());
    }
}
