//! Taking a lock and giving it back at once, by the library's engine.

use super::{Job, by_name};
use crate::Trouble;
use crate::fleet::{Asked, Fleet, PathAnswer};
use crate::host::Host;
use idm_engine::{Command, DriveRef, Event, Lock, LockConfig, Member, Outcome, Request, Timing};
use idm_protocol::{HostId, Mode, Reply, Status};
use lvmlockd_idm::lock::{role_of, vg_of};
use lvmlockd_idm::state::host_id;
use lvmlockd_idm::tools::{deadline, now};
use lvmlockd_idm::transport::{DrivePath, TransportError, connector};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// The longest wait for drives to give a lock back. Afterwards its lease ends by itself.
const GIVING_BACK: Duration = Duration::from_secs(15);
/// The time that a command is given.
const STEP: Duration = Duration::from_secs(3);
/// The longest pause between two looks at the engine.
const TICK: Duration = Duration::from_millis(20);

/// A host of its own, with a path to each drive that answered.
pub(super) struct Taking<'a> {
    fleet: &'a Fleet,
    asked: &'a [Asked],
    paths: Vec<Option<Arc<dyn DrivePath>>>,
    host: HostId,
    timing: Timing,
    seed: u64,
}

impl<'a> Taking<'a> {
    /// A host with an id that no library has.
    pub(super) fn new(
        host: &Host,
        fleet: &'a Fleet,
        asked: &'a [Asked],
    ) -> Result<Taking<'a>, Trouble> {
        let random = host_id::random()
            .map_err(|error| Trouble::new(error.to_string(), "/dev/urandom", "make it readable"))?;
        let connect = connector((*host.topology).clone());
        let path = |(drive, asked): (&crate::fleet::Drive, &Asked)| {
            let works =
                |path: &str| matches!(asked.paths.get(path), Some(PathAnswer::Table { .. }));
            let path = drive.paths.iter().find(|path| works(&path.to_string()))?;
            Some(connect(&drive.identity, path))
        };
        Ok(Taking {
            fleet,
            asked,
            paths: fleet.drives.iter().zip(asked).map(path).collect(),
            host: HostId::new(random, &format!("idmctl@{}", host.name)),
            timing: host.settings().timing(),
            seed: u64::from_le_bytes(random[..8].try_into().unwrap_or_default()),
        })
    }

    /// Takes a lock and gives it back. An error has the reason why it was not taken, or the drives
    /// where its record may stay until its lease ends.
    pub(super) fn take_and_give_back(&self, job: &Job) -> Result<(), String> {
        let keeps_value = role_of(&job.id).keeps_value() && !job.destroys;
        let config = LockConfig::new(job.id, self.host, keeps_value, self.timing, self.seed);
        let mut lock = Lock::new(config);
        let (members, witnesses) = self.drives_of(job);
        let request = Request::Acquire { mode: Mode::Exclusive, members, witnesses };
        lock.request(request, now()).map_err(|error| format!("{error:?}"))?;
        let outcome =
            self.drive(&mut lock, GIVING_BACK, |lock, done| done.is_some() || lock.is_idle());
        lock.request(Request::Release { value: None }, now())
            .map_err(|error| format!("{error:?}"))?;
        self.drive(&mut lock, GIVING_BACK, |lock, _| lock.is_idle());
        let name = |drive: DriveRef| self.fleet.drives[drive.0 as usize].name.clone();
        let left: Vec<String> = lock.held_on().map(|(drive, _)| name(drive)).collect();
        match outcome {
            Some(Outcome::Granted(_)) if left.is_empty() => Ok(()),
            Some(Outcome::Granted(_)) => Err(format!(
                "it was taken, but {} did not answer; it is free there in {} s",
                left.join(", "),
                self.timing.lease.as_secs()
            )),
            Some(Outcome::Refused(refusal)) => Err(refusal.to_string()),
            other => Err(format!("the drives did not answer in time ({other:?})")),
        }
    }

    /// The drives that vote, and for an LV the other drives that know its volume group.
    fn drives_of(&self, job: &Job) -> (Vec<Member>, Vec<Member>) {
        let at = by_name(self.fleet);
        let voting: Vec<usize> =
            job.drives.iter().filter_map(|name| at.get(name.as_str()).copied()).collect();
        let knows = |asked: &Asked| {
            let table = asked.table().map_or(&[][..], |(_, records)| records);
            table.iter().any(|it| vg_of(&it.resource) == vg_of(&job.id))
        };
        let is_witness = |at: &usize| {
            let of_vg = self.fleet.drives[*at].vgs.contains(&vg_of(&job.id));
            job.id.is_lv() && !voting.contains(at) && (of_vg || knows(&self.asked[*at]))
        };
        let others: Vec<usize> = (0..self.fleet.drives.len()).filter(is_witness).collect();
        let member = |at: usize| Member {
            drive: DriveRef(at as u32),
            identity: self.fleet.drives[at].identity.clone().into_bytes(),
        };
        (voting.into_iter().map(member).collect(), others.into_iter().map(member).collect())
    }

    /// Carries out commands until `done`, at most for `time`. Returns the outcome of the request.
    fn drive(
        &self,
        lock: &mut Lock,
        time: Duration,
        done: impl Fn(&Lock, Option<&Outcome>) -> bool,
    ) -> Option<Outcome> {
        let begin = Instant::now();
        let mut outcome = None;
        loop {
            lock.on_timer(now());
            while let Some(command) = lock.next_command(now()) {
                let reply = self.send(&command);
                lock.on_reply(command.token, reply, now());
            }
            while let Some(event) = lock.next_event() {
                if let Event::Done(it) = event {
                    outcome = Some(it);
                }
            }
            if done(lock, outcome.as_ref()) || begin.elapsed() >= time {
                return outcome;
            }
            let due = lock.next_deadline().map(|due| due.since(now()));
            thread::sleep(due.unwrap_or(TICK).clamp(Duration::from_millis(1), TICK));
        }
    }

    fn send(&self, command: &Command) -> Reply {
        let Some(path) = &self.paths[command.drive.0 as usize] else {
            return Reply::Status(Status::Unreachable);
        };
        match path.execute(&command.command, &deadline(STEP)) {
            Ok(answer) => answer.reply,
            Err(TransportError::NotSent(_)) => Reply::Status(Status::Unreachable),
            Err(TransportError::Unknown(_)) => Reply::Status(Status::Uncertain),
        }
    }
}
