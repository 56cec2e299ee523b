//! Programs that run once from start to end: `_start` and `wasi:cli/run`.

use std::sync::Arc;
use std::time::Duration;

use coracle_network::SocketScope;
use wasmtime::InstancePre;
use wasmtime_wasi::p2::bindings::CommandPre;
#[cfg(feature = "p3")]
use wasmtime_wasi::p3::bindings::CommandPre as CommandPre3;

use super::guest::Guest;
use super::stop::StopSignal;
use crate::exit::Exit;
use crate::link::{ComponentState, Linked, ModuleState, new_component_store, new_store};
use crate::sockets::p1::Listeners;

/// A connection that moved no byte for so long does not keep a stopped guest alive.
const QUIET: Duration = Duration::from_millis(500);
/// How often a draining guest is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Runs the guest to its end.
pub(super) async fn run(
    guest: Arc<Guest>,
    listeners: Option<Listeners>,
    mut stop: StopSignal,
) -> Exit {
    let call = guest.meter(call(guest.clone(), listeners));
    let mut task = guest.threads.light.spawn(call);
    tokio::select! {
        done = &mut task => return done.unwrap_or_else(|error| Exit::runtime_failure(&error)),
        () = stop.asked() => guest.scope.stop_listening(),
    }
    let in_time = tokio::select! {
        biased;
        done = &mut task => return done.unwrap_or_else(|error| Exit::runtime_failure(&error)),
        // Without any grace the guest is killed, quiet or not.
        () = stop.grace_over() => false,
        () = quiet(&guest.scope) => true,
    };
    task.abort();
    let ended = task.await;
    guest.is_gone().await;
    match ended {
        // It ended by itself between the decision and the abort.
        Ok(exit) => exit,
        Err(error) if error.is_panic() => Exit::runtime_failure(&error),
        Err(_) => Exit::stopped(in_time),
    }
}

/// Waits until nothing is in flight. Who came just before the end has not moved a byte yet, so
/// that the silence that counts begins now.
async fn quiet(scope: &SocketScope) {
    let (mut silent, mut moves) = (Duration::ZERO, scope.moves());
    while scope.open_connections() > 0 && silent < QUIET {
        tokio::time::sleep(LOOK).await;
        let before = std::mem::replace(&mut moves, scope.moves());
        silent = match moves == before {
            true => silent + LOOK,
            false => Duration::ZERO,
        };
    }
}

/// Runs the guest in an instance of its own.
pub(crate) async fn call(guest: Arc<Guest>, listeners: Option<Listeners>) -> Exit {
    let outcome = match (&guest.program.linked, listeners) {
        (Linked::Module(pre), Some(listeners)) => call_module(&guest, pre, listeners).await,
        (Linked::Command(pre), _) => call_component(&guest, pre).await,
        #[cfg(feature = "p3")]
        (Linked::Command3(pre), _) => call_component3(&guest, pre).await,
        _ => unreachable!("see `container::prepare`: modules have listeners, http is served"),
    };
    match outcome {
        Ok(Ok(code)) => Exit::with_code(code),
        Ok(Err(error)) => Exit::from_error(&error, &guest.memory),
        // A start function may trap or want too much memory; everything else is the runtime's.
        Err(error) if guest.memory.refusal().is_some() || error.is::<wasmtime::Trap>() => {
            Exit::from_error(&error, &guest.memory)
        }
        Err(error) => Exit::not_started(&error),
    }
}

/// The outer error is one of starting, the inner one how the call ended.
type Outcome = wasmtime::Result<wasmtime::Result<i32>>;

async fn call_module(
    guest: &Guest,
    pre: &InstancePre<ModuleState>,
    listeners: Listeners,
) -> Outcome {
    let state = guest.module_state(listeners)?;
    let mut store = new_store(&guest.engine.engine, state, &guest.cpu);
    let instance = pre.instantiate_async(&mut store).await?;
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
    Ok(start.call_async(&mut store, ()).await.map(|()| 0))
}

async fn call_component(guest: &Arc<Guest>, pre: &CommandPre<ComponentState>) -> Outcome {
    let mut store = new_component_store(guest)?;
    let command = pre.instantiate_async(&mut store).await?;
    let result = command.wasi_cli_run().call_run(&mut store).await;
    Ok(result.map(|result| i32::from(result.is_err())))
}

/// Beside `run` itself what it spawned goes on; all of it ends when `run` has returned.
#[cfg(feature = "p3")]
async fn call_component3(guest: &Arc<Guest>, pre: &CommandPre3<ComponentState>) -> Outcome {
    let mut store = new_component_store(guest)?;
    let command = pre.instantiate_async(&mut store).await?;
    let result = store
        .run_concurrent(async |accessor| command.wasi_cli_run().call_run(accessor).await)
        .await;
    Ok(result.flatten().map(|result| i32::from(result.is_err())))
}
