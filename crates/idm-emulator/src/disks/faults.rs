//! Deliberate faults: rules by drive, host and kind of command.

use super::Interface;
use crate::text;
use crate::{Profile, ScsiReply};
use std::fmt;
use std::time::Duration;

/// The effect of a rule on a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The command waits this long, then it is executed.
    Delay(Duration),
    /// The command waits until the rule is lifted or the command is aborted.
    Hang,
    /// The command gets this answer, without effect.
    Fail(Failure),
    /// The command is executed, and in about half of all cases answered with nonsense.
    Nonsense,
    /// The command is executed without an answer; when the rule is lifted, it is reported as
    /// failed.
    LoseReply,
    /// No effect; the transport failed.
    Cut,
    /// No effect; there is no such drive on this path.
    Absent,
}

/// A failure as a drive reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The answer of a SCSI disk.
    Scsi(ScsiReply),
    /// The answer of an NVMe namespace: a status field without the phase tag.
    Nvme(u16),
}

impl Failure {
    /// Parses a status in hex and, for SCSI, sense data as KEY/ASC/ASCQ or KEY/ASC/ASCQ/FRU.
    pub fn parse(
        interface: Interface,
        profile: &Profile,
        status: &str,
        sense: Option<&str>,
    ) -> Result<Failure, String> {
        match (interface, sense) {
            (Interface::Scsi, sense) => text::failure(profile, status, sense).map(Failure::Scsi),
            (Interface::Nvme, None) => text::status_field(status).map(Failure::Nvme),
            (Interface::Nvme, Some(_)) => Err("NVMe drives have no sense data".to_owned()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Scsi(reply) => write!(f, "SCSI status {:02x}", reply.status),
            Failure::Nvme(status) => write!(f, "NVMe status {status:x}"),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Delay(by) => write!(f, "delay {} ms", by.as_millis()),
            Effect::Hang => f.write_str("hang"),
            Effect::Fail(failure) => write!(f, "fail with {failure}"),
            Effect::Nonsense => f.write_str("answer nonsense"),
            Effect::LoseReply => f.write_str("lose the reply"),
            Effect::Cut => f.write_str("cut"),
            Effect::Absent => f.write_str("absent"),
        }
    }
}

/// The kind of a command, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandKind {
    /// A mutex command.
    Mutex(&'static str),
    /// Any other command.
    Disk(&'static str),
}

/// The commands that a rule applies to. `*` means all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// A drive's name.
    pub drive: String,
    /// A port's name, or a host's: the part of its ports' names before the dot.
    pub port: String,
    /// A kind of mutex command, or `mutex` for all of these; `read`, `write`, `reserve` or
    /// `other`, or `disk` for all of these.
    pub kind: String,
}

impl Scope {
    /// Whether it includes commands for disk data.
    pub fn may_be_disk(&self) -> bool {
        ["*", "disk", "read", "write", "reserve", "other"].contains(&self.kind.as_str())
    }

    fn fits(&self, drive: &str, port: &str, command: CommandKind) -> bool {
        let host = port.split_once('.').map_or(port, |(host, _)| host);
        let is = |pattern: &str, name: &str| pattern == "*" || pattern == name;
        let (class, word) = match command {
            CommandKind::Mutex(word) => ("mutex", word),
            CommandKind::Disk(word) => ("disk", word),
        };
        is(&self.drive, drive)
            && (is(&self.port, port) || self.port == host)
            && (is(&self.kind, class) || self.kind == word)
    }
}

/// The identifier of a rule, never used again.
pub type RuleId = u64;

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The rule's identifier.
    pub id: RuleId,
    /// The commands that it applies to.
    pub scope: Scope,
    /// Its effect.
    pub effect: Effect,
    /// The number of commands that it still applies to; `None` means until it is lifted.
    pub left: Option<u64>,
}

/// The rules in force. The newest that matches applies.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    last: RuleId,
}

impl Rules {
    /// Adds a rule.
    pub fn add(&mut self, scope: Scope, effect: Effect, left: Option<u64>) -> RuleId {
        self.last += 1;
        self.rules.push(Rule { id: self.last, scope, effect, left });
        self.last
    }

    /// Lifts the rules with exactly this scope. Returns their number.
    pub fn lift(&mut self, scope: &Scope) -> usize {
        let before = self.rules.len();
        self.rules.retain(|rule| rule.scope != *scope);
        before - self.rules.len()
    }

    /// Lifts all rules.
    pub fn lift_all(&mut self) {
        self.rules.clear();
    }

    /// Whether a rule is in force or was used up, rather than lifted.
    pub fn stands(&self, id: RuleId) -> bool {
        self.rules.iter().any(|rule| rule.id == id)
    }

    /// The effect on a command; takes one from the rule's count. A used-up rule stays, so that the
    /// commands that it holds wait until it is lifted.
    pub fn take(
        &mut self,
        drive: &str,
        port: &str,
        command: CommandKind,
    ) -> Option<(RuleId, Effect)> {
        let rule = self
            .rules
            .iter_mut()
            .rev()
            .find(|rule| rule.left != Some(0) && rule.scope.fits(drive, port, command))?;
        if let Some(left) = &mut rule.left {
            *left -= 1;
        }
        Some((rule.id, rule.effect.clone()))
    }

    /// Whether a rule for all kinds of command takes the whole drive away from a port.
    pub fn is_absent(&self, drive: &str, port: &str) -> bool {
        let rule = self.rules.iter().rev().find(|rule| {
            rule.left != Some(0)
                && rule.scope.kind == "*"
                && rule.scope.fits(drive, port, CommandKind::Disk("other"))
        });
        rule.is_some_and(|rule| rule.effect == Effect::Absent)
    }

    /// One line per rule.
    pub fn text(&self) -> String {
        let line = |rule: &Rule| {
            let Scope { drive, port, kind } = &rule.scope;
            let left = rule.left.map_or(String::new(), |left| format!(", {left} left"));
            format!("{drive} {port} {kind}: {}{left}\n", rule.effect)
        };
        self.rules.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(drive: &str, port: &str, kind: &str) -> Scope {
        Scope { drive: drive.into(), port: port.into(), kind: kind.into() }
    }

    #[test]
    fn a_rule_is_for_its_drive_host_and_kind_only() {
        let mut rules = Rules::default();
        rules.add(scope("d1", "a", "trylock"), Effect::Hang, None);
        assert!(rules.take("d1", "a", CommandKind::Mutex("trylock")).is_some());
        assert!(rules.take("d1", "a.1", CommandKind::Mutex("trylock")).is_some());
        assert!(rules.take("d2", "a", CommandKind::Mutex("trylock")).is_none());
        assert!(rules.take("d1", "ab", CommandKind::Mutex("trylock")).is_none());
        assert!(rules.take("d1", "a", CommandKind::Mutex("refresh")).is_none());
        assert!(rules.take("d1", "a", CommandKind::Disk("read")).is_none());
    }

    #[test]
    fn classes_of_commands() {
        let mut rules = Rules::default();
        rules.add(scope("*", "*", "mutex"), Effect::Cut, None);
        assert!(rules.take("d", "a", CommandKind::Mutex("break")).is_some());
        assert!(rules.take("d", "a", CommandKind::Disk("write")).is_none());
        rules.lift_all();
        rules.add(scope("*", "a.1", "*"), Effect::Cut, None);
        assert!(rules.take("d", "a.1", CommandKind::Disk("write")).is_some());
        assert!(rules.take("d", "a.0", CommandKind::Disk("write")).is_none());
    }

    #[test]
    fn a_count_ends_and_the_last_rule_counts() {
        let mut rules = Rules::default();
        rules.add(scope("*", "*", "*"), Effect::Cut, None);
        let id = rules.add(scope("d", "*", "*"), Effect::Hang, Some(1));
        assert_eq!(
            rules.take("d", "a", CommandKind::Mutex("read-table")),
            Some((id, Effect::Hang))
        );
        assert_eq!(rules.take("d", "a", CommandKind::Mutex("read-table")).unwrap().1, Effect::Cut);
        assert!(rules.stands(id));
        assert_eq!(rules.lift(&scope("d", "*", "*")), 1);
        assert!(!rules.stands(id));
    }
}
