//! Sockets as text, for people.

use std::fmt::Write;

use serde_json::Value;

use crate::image::bytes;

const HEAD: [&str; 8] = [
    "PROTO", "STATE", "RECV-Q", "SEND-Q", "LOCAL", "PEER", "RECEIVED", "SENT",
];

/// A paragraph for each pod.
pub(super) fn text(pods: &[Value]) -> String {
    let mut text = String::new();
    for (index, pod) in pods.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        describe(pod, &mut text);
    }
    if text.is_empty() {
        text.push_str("no pods\n");
    }
    text
}

fn describe(pod: &Value, text: &mut String) {
    let (namespace, name) = (word(&pod["namespace"]), word(&pod["name"]));
    let addresses = pod["addresses"].as_array();
    let addresses: Vec<&str> = addresses.into_iter().flatten().map(word).collect();
    let address = match addresses.is_empty() {
        true => word(&pod["address"]).to_owned(), // an older node
        false => addresses.join(" "),
    };
    let moved = |field: &str| bytes(pod[field].as_u64().unwrap_or_default());
    let (received, sent) = (moved("receivedBytes"), moved("sentBytes"));
    line(text, format_args!("{namespace}/{name}  {address}"));
    let counts = &pod["connections"];
    let counted = ["accepted", "opened", "refused", "failed", "denied", "reset"]
        .map(|what| format!("{} {what}", counts[what].as_u64().unwrap_or_default()));
    line(text, format_args!("  connections: {}", counted.join(", ")));
    let lost = pod["droppedDatagrams"].as_u64().unwrap_or_default();
    line(
        text,
        format_args!("  received {received}, sent {sent}, datagrams lost {lost}"),
    );
    let sockets = pod["sockets"].as_array().map_or(&[][..], Vec::as_slice);
    if sockets.is_empty() {
        return;
    }
    let rows: Vec<[String; 8]> = std::iter::once(HEAD.map(str::to_owned))
        .chain(sockets.iter().map(row))
        .collect();
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or_default()
        })
        .collect();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        line(text, format_args!("  {}", cells.join("  ").trim_end()));
    }
}

fn row(socket: &Value) -> [String; 8] {
    let peer = match (socket["peer"].as_str(), socket["peerPod"].as_str()) {
        (Some(peer), Some(pod)) => format!("{peer} ({pod})"),
        (Some(peer), None) => peer.to_owned(),
        (None, _) => "*".to_owned(),
    };
    let number = |field: &str| socket[field].as_u64().unwrap_or_default().to_string();
    let moved = |field: &str| socket[field].as_u64().map_or_else(String::new, bytes);
    [
        word(&socket["protocol"]).to_owned(),
        word(&socket["state"]).to_owned(),
        number("receiveQueue"),
        number("sendQueue"),
        word(&socket["local"]).to_owned(),
        peer,
        moved("receivedBytes"),
        moved("sentBytes"),
    ]
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("strings take everything");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_a_paragraph_with_its_sockets_in_columns() {
        let connections = json!({
            "accepted": 3, "opened": 0, "refused": 1, "failed": 0, "denied": 0, "reset": 0,
        });
        let pod = json!({
            "namespace": "default", "name": "web", "address": "10.240.0.2",
            "addresses": ["10.240.0.2", "fd00::2"],
            "receivedBytes": 1200, "sentBytes": 3, "droppedDatagrams": 0,
            "connections": connections,
            "sockets": [
                {"protocol": "tcp", "state": "LISTEN", "local": "0.0.0.0:80",
                 "receiveQueue": 0, "sendQueue": 128},
                {"protocol": "tcp", "state": "ESTAB", "local": "10.240.0.2:80",
                 "peer": "10.240.0.3:40000", "peerPod": "default/ask",
                 "receiveQueue": 0, "sendQueue": 0, "receivedBytes": 1200, "sentBytes": 3},
            ],
        });
        assert_eq!(
            text(&[pod]),
            "\
default/web  10.240.0.2 fd00::2
  connections: 3 accepted, 0 opened, 1 refused, 0 failed, 0 denied, 0 reset
  received 1.2 kB, sent 3 B, datagrams lost 0
  PROTO  STATE   RECV-Q  SEND-Q  LOCAL          PEER                            RECEIVED  SENT
  tcp    LISTEN  0       128     0.0.0.0:80     *
  tcp    ESTAB   0       0       10.240.0.2:80  10.240.0.3:40000 (default/ask)  1.2 kB    3 B
"
        );
    }

    #[test]
    fn no_pods_are_said_to_be_none() {
        assert_eq!(text(&[]), "no pods\n");
    }
}
