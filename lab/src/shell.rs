//! Two machines, and a prompt for experiments.

use crate::cluster::Cluster;
use crate::files::Files;
use crate::interfaces::Interfaces;
use crate::transcript::Transcript;
use anyhow::Result;
use std::io::{BufRead, Write};

const HELP: &str = "\
a COMMAND, b COMMAND   runs a shell command on that machine, for example
                       a lvm vgcreate --shared --lock-type idm vg /dev/sda2 /dev/sdb2 /dev/sdc2
drives COMMAND         sends a line to the drives' control socket; \"drives help\" lists them
kill a, freeze a, thaw a
                       cuts the power, stops the processor, lets it run again
boot a                 boots a machine that was killed, and starts lvmlockd
quit                   ends all
";

/// Boots two machines and runs the commands that are typed, until the end of the input.
pub fn run(files: &Files, interfaces: Interfaces) -> Result<()> {
    let dir = files.scenario_dir("shell")?;
    let mut cluster = Cluster::new(files, interfaces, &dir, Transcript::begin(None))?;
    cluster.start(&["a", "b"])?;
    print!("\n{HELP}logs are in {}\n", dir.display());
    let mut lines = std::io::stdin().lock().lines();
    loop {
        print!("lab> ");
        std::io::stdout().flush()?;
        let Some(line) = lines.next().transpose()? else {
            return Ok(());
        };
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let done = match word {
            "" => Ok(()),
            "quit" => return Ok(()),
            "help" => {
                print!("{HELP}");
                Ok(())
            }
            "drives" => cluster.drives.ask(rest).map(|text| print!("{text}")),
            "kill" => cluster.kill(rest),
            "freeze" => cluster.host(rest).and_then(|machine| machine.freeze()),
            "thaw" => cluster.host(rest).and_then(|machine| machine.thaw()),
            "boot" => cluster.start(&[rest]),
            host => cluster.host(host).and_then(|machine| machine.run(rest)).map(|ended| {
                print!("{}{}", ended.stdout, ended.stderr);
            }),
        };
        if let Err(error) = done {
            println!("{error:#}");
        }
    }
}
