//! What the server may have of this host: TCP, files and the authorities that the system trusts.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use coracle_server::Connection;
use coracle_server::outgoing::Outside;
use rustls::RootCertStore;
use tokio::net::TcpStream;

/// This host.
pub(super) struct Host;

#[async_trait]
impl Outside for Host {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Connection>> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, String> {
        let roots = coracle_tls::host_authorities();
        roots.map(Arc::new).map_err(|why| why.to_string())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }
}
