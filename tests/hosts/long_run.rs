//! Two hosts with many LVs, and a fault every minute: nothing is lost, and nothing grows.

use super::*;
use std::collections::BTreeSet;
use std::env;
use std::fs;

/// The time of a run in minutes, if the environment (`MINUTES`) names none.
const MINUTES: u64 = 60;
/// The LVs of both hosts, each of which is held by one of them most of the time.
const LVS: usize = 500;
/// The time between two faults. A fault lasts for a third of it.
const PERIOD: Duration = Duration::from_secs(60);
/// The RSS that a run may gain after its first third, in KiB.
const GROWTH_KIB: u64 = 4096;
/// The descriptors and threads that it may gain: a drive that hangs has more for a while.
const GROWTH: usize = 8;

/// Resources that a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    rss_kib: u64,
    descriptors: usize,
    threads: usize,
}

impl Usage {
    /// The resources that this process uses now: two hosts, and the drives.
    fn now() -> Usage {
        let count = |folder| fs::read_dir(folder).unwrap().count();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Usage {
            rss_kib: rss.trim().trim_end_matches(" kB").parse().unwrap(),
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
        }
    }

    fn max(self, other: Usage) -> Usage {
        Usage {
            rss_kib: self.rss_kib.max(other.rss_kib),
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
        }
    }
}

/// One fault of one drive: how it begins and how it ends.
const FAULTS: [(&str, &str); 7] = [
    ("hang DRIVE on", "hang DRIVE off"),
    ("power DRIVE off", "power DRIVE on"),
    ("reset DRIVE", ""),
    ("nonsense DRIVE on", "nonsense DRIVE off"),
    ("delay DRIVE 400", "delay DRIVE 0"),
    ("fail DRIVE 18 1000000", "fail DRIVE 18 0"),
    ("lose-reply DRIVE 20", "lose-reply DRIVE 0"),
];

/// One host, with the LVs that only it takes, and the locks that it holds.
struct Side {
    host: Host,
    held: BTreeSet<usize>,
    rng: fastrand::Rng,
}

impl Side {
    /// Takes, changes or gives back one LV or the VG's lock. A request may be refused while a drive
    /// fails; held locks stay held.
    fn step(&mut self) -> bool {
        let number = self.rng.usize(0..LVS);
        match self.rng.u8(0..8) {
            0 => {
                let granted = self.host.lock(LVS, Resource::Vg, Exclusive).is_ok();
                self.host.manager.unlock(ResourceKey(LVS), 1, 0);
                granted
            }
            1 if self.held.contains(&number) => {
                let manager = &self.host.manager;
                let shared = manager.convert(ResourceKey(number), Shared, 0);
                shared.and_then(|()| manager.convert(ResourceKey(number), Exclusive, 0)).is_ok()
            }
            _ if self.held.remove(&number) => {
                self.host.unlock(number);
                true
            }
            _ => {
                let granted = self.host.lock(number, lv(number), Exclusive).is_ok();
                if granted {
                    self.held.insert(number);
                }
                granted
            }
        }
    }
}

/// Lets both hosts work for `time`. Returns the numbers of granted and refused requests.
fn work(sides: &mut [Side; 2], time: Duration) -> (u32, u32) {
    let (begin, mut granted, mut refused) = (Instant::now(), 0, 0);
    while begin.elapsed() < time {
        for side in &mut *sides {
            match side.step() {
                true => granted += 1,
                false => refused += 1,
            }
        }
        let both = sides[0].held.intersection(&sides[1].held).next();
        assert_eq!(both, None, "both hosts have it");
        thread::sleep(Duration::from_millis(40));
    }
    (granted, refused)
}

#[test]
#[ignore = "an hour; `make long-run` runs it"]
fn a_long_run_with_faults_loses_and_leaks_nothing() {
    let minutes = env::var("MINUTES").map_or(MINUTES, |text| text.parse().unwrap());
    let bench = Bench::new(5);
    let mut sides = [1, 2].map(|number| Side {
        host: bench.started(number, LONG),
        held: BTreeSet::new(),
        rng: fastrand::Rng::with_seed(number.into()),
    });
    let mut rng = fastrand::Rng::with_seed(0);
    let mut usage = Vec::new();
    for minute in 0..minutes {
        let drive = &bench.drives[rng.usize(0..bench.drives.len())];
        let (begin, end) = FAULTS[rng.usize(0..FAULTS.len())];
        bench.control(&begin.replace("DRIVE", drive));
        let failing = work(&mut sides, PERIOD / 3);
        if !end.is_empty() {
            bench.control(&end.replace("DRIVE", drive));
        }
        let sound = work(&mut sides, PERIOD * 2 / 3);
        let now = Usage::now();
        let held = sides.each_ref().map(|side| side.held.len());
        println!("{minute}: {begin}, {failing:?}, then {sound:?}; {held:?} held; {now:?}");
        assert!(failing.0 > 0 && sound.0 > sound.1 / 2, "few requests are granted");
        assert_eq!(bench.killed(), "");
        usage.push(now);
    }
    let (first, rest) = usage.split_at(usage.len() / 3);
    let most = |part: &[Usage]| part.iter().copied().fold(Usage::default(), Usage::max);
    let (first, rest) = (most(first), most(rest));
    assert!(rest.descriptors <= first.descriptors + GROWTH, "{first:?}, later {rest:?}");
    assert!(rest.threads <= first.threads + GROWTH, "{first:?}, later {rest:?}");
    assert!(rest.rss_kib <= first.rss_kib + GROWTH_KIB, "{first:?}, later {rest:?}");
}
