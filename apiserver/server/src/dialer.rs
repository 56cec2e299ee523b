//! The way to a node: the seam between the API server and kubelets.

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};

use crate::body::Body;

/// Carries requests to the kubelet API of a node, in process or over mTLS.
///
/// Paths are those of a real kubelet: `/containerLogs/{namespace}/{pod}/{container}?follow=true&tailLines=3…`.
#[async_trait]
pub trait NodeDialer: Send + Sync {
    /// Sends `request` to the kubelet of `node`. The answer's body streams.
    async fn request(
        &self,
        node: &str,
        request: Request<Bytes>,
    ) -> Result<Response<Body>, DialError>;
}

/// Why a node did not answer.
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
}
