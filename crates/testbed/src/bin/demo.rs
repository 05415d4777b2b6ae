//! A demonstration for newcomers: two hosts share a volume group whose locks live in the drives.
//!
//! Every step says what it does and checks what came back; the first surprise ends it with an
//! error.

use anyhow::{Context, Result, bail, ensure};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::PathBuf;
use std::process::{Command, ExitCode, exit};
use std::thread;
use std::time::{Duration, Instant};
use testbed::{EAGAIN, Host, Lab, Lvm2, Mode, Output, library};

/// Short, so that nobody has to wait a minute for the end; the default is 60 s.
const LEASE: Duration = Duration::from_secs(10);

/// What lvm says in every command here and what has nothing to do with locks: that there is no
/// device-mapper, that nothing is zeroed or backed up.
const NOISE: [&str; 3] = ["Activation disabled", "NOT backed up", "not zeroed"];

/// Columns of text.
const WIDTH: usize = 90;

fn main() -> ExitCode {
    match demo() {
        Ok(steps) => {
            println!("\nRESULT: success. All {steps} commands were answered as they should be.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("\nRESULT: FAILED. {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<usize> {
    let lab = Lab::new(LEASE)?;
    clean_up_when_interrupted(lab.dir().to_owned())?;
    let lvm2 = Lvm2::newest();
    let mut story = Story::default();

    story.chapter("Two hosts, three drives");
    story.tell(&format!(
        "Three emulated drives, each with In-Drive Mutexes (IDM). {} stand for their data.",
        lab.pvs().join(", ")
    ));
    story.tell(&format!(
        "Two hosts that see these drives, alice and bob. Each runs a real lvmlockd from Debian's \
         lvm2 {}, which has our library in place of its own lvmlockd-idm.c:",
        lvm2.release
    ));
    let linked = linked_library(lvm2)?;
    story.quote(&linked);
    story.tell(&format!(
        "A lock is held when more than half of the drives say so, for {} s at a time; the holder \
         renews it. (Nothing is activated in this demo: it needs no device-mapper.)",
        LEASE.as_secs()
    ));
    let alice = lab.host("alice", lvm2)?;
    let bob = lab.host("bob", lvm2)?;

    story.chapter("A shared volume group");
    let pvs = lab.pvs();
    let mut create = vec!["vgcreate", "--shared", "--locktype", "idm", "vg"];
    create.extend(pvs.iter().map(String::as_str));
    story.works(&alice, &create)?;
    story.works(&bob, &["vgchange", "--lockstart", "vg"])?;
    story.works(&alice, &["lvcreate", "-an", "-Zn", "-i3", "-L12m", "-n", "data", "vg"])?;
    story.works(&bob, &["lvs", "-o", "vg_name,lv_name,lv_size,vg_lock_type", "vg"])?;
    story.tell("bob sees what alice made.");

    global_lock(&mut story, &alice, &bob)?;
    vg_lock(&mut story, &alice, &bob)?;
    lv_lock(&mut story, &lab, &alice, &bob)?;
    conversion(&mut story, &alice, &bob)?;
    value(&mut story, &alice, &bob)?;
    death(&mut story, &lab, alice, &bob)?;
    Ok(story.commands)
}

fn global_lock(story: &mut Story, alice: &Host, bob: &Host) -> Result<()> {
    story.chapter("The global lock: one host at a time changes the list of volume groups");
    let mut holder = alice.client()?;
    let mut other = bob.client()?;
    story
        .request("alice asks for the global lock, exclusive", 0, || holder.lock_global(Mode::Ex))?;
    story.request("bob asks for it, too (lvmlockd tries for 5 s)", EAGAIN, || {
        other.lock_global(Mode::Ex)
    })?;
    story.request("alice releases it", 0, || holder.lock_global(Mode::Un))?;
    story.request("bob asks again", 0, || other.lock_global(Mode::Ex))?;
    story.request("bob releases it", 0, || other.lock_global(Mode::Un))
}

fn vg_lock(story: &mut Story, alice: &Host, bob: &Host) -> Result<()> {
    story.chapter("The volume group's lock: one host at a time changes its metadata");
    let mut holder = alice.client()?;
    story.request("alice takes the lock of vg, exclusive", 0, || holder.lock_vg("vg", Mode::Ex))?;
    // Without its own retries, lvm passes on what lvmlockd says after 5 s.
    let once = "--config=global/lvmlockd_lock_retries=0";
    let create = ["lvcreate", once, "-an", "-Zn", "-L8m", "-n", "more", "vg"];
    story.refused(bob, &create, "VG vg lock failed: held by other host")?;
    story.request("alice releases it", 0, || holder.lock_vg("vg", Mode::Un))?;
    story.works(bob, &create)
}

fn lv_lock(story: &mut Story, lab: &Lab, alice: &Host, bob: &Host) -> Result<()> {
    story.chapter("A logical volume's lock: one host at a time uses it");
    story.works(alice, &["lvchange", "-aey", "vg/data"])?;
    story.tell("alice holds it exclusively. This is what a drive's table says:");
    story.table(lab)?;
    story.refused(bob, &["lvchange", "-aey", "vg/data"], "LV locked by other host")?;
    story.works(alice, &["lvchange", "-an", "vg/data"])?;
    story.works(bob, &["lvchange", "-aey", "vg/data"])?;
    story.works(bob, &["lvchange", "-an", "vg/data"])?;
    story.tell("bob got it when alice had released it.");
    Ok(())
}

fn conversion(story: &mut Story, alice: &Host, bob: &Host) -> Result<()> {
    story.chapter("Shared, and from shared to exclusive");
    story.works(alice, &["lvchange", "-asy", "vg/data"])?;
    story.works(bob, &["lvchange", "-asy", "vg/data"])?;
    story.tell("Both share it now. Neither can have it alone:");
    story.refused(alice, &["lvchange", "-aey", "vg/data"], "LV locked by other host")?;
    story.works(bob, &["lvchange", "-an", "vg/data"])?;
    story.works(alice, &["lvchange", "-aey", "vg/data"])?;
    story.works(alice, &["lvchange", "-an", "vg/data"])
}

fn value(story: &mut Story, alice: &Host, bob: &Host) -> Result<()> {
    story.chapter("The lock's value: a change on one host is seen by the other");
    story.tell(
        "With the volume group's lock, the drives keep a time stamp of its last change. As long as \
         it is the one that a host wrote itself, what that host knows of the group is up to date.",
    );
    story.works(bob, &["lvcreate", "-an", "-Zn", "-L8m", "-n", "b", "vg"])?;
    let before = bob.invalidations("vg");
    story.works(bob, &["vgs", "vg"])?;
    ensure!(
        bob.invalidations("vg") == before,
        "bob's lvmlockd does not recognise what it wrote itself"
    );
    story.tell("bob's lvmlockd recognised its own time stamp.");
    story.works(alice, &["lvcreate", "-an", "-Zn", "-L8m", "-n", "a", "vg"])?;
    story.works(bob, &["vgs", "vg"])?;
    ensure!(
        bob.invalidations("vg") == before + 1,
        "bob's lvmlockd did not see that alice has changed the group"
    );
    story.tell("bob's lvmlockd saw that another host has written since:");
    let log = bob.log();
    let seen = log.lines().rfind(|line| line.contains("invalidate vg state"));
    story.quote(seen.unwrap_or_default());
    Ok(())
}

fn death(story: &mut Story, lab: &Lab, alice: Host, bob: &Host) -> Result<()> {
    story.chapter("A host dies");
    story.works(&alice, &["lvchange", "-aey", "vg/data"])?;
    let lv = bob.find_lv("vg", "data", &lab.pvs())?.uuid.replace('-', "");
    drop(alice);
    let died = Instant::now();
    story.tell(
        "alice is dead: everything that ran on it was killed. Nobody renews its locks, but until \
         the lease has run out bob cannot know that.",
    );
    let take = ["lvchange", "-aey", "vg/data"];
    story.refused(bob, &take, "LV locked by other host")?;
    loop {
        ensure!(
            died.elapsed() < 3 * LEASE,
            "bob still has not got the lock of a host that died {:?} ago",
            died.elapsed()
        );
        let left = lease_left(lab, &lv, "alice")?;
        let output = bob.lvm(&take)?;
        if output.code == 0 {
            break;
        }
        story.quote(&format!(
            "{:4.1} s after its death: bob asks and is refused; alice's lease runs for {} more",
            died.elapsed().as_secs_f64(),
            left.map_or("no time".to_owned(), |left| format!("{:.1} s", left.as_secs_f64()))
        ));
        thread::sleep(Duration::from_secs(1));
    }
    story.commands += 1;
    story.quote(&format!("{:4.1} s after its death: bob has it", died.elapsed().as_secs_f64()));
    story.table(lab)?;
    story.works(bob, &["lvchange", "-an", "vg/data"])
}

/// The tale so far.
#[derive(Default)]
struct Story {
    chapters: usize,
    commands: usize,
}

impl Story {
    fn chapter(&mut self, title: &str) {
        self.chapters += 1;
        println!("\n{}. {title}\n", self.chapters);
    }

    fn tell(&self, text: &str) {
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

    /// Who holds what, as drive d0 has it in its table.
    fn table(&self, lab: &Lab) -> Result<()> {
        for record in lab.drives().table(0)? {
            let Some(left) = record.lease_left else {
                continue; // unlocked, kept for its value
            };
            let what = match record.resource.split_once("/*") {
                Some((vg, _)) => format!("{vg} (has it started)").replacen("lv", "vg", 1),
                None => record.resource,
            };
            let host = record.host.split(' ').next().unwrap_or_default();
            self.quote(&format!(
                "{host:6} {:2}  {:9}  {:4.1} s left  {what}",
                record.class,
                record.state,
                left.as_secs_f64()
            ));
        }
        Ok(())
    }

    /// A command that has to succeed.
    fn works(&mut self, host: &Host, args: &[&str]) -> Result<()> {
        self.run(host, args)?.success()?;
        Ok(())
    }

    /// A command that has to fail, and to say why.
    fn refused(&mut self, host: &Host, args: &[&str], why: &str) -> Result<()> {
        let output = self.run(host, args)?;
        if output.code == 0 || !output.says(why) {
            bail!("expected to be refused with {why:?}: {output}");
        }
        self.quote(&format!("(refused, as it should be: exit status {})", output.code));
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

    /// A request to lvmlockd, as lvm sends it, with the raw result.
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
        self.tell(&format!("{what}: {result} ({meaning})"));
        ensure!(result == expected, "expected {expected}");
        self.commands += 1;
        Ok(())
    }
}

/// What ldd says of the library.
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

/// The longest that a lock which `host` held on LV `lv` (a uuid without dashes) has left on any
/// drive.
fn lease_left(lab: &Lab, lv: &str, host: &str) -> Result<Option<Duration>> {
    let mut longest = None;
    for number in 0..lab.drives().count() {
        for record in lab.drives().table(number)? {
            if record.resource.ends_with(lv) && record.host.starts_with(host) {
                longest = longest.max(record.lease_left);
            }
        }
    }
    Ok(longest)
}

/// Processes and loop devices end with this one; its files do not.
fn clean_up_when_interrupted(dir: PathBuf) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // What is still there is in /tmp.
            let _ = std::fs::remove_dir_all(&dir);
            exit(128 + signal);
        }
    });
    Ok(())
}
