//! The thread that moves votes, under schedules that the test decides.

use super::*;
use crate::recovery::schedules::{Bequest, Files, lv};
use crate::sys::sync::mpsc;
use crate::sys::sync::scheduled::{Race, STILL, any, finds, holds};

/// An orphan's votes move while a request has it, or wants it, and may put it back: what is noted is
/// what votes, and what the request was told.
fn votes_move(files: &Files) {
    let (votes, ready) = mpsc::channel();
    let left = Bequest::with_votes(files, votes);
    let state: Arc<Mutex<State>> = Arc::default();
    let orphans = &left.orphans;
    let moving = Votes {
        state: Arc::downgrade(&state),
        runtime: Arc::downgrade(&left.runtime()),
        orphans: Arc::downgrade(orphans),
        store: left.store(),
    };
    moving.start(ready).unwrap();
    let claims: Vec<_> = (0..2).map(|_| left.claim(any(3) == 0)).collect();
    orphans.spread(&left.lockspace, left.members.clone());
    for claim in claims {
        claim.join().unwrap();
    }
    let (noted, voting) = left.noted_and_voting();
    assert_eq!(noted, voting, "others are noted than vote");
    assert!(left.runtime().mode(lv()).is_ok(), "the reactor waits for nobody");
}

#[test]
fn the_drives_that_vote_are_those_that_are_noted() {
    let files = Files::new(true);
    holds("votes that move", STILL, move || votes_move(&files));
}

#[test]
fn votes_that_move_under_a_request_are_found() {
    let files = Files::new(true);
    finds(Race::MoveUnheld, STILL, move || votes_move(&files));
}
