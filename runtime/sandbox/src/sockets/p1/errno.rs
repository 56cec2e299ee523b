//! Error numbers of WASI 0.1.

use std::io::ErrorKind;

use coracle_network::NetError;

/// A number of `wasi_snapshot_preview1`'s `errno`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errno(pub(super) u16);

impl Errno {
    pub(super) const SUCCESS: Self = Self(0);
    pub(super) const ACCES: Self = Self(2);
    pub(super) const ADDRINUSE: Self = Self(3);
    pub(super) const ADDRNOTAVAIL: Self = Self(4);
    pub(super) const AFNOSUPPORT: Self = Self(5);
    pub(super) const AGAIN: Self = Self(6);
    pub(super) const ALREADY: Self = Self(7);
    pub(super) const BADF: Self = Self(8);
    pub(super) const CONNABORTED: Self = Self(13);
    pub(super) const CONNREFUSED: Self = Self(14);
    pub(super) const CONNRESET: Self = Self(15);
    pub(super) const DESTADDRREQ: Self = Self(17);
    pub(super) const DOM: Self = Self(18);
    pub(super) const FAULT: Self = Self(21);
    pub(super) const HOSTUNREACH: Self = Self(23);
    pub(super) const INPROGRESS: Self = Self(26);
    pub(super) const INVAL: Self = Self(28);
    pub(super) const IO: Self = Self(29);
    pub(super) const ISCONN: Self = Self(30);
    pub(super) const MFILE: Self = Self(33);
    pub(super) const MSGSIZE: Self = Self(35);
    pub(super) const NFILE: Self = Self(41);
    pub(super) const NOPROTOOPT: Self = Self(50);
    pub(super) const NOTCONN: Self = Self(53);
    pub(super) const NOTDIR: Self = Self(54);
    pub(super) const NOTSOCK: Self = Self(57);
    pub(super) const NOTSUP: Self = Self(58);
    pub(super) const PIPE: Self = Self(64);
    pub(super) const PROTOTYPE: Self = Self(67);
    pub(super) const SPIPE: Self = Self(70);
    pub(super) const TIMEDOUT: Self = Self(73);

    // WasmEdge's own, of name lookups.
    pub(super) const AIAGAIN: Self = Self(78);
    pub(super) const AIBADFLAG: Self = Self(79);
    pub(super) const AIFAIL: Self = Self(80);
    pub(super) const AIFAMILY: Self = Self(81);
    pub(super) const AIMEMORY: Self = Self(82);
    pub(super) const AINODATA: Self = Self(83);
    pub(super) const AINONAME: Self = Self(84);
    pub(super) const AISERVICE: Self = Self(85);
    pub(super) const AISOCKTYPE: Self = Self(86);

    /// What the guest's call returns.
    pub(super) fn code(self) -> i32 {
        i32::from(self.0)
    }
}

impl From<NetError> for Errno {
    fn from(error: NetError) -> Self {
        match error {
            NetError::AddressInUse(_) | NetError::PortsExhausted => Self::ADDRINUSE,
            NetError::AddressNotBindable(_) => Self::ADDRNOTAVAIL,
            NetError::BrokenPipe => Self::PIPE,
            NetError::ConnectionRefused(_) => Self::CONNREFUSED,
            NetError::ConnectionReset => Self::CONNRESET,
            NetError::Closed => Self::CONNABORTED,
            NetError::HostUnreachable(_) => Self::HOSTUNREACH,
            NetError::TimedOut(_) => Self::TIMEDOUT,
            NetError::Denied { .. } => Self::ACCES,
            NetError::SocketLimit(_) => Self::MFILE,
            NetError::InvalidArgument(_) | NetError::InvalidState(_) => Self::INVAL,
            NetError::DatagramTooLarge(_) => Self::MSGSIZE,
            NetError::Host {
                kind: ErrorKind::PermissionDenied,
                ..
            } => Self::ACCES,
            NetError::Host { .. } => Self::IO,
        }
    }
}

/// The return value of a call.
pub(super) fn code(result: Result<(), Errno>) -> i32 {
    result.err().unwrap_or(Errno::SUCCESS).code()
}
