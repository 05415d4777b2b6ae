//! The library and lvm2 are upgraded and downgraded while an LV is written to, by the commands of
//! the manual page.

use crate::cluster::Cluster;
use crate::files::Files;
use crate::machine::Machine;
use crate::scenarios::{LEASE, TAKEN, audit, kept_beyond_lease, lock_of, written_by_b};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::time::Duration;
use testbed::wait_until;

/// The page whose commands are given.
const PAGE: &str = "man/liblvmlockd_idm.7";
/// Path of a's library for lvmlockd, which the package replaces.
const INSTALLED: &str = "/usr/lib/lab/liblvmlockd_idm.so.0";
/// Setting with which the loader finds it there.
const FOUND: &str = "[Service]\nEnvironment=LD_LIBRARY_PATH=/usr/lib/lab\n";
/// Longest time of a boot under emulation.
const PATIENCE: Duration = Duration::from_secs(300);

/// A step that replaces files on a.
type Replace<'f> = &'f dyn Fn(&Machine) -> Result<()>;

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["b"])?;
    let b = cluster.host("b")?;
    let partitions = b.data_partitions()?;
    b.ok(&format!("lvm vgcreate --shared --lock-type idm vg {partitions}"))?;
    b.ok("lvm lvcreate -y -an -Zn -Wn -i 3 -L 48M -n lv vg")?;
    let files = cluster.files().clone();
    let commands = documented(&files.project)?;
    cluster.boot("a")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    a.quiet(&format!("mkdir -p /usr/lib/lab && cp {} {INSTALLED}", files.library().display()))?;
    a.write("/lib/systemd/system/lvmlockd.service.d/lab.conf", FOUND)?;
    a.start_systemd(&["vg/lv"], true)?;
    a.wait_for_unit("idm-activate@vg-lv.service", PATIENCE)?;
    let lock = lock_of(b, "vg/lv")?;
    let audit = audit(a)?;
    let writer = a.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "a")?;

    let newest = files.clone().with_lvm2(testbed::Lvm2::newest().release)?;
    let other = files.other_library();
    let steps: [(&str, Replace<'_>); 4] = [
        ("another library", &|a| replace_library(a, &other)),
        ("another lvm2", &|a| replace_lvm2(a, &newest)),
        ("the first lvm2", &|a| replace_lvm2(a, &files)),
        ("the first library", &|a| replace_library(a, &files.library())),
    ];
    for (what, replace) in steps {
        cluster.transcript.step("", &format!("a gets {what}"));
        let (a, b) = (cluster.host("a")?, cluster.host("b")?);
        replace(a)?;
        restart(a, b, &commands)?;
        kept_beyond_lease(cluster, &lock)?;
        audit.wait_for_writes(&cluster.drives, "a")?;
    }
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let errors = a.writer_errors()?;
    ensure!(errors.is_empty(), "the writer was disturbed: {errors}");
    ensure!(a.attempt("test -e /run/killed")?.code != 0, "the VG was killed");
    a.stop_writer(writer)?;
    a.ok("lvchange -an vg/lv")?;
    b.ok("lvm lvchange -aey vg/lv")?;
    written_by_b(cluster, &audit)
}

/// As dpkg does it: the running lvmlockd keeps the old file.
fn replace_library(a: &Machine, library: &Path) -> Result<()> {
    a.ok(&format!("cp {} {INSTALLED}.new && mv {INSTALLED}.new {INSTALLED}", library.display()))?;
    let old = a.quiet("grep liblvmlockd_idm /proc/$(pidof lvmlockd)/maps")?;
    ensure!(old.contains("(deleted)"), "lvmlockd has already the new library:\n{old}");
    Ok(())
}

fn replace_lvm2(a: &Machine, files: &Files) -> Result<()> {
    a.install_programs(files)?;
    let version = a.ok("lvs --version | head -n 1")?;
    a.step(&format!("has {}", version.trim()));
    Ok(())
}

/// Restarts lvmlockd with the replaced files. Host b asks for the LV all the time.
fn restart(a: &Machine, b: &Machine, commands: &[String]) -> Result<()> {
    b.quiet("rm -f /run/got /run/asked")?;
    let wants = b.start(
        "until test -e /run/enough; do echo >>/run/asked; \
         ! lvm lvchange -aey vg/lv || echo got >>/run/got; sleep 1; done 2>/dev/null",
    )?;
    let before = a.quiet("pidof lvmlockd")?;
    for command in commands {
        a.ok(command)?;
        // A new lvmlockd listens a second after the old one has died.
        wait_until(LEASE, "a new lvmlockd", || {
            let running = a.attempt("lvmlockctl --info >/dev/null && pidof lvmlockd")?;
            Ok((running.code == 0 && running.stdout != before).then_some(()))
        })?;
    }
    let maps = a.quiet("grep liblvmlockd_idm /proc/$(pidof lvmlockd)/maps")?;
    ensure!(maps.contains(INSTALLED) && !maps.contains("(deleted)"), "lvmlockd has:\n{maps}");
    let info = a.quiet("lvmlockctl --info")?;
    ensure!(info.contains("LK LV ex"), "lvmlockd has not got the lock back:\n{info}");
    b.quiet("touch /run/enough")?;
    b.wait(wants, PATIENCE)?;
    b.quiet("rm /run/enough")?;
    let asked = b.quiet("wc -l </run/asked")?;
    b.step(&format!("has asked for the LV {} times", asked.trim()));
    ensure!(b.attempt("test -e /run/got")?.code != 0, "b has got the LV");
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)
}

/// The commands of the page, for the VG `vg`.
fn documented(project: &Path) -> Result<Vec<String>> {
    let page = fs::read_to_string(project.join(PAGE)).with_context(|| PAGE.to_owned())?;
    let commands: Vec<String> = page
        .lines()
        .skip_while(|line| *line != ".Sh UPGRADES")
        .skip_while(|line| !line.starts_with(".Bd -literal"))
        .skip(1)
        .take_while(|line| *line != ".Ed")
        .map(|line| line.replace("VG", "vg"))
        .collect();
    ensure!(commands.len() == 2, "the commands in {PAGE} are {commands:?}");
    Ok(commands)
}
