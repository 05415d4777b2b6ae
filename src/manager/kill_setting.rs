//! A check that lvm.conf sets the command that deactivates LVs when their locks are about to be
//! lost. Without it `lvmlockctl --kill` only writes to the system log.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

const KEY: &str = "lvmlockctl_kill_command";
/// Directory of lvm's configuration, and the environment variable that replaces it.
const DIRECTORY: &str = "/etc/lvm";
const DIRECTORY_VARIABLE: &str = "LVM_SYSTEM_DIR";

/// The warning for the administrator; `None` if the command is set or the setting cannot be
/// determined.
pub(super) fn warning() -> Option<String> {
    warning_for(env::var_os(DIRECTORY_VARIABLE))
}

fn warning_for(directory: Option<OsString>) -> Option<String> {
    let directory = PathBuf::from(directory.unwrap_or_else(|| DIRECTORY.into()));
    let main = directory.join("lvm.conf");
    let text = fs::read_to_string(&main).ok()?;
    // `lvmlocal.conf` is read after lvm.conf, and need not exist.
    let local = fs::read_to_string(directory.join("lvmlocal.conf")).unwrap_or_default();
    if is_set(&text) || is_set(&local) {
        return None;
    }
    Some(format!(
        "{}: global/{KEY} is not set, so nothing deactivates logical volumes whose locks are \
         about to be lost; set it to the path of lvmlockd-idm-kill-vg",
        main.display()
    ))
}

/// Whether a configuration of lvm sets the key to a command.
fn is_set(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let value = line.split_once(KEY).and_then(|(_, rest)| rest.trim_start().strip_prefix('='));
        value
            .and_then(|value| value.trim().strip_prefix('"'))
            .is_some_and(|it| !it.starts_with('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_counts_where_it_names_a_command() {
        for set in [
            "global {\n\tlvmlockctl_kill_command = \"/sbin/k\" # why\n}",
            "global { lvmlockctl_kill_command=\"/sbin/k\" }",
            "global/lvmlockctl_kill_command = \"/sbin/k\"",
        ] {
            assert!(is_set(set), "{set}");
        }
        for unset in ["", "# lvmlockctl_kill_command = \"/sbin/k\"", "lvmlockctl_kill_command=\"\""]
        {
            assert!(!is_set(unset), "{unset}");
        }
    }

    #[test]
    fn a_configuration_without_the_command_is_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let warning = || warning_for(Some(directory.path().into()));
        assert_eq!(warning(), None, "lvm's defaults, or no lvm");
        fs::write(directory.path().join("lvm.conf"), "global {\n}\n").unwrap();
        let text = warning().unwrap();
        assert!(text.contains(KEY) && text.contains("lvm.conf: "), "{text}");
        fs::write(directory.path().join("lvmlocal.conf"), format!("global/{KEY} = \"/k\""))
            .unwrap();
        assert_eq!(warning(), None);
    }
}
