//! One library file works in every lvmlockd, in place of lvm2's lvmlockd-idm.c.

use super::{LEASE, Pair, for_every_build};
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use testbed::{Lvm2, Mode, Trace, library};

fn linked_to(lvm2: Lvm2) -> Result<PathBuf> {
    let output = Command::new("ldd").arg(lvm2.lvmlockd()).env_remove("LD_LIBRARY_PATH").output()?;
    let text = String::from_utf8(output.stdout)?;
    let path = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("liblvmlockd_idm.so.0 => "))
        .and_then(|rest| rest.split(' ').next())
        .with_context(|| format!("{lvm2:?} is not linked to the library:\n{text}"))?;
    Ok(fs::canonicalize(path)?)
}

#[test]
fn every_lvmlockd_uses_the_same_library_file() -> Result<()> {
    let library = fs::canonicalize(library())?;
    for lvm2 in Lvm2::all() {
        assert_eq!(linked_to(lvm2)?, library, "{lvm2:?}");
    }
    Ok(())
}

#[test]
fn no_lvm2_lock_manager_is_left_beside_the_library() -> Result<()> {
    for lvm2 in Lvm2::all() {
        let symbols = Command::new("nm").arg(lvm2.lvmlockd()).output()?;
        let symbols = String::from_utf8(symbols.stdout)?;
        assert!(symbols.contains(" U lm_lock_idm"), "{lvm2:?}");
        assert!(!symbols.contains(" T lm_lock_idm"), "{lvm2:?}");
        assert!(!symbols.contains("ilm_"), "{lvm2:?}");
    }
    Ok(())
}

for_every_build!(the_log_is_in_lvmlockctls_dump);

fn the_log_is_in_lvmlockctls_dump(lvm2: Lvm2) -> Result<()> {
    let pair = Pair::new(lvm2, LEASE)?;
    let dump = pair.alice.lvmlockctl(&["--dump"])?.success()?;
    // Our messages, and those of core.
    assert!(dump.stdout.contains(" idm: lm_lock_idm"), "{dump}");
    assert!(dump.stdout.contains(" res_lock "), "{dump}");
    Ok(())
}

#[test]
fn no_lock_unlock_or_convert_starts_a_process() -> Result<()> {
    let pair = Pair::new(Lvm2::newest(), LEASE)?;
    let pid = pair.alice.lvmlockd_pid()?;
    let trace = Trace::attach(
        pid,
        "execve,execveat,fork,vfork,clone,clone3,sendto,write",
        pair.testbed.dir(),
    )?;
    let mut client = pair.alice.client()?;
    for mode in [Mode::Ex, Mode::Un] {
        assert_eq!(client.lock_global(mode)?, 0);
        assert_eq!(client.lock_vg("vg", mode)?, 0);
    }
    for option in ["-asy", "-aey", "-asy", "-an"] {
        pair.alice.lvm(&["lvchange", option, "vg/data"])?.success()?;
    }
    let calls = trace.finish()?;
    // lvmlockd answers its clients with write.
    let answers = calls.iter().filter(|call| call.contains("response = "));
    assert!(answers.count() >= 8, "the trace has missed something: {calls:#?}");
    for call in calls {
        let name = call.split_whitespace().nth(1).unwrap_or_default();
        let process = ["execve", "fork", "vfork"].iter().any(|start| name.starts_with(start))
            || name.starts_with("clone") && !call.contains("CLONE_THREAD");
        assert!(!process, "{call}");
    }
    Ok(())
}
