//! IDM commands as SCSI commands, independent of the carrier.

use super::Deadline;
use super::drive::{self, CommandError, Data, Protocol, Request};
use idm_protocol::{RECORD_LEN, scsi};

/// Carries SCSI commands to one drive.
pub trait Port: Send + Sync {
    /// Runs one command. Data from the drive goes to the front of an `In` buffer; the rest of the
    /// buffer is unchanged.
    fn execute(
        &self,
        cdb: &scsi::Cdb,
        data: Data<'_>,
        deadline: &Deadline,
    ) -> Result<ScsiCompletion, CommandError>;
}

/// The answer of a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScsiCompletion {
    /// SCSI status.
    pub status: u8,
    /// Sense data; empty where there is none.
    pub sense: Vec<u8>,
    /// Bytes of data that were transferred.
    pub transferred: usize,
}

/// A drive that speaks SCSI, behind a port.
pub struct Scsi<P>(pub P);

impl<P: Port> Protocol for Scsi<P> {
    fn execute(
        &self,
        request: Request,
        data: Data<'_>,
        deadline: &Deadline,
    ) -> Result<drive::Completion, CommandError> {
        let cdb = match (request, &data) {
            (Request::Mutex(op), _) => scsi::mutex(op),
            (Request::Table, Data::In(room)) => {
                scsi::read_table(u32::try_from(room.len() / RECORD_LEN).unwrap_or(u32::MAX))
            }
            (Request::Table, Data::Out(_)) => scsi::read_table(0),
            (Request::Counters, _) => scsi::inquire_table(),
        };
        let answer = self.0.execute(&cdb, data, deadline)?;
        let status = scsi::decode_status(answer.status, &answer.sense);
        Ok(drive::Completion { status, transferred: answer.transferred })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{TransportError, soon};
    use idm_protocol::{MutexOp, Status};
    use std::sync::Mutex;

    struct Fake {
        answer: Result<ScsiCompletion, CommandError>,
        sent: Mutex<Vec<scsi::Cdb>>,
    }

    impl Port for Fake {
        fn execute(
            &self,
            cdb: &scsi::Cdb,
            _: Data<'_>,
            _: &Deadline,
        ) -> Result<ScsiCompletion, CommandError> {
            self.sent.lock().unwrap().push(*cdb);
            self.answer.clone()
        }
    }

    fn fake(answer: Result<ScsiCompletion, CommandError>) -> Scsi<Fake> {
        Scsi(Fake { answer, sent: Mutex::default() })
    }

    #[test]
    fn requests_are_cdbs() {
        let drive = fake(Ok(ScsiCompletion { status: 0, sense: Vec::new(), transferred: 7 }));
        let mut room = [0; 3 * RECORD_LEN];
        let answer =
            drive.execute(Request::Mutex(MutexOp::Break), Data::Out(&room), &soon()).unwrap();
        assert_eq!(answer, drive::Completion { status: Status::Good, transferred: 7 });
        drive.execute(Request::Table, Data::In(&mut room), &soon()).unwrap();
        drive.execute(Request::Counters, Data::In(&mut room), &soon()).unwrap();
        assert_eq!(
            *drive.0.sent.lock().unwrap(),
            [scsi::mutex(MutexOp::Break), scsi::read_table(3), scsi::inquire_table()]
        );
    }

    #[test]
    fn statuses_are_decoded() {
        let run = |answer| fake(answer).execute(Request::Counters, Data::In(&mut []), &soon());
        let sense = vec![0x70, 0, 5, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0x20];
        for (status, sense, meaning) in [
            (0x18, Vec::new(), Status::Conflict),
            (0x22, Vec::new(), Status::Terminated),
            (0x02, sense, Status::Unsupported),
        ] {
            let answer = run(Ok(ScsiCompletion { status, sense, transferred: 0 }));
            assert_eq!(answer, Ok(drive::Completion { status: meaning, transferred: 0 }));
        }
        let gone = CommandError::Transport(TransportError::NotSent("gone".into()));
        for trouble in [gone, CommandError::TooLong("EINVAL".into())] {
            assert_eq!(run(Err(trouble.clone())), Err(trouble));
        }
    }
}
