//! The remains of a dead lvmlockd.

use crate::lvm::Call;
use crate::scene::{DRIVES, GLOBAL, LONG, LV, SHORT, VG, lv, lv_on, scope};
use crate::{Chapter, Fault};
use idm_protocol::Mode::{Exclusive, Shared};
use lvmlockd_idm::lock::{Adopt, Resource, ResourceKey, Scope};
use std::thread;
use std::time::{Duration, Instant};

pub const CHAPTER: Chapter = Chapter {
    title: "lvmlockd was killed, or has forgotten locks",
    faults: &[
        Fault {
            firmware: "current",
            cause: "lvmlockd was killed and started again while locks were held",
            remedy: "nothing; start the VG again with `vgchange --lockstart vg0` to use it",
            names: ["vg0", "an earlier lvmlockd", "vgchange --lockstart"],
            provoke: |scene| {
                let host = scene.started(1, SHORT);
                host.lock(1, lv(), Exclusive).unwrap();
                scene.activate(1, true);
                let _host = scene.restarted(host, 1, SHORT);
            },
        },
        Fault {
            firmware: "current",
            cause: "lvmlockd was started again, and the drives do not answer for a lock that it \
                    left",
            remedy: "bring back the drives; the lock can be had then",
            names: [LV, "/dev/d0", "not confirmed by its drives"],
            provoke: |scene| {
                let host = scene.started_on(&["d0", "d1", "d2"], 1, Duration::from_secs(20));
                host.lock(1, lv_on(&["d0"]), Exclusive).unwrap();
                scene.activate(1, true);
                scene.order("power d0 off");
                let host = scene.restarted(host, 1, Duration::from_secs(20));
                host.start(VG, scope(&DRIVES)).unwrap();
                scene.told(Call::LockLv, host.lock(2, lv_on(&["d0"]), Exclusive));
            },
        },
        Fault {
            firmware: "current",
            cause: "lvmlockd was started again, and its drives do not answer while the LV is \
                    active, until it is nearly too late",
            remedy: "let the kill command do its work; bring back the drives",
            names: [LV, "/dev/d1", "vgchange --lockstart vg0"],
            provoke: |scene| {
                let host = scene.started(1, SHORT);
                host.lock(1, lv(), Exclusive).unwrap();
                scene.activate(1, true);
                scene.order_all(&DRIVES, "power # off");
                let _host = scene.restarted(host, 1, SHORT);
                scene.hears("gets no new locks");
            },
        },
        Fault {
            firmware: "current",
            cause: "lvmlockd was dead for longer than a lease, and another host has the LV, \
                    which is active here",
            remedy: "let the kill command do its work; compare what was written to the LV",
            names: [LV, "/dev/d0", "lvmlockctl --drop vg0"],
            provoke: |scene| {
                let host = scene.started_on(&["d0"], 1, SHORT);
                let other = scene.started_on(&["d0"], 2, SHORT);
                host.lock(1, lv(), Exclusive).unwrap();
                scene.activate(1, true);
                drop(host);
                let begin = Instant::now();
                while other.lock(1, lv(), Exclusive).is_err() {
                    assert!(begin.elapsed() < 3 * SHORT);
                    thread::sleep(Duration::from_millis(20));
                }
                let host = scene.host(1, SHORT);
                host.manager.recover();
                scene.hears("gets no new locks");
            },
        },
        Fault {
            firmware: "current",
            cause: "the LV is asked for whose lock was lost while lvmlockd was dead, and which \
                    is still active here",
            remedy: "deactivate the LV, and repeat the command",
            names: [LV, "still active", "deactivate"],
            provoke: |scene| {
                let host = scene.started_on(&["d0"], 1, SHORT);
                host.lock(1, lv(), Exclusive).unwrap();
                scene.activate(1, true);
                drop(host);
                scene.order("reset d0");
                let host = scene.host(1, SHORT);
                host.manager.recover();
                scene.hears("gets no new locks");
                host.start(VG, scope(&["d0"])).unwrap();
                scene.told(Call::LockLv, host.lock(2, lv(), Exclusive));
            },
        },
        Fault {
            firmware: "current",
            cause: "a VG is stopped whose LVs are active since before lvmlockd was started",
            remedy: "deactivate the LVs, and stop the VG again",
            names: [LV, "still active", "deactivate"],
            provoke: |scene| {
                let host = scene.started(1, LONG);
                host.lock(1, lv(), Exclusive).unwrap();
                scene.activate(1, true);
                let host = scene.restarted(host, 1, LONG);
                host.start(VG, scope(&DRIVES)).unwrap();
                scene.told(Call::Remove, host.manager.remove_lockspace(VG, false, true));
            },
        },
        Fault {
            firmware: "current",
            cause: "lvmlockd was started a moment ago, and what it had sent before may still \
                    reach the drives",
            remedy: "wait as many seconds as the line says, and repeat the command",
            names: ["the global lock", "an earlier lvmlockd", "try again then"],
            provoke: |scene| {
                let host = scene.host(1, LONG);
                host.start(GLOBAL, Scope::Global).unwrap();
                host.lock(1, Resource::Global, Exclusive).unwrap();
                host.unlock(1);
                let host = scene.restarted(host, 1, LONG);
                host.start(GLOBAL, Scope::Global).unwrap();
                scene.told(Call::LockGlobal, host.lock(1, Resource::Global, Exclusive));
            },
        },
        Fault {
            firmware: "current",
            cause: "LVs are active, and no lock is known that protects them, such as after /run \
                    was emptied",
            remedy: "deactivate them, and start the VG again",
            names: [
                "volume group vg0",
                "LVLVLV-0000-0000-0000-0000-0000-000001",
                "Deactivate them",
            ],
            provoke: |scene| {
                scene.activate(1, true);
                let host = scene.host(1, SHORT);
                scene.told(Call::Prepare, host.start(VG, scope(&DRIVES)));
            },
        },
        Fault {
            firmware: "current",
            cause: "only a lock that is there is wanted (`--lockopt adoptlv`), and there is none",
            remedy: "repeat the command without the option",
            names: ["LVLVLV-0000-0000-0000-0000-0000-000001", "no lock", "without that --lockopt"],
            provoke: |scene| {
                let host = scene.started(1, SHORT);
                let only = Adopt { only: true, ok: false };
                let asked = host.manager.lock(VG, ResourceKey(1), lv(), Exclusive, only);
                scene.told(Call::LockLv, asked);
            },
        },
        Fault {
            firmware: "current",
            cause: "a lock that is there is wanted (`--lockopt adopt`), and it has the other mode",
            remedy: "repeat the command with the other mode, or without the option",
            names: ["LVLVLV-0000-0000-0000-0000-0000-000001", "other mode", "without"],
            provoke: |scene| {
                let host = scene.started(1, LONG);
                host.lock(1, lv(), Shared).unwrap();
                scene.activate(1, true);
                let host = scene.restarted(host, 1, LONG);
                host.start(VG, scope(&DRIVES)).unwrap();
                let adopt = Adopt { only: false, ok: true };
                let asked = host.manager.lock(VG, ResourceKey(2), lv(), Exclusive, adopt);
                scene.told(Call::LockLv, asked);
            },
        },
        Fault {
            firmware: "current",
            cause: "lvmlockd forgets an LV without an unlock, while it is active",
            remedy: "deactivate the LV when it is not needed any more; its lock is kept until \
                    then",
            names: [LV, "active", "kept"],
            provoke: |scene| {
                let host = scene.started(1, LONG);
                host.lock(1, lv(), Exclusive).unwrap();
                scene.activate(1, true);
                host.manager.remove_resource(ResourceKey(1));
            },
        },
    ],
};
