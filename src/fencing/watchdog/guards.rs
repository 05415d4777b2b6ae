//! Dates until which the locks of this host are safe, one date per VG.

use crate::fencing::safe_note::Dates;
use core::cmp::Reverse;
use idm_engine::Instant;
use idm_protocol::ResourceId;
use std::collections::{BinaryHeap, HashMap};

/// For each VG, the dates until which its locks in use are safe.
#[derive(Default)]
pub struct VgGuards {
    vgs: HashMap<ResourceId, Guards>,
    /// Whether a date was recorded since the earliest ones were requested.
    changed: bool,
}

impl VgGuards {
    /// Records the date until which a VG's lock is safe; `None` means not in use.
    pub fn set(&mut self, vg: ResourceId, lock: u64, until: Option<Instant>) {
        self.changed = true;
        if until.is_some() {
            self.vgs.entry(vg).or_default().set(lock, until);
        } else if let Some(guards) = self.vgs.get_mut(&vg) {
            guards.set(lock, None);
        }
    }

    /// The earliest date of each VG that has locks in use; `None` if no date was recorded since the
    /// last call.
    pub fn changed_firsts(&mut self) -> Option<Dates> {
        if !core::mem::take(&mut self.changed) {
            return None;
        }
        self.vgs.retain(|_, guards| guards.first().is_some());
        let firsts = self.vgs.iter_mut().filter_map(|(&vg, guards)| Some((vg, guards.first()?)));
        Some(firsts.collect())
    }
}

/// The dates of all locks in use, and the earliest of them. Each refresh moves a date on, which is
/// cheap: the heap is updated only when its first entry is needed.
#[derive(Default)]
pub struct Guards {
    until: HashMap<u64, Instant>,
    /// For every lock one entry that is not later than its date; other entries are void.
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
}

impl Guards {
    /// Records the date until which a lock is safe; `None` means not in use.
    pub fn set(&mut self, lock: u64, until: Option<Instant>) {
        let before = match until {
            Some(until) => self.until.insert(lock, until),
            None => self.until.remove(&lock),
        };
        if let Some(until) = until.filter(|&until| before.is_none_or(|before| until < before)) {
            self.heap.push(Reverse((until, lock)));
        }
    }

    /// The earliest date; `None` if no lock is in use.
    pub fn first(&mut self) -> Option<Instant> {
        while let Some(&Reverse((noted, lock))) = self.heap.peek() {
            match self.until.get(&lock) {
                Some(&until) if until == noted => return Some(until),
                Some(&until) => {
                    self.heap.pop();
                    // This also replaces a void entry of a lock whose date was once earlier.
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
    fn each_vg_has_its_own_first_date_while_locks_are_in_use() {
        let vg =
            |number: u8| ResourceId::vg(&[number; 32].map(char::from).iter().collect::<String>());
        let (a, b) = (vg(b'a').unwrap(), vg(b'b').unwrap());
        let at = Instant::from_micros;
        let mut guards = VgGuards::default();
        guards.set(a, 1, None);
        assert_eq!(guards.changed_firsts(), Some(Dates::new()));
        assert_eq!(guards.changed_firsts(), None);
        for (vg, lock, us) in [(a, 1, 50), (b, 2, 30), (a, 3, 40)] {
            guards.set(vg, lock, Some(at(us)));
        }
        assert_eq!(guards.changed_firsts(), Some(Dates::from([(a, at(40)), (b, at(30))])));
        guards.set(a, 3, None);
        guards.set(b, 2, None);
        assert_eq!(guards.changed_firsts(), Some(Dates::from([(a, at(50))])));
        assert_eq!(guards.vgs.len(), 1);
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
