//! Hellos on the wire: a UDP socket, and a tag of whoever has the key.

use crate::daemon::{disk, privileges};
use lockstep_ctl_core::config::layer2::Layer2;
use lockstep_ctl_core::layer2::{Hello, HelloError, MAX_BYTES};
use ring::hmac;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use tokio::net::UdpSocket;

/// The bytes of a tag: HMAC-SHA256.
const TAG: usize = 32;

/// The shortest key that is taken, in bytes.
const MIN_KEY: usize = 16;

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A hello of a peer.
    Hello(Hello),
    /// One of a peer whose program speaks another version.
    OtherVersion(String, u8),
    /// Something that is none of a peer's.
    Nothing,
}

/// Where hellos go out and come in.
pub struct Hellos {
    socket: UdpSocket,
    key: Option<hmac::Key>,
    buffer: Vec<u8>,
}

impl Hellos {
    /// Opens the socket and reads the key.
    ///
    /// # Errors
    /// With what to do about it. Without hellos no balancer may own anything.
    pub async fn open(settings: &Layer2) -> Result<Self, String> {
        let key = settings.key_file.as_deref().map(read_key).transpose()?;
        let listen = settings.listen;
        let opened = privileges::with(privileges::LOW_PORT, move || {
            let socket = std::net::UdpSocket::bind(listen)?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        });
        let socket = opened.map_err(|error| {
            format!(
                "cannot listen on {listen}: {error}; `listen` is an address of this host, and no \
                 other program has the port"
            )
        })?;
        Ok(Hellos {
            socket,
            key,
            buffer: vec![0; MAX_BYTES + TAG],
        })
    }

    /// Tells every peer. One that cannot be told is one that does not hear.
    pub fn send(&self, settings: &Layer2, hello: &Hello) {
        let mut bytes = hello.emit();
        if let Some(key) = &self.key {
            let tag = hmac::sign(key, &bytes);
            bytes.extend(tag.as_ref());
        }
        for (name, address) in &settings.peers {
            if let Err(error) = self.socket.try_send_to(&bytes, *address) {
                tracing::debug!(peer = %name, "layer 2: cannot send: {error}");
            }
        }
    }

    /// What has come next.
    ///
    /// # Errors
    /// When nothing has come.
    pub fn receive(&mut self, settings: &Layer2) -> io::Result<Heard> {
        let (length, from) = loop {
            match self.socket.try_recv_from(&mut self.buffer) {
                Ok(received) => break received,
                // A peer that is not there yet.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            }
        };
        let bytes = &self.buffer[..length];
        Ok(read(self.key.as_ref(), bytes, settings, from.ip()))
    }

    /// Waits until something has come.
    pub async fn readable(&self) {
        // What an error means shows when the socket is read.
        let _ = self.socket.readable().await;
    }
}

/// Reads what has come from an address. Who it says it is has that one.
fn read(key: Option<&hmac::Key>, bytes: &[u8], settings: &Layer2, from: IpAddr) -> Heard {
    let mut of = settings.peers.iter();
    let Some((name, _)) = of.find(|(_, address)| address.ip() == from) else {
        return Heard::Nothing;
    };
    let Some(bytes) = verified(key, bytes) else {
        return Heard::Nothing;
    };
    match Hello::parse(bytes) {
        Ok(hello) if hello.name == *name => Heard::Hello(hello),
        Err(HelloError::Version(version)) => Heard::OtherVersion(name.clone(), version),
        Ok(_) | Err(_) => Heard::Nothing,
    }
}

fn verified<'a>(key: Option<&hmac::Key>, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let Some(key) = key else {
        return Some(bytes);
    };
    let (bytes, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG)?)?;
    hmac::verify(key, bytes, tag).ok()?;
    Some(bytes)
}

fn read_key(file: &Path) -> Result<hmac::Key, String> {
    let shown = file.display();
    let key = disk::read_named(file).map_err(|error| {
        format!("cannot read key_file {shown}: {error}; write one with `openssl rand -hex 32`")
    })?;
    let key = key.trim_ascii();
    if key.len() < MIN_KEY {
        return Err(format!(
            "key_file {shown} has less than {MIN_KEY} bytes; write one with `openssl rand -hex 32`"
        ));
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tagged_with_another_key_or_changed_is_nothing() {
        let key = |text: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, text);
        let (ours, other) = (key(b"0123456789abcdef"), key(b"0123456789abcdeg"));
        let mut bytes = b"hello".to_vec();
        let tag = hmac::sign(&ours, &bytes);
        bytes.extend(tag.as_ref());
        assert_eq!(verified(Some(&ours), &bytes), Some(&b"hello"[..]));
        assert_eq!(verified(Some(&other), &bytes), None);
        assert_eq!(verified(Some(&ours), b"hello"), None);
        bytes[0] ^= 1;
        assert_eq!(verified(Some(&ours), &bytes), None);
        assert_eq!(verified(None, b"hello"), Some(&b"hello"[..]));
    }

    #[test]
    fn a_peer_of_another_version_is_known_by_its_address_and_key() {
        let text = "[layer2]\ninterfaces = [\"eth0\"]\nlisten = \"10.0.0.1\"\npeers = [{ name = \
                    \"lb2\", address = \"10.0.0.2\" }]\n";
        let file = lockstep_ctl_core::config::parse("lockstepd.toml", text).unwrap();
        let settings = file.config.layer2.unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
        let other = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdeg");
        let version_1 = [&b"LSL2\x01"[..], &[0; 30]].concat();
        let tagged = [&version_1, hmac::sign(&key, &version_1).as_ref()].concat();
        let heard = |key, bytes: &[u8], from: [u8; 4]| read(key, bytes, &settings, from.into());
        let lb2 = Heard::OtherVersion("lb2".to_owned(), 1);
        assert_eq!(heard(Some(&key), &tagged, [10, 0, 0, 2]), lb2);
        assert_eq!(heard(None, &version_1, [10, 0, 0, 2]), lb2);
        assert_eq!(heard(Some(&other), &tagged, [10, 0, 0, 2]), Heard::Nothing);
        assert_eq!(heard(None, &version_1, [10, 0, 0, 3]), Heard::Nothing);
    }

    #[test]
    fn a_key_that_is_too_short_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("key");
        std::fs::write(&file, "0123456789abcde \n").unwrap();
        let error = read_key(&file).unwrap_err();
        assert!(error.contains("less than 16 bytes"), "{error}");
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        assert!(read_key(&file).is_ok());
    }
}
