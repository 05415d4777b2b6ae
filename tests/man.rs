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
    text[at + "Default: ".len()..].trim_end().trim_end_matches(".El").trim_end().to_owned()
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

/// The text that the page must have about each key's default, from the code.
fn defaults() -> BTreeMap<&'static str, String> {
    let config = Config::default();
    let lease = config.lease;
    let (patience, sixth) = (Timing::for_lease(lease).patience, lease / 6);
    let with = fencing(lease, true);
    let timeout = with.watchdog.unwrap().timeout;
    assert_eq!((with.kill_time, timeout), (sixth, sixth));
    let (ms, least) = (lease.as_millis(), patience.as_millis() * 4);
    assert!(config.request_time.is_none() && config.watchdog.is_none());
    assert!(config.kill_command.is_none() && config.global_drives.is_empty());
    BTreeMap::from([
        ("lease_ms", format!("{ms}.")),
        (
            "request_time_ms",
            format!(
                "{}, or a quarter of a lease that is shorter than {least}.",
                patience.as_millis()
            ),
        ),
        ("state_dir", format!("{:?}.", config.state_dir)),
        ("kill_command", "the lvmlockctl that belongs to lvmlockd,".to_owned()),
        (
            "kill_time_ms",
            format!("{}, and a sixth of leases shorter than {ms}.", sixth.as_millis()),
        ),
        ("watchdog", "none.".to_owned()),
        (
            "watchdog_timeout_s",
            format!("{}, and a sixth of shorter leases than {ms} ms.", timeout.as_secs()),
        ),
        ("drives", "the drives that have a GPT partition with the name".to_owned()),
        ("reservations", format!("{}.", config.reservations)),
    ])
}

#[test]
fn the_defaults_are_those_of_the_code() {
    let defaults = defaults();
    assert_eq!(
        keys().into_keys().collect::<Vec<_>>(),
        defaults.keys().copied().collect::<Vec<_>>()
    );
    for (key, expected) in defaults {
        let said = default_of(key);
        // Programs and partitions are described.
        let whole = !["kill_command", "drives"].contains(&key);
        let fits = if whole { said == expected } else { said.starts_with(&expected) };
        assert!(fits, "{key}: {said:?}, and not {expected:?}");
    }
}

/// No page speaks of defaults where no test looks.
#[test]
fn defaults_are_told_of_keys_and_in_the_table_of_times_alone() {
    let count = |page: &str| page.to_lowercase().matches("default").count();
    let of_keys: usize = keys().into_values().map(|text| count(&text)).sum();
    assert_eq!(of_keys, keys().len());
    let description = section(SETTINGS, "DESCRIPTION").join("\n");
    assert_eq!(count(&description), 2, "{description}");
    assert_eq!(count(SETTINGS), of_keys + count(&description));
    let times = section(OVERVIEW, "TIMES").join("\n");
    assert!(times.contains("With the defaults of\n"));
    assert_eq!((count(OVERVIEW), count(KILL)), (1, 0));
}

#[test]
fn times_scale_with_the_lease_as_the_pages_say() {
    let lease = Config::default().lease;
    let sixth = lease / 6;
    let half = fencing(lease / 2, true);
    assert_eq!((half.kill_time, half.watchdog.unwrap().timeout), (sixth / 2, sixth / 2));
    let longer = fencing(lease * 2, true);
    assert_eq!((longer.kill_time, longer.watchdog.unwrap().timeout), (sixth, sixth));
    let patience = |lease: Duration| Timing::for_lease(lease).patience;
    let usual = patience(lease);
    assert_eq!((patience(usual * 4), patience(usual * 2)), (usual, usual / 2));
    let quarter =
        |ms: u64| Config::parse(&format!("lease_ms = 40000\nrequest_time_ms = {ms}")).is_ok();
    assert!(keys()["request_time_ms"].contains("At most a quarter of the lease."));
    assert!(quarter(10_000) && !quarter(10_001));
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
