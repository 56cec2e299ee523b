//! What owners of Services and pods are told of doors that stay closed.

use super::*;

#[tokio::test]
async fn a_port_in_use_is_told_and_tried_again() {
    let mut node = Node::start();
    let taken = TcpListener::bind(host(0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    node.expose(port, &[]);
    let message = node.told("NodePortUnavailable", "Service", "web").await;
    assert!(message.contains(&host(port).to_string()), "{message}");
    assert_eq!(node.services.node_port_address("default", "web"), None);
    drop(taken);
    node.opened(port).await;
}

#[tokio::test]
async fn a_load_balancer_whose_port_is_a_node_port_is_known_to_be_closed_until_that_goes() {
    let mut node = Node::start();
    let port = free_port().await;
    node.expose(port, &[]);
    node.opened(port).await;
    let balancer = balanced("balanced", port, "127.0.0.0/8");
    node.context.informer::<Service>().apply(balancer);
    node.told("AddressInUse", "Service", "balanced").await;
    let known = || node.services.doors.borrow().clone();
    let in_use = BTreeMap::from([((tcp(port), key("balanced")), io::ErrorKind::AddrInUse)]);
    let mut doors = node.services.doors.subscribe();
    let is_known = |doors: &Doors| !doors.failed.is_empty();
    doors.wait_for(is_known).await.expect("the services live");
    assert_eq!(held(&known()), [(tcp(port), key("web"))]);
    assert_eq!(known().failed, in_use);
    node.context.informer::<Service>().delete(web(port));
    let is_open = |doors: &Doors| doors.failed.is_empty() && !doors.open.is_empty();
    doors.wait_for(is_open).await.expect("the services live");
}

#[tokio::test]
async fn a_host_port_that_a_service_has_is_told_and_opened_when_that_goes() {
    let mut node = Node::start();
    let (port, listener) = (free_port().await, listen(&node.fabric, 2));
    node.expose(port, &[]);
    node.opened(port).await;
    node.context.informer().apply(direct(2, port, "Running"));
    let message = node.told("HostPortUnavailable", "Pod", "direct").await;
    let expected =
        format!("hostPort {port} is not open: service default/web has TCP 127.0.0.1:{port};");
    assert!(message.starts_with(&expected), "{message}");
    node.context.informer::<Service>().delete(web(port));
    // The same door, for another one; until then whoever comes is sent away, for the Service has no pods.
    loop {
        let Ok(mut client) = TcpStream::connect(host(port)).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let mut byte = [0];
        tokio::select! {
            accepted = listener.accept() => break drop(accepted.expect("a connection")),
            _ = client.read(&mut byte) => {}
        }
    }
}

#[tokio::test]
async fn a_host_port_that_is_taken_is_told_and_tried_again() {
    let mut node = Node::start();
    let taken = TcpListener::bind(host(0)).await.expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    node.context.informer().apply(direct(2, port, "Running"));
    let message = node.told("HostPortUnavailable", "Pod", "direct").await;
    assert!(message.contains(&format!("hostPort {port}")), "{message}");
    drop(taken);
    node.opened(port).await;
}

#[tokio::test]
async fn who_names_the_address_of_a_load_balancer_is_told_whose_it_is() {
    let mut node = Node::start();
    let port = free_port().await;
    let informer = node.context.informer::<Service>();
    informer.apply(balanced("m", port, "127.0.0.0/8"));
    node.opened(port).await;
    // Its name comes first in the alphabet, and it has nothing to say of that address.
    let ports = json!([{"name": "http", "port": port}]);
    let spec = json!({"clusterIP": "10.96.0.6", "externalIPs": ["127.0.0.1"], "ports": ports});
    informer.apply(service("a", spec));
    let message = node.told("AddressInUse", "Service", "a").await;
    let place = host(port);
    let expected = format!(
        "service default/a is not reachable at TCP {place}: service default/m has TCP {place};"
    );
    assert!(message.starts_with(&expected), "{message}");
    let failed = BTreeMap::from([((tcp(port), key("a")), io::ErrorKind::AddrInUse)]);
    let mut doors = node.services.doors.subscribe();
    let held_by = |doors: &Doors, name| held(doors) == [(tcp(port), key(name))];
    let is_known = |doors: &Doors| doors.failed == failed && held_by(doors, "m");
    doors.wait_for(is_known).await.expect("the services live");
    // It takes its turn, which is no failure of the one that has gone.
    informer.delete(balanced("m", port, "127.0.0.0/8"));
    let is_over = |doors: &Doors| doors.failed.is_empty() && held_by(doors, "a");
    doors.wait_for(is_over).await.expect("the services live");
}

#[tokio::test]
async fn a_port_past_the_most_is_told_and_opened_when_there_is_room() {
    let mut node = Node::start_with(|config| config.host_ports = 1);
    let (first, second) = (free_port().await, free_port().await);
    node.expose(first, &[]);
    node.opened(first).await;
    let informer = node.context.informer::<Service>();
    informer.apply(balanced("late", second, "127.0.0.0/8"));
    let message = node.told("TooManyHostPorts", "Service", "late").await;
    let place = host(second);
    let expected =
        format!("service default/late is not reachable at TCP {place}: no more than 1 ports");
    assert!(message.starts_with(&expected), "{message}");
    let failed = BTreeMap::from([((tcp(second), key("late")), io::ErrorKind::QuotaExceeded)]);
    let mut doors = node.services.doors.subscribe();
    let is_open = |doors: &Doors| held(doors) == [(tcp(first), key("web"))];
    let is_known = |doors: &Doors| doors.failed == failed && is_open(doors);
    doors.wait_for(is_known).await.expect("the services live");
    informer.delete(web(first));
    node.opened(second).await;
}

#[tokio::test]
async fn every_port_that_is_open_is_told_once_and_again_for_another_owner() {
    let node = Node::start();
    let (sender, mut told) = mpsc::unbounded_channel();
    let services = node.services.clone();
    let telling = tokio::spawn(async move {
        let tell = |ports: Vec<crate::OpenPort>| {
            ports.into_iter().for_each(|port| drop(sender.send(port)))
        };
        services.tell_of_ports(tell).await;
    });
    let (port, on_host) = (free_port().await, free_port().await);
    let informer = node.context.informer::<Service>();
    informer.apply(balanced("m", port, "127.0.0.0/8"));
    let mut next = async || {
        let told = told.recv().await.expect("a port");
        assert_eq!(told.protocol, coracle_network::Protocol::Tcp);
        (told.address.port(), told.namespace, told.owner)
    };
    let of = |port, owner: &str| (port, "default".to_owned(), owner.to_owned());
    assert_eq!(next().await, of(port, "service/m"));
    node.context.informer().apply(direct(2, on_host, "Running"));
    assert_eq!(next().await, of(on_host, "pod/direct"));
    informer.apply(balanced("n", port, "127.0.0.0/8"));
    informer.delete(balanced("m", port, "127.0.0.0/8"));
    assert_eq!(next().await, of(port, "service/n"));
    telling.abort();
}
