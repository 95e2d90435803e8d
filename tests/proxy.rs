//! A server's address that can be made to fail: what is said to it waits, or its connections end and it takes no more.

use parking_lot::{Condvar, Mutex};
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

/// How often a connection looks at the mode.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const CHUNK: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Open,
    /// As a server that is stopped: connections stand, nothing is answered.
    Paused,
    /// As a server that is gone: connections end, new ones at once.
    Cut,
}

type Shared = Arc<(Mutex<Mode>, Condvar)>;

pub struct Proxy {
    mode: Shared,
    /// `host:port` of each server; connections go to them in turn.
    servers: Arc<Mutex<Vec<String>>>,
    /// The servers' URL with the proxy's address in place of theirs.
    url: String,
}

/// `host:port` of a URL `scheme://[user@]host:port[/…]`.
fn server(url: &str) -> String {
    let (_, rest) = url.split_once("://").unwrap();
    let authority = rest.split('/').next().unwrap();
    authority.rsplit('@').next().unwrap().to_owned()
}

impl Proxy {
    /// Before the server of a URL, to which others can be added.
    pub fn before(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let mode: Shared = Arc::new((Mutex::new(Mode::Open), Condvar::new()));
        let servers = Arc::new(Mutex::new(vec![server(url)]));
        let this = Self { mode, servers, url: url.replacen(&server(url), &here, 1) };
        let (shared, servers) = (Arc::clone(&this.mode), Arc::clone(&this.servers));
        // Ends with the process of the test.
        std::thread::spawn(move || {
            for (turn, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let all = servers.lock().clone();
                if pass(&shared)
                    && !all.is_empty()
                    && let Ok(server) = TcpStream::connect(&all[turn % all.len()])
                {
                    join(&client, &server, &shared);
                    join(&server, &client, &shared);
                }
            }
        });
        this
    }

    /// New connections go to this one too.
    pub fn add(&self, url: &str) {
        self.servers.lock().push(server(url));
    }

    /// New connections go elsewhere; those that are there stay.
    pub fn remove(&self, url: &str) {
        let gone = server(url);
        self.servers.lock().retain(|server| *server != gone);
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.0.lock() = mode;
        self.mode.1.notify_all();
    }
}

/// Waits while nothing passes. False: the server is gone.
fn pass(shared: &Shared) -> bool {
    let mut mode = shared.0.lock();
    while *mode == Mode::Paused {
        shared.1.wait(&mut mode);
    }
    *mode == Mode::Open
}

/// Brings what `from` says to `to`, on a thread of its own, until either ends or the server is gone.
fn join(from: &TcpStream, to: &TcpStream, shared: &Shared) {
    let (mut from, mut to, shared) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(shared));
    from.set_nodelay(true).unwrap();
    from.set_read_timeout(Some(LOOK_EVERY)).unwrap();
    std::thread::spawn(move || {
        let mut chunk = [0; CHUNK];
        while pass(&shared) {
            match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => {
                    if !pass(&shared) || to.write_all(&chunk[..read]).is_err() {
                        break;
                    }
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        // One that has ended already is as good as ended.
        drop(from.shutdown(Shutdown::Both));
        drop(to.shutdown(Shutdown::Both));
    });
}
