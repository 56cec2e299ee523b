//! The ways out of the API server: to the kubelets of nodes, and into the cluster's network.
//!
//! Both are traits that whoever assembles the process fills in: in process, or over mTLS and a tunnel. Without them
//! everything else works, and the few requests that need them are answered as upstream answers when nobody listens.

use std::net::IpAddr;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::Body;

/// A two-way stream of bytes.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Carries requests to the kubelet API of a node, in process or over mTLS.
///
/// Paths are those of a real kubelet: `/containerLogs/{namespace}/{pod}/{container}?follow=true&tailLines=3…`,
/// `/exec/{namespace}/{pod}/{container}?command=…&output=1…`, `/attach/…`, `/portForward/{namespace}/{pod}`.
#[async_trait]
pub trait NodeDialer: Send + Sync {
    /// Sends `request` to the kubelet of `node`. The answer's body streams.
    async fn request(
        &self,
        node: &str,
        request: Request<Bytes>,
    ) -> Result<Response<Body>, DialError>;

    /// Sends a request that asks to go on with another protocol (`Upgrade`), as exec, attach and port-forward do.
    async fn upgrade(&self, node: &str, _request: Request<Bytes>) -> Result<Upgraded, DialError> {
        Err(DialError::Unreachable {
            node: node.to_owned(),
            message: "upgraded connections are not supported".to_owned(),
        })
    }
}

/// What came of a request to upgrade.
pub struct Upgraded {
    /// The answer; 101 when the protocol changed.
    pub response: Response<Body>,
    /// What follows the answer, if the protocol changed.
    pub stream: Option<Box<dyn Connection>>,
}

/// Opens connections to addresses of the cluster's network: pods, and what stands behind services.
#[async_trait]
pub trait ClusterDialer: Send + Sync {
    /// A connection to a port of an address.
    async fn connect(&self, address: IpAddr, port: u16) -> Result<Box<dyn Connection>, DialError>;
}

/// Why nobody answered.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No way to this node is known.
    #[error("no kubelet is known for node {0}")]
    Unknown(String),
    /// The connection failed.
    #[error("failed to reach the kubelet of node {node}: {message}")]
    Unreachable {
        /// The node.
        node: String,
        /// What happened.
        message: String,
    },
    /// The connection to an address failed.
    #[error("dial tcp {}: {message}", std::net::SocketAddr::new(*address, *port))]
    Refused {
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
        /// What happened.
        message: String,
    },
}

/// A dialer without nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNodes;

#[async_trait]
impl NodeDialer for NoNodes {
    async fn request(
        &self,
        node: &str,
        _request: Request<Bytes>,
    ) -> Result<Response<Body>, DialError> {
        Err(DialError::Unknown(node.to_owned()))
    }

    async fn upgrade(&self, node: &str, _request: Request<Bytes>) -> Result<Upgraded, DialError> {
        Err(DialError::Unknown(node.to_owned()))
    }
}

/// A dialer without a network.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCluster;

#[async_trait]
impl ClusterDialer for NoCluster {
    async fn connect(&self, address: IpAddr, port: u16) -> Result<Box<dyn Connection>, DialError> {
        Err(DialError::Refused {
            address,
            port,
            message: "connect: network is unreachable".to_owned(),
        })
    }
}
