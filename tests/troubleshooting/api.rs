//! Calls of core's that make no sense, or come at the wrong time.

use crate::lvm::Call;
use crate::scene::{GLOBAL, LONG, LV, VG, lv, other_lv, scope};
use crate::{Chapter, Fault};
use idm_protocol::Mode::Exclusive;
use lvmlockd_idm::lock::{Adopt, Resource, ResourceKey, Scope};

pub const CHAPTER: Chapter = Chapter {
    title: "Calls of lvmlockd",
    faults: &[
        Fault {
            firmware: "current",
            cause: "core passed no lockspace: lvmlockd and library do not fit",
            remedy: "build lvmlockd with the `lvmlockd-idm.c` of this library",
            names: ["lvmlockd passed no lockspace", "lm_lock_idm", "lvmlockd-idm.c"],
            provoke: |scene| {
                scene.told_by_core(Call::LockVg, |core| {
                    core.lock(None, Some(core.resource(2, b"VGLK")), 3)
                });
            },
        },
        Fault {
            firmware: "current",
            cause: "core passed no resource: lvmlockd and library do not fit",
            remedy: "build lvmlockd with the `lvmlockd-idm.c` of this library",
            names: ["lvmlockd passed no resource", "lm_lock_idm", "lvmlockd-idm.c"],
            provoke: |scene| {
                scene.told_by_core(Call::LockVg, |core| core.lock(Some(core.vg(b"vg0")), None, 3));
            },
        },
        Fault {
            firmware: "current",
            cause: "core asked for a mode that does not exist: lvmlockd and library do not fit",
            remedy: "build lvmlockd with the `lvmlockd-idm.c` of this library",
            names: ["lvm_vg0 VGLK", "lock mode 7 is unknown", "lvmlockd-idm.c"],
            provoke: |scene| {
                scene.told_by_core(Call::LockVg, |core| {
                    core.lock(Some(core.vg(b"vg0")), Some(core.resource(2, b"VGLK")), 7)
                });
            },
        },
        Fault {
            firmware: "current",
            cause: "core asked for a resource of an unknown type: lvmlockd and library do not fit",
            remedy: "build lvmlockd with the `lvmlockd-idm.c` of this library",
            names: ["lm_lock_idm", "resource type 9 is unknown", "lvmlockd-idm.c"],
            provoke: |scene| {
                scene.told_by_core(Call::LockVg, |core| {
                    core.lock(Some(core.vg(b"vg0")), Some(core.resource(9, b"VGLK")), 3)
                });
            },
        },
        Fault {
            firmware: "current",
            cause: "the name of the lockspace is none: lvmlockd and library do not fit",
            remedy: "build lvmlockd with the `lvmlockd-idm.c` of this library",
            names: ["lvm_other", "is of no VG", "lvmlockd-idm.c"],
            provoke: |scene| {
                scene.told_by_core(Call::Prepare, |core| {
                    core.prepare(Some(core.lockspace(b"lvm_other", b"", b"")))
                });
            },
        },
        Fault {
            firmware: "current",
            cause: "the VG's name is not UTF-8",
            remedy: "rename the VG on a host that does not use lvmlockd",
            names: ["lm_prepare_lockspace_idm", "VG name is not UTF-8", "rename"],
            provoke: |scene| {
                scene.told_by_core(Call::Prepare, |core| core.prepare(Some(core.vg(b"v\xFFg"))));
            },
        },
        Fault {
            firmware: "current",
            cause: "the VG's uuid is none: lvmlockd and library do not fit",
            remedy: "build lvmlockd with the `lvmlockd-idm.c` of this library",
            names: ["lvm_vg0", "uuid", "lvmlockd-idm.c"],
            provoke: |scene| {
                scene.told_by_core(Call::Prepare, |core| {
                    core.prepare(Some(core.lockspace(b"lvm_vg0", b"vg0", b"short")))
                });
            },
        },
        Fault {
            firmware: "current",
            cause: "a lock is asked for in a VG that is not started",
            remedy: "start the VG",
            names: ["lvm_vg0 VGLK", "not started", "vgchange --lockstart"],
            provoke: |scene| {
                scene.told_by_core(Call::LockVg, |core| {
                    core.lock(Some(core.vg(b"vg0")), Some(core.resource(2, b"VGLK")), 3)
                });
            },
        },
        Fault {
            firmware: "current",
            cause: "an LV's lock is asked for in the global lockspace: lvmlockd and library do \
                    not fit",
            remedy: "build lvmlockd with the `lvmlockd-idm.c` of this library",
            names: ["the global lockspace", "no such resource", "lvmlockd-idm.c"],
            provoke: |scene| {
                let host = scene.host(1, LONG);
                host.start(GLOBAL, Scope::Global).unwrap();
                let asked =
                    host.manager.lock(GLOBAL, ResourceKey(1), lv(), Exclusive, Adopt::default());
                scene.told(Call::LockLv, asked);
            },
        },
        Fault {
            firmware: "current",
            cause: "the LV's uuid is none: lvmlockd and library do not fit",
            remedy: "build lvmlockd with the `lvmlockd-idm.c` of this library",
            names: ["volume group vg0", "32 characters", "lvmlockd-idm.c"],
            provoke: |scene| {
                let host = scene.started(1, LONG);
                let broken = Resource::Lv { uuid: "x".into(), pvs: Vec::new() };
                scene.told(Call::LockLv, host.lock(1, broken, Exclusive));
            },
        },
        Fault {
            firmware: "current",
            cause: "a lock is converted that is not held (core has lost count)",
            remedy: "deactivate the LV, and repeat the command",
            names: ["convert of a lock", "not held", "deactivate"],
            provoke: |scene| {
                let host = scene.started(1, LONG);
                scene.told(Call::ConvertLv, host.manager.convert(ResourceKey(1), Exclusive, 0));
            },
        },
        Fault {
            firmware: "current",
            cause: "core forgets a lock without an unlock",
            remedy: "nothing; it was given back",
            names: [LV, "without unlock", "given back"],
            provoke: |scene| {
                let host = scene.started(1, LONG);
                host.lock(1, lv(), Exclusive).unwrap();
                host.manager.remove_resource(ResourceKey(1));
            },
        },
        Fault {
            firmware: "current",
            cause: "core uses the address of a resource for another one",
            remedy: "nothing; the first lock was given back",
            names: [LV, "another", "given back"],
            provoke: |scene| {
                let host = scene.started(1, LONG);
                host.lock(1, lv(), Exclusive).unwrap();
                host.lock(1, other_lv(2), Exclusive).unwrap();
            },
        },
        Fault {
            firmware: "current",
            cause: "a VG has no PVs",
            remedy: "look at the VG with `vgs`, and at the devices file",
            names: ["volume group vg0", "no drives", "devices file"],
            provoke: |scene| {
                let host = scene.host(1, LONG);
                scene.told(Call::Prepare, host.start(VG, scope(&[])));
            },
        },
        Fault {
            firmware: "current",
            cause: "a VG has more than 512 drives",
            remedy: "split the VG",
            names: ["volume group vg0", "512", "split"],
            provoke: |scene| {
                let host = scene.host(1, LONG);
                let names: Vec<String> = (0..600).map(|n| format!("/dev/nonexistent{n}")).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                scene.told(Call::Prepare, host.start(VG, scope(&names)));
            },
        },
    ],
};
