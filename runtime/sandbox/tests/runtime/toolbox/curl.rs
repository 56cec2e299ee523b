//! What `curl` sends, and what it makes of answers.

use super::beside;
use crate::exec::Beside;

/// Answers one connection to port 9000 after another with these heads and bodies; what was asked is in `/data/asked`.
async fn answered(beside: &Beside, answers: &[&str], curl: &str) -> (i32, String, String) {
    answered_at(beside, answers, curl, "localhost:9000").await
}

/// Likewise, of a URL there.
async fn answered_at(
    beside: &Beside,
    answers: &[&str],
    curl: &str,
    url: &str,
) -> (i32, String, String) {
    let words: Vec<String> = answers.iter().map(|answer| format!("'{answer}'")).collect();
    let server = format!(
        "rm -f /data/asked; for answer in {}; do printf \"HTTP/1.1 $answer\" | nc -l -p 9000 >> /data/asked; done",
        words.join(" ")
    );
    // The server may begin after the client, and between two connections nobody listens.
    let client = format!("curl --retry-connrefused --retry 9 --retry-delay 0.05 {curl} '{url}'");
    let (served, asked) = tokio::join!(beside.sh(&server), beside.sh(&client));
    assert_eq!(served.0, 0, "{}", served.2);
    asked
}

#[tokio::test]
async fn curl_sends_what_it_is_told_to() {
    let beside = beside().await;
    let setup = beside.sh("printf 'a b\\nc\\n' > /data/file").await;
    assert_eq!(setup.0, 0, "{}", setup.2);
    for (options, sent) in [
        ("--data-raw @/data/file", "@/data/file"),
        ("-d @/data/file", "a bc"),
        ("--data-binary @/data/file", "a b\nc\n"),
        ("-d x=1 --data-raw @y -d z", "x=1&@y&z"),
        ("--data-urlencode 'q=a b&c'", "q=a%20b%26c"),
        ("--data-urlencode q@/data/file", "q=a%20b%0Ac%0A"),
        ("--json '{}'", "{}"),
    ] {
        let ok = "200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok";
        let (code, out, err) = answered(&beside, &[ok], &format!("-s {options}")).await;
        assert_eq!((code, out.as_str()), (0, "ok"), "{options}: {err}");
        let (_, asked, _) = beside.sh("cat /data/asked").await;
        let (head, body) = asked.split_once("\r\n\r\n").expect("a head");
        assert_eq!(body, sent, "{options}");
        let json = options.starts_with("--json");
        assert_eq!(
            head.contains("Content-Type: application/json"),
            json,
            "{head}"
        );
    }
}

#[tokio::test]
async fn curl_tries_again_what_may_pass_and_keeps_bodies_of_failures() {
    let beside = beside().await;
    let busy = "503 Busy\\r\\nContent-Length: 4\\r\\n\\r\\nbusy";
    let fine = "200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok";
    let gone = "404 Gone\\r\\nContent-Length: 4\\r\\n\\r\\ngone";
    let (code, out, err) = answered(&beside, &[busy, busy, fine], "-f").await;
    assert_eq!((code, out.as_str()), (0, "ok"), "{err}");
    assert!(err.contains("Problem: HTTP error. Will retry in "), "{err}");
    // What does not pass is asked once.
    for (options, body) in [("-sf", ""), ("-s --fail-with-body", "gone")] {
        let (code, out, err) = answered(&beside, &[gone], options).await;
        assert_eq!((code, out.as_str()), (22, body), "{options}: {err}");
    }
    let (_, _, err) = answered(&beside, &[gone], "--fail-with-body -o /dev/null").await;
    assert!(
        err.contains("(22) The requested URL returned error: 404"),
        "{err}"
    );
    let (code, _, _) = beside
        .sh("curl -s --retry 2 --retry-delay 0.05 localhost:81")
        .await;
    assert_eq!(code, 7, "a refusal is final unless it is said not to be");
}

#[tokio::test]
async fn urls_may_have_urls_in_their_queries() {
    let beside = beside().await;
    let fine = "200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok";
    for url in [
        "localhost:9000/go?to=http://other/x",
        "http://localhost:9000/go?to=http://other/x",
        "localhost:9000?to=ftp://other/x",
    ] {
        let (code, out, err) = answered_at(&beside, &[fine], "-s", url).await;
        assert_eq!((code, out.as_str()), (0, "ok"), "{url}: {err}");
        let (_, asked, _) = beside.sh("head -n 1 /data/asked").await;
        let query = url.split_once('?').expect("each has one").1;
        assert!(asked.contains(query), "{url}: {asked}");
    }
    // Each attempt to connect is one that the server may not be there for.
    let server = format!("printf \"HTTP/1.1 {fine}\" | nc -l -p 9000");
    let client = "for n in $(seq 1 200); do wget -q -O - 'localhost:9000/go?to=http://other/x' && break; sleep 0.05; done";
    let (served, asked) = tokio::join!(beside.sh(&server), beside.sh(client));
    assert_eq!((served.0, asked.1.as_str()), (0, "ok"), "{}", asked.2);
}
