//! A TCP connection with a router: messages come out of it, bytes go into it. A task of its own
//! reads and writes, so that a router that does neither holds up nothing but itself.

use bytes::BytesMut;
use lockstep_ctl_core::bgp::notification::Notification;
use lockstep_ctl_core::bgp::wire::{self, Message};
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What waits to be written, in pieces; a router that leaves more is not reading.
const WRITES: usize = 64;
/// What waits to be looked at, in messages. While it is full nothing is read: the router waits.
const READS: usize = 64;
/// How long a write may take.
const WRITE: Duration = Duration::from_secs(10);
/// How long the last words may take, and the router's end after them.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Room to read into, in bytes.
const BUFFER: usize = 16 * 1_024;

/// What comes from a connection.
#[derive(Debug)]
pub enum Incoming {
    /// A message.
    Message(Message),
    /// Bytes that end the session; nothing follows.
    Broken(Notification),
    /// The connection is gone; nothing follows.
    Closed,
}

/// A connection. Dropping it sends what is queued and closes it, in the background.
#[derive(Debug)]
pub struct Connection {
    /// Our address in it.
    pub local: IpAddr,
    writes: mpsc::Sender<Vec<u8>>,
    reads: mpsc::Receiver<Incoming>,
    task: JoinHandle<()>,
}

impl Connection {
    /// Reads and writes from now on.
    pub fn start(stream: TcpStream) -> io::Result<Self> {
        let local = stream.local_addr()?.ip();
        let (writes, to_write) = mpsc::channel(WRITES);
        let (to_read, reads) = mpsc::channel(READS);
        let task = tokio::spawn(run(stream, to_write, to_read));
        Ok(Connection {
            local,
            writes,
            reads,
            task,
        })
    }

    /// Queues bytes. `false` when the connection takes no more.
    pub fn send(&self, bytes: Vec<u8>) -> bool {
        bytes.is_empty() || self.writes.try_send(bytes).is_ok()
    }

    /// The next message.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        let next = self.reads.poll_recv(context);
        next.map(|next| next.unwrap_or(Incoming::Closed))
    }

    /// Closes it, and waits until what was queued is sent, for a moment at most.
    pub async fn finish(self) {
        let Connection {
            writes,
            reads,
            task,
            ..
        } = self;
        // The task ends when nothing can be said any more and nobody listens.
        drop((writes, reads));
        let _ = timeout(LAST_WORDS * 2, task).await;
    }
}

async fn run(
    stream: TcpStream,
    mut to_write: mpsc::Receiver<Vec<u8>>,
    to_read: mpsc::Sender<Incoming>,
) {
    let (from, mut to) = stream.into_split();
    let reader = tokio::spawn(read(from, to_read));
    while let Some(bytes) = to_write.recv().await {
        if !matches!(timeout(WRITE, to.write_all(&bytes)).await, Ok(Ok(()))) {
            // Whoever listens to it learns that it is gone.
            return reader.abort();
        }
    }
    let ended = async {
        to.shutdown().await?;
        // Bytes that were not read would turn the close into a reset, which overtakes our last
        // words: wait for the router's own end.
        let mut from = reader.await.map_err(io::Error::other)?;
        let mut rest = [0; 4_096];
        while from.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(LAST_WORDS, ended).await;
}

/// Reads until there is nothing more, or nobody wants it; returns what was read from.
async fn read(mut from: OwnedReadHalf, to_read: mpsc::Sender<Incoming>) -> OwnedReadHalf {
    let mut buffer = BytesMut::with_capacity(BUFFER);
    loop {
        let message = match wire::decode(&mut buffer) {
            Ok(Some(message)) => Incoming::Message(message),
            Err(why) => Incoming::Broken(why),
            Ok(None) => tokio::select! {
                read = from.read_buf(&mut buffer) => match read {
                    Ok(1..) => continue,
                    Ok(0) | Err(_) => Incoming::Closed,
                },
                () = to_read.closed() => return from,
            },
        };
        let last = !matches!(message, Incoming::Message(_));
        if to_read.send(message).await.is_err() || last {
            return from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    #[tokio::test]
    async fn the_end_of_a_connection_lasts_no_longer_than_the_router_takes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let (stream, accepted) = tokio::join!(TcpStream::connect(to), listener.accept());
        let connection = Connection::start(stream.unwrap()).unwrap();
        let (mut router, _) = accepted.unwrap();
        assert!(connection.send(b"last words".to_vec()));
        let router = tokio::spawn(async move {
            let mut heard = Vec::new();
            router.read_to_end(&mut heard).await.unwrap();
            heard
        });
        let begun = Instant::now();
        connection.finish().await;
        let took = begun.elapsed();
        assert!(took < LAST_WORDS, "it took {took:?}");
        assert_eq!(router.await.unwrap(), b"last words");
    }
}
