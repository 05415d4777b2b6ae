//! Drives that do not answer, that refuse, or that give wrong answers.

use crate::lvm::Call;
use crate::scene::{DRIVES, GLOBAL, LONG, LV, SHORT, Scene, VG, lv, lv_on, other_lv, scope};
use crate::{Chapter, Fault};
use idm_protocol::Mode::{Exclusive, Shared};
use lvmlockd_idm::lock::{Adopt, Resource, ResourceKey, Scope};
use std::thread;
use std::time::{Duration, Instant};

/// A lease of which requests wait long enough for drives that answer, on a slow machine too.
const LONGER: Duration = Duration::from_secs(6);
/// More commands than a fault sends.
const ALL: u32 = 1_000_000;

/// Requests an LV's lock after this order to the drives.
fn lv_lock_after(scene: &mut Scene, order: &str) {
    let host = scene.started_on(&["d0"], 1, SHORT);
    scene.order(order);
    scene.told(Call::LockLv, host.lock(1, lv(), Exclusive));
}

pub const CHAPTER: Chapter = Chapter {
    title: "Drives",
    faults: &[
        Fault {
            firmware: "current",
            cause: "two of three drives are gone while a lock is asked for",
            remedy: "bring back the drives or the paths to them, and repeat the command",
            names: [LV, "/dev/d1", "Bring back"],
            provoke: |scene| {
                let host = scene.started(1, LONGER);
                scene.order_all(&["d0", "d1"], "power # off");
                scene.told(Call::LockLv, host.lock(1, lv(), Exclusive));
            },
        },
        Fault {
            firmware: "current",
            cause: "two of three drives hang",
            remedy: "look at the kernel's log for the drives that are named",
            names: [LV, "/dev/d1", "no answer for"],
            provoke: |scene| {
                let host = scene.started(1, LONG);
                scene.order_all(&["d0", "d1"], "hang # on");
                scene.told(Call::LockLv, host.lock(1, lv(), Exclusive));
                scene.order_all(&["d0", "d1"], "hang # off");
            },
        },
        Fault {
            firmware: "current",
            cause: "the VG's lock is asked for while its drives are gone",
            remedy: "bring back the drives or the paths to them, and repeat the command",
            names: ["the lock of volume group vg0", "/dev/d0", "Bring back"],
            provoke: |scene| {
                let host = scene.started_on(&["d0"], 1, SHORT);
                scene.order("power d0 off");
                scene.told(Call::LockVg, host.lock(1, Resource::Vg, Exclusive));
            },
        },
        Fault {
            firmware: "current",
            cause: "the global lock's drives are gone",
            remedy: "bring back the drives or the paths to them, and repeat the command",
            names: ["the global lock", "/dev/d1", "Bring back"],
            provoke: |scene| {
                let host = scene.host(1, LONGER);
                host.start(GLOBAL, Scope::Global).unwrap();
                scene.order_all(&["d0", "d1"], "power # off");
                scene.told(Call::LockGlobal, host.lock(1, Resource::Global, Exclusive));
            },
        },
        Fault {
            firmware: "current",
            cause: "a drive answers BUSY for a long time",
            remedy: "let the load on the drive go down, and repeat the command",
            names: [LV, "/dev/d0", "BUSY"],
            provoke: |scene| lv_lock_after(scene, &format!("fail d0 08 {ALL}")),
        },
        Fault {
            firmware: "current",
            cause: "a drive answers TASK SET FULL for a long time",
            remedy: "let the load on the drive go down, and repeat the command",
            names: [LV, "/dev/d0", "TASK SET FULL"],
            provoke: |scene| lv_lock_after(scene, &format!("fail d0 28 {ALL}")),
        },
        Fault {
            firmware: "current",
            cause: "a drive is not ready, such as one that spins up",
            remedy: "wait until it is ready, and repeat the command",
            names: [LV, "/dev/d0", "NOT READY"],
            provoke: |scene| lv_lock_after(scene, &format!("fail d0 02 {ALL} 2/4/1")),
        },
        Fault {
            firmware: "current",
            cause: "a drive is reset again and again",
            remedy: "look at the kernel's log for the resets, and at cables and power",
            names: [LV, "/dev/d0", "UNIT ATTENTION"],
            provoke: |scene| lv_lock_after(scene, &format!("fail d0 02 {ALL} 6/29/0")),
        },
        Fault {
            firmware: "current",
            cause: "a drive answers RESERVATION CONFLICT to every command, reads included",
            remedy: "find the persistent reservation, and have its holder remove it",
            names: [LV, "/dev/d0", "persistent reservation"],
            provoke: |scene| lv_lock_after(scene, &format!("fail d0 18 {ALL}")),
        },
        Fault {
            firmware: "current",
            cause: "a drive answers with a medium error",
            remedy: "replace the drive",
            names: [LV, "/dev/d0", "MEDIUM ERROR (sense 3/11/00)"],
            provoke: |scene| lv_lock_after(scene, &format!("fail d0 02 {ALL} 3/11/0")),
        },
        Fault {
            firmware: "current",
            cause: "a drive answers with a hardware error",
            remedy: "replace the drive",
            names: [LV, "/dev/d0", "HARDWARE ERROR (sense 4/44/00)"],
            provoke: |scene| lv_lock_after(scene, &format!("fail d0 02 {ALL} 4/44/0")),
        },
        Fault {
            firmware: "current",
            cause: "a drive ends commands (ABORTED COMMAND)",
            remedy: "look at the kernel's log, and at the firmware of the drive",
            names: [LV, "/dev/d0", "ABORTED COMMAND"],
            provoke: |scene| lv_lock_after(scene, &format!("fail d0 02 {ALL} b/0/0")),
        },
        Fault {
            firmware: "current",
            cause: "a drive refuses the command's bytes (ILLEGAL REQUEST)",
            remedy: "look at the firmware of the drive: its IDM is another one",
            names: [LV, "/dev/d0", "ILLEGAL REQUEST"],
            provoke: |scene| lv_lock_after(scene, &format!("fail d0 02 {ALL} 5/24/0")),
        },
        Fault {
            firmware: "current",
            cause: "a drive has lost its IDM, such as by other firmware",
            remedy: "give it firmware with IDM, or replace it",
            names: [LV, "/dev/d0", "Use drives with IDM"],
            provoke: |scene| lv_lock_after(scene, &format!("fail d0 02 {ALL} 5/20/0/1")),
        },
        Fault {
            firmware: "current",
            cause: "an adapter or a drive aborts commands (TASK ABORTED)",
            remedy: "look at the kernel's log, and at cables and adapters",
            names: [LV, "/dev/d0", "TASK ABORTED"],
            provoke: |scene| lv_lock_after(scene, &format!("fail d0 40 {ALL}")),
        },
        Fault {
            firmware: "current",
            cause: "answers are lost on the way",
            remedy: "look at cables and adapters",
            names: [LV, "/dev/d0", "Bring back"],
            provoke: |scene| lv_lock_after(scene, &format!("lose-reply d0 {ALL}")),
        },
        Fault {
            firmware: "current",
            cause: "the answer to an unlock was lost, so that it may still reach the drive",
            remedy: "wait as many seconds as the line says, and repeat the command",
            names: [LV, "/dev/d0", "Repeat the command then"],
            provoke: |scene| {
                let host = scene.started_on(&["d0"], 1, Duration::from_secs(32));
                host.lock(1, lv(), Exclusive).unwrap();
                scene.order("lose-reply d0 1");
                host.unlock(1);
                scene.told(Call::LockLv, host.lock(1, lv(), Exclusive));
            },
        },
        Fault {
            firmware: "rev2313",
            cause: "the mutex table of the only drive is full",
            remedy: "activate fewer LVs there, or put the VG on more drives",
            names: [LV, "/dev/d0", "Activate fewer logical volumes"],
            provoke: |scene| {
                let host = scene.started_on(&["d0"], 1, LONG);
                for number in 2..=128 {
                    host.lock(number, other_lv(number), Exclusive).unwrap();
                }
                scene.told(Call::LockLv, host.lock(1, lv(), Exclusive));
            },
        },
        Fault {
            firmware: "rev2313",
            cause: "a drive has no room for another host",
            remedy: "let fewer hosts use the drive",
            names: [LV, "/dev/d0", "fewer hosts"],
            provoke: |scene| lv_lock_after(scene, "fail d0 02 1 7/41/0"),
        },
        Fault {
            firmware: "current",
            cause: "another host holds the LV",
            remedy: "deactivate it there",
            names: [LV, "/dev/d0", "host1"],
            provoke: |scene| {
                let a = scene.started_on(&["d0"], 1, LONG);
                let b = scene.started_on(&["d0"], 2, LONG);
                a.lock(1, lv(), Exclusive).unwrap();
                scene.told(Call::LockLv, b.lock(1, lv(), Exclusive));
            },
        },
        Fault {
            firmware: "current",
            cause: "another host shares the LV, which this one wants alone",
            remedy: "deactivate it there",
            names: [LV, "/dev/d0", "host1"],
            provoke: |scene| {
                let a = scene.started_on(&["d0"], 1, LONG);
                let b = scene.started_on(&["d0"], 2, LONG);
                a.lock(1, lv(), Shared).unwrap();
                b.lock(1, lv(), Shared).unwrap();
                scene.told(Call::ConvertLv, b.manager.convert(ResourceKey(1), Exclusive, 0));
            },
        },
        Fault {
            firmware: "current",
            cause: "another host that counts other drives holds the LV, because the VG was \
                    extended or reduced",
            remedy: "repeat `vgchange --lockstart vg0` on each host that has it started",
            names: [LV, "/dev/d0", "vgchange --lockstart"],
            provoke: |scene| {
                let a = scene.started_on(&["d0"], 1, LONG);
                a.lock(1, lv(), Exclusive).unwrap();
                let b = scene.started_on(&["d0", "d1"], 2, LONG);
                scene.told(Call::LockLv, b.lock(1, lv(), Exclusive));
            },
        },
        Fault {
            firmware: "current",
            cause: "another resource of this host holds the LV (core has lost count)",
            remedy: "deactivate the LV on this host; if that does not help, restart lvmlockd",
            names: [LV, "this host", "deactivate"],
            provoke: |scene| {
                let host = scene.started_on(&["d0"], 1, LONG);
                host.lock(1, lv(), Exclusive).unwrap();
                scene.told(Call::LockLv, host.lock(2, lv(), Exclusive));
            },
        },
        Fault {
            firmware: "current",
            cause: "the LV's drive answers, and too few of the VG's other drives do, on which \
                    another host may hold the LV",
            remedy: "bring back the drives that are named",
            names: [LV, "/dev/d1", "Bring back"],
            provoke: |scene| {
                let host = scene.started(1, LONGER);
                scene.order_all(&["d1", "d2"], "hang # on");
                scene.told(Call::LockLv, host.lock(1, lv_on(&["d0"]), Exclusive));
                scene.order_all(&["d1", "d2"], "hang # off");
            },
        },
        Fault {
            firmware: "current",
            cause: "two of three drives are gone when the VG is started",
            remedy: "bring back the drives or the paths to them, and start the VG again",
            names: ["volume group vg0", "/dev/d1", "Bring back"],
            provoke: |scene| {
                let host = scene.host(1, LONGER);
                scene.order_all(&["d0", "d1"], "power # off");
                scene.told(Call::Prepare, host.start(VG, scope(&DRIVES)));
            },
        },
        Fault {
            firmware: "current",
            cause: "the VG is on drives without IDM, such as after `vgcreate --locktype idm` \
                    there",
            remedy: "give the VG another lock type, as the line says, or use drives with IDM",
            names: ["volume group vg0", "/dev/d1", "--locktype none --lockopt force vg0"],
            provoke: |scene| {
                let host = scene.host(1, SHORT);
                scene.order_all(&["d0", "d1"], &format!("fail # 02 {ALL} 5/20/0/1"));
                scene.told(Call::Prepare, host.start(VG, scope(&DRIVES)));
            },
        },
        Fault {
            firmware: "current",
            cause: "the VG is on a PV that is no drive, such as a loop device",
            remedy: "give the VG another lock type, as the line says, or use drives with IDM",
            names: ["volume group vg0", "/dev/null", "--locktype none --lockopt force vg0"],
            provoke: |scene| {
                let host = scene.host(1, SHORT);
                scene.told(Call::Prepare, host.start(VG, scope(&["/dev/null"])));
            },
        },
        Fault {
            firmware: "current",
            cause: "the devices of a VG's PVs are not there",
            remedy: "bring back the drives or the paths to them, and start the VG again",
            names: ["volume group vg0", "/dev/nonexistent", "Bring back"],
            provoke: |scene| {
                let host = scene.host(1, SHORT);
                scene.told(Call::Prepare, host.start(VG, scope(&["/dev/nonexistent"])));
            },
        },
        Fault {
            firmware: "current",
            cause: "the device of one of three PVs is not there; the VG works",
            remedy: "bring it back before another one is lost",
            names: ["/dev/nonexistent", "does not answer", "bring it back"],
            provoke: |scene| {
                let host = scene.host(1, SHORT);
                host.start(VG, scope(&["d0", "d1", "/dev/nonexistent"])).unwrap();
            },
        },
        Fault {
            firmware: "current",
            cause: "one of three PVs is no drive; the VG works",
            remedy: "replace it before another one is lost",
            names: ["/dev/null", "does not answer", "replace it"],
            provoke: |scene| {
                let host = scene.host(1, SHORT);
                host.start(VG, scope(&["d0", "d1", "/dev/null"])).unwrap();
            },
        },
        Fault {
            firmware: "current",
            cause: "one of three drives is gone while the VG is used; it works",
            remedy: "bring it back before another one is lost",
            names: ["drive /dev/d0", "does not answer", "kernel's log"],
            provoke: |scene| {
                let host = scene.started(1, SHORT);
                scene.order("power d0 off");
                // Open connections end a moment later.
                thread::sleep(SHORT / 10);
                host.lock(1, lv(), Exclusive).unwrap();
                scene.hears("does not answer");
            },
        },
        Fault {
            firmware: "current",
            cause: "one of three drives has no IDM; the VG works",
            remedy: "replace it before another one is lost",
            names: ["drive /dev/d0", "no IDM", "replace it"],
            provoke: |scene| {
                scene.order(&format!("fail d0 02 {ALL} 5/20/0/1"));
                let host = scene.started(1, SHORT);
                host.lock(1, lv(), Exclusive).unwrap();
                scene.hears("no IDM");
            },
        },
        Fault {
            firmware: "current",
            cause: "one of three drives answers with errors; the VG works",
            remedy: "look at the kernel's log for the drive, and at its firmware",
            names: ["drive /dev/d0", "MEDIUM ERROR", "firmware"],
            provoke: |scene| {
                let host = scene.started(1, SHORT);
                scene.order(&format!("fail d0 02 {ALL} 3/11/0"));
                host.lock(1, lv(), Exclusive).unwrap();
                scene.hears("MEDIUM ERROR");
            },
        },
        Fault {
            firmware: "current",
            cause: "a drive has lost its mutexes, such as by a power cut; the lock is kept by \
                    the others",
            remedy: "look at the kernel's log for a reset of the drive",
            names: ["the global lock", "/dev/d0", "taken again"],
            provoke: |scene| {
                let host = scene.host(1, SHORT);
                host.start(GLOBAL, Scope::Global).unwrap();
                host.lock(1, Resource::Global, Exclusive).unwrap();
                scene.order("reset d0");
                scene.hears("which was reset");
            },
        },
        Fault {
            firmware: "current",
            cause: "a host did not renew a lock, because it died or hung; this one has taken it \
                    over",
            remedy: "see that the other host is stopped",
            names: [LV, "/dev/d0", "host1"],
            provoke: |scene| {
                let a = scene.started_on(&["d0"], 1, SHORT);
                let b = scene.started_on(&["d0"], 2, SHORT);
                a.lock(1, lv(), Exclusive).unwrap();
                drop(a);
                let begin = Instant::now();
                while b.lock(1, lv(), Exclusive).is_err() {
                    assert!(begin.elapsed() < 3 * SHORT);
                    thread::sleep(Duration::from_millis(20));
                }
            },
        },
        Fault {
            firmware: "r00d",
            cause: "a second host starts a VG on drives with firmware of May 2020 (r00d), which \
                    admits one sharer only",
            remedy: "update the firmware of the drives",
            names: ["the membership of volume group vg0", "/dev/d0", "Update the firmware"],
            provoke: |scene| {
                let a = scene.started_on(&["d0"], 1, SHORT);
                let b = scene.host(2, SHORT);
                b.manager.prepare_lockspace(VG, scope(&["d0"])).unwrap();
                scene.told(Call::Add, b.manager.add_lockspace(VG, Adopt::default()));
                drop(a);
            },
        },
        Fault {
            firmware: "current",
            cause: "the hosts of a VG are counted, for `vgremove` or `vgrename`, while its \
                    drives are gone",
            remedy: "bring back the drives or the paths to them, and repeat the command",
            names: ["volume group vg0", "/dev/d0", "Bring back"],
            provoke: |scene| {
                let host = scene.started_on(&["d0"], 1, LONG);
                scene.order("power d0 off");
                scene.told(Call::Hosts, host.manager.hosts(VG));
            },
        },
        Fault {
            firmware: "current+metadata-on-lock-only",
            cause: "the VG's lock is taken while the lock of an active LV cannot be put on the \
                    VG's drives: too few of them answer, or there are one or two with firmware \
                    that does not store metadata on REFRESH",
            remedy: "bring back the drives, and wait for the line with the lock's new drives; with \
                     such firmware deactivate the LVs before they are moved",
            names: [LV, "pvmove, lvconvert, lvextend, lvreduce, vgreduce", "do not move LVs"],
            provoke: |scene| {
                let host = scene.started_on(&["d0", "d1"], 1, SHORT);
                host.lock(1, lv_on(&["d0"]), Shared).unwrap();
                // The move has lasted for longer than a request.
                thread::sleep(SHORT / 4);
                host.lock(2, Resource::Vg, Exclusive).unwrap();
            },
        },
        Fault {
            firmware: "current",
            cause: "no drives are named for the global lock, and none has a partition for it",
            remedy: "name drives in the configuration, or give partitions the name `propeller`",
            names: ["the global lock", "propeller", "/etc/lvm/lvmlockd-idm.conf"],
            provoke: |scene| {
                let host = scene.host_but(|config| config.global_drives.clear());
                host.start(GLOBAL, Scope::Global).unwrap();
                scene.told(Call::LockGlobal, host.lock(1, Resource::Global, Exclusive));
            },
        },
    ],
};
