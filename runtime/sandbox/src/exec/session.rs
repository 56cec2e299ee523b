//! One session: its streams, its task, its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coracle_cri::{ExecError, Session, Streams, TerminalSize};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::facts::{self, Facts};
use super::find::Target;
use super::pipe::{GuestEnd, Pipe, Reader, Writer};
use super::terminal::{LineEditor, TerminalWriter};
use crate::container::{Guest, Stdio, call_command};
use crate::exit::Exit;
use crate::link::Linked;
use crate::logs::LogQueue;
use crate::memory::Scope;
use crate::pod::{Pod, Run};
use crate::sockets::p1::Listeners;

/// 128 + SIGINT.
const INTERRUPTED: i32 = 130;
/// 128 + SIGKILL: the container has ended.
const KILLED: i32 = 137;

/// How long the size of a terminal is waited for, which clients send right after they have connected.
const SIZE_PATIENCE: Duration = Duration::from_millis(100);

/// Places that a session holds: among the pod's sessions, among the node's instances.
type Places = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// The guest's ends of the streams.
struct Ends {
    stdin: GuestEnd,
    stdout: GuestEnd,
    stderr: GuestEnd,
}

/// Starts what was found and returns the other ends of its streams.
pub(super) async fn start(
    pod: Arc<Pod>,
    run: Arc<Run>,
    container: &Arc<Guest>,
    target: Target,
    streams: Streams,
    places: Places,
) -> Result<Session, ExecError> {
    let facts = match &target {
        Target::Toolbox(..) => Some(write_facts(&pod, container).await?),
        Target::Call(_) | Target::Program(..) => None,
    };
    let interrupt = CancellationToken::new();
    let (ends, mut session, sizes) = open(streams, &interrupt);
    let guest = sibling(&pod, &run, container, &target, &ends, facts.as_ref());
    let task = tokio::spawn(async move {
        let _places = places;
        let mut guest = guest;
        if let Some(sizes) = sizes {
            guest.config.env.extend(terminal_variables(sizes).await);
        }
        let guest = Arc::new(guest);
        let (stdout, stderr) = (ends.stdout.clone(), ends.stderr.clone());
        let running = guest.meter(run_target(guest.clone(), target, stdout));
        let mut running = AbortOnDrop(guest.threads.light.spawn(running));
        let keeping = async {
            match facts {
                Some(facts) => facts.keep().await,
                None => std::future::pending().await,
            }
        };
        let code = tokio::select! {
            exit = &mut running.0 => {
                let exit = exit.unwrap_or_else(|error| Exit::runtime_failure(&error));
                if !exit.message.is_empty() {
                    write_message(&stderr, &exit.message);
                }
                exit.code
            }
            () = interrupt.cancelled() => INTERRUPTED,
            () = run.ended.cancelled() => KILLED,
            () = keeping => unreachable!("facts are kept until the session ends"),
        };
        // The instance is dropped before anybody hears that it has ended.
        running.stop().await;
        guest.is_gone().await;
        for end in [&ends.stdout, &ends.stderr] {
            end.pipe.end();
        }
        ends.stdin.pipe.abandon();
        code
    });
    let mut task = AbortOnDrop(task);
    session.exited = Box::pin(async move {
        let ended = (&mut task.0).await;
        ended.map_err(|error| ExecError::Failed(format!("the session failed: {error}")))
    });
    Ok(session)
}

/// The pipes of a session, and the sizes of its terminal. `exited` is still to be set.
fn open(
    streams: Streams,
    interrupt: &CancellationToken,
) -> (Ends, Session, Option<watch::Receiver<Option<TerminalSize>>>) {
    let terminal = streams.tty;
    let output = |wanted: bool| match wanted {
        true => Pipe::new(),
        false => Pipe::discarding(),
    };
    let stdin = match streams.stdin {
        true => Pipe::new(),
        false => Pipe::empty(),
    };
    let stdout = output(streams.stdout || (terminal && streams.stderr));
    // A terminal has one output.
    let stderr = match terminal {
        true => stdout.clone(),
        false => output(streams.stderr),
    };
    let writer = streams.stdin.then(|| match terminal {
        true => Box::pin(TerminalWriter {
            editor: LineEditor::default(),
            input: stdin.clone(),
            output: stdout.clone(),
            interrupt: interrupt.clone(),
        }) as coracle_cri::BoxedWriter,
        false => Box::pin(Writer(stdin.clone())) as coracle_cri::BoxedWriter,
    });
    let read = |pipe: &Arc<Pipe>| Box::pin(Reader(pipe.clone())) as coracle_cri::BoxedReader;
    let (resize, sizes) = terminal.then(|| watch::channel(None)).unzip();
    let session = Session {
        stdin: writer,
        stdout: streams.stdout.then(|| read(&stdout)),
        stderr: (streams.stderr && !terminal).then(|| read(&stderr)),
        resize,
        exited: Box::pin(std::future::pending()),
    };
    let end = |pipe| GuestEnd { pipe, terminal };
    let ends = Ends {
        stdin: end(stdin),
        stdout: end(stdout),
        stderr: end(stderr),
    };
    (ends, session, sizes)
}

/// The container's surroundings for an instance beside it. Its memory is limited as the container's
/// and counts for the pod; its CPU time is the container's.
fn sibling(
    pod: &Arc<Pod>,
    run: &Arc<Run>,
    container: &Guest,
    target: &Target,
    ends: &Ends,
    facts: Option<&Facts>,
) -> Guest {
    let mut config = container.config.clone();
    let mut preopens = container.preopens.clone();
    let program = match target {
        Target::Call(_) => container.program.clone(),
        Target::Program(program, line) | Target::Toolbox(program, line) => {
            config.command = line.clone();
            config.args = Vec::new();
            program.clone()
        }
    };
    // They are the container's own, which holds them.
    config.ports = Vec::new();
    if let Some(facts) = facts {
        preopens.add_read_only(facts.folder().to_owned(), facts::FOLDER);
    }
    // Whatever the runtime notes on the way has no log to go to.
    let logs = LogQueue::new(pod.clock.clone());
    logs.close();
    Guest {
        program,
        is_toolbox: matches!(target, Target::Toolbox(..)),
        hostname: container.hostname.clone(),
        preopens,
        scope: pod.namespace.scope(),
        // The one of now: a resize changes it.
        memory: pod.memory.child(Scope::Container, run.memory.own_limit()),
        cpu: run.cpu.clone(),
        logs,
        stdio: Stdio::Session {
            stdin: ends.stdin.clone(),
            stdout: ends.stdout.clone(),
            stderr: ends.stderr.clone(),
        },
        trust: container.trust.clone(),
        connections: Arc::default(),
        buckets: container.buckets.clone(),
        engine: container.engine.clone(),
        threads: container.threads.clone(),
        away: TaskTracker::new(),
        admission: container.admission.clone(),
        config,
    }
}

async fn run_target(guest: Arc<Guest>, target: Target, stdout: GuestEnd) -> Exit {
    match target {
        Target::Call(call) => {
            call.run(&guest, |text| write_message(&stdout, text.trim_end()))
                .await
        }
        Target::Program(..) | Target::Toolbox(..) => {
            let listeners = match &guest.program.linked {
                Linked::Module(pre) => {
                    Listeners::of(pre.module(), &guest.scope, &guest.config.ports).map(Some)
                }
                _ => Ok(None),
            };
            match listeners {
                Ok(listeners) => call_command(guest, listeners).await,
                Err(error) => Exit::not_started(&wasmtime::Error::msg(error.to_string())),
            }
        }
    }
}

/// Whole lines of the runtime's own.
fn write_message(end: &GuestEnd, text: &str) {
    let text = match end.terminal {
        true => text.replace('\n', "\r\n") + "\r\n",
        false => format!("{text}\n"),
    };
    end.pipe.push(text.as_bytes());
}

/// What programs learn of a terminal without asking the system.
async fn terminal_variables(
    mut sizes: watch::Receiver<Option<TerminalSize>>,
) -> Vec<(String, String)> {
    let mut variables = vec![("TERM".to_owned(), "xterm".to_owned())];
    let known = sizes.wait_for(Option::is_some);
    if let Ok(Ok(size)) = tokio::time::timeout(SIZE_PATIENCE, known).await
        && let Some(TerminalSize { width, height }) = *size
    {
        variables.push(("COLUMNS".to_owned(), width.to_string()));
        variables.push(("LINES".to_owned(), height.to_string()));
    }
    variables
}

async fn write_facts(pod: &Arc<Pod>, container: &Guest) -> Result<Facts, ExecError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // A name that no container can have.
    let name = format!(".exec-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let folder: PathBuf = pod.roots.join(name);
    let facts = Facts::write(folder.clone(), pod.clone(), container.preopens.clone()).await;
    facts.map_err(|error| {
        ExecError::Failed(format!(
            "failed to write facts for the toolbox into {}: {error}",
            folder.display()
        ))
    })
}

/// A task that ends with whoever waits for it.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> AbortOnDrop<T> {
    /// Ends the task and waits until everything it held is dropped.
    async fn stop(&mut self) {
        if !self.0.is_finished() {
            self.0.abort();
            let _ = (&mut self.0).await;
        }
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
