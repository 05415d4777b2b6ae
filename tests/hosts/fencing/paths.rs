//! Paths that lose their registration where firmware refuses mutex commands without one.

use super::super::{Exclusive, eventually, is_held, lv};
use super::{LEASE, PATIENCE, bench_of, id};
use idm_fencing::Key;
use idm_protocol::reservation::scsi::ChangeAction::Register;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(50);

/// For some leases, the path in use is not registered on any drive. The firmware's answer is then
/// the same as for a lock that another host has.
#[test]
fn a_lock_is_kept_while_the_path_in_use_loses_its_registration() {
    let bench = bench_of("current+respects-reservations");
    let (a, b) = (bench.registered(1), bench.registered(2));
    a.lock(1, lv(1), Exclusive).unwrap();
    let key = Key::of(&id(1)).number();
    let end = Instant::now() + 3 * LEASE;
    for number in 2.. {
        for drive in ["d0", "d1", "d2"] {
            bench.change(drive, "host1.0", Register, [key, 0]);
        }
        // Other locks are taken and given back by the path that is left.
        eventually(LEASE, "a lock", || a.lock(number, lv(number), Exclusive).is_ok());
        a.unlock(number);
        assert_eq!(bench.killed(), "");
        if Instant::now() > end {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    is_held(b.lock(1, lv(1), Exclusive));
    eventually(PATIENCE, "the registration", || bench.count("d0", 1) == 2);
}
