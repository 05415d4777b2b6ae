//! The format on a drive's socket: one request, one answer, and so on. Either side may close the
//! connection at any time; an incomplete request is not executed.
//!
//! All numbers are big-endian. A request is
//!
//! | bytes | content |
//! |---|---|
//! | 4 | length of the rest |
//! | 1 | length of the CDB, 1 to 32 |
//! | 4 | room for the answer's data, in bytes |
//! | 1 | length of the port's name |
//! | … | name of the port that the command comes by, UTF-8 |
//! | … | CDB |
//! | rest | data for the drive |
//!
//! and an answer is
//!
//! | bytes | content |
//! |---|---|
//! | 4 | length of the rest |
//! | 1 | SCSI status |
//! | 1 | length of the sense data |
//! | … | sense data |
//! | rest | data from the drive, no more than there is room for |

use crate::ScsiReply;
use std::io::{self, Read, Write};

/// The longest CDB in bytes (SPC-4 has longer ones; no drive needs them here).
pub const MAX_CDB_LEN: usize = 32;
/// The most data in either direction, in bytes: the most that Linux moves with one SG_IO.
pub const MAX_DATA_LEN: usize = 4 << 20;

const REQUEST_HEADER_LEN: usize = 6;
const ANSWER_HEADER_LEN: usize = 2;
const MAX_FRAME_LEN: usize = MAX_DATA_LEN + 512;

/// A command on its way to a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub port: String,
    pub cdb: Vec<u8>,
    pub data_out: Vec<u8>,
    pub data_in_len: usize,
}

impl Request {
    /// The request as a frame; an error if a length is out of bounds.
    pub fn frame(
        port: &str,
        cdb: &[u8],
        data_out: &[u8],
        data_in_len: usize,
    ) -> io::Result<Vec<u8>> {
        check(cdb, data_out, data_in_len)?;
        let port_len = [u8::try_from(port.len()).map_err(|_| out_of_bounds())?];
        // No cast loses bits: the bounds are far below.
        let (cdb_len, room) = ([cdb.len() as u8], (data_in_len as u32).to_be_bytes());
        Ok(frame(&[&cdb_len, &room, &port_len, port.as_bytes(), cdb, data_out]))
    }

    /// Waits for a request; `None` if the other side closed the connection instead.
    pub fn read(stream: &mut impl Read) -> io::Result<Option<Request>> {
        let mut len = [0; 4];
        if stream.read(&mut len[..1])? == 0 {
            return Ok(None);
        }
        stream.read_exact(&mut len[1..])?;
        Request::parse(&read_body(stream, len)?).map(Some)
    }

    fn parse(body: &[u8]) -> io::Result<Request> {
        let (header, rest) =
            body.split_first_chunk::<REQUEST_HEADER_LEN>().ok_or_else(out_of_bounds)?;
        let [cdb_len, room @ .., port_len] = *header;
        let (port, rest) =
            rest.split_at_checked(usize::from(port_len)).ok_or_else(out_of_bounds)?;
        let port = String::from_utf8(port.to_vec()).map_err(|_| out_of_bounds())?;
        let (cdb, data_out) =
            rest.split_at_checked(usize::from(cdb_len)).ok_or_else(out_of_bounds)?;
        let data_in_len = u32::from_be_bytes(room) as usize;
        check(cdb, data_out, data_in_len)?;
        Ok(Request { port, cdb: cdb.to_vec(), data_out: data_out.to_vec(), data_in_len })
    }
}

fn check(cdb: &[u8], data_out: &[u8], data_in_len: usize) -> io::Result<()> {
    let cdb_fits = (1..=MAX_CDB_LEN).contains(&cdb.len());
    if !cdb_fits || data_out.len() > MAX_DATA_LEN || data_in_len > MAX_DATA_LEN {
        return Err(out_of_bounds());
    }
    Ok(())
}

/// Sends an answer; its data is cut to the room in the request.
pub(crate) fn write_answer(
    stream: &mut impl Write,
    reply: &ScsiReply,
    data_in_len: usize,
) -> io::Result<()> {
    let sense_len = u8::try_from(reply.sense.len()).map_err(|_| out_of_bounds())?;
    let data = &reply.data[..reply.data.len().min(data_in_len)];
    stream.write_all(&frame(&[&[reply.status, sense_len], &reply.sense, data]))
}

/// Waits for an answer.
pub(crate) fn read_answer(stream: &mut impl Read) -> io::Result<ScsiReply> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let body = read_body(stream, len)?;
    let (&[status, sense_len], rest) =
        body.split_first_chunk::<ANSWER_HEADER_LEN>().ok_or_else(out_of_bounds)?;
    let (sense, data) = rest.split_at_checked(usize::from(sense_len)).ok_or_else(out_of_bounds)?;
    Ok(ScsiReply { status, sense: sense.to_vec(), data: data.to_vec() })
}

/// The parts, preceded by their total length.
fn frame(parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut frame = Vec::with_capacity(4 + len);
    // Bodies are bounded far below 4 GiB.
    frame.extend((len as u32).to_be_bytes());
    parts.iter().for_each(|part| frame.extend(*part));
    frame
}

fn read_body(stream: &mut impl Read, len: [u8; 4]) -> io::Result<Vec<u8>> {
    let len = u32::from_be_bytes(len) as usize;
    if len > MAX_FRAME_LEN {
        return Err(out_of_bounds());
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn out_of_bounds() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a length is out of bounds")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn requests_arrive_as_they_were_sent(
            port in "\\PC{0,60}",
            cdb in prop::collection::vec(any::<u8>(), 1..=MAX_CDB_LEN),
            data_out in prop::collection::vec(any::<u8>(), 0..2000),
            data_in_len in 0..=MAX_DATA_LEN,
        ) {
            let frame = Request::frame(&port, &cdb, &data_out, data_in_len).unwrap();
            let request = Request::read(&mut &frame[..]).unwrap();
            prop_assert_eq!(request, Some(Request { port, cdb, data_out, data_in_len }));
        }

        #[test]
        fn answers_arrive_cut_to_the_room(
            status: u8,
            sense in prop::collection::vec(any::<u8>(), 0..=255),
            data in prop::collection::vec(any::<u8>(), 0..2000),
            room in 0..2000_usize,
        ) {
            let mut reply = ScsiReply { status, sense, data };
            let mut frame = Vec::new();
            write_answer(&mut frame, &reply, room).unwrap();
            reply.data.truncate(room);
            prop_assert_eq!(read_answer(&mut &frame[..]).unwrap(), reply);
        }

        #[test]
        fn nonsense_is_refused_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = Request::read(&mut &bytes[..]);
            let _ = read_answer(&mut &bytes[..]);
            let _ = Request::parse(&bytes);
        }
    }

    #[test]
    fn bounds_are_kept_on_both_sides() {
        assert!(Request::frame("", &[], &[], 0).is_err());
        assert!(Request::frame(&"p".repeat(256), &[0], &[], 0).is_err());
        assert!(Request::frame("", &[0; MAX_CDB_LEN + 1], &[], 0).is_err());
        assert!(Request::frame("", &[0], &[], MAX_DATA_LEN + 1).is_err());
        assert!(Request::frame("", &[0], &vec![0; MAX_DATA_LEN + 1], 0).is_err());
        // A frame that announces more than the limit is refused before it is read.
        assert!(Request::read(&mut &[0xFF, 0xFF, 0xFF, 0xFF][..]).is_err());
        // A frame that ends early is an error; no request at all is not.
        let frame = Request::frame("a.0", &[0; 6], &[1, 2, 3], 0).unwrap();
        assert!(Request::read(&mut &frame[..frame.len() - 1]).is_err());
        assert_eq!(Request::read(&mut &[][..]).unwrap(), None);
    }
}
