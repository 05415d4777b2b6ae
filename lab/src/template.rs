//! The snapshot that all machines are resumed from: a booted machine with all modules and the
//! agent, before anything is plugged in.

use crate::agent::Agent;
use crate::qemu::{self, Boot, Qemu};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time limit of a cold boot, which takes 3 s under emulation on an idle machine.
const COLD_BOOT: Duration = Duration::from_secs(180);

/// Returns the snapshot in `dir`. Makes it anew where anything that it depends on has changed.
pub fn ensure(boot: &Boot, dir: &Path) -> Result<PathBuf> {
    let snapshot = dir.join("snapshot");
    let noted = dir.join("snapshot.of");
    let fingerprint = qemu::fingerprint(boot)?;
    if fs::read_to_string(&noted).is_ok_and(|text| text == fingerprint) && snapshot.exists() {
        return Ok(snapshot);
    }
    let start = Instant::now();
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let _ = fs::remove_file(&noted);
    let (mut qemu, stream) = Qemu::start("template", boot, None, dir)?;
    let agent = Agent::new("template", stream)?;
    agent.wait_ready(COLD_BOOT).with_context(|| {
        let console = fs::read_to_string(dir.join("template.console")).unwrap_or_default();
        format!("the machine does not boot; its console says:\n{console}")
    })?;
    let booted = start.elapsed();
    qemu.save(&snapshot)?;
    fs::write(&noted, fingerprint)?;
    println!(
        "template: booted in {:.1} s, saved in {:.1} s",
        booted.as_secs_f64(),
        (start.elapsed() - booted).as_secs_f64()
    );
    Ok(snapshot)
}
