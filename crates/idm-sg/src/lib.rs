//! SG_IO on emulated drives, for programs that know real drives only: `LD_PRELOAD`.
//!
//! The library as it is installed reaches drives by SG_IO alone. In a program with this preloaded,
//! a device whose directory in sysfs has a link `device/emulator` is the emulated drive behind the
//! socket that the link names; [`idm_emulator::sysfs`] makes such directories. All other devices,
//! and all other ioctls, are the kernel's.

use core::ffi::{c_int, c_ulong, c_void};
use idm_emulator::client::{Client, Error};
use idm_emulator::sysfs::EMULATOR;
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `struct sg_io_hdr` from Linux' `scsi/sg.h`.
#[repr(C)]
struct Header {
    interface_id: c_int,
    dxfer_direction: c_int,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: *mut u8,
    cmdp: *const u8,
    sbp: *mut u8,
    /// In ms.
    timeout: u32,
    flags: u32,
    pack_id: c_int,
    usr_ptr: *mut c_void,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: c_int,
    duration: u32,
    info: u32,
}

const SG_IO: c_ulong = 0x2285;
const DXFER_TO_DEV: c_int = -2;
const DXFER_FROM_DEV: c_int = -3;
/// Host byte DID_TIME_OUT from Linux' `scsi/scsi_status.h`.
const TIME_OUT: u16 = 0x03;
/// DRIVER_SENSE, which sg sets beside sense data.
const DRIVER_SENSE: u16 = 0x08;

/// `ioctl` in place of the C library's. Its third argument is variadic there, which makes no
/// difference to the caller on 64-bit Linux.
///
/// # Safety
///
/// As for the kernel: `argument` is what `request` demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    if request == SG_IO {
        if let Some(socket) = emulated(fd) {
            // SAFETY: SG_IO demands such a header, with buffers of the lengths that it names.
            let result = unsafe { run(&socket, &mut *argument.cast::<Header>()) };
            return result.map_or_else(
                |errno| {
                    Errno::set(errno);
                    -1
                },
                |()| 0,
            );
        }
    }
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) as c_int }
}

/// The socket of the emulated drive that an open device stands for.
fn emulated(fd: c_int) -> Option<PathBuf> {
    if fd < 0 {
        return None;
    }
    // SAFETY: it is borrowed for the call only, and one that is not open is an error there.
    let found = fstat(unsafe { BorrowedFd::borrow_raw(fd) }).ok()?;
    let kind = match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFCHR => "char",
        SFlag::S_IFBLK => "block",
        _ => return None,
    };
    let (major, minor) = (libc::major(found.st_rdev), libc::minor(found.st_rdev));
    std::fs::read_link(format!("/sys/dev/{kind}/{major}:{minor}/device/{EMULATOR}")).ok()
}

/// Runs the command of a header on an emulated drive. The errors are those of sg for a drive that
/// is off.
///
/// # Safety
///
/// The pointers of the header lead to buffers of the lengths beside them.
unsafe fn run(socket: &Path, header: &mut Header) -> Result<(), Errno> {
    let asked = header.dxfer_len as usize;
    // SAFETY: the caller's promise.
    let cdb = unsafe { core::slice::from_raw_parts(header.cmdp, header.cmd_len.into()) };
    let out = match header.dxfer_direction {
        // SAFETY: the caller's promise.
        DXFER_TO_DEV => unsafe { core::slice::from_raw_parts(header.dxferp.cast_const(), asked) },
        DXFER_FROM_DEV => &[],
        _ => return Err(Errno::EINVAL),
    };
    let room = if header.dxfer_direction == DXFER_FROM_DEV { asked } else { 0 };
    let timeout = Duration::from_millis(header.timeout.into());
    // The client may take an eighth longer than its time-out.
    let answer = Client::connect(socket)
        .map_err(Error::NotSent)
        .and_then(|mut drive| drive.execute(cdb, out, room, timeout - timeout / 8));
    let reply = match answer {
        Ok(reply) => reply,
        Err(Error::NotSent(_)) => return Err(Errno::ENXIO),
        Err(Error::FateUnknown(_)) => {
            header.host_status = TIME_OUT;
            header.resid = c_int::try_from(asked).map_err(|_| Errno::EINVAL)?;
            return Ok(());
        }
    };
    let sense = &reply.sense[..reply.sense.len().min(header.mx_sb_len.into())];
    let data = &reply.data[..reply.data.len().min(room)];
    // SAFETY: neither is longer than its buffer, by the caller's promise; buffers of the caller and
    // of the answer are not the same memory.
    unsafe {
        core::ptr::copy_nonoverlapping(sense.as_ptr(), header.sbp, sense.len());
        core::ptr::copy_nonoverlapping(data.as_ptr(), header.dxferp, data.len());
    }
    header.status = reply.status;
    header.sb_len_wr = sense.len() as u8;
    header.host_status = 0;
    header.driver_status = if sense.is_empty() { 0 } else { DRIVER_SENSE };
    // With data for the drive everything was moved.
    let rest = if room == 0 { 0 } else { room - data.len() };
    header.resid = c_int::try_from(rest).map_err(|_| Errno::EINVAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use idm_emulator::server::{DriveSpec, Server};
    use std::fs::File;
    use std::os::fd::AsRawFd;

    /// Runs a command with room for so many bytes. Returns the header, the data and the sense data.
    fn command(
        socket: &Path,
        cdb: &[u8],
        room: usize,
    ) -> (Result<(), Errno>, Header, Vec<u8>, Vec<u8>) {
        let (mut data, mut sense) = (vec![0xEE; room], vec![0xEE; 96]);
        let mut header = Header {
            interface_id: 'S' as c_int,
            dxfer_direction: DXFER_FROM_DEV,
            cmd_len: cdb.len() as u8,
            mx_sb_len: 96,
            iovec_count: 0,
            dxfer_len: room as u32,
            dxferp: data.as_mut_ptr(),
            cmdp: cdb.as_ptr(),
            sbp: sense.as_mut_ptr(),
            timeout: 800,
            flags: 0,
            pack_id: 0,
            usr_ptr: core::ptr::null_mut(),
            status: 0xEE,
            masked_status: 0,
            msg_status: 0,
            sb_len_wr: 0xEE,
            host_status: 0,
            driver_status: 0,
            resid: 0,
            duration: 0,
            info: 0,
        };
        // SAFETY: the buffers have these lengths.
        let result = unsafe { run(socket, &mut header) };
        sense.truncate(header.sb_len_wr.into());
        (result, header, data, sense)
    }

    const IDENTITY: [u8; 6] = [0x12, 1, 0x83, 0, 255, 0];

    #[test]
    fn a_command_is_answered_as_sg_does() {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), &[DriveSpec::parse("d0").unwrap()]).unwrap();
        let socket = server.socket("d0");

        let (result, header, data, _) = command(&socket, &IDENTITY, 255);
        let len = 4 + usize::from(data[3]);
        assert_eq!((result, header.status, header.resid), (Ok(()), 0, 255 - len as c_int));
        assert_eq!((data[1], data[len]), (0x83, 0xEE));
        let (result, header, data, _) = command(&socket, &IDENTITY, 6);
        assert_eq!((result, header.resid, data.len()), (Ok(()), 0, 6));

        let (result, header, data, sense) = command(&socket, &[0xFF; 16], 8);
        assert_eq!((result, header.status, header.driver_status), (Ok(()), 2, DRIVER_SENSE));
        assert_eq!((header.resid, data), (8, vec![0xEE; 8]));
        // ILLEGAL REQUEST, in fixed or descriptor form.
        assert!(matches!(sense[..], [0x70, _, 5, ..] | [0x72, 5, ..]), "{sense:?}");

        server.control("hang d0 on").unwrap();
        let (result, header, ..) = command(&socket, &IDENTITY, 255);
        assert_eq!((result, header.host_status, header.resid), (Ok(()), TIME_OUT, 255));
        server.control("power d0 off").unwrap();
        assert_eq!(command(&socket, &IDENTITY, 255).0, Err(Errno::ENXIO));
    }

    #[test]
    fn other_devices_and_ioctls_are_the_kernels() {
        let file = File::open("/dev/null").unwrap();
        // SAFETY: the kernel refuses both before it looks at the argument.
        let result = unsafe {
            [ioctl(file.as_raw_fd(), SG_IO, core::ptr::null_mut()), ioctl(-1, SG_IO, 0 as _)]
        };
        assert_eq!((result, Errno::last()), ([-1, -1], Errno::EBADF));
        let mut waiting: c_int = -1;
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        // SAFETY: FIONREAD writes an int.
        let result =
            unsafe { ioctl(reader.as_raw_fd(), libc::FIONREAD, (&raw mut waiting).cast()) };
        assert_eq!((result, waiting), (0, 0));
    }
}
