//! Two hosts activate and deactivate the same 200 LVs, as fast as they can. Then the use of all of
//! them is ended at once.

use crate::cluster::Cluster;
use crate::files::KILL_SCRIPT;
use crate::machine::Machine;
use crate::scenarios::shared_vg;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

const LVS: u32 = 200;
const SECONDS: u32 = 120;

/// Activates LVs in its own order. An activation may be refused because the other host has the LV;
/// no other error may occur. Prints the numbers of granted and refused activations.
const SCRIPT: &str = r#"
seed=SEED granted=0 refused=0 end=$(($(date +%s) + SECONDS))
while [ $(date +%s) -lt $end ]; do
	seed=$(((seed * 1103515245 + 12345) % 2147483648))
	# Half of them are of the first two, so that hosts meet.
	count=LVS; [ $((seed / 1024 % 2)) = 0 ] || count=2
	lv=vg/l$((seed / 65536 % count))
	if said=$(lvm lvchange -aey $lv 2>&1); then
		granted=$((granted + 1))
		said=$(lvm lvchange -an $lv 2>&1) || { echo "-an $lv: $said"; exit 1; }
	else
		case $said in
		*"LV locked by other host: $lv"*) refused=$((refused + 1)) ;;
		*) echo "-aey $lv: $said"; exit 1 ;;
		esac
	fi
done
echo $granted $refused
"#;

pub fn run(cluster: &mut Cluster) -> Result<()> {
    shared_vg(cluster, "-L 8M")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    // One lvm process reads all commands: starting a process for each would take longer than the
    // command.
    let half = |from: u32, to: u32| {
        format!("seq {from} {to} | sed 's/.*/lvcreate -y -an -Zn -Wn -l 1 -n l& vg/' | lvm")
    };
    let (job_a, job_b) = (a.start(&half(0, LVS / 2 - 1))?, b.start(&half(LVS / 2, LVS - 1))?);
    for (host, job) in [(a, job_a), (b, job_b)] {
        let ended = host.wait(job, Duration::from_secs(400))?;
        ensure!(ended.code == 0, "{}: {}{}", host.name(), ended.stdout, ended.stderr);
    }
    let names = a.ok("lvm lvs --noheadings -o name vg")?;
    let made = names.lines().count() - 1;
    ensure!(made == LVS as usize, "there are {made} LVs, not {LVS}");
    cluster.transcript.step("", &format!("there are {LVS} LVs"));
    let script = |seed: u32| {
        let values = [("SEED", seed), ("SECONDS", SECONDS), ("LVS", LVS)];
        values
            .iter()
            .fold(SCRIPT.to_owned(), |text, (name, value)| text.replace(name, &value.to_string()))
    };
    for (host, seed) in [(a, 1), (b, 4242)] {
        host.write("/tmp/storm", &script(seed))?;
    }
    let (job_a, job_b) = (a.start("sh /tmp/storm")?, b.start("sh /tmp/storm")?);
    let mut met = 0;
    for (host, job) in [(a, job_a), (b, job_b)] {
        let ended = host.wait(job, Duration::from_secs(u64::from(SECONDS) + 60))?;
        ensure!(ended.code == 0, "{}: {}{}", host.name(), ended.stdout, ended.stderr);
        let (granted, refused) = ended.stdout.trim().split_once(' ').context("two numbers")?;
        cluster.transcript.step(host.name(), &format!("granted {granted}, refused {refused}"));
        ensure!(granted.parse::<u32>()? > 20, "hardly anything was granted");
        met += refused.parse::<u32>()?;
    }
    ensure!(met > 0, "the hosts never met");
    for drive in crate::drives::PARTITIONED {
        let held: Vec<_> = cluster
            .drives
            .table(drive)?
            .into_iter()
            .filter(|r| r.resource.starts_with("lv ") && r.is_held() && r.class == "ex")
            .collect();
        // The record of the LV `lv`, which is active on a.
        ensure!(held.len() <= 1, "{drive} has {held:?}");
    }
    end_all_use(a)
}

/// Activates all LVs and runs the kill script, while udev hangs.
fn end_all_use(host: &Machine) -> Result<()> {
    host.ok("lvm vgchange -qq -aey vg")?;
    ensure!(active(host)? > LVS, "not all LVs are active");
    // No daemon is behind it, so a process that waits for udev now waits for ever.
    host.ok("mkdir -p /run/udev && touch /run/udev/control")?;
    let begin = Instant::now();
    host.ok(&format!("timeout 180 {KILL_SCRIPT} vg"))?;
    let seconds = begin.elapsed().as_secs_f64();
    host.step(&format!("the use of {} LVs was ended in {seconds:.1} s", LVS + 1));
    ensure!(active(host)? == 0, "there are LVs that can still be used");
    Ok(())
}

/// The number of LVs that can do I/O.
fn active(host: &Machine) -> Result<u32> {
    Ok(host.quiet("dmsetup table | grep -c ' linear ' || true")?.trim().parse()?)
}
