//! After drives have answered with an error, a host gets a lock again at once, because an answered
//! command cannot reach its drive later. After lost answers it does not, and the refusal names the
//! barred drives and the time.
#![cfg(feature = "emulator")]

use idm_emulator::server::{DriveSpec, Server};
use idm_protocol::{HostId, Mode};
use lvmlockd_idm::config::Config;
use lvmlockd_idm::error::Error;
use lvmlockd_idm::lock::{Adopt, LockspaceKey, Resource, ResourceKey, Scope};
use lvmlockd_idm::manager::Manager;
use lvmlockd_idm::recovery::active::Devices;
use std::thread;
use std::time::{Duration, Instant};

const VG: LockspaceKey = LockspaceKey(0x1000);
const DRIVES: [&str; 2] = ["d0", "d1"];
/// A lease that no test waits for. A drive is barred for a quarter of it.
const LEASE: Duration = Duration::from_secs(60);
/// Time within which a lock is granted after the last error that was answered; the pauses between
/// commands have grown slightly by then.
const AGAIN: Duration = Duration::from_secs(3);
/// More commands than any test sends.
const ALL: u32 = 1_000_000;

fn lv(number: usize) -> Resource {
    Resource::Lv { uuid: format!("LVLVLV-0000-0000-0000-0000-0000-{number:06}"), pvs: Vec::new() }
}

/// A host with a VG on two emulated drives; both are needed.
struct Bench {
    server: Server,
    host: Manager,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(lease: Duration) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let specs = DRIVES.map(|name| DriveSpec::parse(name).unwrap());
        let server = Server::start(&dir.path().join("drives"), &specs).unwrap();
        let paths = DRIVES.map(|name| format!("/dev/{name}"));
        let sys = dir.path().join("sys");
        std::fs::create_dir_all(sys.join("block")).unwrap();
        let sockets = DRIVES.iter().map(|name| (format!("/dev/{name}"), server.socket(name)));
        let config = Config {
            lease,
            global_drives: paths.to_vec(),
            emulated: sockets.collect(),
            state_dir: dir.path().join("state"),
            kill_command: Some(vec!["/bin/true".into()]),
            ..Config::default()
        };
        let host = Manager::new(config, HostId::new([1; 16], "host1"), Devices::with_sysfs(&sys));
        let scope = Scope::Vg {
            name: "vg0".into(),
            uuid: "123456-abcd-efgh-ijkl-mnop-qrst-uvwxyz".into(),
            pvs: paths.to_vec(),
        };
        host.prepare_lockspace(VG, scope).unwrap();
        host.add_lockspace(VG, Adopt::default()).unwrap();
        Bench { server, host, _dir: dir }
    }

    /// Gives both drives a fault, or removes it.
    fn fault(&self, fault: &str, commands: u32, how: &str) {
        for drive in DRIVES {
            self.server
                .control(&format!("{fault} {drive} {how}").replace('#', &commands.to_string()))
                .unwrap();
        }
    }

    fn lock(&self, number: usize) -> Result<(), Error> {
        let mode = Mode::Exclusive;
        self.host.lock(VG, ResourceKey(number), lv(number), mode, Adopt::default()).map(drop)
    }

    fn unlock(&self, number: usize) {
        self.host.unlock(ResourceKey(number), 0, 0);
    }

    /// Requests a lock until it is granted; returns the time and the errors before.
    fn until_granted(&self, number: usize) -> (Duration, Vec<Error>) {
        let begin = Instant::now();
        let mut refusals = Vec::new();
        while let Err(refusal) = self.lock(number) {
            refusals.push(refusal);
            assert!(begin.elapsed() < LEASE, "never: {refusals:?}");
            thread::sleep(Duration::from_millis(100));
        }
        let took = begin.elapsed();
        self.unlock(number);
        (took, refusals)
    }

    /// Requests the lock that the fault hit, and one that it did not hit.
    fn is_had_again(&self) {
        for number in [1, 2] {
            let (took, refusals) = self.until_granted(number);
            assert!(took < AGAIN, "LV {number} after {took:?}: {refusals:?}");
        }
    }
}

/// Gives back a lock while drives answer with an error.
fn unlock_under(answer: &str) {
    let bench = Bench::new(LEASE);
    bench.lock(1).unwrap();
    bench.fault("fail", ALL, answer);
    bench.unlock(1);
    bench.fault("fail", 0, answer);
    bench.is_had_again();
}

/// Requests a lock while drives answer with an error, whether or not they have taken it.
fn lock_under(answer: &str) {
    let bench = Bench::new(LEASE);
    bench.fault("fail", ALL, answer);
    assert!(bench.lock(1).is_err());
    bench.fault("fail", 0, answer);
    bench.is_had_again();
}

macro_rules! answered_error {
    ($($name:ident: $answer:expr;)*) => {
        $(mod $name {
            #[test]
            fn of_an_unlock() {
                super::unlock_under($answer);
            }

            #[test]
            fn of_a_lock() {
                super::lock_under($answer);
            }
        })*
    };
}

answered_error! {
    answered_hardware_error: "02 # 4/44/0";
    answered_medium_error: "02 # 3/11/0";
    answered_illegal_request: "02 # 5/24/0";
    answered_not_ready: "02 # 2/4/1";
    answered_unit_attention: "02 # 6/29/0";
    answered_aborted_command: "02 # b/0/0";
    answered_busy: "08 #";
}

/// A quarter of the lease is 8 s, longer than a request waits for drives.
#[test]
fn what_was_not_answered_is_waited_for_and_the_refusal_says_so() {
    let lease = Duration::from_secs(32);
    let bench = Bench::new(lease);
    bench.lock(1).unwrap();
    bench.fault("lose-reply", ALL, "#");
    bench.unlock(1);
    thread::sleep(Duration::from_millis(100));
    bench.fault("lose-reply", 0, "#");

    let refusal = bench.lock(1).unwrap_err().to_string();
    for drive in DRIVES {
        let (_, seconds) =
            refusal.split_once(&format!("{drive}.sock): not asked for ")).unwrap_or_else(|| {
                panic!("{drive} is not named: {refusal}");
            });
        let seconds: u64 = seconds.split(' ').next().unwrap().parse().unwrap();
        assert!((1..=8).contains(&seconds), "{refusal}");
    }
    // Another lock has no command on its way to that drive.
    let (other, _) = bench.until_granted(2);
    assert!(other < AGAIN, "{other:?}");
    let (took, _) = bench.until_granted(1);
    assert!(took < lease / 4 + AGAIN, "{took:?}");
}
