//! ICMP: a ping.

use super::ask::{Question, Trouble};
use crate::daemon::pinger::is_answer;
use crate::daemon::privileges;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use surge_ping::{Client, Config, ICMP, PingIdentifier, PingSequence, SurgeError};
use tokio::time::Instant;

/// What a ping carries: as much as that of `ping`.
const PAYLOAD: [u8; 56] = [0; 56];

/// A socket for each IP version, opened with the first check that needs it.
#[derive(Default)]
pub struct Pings {
    v4: Mutex<Option<Arc<Client>>>,
    v6: Mutex<Option<Arc<Client>>>,
    sequence: AtomicU16,
}

impl std::fmt::Debug for Pings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pings").finish_non_exhaustive()
    }
}

impl Pings {
    fn client(&self, address: IpAddr) -> io::Result<Arc<Client>> {
        let (place, kind) = match address {
            IpAddr::V4(_) => (&self.v4, ICMP::V4),
            IpAddr::V6(_) => (&self.v6, ICMP::V6),
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*place {
            return Ok(Arc::clone(client));
        }
        let open = move || Client::new(&Config::builder().kind(kind).build());
        let client = Arc::new(privileges::with(privileges::RAW, open)?);
        *place = Some(Arc::clone(&client));
        Ok(client)
    }
}

/// Passes when an echo reply comes, after the time that is returned.
pub async fn ask(question: &Question<'_>, pings: &Pings) -> Result<Duration, Trouble> {
    let address = question.to.ip();
    let client = pings.client(address).map_err(|error| {
        Trouble::Here(format!(
            "cannot ping ({error}): give lockstepd CAP_NET_RAW, or let its group ping with the \
             sysctl net.ipv4.ping_group_range"
        ))
    })?;
    let sequence = pings.sequence.fetch_add(1, Ordering::Relaxed);
    // Another one than that of the pings of replicas: they have numbers of their own.
    let identifier = PingIdentifier(!(std::process::id() as u16));
    let pinging = async {
        let mut pinger = client.pinger(address, identifier).await;
        pinger.timeout(question.deadline - Instant::now());
        match pinger.ping(PingSequence(sequence), &PAYLOAD).await {
            Ok((packet, time)) if is_answer(&packet) => Ok(time),
            Ok(_) => Err(Trouble::Backend("answered by an ICMP error".to_owned())),
            Err(SurgeError::Timeout { .. }) => std::future::pending().await,
            Err(SurgeError::IOError(error)) => Err(Trouble::of_socket("pinging", &error)),
            Err(error) => Err(Trouble::Backend(error.to_string())),
        }
    };
    question.within("no echo reply", pinging).await
}
