//! As much of an HTTP/1.1 client as the seed needs: one request per connection, bounded answers.

use std::io;

use crate::tcp::TcpStream;

/// Longest answer that is read.
const MAX_ANSWER: usize = 256 * 1024;

/// Posts a JSON body and gives back the status code and the body of the answer.
pub async fn post_json(host: &str, port: u16, path: &str, json: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(host, port).await?;
    let length = json.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{json}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        let bytes = stream.read(MAX_ANSWER + 1 - answer.len()).await?;
        if bytes.is_empty() {
            return parse(&answer);
        }
        answer.extend(bytes);
        if answer.len() > MAX_ANSWER {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the answer is too long",
            ));
        }
    }
}

fn parse(answer: &[u8]) -> io::Result<(u16, String)> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    match response
        .parse(answer)
        .map_err(|e| invalid(&e.to_string()))?
    {
        httparse::Status::Partial => Err(invalid("the answer ends within its head")),
        httparse::Status::Complete(head) => {
            let status = response
                .code
                .ok_or_else(|| invalid("the answer has no status"))?;
            Ok((
                status,
                String::from_utf8_lossy(&answer[head..]).into_owned(),
            ))
        }
    }
}
