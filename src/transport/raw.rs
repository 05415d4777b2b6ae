//! A path to a drive that returns the drive's answers without interpretation.

use super::drive::{CommandError, Completion, Data, Protocol, Request};
use super::nvme::Nvme;
use super::scsi::{Port, cdb};
use super::scsi_node::ScsiNode;
use super::{Deadline, RawStatus, ReserveAnswer, ReserveOrder, TransportError, scsi_reserve};
use crate::topology::{PathAddress, Topology};
use idm_protocol::scsi::{self, Sense};
use idm_protocol::{RECORD_LEN, Status};
use std::sync::Arc;

/// A drive's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawAnswer {
    /// The meaning of the status.
    pub status: Status,
    /// The status in the drive's own protocol; `None` if the drive got no command, because it has
    /// no IDM.
    pub raw: Option<RawStatus>,
    /// Sense data of a SCSI drive; empty where there is none.
    pub sense: Vec<u8>,
    /// Bytes of data that were transferred.
    pub transferred: usize,
}

/// One path to one drive.
pub struct RawPath(Kind);

enum Kind {
    Scsi(Box<dyn Port>),
    Nvme(Box<Nvme>),
    #[cfg(not(feature = "emulator"))]
    None,
}

impl RawPath {
    /// The drive with that identity. Nothing is opened before the first command.
    pub fn new(identity: &str, address: &PathAddress, topology: &Arc<Topology>) -> RawPath {
        let (identity, topology) = (identity.to_owned(), topology.clone());
        RawPath(match address {
            PathAddress::Scsi(node) => {
                Kind::Scsi(Box::new(ScsiNode::new(node.clone(), identity, topology)))
            }
            PathAddress::Nvme(node) => {
                Kind::Nvme(Box::new(Nvme::new(node.clone(), identity, topology)))
            }
            #[cfg(feature = "emulator")]
            PathAddress::Emulated(socket) => {
                Kind::Scsi(Box::new(super::emulated::Socket::new(socket)))
            }
            #[cfg(not(feature = "emulator"))]
            PathAddress::Emulated(_) => Kind::None,
        })
    }

    /// The drive's major IDM version; `None` where it has no IDM.
    pub fn version(&self, deadline: &Deadline) -> Result<Option<u8>, CommandError> {
        match &self.0 {
            Kind::Scsi(port) => scsi_version(&**port, deadline),
            Kind::Nvme(nvme) => Ok(nvme.version(deadline)?.map(|version| version.major)),
            #[cfg(not(feature = "emulator"))]
            Kind::None => Err(no_path()),
        }
    }

    /// Sends one command.
    pub fn execute(
        &self,
        request: Request,
        data: Data<'_>,
        deadline: &Deadline,
    ) -> Result<RawAnswer, CommandError> {
        match &self.0 {
            Kind::Scsi(port) => {
                let answer = port.execute(&cdb(request, &data), data, deadline)?;
                Ok(RawAnswer {
                    status: scsi::decode_status(answer.status, &answer.sense),
                    raw: Some(RawStatus::Scsi(answer.status, Sense::decode(&answer.sense))),
                    sense: answer.sense,
                    transferred: answer.transferred,
                })
            }
            Kind::Nvme(nvme) => {
                let answer = nvme.execute(request, data, deadline)?;
                let Completion { status, raw, transferred } = answer;
                Ok(RawAnswer { status, raw, sense: Vec::new(), transferred })
            }
            #[cfg(not(feature = "emulator"))]
            Kind::None => Err(no_path()),
        }
    }

    /// Carries out an order about reservations.
    pub fn reserve(
        &self,
        order: &ReserveOrder,
        deadline: &Deadline,
    ) -> Result<ReserveAnswer, CommandError> {
        match &self.0 {
            Kind::Scsi(port) => scsi_reserve::carry_out(&**port, order, deadline),
            Kind::Nvme(nvme) => nvme.reserve(order, deadline),
            #[cfg(not(feature = "emulator"))]
            Kind::None => Err(no_path()),
        }
    }
}

#[cfg(not(feature = "emulator"))]
fn no_path() -> CommandError {
    TransportError::NotSent("this build cannot reach emulated drives".to_owned()).into()
}

/// Asks for the page with the version. UNIT ATTENTION comes in its place once.
fn scsi_version(port: &dyn Port, deadline: &Deadline) -> Result<Option<u8>, CommandError> {
    let mut page = [0; RECORD_LEN];
    for _ in 0..2 {
        let data = Data::In(&mut page[..scsi::VERSION_PAGE_LEN]);
        let answer = port.execute(&scsi::inquire_version(), data, deadline)?;
        match scsi::decode_status(answer.status, &answer.sense) {
            Status::Good => return Ok(scsi::version(&page[..answer.transferred.min(page.len())])),
            Status::TryAgain => {}
            // The drive has no such page. No other answer means that it has no IDM.
            _ if Sense::decode(&answer.sense).is_some_and(|it| it.key == ILLEGAL_REQUEST) => {
                return Ok(None);
            }
            status => return Err(not_told(&format!("{status:?}"))),
        }
    }
    Err(not_told("the drive puts INQUIRY off"))
}

/// The sense key of a drive that does not know the command or the page.
const ILLEGAL_REQUEST: u8 = 0x05;

fn not_told(why: &str) -> CommandError {
    let why = format!("the drive does not say whether it has IDM: {why}");
    TransportError::NotSent(why).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::scsi::ScsiCompletion;
    use crate::transport::soon;
    use idm_protocol::scsi::Cdb;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    /// A drive that gives these answers to INQUIRY, the last one for ever.
    struct Fake(Mutex<Vec<(u8, Vec<u8>)>>);

    impl Port for Fake {
        fn execute(
            &self,
            cdb: &Cdb,
            data: Data<'_>,
            _: &Deadline,
        ) -> Result<ScsiCompletion, CommandError> {
            assert_eq!(*cdb, scsi::inquire_version());
            let mut answers = self.0.lock().unwrap();
            let (status, sense) =
                if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
            if let (0, Data::In(room)) = (status, data) {
                room[1] = scsi::VERSION_PAGE;
                room[scsi::VERSION_MAJOR] = 8;
            }
            let transferred = if status == 0 { scsi::VERSION_PAGE_LEN } else { 0 };
            Ok(ScsiCompletion { status, sense, transferred })
        }
    }

    #[test]
    fn a_drive_without_the_page_has_no_idm_and_unit_attention_is_no_answer() {
        let no_page = vec![0x70, 0, 5, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0x24, 0];
        let attention = vec![0x70, 0, 6, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0x29, 0];
        let ask = |answers| scsi_version(&Fake(Mutex::new(answers)), &soon());
        assert_eq!(ask(vec![(0, Vec::new())]), Ok(Some(8)));
        assert_eq!(ask(vec![(2, no_page)]), Ok(None));
        assert_eq!(ask(vec![(2, attention.clone()), (0, Vec::new())]), Ok(Some(8)));
        assert!(ask(vec![(2, attention)]).is_err());
        let broken = vec![0x70, 0, 4, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0x44, 0];
        assert!(ask(vec![(2, broken)]).is_err(), "a hardware error is no answer");
    }

    #[test]
    fn a_node_that_is_not_there_is_an_error_and_no_drive_without_idm() {
        let topology = Arc::new(Topology::new(BTreeMap::new()));
        for address in [
            PathAddress::Scsi("/dev/nonexistent-sd".into()),
            PathAddress::Nvme("/dev/nonexistent-nvme".into()),
            PathAddress::Emulated("/nonexistent.sock".into()),
        ] {
            let path = RawPath::new("naa.5", &address, &topology);
            assert!(path.version(&soon()).is_err(), "{address}");
            let mut room = [0; RECORD_LEN];
            assert!(path.execute(Request::Table, Data::In(&mut room), &soon()).is_err());
        }
    }
}
