//! The SG_IO ioctl: the only place that passes memory of SCSI commands to the kernel.

use super::drive::Data;
use core::time::Duration;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct sg_io_hdr` from Linux' `scsi/sg.h`.
#[repr(C)]
struct Header {
    interface_id: libc::c_int,
    dxfer_direction: libc::c_int,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: *mut libc::c_void,
    cmdp: *const u8,
    sbp: *mut u8,
    timeout: u32,
    flags: u32,
    pack_id: libc::c_int,
    usr_ptr: *mut libc::c_void,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: libc::c_int,
    duration: u32,
    info: u32,
}

const SG_IO: libc::c_ulong = 0x2285;
const INTERFACE_ID: libc::c_int = 'S' as libc::c_int;
const DXFER_TO_DEV: libc::c_int = -2;
const DXFER_FROM_DEV: libc::c_int = -3;
/// SG_FLAG_Q_AT_TAIL. Without it the kernel sends waiting commands last come, first served, and an
/// UNLOCK could overtake the command that it undoes.
const Q_AT_TAIL: u32 = 0x10;
/// Bytes of sense data that the kernel keeps at most (SCSI_SENSE_BUFFERSIZE).
const SENSE_LEN: usize = 96;

nix::ioctl_readwrite_bad!(sg_io, SG_IO, Header);

/// The kernel's report on a command, unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SgCompletion {
    /// SCSI status; meaningful only where `host_status` and `driver_status` allow.
    pub status: u8,
    /// DID_* from the host adapter's driver.
    pub host_status: u16,
    /// DRIVER_* from the SCSI layer.
    pub driver_status: u16,
    /// The part of the sense data that was written.
    pub sense: Vec<u8>,
    /// Bytes that were requested and not transferred, as the driver reports.
    pub resid: i32,
    /// Bytes that were requested.
    pub asked: usize,
}

/// Runs one SCSI command. Blocks until it is finished, or until the kernel has aborted it after its
/// time-out.
pub fn run(
    fd: BorrowedFd<'_>,
    cdb: &[u8; 16],
    data: Data<'_>,
    timeout: Duration,
) -> Result<SgCompletion, nix::Error> {
    let mut sense = [0u8; SENSE_LEN];
    let (mut header, asked) = header(cdb, data, &mut sense, timeout)?;
    // SAFETY: `header` has the kernel's layout. Its pointers lead to `cdb`, `sense` and the data
    // buffer, which live until the call returns, with the lengths given beside them; the kernel
    // writes to the data buffer only for DXFER_FROM_DEV, where it came from a `&mut`. The call is
    // synchronous: the kernel does not touch the memory after the call has returned.
    unsafe { sg_io(fd.as_raw_fd(), &mut header) }?;
    Ok(SgCompletion {
        status: header.status,
        host_status: header.host_status,
        driver_status: header.driver_status,
        sense: sense[..usize::from(header.sb_len_wr).min(SENSE_LEN)].to_vec(),
        resid: header.resid,
        asked,
    })
}

/// Bytes of a command with this operation code (SPC-4, table "Operation code"). IDM's are
/// vendor-specific, and have 16.
fn length(opcode: u8) -> u8 {
    match opcode >> 5 {
        0 => 6,
        1 | 2 => 10,
        5 => 12,
        _ => 16,
    }
}

/// The header that describes a command to the kernel, and the number of bytes that are requested.
fn header(
    cdb: &[u8; 16],
    data: Data<'_>,
    sense: &mut [u8; SENSE_LEN],
    timeout: Duration,
) -> Result<(Header, usize), nix::Error> {
    let (direction, pointer, asked) = match data {
        // With this direction the kernel only reads from the buffer.
        Data::Out(bytes) => (DXFER_TO_DEV, bytes.as_ptr().cast_mut(), bytes.len()),
        Data::In(bytes) => (DXFER_FROM_DEV, bytes.as_mut_ptr(), bytes.len()),
    };
    let header = Header {
        interface_id: INTERFACE_ID,
        dxfer_direction: direction,
        cmd_len: length(cdb[0]),
        mx_sb_len: SENSE_LEN as u8,
        iovec_count: 0,
        dxfer_len: u32::try_from(asked).map_err(|_| nix::Error::EINVAL)?,
        dxferp: pointer.cast(),
        cmdp: cdb.as_ptr(),
        sbp: sense.as_mut_ptr(),
        // In ms. For 0 the kernel would use 30 or 60 s.
        timeout: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1),
        flags: Q_AT_TAIL,
        pack_id: 0,
        usr_ptr: core::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        msg_status: 0,
        sb_len_wr: 0,
        host_status: 0,
        driver_status: 0,
        resid: 0,
        duration: 0,
        info: 0,
    };
    Ok((header, asked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn the_header_is_laid_out_as_the_kernels() {
        // The size in scsi/sg.h on a 64-bit machine.
        assert_eq!(size_of::<Header>(), 88);
        assert_eq!(core::mem::offset_of!(Header, dxferp), 16);
        assert_eq!(core::mem::offset_of!(Header, timeout), 40);
        assert_eq!(core::mem::offset_of!(Header, usr_ptr), 56);
        assert_eq!(core::mem::offset_of!(Header, status), 64);
        assert_eq!(core::mem::offset_of!(Header, resid), 72);
    }

    #[test]
    fn commands_wait_for_their_turn_in_the_order_in_which_they_come() {
        let (cdb, mut sense) = (idm_protocol::scsi::read_table(1), [0; SENSE_LEN]);
        let (out, mut table) = ([0; 512], [0; 1024]);
        let timeout = Duration::from_millis(7000);
        for (data, direction, len) in
            [(Data::Out(&out), DXFER_TO_DEV, 512), (Data::In(&mut table), DXFER_FROM_DEV, 1024)]
        {
            let (header, asked) = header(&cdb, data, &mut sense, timeout).unwrap();
            // Only SG_FLAG_Q_AT_TAIL of scsi/sg.h: SG_FLAG_MMAP_IO or _DIRECT_IO would mean other
            // buffers.
            assert_eq!(header.flags, 0x10);
            assert_eq!((header.interface_id, header.dxfer_direction), (83, direction));
            assert_eq!((header.dxfer_len, asked, header.timeout), (len, len as usize, 7000));
            assert_eq!((header.cmd_len, header.mx_sb_len), (16, 96));
        }
        let inquiry = idm_protocol::scsi::inquire_identity();
        let (header, _) = header(&inquiry, Data::In(&mut table), &mut sense, timeout).unwrap();
        assert_eq!(header.cmd_len, 6, "an adapter may refuse other lengths");
    }

    #[test]
    fn what_is_no_scsi_device_is_refused_before_anything_is_sent() {
        let file = File::open("/dev/null").unwrap();
        let mut data = [0; 512];
        let cdb = idm_protocol::scsi::read_table(1);
        let result = run(file.as_fd(), &cdb, Data::In(&mut data), Duration::from_secs(1));
        assert_eq!(result.unwrap_err(), nix::Error::ENOTTY);
    }
}
