//! lvm2's own tests for In-Drive Mutexes, as they are in Debian's source. `lvm2-tests/` prepares
//! them and has the commands that the machines lack.

use crate::agent::JobId;
use crate::cluster::Cluster;
use crate::drives::PARTITIONED;
use crate::machine::{Daemon, Machine};
use anyhow::{Result, bail, ensure};
use std::time::{Duration, Instant};
use testbed::wait_until;

/// Time that is enough for the slowest test on a busy machine.
const PATIENCE: Duration = Duration::from_secs(900);
/// Rounds of a test that normally has a thousand, which would take hours under emulation.
const ROUNDS: u32 = 2;
/// LVs per drive in a test that normally has twenty.
const LVS: u32 = 8;
/// Size of a drive's data partition, for a test that makes one device on it.
const SIZE_MIB: u64 = 120;
/// The exit status of a test that was skipped.
const SKIPPED: i32 = 200;

/// Runs a test for one host.
pub fn one(cluster: &mut Cluster, test: &str) -> Result<()> {
    prepare(cluster, &["a"], if test.contains("multi_threads") { 300 } else { SIZE_MIB })?;
    let a = cluster.host("a")?;
    let job = Test::start(a, test)?;
    while job.runs() {
        inject(cluster, a)?;
        std::thread::sleep(Duration::from_millis(300));
    }
    job.end()
}

/// Runs a test's two halves, one after the other. When lvm2 runs a half, it stops the host's
/// lockspaces after it.
pub fn one_after_the_other(cluster: &mut Cluster, test: &str) -> Result<()> {
    prepare(cluster, &["a", "b"], SIZE_MIB)?;
    for host in ["a", "b"] {
        let host = cluster.host(host)?;
        Test::start(host, &format!("{test}_host{}", host.name()))?.end()?;
        host.ok("lvmlockctl --stop-lockspaces")?;
        wait_until(Duration::from_secs(60), "the lockspaces to stop", || {
            Ok((!host.quiet("lvmlockctl --info")?.contains("LS ")).then_some(()))
        })?;
    }
    Ok(())
}

/// Runs a test's two halves; the second begins when the first has lost its drives.
pub fn at_once(cluster: &mut Cluster, test: &str) -> Result<()> {
    prepare(cluster, &["a", "b"], SIZE_MIB)?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let first = Test::start(a, &format!("{test}_hosta"))?;
    wait_until(PATIENCE, "host a to have lost its drives", || {
        ensure!(first.runs(), "the first half has ended: {:?}", first.end());
        Ok(a.quiet("pgrep -fx 'sleep 100'").ok())
    })?;
    let second = Test::start(b, &format!("{test}_hostb"))?;
    second.end().and(first.end())
}

/// Prepares machines as the tests expect them. Partitions are small, because the tests write them
/// full.
fn prepare(cluster: &mut Cluster, hosts: &[&str], mebibytes: u64) -> Result<()> {
    for &name in hosts {
        cluster.boot(name)?;
        let host = cluster.host_mut(name)?;
        if name == hosts[0] {
            let disks =
                PARTITIONED.map(|disk| host.disk(disk)).into_iter().collect::<Result<Vec<_>>>()?;
            host.ok(&format!(
                "for disk in {}; do sgdisk -d 2 -n 2:0:+{mebibytes}M -c 2:data $disk && \
                 blockdev --rereadpt $disk & done >/dev/null; wait",
                disks.join(" ")
            ))?;
            let sectors = mebibytes * 2048;
            host.quiet(&format!("test $(cat /sys/block/sd*/sd*2/size | sort -u) = {sectors}"))?;
        }
        // The tests kill and drop VGs themselves.
        host.quiet("sed -i /lvmlockctl_kill_command/d /etc/lvm/lvm.conf && modprobe sg")?;
        let daemon = host.files().lvmlockd.display().to_string();
        host.write("/run/lvmlockd.command", &format!("{daemon} -D -g idm\n"))?;
        host.start_lvmlockd(&Daemon::default())?;
    }
    Ok(())
}

/// Makes as many mutex commands of a host fail as its test requests. "40 %" means one drive of
/// three.
fn inject(cluster: &Cluster, host: &Machine) -> Result<()> {
    let wish = host.attempt("cat /run/inject")?;
    if wish.code != 0 {
        return Ok(());
    }
    cluster.drives.order("lift")?;
    match wish.stdout.trim() {
        "0" => {}
        "40" => cluster.drives.order("fault d2 * mutex fail 2")?,
        "100" => cluster.drives.order("fault * * mutex fail 2")?,
        other => bail!("the test asks for failures of {other:?} percent"),
    }
    host.quiet("rm /run/inject").map(drop)
}

/// A running test.
struct Test<'a> {
    host: &'a Machine,
    job: JobId,
    name: String,
    begin: Instant,
}

impl Test<'_> {
    fn start<'a>(host: &'a Machine, name: &str) -> Result<Test<'a>> {
        let dir = host.files().lvm2_tests.display().to_string();
        let devices = host.data_partitions()?.replace(' ', ",");
        let command = format!(
            "cd {dir} && PATH={dir}/shims:{dir}/lib:$PATH LVM_TEST_FLAVOUR=udev-lvmlockd-idm \
             LVM_TEST_DIR=/tmp LVM_TEST_BACKING_DEVICE={devices} LVM_TEST_FAILURE=1 \
             LVM_TEST_MULTI_HOST=1 LVM_VERIFY_UDEV=1 LAB_HEADER_SHIFT=0 LAB_ROUNDS={ROUNDS} \
             LAB_LVS={LVS} \
             exec bash shell/{name}.sh"
        );
        host.step(&format!("shell/{name}.sh &"));
        let job = host.start_logged(&command, &format!("{name}.log"))?;
        Ok(Test { host, job, name: name.to_owned(), begin: Instant::now() })
    }

    fn runs(&self) -> bool {
        self.host.job_runs(self.job)
    }

    /// Waits for the end of the test.
    fn end(&self) -> Result<()> {
        let Test { host, name, .. } = self;
        let code = host.wait(self.job, PATIENCE)?.code;
        let seconds = self.begin.elapsed().as_secs_f64();
        host.step(&format!("shell/{name}.sh -> {code} ({seconds:.0} s)"));
        ensure!(code != SKIPPED, "{name} was skipped");
        if code != 0 {
            let log = host.read_log(&format!("{name}.log"));
            // The test's own trap shows the line of the failure.
            let tail: Vec<&str> = log.lines().filter(|line| line.contains(".sh:")).collect();
            let last = tail.get(tail.len().saturating_sub(3)..).unwrap_or_default();
            bail!("{name}: status {code}; {}", last.join("; "));
        }
        Ok(())
    }
}
