//! The manual pages agree with the code about defaults, times and messages.

use idm_engine::Timing;
use lvmlockd_idm::config::{Config, DEFAULT_FILE, FILE_VARIABLE};
use lvmlockd_idm::fencing::{Fencing, FencingConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SETTINGS: &str = include_str!("../man/lvmlockd-idm.conf.5");
const OVERVIEW: &str = include_str!("../man/liblvmlockd_idm.7");
const KILL: &str = include_str!("../man/lvmlockd-idm-kill-vg.8");
const EXAMPLE: &str = include_str!("../dist/lvmlockd-idm.conf");

/// The lines of the section `name` of a page.
fn section<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let lines = page.lines().skip_while(|line| *line != format!(".Sh {name}")).skip(1);
    lines.take_while(|line| !line.starts_with(".Sh ")).collect()
}

/// The labels of the items in a section, with the text of each.
fn items<'a>(page: &'a str, name: &str) -> Vec<(&'a str, String)> {
    let mut items: Vec<(&str, String)> = Vec::new();
    for line in section(page, name) {
        if let Some(label) = line.strip_prefix(".It ") {
            items.push((label, String::new()));
        } else if let Some((_, text)) = items.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    items
}

/// The text about each key on the page of the settings.
fn keys() -> BTreeMap<&'static str, String> {
    let key = |label: &'static str| label.strip_prefix("Ic ")?.split(' ').next();
    items(SETTINGS, "KEYS").into_iter().map(|(label, text)| (key(label).unwrap(), text)).collect()
}

fn default_of(key: &str) -> String {
    let text = &keys()[key];
    let at = text.find("Default: ").unwrap_or_else(|| panic!("{key} has no default:\n{text}"));
    text[at + "Default: ".len()..].trim_end().to_owned()
}

fn fencing(lease: Duration, watchdog: bool) -> Fencing {
    let config = FencingConfig { kill_time: None, watchdog: watchdog.then_some(None) };
    Fencing::new(&Timing::for_lease(lease), config).unwrap()
}

fn seconds(time: Duration) -> String {
    let text = format!("{:.2}", time.as_secs_f64());
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}

#[test]
fn every_key_has_an_entry() {
    let of_example: BTreeSet<&str> = EXAMPLE
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once(" = "))
        .map(|(key, _)| key)
        .filter(|key| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
        .collect();
    let of_page: BTreeSet<&str> = keys().into_keys().collect();
    assert_eq!(of_page, of_example);
    for key in of_page {
        let error = Config::parse(&format!("{key} = {{}}")).unwrap_err().to_string();
        let in_section = ["drives", "reservations"].contains(&key);
        assert_eq!(error.contains("unknown field"), in_section, "{error}");
    }
}

#[test]
fn the_defaults_are_those_of_the_code() {
    let config = Config::default();
    let lease = config.lease;
    assert_eq!(default_of("lease_ms"), format!("{}.", lease.as_millis()));
    assert_eq!(default_of("state_dir"), format!("{:?}.", config.state_dir));
    assert_eq!((config.watchdog, default_of("watchdog")), (None, "none.".into()));
    assert!(config.kill_command.is_none());
    assert!(default_of("kill_command").starts_with("the lvmlockctl that belongs to lvmlockd,"));
    assert!(config.global_drives.is_empty());
    assert!(default_of("drives").starts_with("the drives that have a GPT partition with the name"));
    let patience = Timing::for_lease(lease).patience;
    let expected = format!(
        "{}, or a quarter of a lease that is shorter than {}.",
        patience.as_millis(),
        (patience * 4).as_millis()
    );
    assert_eq!((config.request_time, default_of("request_time_ms")), (None, expected));
    let sixth = lease / 6;
    let kill_time = fencing(lease, false).kill_time;
    let expected = format!(
        "{}, and a sixth of leases shorter than {}.",
        kill_time.as_millis(),
        lease.as_millis()
    );
    assert_eq!((default_of("kill_time_ms"), kill_time), (expected, sixth));
    let timeout = fencing(lease, true).watchdog.unwrap().timeout;
    let expected = format!(
        "{}, and a sixth of shorter leases than {} ms.",
        timeout.as_secs(),
        lease.as_millis()
    );
    assert_eq!((default_of("watchdog_timeout_s"), timeout), (expected, sixth));
    let half = fencing(lease / 2, true);
    assert_eq!((half.kill_time, half.watchdog.unwrap().timeout), (sixth / 2, sixth / 2));
    let longer = fencing(lease * 2, true);
    assert_eq!((longer.kill_time, longer.watchdog.unwrap().timeout), (sixth, sixth));
}

#[test]
fn the_range_of_the_lease_is_that_of_the_code() {
    let text = &keys()["lease_ms"];
    let range = text.lines().find_map(|line| line.strip_prefix("Range: ")).unwrap();
    let (least, most) = range.trim_end_matches('.').split_once(" to ").unwrap();
    let (least, most): (u64, u64) = (least.parse().unwrap(), most.parse().unwrap());
    let fits = |ms: u64| Config::parse(&format!("lease_ms = {ms}")).is_ok();
    assert!(fits(least) && fits(most) && !fits(least - 1) && !fits(most + 1), "{range}");
}

#[test]
fn the_pages_name_the_file_and_the_variable() {
    assert!(SETTINGS.contains(&format!(".Pa {DEFAULT_FILE} ,")));
    assert!(SETTINGS.contains(&format!(".Ev {FILE_VARIABLE}\n")));
    assert!(OVERVIEW.contains(&format!(".It Pa {DEFAULT_FILE}\n")));
    let state_dir = Config::default().state_dir;
    assert!(OVERVIEW.contains(&format!(".It Pa {}\n", state_dir.display())));
    assert!(OVERVIEW.contains(&format!(".It Pa {}/metrics.prom\n", state_dir.display())));
}

#[test]
fn the_example_is_accepted() {
    let lines = section(SETTINGS, "EXAMPLES").join("\n");
    let (_, example) = lines.split_once(".Bd -literal -offset indent\n").unwrap();
    let config = Config::parse(example.split(".Ed").next().unwrap()).unwrap();
    assert_eq!(config.lease, Duration::from_secs(30));
    assert_eq!(config.global_drives.len(), 2);
    assert!(config.watchdog.is_some());
}

#[test]
fn the_times_are_those_of_the_code() {
    let lease = Config::default().lease;
    let timing = Timing::for_lease(lease);
    let (without, with) = (fencing(lease, false), fencing(lease, true));
    let safe = lease - timing.drift;
    let expected = [
        timing.renew,
        safe - without.margin,
        safe,
        lease,
        timing.patience,
        without.kill_time,
        with.watchdog.unwrap().timeout,
        timing.linger,
    ];
    let expected: Vec<String> = expected.into_iter().map(seconds).collect();
    let times = items(OVERVIEW, "TIMES");
    let said: Vec<&str> = times.iter().map(|(label, _)| *label).collect();
    assert_eq!(said, expected);
    let earlier = format!("this is {} earlier", seconds(with.margin - without.margin));
    assert!(times[1].1.contains(&earlier), "{earlier}");
    assert!(keys()["kill_time_ms"].contains("one second earlier"));
    assert_eq!(without.margin - without.kill_time, Duration::from_secs(1));
}

/// All of the library's source; texts over several lines are joined.
fn source(dir: &Path, text: &mut String) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            source(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let code = std::fs::read_to_string(&path).unwrap();
            for (at, part) in code.split("\\\n").enumerate() {
                text.push_str(if at == 0 { part } else { part.trim_start() });
            }
        }
    }
}

#[test]
fn messages_that_ask_for_action_are_in_the_code() {
    let mut code = String::new();
    source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
    let messages = items(OVERVIEW, "MESSAGES");
    assert!(messages.len() > 15);
    for (label, _) in messages {
        let message = label.strip_prefix("Dq ").unwrap();
        assert!(code.contains(message), "no message says {message:?}");
    }
}

#[test]
fn the_kill_command_fits_its_page() {
    let script = include_str!("../dist/lvmlockd-idm-kill-vg");
    assert!(KILL.contains("lvmlockctl_kill_command = \"@SBINDIR@/lvmlockd-idm-kill-vg\""));
    assert!(script.contains("lvmlockctl_kill_command = \"@SBINDIR@/lvmlockd-idm-kill-vg\""));
    for wanted in ["dmsetup", "awk"] {
        assert!(script.contains(wanted) && KILL.contains(&format!(".Xr {wanted} ")), "{wanted}");
    }
    let run = |arguments: &[&str]| {
        let status = std::process::Command::new("/bin/sh")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/lvmlockd-idm-kill-vg"))
            .args(arguments)
            .output();
        status.unwrap().status.code()
    };
    assert_eq!(run(&[]), Some(2));
    let labels: Vec<&str> = items(KILL, "EXIT STATUS").into_iter().map(|(it, _)| it).collect();
    assert_eq!(labels, ["0", "1", "2"]);
}
