//! A demonstration for newcomers: two hosts share a volume group whose locks live in the drives.
//!
//! Every step prints what it does and checks the result; the first unexpected result ends the
//! demonstration with an error.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::PathBuf;
use std::process::{Command, ExitCode, exit};
use std::thread;
use std::time::{Duration, Instant};
use testbed::{EAGAIN, Host, Lvm2, Mode, Output, Testbed, library};

/// A short lease, so that the end does not take a minute; the default is 60 s.
const LEASE: Duration = Duration::from_secs(10);

/// Messages that lvm prints with every command here and that do not concern locks: there is no
/// device-mapper, and nothing is zeroed or backed up.
const NOISE: [&str; 3] = ["Activation disabled", "NOT backed up", "not zeroed"];

/// Width of the text in columns.
const WIDTH: usize = 90;

fn main() -> ExitCode {
    match demo() {
        Ok(steps) => {
            println!("\nRESULT: success. All {steps} commands had the expected answer.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("\nRESULT: FAILED. {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<usize> {
    let testbed = Testbed::new(LEASE)?;
    clean_up_when_interrupted(testbed.dir().to_owned())?;
    let lvm2 = Lvm2::newest();
    let mut walkthrough = Walkthrough::default();

    walkthrough.section("Two hosts, three drives");
    walkthrough.explain(&format!(
        "Three emulated drives, each with In-Drive Mutexes (IDM). {} stand for their data.",
        testbed.pvs().join(", ")
    ));
    walkthrough.explain(&format!(
        "Two hosts that see these drives, alice and bob. Each runs a real lvmlockd from Debian's \
         lvm2 {}, which has our library in place of its own lvmlockd-idm.c:",
        lvm2.release
    ));
    let linked = linked_library(lvm2)?;
    walkthrough.quote(&linked);
    walkthrough.explain(&format!(
        "A host holds a lock when more than half of the drives have granted it, for {} s at a \
         time; the holder renews it. (Nothing is activated in this demo: it needs no \
         device-mapper.)",
        LEASE.as_secs()
    ));
    let alice = testbed.host("alice", lvm2)?;
    let bob = testbed.host("bob", lvm2)?;

    walkthrough.section("A shared volume group");
    let pvs = testbed.pvs();
    let mut create = vec!["vgcreate", "--shared", "--locktype", "idm", "vg"];
    create.extend(pvs.iter().map(String::as_str));
    walkthrough.works(&alice, &create)?;
    walkthrough.works(&bob, &["vgchange", "--lockstart", "vg"])?;
    walkthrough.works(&alice, &["lvcreate", "-an", "-Zn", "-i3", "-L12m", "-n", "data", "vg"])?;
    walkthrough.works(&bob, &["lvs", "-o", "vg_name,lv_name,lv_size,vg_lock_type", "vg"])?;
    walkthrough.explain("bob sees the volume that alice made.");

    global_lock(&mut walkthrough, &alice, &bob)?;
    vg_lock(&mut walkthrough, &alice, &bob)?;
    lv_lock(&mut walkthrough, &alice, &bob)?;
    conversion(&mut walkthrough, &alice, &bob)?;
    value(&mut walkthrough, &alice, &bob)?;
    death(&mut walkthrough, alice, &bob)?;
    Ok(walkthrough.commands)
}

fn global_lock(walkthrough: &mut Walkthrough, alice: &Host, bob: &Host) -> Result<()> {
    walkthrough.section("The global lock: one host at a time changes the list of volume groups");
    let mut holder = alice.client()?;
    let mut other = bob.client()?;
    walkthrough
        .request("alice asks for the global lock, exclusive", 0, || holder.lock_global(Mode::Ex))?;
    walkthrough.status(bob)?;
    walkthrough.request("bob asks for it, too (lvmlockd tries for 5 s)", EAGAIN, || {
        other.lock_global(Mode::Ex)
    })?;
    walkthrough.request("alice releases it", 0, || holder.lock_global(Mode::Un))?;
    walkthrough.request("bob asks again", 0, || other.lock_global(Mode::Ex))?;
    walkthrough.request("bob releases it", 0, || other.lock_global(Mode::Un))
}

fn vg_lock(walkthrough: &mut Walkthrough, alice: &Host, bob: &Host) -> Result<()> {
    walkthrough.section("The volume group's lock: one host at a time changes its metadata");
    let mut holder = alice.client()?;
    walkthrough
        .request("alice takes the lock of vg, exclusive", 0, || holder.lock_vg("vg", Mode::Ex))?;
    walkthrough.status(bob)?;
    // Without its own retries, lvm passes on what lvmlockd says after 5 s.
    let once = "--config=global/lvmlockd_lock_retries=0";
    let create = ["lvcreate", once, "-an", "-Zn", "-L8m", "-n", "more", "vg"];
    walkthrough.refused(bob, &create, "VG vg lock failed: held by other host")?;
    walkthrough.request("alice releases it", 0, || holder.lock_vg("vg", Mode::Un))?;
    walkthrough.works(bob, &create)
}

fn lv_lock(walkthrough: &mut Walkthrough, alice: &Host, bob: &Host) -> Result<()> {
    walkthrough.section("A logical volume's lock: one host at a time uses it");
    walkthrough.works(alice, &["lvchange", "-aey", "vg/data"])?;
    walkthrough.explain("alice holds it exclusively. This is what the drives' tables say:");
    walkthrough.status(bob)?;
    walkthrough.refused(bob, &["lvchange", "-aey", "vg/data"], "LV locked by other host")?;
    walkthrough.why(bob, "vg/data", "alice holds it (exclusive)")?;
    walkthrough.works(alice, &["lvchange", "-an", "vg/data"])?;
    walkthrough.works(bob, &["lvchange", "-aey", "vg/data"])?;
    walkthrough.works(bob, &["lvchange", "-an", "vg/data"])?;
    walkthrough.explain("bob got it when alice had released it.");
    Ok(())
}

fn conversion(walkthrough: &mut Walkthrough, alice: &Host, bob: &Host) -> Result<()> {
    walkthrough.section("Shared, and from shared to exclusive");
    walkthrough.works(alice, &["lvchange", "-asy", "vg/data"])?;
    walkthrough.works(bob, &["lvchange", "-asy", "vg/data"])?;
    walkthrough.explain("Both share it now. Neither can have it exclusively:");
    walkthrough.refused(alice, &["lvchange", "-aey", "vg/data"], "LV locked by other host")?;
    walkthrough.works(bob, &["lvchange", "-an", "vg/data"])?;
    walkthrough.works(alice, &["lvchange", "-aey", "vg/data"])?;
    walkthrough.works(alice, &["lvchange", "-an", "vg/data"])
}

fn value(walkthrough: &mut Walkthrough, alice: &Host, bob: &Host) -> Result<()> {
    walkthrough.section("The lock's value: a change on one host is seen by the other");
    walkthrough.explain(
        "With the volume group's lock, the drives keep a time stamp of its last change. As long as \
         a host finds its own time stamp there, its copy of the metadata is up to date.",
    );
    walkthrough.works(bob, &["lvcreate", "-an", "-Zn", "-L8m", "-n", "b", "vg"])?;
    let before = bob.invalidations("vg");
    walkthrough.works(bob, &["vgs", "vg"])?;
    ensure!(
        bob.invalidations("vg") == before,
        "bob's lvmlockd does not recognise its own time stamp"
    );
    walkthrough.explain("bob's lvmlockd recognised its own time stamp.");
    walkthrough.works(alice, &["lvcreate", "-an", "-Zn", "-L8m", "-n", "a", "vg"])?;
    walkthrough.works(bob, &["vgs", "vg"])?;
    ensure!(
        bob.invalidations("vg") == before + 1,
        "bob's lvmlockd did not see that alice had changed the group"
    );
    walkthrough.explain("bob's lvmlockd saw that another host has written since:");
    let log = bob.log();
    let seen = log.lines().rfind(|line| line.contains("invalidate vg state"));
    walkthrough.quote(seen.unwrap_or_default());
    Ok(())
}

fn death(walkthrough: &mut Walkthrough, alice: Host, bob: &Host) -> Result<()> {
    walkthrough.section("A host dies");
    walkthrough.works(&alice, &["lvchange", "-aey", "vg/data"])?;
    drop(alice);
    let died = Instant::now();
    walkthrough.explain(
        "alice is dead: everything that ran on it was killed. Nobody renews its locks, but until \
         the lease has run out bob cannot know that.",
    );
    walkthrough.status(bob)?;
    let take = ["lvchange", "-aey", "vg/data"];
    walkthrough.refused(bob, &take, "LV locked by other host")?;
    loop {
        ensure!(
            died.elapsed() < 3 * LEASE,
            "bob still does not have the lock of a host that died {:?} ago",
            died.elapsed()
        );
        let left = lease_left(bob, "vg/data", "alice")?;
        let output = bob.lvm(&take)?;
        if output.code == 0 {
            break;
        }
        walkthrough.quote(&format!(
            "{:4.1} s after its death: bob asks and is refused; alice's lease runs for {} more",
            died.elapsed().as_secs_f64(),
            left.map_or("no time".to_owned(), |left| format!("{:.1} s", left.as_secs_f64()))
        ));
        thread::sleep(Duration::from_secs(1));
    }
    walkthrough.commands += 1;
    walkthrough
        .quote(&format!("{:4.1} s after its death: bob has it", died.elapsed().as_secs_f64()));
    walkthrough.status(bob)?;
    walkthrough.works(bob, &["lvchange", "-an", "vg/data"])
}

/// Sections with commands and their output, numbered and counted.
#[derive(Default)]
struct Walkthrough {
    sections: usize,
    commands: usize,
}

impl Walkthrough {
    fn section(&mut self, title: &str) {
        self.sections += 1;
        println!("\n{}. {title}\n", self.sections);
    }

    fn explain(&self, text: &str) {
        let mut line = String::new();
        for word in text.split_whitespace() {
            if line.len() + word.len() > WIDTH {
                println!("  {line}");
                line.clear();
            }
            line.push(' ');
            line.push_str(word);
        }
        println!("  {line}");
    }

    fn quote(&self, text: &str) {
        for line in text.lines() {
            println!("      {line}");
        }
    }

    /// Explains a refusal; the explanation must contain `cause`.
    fn why(&mut self, host: &Host, lock: &str, cause: &str) -> Result<()> {
        println!("   {}# idmctl why {lock}", host.name());
        let output = host.idmctl(&["why", lock])?;
        ensure!(output.says(cause), "expected to be told {cause:?}: {output}");
        self.explain(&output.stdout);
        self.commands += 1;
        Ok(())
    }

    /// Prints the holders of locks, as the drives show them to a host.
    fn status(&mut self, host: &Host) -> Result<()> {
        println!("   {}# idmctl status", host.name());
        let output = host.idmctl(&["status"])?.success()?;
        self.quote(&output.stdout);
        self.commands += 1;
        Ok(())
    }

    /// Runs a command that has to succeed.
    fn works(&mut self, host: &Host, args: &[&str]) -> Result<()> {
        self.run(host, args)?.success()?;
        Ok(())
    }

    /// Runs a command that has to fail with this message.
    fn refused(&mut self, host: &Host, args: &[&str], why: &str) -> Result<()> {
        let output = self.run(host, args)?;
        if output.code == 0 || !output.says(why) {
            bail!("expected to be refused with {why:?}: {output}");
        }
        self.quote(&format!("(refused as expected: exit status {})", output.code));
        Ok(())
    }

    fn run(&mut self, host: &Host, args: &[&str]) -> Result<Output> {
        println!("   {}# lvm {}", host.name(), args.join(" "));
        let output = host.lvm(args)?;
        for line in output.stdout.lines().chain(output.stderr.lines()) {
            if !NOISE.iter().any(|noise| line.contains(noise)) {
                self.quote(line.trim());
            }
        }
        self.commands += 1;
        Ok(output)
    }

    /// Sends a request to lvmlockd, as lvm does, and prints the raw result.
    fn request(
        &mut self,
        what: &str,
        expected: i32,
        request: impl FnOnce() -> Result<i32>,
    ) -> Result<()> {
        let result = request()?;
        let meaning = match result {
            0 => "granted",
            EAGAIN => "EAGAIN: held by another host",
            _ => "an error",
        };
        self.explain(&format!("{what}: {result} ({meaning})"));
        ensure!(result == expected, "expected {expected}");
        self.commands += 1;
        Ok(())
    }
}

/// The line of ldd for the library.
fn linked_library(lvm2: Lvm2) -> Result<String> {
    let output = Command::new("ldd").arg(lvm2.lvmlockd()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("lvmlockd_idm"));
    let line = line.with_context(|| format!("lvmlockd is not linked to our library:\n{text}"))?;
    ensure!(
        line.contains(&*library().to_string_lossy()),
        "lvmlockd is linked to another library: {line}"
    );
    Ok(format!("ldd lvmlockd: {}", line.trim()))
}

/// The remaining time of the lease of `holder` on a lock, as the drives show it to `host`.
fn lease_left(host: &Host, lock: &str, holder: &str) -> Result<Option<Duration>> {
    let output = host.idmctl(&["status", "--json"])?.success()?;
    let status: Value = serde_json::from_str(&output.stdout)?;
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let locks = all(&status["locks"]).into_iter().filter(|it| it["name"] == lock);
    let holders = locks.flat_map(|lock| all(&lock["holders"]));
    let left = holders.filter(|it| it["host"]["name"] == holder).map(|it| it["left_ms"].as_u64());
    Ok(left.flatten().max().filter(|&ms| ms > 0).map(Duration::from_millis))
}

/// Removes the files when the program is interrupted; processes and loop devices end with it.
fn clean_up_when_interrupted(dir: PathBuf) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Remaining files are in /tmp.
            let _ = std::fs::remove_dir_all(&dir);
            exit(128 + signal);
        }
    });
    Ok(())
}
