//! A server that behaves like the hubs, and misbehaves on request.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::json;
use sha1::{Digest, Sha1};
use sha2::Sha256;

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A fault in the answer to a request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This status with these header lines.
    Status(u16, &'static str),
    /// The connection breaks after this many bytes of the body.
    Cut(usize),
    /// Content-Length and body are longer by this many bytes.
    Longer(usize),
    /// The bytes are wrong.
    Corrupt,
    /// A range request is answered with the whole file.
    IgnoreRange,
    /// A range request is answered from a wrong offset.
    WrongRange,
    /// Redirected to this address.
    Redirect(String),
    /// Nothing is sent for this long.
    Stall(Duration),
}

#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Lower-case name, value.
    pub(crate) headers: BTreeMap<String, String>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    /// Names of files that are stored as git blobs; the others are in LFS.
    git: Vec<String>,
    /// Part of the target, times left, fault.
    faults: Vec<(String, usize, Fault)>,
    seen: Vec<Seen>,
    /// Server of the files in LFS, if not this one.
    cdn: Option<String>,
    /// Required token.
    token: Option<String>,
    /// Whether the list omits sizes and checksums.
    bare: bool,
    delay: Duration,
}

/// A running server with the repository `org/model`.
#[derive(Clone)]
pub(crate) struct Hub {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hub = Hub { url: format!("http://{}", listener.local_addr().unwrap()), state: Arc::default() };
        let server = hub.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let hub = server.clone();
                thread::spawn(move || {
                    // Tests may close the connection.
                    let _ = hub.serve(stream);
                });
            }
        });
        hub
    }

    pub(crate) fn file(self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.state.lock().unwrap().files.insert(name.into(), content.into());
        self
    }

    pub(crate) fn git_file(self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.state.lock().unwrap().git.push(name.into());
        self.file(name, content)
    }

    pub(crate) fn cdn(self, cdn: &Hub) -> Self {
        let files = self.state.lock().unwrap().files.clone();
        cdn.state.lock().unwrap().files.extend(files);
        self.state.lock().unwrap().cdn = Some(cdn.url.clone());
        self
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.state.lock().unwrap().token = Some(token.into());
        self
    }

    pub(crate) fn bare(self) -> Self {
        self.state.lock().unwrap().bare = true;
        self
    }

    /// Every request takes at least this long.
    pub(crate) fn delay(self, delay: Duration) -> Self {
        self.state.lock().unwrap().delay = delay;
        self
    }

    /// The next `times` requests whose target contains `part` get the fault.
    pub(crate) fn fault(&self, part: &str, times: usize, fault: Fault) {
        self.state.lock().unwrap().faults.push((part.into(), times, fault));
    }

    /// Requests since the last call.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(()) };
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let seen = Seen { method, target, headers };
        let fault = {
            let mut state = self.state.lock().unwrap();
            state.seen.push(seen.clone());
            let hit = |fault: &&mut (String, usize, Fault)| fault.1 > 0 && seen.target.contains(&fault.0);
            state.faults.iter_mut().find(hit).map(|fault| {
                fault.1 -= 1;
                fault.2.clone()
            })
        };
        thread::sleep(self.state.lock().unwrap().delay);
        let (head, mut body) = self.answer(&seen, fault.as_ref());
        let (mut cut, mut length) = (None, body.len());
        match fault {
            Some(Fault::Cut(at)) => cut = Some(at),
            Some(Fault::Corrupt) => body.iter_mut().for_each(|byte| *byte ^= 1),
            Some(Fault::Longer(by)) => {
                length += by;
                body.resize(length, 0);
            }
            Some(Fault::Stall(time)) => thread::sleep(time),
            _ => {}
        }
        if seen.method == "HEAD" {
            body.clear();
        }
        let mut stream = stream;
        write!(stream, "HTTP/1.1 {head}Content-Length: {length}\r\nConnection: close\r\n\r\n")?;
        stream.write_all(&body[..cut.unwrap_or(body.len()).min(body.len())])?;
        stream.flush()?;
        // Wait for the client to close, so that a reset does not lose what was sent.
        if cut.is_none() {
            stream.shutdown(std::net::Shutdown::Write)?;
            let _ = reader.read(&mut [0]);
        }
        Ok(())
    }

    /// Status and header lines, and the body.
    fn answer(&self, seen: &Seen, fault: Option<&Fault>) -> (String, Vec<u8>) {
        let state = self.state.lock().unwrap();
        let plain = |status: &str, headers: &str| (format!("{status}\r\n{headers}"), Vec::new());
        match fault {
            Some(Fault::Status(status, headers)) => return plain(&format!("{status} Fault"), headers),
            Some(Fault::Redirect(to)) => return plain("302 Found", &format!("Location: {to}\r\n")),
            _ => {}
        }
        let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
        let given = seen.headers.get("authorization").map(String::as_str);
        let expected = state.token.as_ref().map(|token| format!("Bearer {token}"));
        if expected.is_some() && given != expected.as_deref() {
            return plain(
                "401 Unauthorized",
                "X-Error-Code: RepoNotFound\r\nX-Error-Message: Invalid credentials\r\n",
            );
        }
        if let Some(name) = path.strip_prefix("/cdn/") {
            return content(&state, seen, name, fault);
        }
        for revision in [COMMIT, "main", "refs%2Fpr%2F1"] {
            if path == format!("/api/models/org/model/revision/{revision}") {
                return (JSON.into(), listing(&state).to_string().into_bytes());
            }
        }
        if path.starts_with("/api/models/org/model/revision/") {
            return plain("404 Not Found", "X-Error-Code: RevisionNotFound\r\n");
        }
        if let Some(name) = path.strip_prefix(&format!("/org/model/resolve/{COMMIT}/")) {
            let lfs = !state.git.iter().any(|git| git == name);
            return match (&state.cdn, state.files.get(name)) {
                (Some(cdn), Some(content)) if lfs => plain(
                    "302 Found",
                    &format!(
                        "Location: {cdn}/cdn/{name}?signature=secret\r\nX-Linked-Etag: \"{}\"\r\nX-Linked-Size: {}\r\n",
                        sha256(content),
                        content.len()
                    ),
                ),
                _ => content(&state, seen, name, fault),
            };
        }
        if path == "/api/v1/models/org/model/repo/files" && query.contains("Revision=master") {
            let files = state.files.iter().map(|(name, content)| {
                json!({"Path": name, "Type": "blob", "Size": content.len(), "Sha256": sha256(content)})
            });
            let answer = json!({"Code": 200, "Data": {"Files": files.collect::<Vec<_>>()}});
            return (JSON.into(), answer.to_string().into_bytes());
        }
        if let ("/api/v1/models/org/model/repo", Some((_, name))) = (path, query.split_once("FilePath=")) {
            return content(&state, seen, name, fault);
        }
        plain("404 Not Found", "X-Error-Code: RepoNotFound\r\nX-Error-Message: Repository not found\r\n")
    }
}

const JSON: &str = "200 OK\r\nContent-Type: application/json\r\n";

fn listing(state: &State) -> serde_json::Value {
    let files = state.files.iter().map(|(name, content)| {
        if state.bare {
            return json!({"rfilename": name});
        }
        let mut file = json!({"rfilename": name, "size": content.len(), "blobId": git(content)});
        if !state.git.contains(name) {
            file["lfs"] = json!({"sha256": sha256(content), "size": content.len(), "pointerSize": 130});
        }
        file
    });
    json!({"id": "org/model", "sha": COMMIT, "siblings": files.collect::<Vec<_>>()})
}

fn content(state: &State, seen: &Seen, name: &str, fault: Option<&Fault>) -> (String, Vec<u8>) {
    let Some(content) = state.files.get(name) else {
        return ("404 Not Found\r\nX-Error-Code: EntryNotFound\r\n".into(), Vec::new());
    };
    let etag = if state.git.iter().any(|git| git == name) { git(content) } else { sha256(content) };
    let headers = format!("ETag: \"{etag}\"\r\n");
    let range = seen.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    match (range.and_then(|start| start.parse::<usize>().ok()), fault) {
        (None, _) | (_, Some(Fault::IgnoreRange)) => (format!("200 OK\r\n{headers}"), content.clone()),
        (Some(start), _) if start >= content.len() => {
            (format!("416 Range Not Satisfiable\r\n{headers}"), Vec::new())
        }
        (Some(start), fault) => {
            let start = if matches!(fault, Some(Fault::WrongRange)) { start - 1 } else { start };
            let (last, total) = (content.len() - 1, content.len());
            let range = format!("Content-Range: bytes {start}-{last}/{total}\r\n");
            (format!("206 Partial Content\r\n{headers}{range}"), content[start..].to_vec())
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

pub(crate) fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

pub(crate) fn git(content: &[u8]) -> String {
    hex(&Sha1::new().chain_update(format!("blob {}\0", content.len())).chain_update(content).finalize())
}
