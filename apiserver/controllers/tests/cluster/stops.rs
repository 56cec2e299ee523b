use std::sync::Arc;
use std::time::Duration;

use coracle_client::kube::client::Body;
use coracle_client::{CancellationToken, Client, Context};
use coracle_clock::Clock;
use http::{Request, Response};

/// A server that takes requests and never answers.
fn silent() -> Client {
    let service = tower::service_fn(|_: Request<Body>| {
        std::future::pending::<Result<Response<Body>, std::io::Error>>()
    });
    Client::new(service, "default")
}

#[tokio::test(start_paused = true)]
async fn controllers_that_still_wait_for_their_first_lists_stop_at_once() {
    let (clock, stop) = (Clock::fake(1), CancellationToken::new());
    let ctx = Context::new(Arc::new(|_: &str| silent()), clock.clone(), stop.clone());
    let running = tokio::spawn(coracle_controllers::run_all(ctx, None));
    clock.sleep(Duration::from_secs(1)).await;
    let stopped = clock.monotonic();
    stop.cancel();
    running.await.expect("no panic");
    assert_eq!(clock.monotonic(), stopped, "somebody was waited for");
}
