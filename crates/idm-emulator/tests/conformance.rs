//! The hardware tests of the first host implementation (docs/protocol.md, "Sources"), against the
//! drive model. PC-001 to PC-028 number those of its drives in order. PC-029 to PC-051 are the
//! asynchronous ones, which send the same commands; they are here as well if their steps differ.

mod common;

use common::{EX, L0, L1, SH, host, payload, storing};
use idm_emulator::{Drive, DriveTime, Profile};
use idm_protocol::{
    DriveCommand, Mode, MutexOp, Record, Reply, State, Status, Value, ValueUpdate, scsi,
};

const H0: u8 = 0;
const H1: u8 = 1;
const H2: u8 = 2;

use MutexOp::{Break as BR, Destroy as DS, Refresh as RF, Trylock as TL, Unlock as UL};
use Status::{Conflict as RC, Good as G, NotFound as CC21, Terminated as CT};

/// One line of a case.
#[derive(Clone, Copy)]
enum Step {
    /// A command on L0 with its lease in ms, and the expected status.
    Do(MutexOp, Mode, u8, u64, Status),
    /// The same for L1.
    OnL1(MutexOp, Mode, u8, u64, Status),
    /// UNLOCK that stores a value.
    Publish(u8, [u8; 8]),
    /// A step of the drive's clock in seconds.
    Sleep(u64),
    /// A read of the value in a host's record.
    Value(u8, [u8; 8]),
    /// A count of holders: (others, self).
    Count(u8, usize, usize),
    /// The mode in which L0 is held.
    Held(Option<Mode>),
}
use Step::{Count, Do, Held, OnL1, Publish, Sleep, Value as Lvb};

struct Bench {
    drive: Drive,
    now_ms: u64,
}

impl Bench {
    fn new(profile: Profile) -> Bench {
        Bench { drive: Drive::new(profile), now_ms: 1_000 }
    }

    fn now(&self) -> DriveTime {
        DriveTime::from_millis(self.now_ms)
    }

    fn send(&mut self, op: MutexOp, payload: Record) -> Status {
        let now = self.now();
        match self.drive.perform(now, &DriveCommand::Mutex(op, payload)) {
            Reply::Status(status) => status,
            Reply::Table(_) => panic!("a table in answer to {op:?}"),
        }
    }

    fn table(&mut self) -> Vec<Record> {
        let now = self.now();
        match self.drive.perform(now, &DriveCommand::ReadTable) {
            Reply::Table(table) => table.to_vec(),
            Reply::Status(status) => panic!("{status:?} in answer to a read"),
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Do(op, mode, by, lease_ms, expected) => {
                let got = self.send(op, payload(L0, mode, host(by), lease_ms));
                assert_eq!(got, expected, "{op:?} {mode} by host {by}");
            }
            OnL1(op, mode, by, lease_ms, expected) => {
                let got = self.send(op, payload(L1, mode, host(by), lease_ms));
                assert_eq!(got, expected, "{op:?} {mode} by host {by} on the second lock");
            }
            Publish(by, lvb) => {
                let payload = storing(value(lvb).get(), payload(L0, EX, host(by), 0));
                assert_eq!(self.send(UL, payload), G);
            }
            Sleep(seconds) => self.now_ms += seconds * 1000,
            Lvb(by, lvb) => {
                let record = self
                    .table()
                    .into_iter()
                    .find(|r| r.resource == L0 && r.host == host(by))
                    .expect("no record");
                assert_eq!(record.value, value(lvb));
                assert_eq!(record.value_update, ValueUpdate::Keep);
            }
            Count(by, others, own) => {
                let live: Vec<bool> = self
                    .table()
                    .iter()
                    .filter(|r| r.resource == L0 && counts(r.state))
                    .map(|r| r.host == host(by))
                    .collect();
                assert_eq!(live.iter().filter(|&&own| !own).count(), others);
                assert_eq!(live.iter().filter(|&&own| own).count(), own);
            }
            Held(mode) => {
                let held = self
                    .table()
                    .iter()
                    .find(|r| r.resource == L0 && counts(r.state))
                    .map(|r| r.class.mode());
                assert_eq!(held, mode);
            }
        }
    }
}

/// Whether the reference host takes a record in this state as held.
fn counts(state: State) -> bool {
    matches!(state, State::Locked | State::MultipleLocked)
}

/// The number that a drive keeps for the 8 bytes that a host calls an LVB: the eighth is lost.
fn value(lvb: [u8; 8]) -> Value {
    Value::new(u64::from_le_bytes(lvb) & Value::MAX.get()).unwrap()
}

/// Cases as (number, steps).
fn cases() -> Vec<(&'static str, Vec<Step>)> {
    let renewals = |mode| {
        let mut steps = vec![Do(TL, mode, H0, 10_000, G)];
        for _ in 0..3 {
            steps.extend([Sleep(5), Do(RF, mode, H0, 10_000, G)]);
        }
        steps.push(Do(UL, mode, H0, 0, G));
        steps
    };
    let late_renewal = |from, to| {
        vec![
            Do(TL, from, H0, 5_000, G),
            Sleep(7),
            Held(None),
            Do(RF, to, H0, 5_000, G),
            Held(Some(to)),
            Do(UL, to, H0, 0, G),
        ]
    };
    let early_renewal = |mode| {
        vec![
            Do(TL, mode, H0, 10_000, G),
            Sleep(7),
            Held(Some(mode)),
            Do(RF, mode, H0, 10_000, G),
            Do(UL, mode, H0, 0, G),
        ]
    };
    let value_survives = |lvb: [u8; 8]| {
        vec![
            Do(TL, EX, H0, 5_000, G),
            Publish(H0, lvb),
            Do(TL, EX, H0, 5_000, G),
            Lvb(H0, lvb),
            Do(UL, EX, H0, 0, G),
        ]
    };
    vec![
        (
            "PC-002, PC-029",
            vec![Do(TL, EX, H0, 10_000, G), Do(UL, EX, H0, 0, G), Do(DS, EX, H0, 0, G)],
        ),
        (
            "PC-003, PC-030",
            vec![Do(TL, SH, H0, 10_000, G), Do(UL, SH, H0, 0, G), Do(DS, SH, H0, 0, CC21)],
        ),
        (
            "PC-004",
            vec![
                Do(TL, EX, H0, 10_000, G),
                Do(TL, EX, H0, 10_000, CT),
                Do(UL, EX, H0, 0, G),
                Do(UL, EX, H0, 0, G),
                Do(DS, EX, H0, 0, G),
            ],
        ),
        (
            "PC-005",
            vec![
                Do(TL, SH, H0, 10_000, G),
                Do(TL, SH, H0, 10_000, CT),
                Do(UL, SH, H0, 0, G),
                Do(UL, SH, H0, 0, CC21),
                Do(DS, SH, H0, 0, CC21),
            ],
        ),
        (
            "PC-006",
            vec![
                Do(TL, EX, H0, 10_000, G),
                Do(TL, EX, H1, 10_000, RC),
                Do(UL, EX, H0, 0, G),
                Do(UL, EX, H1, 0, G),
                Do(DS, EX, H0, 0, G),
            ],
        ),
        (
            "PC-007",
            vec![
                Do(TL, SH, H0, 10_000, G),
                Do(TL, SH, H1, 10_000, G),
                Do(UL, SH, H0, 0, G),
                Do(DS, SH, H0, 0, RC),
                Do(UL, SH, H1, 0, G),
                Do(DS, SH, H1, 0, CC21),
            ],
        ),
        (
            "PC-008",
            vec![
                Do(TL, EX, H0, 5_000, G),
                Do(TL, EX, H1, 5_000, RC),
                Sleep(10),
                Do(BR, EX, H1, 5_000, G),
                Do(UL, EX, H0, 0, RC),
                Do(UL, EX, H1, 0, G),
            ],
        ),
        (
            "PC-009",
            vec![
                Do(TL, EX, H0, 5_000, G),
                Do(TL, SH, H1, 5_000, RC),
                Sleep(7),
                Do(BR, SH, H1, 5_000, G),
                Do(UL, EX, H0, 0, RC),
                Do(UL, SH, H1, 0, G),
            ],
        ),
        (
            "PC-010",
            vec![
                Do(TL, SH, H0, 5_000, G),
                Do(TL, EX, H1, 5_000, RC),
                Sleep(7),
                Do(BR, EX, H1, 10_000, G),
                Do(UL, SH, H0, 0, RC),
                Do(UL, EX, H1, 0, G),
            ],
        ),
        (
            "PC-011, PC-037",
            vec![
                Do(TL, SH, H0, 10_000, G),
                Do(RF, EX, H0, 10_000, G),
                Held(Some(EX)),
                Do(UL, EX, H0, 0, G),
            ],
        ),
        (
            "PC-012, PC-038",
            vec![
                Do(TL, EX, H0, 10_000, G),
                Do(RF, SH, H0, 10_000, G),
                Held(Some(SH)),
                Do(UL, SH, H0, 0, G),
            ],
        ),
        (
            "PC-013, PC-039",
            vec![
                Do(TL, SH, H0, 10_000, G),
                Do(TL, SH, H1, 10_000, G),
                Do(RF, EX, H1, 10_000, CT),
                Held(Some(SH)),
                Do(UL, SH, H0, 0, G),
                Do(UL, SH, H1, 0, G),
            ],
        ),
        ("PC-014, PC-040", renewals(SH)),
        ("PC-015, PC-041", renewals(EX)),
        ("PC-016", late_renewal(SH, SH)),
        ("PC-017", late_renewal(EX, EX)),
        ("PC-018", late_renewal(EX, SH)),
        ("PC-019", late_renewal(SH, EX)),
        ("PC-020, PC-044", vec![Do(TL, EX, H0, 5_000, G), Lvb(H0, [0; 8]), Do(UL, EX, H0, 0, G)]),
        ("PC-021, PC-045", value_survives(*b"abcdefg\0")),
        ("PC-022", value_survives([1, 2, 3, 4, 1, 1, 1, 0])),
        (
            "PC-023, PC-046",
            vec![Do(TL, EX, H0, 10_000, G), Count(H0, 0, 1), Do(UL, EX, H0, 0, G), Count(H0, 0, 0)],
        ),
        (
            "PC-024, PC-047",
            vec![
                Do(TL, SH, H0, 10_000, G),
                Do(TL, SH, H1, 10_000, G),
                Count(H0, 1, 1),
                Count(H1, 1, 1),
                Count(H2, 2, 0),
                Do(UL, SH, H0, 0, G),
                Do(UL, SH, H1, 0, G),
                Count(H0, 0, 0),
            ],
        ),
        (
            "PC-025, PC-048",
            vec![
                Do(TL, SH, H0, 10_000, G),
                Do(TL, SH, H1, 10_000, G),
                Do(TL, SH, H2, 10_000, G),
                Count(H0, 2, 1),
                Count(H1, 2, 1),
                Count(H2, 2, 1),
                Do(UL, SH, H0, 0, G),
                Do(UL, SH, H1, 0, G),
                Do(UL, SH, H2, 0, G),
                Count(H0, 0, 0),
            ],
        ),
        ("PC-026, PC-049", vec![Held(None)]),
        ("PC-027, PC-050", vec![Do(TL, EX, H0, 10_000, G), Held(Some(EX)), Do(UL, EX, H0, 0, G)]),
        ("PC-028, PC-051", vec![Do(TL, SH, H0, 10_000, G), Held(Some(SH)), Do(UL, SH, H0, 0, G)]),
        (
            "PC-033",
            vec![
                Do(TL, SH, H0, 10_000, G),
                OnL1(TL, SH, H0, 10_000, G),
                Do(UL, SH, H0, 0, G),
                OnL1(UL, SH, H0, 0, G),
                Do(DS, SH, H0, 0, CC21),
                OnL1(DS, SH, H0, 0, CC21),
            ],
        ),
        (
            "PC-034",
            vec![
                Do(TL, EX, H0, 5_000, G),
                Do(TL, EX, H1, 5_000, RC),
                Sleep(7),
                Do(BR, EX, H1, 5_000, G),
                Do(UL, EX, H0, 0, RC),
                Do(UL, EX, H1, 0, G),
            ],
        ),
        (
            "PC-035",
            vec![
                Do(TL, EX, H0, 5_000, G),
                Do(TL, SH, H1, 5_000, RC),
                Sleep(7),
                Do(BR, SH, H1, 5_000, G),
                Do(UL, SH, H0, 0, RC),
                Do(UL, SH, H1, 0, G),
            ],
        ),
        (
            "PC-036",
            vec![
                Do(TL, SH, H0, 5_000, G),
                Do(TL, EX, H1, 5_000, RC),
                Sleep(7),
                Do(BR, SH, H1, 5_000, G),
                Do(UL, SH, H0, 0, RC),
                Do(UL, SH, H1, 0, G),
            ],
        ),
        ("PC-042", early_renewal(SH)),
        ("PC-043", early_renewal(EX)),
    ]
}

#[test]
fn conformance_cases() {
    for (name, steps) in cases() {
        println!("{name}");
        let mut bench = Bench::new(Profile::current());
        for step in steps {
            bench.run(step);
        }
    }
}

#[test]
fn pc_001_version() {
    // The original case can only pass over NVMe, where the minor version has a field.
    let mut drive = Drive::new(Profile::current());
    let page = drive.execute(DriveTime::default(), &scsi::inquire_version(), &[]);
    assert_eq!(page.status, scsi::status::GOOD);
    assert_eq!(page.data.len(), scsi::VERSION_PAGE_LEN);
    assert_eq!(scsi::version(&page.data), Some(8));
}

/// PC-031 and PC-032: two drives are independent of each other.
#[test]
fn pc_031_two_drives() {
    for (mode, after_unlock) in [(EX, G), (SH, CC21)] {
        let mut drives = [Bench::new(Profile::current()), Bench::new(Profile::current())];
        for step in
            [Do(TL, mode, H0, 10_000, G), Do(UL, mode, H0, 0, G), Do(DS, mode, H0, 0, after_unlock)]
        {
            drives.iter_mut().for_each(|bench| bench.run(step));
        }
    }
}
