//! The same guests on the kernel's sockets: in wasmtime with its own implementation of WASI.

use std::time::Duration;

use tokio::time::timeout;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, Store};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// More than any guest here prints.
const OUTPUT: usize = 1 << 20;

/// How long a guest may take before the test says what it printed until then.
const PATIENCE: Duration = Duration::from_secs(60);

struct Host {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// What a command of WASI 0.2 prints.
pub(super) async fn run(bytes: &[u8], args: &[&str]) -> String {
    let engine = Engine::new(&Config::new()).unwrap();
    let component = Component::new(&engine, bytes).unwrap();
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
    let (mut store, output) = store(&engine, args);
    let command =
        wasmtime_wasi::p2::bindings::Command::instantiate_async(&mut store, &component, &linker);
    let command = command.await.unwrap();
    let ended = timeout(PATIENCE, command.wasi_cli_run().call_run(&mut store)).await;
    let ended = ended.unwrap_or_else(|_| panic!("it did not end: {}", text(&output)));
    assert_eq!(ended.unwrap(), Ok(()), "{}", text(&output));
    text(&output)
}

/// What a command of WASI 0.3 prints.
#[cfg(feature = "p3")]
pub(super) async fn run_newer(bytes: &[u8], args: &[&str]) -> String {
    let mut config = Config::new();
    config.wasm_component_model_async(true);
    let engine = Engine::new(&config).unwrap();
    let component = Component::new(&engine, bytes).unwrap();
    let mut linker = Linker::new(&engine);
    // A guest of 0.3 that has a main function of Rust's uses 0.2 for what that needs.
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
    wasmtime_wasi::p3::add_to_linker(&mut linker).unwrap();
    let (mut store, output) = store(&engine, args);
    let command =
        wasmtime_wasi::p3::bindings::Command::instantiate_async(&mut store, &component, &linker);
    let command = command.await.unwrap();
    let ended = store.run_concurrent(async |store| command.wasi_cli_run().call_run(store).await);
    let ended = timeout(PATIENCE, ended).await;
    let ended = ended.unwrap_or_else(|_| panic!("it did not end: {}", text(&output)));
    assert_eq!(ended.unwrap().unwrap(), Ok(()), "{}", text(&output));
    text(&output)
}

fn store(engine: &Engine, args: &[&str]) -> (Store<Host>, MemoryOutputPipe) {
    let output = MemoryOutputPipe::new(OUTPUT);
    let mut wasi = WasiCtx::builder();
    wasi.arg("guest").args(args).stdout(output.clone());
    wasi.inherit_stderr();
    wasi.allow_tcp(true).allow_udp(true).inherit_network();
    wasi.allow_ip_name_lookup(true);
    let host = Host {
        wasi: wasi.build(),
        table: ResourceTable::new(),
    };
    (Store::new(engine, host), output)
}

fn text(output: &MemoryOutputPipe) -> String {
    String::from_utf8(output.contents().to_vec()).unwrap()
}
