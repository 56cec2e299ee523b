//! The server alone, behind TLS on a loopback port, and a kubeconfig that leads there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_clock::Clock;
use coracle_server::authn::{ServiceAccountTokens, StaticTokens, TokenKeys};
use coracle_server::{ApiServer, Config};
use coracle_store::{MemoryStore, Store};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The tokens of the contexts `token`, an administrator, and `nobody`, who may do nothing.
const TOKENS: &str =
    "admin-token,token-admin,1,\"system:masters\"\nnobody-token,nobody,2,\"nobodies\"\n";

/// A server that answers until it is dropped.
pub(crate) struct ServedApi {
    runtime: Runtime,
    folder: TempDir,
    api: ApiServer,
}

impl ServedApi {
    /// Starts it on a port of its own. Nothing is in it but what every cluster has.
    pub(crate) fn start() -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let authority = Authority::new()?;
        let tls = authority.server()?;
        let (api, address) = runtime.block_on(serve(tls))?;
        let folder = tempfile::tempdir()?;
        let kubeconfig = authority.kubeconfig(address)?;
        std::fs::write(folder.path().join("config"), kubeconfig.to_string())?;
        Ok(Self {
            runtime,
            folder,
            api,
        })
    }

    /// The kubeconfig. Its contexts are `certificate` (the current one) and `token`, both of administrators, `nobody`,
    /// who may do nothing, and `stranger`, whom the server does not know.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// A folder for the files of a client, gone with the server.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What runs the server, for clients in this process.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}

impl Drop for ServedApi {
    fn drop(&mut self) {
        self.api.stop();
    }
}

async fn serve(tls: Arc<ServerConfig>) -> Result<(ApiServer, SocketAddr), Failure> {
    let clock = Clock::system();
    let store = Arc::new(MemoryStore::new(clock.clone()));
    // Started a second time over the same store, so that the revisions of the first time are history that watches
    // cannot have any more.
    let first = start(store.clone(), clock.clone()).await?;
    first.bootstrap_namespaces().await?;
    first.bootstrap_priority_classes().await?;
    first.stop();
    let api = start(store, clock).await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let accepting = api.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (api, tls) = (accepting.clone(), Arc::clone(&tls));
            tokio::spawn(async move {
                // Clients come and go; what went wrong with a connection, its client says.
                let _ = api.serve(stream, Some(tls), None).await;
            });
        }
    });
    Ok((api, address))
}

async fn start(store: Arc<dyn Store>, clock: Clock) -> Result<ApiServer, Failure> {
    let mut config = Config::new(store, clock);
    config.authentication.static_tokens = StaticTokens::parse(TOKENS)?;
    let keys = TokenKeys::generate()?;
    let accounts = ServiceAccountTokens::new(keys);
    config.authentication.service_accounts = Some(Arc::new(accounts));
    Ok(ApiServer::start(config).await?)
}

/// An authority of its own, which signs for the server and for the administrator.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Result<Self, Failure> {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, "clients-test-ca");
        let key = rcgen::KeyPair::generate()?;
        let certificate = parameters.self_signed(&key)?;
        let issuer = rcgen::Issuer::new(parameters, key);
        Ok(Self {
            certificate,
            issuer,
        })
    }

    fn sign(
        &self,
        names: &[&str],
        user: &str,
        group: &str,
    ) -> Result<(rcgen::Certificate, rcgen::KeyPair), Failure> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = rcgen::CertificateParams::new(names)?;
        parameters.use_authority_key_identifier_extension = true;
        let subject = &mut parameters.distinguished_name;
        subject.push(rcgen::DnType::CommonName, user);
        subject.push(rcgen::DnType::OrganizationName, group);
        let key = rcgen::KeyPair::generate()?;
        Ok((parameters.signed_by(&key, &self.issuer)?, key))
    }

    fn server(&self) -> Result<Arc<ServerConfig>, Failure> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone())?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()?;
        let (certificate, key) = self.sign(&["localhost", "127.0.0.1"], "server", "servers")?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// JSON, which is YAML too.
    fn kubeconfig(&self, address: SocketAddr) -> Result<Value, Failure> {
        let (certificate, key) = self.sign(&[], "certificate-admin", "system:masters")?;
        let users = [
            (
                "certificate",
                json!({
                    "client-certificate-data": base64(&certificate.pem()),
                    "client-key-data": base64(&key.serialize_pem()),
                }),
            ),
            ("token", json!({"token": "admin-token"})),
            ("nobody", json!({"token": "nobody-token"})),
            ("stranger", json!({"token": "no-such-token"})),
        ];
        let cluster = json!({
            "server": format!("https://{address}"),
            "certificate-authority-data": base64(&self.certificate.pem()),
        });
        let context =
            |name: &str| json!({"name": name, "context": {"cluster": "test", "user": name}});
        Ok(json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "certificate",
            "clusters": [{"name": "test", "cluster": cluster}],
            "contexts": users.each_ref().map(|(name, _)| context(name)),
            "users": users.each_ref().map(|(name, user)| json!({"name": name, "user": user})),
        }))
    }
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
