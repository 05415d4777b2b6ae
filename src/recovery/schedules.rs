//! The owner of an orphan, under thread schedules that the test decides.

use super::*;
use crate::runtime::schedules::{Bench, Voters, in_use};
use crate::sys::sync::scheduled::{Host, Race, STILL, any, finds, holds, pass};
use crate::sys::sync::thread as threads;
use core::sync::atomic::{AtomicU32, Ordering};
use std::path::Path;
use tempfile::TempDir;

const VG: &str = "0123456789abcdefghijklmnopqrstuv";
const LV: &str = "wxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!#";
const LONG: Duration = Duration::from_secs(77);
const LEASE: Duration = Duration::from_secs(60);

pub(crate) fn lv() -> ResourceId {
    ResourceId::lv(VG, LV).unwrap()
}

/// The files and devices of a host, fresh for each scenario.
#[derive(Clone)]
pub(crate) struct Files(Arc<TempDir>);

impl Files {
    /// A host with the LV active or not.
    pub(crate) fn new(active: bool) -> Files {
        let files = Files(Arc::new(tempfile::tempdir().unwrap()));
        let device = files.path().join("block/dm-0/dm");
        std::fs::create_dir_all(files.path().join("block")).unwrap();
        if active {
            std::fs::create_dir_all(&device).unwrap();
            std::fs::write(device.join("uuid"), format!("LVM-{VG}{LV}")).unwrap();
        }
        files
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

/// The lock of one LV that a dead lvmlockd left.
pub(crate) struct Bequest {
    pub(crate) orphans: Arc<Orphans>,
    pub(crate) lockspace: Arc<Lockspace>,
    /// Drives of the VG. The lock was left on the first.
    pub(crate) members: Vec<Member>,
    /// Drives that vote, where votes were moved.
    voters: Voters,
    /// Number of requests that have it now.
    claims: Arc<AtomicU32>,
}

impl Bequest {
    fn new(files: &Files) -> Bequest {
        Bequest::on(files, Bench::new(1))
    }

    /// An orphan whose votes may be moved to a second drive; `votes` receives the locks to move.
    pub(crate) fn with_votes(files: &Files, votes: Sender<ResourceId>) -> Bequest {
        let left = Bequest::on(files, Bench::with_votes(2, Some(votes)));
        let saved = left.orphans.left().locks[&lv()].saved.clone();
        left.orphans.store.save_lock(&lv(), &saved).unwrap();
        left
    }

    fn on(files: &Files, bench: Bench) -> Bequest {
        let timing = Timing::for_lease(LEASE);
        let lock = SavedLock {
            exclusive: true,
            granted: true,
            asked_us: clock::now().as_micros(),
            paths: vec!["d0".into()],
            drives: vec!["emulated.d0".into()],
        };
        let named = SavedLockspace {
            name: "vg0".into(),
            uuid: VG.into(),
            paths: lock.paths.clone(),
            drives: Vec::new(),
        };
        let lockspaces = vec![(vg_of(&lv()), named)];
        let found_at = clock::now();
        let left = Left::of(Saved { locks: vec![(lv(), lock)], lockspaces }, found_at);
        let lockspace = left.locks[&lv()].lockspace.clone();
        let note = Arc::new(SafeNote::start(files.path(), LEASE, Box::new(|| {})).unwrap());
        let fencing = Fencing::new(&timing, Default::default()).unwrap();
        let orphans = Arc::new(Orphans {
            runtime: bench.runtime,
            store: Arc::new(Store::open_for(files.path(), "boot").unwrap()),
            devices: Devices::with_sysfs(files.path()),
            dates: Dates {
                timing,
                leases: Leases { shortest: LEASE, longest: LEASE },
                fencing,
                note,
                watchdog: None,
                earlier: undo_note::Dates::default(),
            },
            found_at,
            left: Mutex::new(left),
            changed: Condvar::new(),
            care: Mutex::default(),
        });
        let (members, voters) = (bench.members, bench.voters);
        Bequest { orphans, lockspace, members, voters, claims: Arc::default() }
    }

    pub(crate) fn runtime(&self) -> Arc<Runtime> {
        self.orphans.runtime.clone()
    }

    pub(crate) fn store(&self) -> Arc<Store> {
        self.orphans.store.clone()
    }

    /// The drives that are noted and those that vote, while no votes are being moved.
    pub(crate) fn noted_and_voting(&self) -> (Vec<String>, Vec<String>) {
        let _left = self.orphans.left();
        let noted = self.orphans.store.lock(&lv()).expect("nobody forgets it").drives;
        let voters = self.voters.lock().unwrap().clone();
        let voters = if voters.is_empty() { vec![self.members[0].drive] } else { voters };
        let drives = self.orphans.runtime.drives();
        (noted, voters.into_iter().map(|drive| drives.identity(drive)).collect())
    }

    /// Runs the proof on another thread.
    fn prove(&self) -> threads::JoinHandle<()> {
        let orphans = self.orphans.clone();
        threads::spawn(move || {
            orphans.prove();
        })
    }

    /// Runs a request on another thread that takes the orphan over or puts it back. Returns whether
    /// it took it.
    pub(crate) fn claim(&self, takes: bool) -> threads::JoinHandle<bool> {
        let (orphans, claims) = (self.orphans.clone(), self.claims.clone());
        threads::spawn(move || {
            let Ok(Some(claim)) = orphans.claim(&lv(), LONG) else { return false };
            assert_eq!(claims.fetch_add(1, Ordering::Relaxed), 0, "claimed by two");
            pass();
            if let Some(noted) = orphans.store.lock(&lv()) {
                assert_eq!(claim.saved.drives, noted.drives, "changed under a request");
            }
            claims.fetch_sub(1, Ordering::Relaxed);
            if takes {
                claim.take();
            }
            takes
        })
    }

    fn phase(&self) -> Option<Phase> {
        self.orphans.left().locks.get(&lv()).map(|orphan| orphan.phase)
    }
}

/// Two requests claim an orphan while it is being proven, and may put it back.
fn an_orphan_is_claimed(files: &Files) {
    let left = Bequest::new(files);
    let proof = left.prove();
    let claims: Vec<_> = (0..2).map(|_| left.claim(any(3) == 0)).collect();
    let taken = claims.into_iter().map(|claim| claim.join().unwrap());
    let taken = taken.filter(|&taken| taken).count();
    proof.join().unwrap();
    assert!(taken <= 1, "taken twice");
    match left.phase() {
        None => assert_eq!(taken, 1, "lost"),
        Some(phase) => {
            assert_eq!(taken, 0, "still there");
            assert!(matches!(phase, Phase::Kept | Phase::Unproven), "{phase:?}");
        }
    }
}

const IMPATIENT: Host = Host { waits_end: |bound| bound == LONG, ..STILL };

fn claimed() -> impl Fn() + Clone + Send + Sync + 'static {
    let files = Files::new(true);
    move || an_orphan_is_claimed(&files)
}

#[test]
fn an_orphan_is_one_requests_at_a_time_and_put_back() {
    holds("an orphan", STILL, claimed());
}

#[test]
fn a_request_that_waits_for_too_long_has_no_orphan_of_anothers() {
    holds("an orphan, and waits that end", IMPATIENT, claimed());
}

#[test]
fn an_orphan_that_two_have_or_none_hears_of_is_found() {
    for race in [Race::ClaimInTwoSteps, Race::WakeBeforePutBack, Race::WakeBeforeProof] {
        finds(race, STILL, claimed());
    }
    finds(Race::ClaimAfterAll, IMPATIENT, claimed());
}

/// The lockspace of an orphan is stopped while the orphan is being proven, and while a request has
/// it.
fn a_lockspace_is_settled(files: &Files, active: bool) {
    let left = Bequest::new(files);
    let proof = left.prove();
    let (orphans, lockspace) = (left.orphans.clone(), left.lockspace.clone());
    let settling = threads::spawn(move || orphans.settle(&lockspace));
    let taken = left.claim(any(2) == 0).join().unwrap();
    let in_use = settling.join().unwrap();
    proof.join().unwrap();
    let there = left.phase().is_some();
    assert!(!(taken && there), "taken twice");
    if active {
        assert!(taken || there && in_use.len() == 1, "lost");
    }
    // A lock that a request has taken belongs to the request, and an unclaimed one is given up.
    let held = left.orphans.runtime.mode(lv()).unwrap().is_some();
    assert!(held || !taken, "given up although it was taken");
    assert!(taken || there || !held, "held for nobody");
}

/// The lockspace of an orphan is started while the orphan is being proven: from then on it is
/// renewed for that lockspace.
fn a_lockspace_is_started(files: &Files) {
    let left = Bequest::new(files);
    let proof = left.prove();
    let before = left.lockspace.clone();
    let started = Arc::new(Lockspace::with_id(before.id, Some("vg0".into()), before.paths()));
    left.orphans.adopt_lockspace(&started);
    proof.join().unwrap();
    // When it answers, the reactor has handled all earlier messages.
    let held = left.orphans.runtime.mode(lv()).unwrap().is_some();
    assert_eq!(left.phase(), Some(if held { Phase::Kept } else { Phase::Unproven }));
    assert_eq!((in_use(&before.owner), in_use(&started.owner)), (0, usize::from(held)));
}

#[test]
fn an_orphan_is_kept_in_the_name_of_the_lockspace_that_is_started() {
    let files = Files::new(true);
    holds("an orphan whose lockspace is started", STILL, move || a_lockspace_is_started(&files));
}

#[test]
fn an_orphan_that_is_asked_for_in_the_name_of_a_stopped_lockspace_is_found() {
    let files = Files::new(true);
    finds(Race::AskInOldName, STILL, move || a_lockspace_is_started(&files));
}

/// The care thread, a request, and the end of both.
fn orphans_are_cared_for(files: &Files) {
    let left = Bequest::new(files);
    let (ends, ended) = mpsc::channel();
    let weak = Arc::downgrade(&left.orphans);
    let thread = threads::spawn(move || care(&weak, &ended));
    let taken = left.claim(any(2) == 0).join().unwrap();
    assert_eq!(left.phase().is_some(), !taken, "lost, or taken twice");
    let held = left.orphans.runtime.mode(lv()).unwrap().is_some();
    assert!(held || !taken, "given up although it was taken");
    drop(left);
    drop(ends);
    thread.join().unwrap();
}

/// A host where only the pauses of the care thread end.
const CARING: Host =
    Host { waits_end: |bound| bound == CORE_STARTS || bound >= LOOK && bound <= LEASE, ..STILL };

#[test]
fn an_orphan_that_is_cared_for_is_given_to_a_request() {
    let files = Files::new(true);
    holds("the orphans' thread", CARING, move || orphans_are_cared_for(&files));
}

fn settled(active: bool) -> impl Fn() + Clone + Send + Sync + 'static {
    let files = Files::new(active);
    move || a_lockspace_is_settled(&files, active)
}

#[test]
fn a_lockspace_that_is_stopped_leaves_an_orphan_in_use_where_it_is() {
    holds("an orphan whose lockspace is stopped", STILL, settled(true));
    holds("an orphan that is not active, whose lockspace is stopped", STILL, settled(false));
}

#[test]
fn an_orphan_that_is_given_up_although_it_is_claimed_is_found() {
    finds(Race::SettleClaimed, STILL, settled(false));
}
