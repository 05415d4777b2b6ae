//! Files below the state directory that are not as they should be.

use crate::lvm::Call;
use crate::scene::{DRIVES, LONG, LV, SHORT, Scene, VG, lv, scope};
use crate::{Chapter, Fault};
use idm_protocol::Mode::Exclusive;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Does something to the note of the LV's lock.
fn spoil(scene: &Scene, work: impl Fn(&Path)) {
    let notes = fs::read_dir(scene.state("locks")).unwrap().map(|entry| entry.unwrap().path());
    let is_lvs = |file: &std::path::PathBuf| file.to_string_lossy().contains("LVLVLV");
    notes.filter(is_lvs).for_each(|file| work(&file));
}

pub const CHAPTER: Chapter = Chapter {
    title: "Files",
    faults: &[
        Fault {
            firmware: "current",
            cause: "the state directory cannot be made",
            remedy: "make room for it, or correct `state_dir`",
            names: ["/run/lvmlockd-idm", "cannot be kept", "remove it"],
            provoke: |scene| {
                fs::write(scene.state_dir(1), "").unwrap();
                let host = scene.host(1, SHORT);
                scene.told(Call::Prepare, host.start(VG, scope(&DRIVES)));
            },
        },
        Fault {
            firmware: "current",
            cause: "others may write to the state directory",
            remedy: "see whose files are in it; then take the permission away, or remove it",
            names: ["/run/lvmlockd-idm", "others may write", "chmod go-w"],
            provoke: |scene| {
                fs::create_dir(scene.state_dir(1)).unwrap();
                fs::set_permissions(scene.state_dir(1), fs::Permissions::from_mode(0o777)).unwrap();
                let host = scene.host(1, SHORT);
                scene.told(Call::Prepare, host.start(VG, scope(&DRIVES)));
            },
        },
        Fault {
            firmware: "current",
            cause: "the file with the host's id is a directory",
            remedy: "remove it",
            names: ["/run/lvmlockd-idm", "host id", "remove"],
            provoke: |scene| {
                fs::create_dir_all(scene.state("host-id")).unwrap();
                let host = scene.host(1, SHORT);
                scene.told(Call::Prepare, host.start(VG, scope(&DRIVES)));
            },
        },
        Fault {
            firmware: "current",
            cause: "the host's id is damaged",
            remedy: "deactivate LVs that were active before; the locks of the earlier id end \
                    after one lease",
            names: ["/run/lvmlockd-idm/host-id", "another id", "one lease"],
            provoke: |scene| {
                fs::create_dir_all(scene.state_dir(1)).unwrap();
                fs::write(scene.state("host-id"), b"\xFF").unwrap();
                let _host = scene.started(1, SHORT);
            },
        },
        Fault {
            firmware: "current",
            cause: "the folder for notes of locks is a file",
            remedy: "remove it, and start the VG again",
            names: ["/run/lvmlockd-idm/locks", "noted", "remove it"],
            provoke: |scene| {
                fs::create_dir_all(scene.state_dir(1)).unwrap();
                fs::write(scene.state("locks"), "").unwrap();
                let host = scene.host(1, SHORT);
                scene.told(Call::Prepare, host.start(VG, scope(&DRIVES)));
            },
        },
        Fault {
            firmware: "current",
            cause: "a lock cannot be noted, because a file is in the place of the folder",
            remedy: "remove it, and repeat the command; where the line speaks of space, make room",
            names: [LV, "/run/lvmlockd-idm", "remove it"],
            provoke: |scene| {
                let host = scene.started(1, LONG);
                fs::remove_dir_all(scene.state("locks")).unwrap();
                fs::write(scene.state("locks"), "").unwrap();
                scene.told(Call::LockLv, host.lock(1, lv(), Exclusive));
            },
        },
        Fault {
            firmware: "current",
            cause: "the notes were changed or removed by somebody else",
            remedy: "find out who does that, and have it end; the notes are there again",
            names: ["/run/lvmlockd-idm/locks", "somebody else", "written again"],
            provoke: |scene| {
                let host = scene.started(1, LONG);
                fs::remove_dir_all(scene.state("locks")).unwrap();
                host.lock(1, lv(), Exclusive).unwrap();
            },
        },
        Fault {
            firmware: "current",
            cause: "the note of a lock is damaged",
            remedy: "deactivate the LV, if it is active",
            names: ["/run/lvmlockd-idm/locks/", "damaged", "deactivate"],
            provoke: |scene| {
                let host = scene.started(1, LONG);
                host.lock(1, lv(), Exclusive).unwrap();
                drop(host);
                spoil(scene, |file| fs::write(file, "nonsense").unwrap());
                scene.host(1, LONG).manager.recover();
            },
        },
        Fault {
            firmware: "current",
            cause: "the note of a lock is no plain file",
            remedy: "see what put it there, and remove it",
            names: ["/run/lvmlockd-idm/locks/", "left alone", "remove it"],
            provoke: |scene| {
                let host = scene.started(1, LONG);
                host.lock(1, lv(), Exclusive).unwrap();
                drop(host);
                spoil(scene, |file| {
                    fs::remove_file(file).unwrap();
                    fs::create_dir(file).unwrap();
                });
                scene.host(1, LONG).manager.recover();
            },
        },
        Fault {
            firmware: "current",
            cause: "the metrics cannot be written",
            remedy: "remove what is in the way, or make room",
            names: ["/run/lvmlockd-idm/metrics.prom", "no metrics", "in its way"],
            provoke: |scene| {
                fs::create_dir_all(scene.state("metrics.prom")).unwrap();
                let _host = scene.started(1, LONG);
                scene.hears("no metrics");
            },
        },
        Fault {
            firmware: "current",
            cause: "the note cannot be written that tells the next lvmlockd until when locks are \
                    safe",
            remedy: "make room on the file system of the state directory",
            names: ["/run/lvmlockd-idm/safe-until", "noted", "make room"],
            provoke: |scene| {
                fs::create_dir_all(scene.state("safe-until")).unwrap();
                let host = scene.started(1, SHORT);
                host.lock(1, lv(), Exclusive).unwrap();
                scene.hears("until which locks are safe");
            },
        },
        Fault {
            firmware: "current",
            cause: "the note is damaged that tells until when locks are safe",
            remedy: "nothing, if the drives answer",
            names: ["/run/lvmlockd-idm/safe-until", "damaged", "ignored"],
            provoke: |scene| {
                let host = scene.started(1, SHORT);
                host.lock(1, lv(), Exclusive).unwrap();
                let note = scene.state("safe-until");
                scene.eventually("the note", || note.exists());
                drop(host);
                fs::write(&note, "nonsense").unwrap();
                scene.host(1, SHORT).manager.recover();
            },
        },
    ],
};
