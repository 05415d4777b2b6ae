//! The paths of a drive, which workers take and give back.

use super::*;
use crate::drives::paths::Paths;
use crate::topology::PathAddress;
use crate::transport::Connect;
use core::sync::atomic::AtomicBool as Flag;

/// Two paths, and a place where commands meet.
#[derive(Default)]
struct Meeting {
    /// By path: the number of current reads, and of writes so far.
    reading: Unscheduled<[u32; 2]>,
    written: Unscheduled<[u32; 2]>,
    /// Whether the first path fails.
    broken: Flag,
    /// Whether writes wait until there are two.
    meets: Flag,
    inside: crate::sys::sync::Mutex<u32>,
    entered: crate::sys::sync::Condvar,
}

fn limits() -> Limits {
    Limits::new(&Timing::for_lease(LEASE))
}

struct Path(usize, Arc<Meeting>);

impl DrivePath for Path {
    fn execute(&self, command: &DriveCommand, _: &Deadline) -> Result<Reply, TransportError> {
        let Path(number, meeting) = self;
        if *number == 0 && meeting.broken.load(Ordering::Relaxed) {
            return Err(TransportError::NotSent("gone".into()));
        }
        if *command == DriveCommand::ReadTable {
            meeting.reading.lock().unwrap()[*number] += 1;
            assert_eq!(
                meeting.reading.lock().unwrap()[*number],
                1,
                "a path is tried once at a time"
            );
            pass();
            meeting.reading.lock().unwrap()[*number] -= 1;
            return Ok(Reply::Table(Arc::new([])));
        }
        meeting.written.lock().unwrap()[*number] += 1;
        if meeting.meets.load(Ordering::Relaxed) {
            let mut inside = meeting.inside.lock();
            *inside += 1;
            meeting.entered.notify_all();
            while *inside < 2 {
                inside = meeting.entered.wait(inside);
            }
        }
        Ok(Reply::Status(Status::Good))
    }
}

struct MetDrive {
    paths: Paths,
    addresses: [PathAddress; 2],
    meeting: Arc<Meeting>,
}

impl MetDrive {
    fn new() -> Arc<MetDrive> {
        let addresses = ["/dev/sda", "/dev/sdb"].map(|node| PathAddress::Scsi(node.into()));
        let drive =
            MetDrive { paths: Paths::new("naa.5".into()), addresses, meeting: Arc::default() };
        drive.paths.add("/dev/pv", "naa.5", &drive.addresses, &drive.connect());
        Arc::new(drive)
    }

    fn connect(&self) -> Box<Connect> {
        let (first, meeting) = (self.addresses[0].clone(), self.meeting.clone());
        Box::new(move |_, target| {
            Arc::new(Path(usize::from(*target != first), meeting.clone())) as Arc<dyn DrivePath>
        })
    }

    fn write(&self) -> Status {
        let refresh = DriveCommand::Mutex(MutexOp::Refresh, Record::end_of_table());
        match self.paths.execute(&refresh, &limits().deadline(clock::now())) {
            Reply::Status(status) => status,
            Reply::Table(_) => panic!("a table"),
        }
    }

    /// Reports the paths, as after a kernel event: one may be gone, and failed paths are due for a
    /// try.
    fn tell(&self, paths: usize) {
        self.paths.set("naa.5", &self.addresses[..paths], &self.connect());
    }
}

/// Two commands at the same time on different paths; none remains.
fn two_at_a_time() {
    let drive = MetDrive::new();
    drive.meeting.meets.store(true, Ordering::Relaxed);
    let other = drive.clone();
    let thread = threads::spawn(move || other.write());
    assert_eq!(drive.write(), Status::Good);
    assert_eq!(thread.join().unwrap(), Status::Good);
    assert_eq!(*drive.meeting.written.lock().unwrap(), [1, 1]);
    assert!(!drive.paths.are_slow(clock::now() + LONG), "a command is still on its way");
}

#[test]
fn commands_take_different_paths_and_give_them_back() {
    holds("a drive's paths", STILL, two_at_a_time);
}

#[test]
fn a_path_that_is_chosen_twice_is_found() {
    finds(Race::BeginInTwoSteps, STILL, two_at_a_time);
}

/// Paths appear, disappear and fail, and two workers try them while commands go on.
fn paths_are_tried() {
    let drive = MetDrive::new();
    drive.meeting.broken.store(true, Ordering::Relaxed);
    assert_eq!(drive.write(), Status::Good);
    drive.tell(2);
    drive.meeting.broken.store(false, Ordering::Relaxed);
    let mut threads: Vec<_> = (0..2)
        .map(|_| {
            let drive = drive.clone();
            threads::spawn(move || drive.paths.probe(limits()))
        })
        .collect();
    let other = drive.clone();
    threads.push(threads::spawn(move || {
        if any(2) == 0 {
            other.tell(1);
            other.tell(2);
        }
        assert_eq!(other.write(), Status::Good);
    }));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(!drive.paths.are_slow(clock::now() + LONG), "a command is still on its way");
    // The path can be tried again: no other worker is trying it.
    drive.meeting.broken.store(true, Ordering::Relaxed);
    drive.tell(2);
    assert_eq!(drive.write(), Status::Good);
}

#[test]
fn a_path_is_tried_by_one_worker_at_a_time() {
    holds("paths that are tried", STILL, paths_are_tried);
}

#[test]
fn a_path_that_is_tried_twice_is_found() {
    finds(Race::ProbeTwice, STILL, paths_are_tried);
}
