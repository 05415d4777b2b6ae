//! Locks that are lost, or about to be, and the kill command.

use crate::lvm::Call;
use crate::scene::{DRIVES, GLOBAL, Host, KILLED, LV, SHORT, Scene, VG, lv, other_lv, scope};
use crate::{Chapter, Fault};
use idm_protocol::Mode::Exclusive;
use lvmlockd_idm::lock::{Resource, Scope};
use std::thread;

/// An LV is in use when all drives are gone.
fn endangered(scene: &Scene, host: &Host) {
    host.start(VG, scope(&DRIVES)).unwrap();
    host.lock(1, lv(), Exclusive).unwrap();
    scene.order_all(&DRIVES, "power # off");
    scene.hears("gets no new locks");
}

pub const CHAPTER: Chapter = Chapter {
    title: "Lost locks and the kill command",
    faults: &[
        Fault {
            firmware: "current",
            cause: "all drives of a VG are gone for nearly a lease, and its LVs are in use",
            remedy: "let the kill command do its work, or reset the host; then bring back the \
                    drives, and start the VG again",
            names: [LV, "/dev/d1", "vgchange --lockstart vg0"],
            provoke: |scene| {
                let host = scene.started(1, SHORT);
                host.lock(1, lv(), Exclusive).unwrap();
                scene.order_all(&DRIVES, "power # off");
                scene.hears("gets no new locks");
            },
        },
        Fault {
            firmware: "current",
            cause: "the drive of a VG has lost its mutexes, such as by a power cut",
            remedy: "look at what reset it; start the VG again as the line says",
            names: [LV, "/dev/d0", "vgchange --lockstart vg0"],
            provoke: |scene| {
                let host = scene.started_on(&["d0"], 1, SHORT);
                host.lock(1, lv(), Exclusive).unwrap();
                scene.order("reset d0");
                scene.hears("gets no new locks");
            },
        },
        Fault {
            firmware: "current",
            cause: "locks are asked for in a VG that has lost its locks",
            remedy: "drop the VG and start it again, as the line says",
            names: ["lvm_vg0", "waits to be dropped", "lvmlockctl --drop"],
            provoke: |scene| {
                let host = scene.started(1, SHORT);
                host.lock(1, lv(), Exclusive).unwrap();
                scene.order_all(&DRIVES, "power # off");
                scene.hears("gets no new locks");
                scene.told(Call::LockLv, host.lock(2, other_lv(2), Exclusive));
            },
        },
        Fault {
            firmware: "current",
            cause: "the kill command does not exist",
            remedy: "correct `kill_command` in /etc/lvm/lvmlockd-idm.conf; deactivate the LVs by \
                    hand",
            names: [
                "volume group vg0",
                "\"/nonexistent/kill vg0\" failed",
                "lvmlockctl --drop vg0",
            ],
            provoke: |scene| {
                let host = scene.host_but(|config| {
                    config.kill_command = Some(vec!["/nonexistent/kill".into()])
                });
                endangered(scene, &host);
                scene.hears("failed: ");
            },
        },
        Fault {
            firmware: "current",
            cause: "the kill command fails",
            remedy: "look at what it printed, which is in the log, too; deactivate the LVs by \
                    hand",
            names: ["volume group vg0", "\"/bin/false vg0\" failed", "lvmlockctl --drop vg0"],
            provoke: |scene| {
                let host =
                    scene.host_but(|config| config.kill_command = Some(vec!["/bin/false".into()]));
                endangered(scene, &host);
                scene.hears("failed: ");
            },
        },
        Fault {
            firmware: "current",
            cause: "the kill command hangs",
            remedy: "reset the host, or deactivate the LVs by hand",
            names: ["volume group vg0", "still runs", "lvmlockctl --drop vg0"],
            provoke: |scene| {
                let words = ["/bin/sh", "-c", "exec sleep 3"].map(str::to_owned);
                let host = scene.host_but(|config| config.kill_command = Some(words.to_vec()));
                endangered(scene, &host);
                scene.hears("still runs");
            },
        },
        Fault {
            firmware: "current",
            cause: "the kill command ended well, and locks of the VG are still in use, because \
                    nothing has dropped it",
            remedy: "deactivate the LVs and drop the VG by hand, as the line says",
            names: ["volume group vg0", "has ended", "lvmlockctl --drop vg0"],
            provoke: |scene| {
                let host = scene.host(1, KILLED);
                endangered(scene, &host);
                scene.hears("has ended");
            },
        },
        Fault {
            firmware: "current",
            cause: "the kill command has something to say",
            remedy: "do as it says",
            names: ["/bin/sh", "vg0: cannot wipe", "vg0"],
            provoke: |scene| {
                let words = ["/bin/sh", "-c", "echo $0: cannot wipe"].map(str::to_owned);
                let host = scene.host_but(|config| config.kill_command = Some(words.to_vec()));
                endangered(scene, &host);
                scene.hears(": vg0: cannot wipe");
            },
        },
        Fault {
            firmware: "current",
            cause: "the locks were released too late: other hosts could have them before",
            remedy: "compare what was written to the VG since; restore it where in doubt",
            names: ["volume group vg0", "released", "check the data"],
            provoke: |scene| {
                let host = scene.host(1, KILLED);
                endangered(scene, &host);
                thread::sleep(KILLED);
                host.unlock(1);
                scene.hears("all locks were released");
            },
        },
        Fault {
            firmware: "current",
            cause: "the global lock's drives were gone for a lease while a command held it",
            remedy: "repeat the command",
            names: ["the global lock", "/dev/d1", "repeated"],
            provoke: |scene| {
                let host = scene.host(1, SHORT);
                host.start(GLOBAL, Scope::Global).unwrap();
                host.lock(1, Resource::Global, Exclusive).unwrap();
                scene.order_all(&DRIVES, "power # off");
                scene.hears("must be repeated");
            },
        },
        Fault {
            firmware: "current",
            cause: "the drives of a started VG that is not in use are gone for a lease",
            remedy: "bring back the drives; the VG is seen by other hosts again then",
            names: ["the membership of volume group vg0", "/dev/d1", "bring back"],
            provoke: |scene| {
                let _host = scene.started(1, SHORT);
                scene.order_all(&DRIVES, "power # off");
                scene.hears("other hosts may not see");
            },
        },
        Fault {
            firmware: "current",
            cause: "lvm.conf does not say how LVs are deactivated",
            remedy: "set `lvmlockctl_kill_command` in lvm.conf",
            names: [
                "lvmlockctl_kill_command",
                "lvm.conf",
                "set it to the path of lvmlockd-idm-kill-vg",
            ],
            provoke: |scene| {
                let host = scene.host_but(|config| config.kill_command = None);
                host.start(VG, scope(&DRIVES)).unwrap();
            },
        },
    ],
};
