//! The thread that moves votes, under thread schedules that the test decides.

use super::*;
use crate::lock::{ResourceKey, ValBlk};
use crate::lockspace::Held;
use crate::recovery::schedules::{Bequest, Files, lv};
use crate::sys::sync::mpsc;
use crate::sys::sync::scheduled::{Race, STILL, any, finds, holds};
use idm_engine::Request;
use idm_protocol::Mode;

/// Starts the thread that moves the votes of the orphan, and of the locks in `state`, when they are
/// ready.
fn start(left: &Bequest, state: &Arc<Mutex<ManagerState>>, ready: Receiver<ResourceId>) {
    let moving = Votes {
        state: Arc::downgrade(state),
        runtime: Arc::downgrade(&left.runtime()),
        orphans: Arc::downgrade(&left.orphans),
        store: left.store(),
    };
    moving.start(ready).unwrap();
}

/// An orphan's votes move while a request has or wants the orphan, and may put it back: the noted
/// drives are those that vote and those that the request got.
fn votes_move(files: &Files) {
    let (votes, ready) = mpsc::channel();
    let left = Bequest::with_votes(files, votes);
    let state: Arc<Mutex<ManagerState>> = Arc::default();
    let orphans = &left.orphans;
    start(&left, &state, ready);
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

/// A lock becomes shared or exclusive while its votes wait to be moved: as with
/// [`Manager::convert`](crate::manager::Manager::convert), the note never has a mode that core does
/// not know.
fn a_mode_changes_while_votes_move(files: &Files, mode: Mode) {
    const LONG: Duration = Duration::from_secs(77);
    let (votes, ready) = mpsc::channel();
    let left = Bequest::with_votes(files, votes);
    let state: Arc<Mutex<ManagerState>> = Arc::default();
    let (runtime, store) = (left.runtime(), left.store());
    let spec = left.lockspace.spec_of(&lv());
    let before = if mode == Mode::Shared { Mode::Exclusive } else { Mode::Shared };
    let members = left.members[..1].to_vec();
    let acquire = Request::Acquire { mode: before, members, witnesses: Vec::new() };
    runtime.request(spec.clone(), acquire, LONG);
    let note = |mode| {
        let exclusive = mode == Mode::Exclusive;
        store.change_lock(&lv(), |noted| noted.exclusive = exclusive).unwrap();
    };
    note(before);
    let saved = store.lock(&lv()).unwrap();
    let lockspace = left.lockspace.clone();
    let held = Held {
        lockspace,
        spec: spec.clone(),
        mode: before,
        saved,
        value: ValBlk::default(),
        taken_over: false,
    };
    state.lock().resources.insert(ResourceKey(1), held);
    start(&left, &state, ready);
    runtime.spread(vec![lv()], left.members.clone());
    if mode == Mode::Shared {
        note(mode);
    }
    runtime.request(spec, Request::Convert { mode, value: None }, LONG);
    if mode == Mode::Exclusive {
        note(mode);
    }
    // With the mutex held, no votes are being moved.
    let _state = state.lock();
    assert_eq!(store.lock(&lv()).unwrap().mode(), mode, "noted is another mode");
}

fn a_mode_changes(mode: Mode) -> impl Fn() + Clone + Send + Sync + 'static {
    let files = Files::new(true);
    move || a_mode_changes_while_votes_move(&files, mode)
}

#[test]
fn the_mode_that_is_noted_is_the_one_that_core_was_told() {
    holds("a lock that becomes shared while votes move", STILL, a_mode_changes(Mode::Shared));
    holds("a lock that becomes exclusive while votes move", STILL, a_mode_changes(Mode::Exclusive));
}

#[test]
fn an_old_mode_that_is_put_back_with_the_votes_is_found() {
    for mode in [Mode::Shared, Mode::Exclusive] {
        finds(Race::PutBackAll, STILL, a_mode_changes(mode));
    }
}
