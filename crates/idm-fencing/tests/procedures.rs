//! The procedures, step by step, on drives that answer at once.

use idm_engine::{DriveRef, Instant};
use idm_fencing::{
    Action, Answer, Departure, Enrolled, Enrolment, Fence, Findings, KIND, Key, Obstacle, Order,
    Procedure, Rules, Seen, Verdict, Watch,
};
use idm_protocol::reservation::ReservationType;
use idm_protocol::{Class, HostId, Record, ResourceId, State};
use std::collections::BTreeMap;

const VG: &str = "123456-abcd-efgh-ijkl-mnop-qrst-uvwxyz";
const LV: &str = "abcdef-0123-4567-89AB-CDEF-GHIJ-KLMNOP";
const D: [DriveRef; 3] = [DriveRef(0), DriveRef(1), DriveRef(2)];

fn host(name: &str) -> HostId {
    HostId::new([name.as_bytes()[0]; 16], name)
}

fn group() -> ResourceId {
    ResourceId::vg(VG).unwrap()
}

fn lv() -> ResourceId {
    ResourceId::lv(VG, LV).unwrap()
}

fn record(name: &str, resource: ResourceId, state: State) -> Record {
    let mut record = Record::end_of_table();
    (record.host, record.resource, record.state) = (host(name), resource, state);
    record.class = Class::Exclusive;
    record
}

#[derive(Clone)]
struct TestDrive {
    keys: Vec<u64>,
    reservation: Option<Option<ReservationType>>,
    table: Vec<Record>,
    is_able: bool,
    silent: bool,
    /// Orders to change something that get no answer, although they are carried out.
    lossy: bool,
}

/// Three drives, with these hosts registered, and the LV's lock left behind by the host `dead`.
struct Drives(BTreeMap<DriveRef, TestDrive>, Vec<(DriveRef, Action)>);

impl Drives {
    fn of(names: &[&str]) -> Drives {
        let drive = TestDrive {
            keys: names.iter().map(|name| Key::of(&host(name)).number()).collect(),
            reservation: Some(Some(KIND)),
            table: vec![record("dead", lv(), State::TimedOut)],
            is_able: true,
            silent: false,
            lossy: false,
        };
        Drives(D.iter().map(|&at| (at, drive.clone())).collect(), Vec::new())
    }

    fn at(&mut self, at: usize) -> &mut TestDrive {
        self.0.get_mut(&D[at]).unwrap()
    }

    fn has(&mut self, at: usize, name: &str) -> bool {
        self.at(at).keys.contains(&Key::of(&host(name)).number())
    }

    fn execute(&mut self, me: &str, to: DriveRef, action: Action) -> Answer {
        self.1.push((to, action));
        let own = Key::of(&host(me)).number();
        let it = self.0.get_mut(&to).unwrap();
        if it.silent {
            return Answer::Silent;
        }
        let is_registered = it.keys.contains(&own);
        let done = match action {
            Action::Read => return Answer::Table(it.table.clone().into()),
            Action::Look => {
                return Answer::Seen(Seen {
                    table: it.table.clone().into(),
                    keys: it.keys.clone(),
                    reservation: it.reservation,
                    is_able: it.is_able,
                    paths: 1,
                });
            }
            Action::Register { anew } => {
                if anew && !is_registered {
                    it.keys.push(own);
                }
                anew || is_registered
            }
            Action::Reserve => {
                let free = it.reservation.is_none() || it.reservation == Some(Some(KIND));
                if free && is_registered {
                    it.reservation = Some(Some(KIND));
                }
                free && is_registered
            }
            Action::Preempt(victim) => {
                let is_there = it.keys.contains(&victim.number());
                if is_registered {
                    it.keys.retain(|&key| key != victim.number());
                }
                is_registered && is_there
            }
            Action::Unregister => {
                it.keys.retain(|&key| key != own);
                is_registered
            }
        };
        match (it.lossy, done) {
            (true, _) => Answer::Silent,
            (_, true) => Answer::Done,
            (_, false) => Answer::Conflict,
        }
    }

    fn run<P: Procedure>(&mut self, me: &str, procedure: &mut P) -> P::Outcome
    where
        P::Outcome: Clone,
    {
        while let Some((to, action)) = procedure.next() {
            let answer = self.execute(me, to, action);
            procedure.on_answer(to, answer);
        }
        procedure.outcome().cloned().expect("an end")
    }

    fn fence(&mut self, me: &str) -> Verdict {
        self.run(me, &mut fence(me))
    }
}

fn order(me: &str) -> Order {
    Order {
        me: host(me),
        resource: lv(),
        group: group(),
        target: D[0],
        drives: D.to_vec(),
        group_drives: D.to_vec(),
        needed: D[..2].to_vec(),
        until: Instant::from_micros(1000),
    }
}

fn fence(me: &str) -> Fence {
    Fence::new(order(me), Rules::default())
}

fn refused(verdict: Verdict) -> Vec<Obstacle> {
    match verdict {
        Verdict::Refused(obstacles) => obstacles,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dead_host_is_removed_from_every_drive() {
    let mut drives = Drives::of(&["a", "b", "dead"]);
    drives.at(1).table.push(record("b", group(), State::Locked));
    assert_eq!(drives.fence("a"), Verdict::Go(vec![host("dead")]));
    for at in 0..3 {
        assert!(!drives.has(at, "dead") && drives.has(at, "b"));
    }
    // Each removal was confirmed by a look, and the first drive was done before the others.
    let preempt = Action::Preempt(Key::of(&host("dead")));
    let changes: Vec<_> = drives.1.iter().skip(4).copied().collect();
    assert_eq!(changes[..2], [(D[0], preempt), (D[0], Action::Look)]);
    assert_eq!(changes.len(), 6);
    // A host that is already removed needs no order.
    drives.1.clear();
    drives.at(1).table.push(record("a", group(), State::Locked));
    assert_eq!(drives.fence("b"), Verdict::Go(vec![host("dead")]));
    assert!(drives.1.iter().all(|(_, it)| [Action::Read, Action::Look].contains(it)));
}

/// A path of the dead host has the key of an earlier boot where the drive was away when the host
/// came back.
#[test]
fn keys_of_which_no_host_lives_are_removed() {
    let mut drives = Drives::of(&["a", "dead"]);
    drives.at(1).keys[1] = Key::of(&host("earlier boot")).number();
    assert_eq!(drives.fence("a"), Verdict::Go(vec![host("dead")]));
    assert!((0..3).all(|at| drives.at(at).keys == [Key::of(&host("a")).number()]));
}

#[test]
fn a_verdict_is_good_for_a_lease() {
    let mut fence = fence("a");
    Drives::of(&["a"]).run("a", &mut fence);
    let may_arrive = |at| fence.may_arrive(Instant::from_micros(at));
    assert!(may_arrive(999) && !may_arrive(1000));
}

#[test]
fn an_order_without_answer_is_looked_after() {
    let mut drives = Drives::of(&["a", "dead"]);
    drives.at(0).lossy = true;
    drives.at(2).lossy = true;
    assert_eq!(drives.fence("a"), Verdict::Go(vec![host("dead")]));
}

#[test]
fn nothing_is_done_where_it_cannot_be_done_everywhere() {
    let mut drives = Drives::of(&["a", "dead"]);
    drives.at(1).silent = true;
    assert_eq!(refused(drives.fence("a")), [Obstacle::Silent(D[1])]);
    // A drive without the protected data may be missing, as long as most drives are there.
    drives.at(1).silent = false;
    drives.at(2).silent = true;
    assert_eq!(drives.fence("a"), Verdict::Go(vec![host("dead")]));
    assert!(!drives.has(0, "dead") && drives.has(2, "dead"));
    let mut one = Drives::of(&["a", "dead"]);
    (one.at(1).silent, one.at(2).silent) = (true, true);
    let narrow = Order { needed: vec![D[0]], ..order("a") };
    let verdict = one.run("a", &mut Fence::new(narrow, Rules::default()));
    assert_eq!(refused(verdict), [Obstacle::TooFew { seen: 1, needed: 2 }]);
    assert!(one.has(0, "dead"));
    let unregistered = Order { drives: D[1..].to_vec(), ..order("a") };
    let verdict = one.run("a", &mut Fence::new(unregistered, Rules::default()));
    assert_eq!(refused(verdict), [Obstacle::NotRegistered(host("a"), D[0])]);
    let mut open = Drives::of(&["a", "dead"]);
    open.at(2).reservation = None;
    assert_eq!(refused(open.fence("a")), [Obstacle::NotReserved(D[2])]);
}

/// A drive was away when the VG was started.
#[test]
fn who_takes_nothing_need_not_be_registered_on_all_drives() {
    let mut drives = Drives::of(&["a", "dead"]);
    let order = || Order { drives: D[..2].to_vec(), needed: D.to_vec(), ..order("a") };
    let verdict = drives.run("a", &mut Fence::new(order(), Rules::default()));
    assert_eq!(refused(verdict), [Obstacle::NotRegistered(host("a"), D[2])]);
    drives.at(0).table.clear();
    let verdict = drives.run("a", &mut Fence::new(order(), Rules::default()));
    assert_eq!(verdict, Verdict::Go(vec![]));
}

#[test]
fn a_host_that_is_alive_is_not_removed() {
    // A lock of the group that it renews, on any drive, is a sign of life.
    let mut drives = Drives::of(&["a", "dead"]);
    drives.at(2).table.push(record("dead", group(), State::Locked));
    assert_eq!(refused(drives.fence("a")), [Obstacle::Alive(host("dead"), D[2])]);
    assert!(drives.has(0, "dead"));
    // The lock of another group is none.
    drives.at(2).table[1].resource = ResourceId::vg(LV).unwrap();
    assert_eq!(drives.fence("a"), Verdict::Go(vec![host("dead")]));
    // A holder that has come back keeps its lock.
    drives.at(0).table = vec![record("dead", lv(), State::Locked)];
    assert_eq!(drives.fence("a"), Verdict::Held);
}

/// A host that lives renews its membership on most of the group's drives, on which this host may be
/// registered or not.
#[test]
fn most_of_the_groups_drives_are_read_before_a_host_is_removed() {
    let removes = |drives: &mut Drives, group_drives: &[u32]| {
        let group_drives = group_drives.iter().map(|&drive| DriveRef(drive)).collect();
        let order = Order { group_drives, ..order("a") };
        drives.run("a", &mut Fence::new(order, Rules::default()))
    };
    let mut drives = Drives::of(&["a", "dead"]);
    drives.at(2).silent = true;
    let verdict = removes(&mut drives, &[0, 1, 2, 3, 4]);
    assert_eq!(refused(verdict), [Obstacle::TooFew { seen: 2, needed: 3 }]);
    assert!(drives.has(0, "dead"));
    // A drive that has left the group does not show whether a host is alive.
    drives.at(2).silent = false;
    let verdict = removes(&mut drives, &[0, 1, 3, 4]);
    assert_eq!(refused(verdict), [Obstacle::TooFew { seen: 2, needed: 3 }]);
    assert_eq!(removes(&mut drives, &[0, 1, 2, 3, 4]), Verdict::Go(vec![host("dead")]));
    assert!((0..3).all(|at| !drives.has(at, "dead")));
}

/// The decision stands: after half a removal it would not be clear which hosts may write.
#[test]
fn a_host_that_comes_to_life_while_it_is_removed_is_removed() {
    let mut drives = Drives::of(&["a", "dead"]);
    let mut fence = fence("a");
    while let Some((to, action)) = fence.next() {
        let answer = drives.execute("a", to, action);
        if matches!(action, Action::Preempt(_)) {
            for at in 0..3 {
                drives.at(at).table.push(record("dead", lv(), State::Locked));
            }
        }
        fence.on_answer(to, answer);
    }
    assert_eq!(fence.outcome(), Some(&Verdict::Go(vec![host("dead")])));
    assert!((0..3).all(|at| !drives.has(at, "dead")));
}

/// A key that lvm2's lvmpersist makes for the host with id 1.
const FOREIGN: u64 = 0x1000_0000_0000_0001;

/// It may be the dead host's, or that of a host that lives and of which nothing is known here.
#[test]
fn keys_of_something_else_are_not_removed_and_nothing_is_taken_beside_them() {
    let mut drives = Drives::of(&["a", "dead"]);
    drives.at(1).keys.push(FOREIGN);
    assert_eq!(refused(drives.fence("a")), [Obstacle::Foreign(D[1], Some(FOREIGN))]);
    assert!((0..3).all(|at| drives.has(at, "dead")));
    // It has taken the place of this host's key.
    drives.at(1).keys.remove(0);
    assert_eq!(refused(drives.fence("a")), [Obstacle::Foreign(D[1], Some(FOREIGN))]);
    // The lock is not about that drive.
    let mut drives = Drives::of(&["a", "dead"]);
    drives.at(2).keys.push(FOREIGN);
    assert_eq!(drives.fence("a"), Verdict::Go(vec![host("dead")]));
    assert!(!drives.has(0, "dead") && drives.has(2, "dead"));
    assert!(drives.at(2).keys.contains(&FOREIGN));
    // It still shows the living hosts.
    let mut drives = Drives::of(&["a", "dead"]);
    drives.at(2).keys.push(FOREIGN);
    drives.at(2).table.push(record("dead", group(), State::Locked));
    assert_eq!(refused(drives.fence("a")), [Obstacle::Alive(host("dead"), D[2])]);
}

#[test]
fn a_key_of_something_else_that_comes_while_a_host_is_removed_ends_the_removal() {
    let mut drives = Drives::of(&["a", "dead"]);
    let mut fence = fence("a");
    while let Some((to, action)) = fence.next() {
        let answer = drives.execute("a", to, action);
        if action == Action::Preempt(Key::of(&host("dead"))) && to == D[0] {
            drives.at(0).keys.push(FOREIGN);
        }
        fence.on_answer(to, answer);
    }
    let verdict = fence.outcome().cloned().unwrap();
    assert_eq!(refused(verdict), [Obstacle::Foreign(D[0], Some(FOREIGN))]);
    assert!(drives.has(1, "dead"));
}

/// A disk that was taken out of the group may be used for something else.
#[test]
fn a_drive_that_has_left_the_group_does_not_show_that_this_host_was_removed() {
    let mut drives = Drives::of(&["a", "dead"]);
    drives.at(2).keys.clear();
    drives.at(2).reservation = None;
    let left = Order { group_drives: D[..2].to_vec(), ..order("a") };
    let verdict = drives.run("a", &mut Fence::new(left.clone(), Rules::default()));
    assert_eq!(verdict, Verdict::Go(vec![host("dead")]));
    // The lock has not moved off it yet.
    let mut drives = Drives::of(&["a", "dead"]);
    drives.at(2).keys.clear();
    let needed = Order { needed: D.to_vec(), ..left };
    let verdict = drives.run("a", &mut Fence::new(needed, Rules::default()));
    assert_eq!(refused(verdict), [Obstacle::NotRegistered(host("a"), D[2])]);
    assert!(drives.has(0, "dead"));
}

#[test]
fn of_two_hosts_that_remove_each_other_one_is_left() {
    for first in ["a", "b"] {
        let mut drives = Drives::of(&["a", "b"]);
        for at in 0..3 {
            let dead = ["a", "b"].map(|name| record(name, lv(), State::TimedOut));
            drives.at(at).table = dead.to_vec();
        }
        // Both have looked before either does anything.
        let mut fences = [("a", fence("a")), ("b", fence("b"))];
        for (me, fence) in &mut fences {
            for _ in 0..4 {
                let (to, action) = fence.next().unwrap();
                let answer = drives.execute(me, to, action);
                fence.on_answer(to, answer);
            }
        }
        fences.sort_by_key(|(me, _)| *me != first);
        let verdicts: Vec<_> = fences.iter_mut().map(|(me, fence)| drives.run(me, fence)).collect();
        let (winner, loser) = if first == "a" { ("a", "b") } else { ("b", "a") };
        assert_eq!(verdicts, [Verdict::Go(vec![host(loser)]), Verdict::Removed(D[0])]);
        assert!((0..3).all(|at| drives.has(at, winner) && !drives.has(at, loser)));
    }
}

#[test]
fn a_host_that_registers_again_and_again_is_left_alone() {
    let mut drives = Drives::of(&["a", "dead"]);
    let mut fence = fence("a");
    while let Some((to, action)) = fence.next() {
        let answer = drives.execute("a", to, action);
        if matches!(action, Action::Preempt(_)) {
            drives.execute("dead", to, Action::Register { anew: true });
        }
        fence.on_answer(to, answer);
    }
    let verdict = fence.outcome().cloned().unwrap();
    assert_eq!(refused(verdict), [Obstacle::Stays(Key::of(&host("dead")), D[0])]);
}

fn enrol(drives: &mut Drives, me: &str, is_in_use: bool) -> Enrolled {
    drives.run(me, &mut Enrolment::new(host(me), group(), &D, is_in_use))
}

/// Devices of another group are active on a drive, and that group is not started: its locks may
/// have been lost.
#[test]
fn beside_what_is_in_use_a_host_registers_only_where_it_is_registered() {
    let mut drives = Drives::of(&["b"]);
    let beside = |drives: &mut Drives, doubtful: &[DriveRef]| {
        let enrolment = Enrolment::new(host("a"), group(), &D, false);
        drives.run("a", &mut enrolment.beside(doubtful))
    };
    let refused = beside(&mut drives, &[D[1]]);
    assert_eq!(refused.obstacles, [Obstacle::OthersInUse(D[1])]);
    assert!((0..3).all(|at| !drives.has(at, "a")));
    drives.execute("a", D[1], Action::Register { anew: true });
    assert_eq!(beside(&mut drives, &[D[1]]).registered, D);
    // It is removed after the look.
    let mut enrolment = Enrolment::new(host("a"), group(), &D, false).beside(&[D[1]]);
    while let Some((to, action)) = enrolment.next() {
        if (to, action) == (D[1], Action::Register { anew: false }) {
            drives.execute("b", to, Action::Preempt(Key::of(&host("a"))));
        }
        let answer = drives.execute("a", to, action);
        enrolment.on_answer(to, answer);
    }
    assert_eq!(enrolment.outcome().unwrap().obstacles, [Obstacle::OthersInUse(D[1])]);
    assert!(!drives.has(1, "a"));
}

#[test]
fn the_first_host_reserves_and_the_next_one_joins() {
    let mut drives = Drives::of(&[]);
    for at in 0..3 {
        drives.at(at).reservation = None;
    }
    drives.at(2).lossy = true;
    for me in ["a", "b"] {
        let enrolled = enrol(&mut drives, me, false);
        assert_eq!(enrolled.registered, D);
    }
    drives.at(1).silent = true;
    let enrolled = enrol(&mut drives, "c", false);
    assert_eq!((&enrolled.registered[..], &enrolled.absent[..]), (&[D[0], D[2]][..], &[D[1]][..]));
    assert!((0..3).all(|at| drives.at(at).reservation == Some(Some(KIND))));
}

#[test]
fn a_host_that_was_removed_registers_only_after_nothing_is_in_use() {
    let mut drives = Drives::of(&["a", "b"]);
    assert_eq!(enrol(&mut drives, "a", true).registered, D);
    drives.at(1).keys.remove(0);
    let enrolled = enrol(&mut drives, "a", true);
    assert_eq!(enrolled.obstacles, [Obstacle::Removed(D[1])]);
    assert_eq!(enrol(&mut drives, "a", false).registered, D);
}

#[test]
fn what_else_uses_reservations_is_left_alone() {
    let mut drives = Drives::of(&["b"]);
    drives.at(1).keys = vec![0x1000_0000_0000_0001];
    let enrolled = enrol(&mut drives, "a", false);
    assert_eq!(enrolled.obstacles, [Obstacle::Foreign(D[1], Some(0x1000_0000_0000_0001))]);
    // Nothing was registered on the others.
    assert!((0..3).all(|at| !drives.has(at, "a")));
    drives.at(1).keys.clear();
    drives.at(1).reservation = Some(Some(ReservationType::ExclusiveAccess));
    assert_eq!(enrol(&mut drives, "a", false).obstacles, [Obstacle::Foreign(D[1], None)]);
    drives.at(1).is_able = false;
    assert_eq!(enrol(&mut drives, "a", false).obstacles, [Obstacle::Unsupported(D[1])]);
}

#[test]
fn a_host_that_does_not_register_keeps_others_from_reserving() {
    let mut drives = Drives::of(&[]);
    drives.at(0).table.push(record("b", group(), State::Locked));
    drives.at(0).reservation = None;
    let enrolled = enrol(&mut drives, "a", false);
    assert_eq!(enrolled.obstacles, [Obstacle::NotRegistered(host("b"), D[0])]);
    assert_eq!(drives.at(0).reservation, None);
}

fn watch(drives: &mut Drives, me: &str, registered: &[DriveRef], others: &[DriveRef]) -> Findings {
    drives.run(me, &mut Watch::new(host(me), group(), registered, others, Rules::default()))
}

#[test]
fn a_watch_tells_a_removal_from_a_drive_that_came_late() {
    let mut drives = Drives::of(&["a", "b"]);
    assert_eq!(watch(&mut drives, "a", &D, &[]), Findings::default());
    drives.at(2).keys.clear();
    let late = watch(&mut drives, "a", &D[..2], &D[2..]);
    assert_eq!((late.removed, &late.to_enrol[..]), (None, &D[2..]));
    let removed = watch(&mut drives, "a", &D, &[]);
    assert_eq!((removed.removed, &removed.to_enrol[..]), (Some(D[2]), &[][..]));
    // Without proof that it was not removed, it registers nowhere.
    (drives.at(0).silent, drives.at(1).silent) = (true, true);
    assert_eq!(watch(&mut drives, "a", &D[..2], &D[2..]).to_enrol, []);
}

#[test]
fn a_watch_tells_of_what_else_reserves() {
    let mut drives = Drives::of(&["a"]);
    drives.at(0).keys.push(FOREIGN);
    drives.at(1).reservation = Some(Some(ReservationType::WriteExclusive));
    drives.at(2).keys.clear();
    let found = watch(&mut drives, "a", &D[..2], &D[2..]);
    let foreign = [Obstacle::Foreign(D[0], Some(FOREIGN)), Obstacle::Foreign(D[1], None)];
    assert_eq!((&found.foreign[..], found.removed), (&foreign[..], None));
    assert_eq!(found.to_enrol, D[2..], "nothing is changed where something else reserves");
    // Its key has taken the place of this host's.
    drives.at(0).keys = vec![FOREIGN];
    let found = watch(&mut drives, "a", &D[..2], &D[2..]);
    assert_eq!((&found.foreign[..1], found.removed), (&foreign[..1], Some(D[0])));
}

#[test]
fn a_watch_names_hosts_that_do_not_register() {
    let mut drives = Drives::of(&["a"]);
    for at in 0..2 {
        drives.at(at).table.push(record("c", group(), State::Locked));
    }
    assert_eq!(watch(&mut drives, "a", &D, &[]).strangers, [host("c")]);
}

#[test]
fn the_last_host_leaves_the_reservation() {
    let mut drives = Drives::of(&["a", "b"]);
    for at in 0..3 {
        drives.at(at).table.push(record("b", group(), State::Locked));
    }
    let leave = |me: &str, drives: &mut Drives| {
        drives.run(me, &mut Departure::new(host(me), group(), &D, Rules::default()))
    };
    // Its own membership is still seen on one drive.
    drives.at(2).table.push(record("a", group(), State::Locked));
    assert_eq!(leave("a", &mut drives), []);
    assert!(drives.has(2, "a") && !drives.has(0, "a"));
    drives.at(2).table.pop();
    drives.at(1).keys.push(Key::of(&host("a")).number());
    drives.at(1).lossy = true;
    assert_eq!(leave("a", &mut drives), [D[1]]);
    assert!((0..3).all(|at| !drives.has(at, "a") && drives.has(at, "b")));
    for at in 0..3 {
        drives.at(at).table.clear();
    }
    assert_eq!(leave("b", &mut drives), []);
    assert!((0..3).all(|at| drives.has(at, "b")));
    // The group is gone, so no data is left.
    drives.at(1).lossy = true;
    let mut gone = Departure::of_gone(host("b"), group(), &D);
    assert_eq!(drives.run("b", &mut gone), [D[1]]);
    assert!((0..3).all(|at| !drives.has(at, "b")));
}
