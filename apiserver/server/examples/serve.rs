//! An API server alone on a loopback port: for replaying recorded exchanges against it, and for measuring it.
//!
//! ```text
//! cargo run -p coracle-server --example serve -- --listen 127.0.0.1:26443 --token-auth-file tokens.csv --ca-out ca.crt
//! ```
//!
//! It makes its own certificate at every start, runs no controllers and no node, and forgets everything at the end,
//! unless `--data-dir` names a folder for its store.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::schema::{STACK_SIZE, on_deep_stack};
use coracle_clock::Clock;
use coracle_server::allocate::ServiceRanges;
use coracle_server::authn::{ServiceAccountTokens, StaticTokens, TokenKeys};
use coracle_server::{ApiServer, Config};
use coracle_store::{CompactionPolicy, MemoryStore, RedbStore, Store, run_compactor};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    // As the real server's threads: they look at the sockets often.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.event_interval(8).thread_stack_size(STACK_SIZE);
    let runtime = runtime.enable_all().build()?;
    on_deep_stack("serve", || runtime.block_on(serve()))?
}

async fn serve() -> Result<(), Failure> {
    let mut listen: SocketAddr = "127.0.0.1:26443".parse()?;
    let mut tokens = StaticTokens::default();
    let mut ca_out = None;
    let mut data = None;
    let mut compaction = CompactionPolicy::default();
    let mut arguments = std::env::args().skip(1);
    while let (Some(flag), Some(value)) = (arguments.next(), arguments.next()) {
        match flag.as_str() {
            "--listen" => listen = value.parse()?,
            "--token-auth-file" => tokens = StaticTokens::parse(&std::fs::read_to_string(value)?)?,
            "--ca-out" => ca_out = Some(value),
            "--compact-every" => compaction.check_every = Duration::from_secs(value.parse()?),
            "--keep-revisions" => compaction.keep_at_most = value.parse()?,
            "--data-dir" => data = Some(PathBuf::from(value)),
            other => return Err(format!("unknown flag {other}").into()),
        }
    }
    let clock = Clock::system();
    let store: Arc<dyn Store> = match data {
        Some(folder) => Arc::new(RedbStore::open(folder.join("store.redb"), clock.clone())?),
        None => Arc::new(MemoryStore::new(clock.clone())),
    };
    tokio::spawn(run_compactor(store.clone(), clock.clone(), compaction));
    let mut config = Config::new(Arc::clone(&store), clock);
    config.authentication.static_tokens = tokens;
    let keys = TokenKeys::generate()?;
    let accounts = ServiceAccountTokens::new(keys);
    config.authentication.service_accounts = Some(Arc::new(accounts));
    let server = ApiServer::start(config).await?;
    server.bootstrap_namespaces().await?;
    server.bootstrap_priority_classes().await?;
    server.bootstrap_roles().await?;
    server.bootstrap_flow_control().await?;
    let address = ServiceRanges::default().api_server();
    // Endpoints cannot be loopback addresses; nobody connects to this one.
    server
        .bootstrap_kubernetes_service(address, [10, 240, 0, 1].into(), listen.port())
        .await?;
    let listener = TcpListener::bind(listen).await?;
    let (tls, certificate) = self_signed()?;
    if let Some(path) = ca_out {
        std::fs::write(path, certificate)?;
    }
    println!("listening on https://{listen}");
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = tokio::signal::ctrl_c() => break,
        };
        // As the real server does: answers are small, and must not wait for one another.
        stream.set_nodelay(true)?;
        let (server, tls) = (server.clone(), Arc::clone(&tls));
        tokio::spawn(async move {
            // Clients come and go; what went wrong with one is of no interest here.
            let _ = server.serve(stream, Some(tls), None).await;
        });
    }
    server.stop();
    store.close().await;
    Ok(())
}

/// A TLS configuration with a new certificate for localhost, and that certificate in PEM.
fn self_signed() -> Result<(Arc<rustls::ServerConfig>, String), Failure> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(config), made.cert.pem()))
}
