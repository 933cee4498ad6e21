//! A web server on loopback that does what a test tells it to: a registry that misbehaves, a token server, a proxy.

use std::{
    fmt,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// What a client asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`.
    pub method: String,
    /// With its query, as sent.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
    /// How often this method and path were asked for before.
    pub before: usize,
}

impl Request {
    /// A header, empty if there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The first byte that a `Range` header asks for.
    #[must_use]
    pub fn from(&self) -> usize {
        self.header("range").trim_start_matches("bytes=").split('-').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}

/// What to answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers besides the length.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Send only so many bytes of it, and hang up.
    pub cut: Option<usize>,
    /// Wait between pieces of 64 KiB.
    pub pause: Duration,
}

impl Reply {
    /// An answer of this status.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

/// A running server, ended with its guard.
#[derive(Debug)]
pub struct Fake {
    port: u16,
    log: Arc<Mutex<Vec<Request>>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Starts one that answers by this function.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (log, end) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (their_log, their_end, answer) = (Arc::clone(&log), Arc::clone(&end), Arc::new(answer));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if their_end.load(Ordering::SeqCst) {
                    return;
                }
                let (log, answer) = (Arc::clone(&their_log), Arc::clone(&answer));
                // A client that goes away in the middle is no fault of the server's.
                thread::spawn(move || drop(serve(&stream, &log, &*answer)));
            }
        });
        Self { port, log, end, thread: Some(thread) }
    }

    /// Starts a registry that holds an OCI layout as the repository `x`, and asks first whether a request is to be
    /// answered otherwise.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn registry(layout: &Path, otherwise: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let layout = layout.to_owned();
        Self::start(move |request| otherwise(request).unwrap_or_else(|| from_layout(&layout, request)))
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What was asked so far, besides TLS.
    ///
    /// # Panics
    /// If a thread of the server panicked.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// How many requests of this method have a path that holds this text.
    #[must_use]
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.requests().iter().filter(|request| request.method == method && request.path.contains(part)).count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: &TcpStream, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Reply) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream);
    // A TLS client begins with a handshake record: a plain server does not understand.
    if reader.fill_buf()?.first() == Some(&0x16) {
        (&mut &*stream).write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")?;
        return stream.shutdown(Shutdown::Both);
    }
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let mut request = Request { method, path, headers, body: String::new(), before: 0 };
    let mut body = vec![0; request.header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body)?;
    request.body = String::from_utf8_lossy(&body).into_owned();
    {
        let mut log = log.lock().unwrap();
        request.before = log.iter().filter(|old| old.method == request.method && old.path == request.path).count();
        log.push(request.clone());
    }
    let reply = answer(&request);
    let mut head =
        format!("HTTP/1.1 {} Whatever\r\nContent-Length: {}\r\nConnection: close\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut out = stream;
    out.write_all(head.as_bytes())?;
    if request.method != "HEAD" {
        let body = &reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())];
        for piece in body.chunks(1 << 16) {
            out.write_all(piece)?;
            thread::sleep(reply.pause);
        }
    }
    stream.shutdown(Shutdown::Both)
}

/// What a registry that holds this layout as `x` answers.
fn from_layout(layout: &Path, request: &Request) -> Reply {
    let read = |digest: &str| std::fs::read(layout.join("blobs").join(digest.replace(':', "/")));
    let path = request.path.as_str();
    if path == "/v2/" {
        return Reply::new(200, "{}");
    }
    if let Some(reference) = path.strip_prefix("/v2/x/manifests/") {
        let digest = if reference.contains(':') {
            reference.to_owned()
        } else {
            let index = std::fs::read_to_string(layout.join("index.json")).unwrap();
            let index: serde_json::Value = serde_json::from_str(&index).unwrap();
            let named =
                |entry: &&serde_json::Value| entry["annotations"]["org.opencontainers.image.ref.name"] == reference;
            match index["manifests"].as_array().unwrap().iter().find(named) {
                Some(entry) => entry["digest"].as_str().unwrap().to_owned(),
                None => return Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such tag"}]}"#),
            }
        };
        return match read(&digest) {
            Ok(bytes) => Reply::new(200, bytes)
                .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
                .header("Docker-Content-Digest", digest),
            Err(_) => Reply::new(404, ""),
        };
    }
    let Some(bytes) = path.strip_prefix("/v2/x/blobs/").and_then(|digest| read(digest).ok()) else {
        return Reply::new(404, r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such repository"}]}"#);
    };
    match request.from() {
        0 => Reply::new(200, bytes),
        from if from < bytes.len() => Reply::new(206, &bytes[from..])
            .header("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
        _ => Reply::new(416, ""),
    }
}
