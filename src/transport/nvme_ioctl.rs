//! The ioctl for NVMe admin commands: hands memory to the kernel.

use super::drive::Data;
use core::time::Duration;
use idm_protocol::nvme::AdminCommand;
use idm_protocol::reservation::nvme::ReservationCommand;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct nvme_passthru_cmd` from Linux' `linux/nvme_ioctl.h`.
#[derive(Default)]
#[repr(C)]
pub struct Command {
    opcode: u8,
    flags: u8,
    rsvd1: u16,
    nsid: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    addr: u64,
    metadata_len: u32,
    data_len: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    timeout_ms: u32,
    result: u32,
}

nix::ioctl_none!(nvme_id, b'N', 0x40);
nix::ioctl_readwrite!(nvme_admin_cmd, b'N', 0x41, Command);
nix::ioctl_readwrite!(nvme_io_cmd, b'N', 0x43, Command);

/// Runs one admin command on an NVMe block node. Blocks until it has finished or the kernel has
/// given it up. Returns the status field of the completion; the amount of data moved is not
/// reported.
pub fn run(
    fd: BorrowedFd<'_>,
    command: &AdminCommand,
    data: Data<'_>,
    timeout: Duration,
) -> Result<libc::c_int, nix::Error> {
    let asked = Command {
        opcode: command.opcode,
        cdw10: command.cdw10,
        cdw12: command.cdw12,
        ..Command::default()
    };
    let mut passed = with_data(asked, data, timeout)?;
    // SAFETY: `passed` has the kernel's layout. Its address leads to the data buffer, which lives
    // until the call returns, with the length given beside it; the kernel writes to it only for
    // opcodes that read from the drive; then it came from a `&mut`. The call is synchronous: the
    // kernel does not touch the memory after the call has returned.
    unsafe { nvme_admin_cmd(fd.as_raw_fd(), &mut passed) }
}

/// Reads the Identify data of a namespace. As [`run`].
pub fn identify_namespace(
    fd: BorrowedFd<'_>,
    namespace: u32,
    data: &mut [u8],
    timeout: Duration,
) -> Result<libc::c_int, nix::Error> {
    let opcode = idm_protocol::nvme::OPCODE_IDENTIFY;
    let asked = Command { opcode, nsid: namespace, ..Command::default() };
    let mut passed = with_data(asked, Data::In(data), timeout)?;
    // SAFETY: as in `run`.
    unsafe { nvme_admin_cmd(fd.as_raw_fd(), &mut passed) }
}

/// Runs a reservation command for a namespace on its block node. As [`run`].
pub fn reserve(
    fd: BorrowedFd<'_>,
    namespace: u32,
    command: &ReservationCommand,
    data: Data<'_>,
    timeout: Duration,
) -> Result<libc::c_int, nix::Error> {
    let ReservationCommand { opcode, cdw10, cdw11 } = *command;
    let asked = Command { opcode, nsid: namespace, cdw10, cdw11, ..Command::default() };
    let mut passed = with_data(asked, data, timeout)?;
    // SAFETY: as in `run`.
    unsafe { nvme_io_cmd(fd.as_raw_fd(), &mut passed) }
}

/// The identifier of the namespace of a block node.
pub fn namespace(fd: BorrowedFd<'_>) -> Result<u32, nix::Error> {
    // SAFETY: the ioctl has no argument and touches no memory.
    let number = unsafe { nvme_id(fd.as_raw_fd()) }?;
    u32::try_from(number).map_err(|_| nix::Error::EINVAL)
}

/// The command with the place of its data and its time-out.
fn with_data(command: Command, data: Data<'_>, timeout: Duration) -> Result<Command, nix::Error> {
    // Bit 0 of the opcode gives the direction, also for the kernel.
    let to_drive = command.opcode & 1 != 0;
    let (pointer, len) = match data {
        // With this direction the kernel only reads from the buffer.
        Data::Out(bytes) if to_drive => (bytes.as_ptr().expose_provenance(), bytes.len()),
        Data::In(bytes) if !to_drive => (bytes.as_mut_ptr().expose_provenance(), bytes.len()),
        Data::Out(_) | Data::In(_) => return Err(nix::Error::EINVAL),
    };
    Ok(Command {
        addr: pointer as u64,
        data_len: u32::try_from(len).map_err(|_| nix::Error::EINVAL)?,
        timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        ..command
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;
    use idm_protocol::{MutexOp, nvme};
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn the_command_is_laid_out_as_the_kernels() {
        assert_eq!(size_of::<Command>(), 72);
        for (offset, expected) in [
            (offset_of!(Command, nsid), 4),
            (offset_of!(Command, metadata), 16),
            (offset_of!(Command, addr), 24),
            (offset_of!(Command, data_len), 36),
            (offset_of!(Command, cdw10), 40),
            (offset_of!(Command, cdw12), 48),
            (offset_of!(Command, timeout_ms), 64),
            (offset_of!(Command, result), 68),
        ] {
            assert_eq!(offset, expected);
        }
        // The type of requests is signed with musl.
        let readwrite =
            |nr: u8| nix::request_code_readwrite!(b'N', nr, size_of::<Command>()) as u32;
        assert_eq!((readwrite(0x41), readwrite(0x43)), (0xC048_4E41, 0xC048_4E43));
        assert_eq!(nix::request_code_none!(b'N', 0x40), 0x4E40);
    }

    #[test]
    fn what_is_no_nvme_device_is_refused_before_anything_is_sent() {
        let file = File::open("/dev/null").unwrap();
        let time = Duration::from_secs(1);
        let mut room = [0; 512];
        let read = run(file.as_fd(), &nvme::read_table(1), Data::In(&mut room), time);
        assert_eq!(read, Err(nix::Error::ENOTTY));
        let write = run(file.as_fd(), &nvme::mutex(MutexOp::Trylock), Data::In(&mut room), time);
        assert_eq!(write, Err(nix::Error::EINVAL), "the direction");
        assert_eq!(namespace(file.as_fd()), Err(nix::Error::ENOTTY));
        let report = idm_protocol::reservation::nvme::report(512);
        let read = reserve(file.as_fd(), 1, &report, Data::In(&mut room), time);
        assert_eq!(read, Err(nix::Error::ENOTTY));
        let read = identify_namespace(file.as_fd(), 1, &mut room, time);
        assert_eq!(read, Err(nix::Error::ENOTTY));
    }
}
