//! `idmctl metrics`: the counters of the library on this host, as a table.

use crate::cli::{Common, Metrics};
use crate::host::Host;
use crate::output::{WARNING, short, styled, table};
use crate::status::print_json;
use crate::{Exit, Trouble};
use serde::Serialize;
use std::fs;
use std::time::{Duration, SystemTime};

/// The prefix of all names.
const PREFIX: &str = "lvmlockd_idm_";
/// The library writes the file every 5 s; an older one was left by a dead lvmlockd.
pub const CURRENT: Duration = Duration::from_secs(15);

/// A counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// The name, without the common prefix.
    pub name: String,
    /// The labels, as in the file.
    pub labels: String,
    /// The value.
    pub value: String,
}

/// Prints the counters.
pub fn run(host: &Host, common: &Common, wanted: &Metrics) -> Result<Exit, Trouble> {
    let file = host.settings().state_dir.join("metrics.prom");
    let name = file.display().to_string();
    let failed = |error: std::io::Error| {
        let remedy = "lvmlockd writes it while a lockspace is started";
        Trouble::new(error.to_string(), &name, remedy)
    };
    let text = fs::read_to_string(&file).map_err(failed)?;
    let written = fs::metadata(&file).and_then(|it| it.modified()).map_err(failed)?;
    let age = SystemTime::now().duration_since(written).unwrap_or_default();
    let samples = samples(&text, wanted.all);
    if common.json {
        print_json(&samples)?;
    } else {
        let rows =
            samples.iter().map(|it| vec![it.name.clone(), it.labels.clone(), it.value.clone()]);
        anstream::print!("{}", table(&["METRIC", "LABELS", "VALUE"], &rows.collect::<Vec<_>>()));
    }
    if age <= CURRENT {
        return Ok(Exit::Good);
    }
    let age = short(age.as_millis() as u64);
    let what = format!("{name} was last written {age} ago: lvmlockd is dead or hangs");
    anstream::eprintln!("{} {what}", styled(WARNING, "*"));
    Ok(Exit::Wrong)
}

/// The counters in a text; without `all`, zeros and the buckets of histograms are left out.
pub fn samples(text: &str, all: bool) -> Vec<Sample> {
    let sample = |line: &str| {
        let (name, value) = line.trim().rsplit_once(' ')?;
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        Some(Sample {
            name: name.strip_prefix(PREFIX).unwrap_or(name).to_owned(),
            labels: labels.trim_end_matches('}').to_owned(),
            value: value.to_owned(),
        })
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let is_plain = |it: &Sample| it.value != "0" && !it.name.ends_with("_bucket");
    lines.filter_map(sample).filter(|it| all || is_plain(it)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;
    use lvmlockd_idm::metrics::export::{FILE, INTERVAL};

    #[test]
    fn the_page_has_the_times_of_the_code() {
        let mut command = Cli::command();
        let page = command.find_subcommand_mut("metrics").unwrap().render_long_help().to_string();
        let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
        for said in [
            format!("/{FILE} every {} s", INTERVAL.as_secs()),
            format!("older than {} s,", CURRENT.as_secs()),
        ] {
            assert!(page.contains(&said), "{said:?} is not in {page}");
        }
    }

    #[test]
    fn a_text_is_samples() {
        let text = "# TYPE lvmlockd_idm_locks_held gauge\n\
            lvmlockd_idm_locks_held{role=\"lv\",mode=\"shared\"} 3\n\
            lvmlockd_idm_kills_total 0\n\
            lvmlockd_idm_drive_command_seconds_bucket{drive=\"a b\",le=\"+Inf\"} 5\n";
        let few = samples(text, false);
        assert_eq!(few.len(), 1);
        assert_eq!((few[0].name.as_str(), few[0].value.as_str()), ("locks_held", "3"));
        assert_eq!(few[0].labels, "role=\"lv\",mode=\"shared\"");
        assert_eq!(samples(text, true).len(), 3);
    }
}
