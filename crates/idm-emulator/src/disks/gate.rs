//! Commands on their way from a port to a disk, and the effect of rules on them.

use super::faults::{CommandKind, Effect, Failure, RuleId};
use super::{Disk, Enclosure};
use crate::Nonsense;
use crate::sync::lock;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A command of a machine, with the way back for its answer.
pub trait TargetCommand: Send {
    /// The drive's answer.
    type Reply;

    /// The disk that it is for.
    fn disk(&self) -> &Disk;

    /// Its kind.
    fn kind(&self) -> CommandKind;

    /// Lets the disk execute it.
    fn execute(&self) -> Self::Reply;

    /// Replaces the drive's answer by nonsense.
    fn spoil(reply: &mut Self::Reply, nonsense: &mut Nonsense);

    /// Reports its end to the machine.
    fn answer(self, answer: ServiceResponse<Self::Reply>) -> io::Result<()>;
}

/// The end of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceResponse<R> {
    /// The drive has executed it.
    Reply(R),
    /// A rule demands this answer; the command had no effect.
    Failure(Failure),
    /// The transport failed.
    Cut,
    /// There is no such drive on this path.
    Absent,
    /// It was aborted at the machine's request.
    Aborted,
}

/// A command whose answer a rule delays.
struct Held<C> {
    command: C,
    rule: RuleId,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is executed at this moment, or when the rule is lifted.
    ExecuteAt(Instant),
    /// It is executed when the rule is lifted.
    ExecuteLater,
    /// It has been executed, and is reported as failed when the rule is lifted.
    Executed,
}

struct HeldCommands<C> {
    commands: Vec<Held<C>>,
    closed: bool,
}

/// A gate for the commands of one connection, which applies the rules.
pub struct Gate<C> {
    enclosure: Arc<Enclosure>,
    port: String,
    held: Mutex<HeldCommands<C>>,
    changed: Condvar,
}

impl<C: TargetCommand> Gate<C> {
    /// A gate for a connection by the port with this name.
    pub fn new(enclosure: Arc<Enclosure>, port: &str) -> Gate<C> {
        let held = HeldCommands { commands: Vec::new(), closed: false };
        Gate { enclosure, port: port.to_owned(), held: Mutex::new(held), changed: Condvar::new() }
    }

    /// The port's name.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// The enclosure with everything that all ports share.
    pub fn enclosure(&self) -> &Arc<Enclosure> {
        &self.enclosure
    }

    /// Applies the rules to a command.
    pub fn treat(&self, command: C) -> io::Result<()> {
        let take = |disk: &str, kind| {
            self.enclosure.with_rules_quietly(|rules| rules.take(disk, &self.port, kind))
        };
        let Some((rule, effect)) = take(command.disk().name(), command.kind()) else {
            return execute(command);
        };
        match effect {
            Effect::Delay(by) => self.hold(command, rule, Fate::ExecuteAt(Instant::now() + by)),
            Effect::Hang => self.hold(command, rule, Fate::ExecuteLater),
            Effect::LoseReply => {
                command.execute();
                self.hold(command, rule, Fate::Executed);
            }
            Effect::Nonsense => {
                let mut reply = command.execute();
                self.enclosure.with_nonsense(|nonsense| C::spoil(&mut reply, nonsense));
                return command.answer(ServiceResponse::Reply(reply));
            }
            Effect::Fail(failure) => return command.answer(ServiceResponse::Failure(failure)),
            Effect::Cut => return command.answer(ServiceResponse::Cut),
            Effect::Absent => return command.answer(ServiceResponse::Absent),
        }
        Ok(())
    }

    fn hold(&self, command: C, rule: RuleId, fate: Fate) {
        let mut held = lock(&self.held);
        // After the end nothing would release it.
        if !held.closed {
            held.commands.push(Held { command, rule, fate });
        }
        drop(held);
        self.changed.notify_all();
    }

    /// Handles a change of the rules; some may have been lifted.
    pub fn rules_changed(&self) {
        self.changed.notify_all();
    }

    /// Takes out the held commands that `which` selects, to be answered as aborted.
    pub fn abort(&self, mut which: impl FnMut(&C) -> bool) -> Vec<C> {
        let mut held = lock(&self.held);
        let all = std::mem::take(&mut held.commands);
        let (aborted, kept) = all.into_iter().partition(|one: &Held<C>| which(&one.command));
        held.commands = kept;
        aborted.into_iter().map(|one: Held<C>| one.command).collect()
    }

    /// Ends [`Gate::release`]; held commands are never executed.
    pub fn close(&self) {
        lock(&self.held).closed = true;
        self.changed.notify_all();
    }

    /// Releases held commands at their time, until the connection ends. A thread runs this.
    pub fn release(&self) {
        let mut held = lock(&self.held);
        while !held.closed {
            let now = Instant::now();
            let all = std::mem::take(&mut held.commands);
            let (due, waiting) = self.enclosure.with_rules_quietly(|rules| {
                all.into_iter().partition(|one: &Held<C>| {
                    let in_time = matches!(one.fate, Fate::ExecuteAt(at) if at <= now);
                    in_time || !rules.stands(one.rule)
                })
            });
            held.commands = waiting;
            let next = held.commands.iter().filter_map(|one| match one.fate {
                Fate::ExecuteAt(at) => Some(at),
                Fate::ExecuteLater | Fate::Executed => None,
            });
            // A lifted rule may also be missed between the check above and the wait below.
            let pause = next
                .min()
                .map_or(Duration::from_millis(200), |at| at.saturating_duration_since(now))
                .min(Duration::from_millis(200));
            if due.is_empty() {
                held = self
                    .changed
                    .wait_timeout(held, pause)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                continue;
            }
            drop(held);
            for one in due {
                self.let_go(one);
            }
            held = lock(&self.held);
        }
        held.commands.clear();
    }

    fn let_go(&self, held: Held<C>) {
        let done = match held.fate {
            Fate::ExecuteAt(_) | Fate::ExecuteLater => execute(held.command),
            Fate::Executed => held.command.answer(ServiceResponse::Cut),
        };
        if let Err(error) = done {
            eprintln!("port {}: {error}", self.port);
        }
    }
}

fn execute<C: TargetCommand>(command: C) -> io::Result<()> {
    let reply = command.execute();
    command.answer(ServiceResponse::Reply(reply))
}
