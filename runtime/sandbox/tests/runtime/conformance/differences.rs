//! Where sockets of pods may differ from the kernel's.

/// One check that comes out differently.
pub(super) struct Difference {
    /// Its name.
    pub(super) check: &'static str,
    /// What is seen in a pod; `None` when that depends on how the node was set up.
    pub(super) pod: Option<&'static str>,
    /// What is seen on the kernel; `None` when that depends on the machine.
    pub(super) kernel: Option<&'static str>,
    /// Why it is not to be the same.
    #[allow(dead_code, reason = "for whoever reads the table")]
    pub(super) why: &'static str,
}

/// Those of WASI 0.2.
pub(super) const P2: &[Difference] = &[
    Difference {
        check: "bound-twice-before-listening",
        pod: Some("second address-in-use"),
        kernel: Some("second done"),
        why: "wasmtime sets SO_REUSEADDR, lest ports linger after a close, and Linux then lets two sockets be bound \
              as long as neither listens. No port of a pod lingers, and the second is told at once.",
    },
    Difference {
        check: "ipv6-tcp",
        pod: Some(
            "IPv4 address invalid-argument, mapped address invalid-argument, loopback done, any, apart from IPv4, \
             loopback, loopback, hello",
        ),
        kernel: None,
        why: "the machine may have no IPv6",
    },
    Difference {
        check: "ipv6-udp",
        pod: Some("IPv4 address invalid-argument, hello from loopback"),
        kernel: None,
        why: "the machine may have no IPv6",
    },
    Difference {
        check: "addresses-any-own",
        pod: Some("listening at any, from own to own, at own from own, they agree true"),
        kernel: Some(
            "listening at any, from loopback to own, at own from loopback, they agree true",
        ),
        why: STAND_IN,
    },
    Difference {
        check: "addresses-own",
        pod: Some("listening at own, from own to own, at own from own, they agree true"),
        kernel: Some(
            "listening at own, from loopback to own, at own from loopback, they agree true",
        ),
        why: STAND_IN,
    },
    Difference {
        check: "udp-from-own",
        pod: Some("own, own"),
        kernel: Some("own, loopback"),
        why: STAND_IN,
    },
    Difference {
        check: "udp-from-any-to-own",
        pod: Some("own, own"),
        kernel: Some("loopback, loopback"),
        why: STAND_IN,
    },
    Difference {
        check: "resolve-nonsense",
        pod: Some(
            r#""" invalid-argument, "two words" invalid-argument, "a..b" invalid-argument, "http://name" invalid-argument"#,
        ),
        kernel: Some(
            r#""" invalid-argument, "two words" invalid-argument, "a..b" name-unresolvable, "http://name" invalid-argument"#,
        ),
        why: "wasmtime lets an empty label through to the resolver; WASI wants what is no name to be an invalid argument",
    },
    Difference {
        check: "reset-then-write",
        pod: Some("write connection-reset, write again closed, read closed, read again closed"),
        kernel: Some(
            "write connection-reset, write again connection-reset, read closed, read again closed",
        ),
        why: "wasmtime repeats a stream's error; after an error WASI wants a stream to be closed, and Linux tells a \
              reset once and has a broken pipe from then on",
    },
    Difference {
        check: "reset-after-last-words",
        pod: Some("last words, connection-reset"),
        kernel: Some("last words, closed"),
        why: "wasmtime ends the outgoing direction before it closes a socket, so that an end goes before the reset. \
              A program that closes its socket with bytes unread resets.",
    },
    Difference {
        check: "udp-bind-multicast",
        pod: Some("bind invalid-argument, address invalid-state"),
        kernel: Some("bind done, at 224.0.0.1"),
        why: "the pod network has no groups to join",
    },
];

/// Those of WASI 0.3.
#[cfg(feature = "p3")]
pub(super) const P3: &[Difference] = &[Difference {
    check: "ipv6-tcp",
    pod: Some("IPv4 address InvalidArgument, loopback done, loopback"),
    kernel: None,
    why: "the machine may have no IPv6",
}];

const STAND_IN: &str = "the kernel takes 127.0.0.1 as the source for all of 127.0.0.0/8, in which the \
                        address lies that stands for the machine's own; for a real one it takes that";
