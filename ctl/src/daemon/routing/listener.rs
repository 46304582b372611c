//! Connections that routers open: one listener an address, for all of them.

use super::socket;
use lockstep_ctl_core::config::bgp::Bgp;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// The listeners there are.
#[derive(Debug)]
pub struct Listeners {
    open: BTreeMap<SocketAddr, Listener>,
    accepted: mpsc::Sender<(TcpStream, SocketAddr)>,
}

#[derive(Debug)]
struct Listener {
    socket: Arc<TcpListener>,
    task: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Connections that wait to be given to their router's task.
const ACCEPTED: usize = 16;
/// When to accept again after a failure.
const AGAIN: Duration = Duration::from_millis(100);

impl Listeners {
    /// None yet, and where connections come out.
    pub fn new() -> (Self, mpsc::Receiver<(TcpStream, SocketAddr)>) {
        let (accepted, come) = mpsc::channel(ACCEPTED);
        let open = BTreeMap::new();
        (Listeners { open, accepted }, come)
    }

    /// Listens where the configuration says, with its passwords. Returns what is wrong; it is to
    /// be tried again then.
    pub fn follow(&mut self, bgp: &Bgp) -> Result<(), String> {
        self.open.retain(|on, _| bgp.listen.contains(on));
        let mut wrong = Vec::new();
        for &on in &bgp.listen {
            if !self.open.contains_key(&on) {
                match socket::listen(on) {
                    Ok(socket) => self.start(on, socket),
                    Err(error) => wrong.push(format!("cannot listen on {on}: {error}")),
                }
            }
        }
        for (on, listener) in &self.open {
            wrong.extend(set_passwords(*on, &listener.socket, bgp));
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong.join("; ")),
        }
    }

    fn start(&mut self, on: SocketAddr, socket: TcpListener) {
        let socket = Arc::new(socket);
        let task = tokio::spawn(accept(socket.clone(), self.accepted.clone())).abort_handle();
        self.open.insert(on, Listener { socket, task });
    }

    /// Takes back the password of a router that is no longer there.
    pub fn forget(&self, address: std::net::IpAddr) {
        for (on, listener) in &self.open {
            if on.is_ipv4() == address.is_ipv4() {
                // There may have been none.
                let _ = socket::set_password(&listener.socket, address, "");
            }
        }
    }
}

fn set_passwords(on: SocketAddr, socket: &TcpListener, bgp: &Bgp) -> Vec<String> {
    let mut wrong = Vec::new();
    let family = |a: &std::net::IpAddr| a.is_ipv4() == on.is_ipv4();
    for (&address, peer) in bgp.peers.iter().filter(|(a, _)| family(a)) {
        let set = socket::password(peer).and_then(|password| match password {
            Some(password) => socket::set_password(socket, address, &password),
            None => {
                // There may have been none before, too.
                let _ = socket::set_password(socket, address, "");
                Ok(())
            }
        });
        if let Err(error) = set {
            wrong.push(format!("password of {address}: {error}"));
        }
    }
    wrong
}

async fn accept(socket: Arc<TcpListener>, accepted: mpsc::Sender<(TcpStream, SocketAddr)>) {
    loop {
        match socket.accept().await {
            Ok(connection) => {
                if accepted.send(connection).await.is_err() {
                    return;
                }
            }
            // Too many open files, or a connection that was gone again.
            Err(error) => {
                tracing::debug!("cannot accept a connection: {error}");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}
