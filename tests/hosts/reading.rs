//! A value that is read without its lock.

use super::recovery::SOON;
use super::*;

const NOTHING: ValBlk = ValBlk { version: 0, flags: 0, r_version: 0 };

fn block(r_version: u32) -> ValBlk {
    ValBlk { version: 0x0101, flags: 0, r_version }
}

impl Bench {
    /// The commands that drives got, but for reads of their tables.
    fn changes(&self) -> Vec<String> {
        let lines = |drive| {
            let stats = self.control(&format!("stats {drive}"));
            stats.lines().filter(|line| !line.contains("read")).map(str::to_owned).collect()
        };
        self.drives.iter().map(lines).collect::<Vec<Vec<String>>>().concat()
    }
}

impl Host {
    /// The value of the VG's lock.
    fn value(&self) -> Result<ValBlk, Error> {
        self.manager.read_value(VG, &Resource::Vg)
    }

    /// Publishes a value with the VG's lock.
    fn publish(&self, r_version: u32) {
        self.lock(9, Resource::Vg, Exclusive).unwrap();
        self.manager.unlock(ResourceKey(9), r_version, 0);
    }
}

#[test]
fn a_value_is_told_as_with_a_lock_and_nothing_is_taken() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    assert_eq!(a.value(), Ok(NOTHING), "never written");
    a.publish(7);
    // More than half of the drives have answered; the last one may not have.
    eventually(SOON, "all drives are asked", || {
        let before = bench.changes();
        thread::sleep(Duration::from_millis(100));
        before == bench.changes()
    });
    let before = bench.changes();
    assert_eq!(a.value(), Ok(block(7)));
    assert_eq!(b.value(), Ok(NOTHING), "another host has written");
    assert_eq!(a.value(), Ok(block(7)), "a read drops nothing");
    assert_eq!(bench.changes(), before);
    // Nor does it with a lock: the cached value is still good.
    assert_eq!(a.lock(1, Resource::Vg, Shared).unwrap(), block(7));
    a.unlock(1);
    b.publish(8);
    assert_eq!(a.value(), Ok(NOTHING), "it is not told what was before");
}

#[test]
fn who_has_the_lock_tells_what_it_knows_and_others_know_nothing() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    a.publish(7);
    assert_eq!(a.lock(1, Resource::Vg, Exclusive).unwrap(), block(7));
    assert_eq!(a.value(), Ok(block(7)));
    assert_eq!(b.value(), Ok(NOTHING));
    // No drive has that yet.
    a.manager.convert(ResourceKey(1), Shared, 8).unwrap();
    for drive in &bench.drives {
        bench.control(&format!("power {drive} off"));
    }
    assert_eq!(a.value(), Ok(block(8)));
    for drive in &bench.drives {
        bench.control(&format!("power {drive} on"));
    }
    eventually(SOON, "the other host shares it", || b.lock(1, Resource::Vg, Shared).is_ok());
    assert_eq!(b.value(), Ok(NOTHING), "as it was told with the lock");
    a.unlock(1);
    assert_eq!(a.value(), Ok(NOTHING), "another host shares it");
}

#[test]
fn a_lost_lock_vouches_for_no_value() {
    let bench = Bench::new(3);
    let a = bench.host(1, SHORT);
    a.start(GLOBAL, Scope::Global).unwrap();
    let value = || a.manager.read_value(GLOBAL, &Resource::Global);
    a.lock(1, Resource::Global, Exclusive).unwrap();
    a.manager.convert(ResourceKey(1), Exclusive, 7).unwrap();
    assert_eq!(value(), Ok(block(7)));
    eventually(SOON, "the loss is noticed", || {
        // Again and again: between two resets the first drive may have been taken again.
        for drive in ["d0", "d1"] {
            bench.control(&format!("reset {drive}"));
        }
        value() == Ok(NOTHING)
    });
}

#[test]
fn too_few_drives_are_an_error_that_names_them() {
    let bench = Bench::new(3);
    let a = bench.started(1, LONG);
    a.publish(7);
    bench.control("power d1 off");
    assert_eq!(a.value(), Ok(block(7)));
    bench.control("power d2 off");
    let error = a.value().unwrap_err();
    let text = error.to_string();
    for part in ["the lock of volume group vg0", "1 of 3", "/dev/d1", "/dev/d2", "ask again"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("/dev/d0"), "{text}");
    is_storage(Err::<(), _>(error));
}

#[test]
fn what_a_dead_lvmlockd_held_has_no_value() {
    let bench = Bench::new(3);
    let a = bench.started(1, SHORT);
    a.publish(7);
    a.lock(1, Resource::Vg, Exclusive).unwrap();
    let a = bench.restart(a, 1, SHORT);
    a.start(VG, bench.scope()).unwrap();
    let b = bench.started(2, LONG);
    for host in [&a, &b] {
        assert_eq!(host.value(), Ok(NOTHING));
    }
    a.lock(1, Resource::Vg, Exclusive).unwrap();
    assert_eq!(a.value(), Ok(NOTHING));
    a.manager.unlock(ResourceKey(1), 8, 0);
    assert_eq!(a.value(), Ok(block(8)));
}

#[test]
fn a_removed_vg_is_told_of_without_a_lock_too() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    a.lock(1, Resource::Vg, Exclusive).unwrap();
    a.manager.unlock(ResourceKey(1), 0, 1);
    let told = b.value().unwrap();
    assert!(told.version != 0 && told.r_version != 0 && told.flags == 1, "{told:?}");
}

#[test]
fn there_is_a_value_of_what_is_started_and_has_one() {
    let bench = Bench::new(3);
    let host = bench.host(1, LONG);
    assert_eq!(host.value(), Err(Error::NoLockspace));
    host.start(VG, bench.scope()).unwrap();
    for drive in &bench.drives {
        bench.control(&format!("power {drive} off"));
    }
    assert_eq!(host.manager.read_value(VG, &lv(1)), Ok(NOTHING), "no drive is asked");
    let global = host.manager.read_value(VG, &Resource::Global);
    assert!(matches!(global, Err(Error::Invalid(_))), "{global:?}");
    host.manager.remove_lockspace(VG, false, true).unwrap();
    assert_eq!(host.value(), Err(Error::NoLockspace));
}
