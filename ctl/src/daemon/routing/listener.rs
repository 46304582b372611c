//! Connections that routers open: one listener an address, for all of them.

use super::socket;
use crate::daemon::privileges;
use lockstep_ctl_core::config::bgp::Bgp;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The listeners there are.
#[derive(Debug)]
pub struct Listeners {
    open: BTreeMap<SocketAddr, Listener>,
    accepted: mpsc::Sender<(TcpStream, SocketAddr)>,
}

#[derive(Debug)]
struct Listener {
    socket: Arc<TcpListener>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Returns when its address is free.
    async fn close(mut self) {
        self.task.abort();
        // It ends as aborted.
        let _ = (&mut self.task).await;
    }
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
    pub async fn follow(&mut self, bgp: &Bgp) -> Result<(), String> {
        // A new address may be part of an old one, as every address is of `0.0.0.0`.
        let gone = self.open.extract_if(.., |on, _| !bgp.listen.contains(on));
        for (_, listener) in gone.collect::<Vec<_>>() {
            listener.close().await;
        }
        let mut wrong = Vec::new();
        for &on in &bgp.listen {
            if !self.open.contains_key(&on) {
                match privileges::with(privileges::LOW_PORT, move || socket::listen(on)) {
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
        let task = tokio::spawn(accept(socket.clone(), self.accepted.clone()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_part_of_the_one_before_is_listened_at_at_once() {
        let (mut listeners, mut accepted) = Listeners::new();
        let mut bgp = Bgp::default();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let one = free.local_addr().unwrap();
        drop(free);
        let all = SocketAddr::new([0, 0, 0, 0].into(), one.port());
        for on in [all, one, all] {
            bgp.listen = [on].into_iter().collect();
            listeners.follow(&bgp).await.unwrap();
            let _router = TcpStream::connect(one).await.unwrap();
            accepted.recv().await.unwrap();
        }
    }
}
