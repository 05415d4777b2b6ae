//! A bound on the rate of messages: a drive that fails and returns again and again must not flood
//! the log.

use core::time::Duration;
use idm_engine::Instant;

/// The number of messages that may come at once.
const BURST: u32 = 8;
/// The mean interval of further messages.
const INTERVAL: Duration = Duration::from_secs(10);

/// Messages about one thing. The last one is never dropped, only delayed, because it has the
/// current state.
#[derive(Debug)]
pub(crate) struct Rate {
    /// Messages that may come now.
    credit: u32,
    /// Time of the last change of the credit, while it is not full.
    since: Instant,
    held: Option<String>,
    left_out: u64,
}

impl Rate {
    /// No message yet.
    pub(crate) fn new() -> Rate {
        Rate { credit: BURST, since: Instant::default(), held: None, left_out: 0 }
    }

    /// The message to be given now in return for a new one, if there may be one.
    pub(crate) fn admit(&mut self, text: String, now: Instant) -> Option<String> {
        if self.held.replace(text).is_some() {
            self.left_out += 1;
        }
        self.due(now)
    }

    /// The delayed message, if there may be one now.
    pub(crate) fn due(&mut self, now: Instant) -> Option<String> {
        self.held.as_ref()?;
        self.spend(now).then(|| self.last_word()).flatten()
    }

    /// Whether there may be a message now; it then counts as given.
    pub(crate) fn spend(&mut self, now: Instant) -> bool {
        self.refill(now);
        let left = self.credit.checked_sub(1);
        self.credit = left.unwrap_or(0);
        left.is_some()
    }

    /// The delayed message, even before it is due.
    pub(crate) fn last_word(&mut self) -> Option<String> {
        let text = self.held.take()?;
        Some(match core::mem::take(&mut self.left_out) {
            0 => text,
            1 => format!("{text} (1 message before it was left out)"),
            count => format!("{text} ({count} messages before it were left out)"),
        })
    }

    fn refill(&mut self, now: Instant) {
        if self.credit == BURST {
            self.since = now;
        }
        while self.credit < BURST && now.since(self.since) >= INTERVAL {
            self.credit += 1;
            self.since = self.since + INTERVAL;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(3_600_000_000 + ms * 1000)
    }

    #[test]
    fn a_flood_is_bounded_and_its_last_message_comes() {
        let mut rate = Rate::new();
        let mut given = Vec::new();
        for number in 0..400 {
            given.extend(rate.admit(number.to_string(), at(number * 100)));
        }
        let (burst, later) = given.split_at(BURST as usize);
        assert_eq!(burst, ["0", "1", "2", "3", "4", "5", "6", "7"]);
        assert_eq!(later.len(), 3, "{later:?}");
        assert!(later.iter().all(|text| text.contains("left out")), "{later:?}");
        assert_eq!(rate.due(at(39_990)), None);
        let last = rate.due(at(60_000)).unwrap();
        assert!(last.starts_with("399 ("), "{last}");
        assert_eq!(rate.due(at(90_000)), None, "nothing is left");
    }

    #[test]
    fn rare_messages_come_at_once_and_unchanged() {
        let mut rate = Rate::new();
        for number in 0..100 {
            let text = number.to_string();
            assert_eq!(rate.admit(text.clone(), at(number * 10_000)), Some(text));
        }
    }

    #[test]
    fn what_is_delayed_can_be_had_at_the_end() {
        let mut rate = Rate::new();
        assert_eq!(rate.last_word(), None);
        for number in 0..10 {
            rate.admit(number.to_string(), at(0));
        }
        assert_eq!(rate.last_word().unwrap(), "9 (1 message before it was left out)");
    }
}
