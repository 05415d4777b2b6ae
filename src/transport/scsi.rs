//! IDM commands as SCSI commands, independent of the carrier.

use super::drive::{self, CommandError, Data, Protocol, Request};
pub use super::port::{Port, ScsiCompletion};
use super::{Deadline, RawStatus, ReserveAnswer, ReserveOrder, scsi_reserve};
use idm_protocol::{RECORD_LEN, scsi};

/// A drive that speaks SCSI, behind a port.
pub struct Scsi<P>(pub P);

/// The request as a CDB.
pub(super) fn cdb(request: Request, data: &Data<'_>) -> scsi::Cdb {
    match (request, data) {
        (Request::Mutex(op), _) => scsi::mutex(op),
        (Request::Table, Data::In(room)) => {
            scsi::read_table(u32::try_from(room.len() / RECORD_LEN).unwrap_or(u32::MAX))
        }
        (Request::Table, Data::Out(_)) => scsi::read_table(0),
        (Request::Counters, _) => scsi::inquire_table(),
    }
}

impl<P: Port> Protocol for Scsi<P> {
    fn execute(
        &self,
        request: Request,
        data: Data<'_>,
        deadline: &Deadline,
    ) -> Result<drive::Completion, CommandError> {
        let answer = self.0.execute(&cdb(request, &data), data, deadline)?;
        let status = scsi::decode_status(answer.status, &answer.sense);
        let raw = RawStatus::Scsi(answer.status, scsi::Sense::decode(&answer.sense));
        Ok(drive::Completion { status, raw: Some(raw), transferred: answer.transferred })
    }

    fn reserve(
        &self,
        order: &ReserveOrder,
        deadline: &Deadline,
    ) -> Result<ReserveAnswer, CommandError> {
        scsi_reserve::carry_out(&self.0, order, deadline)
    }

    fn doubt(&self) {
        self.0.doubt();
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
        assert_eq!((answer.status, answer.transferred), (Status::Good, 7));
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
            let raw = Some(RawStatus::Scsi(status, scsi::Sense::decode(&sense)));
            let answer = run(Ok(ScsiCompletion { status, sense, transferred: 0 }));
            assert_eq!(answer, Ok(drive::Completion { status: meaning, raw, transferred: 0 }));
        }
        let gone = CommandError::Transport(TransportError::NotSent("gone".into()));
        for trouble in [gone, CommandError::TooLong("EINVAL".into())] {
            assert_eq!(run(Err(trouble.clone())), Err(trouble));
        }
    }
}
