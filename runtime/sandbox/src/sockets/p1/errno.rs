//! Error numbers of WASI 0.1.

use coracle_network::NetError;

/// A number of `wasi_snapshot_preview1`'s `errno`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errno(pub(super) u16);

impl Errno {
    pub(super) const SUCCESS: Self = Self(0);
    pub(super) const ADDRINUSE: Self = Self(3);
    pub(super) const AGAIN: Self = Self(6);
    pub(super) const BADF: Self = Self(8);
    pub(super) const CONNABORTED: Self = Self(13);
    pub(super) const CONNRESET: Self = Self(15);
    pub(super) const FAULT: Self = Self(21);
    pub(super) const INVAL: Self = Self(28);
    pub(super) const IO: Self = Self(29);
    pub(super) const MFILE: Self = Self(33);
    pub(super) const NOTCONN: Self = Self(53);
    pub(super) const NOTDIR: Self = Self(54);
    pub(super) const NOTSOCK: Self = Self(57);
    pub(super) const PIPE: Self = Self(64);
    pub(super) const SPIPE: Self = Self(70);

    /// What the guest's call returns.
    pub(super) fn code(self) -> i32 {
        i32::from(self.0)
    }
}

impl From<NetError> for Errno {
    /// Only errors of established sockets: WASI 0.1 opens none.
    fn from(error: NetError) -> Self {
        match error {
            NetError::AddressInUse(_) => Self::ADDRINUSE,
            NetError::BrokenPipe => Self::PIPE,
            NetError::ConnectionReset => Self::CONNRESET,
            NetError::Closed => Self::CONNABORTED,
            _ => Self::IO,
        }
    }
}

/// The return value of a call.
pub(super) fn code(result: Result<(), Errno>) -> i32 {
    result.err().unwrap_or(Errno::SUCCESS).code()
}
