//! The change of a shared lock to exclusive, on an emulated drive that then removes sharers whose
//! leases have run out.

use idm_emulator::{Drive, DriveTime, Profile};
use idm_engine::{DriveRef, Instant};
use idm_fencing::{Action, Answer, Fence, KIND, Key, Order, Procedure, Rules, Seen, Verdict};
use idm_protocol::{
    Class, DriveCommand, HostId, Mode, MutexOp, Record, Reply, ResourceId, State, Status,
};

const VG: &str = "123456-abcd-efgh-ijkl-mnop-qrst-uvwxyz";
const LV: &str = "abcdef-0123-4567-89AB-CDEF-GHIJ-KLMNOP";
const D: DriveRef = DriveRef(0);
const LEASE_S: u64 = 60;

fn host(number: u8) -> HostId {
    HostId::new([number; 16], "host")
}

/// Sends a command of a host's lock to the drive at this second.
fn send(drive: &mut Drive, second: u64, host: HostId, op: MutexOp, mode: Mode) -> Reply {
    let mut record = Record::end_of_table();
    record.state = State::Uninitialized;
    (record.host, record.resource) = (host, ResourceId::lv(VG, LV).unwrap());
    (record.class, record.countdown_ms) = (Class::from(mode), LEASE_S * 1000);
    drive.perform(at(second), &DriveCommand::Mutex(op, record))
}

fn at(second: u64) -> DriveTime {
    DriveTime::from_micros(second * 1_000_000)
}

/// The verdict for a host that wants an exclusive lock; its look is at this second.
fn decide(drive: &mut Drive, second: u64) -> Verdict {
    let order = Order {
        me: host(1),
        resource: ResourceId::lv(VG, LV).unwrap(),
        group: ResourceId::vg(VG).unwrap(),
        target: D,
        drives: vec![D],
        group_drives: vec![D],
        needed: vec![D],
        until: Instant::from_micros(LEASE_S * 1_000_000),
    };
    let mut fence = Fence::new(order, Rules::default());
    let mut hosts = vec![host(1), host(2)];
    while let Some((to, action)) = fence.next() {
        let Reply::Table(table) = drive.perform(at(second), &DriveCommand::ReadTable) else {
            panic!("a table");
        };
        let answer = match action {
            Action::Read => Answer::Table(table.to_vec().into()),
            Action::Look => Answer::Seen(Seen {
                table: table.to_vec().into(),
                keys: hosts.iter().map(|host| Key::of(host).number()).collect(),
                reservation: Some(Some(KIND)),
                is_able: true,
                paths: 1,
            }),
            Action::Preempt(key) => {
                hosts.retain(|host| Key::of(host) != key);
                Answer::Done
            }
            other => panic!("{other:?}"),
        };
        fence.on_answer(to, answer);
    }
    fence.outcome().cloned().expect("an end")
}

/// Two hosts share a lock, and one is frozen. If its lease ends between the look and the command,
/// the drive takes the lock from it, and nobody has removed it.
#[test]
fn a_sharer_is_not_left_to_the_drive_while_its_lease_runs() {
    let profile = Profile::by_name("current+promotion-removes-expired").unwrap();
    let mut drive = Drive::new(profile);
    let good = Reply::Status(Status::Good);
    assert_eq!(send(&mut drive, 0, host(2), MutexOp::Trylock, Mode::Shared), good);
    assert_eq!(send(&mut drive, 50, host(1), MutexOp::Trylock, Mode::Shared), good);
    assert_eq!(decide(&mut drive, 59), Verdict::Held);
    // The same command would have been carried out two seconds later.
    let mut later = drive.clone();
    assert_eq!(send(&mut later, 61, host(1), MutexOp::Refresh, Mode::Exclusive), good);
    assert_eq!(decide(&mut drive, 61), Verdict::Go(vec![host(2)]));
    assert_eq!(send(&mut drive, 62, host(1), MutexOp::Refresh, Mode::Exclusive), good);
}
