//! The state of locks when lvmlockd dies and is started again.

use super::*;

/// A short lease that a busy machine can still keep.
pub(super) const SHORT: Duration = Duration::from_millis(2400);
/// Time within which a restarted lvmlockd handles its orphans.
pub(super) const SOON: Duration = Duration::from_secs(10);
const ONLY: Adopt = Adopt { only: true, ok: false };
const IF_ANY: Adopt = Adopt { only: false, ok: true };

impl Bench {
    /// Makes an LV appear active on a host, or not active any more.
    pub(super) fn activate(&self, number: u8, lv: usize, active: bool) {
        self.activate_in(VG_UUID, number, lv, active);
    }

    /// The same, in the VG with this uuid.
    pub(super) fn activate_in(&self, vg_uuid: &str, number: u8, lv: usize, active: bool) {
        if !active {
            let device = self.sysfs(number).join(format!("block/dm-{lv}"));
            std::fs::remove_dir_all(&device).unwrap();
            return;
        }
        self.add_device(vg_uuid, number, (lv, lv), (&format!("lv{lv}"), ""));
    }

    /// Gives a host a device of an LV: its number and the LV's, the LV's name, and the layer.
    pub(super) fn add_device(
        &self,
        vg_uuid: &str,
        number: u8,
        (device, lv): (usize, usize),
        (name, layer): (&str, &str),
    ) {
        let device = self.sysfs(number).join(format!("block/dm-{device}"));
        std::fs::create_dir_all(device.join("dm")).unwrap();
        std::fs::create_dir_all(device.join("slaves")).unwrap();
        let uuid = format!("{vg_uuid}LVLVLV-0000-0000-0000-0000-0000-{lv:06}").replace('-', "");
        std::fs::write(device.join("dm/uuid"), format!("LVM-{uuid}{layer}\n")).unwrap();
        std::fs::write(device.join("dm/name"), format!("vg0-{name}{layer}\n")).unwrap();
    }

    /// Puts a device on top of another one.
    pub(super) fn stack(&self, number: u8, upper: usize, lower: usize) {
        let block = self.sysfs(number).join("block");
        let slave = block.join(format!("dm-{upper}/slaves/dm-{lower}"));
        std::os::unix::fs::symlink(block.join(format!("dm-{lower}")), slave).unwrap();
    }

    /// lvmlockd is killed on a host and started again.
    pub(super) fn restart(&self, host: Host, number: u8, lease: Duration) -> Host {
        drop(host);
        self.next_life(number, lease)
    }

    /// lvmlockd is started again on a host where it was killed.
    pub(super) fn next_life(&self, number: u8, lease: Duration) -> Host {
        let host = self.host(number, lease);
        host.manager.recover();
        host
    }

    /// The states of an LV's mutex on the drives.
    pub(super) fn states(&self, lv: usize) -> String {
        let name = format!("{lv:06}");
        let mut states = String::new();
        for drive in &self.drives {
            let table = self.control(&format!("table {drive}"));
            for line in table.lines().filter(|line| line.contains(&name)) {
                states += line;
                states += "\n";
            }
        }
        states
    }

    /// Makes every write of a note fail on a host. Its earlier notes are lost.
    pub(super) fn deny_notes(&self, number: u8) {
        let locks = self.state_dir(number).join("locks");
        // The lock manager makes it again when it notices.
        eventually(SOON, "something else is in its place", || {
            std::fs::remove_dir_all(&locks).is_ok() && std::fs::write(&locks, "none").is_ok()
        });
    }

    /// Ends [`Bench::deny_notes`].
    pub(super) fn allow_notes(&self, number: u8) {
        std::fs::remove_file(self.state_dir(number).join("locks")).unwrap();
    }

    /// The note of an LV's lock.
    pub(super) fn note_of(&self, number: u8, lv_number: usize) -> Option<String> {
        let Resource::Lv { uuid, .. } = lv(lv_number) else { unreachable!() };
        let name = format!("{VG_UUID}.{uuid}").replace('-', "");
        std::fs::read_to_string(self.state_dir(number).join("locks").join(name)).ok()
    }

    pub(super) fn noted(&self, number: u8) -> usize {
        std::fs::read_dir(self.state_dir(number).join("locks")).map_or(0, Iterator::count)
    }
}

impl Host {
    pub(super) fn adopt(
        &self,
        key: usize,
        resource: Resource,
        mode: Mode,
        how: Adopt,
    ) -> Result<(), Error> {
        self.manager.lock(VG, ResourceKey(key), resource, mode, how).map(drop)
    }
}

/// Fails unless, for this time, the first LV is refused to the other host exclusively, and the
/// second one shared.
fn keep_out(b: &Host, time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        is_held(b.lock(1, lv(1), Shared));
        is_held(b.lock(2, lv(2), Exclusive));
        // Other hosts see that it uses the VG, although it is not started there.
        assert_eq!(b.manager.hosts(VG), Ok(1));
        thread::sleep(SHORT / 8);
    }
}

#[test]
fn an_active_lvs_lock_outlives_lvmlockd_and_is_given_back() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, SHORT), bench.started(2, SHORT));
    a.lock(1, lv(1), Exclusive).unwrap();
    a.lock(2, lv(2), Shared).unwrap();
    bench.activate(1, 1, true);
    bench.activate(1, 2, true);
    let a = bench.restart(a, 1, SHORT);
    keep_out(&b, 3 * SHORT);
    a.start(VG, bench.scope()).unwrap();
    a.lock(11, lv(1), Exclusive).unwrap();
    a.lock(12, lv(2), Shared).unwrap();
    is_held(b.lock(1, lv(1), Shared));
    b.lock(2, lv(2), Shared).unwrap();
    for number in [1, 2] {
        bench.activate(1, number, false);
        a.unlock(10 + number);
    }
    b.lock(1, lv(1), Exclusive).unwrap();
    b.manager.convert(ResourceKey(2), Exclusive, 0).unwrap();
    assert_eq!(bench.killed(), "");
    assert_eq!(bench.noted(1), 1, "its membership");
}

#[test]
fn what_is_not_active_is_given_up_but_not_at_once() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, SHORT), bench.started(2, SHORT));
    for number in 1..=3 {
        a.lock(number, lv(number), Exclusive).unwrap();
    }
    a.lock(4, Resource::Vg, Exclusive).unwrap();
    let granted = Instant::now();
    bench.activate(1, 3, true);
    let a = bench.restart(a, 1, SHORT);
    // A command that got a lock just before may be about to use it.
    while granted.elapsed() < SHORT {
        is_held(b.lock(1, lv(1), Exclusive));
        is_held(b.lock(4, Resource::Vg, Shared));
        thread::sleep(SHORT / 8);
    }
    eventually(SOON, "what nothing uses is released", || b.lock(1, lv(1), Exclusive).is_ok());
    eventually(SOON, "the others, too", || b.lock(2, lv(2), Exclusive).is_ok());
    eventually(SOON, "the VG's lock, too", || b.lock(4, Resource::Vg, Exclusive).is_ok());
    is_held(b.lock(3, lv(3), Shared));
    assert_eq!(b.manager.hosts(VG), Ok(1));
    // The LV is deactivated, and core informs nobody.
    bench.activate(1, 3, false);
    eventually(SOON, "the last one is released", || b.lock(3, lv(3), Exclusive).is_ok());
    eventually(SOON, "and the membership", || b.manager.hosts(VG) == Ok(0));
    assert_eq!(bench.noted(1), 0);
    assert_eq!(a.manager.left_lockspaces(), []);
    assert_eq!(bench.killed(), "");
}

#[test]
fn an_orphan_is_converted_to_what_is_asked_for() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    a.lock(1, lv(1), Exclusive).unwrap();
    a.lock(2, lv(2), Shared).unwrap();
    b.lock(2, lv(2), Shared).unwrap();
    a.lock(3, lv(3), Shared).unwrap();
    let a = bench.restart(a, 1, LONG);
    a.start(VG, bench.scope()).unwrap();
    // At once: deactivate (which the library does not see), activate shared.
    a.lock(11, lv(1), Shared).unwrap();
    b.lock(1, lv(1), Shared).unwrap();
    // Refused beside another sharer, and the orphan stays.
    is_held(a.lock(12, lv(2), Exclusive));
    is_held(b.lock(3, lv(3), Exclusive));
    a.lock(12, lv(2), Shared).unwrap();
    a.lock(13, lv(3), Exclusive).unwrap();
    is_held(b.lock(3, lv(3), Shared));
    for key in 11..=13 {
        a.unlock(key);
    }
    for (key, number) in [(1, 1), (2, 2)] {
        b.manager.convert(ResourceKey(key), Exclusive, 0).unwrap();
        is_held(a.lock(20 + key, lv(number), Shared));
    }
    b.lock(3, lv(3), Exclusive).unwrap();
}

#[test]
fn a_promotion_or_demotion_survives_a_second_death() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    a.lock(1, lv(1), Exclusive).unwrap();
    a.lock(2, lv(2), Shared).unwrap();
    let a = bench.restart(a, 1, LONG);
    a.start(VG, bench.scope()).unwrap();
    a.lock(1, lv(1), Shared).unwrap();
    a.lock(2, lv(2), Exclusive).unwrap();
    let a = bench.restart(a, 1, LONG);
    a.start(VG, bench.scope()).unwrap();
    assert_eq!(a.adopt(1, lv(1), Exclusive, ONLY), Err(Error::AdoptOtherMode));
    assert_eq!(a.adopt(2, lv(2), Shared, ONLY), Err(Error::AdoptOtherMode));
    a.adopt(1, lv(1), Shared, ONLY).unwrap();
    a.adopt(2, lv(2), Exclusive, ONLY).unwrap();
    b.lock(1, lv(1), Shared).unwrap();
    is_held(b.lock(2, lv(2), Shared));
}

#[test]
fn adoption_by_command_answers_as_core_expects() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    for (number, mode) in [(1, Exclusive), (2, Shared), (3, Shared)] {
        a.lock(number, lv(number), mode).unwrap();
    }
    a.lock(4, Resource::Vg, Shared).unwrap();
    let a = bench.restart(a, 1, LONG);
    a.manager.prepare_lockspace(VG, bench.scope()).unwrap();
    a.manager.add_lockspace(VG, ONLY).unwrap();
    assert_eq!(a.adopt(11, lv(1), Shared, ONLY), Err(Error::AdoptOtherMode));
    assert_eq!(a.adopt(11, lv(1), Shared, IF_ANY), Err(Error::AdoptOtherMode));
    assert_eq!(a.adopt(12, lv(2), Exclusive, ONLY), Err(Error::AdoptOtherMode));
    assert_eq!(a.adopt(15, lv(5), Exclusive, ONLY), Err(Error::AdoptNone));
    a.adopt(11, lv(1), Exclusive, ONLY).unwrap();
    a.adopt(12, lv(2), Shared, ONLY).unwrap();
    a.adopt(13, lv(3), Shared, IF_ANY).unwrap();
    a.adopt(14, Resource::Vg, Shared, ONLY).unwrap();
    a.adopt(15, lv(5), Exclusive, IF_ANY).unwrap();
    // An orphan that was adopted is a normal lock.
    a.unlock(11);
    assert_eq!(a.adopt(11, lv(1), Exclusive, ONLY), Err(Error::AdoptNone));
    b.lock(1, lv(1), Exclusive).unwrap();
    is_held(b.lock(5, lv(5), Shared));

    // The lockspace was stopped properly: nothing to join again.
    a.manager.remove_lockspace(VG, false, true).unwrap();
    let a = bench.restart(a, 1, LONG);
    a.manager.prepare_lockspace(VG, bench.scope()).unwrap();
    assert_eq!(a.manager.add_lockspace(VG, ONLY), Err(Error::AdoptNone));
    a.manager.prepare_lockspace(VG, bench.scope()).unwrap();
    a.manager.add_lockspace(VG, IF_ANY).unwrap();
}

#[test]
fn a_lockspace_with_orphans_in_use_is_not_stopped() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    a.lock(1, lv(1), Exclusive).unwrap();
    a.lock(2, lv(2), Exclusive).unwrap();
    bench.activate(1, 1, true);
    let a = bench.restart(a, 1, LONG);
    a.start(VG, bench.scope()).unwrap();
    let ours = a.lock(3, lv(3), Exclusive);
    assert!(ours.is_ok(), "{ours:?}");
    assert_eq!(a.manager.remove_lockspace(VG, false, true), Err(Error::Busy));
    // It is unchanged, and can be used.
    is_held(b.lock(1, lv(1), Exclusive));
    is_held(b.lock(3, lv(3), Exclusive));
    a.lock(4, lv(4), Exclusive).unwrap();
    assert_eq!(b.manager.hosts(VG), Ok(1));
    // A release of lvm2 that ignores the refusal: locks in use stay kept.
    a.manager.remove_lockspace(VG, false, false).unwrap();
    b.lock(3, lv(3), Exclusive).unwrap();
    is_held(b.lock(1, lv(1), Exclusive));
    a.start(VG, bench.scope()).unwrap();
    bench.activate(1, 1, false);
    a.manager.remove_lockspace(VG, false, true).unwrap();
    eventually(SOON, "the orphan is released", || b.lock(1, lv(1), Exclusive).is_ok());
    assert_eq!(b.manager.hosts(VG), Ok(0));
    assert_eq!(bench.noted(1), 0);
}

#[test]
fn an_orderly_end_keeps_what_a_dead_lvmlockd_left() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, SHORT), bench.started(2, SHORT));
    for (number, mode) in [(1, Exclusive), (2, Shared)] {
        a.lock(number, lv(number), mode).unwrap();
        bench.activate(1, number, true);
    }
    let mut a = bench.restart(a, 1, SHORT);
    // The next lvmlockds do not start the VG, or stop it at their end, which may be refused or not;
    // core goes on in all cases.
    for stops in [None, Some(true), Some(false)] {
        if let Some(may_refuse) = stops {
            a.start(VG, bench.scope()).unwrap();
            let stopped = a.manager.remove_lockspace(VG, false, may_refuse);
            assert_eq!(stopped, if may_refuse { Err(Error::Busy) } else { Ok(()) });
        }
        a.manager.end();
        a = bench.restart(a, 1, SHORT);
        keep_out(&b, SHORT * 3 / 2);
    }
    a.start(VG, bench.scope()).unwrap();
    a.lock(11, lv(1), Exclusive).unwrap();
    a.lock(12, lv(2), Shared).unwrap();
    is_held(b.lock(1, lv(1), Shared));
    bench.activate(1, 1, false);
    a.unlock(11);
    b.lock(1, lv(1), Exclusive).unwrap();
    assert_eq!(bench.killed(), "");
}

#[test]
fn a_lockspace_that_core_gave_up_does_not_stand_in_the_way_of_the_next() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    let a = bench.restart(a, 1, LONG);
    a.start(VG, bench.scope()).unwrap();
    // As when the VG is renamed: core goes on with another struct.
    assert_eq!(a.manager.remove_lockspace(VG, false, true), Err(Error::Busy));
    let renamed = LockspaceKey(0x3000);
    a.start(renamed, bench.scope()).unwrap();
    let how = Adopt::default();
    a.manager.lock(renamed, ResourceKey(11), lv(1), Exclusive, how).unwrap();
    is_held(b.lock(1, lv(1), Shared));
    a.unlock(11);
    bench.activate(1, 1, false);
    a.manager.remove_lockspace(renamed, false, true).unwrap();
    b.lock(1, lv(1), Exclusive).unwrap();
    assert_eq!(b.manager.hosts(VG), Ok(0));
    assert_eq!(bench.noted(1), 0);
}

#[test]
fn a_lost_orphan_kills_its_vg_once_if_it_is_in_use() {
    for active in [true, false] {
        let bench = Bench::new(3);
        let (a, b) = (bench.started(1, SHORT), bench.started(2, SHORT));
        a.lock(1, lv(1), Exclusive).unwrap();
        a.lock(2, lv(2), Exclusive).unwrap();
        if active {
            bench.activate(1, 1, true);
            bench.activate(1, 2, true);
        }
        drop(a);
        for number in [1, 2] {
            let taken = || b.lock(number, lv(number), Exclusive).is_ok();
            eventually(SOON, "the dead host's lock is taken over", taken);
        }
        let a = bench.next_life(1, SHORT);
        if active {
            eventually(SOON, "the kill command", || bench.killed() == "vg0\n");
        }
        if active {
            thread::sleep(SHORT / 4);
            bench.activate(1, 1, false);
            bench.activate(1, 2, false);
        }
        eventually(SOON, "both to be given up", || bench.noted(1) <= 1);
        assert_eq!(bench.killed(), if active { "vg0\n" } else { "" });
        // It does not disturb the new holder, and the VG can be started again.
        a.start(VG, bench.scope()).unwrap();
        is_held(a.lock(1, lv(1), Shared));
        a.lock(3, lv(3), Exclusive).unwrap();
    }
}

#[test]
fn an_orphan_that_is_lost_after_it_was_proven_is_not_given_back() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, SHORT), bench.started(2, SHORT));
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    let a = bench.restart(a, 1, SHORT);
    thread::sleep(SHORT);
    is_held(b.lock(1, lv(1), Exclusive));
    // As if the host had been suspended for longer than a lease.
    eventually(SOON, "the other host takes it", || {
        bench
            .drives
            .iter()
            .for_each(|drive| drop(bench.control(&format!("skip-time {drive} 3000"))));
        b.lock(1, lv(1), Exclusive).is_ok()
    });
    eventually(SOON, "the kill command", || bench.killed() == "vg0\n");
    a.start(VG, bench.scope()).unwrap();
    is_storage(a.lock(11, lv(1), Exclusive));
    is_storage(a.adopt(11, lv(1), Exclusive, ONLY));
    // Once deactivated, it is a lock like any other.
    bench.activate(1, 1, false);
    is_held(a.lock(11, lv(1), Exclusive));
    b.unlock(1);
    a.lock(11, lv(1), Exclusive).unwrap();
    is_held(b.lock(1, lv(1), Shared));
}

#[test]
fn a_lock_that_was_lost_before_the_restart_is_another_one_once_its_lv_is_inactive() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, SHORT), bench.started(2, SHORT));
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    drop(a);
    eventually(SOON, "the dead host's lock is taken over", || b.lock(1, lv(1), Exclusive).is_ok());
    let a = bench.next_life(1, SHORT);
    eventually(SOON, "the kill command", || bench.killed() == "vg0\n");
    b.unlock(1);
    a.start(VG, bench.scope()).unwrap();
    // The active LV here has nothing to do with the other host's record.
    is_storage(a.lock(11, lv(1), Exclusive));
    bench.activate(1, 1, false);
    a.lock(11, lv(1), Exclusive).unwrap();
    // The command is about to activate it. It must not be forgotten meanwhile.
    thread::sleep(SHORT);
    assert_eq!(bench.noted(1), 2, "it, and the membership");
}

#[test]
fn drives_that_do_not_answer_at_the_start_delay_the_proof_and_raise_the_alarm() {
    let bench = Bench::new(3);
    let a = bench.started(1, SHORT);
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    for drive in ["d0", "d1"] {
        bench.control(&format!("hang {drive} on"));
    }
    let begin = Instant::now();
    let a = bench.restart(a, 1, SHORT);
    eventually(SOON, "the kill command", || bench.killed() == "vg0\n");
    assert!(begin.elapsed() >= SHORT / 4, "{:?}", begin.elapsed());
    for drive in ["d0", "d1"] {
        bench.control(&format!("hang {drive} off"));
    }
    // A late proof still keeps other hosts out.
    let b = bench.started(2, SHORT);
    let begin = Instant::now();
    while begin.elapsed() < 2 * SHORT {
        is_held(b.lock(1, lv(1), Exclusive));
        thread::sleep(SHORT / 8);
    }
    assert_eq!(bench.killed(), "vg0\n");
    drop(a);
}

#[test]
fn the_alarm_for_what_cannot_be_proven_heeds_how_old_its_lease_is() {
    let lease = Duration::from_secs(6);
    let bench = Bench::new(3);
    let a = bench.started(1, lease);
    // Orphans of other VGs must not delay it.
    for number in 1..=3 {
        let key = LockspaceKey(0x3000 + number);
        let uuid = VG_UUID.replace("wxyz", &format!("wxy{number}"));
        let scope = Scope::Vg { name: format!("vg{number}"), uuid, pvs: bench.paths() };
        a.start(key, scope).unwrap();
        let resource = ResourceKey(number);
        a.manager.lock(key, resource, lv(number), Exclusive, Adopt::default()).unwrap();
    }
    let asked = Instant::now();
    a.lock(9, lv(9), Exclusive).unwrap();
    bench.activate(1, 9, true);
    for drive in &bench.drives {
        bench.control(&format!("hang {drive} on"));
    }
    // Long before a living lvmlockd would have raised the alarm.
    thread::sleep((lease * 2 / 5).saturating_sub(asked.elapsed()));
    let a = bench.restart(a, 1, lease);
    eventually(SOON, "the kill command", || bench.killed() == "vg0\n");
    assert!(asked.elapsed() < lease, "{:?}", asked.elapsed());
    drop(a);
}

#[test]
fn a_value_that_a_dead_lvmlockd_may_have_changed_is_not_believed() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    b.lock(1, Resource::Vg, Exclusive).unwrap();
    b.manager.unlock(ResourceKey(1), 7, 0);
    a.lock(1, Resource::Vg, Exclusive).unwrap();
    let a = bench.restart(a, 1, LONG);
    a.start(VG, bench.scope()).unwrap();
    assert_eq!(a.lock(1, Resource::Vg, Exclusive), Ok(ValBlk::default()));
    a.unlock(1);
    assert_eq!(b.lock(1, Resource::Vg, Shared), Ok(ValBlk::default()));
    b.unlock(1);
    // A value that no host could have changed survives the death of every lvmlockd.
    b.lock(1, Resource::Vg, Exclusive).unwrap();
    b.manager.unlock(ResourceKey(1), 8, 0);
    let a = bench.restart(a, 1, LONG);
    a.start(VG, bench.scope()).unwrap();
    let known = b.lock(1, Resource::Vg, Exclusive).unwrap();
    assert_eq!(known.r_version, 8);
}

#[test]
fn what_cannot_be_noted_is_not_taken() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    a.lock(2, lv(2), Shared).unwrap();
    bench.deny_notes(1);
    let refused = a.lock(1, lv(1), Exclusive);
    assert!(matches!(refused, Err(Error::NotRunning(_))), "{refused:?}");
    b.lock(1, lv(1), Exclusive).unwrap();
    // A promotion is also refused.
    assert!(a.manager.convert(ResourceKey(2), Exclusive, 0).is_err());
    b.lock(2, lv(2), Shared).unwrap();
    bench.allow_notes(1);
    a.lock(3, lv(3), Exclusive).unwrap();
    a.unlock(2);
}

#[test]
fn a_vg_whose_start_could_not_be_noted_is_refused_where_lvm_can_tell() {
    let bench = Bench::new(3);
    let a = bench.host(1, LONG);
    // Something is running already.
    a.start(GLOBAL, Scope::Global).unwrap();
    bench.deny_notes(1);
    let refused = a.manager.prepare_lockspace(VG, bench.scope()).unwrap_err();
    assert!(matches!(&refused, Error::NotRunning(_)), "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains("volume group vg0") && text.contains("/locks"), "{text}");
    assert_eq!(a.manager.add_lockspace(VG, Adopt::default()), Err(Error::NoLockspace));
    // Without the global lockspace even commands that only read would fail.
    a.manager.remove_lockspace(GLOBAL, false, true).unwrap();
    a.start(GLOBAL, Scope::Global).unwrap();
    bench.allow_notes(1);
    let noted = bench.noted(1);
    a.start(VG, bench.scope()).unwrap();
    assert_eq!(bench.noted(1), noted + 1, "its membership");
}

#[test]
fn what_only_gives_rights_away_needs_no_note() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, SHORT), bench.started(2, SHORT));
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    bench.deny_notes(1);
    a.manager.convert(ResourceKey(1), Shared, 0).unwrap();
    b.lock(1, lv(1), Shared).unwrap();
    bench.allow_notes(1);
    let shared = || bench.note_of(1, 1).is_some_and(|note| note.contains("exclusive = false"));
    eventually(SOON, "the note says so as soon as it can be written", shared);
    let a = bench.restart(a, 1, SHORT);
    a.start(VG, bench.scope()).unwrap();
    eventually(SOON, "it is kept as shared", || a.lock(11, lv(1), Shared).is_ok());
    assert_eq!(bench.killed(), "");
}

/// Core goes on with an exclusive lock.
#[test]
fn a_change_to_shared_that_fails_is_not_noted() {
    let bench = Bench::new(3);
    let a = bench.started(1, SHORT);
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    for drive in ["d0", "d1", "d2"] {
        bench.control(&format!("reset {drive}"));
    }
    eventually(SOON, "the lock is lost", || bench.killed() == "vg0\n");
    assert!(a.manager.convert(ResourceKey(1), Shared, 0).is_err());
    assert!(bench.note_of(1, 1).is_some_and(|note| note.contains("exclusive = true")));
}

/// Half of the drives would prove the exclusive lock to the next lvmlockd, beside a host that
/// shares it.
#[test]
fn a_change_to_shared_on_two_drives_needs_its_note() {
    let bench = Bench::new(2);
    let (a, b) = (bench.started(1, SHORT), bench.started(2, SHORT));
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    bench.deny_notes(1);
    let refused = a.manager.convert(ResourceKey(1), Shared, 0);
    assert!(matches!(refused, Err(Error::NotRunning(_))), "{refused:?}");
    is_held(b.lock(1, lv(1), Shared));
    bench.allow_notes(1);
    a.manager.convert(ResourceKey(1), Shared, 0).unwrap();
    b.lock(1, lv(1), Shared).unwrap();
    let a = bench.restart(a, 1, SHORT);
    a.start(VG, bench.scope()).unwrap();
    eventually(SOON, "it is kept as shared", || a.lock(11, lv(1), Shared).is_ok());
    assert_eq!(bench.killed(), "");
}

#[test]
fn a_note_of_what_was_never_granted_does_no_harm() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    a.lock(1, lv(1), Exclusive).unwrap();
    b.lock(2, lv(2), Exclusive).unwrap();
    // lvmlockd was killed in the middle of requests for two more locks.
    let locks = bench.state_dir(1).join("locks");
    let note = |number: usize| {
        let Resource::Lv { uuid, .. } = lv(number) else { unreachable!() };
        locks.join(format!("{VG_UUID}.{uuid}").replace('-', ""))
    };
    std::fs::copy(note(1), note(2)).unwrap();
    std::fs::copy(note(1), note(3)).unwrap();
    let a = bench.restart(a, 1, LONG);
    eventually(SOON, "both notes to be gone", || !note(2).exists() && !note(3).exists());
    assert!(note(1).exists());
    a.start(VG, bench.scope()).unwrap();
    is_held(a.lock(2, lv(2), Shared));
    b.lock(3, lv(3), Exclusive).unwrap();
    a.lock(1, lv(1), Exclusive).unwrap();
    assert!(!bench.states(1).is_empty());
    assert_eq!(bench.killed(), "");
}

/// The kill command was run and did nothing, the lock was renewed in time, and gets into danger
/// again.
#[test]
fn a_lock_that_is_in_danger_once_more_is_told_of_once_more() {
    const LEASE: Duration = Duration::from_secs(6);
    let bench = Bench::new(1);
    let (a, b) = (bench.started(1, LEASE), bench.started(2, LEASE));
    a.lock(1, lv(1), Exclusive).unwrap();
    a.lock(2, lv(2), Exclusive).unwrap();
    bench.activate(1, 1, true);
    bench.control("power d0 off");
    eventually(LEASE, "the kill command", || bench.killed() == "vg0\n");
    bench.control("power d0 on");
    thread::sleep(2 * LEASE);
    is_held(b.lock(1, lv(1), Exclusive));
    bench.control("power d0 off");
    thread::sleep(2 * LEASE);
    assert_eq!(bench.killed(), "vg0\nvg0\n");
}
