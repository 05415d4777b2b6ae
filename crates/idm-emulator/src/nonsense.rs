//! Nonsense in the answers of a drive.
//!
//! The drive executes its commands, and answers with anything but the truth: random bytes,
//! impossible lengths and counts, statuses that do not belong there or do not exist. It never lies
//! in a way that no host can notice: it does not say GOOD if that is wrong, and data that comes
//! with GOOD is no table.

use crate::ScsiReply;
use fastrand::Rng;
use idm_protocol::scsi::{self, status};
use idm_protocol::{RECORD_LEN, Status};

/// A source of nonsense.
#[derive(Debug)]
pub struct Nonsense(Rng);

/// SCSI statuses that are not GOOD: those that exist, and two that do not.
const STATUSES: [u8; 10] = [
    status::CHECK_CONDITION,
    status::CONDITION_MET,
    status::BUSY,
    0x10,
    status::RESERVATION_CONFLICT,
    status::COMMAND_TERMINATED,
    status::TASK_SET_FULL,
    0x30,
    0x77,
    0xFF,
];

impl Default for Nonsense {
    fn default() -> Nonsense {
        Nonsense::new(0)
    }
}

impl Nonsense {
    /// A source that gives the same nonsense for the same seed.
    pub fn new(seed: u64) -> Nonsense {
        Nonsense(Rng::with_seed(seed))
    }

    /// Whether an answer stays as it is; about half of the answers do not.
    fn spares(&mut self) -> bool {
        self.0.bool()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.fill(&mut bytes);
        bytes
    }

    /// Replaces data of a drive by data of another length, or by random data.
    fn spoil_data(&mut self, data: &mut Vec<u8>) {
        match self.0.u8(0..4) {
            0 => data.clear(),
            // Not a whole number of records.
            1 => data.truncate(self.0.usize(0..data.len()) / RECORD_LEN * RECORD_LEN + 1),
            2 => *data = self.bytes(data.len()),
            // Every record has a state that does not exist, and the counter is too great.
            _ => data.fill(0xA5),
        }
    }

    /// Spoils the answer of a SCSI disk to a mutex command.
    pub fn spoil_scsi(&mut self, reply: &mut ScsiReply) {
        if self.spares() {
            return;
        }
        if reply.status == status::GOOD && !reply.data.is_empty() && self.0.bool() {
            return self.spoil_data(&mut reply.data);
        }
        let status = STATUSES[self.0.usize(0..STATUSES.len())];
        let len = self.0.usize(0..40);
        *reply = ScsiReply { status, sense: self.bytes(len), data: Vec::new() };
        if status == status::CHECK_CONDITION && self.0.bool() {
            // In a drive's form, but with a wrong content.
            reply.sense.resize(18, 0);
            reply.sense[0] = *self.0.choice(&[0x70, 0x72]).unwrap_or(&0x70);
        }
        if scsi::decode_status(reply.status, &reply.sense) == Status::Good {
            // RECOVERED ERROR, which means that the command was done.
            reply.status = status::TASK_ABORTED;
        }
    }

    /// Spoils the answer of an NVMe drive to a mutex command. A transfer over NVMe has the length
    /// that the host requested, so only its content can be wrong.
    pub fn spoil_nvme(&mut self, status: &mut u16, data: &mut [u8]) {
        if self.spares() {
            return;
        }
        if *status == 0 && !data.is_empty() && self.0.bool() {
            return self.0.fill(data);
        }
        // Code and type, and above them hints about retries. Zero would be success.
        *status = self.0.u16(1..1 << 11) | self.0.u16(0..1 << 4) << 11;
        data.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use idm_protocol::{Record, nvme};

    #[test]
    fn nonsense_never_says_good_where_it_is_not_so_nor_shows_a_table() {
        let mut nonsense = Nonsense::new(1);
        let table: Vec<u8> = Record::end_of_table().encode().repeat(4);
        let (mut kept, mut spoilt) = (0, 0);
        for _ in 0..10_000 {
            let mut refused =
                ScsiReply { status: status::RESERVATION_CONFLICT, ..Default::default() };
            nonsense.spoil_scsi(&mut refused);
            assert_ne!(scsi::decode_status(refused.status, &refused.sense), Status::Good);
            let mut read = ScsiReply { data: table.clone(), ..Default::default() };
            nonsense.spoil_scsi(&mut read);
            if read.status != status::GOOD {
                continue;
            }
            if read.data == table {
                kept += 1;
                continue;
            }
            spoilt += 1;
            let whole = !read.data.is_empty() && read.data.len() % RECORD_LEN == 0;
            let states = read.data.chunks_exact(RECORD_LEN).map(|block| &block[..8]);
            let unknown = states.into_iter().all(|state| state[..6] != [0; 6]);
            assert!(!whole || unknown, "{:?}", &read.data[..16]);
        }
        assert!(kept > 1000 && spoilt > 1000, "{kept} {spoilt}");
    }

    #[test]
    fn nvme_is_spoilt_within_its_length() {
        let mut nonsense = Nonsense::new(1);
        let mut statuses = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let (mut status, mut data) = (0x1C5, [7; 64]);
            nonsense.spoil_nvme(&mut status, &mut data);
            assert_ne!(nvme::decode_status(None, status), Status::Good);
            statuses.insert(status);
        }
        assert!(statuses.len() > 100);
    }
}
