//! Clients that do not speak TLS.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What TLS begins with: the type of a record.
pub(super) const HANDSHAKE: u8 = 0x16;
/// Most bytes that are read of a client that is refused.
const MAX_REST: u64 = 64 << 10;
const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 122\r\n\r\n\
{\"error\":{\"message\":\"expected TLS, found plain HTTP: use https\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}\n";

/// The first byte that a client sends, which stays unread; none if it sends nothing and closes.
pub(super) async fn first_byte(stream: &TcpStream) -> io::Result<Option<u8>> {
    let mut first = [0];
    let count = stream.peek(&mut first).await?;
    Ok(first.first().copied().filter(|_| count > 0))
}

/// Tells a client of HTTP what is expected, and others nothing. Returns the error.
pub(super) async fn refuse(mut stream: TcpStream, first: u8) -> io::Error {
    if first.is_ascii_uppercase() {
        let told = async {
            stream.write_all(ANSWER).await?;
            stream.shutdown().await?;
            // A connection that is closed with unread bytes is reset, and the answer may be lost.
            tokio::io::copy(&mut stream.take(MAX_REST), &mut tokio::io::sink()).await
        };
        let _ = told.await;
    }
    io::Error::new(io::ErrorKind::InvalidData, "expected TLS")
}

#[cfg(test)]
mod tests {
    use super::ANSWER;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let text = str::from_utf8(ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
