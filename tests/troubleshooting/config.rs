//! Settings that cannot be used.

use crate::lvm::Call;
use crate::scene::{DRIVES, Scene, VG, scope};
use crate::{Chapter, Fault};
use lvmlockd_idm::config::Config;
use lvmlockd_idm::fencing::FencingConfig;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

/// Reads a file with this text.
fn told_of(scene: &mut Scene, text: &str) {
    let file = scene.settings(text);
    scene.told_config(Config::from_file(&file));
}

/// Starts a VG with this watchdog.
fn watched(scene: &mut Scene, device: PathBuf) {
    let host = scene.host_but(|config| {
        config.lease = Duration::from_secs(60);
        config.watchdog = Some(device);
        config.fencing = FencingConfig { kill_time: None, watchdog: Some(None) };
    });
    scene.told(Call::Prepare, host.start(VG, scope(&DRIVES)));
}

pub const CHAPTER: Chapter = Chapter {
    title: "Configuration",
    faults: &[
        Fault {
            firmware: "current",
            cause: "the configuration has a key that does not exist",
            remedy: "correct the key",
            names: ["/etc/lvm/lvmlockd-idm.conf", "leese_ms", "expected one of"],
            provoke: |scene| {
                told_of(scene, "leese_ms = 60000\n");
            },
        },
        Fault {
            firmware: "current",
            cause: "a value of the configuration has the wrong type",
            remedy: "correct the value",
            names: ["/etc/lvm/lvmlockd-idm.conf", "line 2", "lease_ms"],
            provoke: |scene| {
                told_of(scene, "# mine\nlease_ms = \"long\"\n");
            },
        },
        Fault {
            firmware: "current",
            cause: "the configuration is no TOML",
            remedy: "correct the line",
            names: ["/etc/lvm/lvmlockd-idm.conf", "line 1", "state_dir"],
            provoke: |scene| {
                told_of(scene, "state_dir = [\n");
            },
        },
        Fault {
            firmware: "current",
            cause: "the lease is too short or too long",
            remedy: "choose a lease within the bounds",
            names: ["/etc/lvm/lvmlockd-idm.conf", "lease_ms = 4000", "must be 20000 to 3600000"],
            provoke: |scene| {
                told_of(scene, "lease_ms = 4000\n");
            },
        },
        Fault {
            firmware: "current",
            cause: "the kill command is given more time than the lease has",
            remedy: "choose a shorter time or a longer lease",
            names: ["/etc/lvm/lvmlockd-idm.conf", "kill_time_ms = 50000", "lease_ms"],
            provoke: |scene| {
                told_of(scene, "kill_time_ms = 50000\n");
            },
        },
        Fault {
            firmware: "current",
            cause: "the state directory is a relative path",
            remedy: "write an absolute path",
            names: ["/etc/lvm/lvmlockd-idm.conf", "state_dir", "absolute path"],
            provoke: |scene| {
                told_of(scene, "state_dir = \"run\"\n");
            },
        },
        Fault {
            firmware: "current",
            cause: "the kill command is no absolute path",
            remedy: "write an absolute path",
            names: ["/etc/lvm/lvmlockd-idm.conf", "reboot", "absolute path"],
            provoke: |scene| {
                told_of(scene, "kill_command = [\"reboot\"]\n");
            },
        },
        Fault {
            firmware: "current",
            cause: "the kill command is empty",
            remedy: "name a program, or leave the key out",
            names: ["/etc/lvm/lvmlockd-idm.conf", "kill_command", "no program"],
            provoke: |scene| {
                told_of(scene, "kill_command = []\n");
            },
        },
        Fault {
            firmware: "current",
            cause: "the watchdog is a relative path",
            remedy: "write an absolute path",
            names: ["/etc/lvm/lvmlockd-idm.conf", "watchdog", "absolute path"],
            provoke: |scene| {
                told_of(scene, "watchdog = \"softdog\"\n");
            },
        },
        Fault {
            firmware: "current",
            cause: "the watchdog is sanlock's wdmd",
            remedy: "name a device",
            names: ["/etc/lvm/lvmlockd-idm.conf", "wdmd", "name a device"],
            provoke: |scene| {
                told_of(scene, "watchdog = \"wdmd\"\n");
            },
        },
        Fault {
            firmware: "current",
            cause: "a timeout is set, and no watchdog",
            remedy: "name a watchdog, or leave the timeout out",
            names: ["/etc/lvm/lvmlockd-idm.conf", "watchdog_timeout_s", "there is no watchdog"],
            provoke: |scene| {
                told_of(scene, "watchdog_timeout_s = 5\n");
            },
        },
        Fault {
            firmware: "current",
            cause: "the watchdog's timeout is longer than the lease allows",
            remedy: "choose a shorter timeout or a longer lease",
            names: ["/etc/lvm/lvmlockd-idm.conf", "watchdog_timeout_s = 40", "lease_ms"],
            provoke: |scene| {
                told_of(scene, "watchdog = \"/dev/watchdog\"\nwatchdog_timeout_s = 40\n");
            },
        },
        Fault {
            firmware: "current",
            cause: "a drive of the global lock has an empty path",
            remedy: "name the drive",
            names: ["/etc/lvm/lvmlockd-idm.conf", "[global] drives", "empty path"],
            provoke: |scene| {
                told_of(scene, "[global]\ndrives = [\"\"]\n");
            },
        },
        Fault {
            firmware: "current",
            cause: "the file that LVMLOCKD_IDM_CONF names is not there",
            remedy: "make it, or correct the variable",
            names: ["/etc/lvm/lvmlockd-idm.conf", "No such file", "LVMLOCKD_IDM_CONF"],
            provoke: |scene| {
                let file = scene.settings("");
                fs::remove_file(&file).unwrap();
                scene.told_config(Config::from_file(&file));
            },
        },
        Fault {
            firmware: "current",
            cause: "the configuration is a link that leads nowhere",
            remedy: "correct the link",
            names: ["/etc/lvm/lvmlockd-idm.conf", "No such file", "LVMLOCKD_IDM_CONF"],
            provoke: |scene| {
                let file = scene.settings("");
                fs::remove_file(&file).unwrap();
                symlink("/nonexistent", &file).unwrap();
                scene.told_config(Config::from_file(&file));
            },
        },
        Fault {
            firmware: "current",
            cause: "the configuration is a directory",
            remedy: "replace it by a file",
            names: ["/etc/lvm/lvmlockd-idm.conf", "no plain file", "replace it"],
            provoke: |scene| {
                let file = scene.settings("");
                fs::remove_file(&file).unwrap();
                fs::create_dir(&file).unwrap();
                scene.told_config(Config::from_file(&file));
            },
        },
        Fault {
            firmware: "current",
            cause: "everybody may write to the configuration",
            remedy: "see that nobody has; then take the permission away",
            names: ["/etc/lvm/lvmlockd-idm.conf", "everybody may write", "chmod o-w"],
            provoke: |scene| {
                let file = scene.settings("");
                fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
                scene.told_config(Config::from_file(&file));
            },
        },
        Fault {
            firmware: "current",
            cause: "the configuration is not UTF-8",
            remedy: "write it in UTF-8",
            names: ["/etc/lvm/lvmlockd-idm.conf", "UTF-8", "write"],
            provoke: |scene| {
                let file = scene.settings("");
                fs::write(&file, b"state_dir = \"\xFF\"").unwrap();
                scene.told_config(Config::from_file(&file));
            },
        },
        Fault {
            firmware: "current",
            cause: "the configuration is far too large",
            remedy: "look whether it is the right file",
            names: ["/etc/lvm/lvmlockd-idm.conf", "too large", "1 MiB"],
            provoke: |scene| {
                let file = scene.settings(&"# \n".repeat(400_000));
                scene.told_config(Config::from_file(&file));
            },
        },
        Fault {
            firmware: "current",
            cause: "the watchdog is a file, or another thing that is no device",
            remedy: "name a watchdog device",
            names: ["watchdog = ", "/etc/lvm/lvmlockd-idm.conf", "no character device"],
            provoke: |scene| {
                let file = scene.settings("");
                watched(scene, file);
            },
        },
        Fault {
            firmware: "current",
            cause: "the watchdog is a device that is no watchdog",
            remedy: "name a watchdog device",
            names: ["watchdog = ", "/dev/null", "does not answer as a watchdog"],
            provoke: |scene| {
                watched(scene, "/dev/null".into());
            },
        },
        Fault {
            firmware: "current",
            cause: "the watchdog is not there, because its driver is not loaded",
            remedy: "load the driver, or leave the key out",
            names: ["watchdog = ", "/dev/nonexistent", "load its driver"],
            provoke: |scene| {
                watched(scene, "/dev/nonexistent".into());
            },
        },
    ],
};
