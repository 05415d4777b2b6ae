//! Drives that take data only from registered hosts.

use crate::lvm::Call;
use crate::scene::{DRIVES, Host, LONG, LV, SHORT, Scene, VG, host_id, lv, lv_on, scope};
use crate::{Chapter, Fault};
use idm_fencing::{KIND, Key};
use idm_protocol::Mode::Exclusive;
use idm_protocol::reservation::scsi::{ChangeAction, LIST_LEN, ParameterList, change};
use lvmlockd_idm::lock::Adopt;
use std::time::Duration;

/// A part of a refusal.
const HOLDER: &str = "taking data of its last holder";
/// A key that is none of this library's.
const FOREIGN: u64 = 0xA1;
/// The key that lvm2's lvmpersist makes for the host with id 1.
const LVMPERSIST: u64 = 0x1000_0000_0000_0001;

/// Starts the VG on a host that uses reservations, which is refused.
fn not_started(scene: &mut Scene) -> Host {
    let host = scene.reserving(1, LONG);
    host.manager.prepare_lockspace(VG, scope(&DRIVES)).unwrap();
    scene.told(Call::Add, host.manager.add_lockspace(VG, Adopt::default()));
    host
}

/// A host that uses reservations, with the VG started on some drives.
fn started(scene: &Scene, drives: &[&str], number: u8, lease: Duration) -> Host {
    let host = scene.reserving(number, lease);
    host.start(VG, scope(drives)).unwrap();
    host
}

/// Carries out PERSISTENT RESERVE OUT by a port of a drive.
fn reserve(scene: &Scene, drive: &str, port: &str, action: ChangeAction, keys: [u64; 2]) {
    let list = ParameterList { key: keys[0], action_key: keys[1], ..ParameterList::default() };
    let list: [u8; LIST_LEN] = list.encode();
    scene.send(drive, port, &change(action, Some(KIND)), &list);
}

/// Another host removes host 1 from a drive.
fn remove(scene: &Scene, drive: &str) {
    let keys = [2, 1].map(|number| Key::of(&host_id(number)).number());
    reserve(scene, drive, "host2.0", ChangeAction::PreemptAndAbort, keys);
}

pub const CHAPTER: Chapter = Chapter {
    title: "Reservations (`[fencing] reservations = true`)",
    faults: &[
        Fault {
            firmware: "current",
            cause: "lvm2's own reservations are used (`vgchange --setpersist`), or another program \
                    has registered a key",
            remedy: "end its use: `vgchange --persist stop` on each host; or do without this \
                    setting",
            names: ["vg0 is not started", "/dev/d1", "registered the key 0xa1"],
            provoke: |scene| {
                let keys = [0, FOREIGN];
                reserve(scene, "d1", "other.0", ChangeAction::RegisterAndIgnore, keys);
                not_started(scene);
            },
        },
        Fault {
            firmware: "current",
            cause: "a host uses the VG without the setting",
            remedy: "stop the VG there, set `[fencing] reservations = true`, and start it again",
            names: ["vg0 is not started", "host2", "not registered"],
            provoke: |scene| {
                let _other = scene.started(2, LONG);
                not_started(scene);
            },
        },
        Fault {
            firmware: "current",
            cause: "a host without the setting starts a VG that others use with it",
            remedy: "stop the VG there, set `[fencing] reservations = true`, and start it again",
            names: ["vg0", "host2", "set [fencing] reservations = true there"],
            provoke: |scene| {
                let _host = started(scene, &DRIVES, 1, SHORT);
                let _other = scene.started(2, SHORT);
                scene.hears("and start it again");
            },
        },
        Fault {
            firmware: "current",
            cause: "most drives of the VG do not answer when it is started",
            remedy: "bring back the drives or the paths to them, and start the VG again",
            names: ["vg0 is not started", "/dev/d1", "does not answer"],
            provoke: |scene| {
                let host = scene.reserving(1, SHORT);
                host.manager.prepare_lockspace(VG, scope(&DRIVES)).unwrap();
                scene.order_all(&["d1", "d2"], "power # off");
                scene.told(Call::Add, host.manager.add_lockspace(VG, Adopt::default()));
            },
        },
        Fault {
            firmware: "current",
            cause: "lvmlockd is started again, and another host has taken a lock of an LV that is \
                    active",
            remedy: "deactivate the LVs of the VG, and start it again",
            names: ["vg0 is not started", "/dev/d1", "removed from it by another one"],
            provoke: |scene| {
                let host = started(scene, &DRIVES, 1, LONG);
                host.lock(1, lv(), Exclusive).unwrap();
                let _other = started(scene, &DRIVES, 2, LONG);
                scene.activate(1, true);
                drop(host);
                remove(scene, "d1");
                not_started(scene);
            },
        },
        Fault {
            firmware: "current",
            cause: "another host has taken a lock of this one, which was taken for dead",
            remedy: "let the kill command do its work, or reset the host; find out why it did not \
                    renew its locks; then start the VG again",
            names: ["vg0", "removed this one from drive /dev/d1", "takes no data of it any more"],
            provoke: |scene| {
                let host = started(scene, &DRIVES, 1, SHORT);
                let _other = started(scene, &DRIVES, 2, SHORT);
                host.lock(1, lv(), Exclusive).unwrap();
                remove(scene, "d1");
                scene.hears("removed this one from drive");
            },
        },
        Fault {
            firmware: "current",
            cause: "another program registers a key while the VG is started; with lvm2's own \
                    reservations (`vgchange --persist start`), on another host",
            remedy: "end its use: `vgchange --persist stop` on that host; until then, locks of \
                     dead hosts stay theirs",
            names: ["vg0", "/dev/d1", "can be taken from a dead host"],
            provoke: |scene| {
                let _host = started(scene, &DRIVES, 1, SHORT);
                reserve(scene, "d1", "other.0", ChangeAction::RegisterAndIgnore, [0, LVMPERSIST]);
                scene.hears("can be taken from a dead host");
                // Not each time that it is seen.
                std::thread::sleep(SHORT);
                let said = scene.lines().iter().filter(|line| line.contains("0x1000")).count();
                assert_eq!(said, 1);
            },
        },
        Fault {
            firmware: "current",
            cause: "`vgchange --persist start` is run while the VG is started: a path has one key, \
                    and it takes the place of this library's",
            remedy: "let the kill command do its work; run `vgchange --persist stop`; then start \
                     the VG again",
            names: ["vg0", "/dev/d1", "does not have the key of this host any more"],
            provoke: |scene| {
                let host = started(scene, &DRIVES, 1, SHORT);
                host.lock(1, lv(), Exclusive).unwrap();
                reserve(scene, "d1", "host1.0", ChangeAction::RegisterAndIgnore, [0, LVMPERSIST]);
                scene.hears("does not have the key of this host");
            },
        },
        Fault {
            firmware: "current",
            cause: "a host has died, and another program has registered a key on a drive of the \
                    LV, perhaps on the dead host",
            remedy: "end its use: `vgchange --persist stop`, or `--persist remove` for a host that \
                     is gone",
            names: [LV, "registered 0x1000000000000001, for host_id 1", HOLDER],
            provoke: |scene| {
                let host = started(scene, &DRIVES, 1, SHORT);
                let other = started(scene, &DRIVES, 2, SHORT);
                host.lock(1, lv_on(&["d1"]), Exclusive).unwrap();
                reserve(scene, "d1", "other.0", ChangeAction::RegisterAndIgnore, [0, LVMPERSIST]);
                drop(host);
                let try_it = || other.lock(1, lv_on(&["d1"]), Exclusive);
                let is_refused = || try_it().is_err_and(|why| why.to_string().contains(HOLDER));
                scene.eventually("the lease to end", is_refused);
                scene.told(Call::LockLv, try_it());
            },
        },
        Fault {
            firmware: "current",
            cause: "a host has died, and another one takes its lock",
            remedy: "nothing; when the dead host is back, start the VG there as usual",
            names: ["vg0", "take no data of host host1", "lease on a lock has run out"],
            provoke: |scene| {
                let host = started(scene, &DRIVES, 1, SHORT);
                let other = started(scene, &DRIVES, 2, SHORT);
                host.lock(1, lv(), Exclusive).unwrap();
                drop(host);
                scene.eventually("the lock", || other.lock(1, lv(), Exclusive).is_ok());
                // Not once for each drive.
                let said =
                    scene.lines().iter().filter(|line| line.contains("take no data")).count();
                assert_eq!(said, 1);
            },
        },
        Fault {
            firmware: "current",
            cause: "a host has died, and a drive of the LV does not answer: perhaps the dead host \
                    still reaches it",
            remedy: "bring back the drive; or make sure that the dead host is off, and start the \
                    VG on all hosts without this setting",
            names: [LV, "/dev/d2", HOLDER],
            provoke: |scene| {
                let host = started(scene, &DRIVES, 1, SHORT);
                let other = started(scene, &DRIVES, 2, SHORT);
                host.lock(1, lv(), Exclusive).unwrap();
                drop(host);
                scene.order("power d2 off");
                let try_it = || other.lock(1, lv(), Exclusive);
                let is_refused = || try_it().is_err_and(|why| why.to_string().contains(HOLDER));
                scene.eventually("the lease to end", is_refused);
                scene.told(Call::LockLv, try_it());
            },
        },
        Fault {
            firmware: "current",
            cause: "a host has died, and had renewed another lock of the VG later than \
                    this one",
            remedy: "repeat the command; a dead host's locks are free a lease after the last \
                     renewal of any of them",
            names: [LV, "/dev/d0", "is alive there, although its lease on the lock ran out"],
            provoke: |scene| {
                let host = started(scene, &DRIVES, 1, LONG);
                let other = started(scene, &DRIVES, 2, LONG);
                host.lock(1, lv(), Exclusive).unwrap();
                drop(host);
                scene.order_all(&DRIVES, "skip-time # 60000");
                // Its next life does not know the lock.
                let next = scene.reserving_as(3, 1, LONG);
                next.start(VG, scope(&DRIVES)).unwrap();
                scene.told(Call::LockLv, other.lock(1, lv(), Exclusive));
            },
        },
        Fault {
            firmware: "current",
            cause: "a drive that is new in the VG has a key of another program",
            remedy: "remove the key, as \"By hand\" in fencing.md says, and repeat the command",
            names: [LV, "/dev/d2", "registered the key 0xa1"],
            provoke: |scene| {
                let host = started(scene, &["d0", "d1"], 1, LONG);
                let keys = [0, FOREIGN];
                reserve(scene, "d2", "other.0", ChangeAction::RegisterAndIgnore, keys);
                scene.told(Call::LockLv, host.lock(1, lv_on(&["d2"]), Exclusive));
            },
        },
    ],
};
