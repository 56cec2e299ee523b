//! Second tier of the guestbook: a JSON API over HTTP/1.1 on plain `wasi:sockets` 0.2.
//!
//! | request | answer |
//! |---|---|
//! | `GET /entries` | `{"greeting": …, "entries": [{"id", "author", "text"}, …]}` |
//! | `POST /entries` with `{"author", "text"}` | 201 and the entry; 400 says what is wrong with it |
//! | `GET /healthz` | `ok` |
//!
//! The greeting comes from the environment, which the manifest fills from a ConfigMap; the entries live in the third
//! tier (`store.rs`), so this one can have any number of replicas.

mod http;
mod store;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use guestbook_net::executor::{block_on, sleep, spawn, within};
use guestbook_net::tcp::{TcpListener, TcpStream};
use serde::Serialize;

use http::{Request, Response};
use store::{Entry, Store};

/// Connections served at once; further ones wait in the listener's queue.
const MAX_CONNECTIONS: usize = 256;
/// How long a connection may stay silent, or take over one request.
const IDLE: Duration = Duration::from_secs(30);

fn main() {
    if let Err(e) = block_on(serve()) {
        eprintln!("cannot serve: {e}");
        std::process::exit(1);
    }
}

async fn serve() -> io::Result<()> {
    let port = setting("PORT")
        .and_then(|port| port.parse().ok())
        .unwrap_or(8080);
    let app = Rc::new(App {
        greeting: setting("GREETING").unwrap_or_else(|| "Welcome".into()),
        store: Store::from_authority(
            &setting("STORE").unwrap_or_else(|| "guestbook-store:7000".into()),
        ),
    });
    let listener = TcpListener::bind(port).await?;
    println!(
        "listening on port {port}, greeting {:?}, store {}",
        app.greeting, app.store
    );

    let slots = Rc::new(Slots::default());
    loop {
        let slot = Slots::take(&slots).await;
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(e) => {
                // Such as a client that went away at once: no reason to stop serving the others.
                eprintln!("cannot accept: {e}");
                sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let app = app.clone();
        spawn(async move {
            let peer = stream
                .peer()
                .map_or_else(|_| "?".into(), |peer| peer.ip().to_string());
            if let Err(e) = converse(&app, stream, &peer).await {
                eprintln!("{peer} {e}");
            }
            drop(slot);
        });
    }
}

/// One connection, request after request.
async fn converse(app: &App, mut stream: TcpStream, peer: &str) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let request = match within(IDLE, http::read_request(&mut stream, &mut buffer)).await {
            None | Some(Ok(None)) => return Ok(()),
            Some(Ok(Some(request))) => request,
            Some(Err(http::ReadError::Io(e))) => return Err(e),
            Some(Err(http::ReadError::Refused(response))) => {
                println!("{peer} - {}", response.status);
                stream.write_all(&response.to_bytes(false)).await?;
                stream.finish();
                return Ok(());
            }
        };
        let response = app.answer(&request).await;
        println!(
            "{peer} {} {} {}",
            request.method, request.path, response.status
        );
        let written = within(
            IDLE,
            stream.write_all(&response.to_bytes(request.keep_alive)),
        )
        .await;
        written.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
        if !request.keep_alive {
            stream.finish();
            return Ok(());
        }
    }
}

/// What a request is answered from.
struct App {
    greeting: String,
    store: Store,
}

#[derive(Serialize)]
struct Page<'a> {
    greeting: &'a str,
    entries: Vec<Entry>,
}

impl App {
    async fn answer(&self, request: &Request) -> Response {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/healthz") => Response::text(200, "ok\n"),
            ("GET", "/entries") => match self.store.list().await {
                Ok(entries) => Response::json(
                    200,
                    &Page {
                        greeting: &self.greeting,
                        entries,
                    },
                ),
                Err(e) => Response::error(503, &format!("the store does not answer: {e}")),
            },
            ("POST", "/entries") => match Entry::from_json(&request.body) {
                Err(problem) => Response::error(400, &problem),
                Ok(mut entry) => match self.store.add(&mut entry).await {
                    Ok(()) => Response::json(201, &entry),
                    Err(e) => Response::error(503, &format!("the store does not answer: {e}")),
                },
            },
            (_, "/healthz" | "/entries") => {
                Response::error(405, "this resource does not know that method")
            }
            _ => Response::error(404, "there is only /entries and /healthz"),
        }
    }
}

/// The places for open connections.
#[derive(Default)]
struct Slots {
    taken: Cell<usize>,
    /// Who waits for a place.
    waiting: RefCell<Option<Waker>>,
}

/// A place; given back on drop.
struct Slot(Rc<Slots>);

impl Slots {
    /// Waits for a place.
    async fn take(slots: &Rc<Self>) -> Slot {
        poll_fn(|cx| {
            if slots.taken.get() < MAX_CONNECTIONS {
                return Poll::Ready(());
            }
            slots.waiting.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        slots.taken.set(slots.taken.get() + 1);
        Slot(slots.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        if let Some(waker) = self.0.waiting.take() {
            waker.wake();
        }
    }
}

/// A variable of the environment that is set and not empty.
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
