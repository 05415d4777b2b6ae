//! An independent implementation: the kernel's SCSI target (LIO) as a drive with two paths to the
//! machine itself. It and an emulated drive get the same commands by sg_persist.

use crate::cluster::Cluster;
use crate::machine::Machine;
use anyhow::{Context, Result, ensure};
use fastrand::Rng;

/// The drive: one without partitions.
const DRIVE: &str = "d3";
/// Least number of commands in a sequence.
const LENGTH: usize = 60;
/// Sequences of commands. Each begins with a drive on which nothing is registered.
const SEQUENCES: u64 = 5;

/// Creates a disk in memory that two targets of the loopback fabric share. Each of them is an
/// adapter of its own. LIO refuses to register where it has no folder for registrations.
const MAKE_LIO: &str = "\
set -e
mkdir -p /var/target/pr
modprobe -a target_core_mod tcm_loop
mount -t configfs none /sys/kernel/config
target=/sys/kernel/config/target
core=$target/core/rd_mcp_0/peer
mkdir -p $core
echo rd_pages=256 >$core/control
echo 1 >$core/enable
for n in 1 2; do
  group=$target/loopback/naa.500140500000000$n/tpgt_1
  mkdir -p $group/lun/lun_0
  echo naa.600140500000000$n >$group/nexus
  ln -s $core $group/lun/lun_0/peer
done";

/// Nodes of that disk.
const LIST_LIO: &str = "for d in /sys/block/sd*; do \
    grep -q LIO-ORG $d/device/vendor && echo /dev/${d##*/}; done; true";

/// A command of sg_persist, for one of two paths.
struct Step {
    path: usize,
    arguments: String,
}

/// Commands for a disk on which nothing is registered. A quarter of the keys is likely to be wrong.
/// The other path looks at the state after every change. PREEMPT AND ABORT is left out: LIO on the
/// loopback fabric never answers one that succeeds.
fn steps(seed: u64) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    let (mut steps, mut keys) = (Vec::new(), [0, 0]);
    while steps.len() < LENGTH {
        let (path, action_key, action) = (rng.usize(0..2), rng.u8(0..3), rng.u8(0..12));
        let kind = *rng.choice(&[1, 3, 5, 6, 7, 8]).unwrap_or(&1);
        let key = if rng.u8(0..4) == 0 { rng.u8(0..3) } else { keys[path] };
        if action <= 4 {
            keys[path] = action_key;
        }
        let action = match action {
            0..=2 => format!("register --param-sark={action_key}"),
            3 | 4 => format!("register-ignore --param-sark={action_key}"),
            5..=7 => format!("reserve --prout-type={kind}"),
            8 | 9 => format!("release --prout-type={kind}"),
            10 => format!("preempt --param-sark={action_key} --prout-type={kind}"),
            _ => "clear".to_owned(),
        };
        steps.push(Step { path, arguments: format!("--out --{action} --param-rk={key}") });
        for look in ["--in --read-full-status", "--in --read-reservation"] {
            steps.push(Step { path: 1 - path, arguments: look.to_owned() });
        }
    }
    steps
}

/// The comparable part of an answer: neither the command itself nor addresses of ports.
fn essence(said: &str) -> String {
    // LIO's answer to some service actions by a path that is not registered. SPC-4 has RESERVATION
    // CONFLICT for all of them.
    const NOT_REGISTERED: &str = "Logical unit communication failure";
    if said.contains(NOT_REGISTERED) || said.contains("Reservation conflict") {
        return "conflict".to_owned();
    }
    let says_nothing = ["cdb", "/dev/", "port", "Transport", "SAS address", "Fixed format"];
    let matters = |line: &&str| !says_nothing.iter().any(|word| line.contains(word));
    // LIO does not count a registration that its own path removes; SPC-4 does.
    let words = |line: &str| -> Vec<String> {
        line.split_whitespace()
            .filter(|w| !w.starts_with("generation="))
            .map(str::to_owned)
            .collect()
    };
    said.lines().filter(matters).flat_map(words).collect::<Vec<_>>().join(" ")
}

/// Whether two answers to RELEASE differ in a known way. LIO says GOOD to a wrong key where nothing
/// is reserved; SPC-4 has the key verified first. LIO calls a wrong type a conflict; SPC-4 has
/// sense data of its own for it.
fn is_known(step: &Step, theirs: &str, own: &str) -> bool {
    let wrong_key = own == "conflict" && theirs.contains("successful");
    let wrong_type = own.contains("Invalid release") && theirs == "conflict";
    step.arguments.contains("--release") && (wrong_key || wrong_type)
}

/// Sends the commands and returns the answer to each.
fn answers(machine: &Machine, nodes: &[String], steps: &[Step]) -> Result<Vec<String>> {
    const END: &str = "end of the answer\n";
    let mut script = String::new();
    for step in steps {
        let (arguments, node) = (&step.arguments, &nodes[step.path]);
        script.push_str(&format!(
            "sg_persist -v -n {arguments} {node} 2>&1; echo \"status $?\"; echo {END}"
        ));
    }
    machine.write("/tmp/steps", &script)?;
    let said = machine.quiet("sh /tmp/steps")?;
    let answers: Vec<String> = said.split_terminator(END).map(essence).collect();
    ensure!(answers.len() == steps.len(), "{} answers: {said}", answers.len());
    Ok(answers)
}

/// Removes the remains of a sequence on both disks, and takes the conditions that the paths have
/// yet to get.
fn clear(machine: &Machine, nodes: &[String]) -> Result<()> {
    let mut script = String::new();
    for node in nodes {
        // The first command may get a unit attention condition.
        let register = format!("sg_persist -n --out --register-ignore --param-sark=1 {node}");
        script.push_str(&format!(
            "sg_turs -n 4 {node}; {register}; {register}; \
             sg_persist -n --out --clear --param-rk=1 {node} || exit 1\n"
        ));
    }
    nodes.iter().for_each(|node| script.push_str(&format!("sg_turs -n 4 {node}\n")));
    machine.quiet(&format!("({script}true) >/dev/null 2>&1")).map(drop)
}

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.boot("a")?;
    cluster.plug_second_path("a")?;
    let machine = cluster.host("a")?;
    // Before there are disks without a serial number.
    let ours = machine.nodes(DRIVE)?;
    machine.quiet(MAKE_LIO).context("the kernel's target")?;
    let lio: Vec<String> = machine.quiet(LIST_LIO)?.lines().map(str::to_owned).collect();
    ensure!((lio.len(), ours.len()) == (2, 2), "paths: {lio:?}, {ours:?}");
    for seed in 0..SEQUENCES {
        clear(machine, &[&lio[..], &ours].concat())?;
        let steps = steps(seed);
        let (theirs, own) = (answers(machine, &lio, &steps)?, answers(machine, &ours, &steps)?);
        for (at, step) in steps.iter().enumerate() {
            let (before, Step { path, arguments }) = (&own[..at], step);
            ensure!(
                theirs[at] == own[at] || is_known(step, &theirs[at], &own[at]),
                "sequence {seed}, path {path}: {arguments}\nLIO:  {}\nours: {}\nbefore: {:?}",
                theirs[at],
                own[at],
                &before[at.saturating_sub(6)..]
            );
        }
        cluster.transcript.detail(&format!("{} commands, answered the same", steps.len()));
    }
    Ok(())
}
