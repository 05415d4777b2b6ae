//! Volume groups that get their lock type, change it and lose it.

use super::{LEASE, for_every_release};
use anyhow::{Context, Result};
use std::fs;
use testbed::{EAGAIN, Host, Lvm2, Mode, Testbed};

for_every_release!(
    a_local_vg_becomes_shared_and_local_again,
    a_vg_whose_lock_manager_is_gone_is_taken_over
);

/// Two hosts, and a local VG with an LV.
fn with_local_vg(lvm2: Lvm2) -> Result<(Testbed, Host, Host)> {
    let testbed = Testbed::new(LEASE)?;
    let alice = testbed.host("alice", lvm2)?;
    let bob = testbed.host("bob", lvm2)?;
    let pvs = testbed.pvs();
    let mut create = vec!["vgcreate", "vg"];
    create.extend(pvs.iter().map(String::as_str));
    alice.lvm(&create)?.success()?;
    alice.lvm(&["lvcreate", "-an", "-Zn", "-i3", "-L12m", "-n", "data", "vg"])?.success()?;
    Ok((testbed, alice, bob))
}

/// Starts the VG on both hosts. Fails unless they exclude each other then.
fn share(testbed: &Testbed, alice: &Host, bob: &Host) -> Result<()> {
    for host in [alice, bob] {
        host.lvm(&["vgchange", "--lockstart", "vg"])?.success()?;
    }
    let lv = alice.find_lv("vg", "data", &testbed.pvs())?;
    let mut holder = alice.client()?;
    assert_eq!(holder.lock_lv(&lv, Mode::Ex)?, 0);
    assert_eq!(bob.client()?.lock_lv(&lv, Mode::Ex)?, EAGAIN);
    assert_eq!(holder.lock_lv(&lv, Mode::Un)?, 0);
    Ok(())
}

fn lock_type(host: &Host) -> Result<String> {
    let said = host.lvm(&["vgs", "--noheadings", "-o", "lock_type", "vg"])?.success()?;
    Ok(said.stdout.trim().to_owned())
}

fn a_local_vg_becomes_shared_and_local_again(lvm2: Lvm2) -> Result<()> {
    let (testbed, alice, bob) = with_local_vg(lvm2)?;
    alice.lvm(&["vgchange", "--yes", "--locktype", "idm", "vg"])?.success()?;
    assert_eq!(lock_type(&bob)?, "idm");
    share(&testbed, &alice, &bob)?;

    bob.lvm(&["vgchange", "--lockstop", "vg"])?.success()?;
    alice.lvm(&["vgchange", "--yes", "--locktype", "none", "vg"])?.success()?;
    assert_eq!(lock_type(&bob)?, "", "a local VG has no lock type");
    Ok(())
}

/// The metadata of the VG name a lock manager that does not run.
fn a_vg_whose_lock_manager_is_gone_is_taken_over(lvm2: Lvm2) -> Result<()> {
    let (testbed, alice, bob) = with_local_vg(lvm2)?;
    let file = testbed.dir().join("metadata");
    let file = file.to_str().context("a path of text")?;
    alice.lvm(&["vgcfgbackup", "--file", file, "vg"])?.success()?;
    let local = fs::read_to_string(file)?;
    let status = "\tstatus = [\"RESIZEABLE\", \"READ\", \"WRITE\"]\n";
    let other = format!("{status}\tlock_type = \"dlm\"\n\tlock_args = \"1.0.0:cluster\"\n");
    assert!(local.contains(status), "{local}");
    fs::write(file, local.replacen(status, &other, 1))?;
    alice.lvm(&["vgcfgrestore", "--file", file, "--force", "vg"])?.success()?;
    assert_eq!(lock_type(&bob)?, "dlm");

    let refused = alice.lvm(&["lvcreate", "-an", "-Zn", "-L4m", "-n", "more", "vg"])?;
    assert_eq!(refused.code, 5, "{refused}");
    alice
        .lvm(&["vgchange", "--yes", "--locktype", "none", "--lockopt", "force", "vg"])?
        .success()?;
    alice.lvm(&["vgchange", "--yes", "--locktype", "idm", "vg"])?.success()?;
    share(&testbed, &alice, &bob)
}
