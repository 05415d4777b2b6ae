//! Reports events to an observer, if there is one.

use super::World;
use super::hosts::{Host, host_id};
use super::network::FlightIx;
use crate::ids::{DriveIx, HostIx, Ix, LockIx, SlotIx};
use crate::observe::{Command, Heard, Place, Recording, Tone, verb};
use crate::plan::Fault;
use core::fmt;
use idm_engine::{DriveRef, Event, Notice, Outcome, Refusal};
use idm_protocol::{HostId, Mode, Reply};

impl World {
    /// Records events from now on, in the next seed or scenario.
    pub fn observe(&mut self) {
        self.recording = Some(Box::default());
    }

    /// The recording since [`World::observe`].
    pub fn take_recording(&mut self) -> Option<Recording> {
        self.recording.take().map(|recording| *recording)
    }

    pub(super) fn observe_beginning(&mut self) {
        let Some(recording) = &mut self.recording else { return };
        recording.hosts = self.hosts.iter().map(|(_, host)| host.id.name()).collect();
        recording.drives = self.drives.len();
        let kind = |keeps_value| if keeps_value { "VG lock" } else { "LV lock" };
        recording.locks =
            self.locks.iter().map(|(_, lock)| (kind(lock.keeps_value), lock.layout)).collect();
    }

    pub(super) fn observe_end(&mut self) {
        let Some(recording) = &mut self.recording else { return };
        let now = self.agenda.now();
        recording.violation = self.failure.as_ref().map(|failure| (now, failure.to_string()));
        recording.finish(now);
    }

    pub(super) fn observe_belief(&mut self, s: SlotIx) {
        let Some(recording) = &mut self.recording else { return };
        let (now, place) = (self.agenda.now(), self.slots.place(s));
        let engine = &self.slots[s].engine;
        recording.believe(now, place, engine.mode.map(|mode| (mode, engine.until)));
    }

    pub(super) fn observe_request(&mut self, s: SlotIx, text: fmt::Arguments<'_>) {
        let Some(recording) = &mut self.recording else { return };
        let (now, place) = (self.agenda.now(), self.slots.place(s));
        recording.ask(now, place);
        recording.note(now, Place::Host(place.0), Some(place.1), Tone::Plain, text.to_string());
    }

    pub(super) fn observe_answer(&mut self, s: SlotIx, tone: Tone, text: fmt::Arguments<'_>) {
        let Some(recording) = &mut self.recording else { return };
        let (now, place) = (self.agenda.now(), self.slots.place(s));
        recording.answer(now, place);
        recording.note(now, Place::Host(place.0), Some(place.1), tone, text.to_string());
    }

    pub(super) fn observe_note(&mut self, s: SlotIx, tone: Tone, text: fmt::Arguments<'_>) {
        let Some(recording) = &mut self.recording else { return };
        let (now, place) = (self.agenda.now(), self.slots.place(s));
        recording.note(now, Place::Host(place.0), Some(place.1), tone, text.to_string());
    }

    pub(super) fn observe_event(&mut self, s: SlotIx, event: &Event) {
        if self.recording.is_none() {
            return;
        }
        match event {
            Event::Done(Outcome::Released) => (),
            Event::Done(outcome) => {
                let (tone, text) = outcome_text(outcome);
                self.observe_answer(s, tone, format_args!("{text}"));
            }
            Event::Lapsed => {
                self.observe_note(s, Tone::Bad, format_args!("lapsed: others may take it"))
            }
            Event::Regained => {
                self.observe_note(
                    s,
                    Tone::Good,
                    format_args!("regained: nobody had it in between"),
                );
            }
            Event::Lost(_) => self.observe_note(s, Tone::Bad, format_args!("lost")),
            Event::VotesReady { .. } => (),
            Event::Notice(notice) => {
                if let Some((tone, text)) = notice_text(notice) {
                    self.observe_note(s, tone, format_args!("{text}"));
                }
            }
        }
    }

    pub(super) fn observe_command(&mut self, f: FlightIx) {
        let Some(recording) = &mut self.recording else { return };
        let (s, drive, command) = self.network.errand(f);
        let (sent, (host, lock)) = (self.agenda.now(), self.slots.place(s));
        let verb = verb(command);
        let (executed, answered, heard) = (None, None, Heard::Nothing);
        let command = Command { host, lock, drive, verb, sent, executed, answered, heard };
        recording.send(f.get(), command);
    }

    /// Records that a drive executed a command of a slot.
    pub(super) fn observe_execution(&mut self, f: FlightIx, s: SlotIx, d: DriveIx) {
        let Some(recording) = &mut self.recording else { return };
        let now = self.agenda.now();
        recording.execute(now, f.get());
        self.observe_table(d, self.slots.lock(s));
    }

    pub(super) fn observe_reply(&mut self, f: FlightIx, reply: &Reply) {
        let Some(recording) = &mut self.recording else { return };
        let now = self.agenda.now();
        recording.hear(now, f.get(), reply);
    }

    /// Records a drive's present records of one lock.
    fn observe_table(&mut self, d: DriveIx, l: LockIx) {
        let present = self.records_of(d, l);
        let Some(recording) = &mut self.recording else { return };
        let now = self.agenda.now();
        recording.table(now, (d, l), &present);
    }

    fn records_of(&self, d: DriveIx, l: LockIx) -> Vec<(HostIx, Mode, u64)> {
        let (drive, at, resource) =
            (&self.drives[d].drive, self.drive_now(d), &self.locks[l].resource);
        let records = drive.table(at).into_iter().filter(|r| r.resource == *resource);
        records
            .filter_map(|record| {
                let host = self.host_called(&record.host)?;
                let left = drive.lease_left(at, resource, &record.host)?;
                Some((host, record.class.mode(), self.now() + left.as_micros() as u64))
            })
            .collect()
    }

    /// The host that has, or had, a name.
    fn host_called(&self, id: &HostId) -> Option<HostIx> {
        let is =
            |&(h, host): &(HostIx, &Host)| (0..=host.lives).any(|life| host_id(h, life) == *id);
        self.hosts.iter().find(is).map(|(h, _)| h)
    }

    /// Records that a drive lost its table.
    pub(super) fn observe_reset(&mut self, d: DriveIx) {
        let now = self.now();
        let locks = self.locks.ids();
        let Some(recording) = &mut self.recording else { return };
        for l in locks {
            recording.table(now, (d, l), &[]);
        }
        recording.note(now, Place::Drive(d), None, Tone::Bad, "loses its table".to_owned());
    }

    /// Records a lasting fault, except those of a host's life.
    pub(super) fn observe_fault(&mut self, what: Fault, begins: bool) {
        if self.recording.is_none() {
            return;
        }
        let (place, text) = match what {
            Fault::DriveGone(d) => (Place::Drive(d), "not there".to_owned()),
            Fault::DriveDead(d) => (Place::Drive(d), "does not answer".to_owned()),
            Fault::DriveSlow(d) => (Place::Drive(d), "slow".to_owned()),
            Fault::DriveBusy(d) => (Place::Drive(d), "busy".to_owned()),
            Fault::DriveFull(d) => (Place::Drive(d), "full".to_owned()),
            Fault::PathDown(h, d) => (Place::Host(h), format!("no path to {d}")),
            Fault::PathFlaps(h, d) => (Place::Host(h), format!("path to {d} comes and goes")),
            Fault::Cut(h) => (Place::Host(h), "reaches no drive".to_owned()),
            Fault::DriveReset(_) | Fault::Frozen(_) | Fault::Restart(_) | Fault::Reboot(_) => {
                return;
            }
        };
        self.observe_fault_span(place, &text, begins);
    }

    pub(super) fn observe_fault_span(&mut self, place: Place, text: &str, begins: bool) {
        let Some(recording) = &mut self.recording else { return };
        let now = self.agenda.now();
        if begins {
            recording.begin_fault(now, place, text);
        } else {
            recording.end_fault(now, place, text);
        }
    }

    /// Records that a host died, and that its beliefs ended.
    pub(super) fn observe_death(&mut self, h: HostIx, renamed: bool) {
        let Some(recording) = &mut self.recording else { return };
        let now = self.agenda.now();
        for s in self.slots.of_host(h) {
            let place = self.slots.place(s);
            recording.believe(now, place, None);
            recording.answer(now, place);
        }
        recording.begin_fault(now, Place::Host(h), death(renamed));
    }
}

/// The text for the death of a host, or of its lvmlockd; `renamed` if a new name follows.
pub(super) fn death(renamed: bool) -> &'static str {
    if renamed { "the host is dead" } else { "lvmlockd is dead" }
}

/// The text for a host that stands still.
pub(super) const FROZEN: &str = "stands still";

fn outcome_text(outcome: &Outcome) -> (Tone, String) {
    match outcome {
        Outcome::Granted(_) => (Tone::Good, "granted".to_owned()),
        Outcome::Adopted(mode) => (Tone::Good, format!("adopted, {}", long(*mode))),
        Outcome::Converted { .. } => (Tone::Good, "converted".to_owned()),
        Outcome::Released => (Tone::Plain, "released".to_owned()),
        Outcome::Refused(Refusal::Held(by)) => {
            let by = by.first().map_or("another host".to_owned(), |c| c.host.name());
            (Tone::Bad, format!("refused: {by} holds it"))
        }
        Outcome::Refused(refusal) => (Tone::Bad, format!("refused: {refusal}")),
    }
}

fn notice_text(notice: &Notice) -> Option<(Tone, String)> {
    let d = |drive: &DriveRef| DriveIx::of(*drive);
    Some(match notice {
        Notice::Broke { hosts, drive } => {
            let hosts: Vec<String> = hosts.iter().map(|host| host.name()).collect();
            (Tone::Plain, format!("broke {} on {}", hosts.join(" "), d(drive)))
        }
        Notice::DriveLost { drive } => (Tone::Bad, format!("lost {}", d(drive))),
        Notice::DriveGained { drive } => (Tone::Good, format!("got {} later", d(drive))),
        Notice::SplitVote => (Tone::Plain, "split vote: gives way".to_owned()),
        Notice::NotIdm { drive } => (Tone::Plain, format!("{} has no IDM", d(drive))),
        Notice::TookOverOwn { .. } | Notice::Collected { .. } => return None,
    })
}

/// A mode in a word that a reader of a picture understands.
pub(super) fn long(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "exclusive",
        Mode::Shared => "shared",
    }
}
