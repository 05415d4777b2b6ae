//! The drives that a holder counts, from the fingerprint in its records.

use idm_engine::{DriveRef, Fingerprint, Member};
use std::cell::RefCell;
use std::collections::HashMap;

/// With more drives than this, only likely sets are tried.
const ALL_SETS_OF: usize = 14;

/// Finds sets by their fingerprints, among the drives that this host knows.
pub struct Sets {
    members: Vec<Member>,
    likely: Vec<Vec<usize>>,
    found: RefCell<HashMap<Fingerprint, Option<Vec<usize>>>>,
}

impl Sets {
    /// Sets of these drives, of which some are likely: those of started VGs, for example.
    pub fn of(identities: &[&str], likely: Vec<Vec<usize>>) -> Sets {
        let member =
            |identity: &&str| Member { drive: DriveRef(0), identity: identity.as_bytes().to_vec() };
        Sets { members: identities.iter().map(member).collect(), likely, found: RefCell::default() }
    }

    /// The drives with that fingerprint, of which `shown` show the record. `None` where it is no
    /// set of drives that this host knows.
    pub fn find(&self, fingerprint: Fingerprint, shown: &[usize]) -> Option<Vec<usize>> {
        if let Some(found) = self.found.borrow().get(&fingerprint) {
            return found.clone();
        }
        let found = self.search(fingerprint, shown);
        self.found.borrow_mut().insert(fingerprint, found.clone());
        found
    }

    fn search(&self, fingerprint: Fingerprint, shown: &[usize]) -> Option<Vec<usize>> {
        let all: Vec<usize> = (0..self.members.len()).collect();
        let likely = self.likely.iter().chain([&all]).cloned().chain([shown.to_vec()]);
        let fits = |set: &Vec<usize>| self.fingerprint(set) == fingerprint;
        likely.into_iter().find(fits).or_else(|| {
            let count = self.members.len();
            let sets = if count <= ALL_SETS_OF { 1..1u32 << count } else { 0..0 };
            sets.map(|bits| (0..count).filter(|at| bits >> at & 1 != 0).collect()).find(fits)
        })
    }

    fn fingerprint(&self, set: &[usize]) -> Fingerprint {
        let members: Vec<Member> = set.iter().map(|&at| self.members[at].clone()).collect();
        Fingerprint::of(&members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_found_by_its_fingerprint() {
        let names: Vec<String> = (0..10).map(|n| format!("naa.{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let sets = Sets::of(&names, Vec::new());
        for wanted in [vec![3], vec![0, 9], vec![1, 2, 4, 7], (0..10).collect()] {
            let fingerprint = sets.fingerprint(&wanted);
            assert_eq!(sets.find(fingerprint, &[0]), Some(wanted));
        }
        let other = Sets::of(&["naa.other"], Vec::new()).fingerprint(&[0]);
        assert_eq!(sets.find(other, &[0]), None);
    }

    #[test]
    fn of_many_drives_the_likely_sets_are_tried() {
        let names: Vec<String> = (0..100).map(|n| format!("naa.{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let sets = Sets::of(&names, vec![vec![5, 50]]);
        let find = |wanted: &[usize], shown: &[usize]| sets.find(sets.fingerprint(wanted), shown);
        assert_eq!(find(&[5, 50], &[]), Some(vec![5, 50]));
        assert_eq!(find(&[7, 8], &[7, 8]), Some(vec![7, 8]));
        assert_eq!(find(&[1, 2], &[1]), None);
    }
}
